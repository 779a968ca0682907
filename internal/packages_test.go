package internal_test

import (
	"flag"
	"fmt"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the packages' picture into docs/ARCHITECTURE.md")

// allowed is what each package may import: packages of this module, of others, and
// those of the standard library that change what a program is. What is not here
// fails. An import to the same floor or up makes a circle, or a house in which
// nobody finds his way: think twice, then add it here, and run
//
//	go test ./internal -run TestPackages -update
var allowed = map[string]string{
	// Ground floor: names and data, without Xen, clock or files.
	"ident":       "",
	"reusebitmap": "github.com/bits-and-blooms/bitset",
	"cachemap":    "ident",
	"api":         "ident",
	// Rooms that know one thing each.
	"internal/text":              "ident",
	"internal/version":           "",
	"internal/sdnotify":          "",
	"internal/store":             "",
	"internal/logonce":           "",
	"internal/schedule":          "ident github.com/adhocore/gronx",
	"internal/toolstack":         "ident os/exec",
	"internal/bootonce":          "ident internal/store",
	"internal/kernelfile":        "",
	"internal/disk":              "ident golang.org/x/sys/unix github.com/fsnotify/fsnotify unsafe",
	"internal/disk/storetest":    "",
	"internal/store/inmemory":    "",
	"internal/completion":        "github.com/urfave/cli/v2",
	"internal/checkpoint/stream": "ident",
	"internal/checkpoint/store":  "github.com/cespare/xxhash/v2 github.com/klauspost/compress/s2 github.com/klauspost/compress/zstd go.etcd.io/bbolt",
	"xenstore":                   "golang.org/x/sys/unix",
	"xenctl/internal/abi":        "",
	"xenctl/internal/privcmd":    "golang.org/x/sys/unix unsafe",
	"xenctl/facts":               "ident xenctl/internal/abi",
	"xenctl":                     "ident cachemap xenctl/facts xenctl/internal/abi xenctl/internal/privcmd golang.org/x/sys/unix unsafe",
	"xenctl/libxl/xenlight":      "",
	"xenctl/libxl":               "ident xenctl xenctl/libxl/xenlight",
	"internal/hypervisor":        "ident cachemap xenctl",
	// What they make together.
	"internal/custody":     "internal/disk",
	"internal/validate":    "ident cachemap reusebitmap internal/disk internal/hypervisor",
	"internal/scrub":       "ident internal/hypervisor internal/validate",
	"internal/reboot":      "api ident xenctl/facts",
	"internal/inventory":   "api ident internal/hypervisor xenctl",
	"internal/config":      "api ident internal/schedule github.com/fsnotify/fsnotify github.com/pelletier/go-toml/v2 github.com/pelletier/go-toml/v2/unstable",
	"internal/settings":    "api internal/config",
	"internal/health":      "internal/config net/http os/exec",
	"internal/update":      "ident internal/bootonce",
	"internal/operation":   "api ident internal/store internal/text",
	"internal/state":       "api ident internal/schedule internal/store internal/text go.etcd.io/bbolt go.etcd.io/bbolt/errors",
	"internal/samples":     "api ident internal/store",
	"internal/web":         "api ident",
	"internal/web/webtest": "api ident",
	// Checkpoints: a program of its own, which nothing of the reboot needs.
	"internal/checkpoint/vmcore":  "",
	"internal/checkpoint/command": "ident internal/checkpoint/store internal/checkpoint/stream internal/checkpoint/vmcore internal/completion internal/version github.com/urfave/cli/v2 os/exec",
	"cmd/warmcheckpoint":          "internal/checkpoint/command",
	// The agent, and who has it do things.
	"internal/agent":     "api ident cachemap internal/custody internal/disk internal/hypervisor internal/inventory internal/reboot internal/scrub internal/store internal/text internal/toolstack internal/validate xenctl golang.org/x/sys/unix",
	"internal/operator":  "api ident internal/agent internal/bootonce internal/config internal/disk internal/health internal/kernelfile internal/operation internal/state internal/store internal/toolstack internal/update",
	"internal/scheduler": "api ident internal/agent internal/config internal/health internal/operation internal/operator internal/schedule internal/state",
	// Who is asked, and shows.
	"internal/apiserver": "api ident internal/text net/http",
	"internal/webserver": "api internal/web net/http",
	"internal/metrics": "api ident internal/scrub xenctl net/http github.com/prometheus/client_golang/prometheus github.com/prometheus/client_golang/prometheus/collectors " +
		"github.com/prometheus/client_golang/prometheus/promhttp",
	// The programs. The command line links no daemon.
	"internal/daemon": "api ident internal/agent internal/apiserver internal/bootonce internal/disk internal/hypervisor internal/logonce internal/metrics internal/operation internal/operator internal/samples internal/scheduler internal/scrub internal/sdnotify " +
		"internal/settings internal/state internal/store internal/toolstack internal/version internal/web internal/webserver xenctl xenctl/libxl xenstore net/http",
	"internal/cli": "api ident cachemap internal/bootonce internal/completion internal/config internal/disk internal/hypervisor internal/inventory internal/schedule internal/settings internal/state internal/text " +
		"internal/toolstack internal/validate internal/version internal/web xenctl xenstore github.com/urfave/cli/v2 golang.org/x/term",
	"cmd/warmreboot":     "internal/cli",
	"cmd/warmrebootd":    "internal/daemon",
	"packaging/generate": "internal/cli internal/checkpoint/command",
	// Labs and benchmarks: nothing but tests imports them.
	"tests/model":                  "",
	"tests/bench/agent":            "ident cachemap internal/disk internal/hypervisor internal/validate tests/bench/measure",
	"tests/bench/cmd/benchhand":    "tests/bench/hand",
	"tests/bench/hand":             "ident reusebitmap xenctl tests/lab/agent tests/lab/proc golang.org/x/sys/unix net/http os/exec unsafe",
	"tests/bench/lab":              "tests/bench/hand tests/lab tests/lab/agent tests/lab/build tests/lab/demo",
	"tests/bench/measure":          "",
	"tests/faults":                 "",
	"tests/faults/campaign":        "cachemap tests/faults tests/faults/guest tests/faults/hand tests/lab tests/lab/build tests/lab/demo",
	"tests/faults/cmd/faultguest":  "tests/faults/guest",
	"tests/faults/cmd/faulthand":   "tests/faults/hand",
	"tests/faults/cmd/faults":      "tests/faults/campaign tests/lab/build",
	"tests/faults/cmd/stressguest": "tests/faults/guest",
	"tests/faults/guest":           "internal/disk golang.org/x/sys/unix",
	"tests/faults/hand":            "api ident cachemap internal/disk internal/hypervisor internal/validate tests/faults/guest xenctl xenstore github.com/cespare/xxhash/v2 golang.org/x/sys/unix",
	"tests/lab":                    "tests/lab/agent tests/lab/build tests/lab/proc net/http",
	"tests/lab/agent":              "golang.org/x/sys/unix net/http os/exec",
	"tests/lab/build":              "tests/lab/agent os/exec",
	"tests/lab/cmd/lab":            "tests/lab tests/lab/agent tests/lab/build tests/lab/demo",
	"tests/lab/cmd/labagent":       "tests/lab/agent",
	"tests/lab/demo":               "tests/lab tests/lab/agent tests/lab/build",
	"tests/lab/proc":               "",
}

// told are those of the standard library that have to be in the table.
var told = []string{"net/http", "os/exec", "unsafe"}

// packages returns what each package of the module imports, tests aside, and the
// first sentence of what it says of itself.
func packages(t *testing.T) (imports map[string][]string, about map[string]string) {
	t.Helper()
	imports, about = map[string][]string{}, map[string]string{}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "build" && filepath.Dir(path) == root || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if f.Doc != nil {
			about[name] = new(doc.Package).Synopsis(f.Doc.Text())
		}
		imports[name] = append(imports[name], []string{}...)
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			first, _, _ := strings.Cut(p, "/")
			if strings.Contains(first, ".") || slices.Contains(told, p) {
				imports[name] = append(imports[name], strings.TrimPrefix(p, module))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, list := range imports {
		slices.Sort(list)
		imports[name] = slices.Compact(list)
	}
	return imports, about
}

// TestPackages: each package imports what the table lets it, and no less, so that
// the table is true.
func TestPackages(t *testing.T) {
	imports, about := packages(t)
	for _, name := range slices.Sorted(maps.Keys(imports)) {
		row, ok := allowed[name]
		if !ok {
			t.Errorf("package %s is not in the table of internal/packages_test.go: add it, with %q, and see the comment there", name, strings.Join(imports[name], " "))
			continue
		}
		may := strings.Fields(row)
		for _, p := range imports[name] {
			if !slices.Contains(may, p) {
				t.Errorf("%s imports %s, which the table of internal/packages_test.go does not let it: is it the right floor? Then add it, and see the comment there", name, p)
			}
		}
		for _, p := range may {
			if !slices.Contains(imports[name], p) {
				t.Errorf("%s no longer imports %s: take that out of the table of internal/packages_test.go", name, p)
			}
			if strings.HasPrefix(p, "tests/") && !strings.HasPrefix(name, "tests/") {
				t.Errorf("%s imports %s", name, p)
			}
		}
		if about[name] == "" {
			t.Errorf("%s does not say what it is", name)
		}
	}
	for name := range allowed {
		if _, ok := imports[name]; !ok {
			t.Errorf("there is no package %s: take it out of the table of internal/packages_test.go", name)
		}
	}
	checkPicture(t, picture(imports, about))
}

// picture shows the packages by floor: above all that they import.
func picture(imports map[string][]string, about map[string]string) string {
	floors := map[string]int{}
	var floor func(string) int
	floor = func(name string) int {
		if n, ok := floors[name]; ok {
			return n
		}
		n := 0
		for _, p := range imports[name] {
			if _, ours := imports[p]; ours {
				n = max(n, floor(p)+1)
			}
		}
		floors[name] = n
		return n
	}
	by := map[int][]string{}
	for name := range imports {
		if !strings.HasPrefix(name, "tests/") && !strings.HasPrefix(name, "packaging/") {
			by[floor(name)] = append(by[floor(name)], name)
		}
	}
	var b strings.Builder
	b.WriteString("| floor | package | |\n|---|---|---|\n")
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(by))) {
		slices.Sort(by[n])
		for i, name := range by[n] {
			number := ""
			if i == 0 {
				number = strconv.Itoa(n)
			}
			what := about[name]
			for _, lead := range []string{"Package " + filepath.Base(name) + " ", "Command " + filepath.Base(name) + " "} {
				what = strings.TrimPrefix(what, lead)
			}
			fmt.Fprintf(&b, "| %s | `%s` | %s |\n", number, name, strings.ReplaceAll(strings.TrimSuffix(what, "."), "|", `\|`))
		}
	}
	return b.String()
}

