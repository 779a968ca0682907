package toolstack

import (
	"maps"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/ident"
)

var webDomain = Domain{Domid: 7, UUID: ident.UUID{0x5c, 0x0f}, Name: "web"}

const webConfig = `# the web server
name = "web" # as in DNS
uuid='5C0F0000-0000-0000-0000-000000000000'
kernel	= '/boot/old'	# see the wiki
ramdisk = "/boot/old-initrd"; memory = 512
cmdline = "root=/dev/xvda quiet=\"1\""
disk = [ "phy:/dev/a,xvda,w",
  # kernel = "/not/this"
  'file:kernel = 7', ]
vif = [ [ 'a', 0x1f ], ]
extra_thing += [ "x" ]
# kernel = "/boot/other"
`

func TestConfigWithKernel(t *testing.T) {
	old := Kernel{File: "/boot/old", Initrd: "/boot/old-initrd", Cmdline: `root=/dev/xvda quiet="1"`}
	for what, c := range map[string]struct {
		change []string // of webConfig
		new    Kernel
		want   []string // changed in what is read
		says   string
	}{
		"another kernel":            {nil, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, []string{`'/boot/old'`, `"/boot/new"`}, ""},
		"all of it":                 {nil, Kernel{"/boot/new", "/boot/i", `a\b "c"`, ""}, []string{`'/boot/old'`, `"/boot/new"`, `"/boot/old-initrd"`, `"/boot/i"`, `"root=/dev/xvda quiet=\"1\""`, `"a\\b \"c\""`}, ""},
		"no initrd before":          {[]string{`ramdisk = "/boot/old-initrd"; `, ""}, Kernel{"/boot/new", "/boot/i", old.Cmdline, ""}, []string{"'/boot/old'\t# see the wiki\n", "\"/boot/new\"\t# see the wiki\nramdisk = \"/boot/i\"\n"}, ""},
		"no initrd before, no room": {[]string{`ramdisk = "/boot/old-initrd"; `, "", "\t# see", "; x = 1 # see"}, Kernel{"/boot/new", "/boot/i", old.Cmdline, ""}, nil, "line 4: something else"},
		"none, nothing beside":      {[]string{`ramdisk = "/boot/old-initrd"; `, "", "\t# see the wiki", ""}, Kernel{"/boot/new", "/boot/i", old.Cmdline, ""}, []string{"'/boot/old'\n", "\"/boot/new\"\nramdisk = \"/boot/i\"\n"}, ""},
		"no initrd after":           {[]string{"; memory", "\nmemory"}, Kernel{"/boot/new", "", old.Cmdline, ""}, []string{"'/boot/old'", `"/boot/new"`, "ramdisk = \"/boot/old-initrd\"\n", ""}, ""},
		"no initrd, all on a line":  {nil, Kernel{"/boot/new", "", old.Cmdline, ""}, nil, "line 5: something else"},
		"written already":           {[]string{"'/boot/old'", `"/boot/new"`}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, []string{}, ""},
		"a third kernel":            {[]string{"'/boot/old'", `"/boot/third"`}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, `line 4: kernel is "/boot/third"`},
		"twice":                     {[]string{"memory", `kernel = "/boot/old"; memory`}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, "line 5: kernel is set a second time, after line 4"},
		"added to":                  {[]string{"memory", `cmdline += "x"; memory`}, Kernel{"/boot/new", old.Initrd, "y", ""}, nil, "no plain text"},
		"root and extra":            {[]string{"cmdline = ", "extra = "}, Kernel{"/boot/new", old.Initrd, "y", ""}, nil, "root and extra"},
		"root and extra stay":       {[]string{"cmdline = ", "extra = "}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, []string{`'/boot/old'`, `"/boot/new"`}, ""},
		"no kernel":                 {[]string{"kernel\t=", "kern = "}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, "no kernel"},
		"no cmdline":                {[]string{"cmdline = ", "cmd = "}, Kernel{"/boot/new", old.Initrd, "y", ""}, nil, "has no cmdline"},
		"a loader":                  {[]string{"memory", `bootloader="pygrub"; memory`}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, "bootloader is set"},
		"another domain":            {[]string{"5C0F", "5C10"}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, "not about domain web"},
		"another name, no UUID":     {[]string{"uuid=", "id=", `"web"`, `"db"`}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, `its name is "db"`},
		"no name":                   {[]string{"uuid=", "id=", `name = `, `nom = `}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, `no name`},
		"a renamed one":             {[]string{`"web"`, `"db"`}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, []string{`'/boot/old'`, `"/boot/new"`}, ""},
		"Python":                    {[]string{"memory = 512", "import os"}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, "line 5: no = after import"},
		"a list that has no end":    {[]string{"7', ]", "7',"}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, "does not end"},
		"a string that has none":    {[]string{`"x"`, `"x`}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, "does not end"},
		"two values":                {[]string{"512", "512 7"}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, "after the value of memory"},
		"an escape by number":       {[]string{"'/boot/old'", `"/boot/\x6fld"`}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, nil, "no plain text"},
		"no end of the last line":   {[]string{"# kernel = \"/boot/other\"\n", ""}, Kernel{"/boot/new", old.Initrd, old.Cmdline, ""}, []string{`'/boot/old'`, `"/boot/new"`}, ""},
		"a control character":       {nil, Kernel{"/boot/new", old.Initrd, "a\nb", ""}, nil, "cannot be written"},
	} {
		raw := strings.NewReplacer(c.change...).Replace(webConfig)
		if len(c.change) > 0 && raw == webConfig {
			t.Errorf("%s: nothing was changed", what)
		}
		was := old
		if strings.HasPrefix(what, "no initrd before") || strings.HasPrefix(what, "none,") {
			was.Initrd = ""
		}
		got, err := ConfigWithKernel([]byte(raw), webDomain, was, c.new)
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		if want := strings.NewReplacer(c.want...).Replace(raw); err != nil || string(got) != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", what, err, got, want)
			continue
		}
		again, err := ConfigWithKernel(got, webDomain, was, c.new)
		if err != nil || string(again) != string(got) {
			t.Errorf("%s: done again: %v\n%s", what, err, again)
		}
	}
}

