// Package internal_test holds the rules of this module that no compiler
// checks: who may import what, and where unsafe is allowed.
package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/warmreboot/warmreboot/"

// rule restricts the importers of packages. Test files are exempt where said.
type rule struct {
	what    string
	imports func(path string) bool
	allowed func(file string) bool
}

var rules = []rule{
	{"unsafe is fenced into xenctl/**/*_unsafe.go, and internal/disk/dm_unsafe.go, for an ioctl",
		func(p string) bool { return p == "unsafe" },
		func(f string) bool {
			return strings.HasPrefix(f, "xenctl/") && strings.HasSuffix(f, "_unsafe.go") || f == "internal/disk/dm_unsafe.go"
		}},
	{"golang.org/x/sys/unix belongs to xenctl and xenstore, to internal/disk, which reads disks past the page cache, and to errno comparisons of the agent",
		func(p string) bool { return strings.HasPrefix(p, "golang.org/x/sys/") },
		func(f string) bool {
			return strings.HasPrefix(f, "xenctl/") || strings.HasPrefix(f, "xenstore/") || strings.HasPrefix(f, "internal/disk/") ||
				f == "internal/agent/decide.go" || strings.HasSuffix(f, "_test.go") || strings.HasPrefix(f, "tests/")
		}},
	{"cgo and xenlight belong to xenctl/libxl",
		func(p string) bool { return p == "C" || strings.Contains(p, "xenlight") },
		func(f string) bool { return strings.HasPrefix(f, "xenctl/libxl/") }},
	{"xenctl's internals belong to xenctl",
		func(p string) bool { return strings.HasPrefix(p, module+"xenctl/internal/") },
		func(f string) bool { return strings.HasPrefix(f, "xenctl/") }},
	{"fsnotify belongs to internal/disk and internal/config",
		func(p string) bool { return strings.Contains(p, "fsnotify") },
		func(f string) bool {
			return strings.HasPrefix(f, "internal/disk/") || strings.HasPrefix(f, "internal/config/")
		}},
	{"cachemap and reusebitmap know neither xenctl nor the agent; xenctl knows no policy",
		func(p string) bool { return strings.HasPrefix(p, module+"internal/") },
		func(f string) bool {
			return !slices.ContainsFunc([]string{"cachemap/", "reusebitmap/", "xenctl/"},
				func(dir string) bool { return strings.HasPrefix(f, dir) })
		}},
	{"cachemap and reusebitmap do not import xenctl",
		func(p string) bool { return strings.HasPrefix(p, module+"xenctl") },
		func(f string) bool {
			return !strings.HasPrefix(f, "cachemap/") && !strings.HasPrefix(f, "reusebitmap/")
		}},
}

func TestImports(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, dir := range []string{"api", "cachemap", "cmd", "ident", "internal", "reusebitmap", "xenctl", "xenstore"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			files++
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, i := range f.Imports {
				p, err := strconv.Unquote(i.Path.Value)
				if err != nil {
					return err
				}
				for _, r := range rules {
					if r.imports(p) && !r.allowed(filepath.ToSlash(name)) {
						t.Errorf("%s imports %s: %s", name, p, r.what)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 30 {
		t.Errorf("only %d files looked at", files)
	}
}

func TestMainsAreThin(t *testing.T) {
	found, err := filepath.Glob("../cmd/*/main.go")
	if err != nil || len(found) < 2 {
		t.Fatalf("%v, %v", found, err)
	}
	for _, path := range found {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(raw), "\n"); n > 20 {
			t.Errorf("%s has %d lines", path, n)
		}
	}
}

// TestLogKeys: what is logged has keys that the operator's guide names, so that
// what reads the log need not guess, what went wrong is always under err. What to do
// about an error is under next, but for those of schedules, which plan and history show.
func TestLogKeys(t *testing.T) {
	raw, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(raw), "\n### Logs\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !ok {
		t.Fatal("docs/operations.md says nothing of logs")
	}
	known := map[string]bool{}
	for i, word := range strings.Split(section, "`") {
		if i%2 == 1 {
			known[word] = true
		}
	}
	calls := 0
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			keys, isLog := logged(call)
			if isLog {
				calls++
				if call.Fun.(*ast.SelectorExpr).Sel.Name == "Error" && !slices.ContainsFunc(keys, func(k ast.Expr) bool {
					l, ok := k.(*ast.BasicLit)
					return ok && l.Value == `"next"`
				}) {
					t.Errorf("%s: an error without what to do next", set.Position(call.Pos()))
				}
			}
			for _, k := range keys {
				if lit, ok := k.(*ast.BasicLit); !ok || lit.Kind != token.STRING {
					t.Errorf("%s: a key that is not written out", set.Position(k.Pos()))
				} else if key, _ := strconv.Unquote(lit.Value); !known[key] {
					t.Errorf("%s: key %q is not in docs/operations.md", set.Position(k.Pos()), key)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls < 40 {
		t.Errorf("only %d calls looked at", calls)
	}
}

// logged returns the keys of a call of a method of a logger.
func logged(call *ast.CallExpr) (keys []ast.Expr, ok bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil, false
	}
	name := ""
	switch x := method.X.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	}
	if !strings.EqualFold(name, "log") {
		return nil, false
	}
	first := 1 // after the message
	switch method.Sel.Name {
	case "Debug", "Info", "Warn", "Error":
	case "With":
		first = 0
	default:
		return nil, false
	}
	for i := first; i < len(call.Args); i += 2 {
		keys = append(keys, call.Args[i])
	}
	return keys, true
}

// TestExitCodesAreDocumented: the operator's guide names every exit code.
func TestExitCodesAreDocumented(t *testing.T) {
	raw, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []int{0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 130} {
		if !strings.Contains(string(raw), "| "+strconv.Itoa(code)+" |") {
			t.Errorf("exit code %d is not in docs/operations.md", code)
		}
	}
}

// TestNoOptionsBelowTheCommandLine: what is not the command line does not name its
// options. It hints (api.Hint), and who asks says how that is asked for.
func TestNoOptionsBelowTheCommandLine(t *testing.T) {
	option := regexp.MustCompile(`--[a-z]`)
	literals := 0
	for _, dir := range []string{"agent", "apiserver", "custody", "disk", "inventory", "operation", "operator", "reboot", "scheduler", "schedule", "state", "toolstack", "validate", "../api"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			// The drivers run programs of others.
			if strings.HasSuffix(path, "_test.go") || path == "toolstack/xl.go" || path == "toolstack/libvirt.go" {
				continue
			}
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					literals++
					if option.MatchString(l.Value) {
						t.Errorf("%s: %s names an option of the command line; hint at it instead, with api.Error.Try", set.Position(l.Pos()), l.Value)
					}
				}
				return true
			})
		}
	}
	if literals < 500 {
		t.Errorf("only %d literals looked at", literals)
	}
}