const (
	pictureBegin = "<!-- packages: begin, by go test ./internal -run TestPackages -update -->\n"
	pictureEnd   = "<!-- packages: end -->\n"
)

func checkPicture(t *testing.T, want string) {
	t.Helper()
	const path = "../docs/ARCHITECTURE.md"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), pictureBegin)
	got, after, ok2 := strings.Cut(rest, pictureEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the packages", path)
	}
	if got == want {
		return
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+pictureBegin+want+pictureEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the packages in %s are not those that there are: go test ./internal -run TestPackages -update", path)
}

// What the command line must not link: a daemon, and what would come with it.
var notInCLI = []string{"internal/agent", "internal/daemon", "internal/scheduler", "internal/operation", "internal/operator", "internal/apiserver", "internal/webserver", "internal/metrics", "internal/samples",
	"xenctl/libxl", "net/http", "crypto/tls", "github.com/prometheus/client_golang/prometheus", "google.golang.org/protobuf/proto"}

// What the api must not need of those who import it.
var notInAPI = []string{"xenctl", "xenctl/internal/privcmd", "golang.org/x/sys/unix", "net/http", "crypto/tls", "os/exec"}

func TestWhatIsLinked(t *testing.T) {
	for program, not := range map[string][]string{"cmd/warmreboot": notInCLI, "api": notInAPI, "internal/schedule": notInAPI, "internal/reboot": notInAPI, "ident": notInAPI} {
		c := exec.Command("go", "list", "-deps", module+program)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		raw, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		linked := map[string]bool{}
		for p := range strings.Lines(string(raw)) {
			linked[strings.TrimPrefix(strings.TrimSpace(p), module)] = true
		}
		if len(linked) < 10 {
			t.Errorf("%s links %d packages only", program, len(linked))
		}
		for _, p := range not {
			if linked[p] {
				t.Errorf("%s links %s", program, p)
			}
		}
	}
}

// maxCLI bounds the command line's program, in bytes, built as for the package. It
// was 13.1 MB when it linked the daemon, and 18.7 MB with its symbols.
const maxCLI = 8 << 20

func TestSizeOfCLI(t *testing.T) {
	path := filepath.Join(t.TempDir(), "warmreboot")
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, module+"cmd/warmreboot")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", c, err, out)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.2f MB", float64(st.Size())/1e6)
	if st.Size() > maxCLI {
		t.Errorf("warmreboot has %.1f MB, more than %.1f: what does it link that it does not need? go list -deps ./cmd/warmreboot", float64(st.Size())/1e6, maxCLI/1e6)
	}
}