// TestConfigWithKernelSettings: each setting is there or not, before and after, and
// the lines are in any order.
func TestConfigWithKernelSettings(t *testing.T) {
	value := map[bool]string{true: "v", false: ""}
	for bits := range 16 {
		old := Kernel{File: "/boot/old", Initrd: value[bits&1 != 0], Cmdline: value[bits&2 != 0]}
		next := Kernel{File: "/boot/new", Initrd: value[bits&4 != 0], Cmdline: value[bits&8 != 0]}
		kernel, rest := "kernel = \"/boot/old\"\n", ""
		for name, text := range map[string]string{"ramdisk": old.Initrd, "cmdline": old.Cmdline} {
			if text != "" {
				rest += name + " = \"" + text + "\"\n"
			}
		}
		for _, raw := range []string{kernel + rest, rest + kernel} {
			out, err := ConfigWithKernel([]byte("name = \"web\"\n"+raw), webDomain, old, next)
			if err != nil {
				t.Errorf("%+v to %+v: %v\n%s", old, next, err, raw)
				continue
			}
			all, err := parseConfig(out)
			got := make(map[string]string)
			for _, a := range all {
				got[a.name] = a.text
			}
			want := map[string]string{"name": "web", "kernel": next.File, "ramdisk": next.Initrd, "cmdline": next.Cmdline}
			maps.DeleteFunc(want, func(_, text string) bool { return text == "" })
			if err != nil || !maps.Equal(got, want) || len(all) != len(want) {
				t.Errorf("%+v to %+v: %v\n%s\nbecame\n%s", old, next, err, raw, out)
			}
		}
	}
}

// FuzzConfigWithKernel: whatever is in a file, what is written has the settings that it
// had, but for those that were to be changed.
func FuzzConfigWithKernel(f *testing.F) {
	f.Add(webConfig, "/boot/new", "/boot/i", "quiet")
	f.Add("name='web';kernel=\"/boot/old\"", "/boot/new", "", "")
	f.Fuzz(func(t *testing.T, raw, kernel, initrd, line string) {
		old := Kernel{File: "/boot/old", Initrd: "/boot/old-initrd", Cmdline: `root=/dev/xvda quiet="1"`}
		next := Kernel{File: kernel, Initrd: initrd, Cmdline: line}
		out, err := ConfigWithKernel([]byte(raw), webDomain, old, next)
		if err != nil {
			return
		}
		before, err := parseConfig([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		after, err := parseConfig(out)
		if err != nil {
			t.Fatalf("%v: %q", err, out)
		}
		want := map[string]string{"kernel": kernel, "ramdisk": initrd, "cmdline": line}
		rest := func(all []assignment, raw string) (text string) {
			for _, a := range all {
				if _, ours := want[a.name]; !ours {
					text += a.name + "=" + raw[a.begin:a.end] + "\n"
				}
			}
			return text
		}
		if a, b := rest(before, raw), rest(after, string(out)); a != b {
			t.Errorf("%q became %q", a, b)
		}
		for name, text := range want {
			a, err := only(after, name)
			if name == "cmdline" && line == old.Cmdline {
				continue
			}
			if err != nil || (a == nil) != (text == "") && (a == nil || a.text != "") || a != nil && a.text != text {
				t.Errorf("%s is %+v, %v; want %q of %q", name, a, err, text, out)
			}
		}
	})
}
