package ident

import (
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for s, want := range map[string]struct{ utf8, printable string }{
		"domU-web":          {"domU-web", "domU-web"},
		"müller 中":          {"müller 中", "müller 中"},
		"caf\xe9":           {`caf\xe9`, `caf\xe9`},
		"a\n\x1b[2Jb\t\x00": {"a\n\x1b[2Jb\t\x00", `a\x0a\x1b[2Jb\x09\x00`},
		"\u202ebew\u0085":   {"\u202ebew\u0085", `\u202ebew\x85`},
		"\ufffd\xff":        {"\ufffd" + `\xff`, "\ufffd" + `\xff`},
		"\U000e0001":        {"\U000e0001", `\U000e0001`},
		"":                  {"", ""},
	} {
		if got := UTF8(s); got != want.utf8 {
			t.Errorf("UTF8(%q) = %q", s, got)
		}
		if got := Printable(s); got != want.printable {
			t.Errorf("Printable(%q) = %q", s, got)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("caf\xe9\x1b")
	f.Fuzz(func(t *testing.T, s string) {
		if u := UTF8(s); !utf8.ValidString(u) || utf8.ValidString(s) && u != s {
			t.Fatalf("%q -> %q", s, u)
		}
		p := Printable(s)
		if !utf8.ValidString(p) {
			t.Fatalf("%q -> %q", s, p)
		}
		for _, r := range p {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q -> %q", s, p)
			}
		}
	})
}
