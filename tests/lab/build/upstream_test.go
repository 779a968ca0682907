package build

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestReadUpstream(t *testing.T) {
	const head = "name = toy\npackage = toy-source\n"
	const newer = "version = 2\nfile = toy_2.tar\nsha256 = 22\nsnapshot = 20260102T000000Z\n"
	const older = "version = 1\nfile = toy_1.tar\nsha256 = 11\nlacks = TSA-1\n"
	path := filepath.Join(t.TempDir(), "UPSTREAM")
	write(t, path, "# bases\n"+head+"\n"+newer+"\n"+older)
	got, err := ReadUpstream(path)
	want := []Upstream{
		{Name: "toy", Package: "toy-source", Version: "2", File: "toy_2.tar", SHA256: "22", Snapshot: "20260102T000000Z"},
		{Name: "toy", Package: "toy-source", Version: "1", File: "toy_1.tar", SHA256: "11", Lacks: "TSA-1"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for what, text := range map[string]string{
		"no base":                   head,
		"no name":                   "package = toy\n" + newer,
		"no checksum":               head + "version = 2\nfile = toy_2.tar\n",
		"an unknown key":            head + newer + "sha512 = 00\n",
		"a key with two values":     head + newer + "file = other\n",
		"a key without a value":     head + newer + "lacks =\n",
		"a file before its version": head + "file = toy_2.tar\n" + newer,
		"a worse base that does not say what it lacks": head + newer + "version = 1\nfile = toy_1.tar\nsha256 = 11\n",
	} {
		write(t, path, text)
		if bases, err := ReadUpstream(path); err == nil {
			t.Errorf("%s was accepted: %v", what, bases)
		}
	}
}

// TestOwnUpstream reads the files of this repository.
func TestOwnUpstream(t *testing.T) {
	checkout, err := findCheckout()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"hypervisor-patches", "guest-kernel-patches", "guest-kernel-patches/7.3", "tests/lab/qemu"} {
		bases, err := ReadUpstream(filepath.Join(checkout.Dir, dir, "UPSTREAM"))
		if err != nil {
			t.Error(err)
			continue
		}
		if bases[0].Lacks != "" || bases[0].Snapshot == "" {
			t.Errorf("%s: the preferred base lacks %q, and is in the snapshot archive of %q", dir, bases[0].Lacks, bases[0].Snapshot)
		}
	}
}

func TestPlaces(t *testing.T) {
	m := Mirror{Main: "http://main.example/debian", Security: "http://security.example/debian-security", Snapshot: "http://snapshot.example"}
	got := m.places(Upstream{Name: "toy", File: "toy_1+2.orig.tar.xz", Snapshot: "20260102T000000Z"})
	want := []string{
		"http://main.example/debian/pool/main/t/toy/toy_1%2b2.orig.tar.xz",
		"http://security.example/debian-security/pool/updates/main/t/toy/toy_1%2b2.orig.tar.xz",
		"http://snapshot.example/archive/debian/20260102T000000Z/pool/main/t/toy/toy_1%2b2.orig.tar.xz",
		"http://snapshot.example/archive/debian-security/20260102T000000Z/pool/updates/main/t/toy/toy_1%2b2.orig.tar.xz",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := m.places(Upstream{Name: "toy", File: "toy_0.tar"}); len(got) != 2 {
		t.Errorf("without a time the snapshot archive is asked, too: %v", got)
	}
}

// fakeMirror is a mirror and a snapshot archive with a few files, by path.
type fakeMirror struct {
	mu    sync.Mutex
	files map[string]string
	asked []string // paths, in order
}

func newFakeMirror(t *testing.T) *fakeMirror {
	t.Helper()
	if _, err := os.Stat(aptHelper); err != nil {
		t.Fatal("what fetches the bases is missing: ", err)
	}
	m := &fakeMirror{files: make(map[string]string)}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	for _, proxy := range []string{"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"} {
		t.Setenv(proxy, "")
	}
	t.Setenv("WARMREBOOT_MIRROR", server.URL+"/debian")
	t.Setenv("WARMREBOOT_SECURITY_MIRROR", server.URL+"/security")
	t.Setenv("WARMREBOOT_SNAPSHOT_MIRROR", server.URL+"/snapshot")
	return m
}

func (m *fakeMirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, r.URL.Path)
	content, ok := m.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write([]byte(content)) // whoever asked will see
}

// serve adds files, by path.
func (m *fakeMirror) serve(files map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(m.files, files)
}

// askedNow returns what was asked for since the last call.
func (m *fakeMirror) askedNow() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked := m.asked
	m.asked = nil
	return asked
}

// toySeries has two bases. Only their names are known to a mirror yet.
func toySeries() Series {
	sum := func(content string) string {
		hash := sha256.Sum256([]byte(content))
		return hex.EncodeToString(hash[:])
	}
	return Series{Bases: []Upstream{
		{Name: "toy", Package: "toy", Version: "2", File: "toy_2+a.tar", SHA256: sum("newer"), Snapshot: "20260102T000000Z"},
		{Name: "toy", Package: "toy", Version: "1", File: "toy_1.tar", SHA256: sum("older"), Lacks: "TSA-1"},
	}}
}

const (
	newerInMain     = "/debian/pool/main/t/toy/toy_2+a.tar"
	newerInSecurity = "/security/pool/updates/main/t/toy/toy_2+a.tar"
	newerInSnapshot = "/snapshot/archive/debian-security/20260102T000000Z/pool/updates/main/t/toy/toy_2+a.tar"
	olderInMain     = "/debian/pool/main/t/toy/toy_1.tar"
)

func TestSettle(t *testing.T) {
	for what, c := range map[string]struct {
		files   map[string]string
		want    string // version; "" for an error
		warning string
	}{
		"both are served":                   {map[string]string{newerInMain: "newer", olderInMain: "older"}, "2", ""},
		"in the security mirror":            {map[string]string{newerInSecurity: "newer"}, "2", ""},
		"in the snapshot archive only":      {map[string]string{newerInSnapshot: "newer", olderInMain: "older"}, "2", ""},
		"404":                               {map[string]string{olderInMain: "older"}, "1", "TSA-1"},
		"another file under its name":       {map[string]string{newerInMain: "NEWER", olderInMain: "older"}, "1", "TSA-1"},
		"wrong in one place, right in next": {map[string]string{newerInMain: "NEWER", newerInSecurity: "newer"}, "2", ""},
		"neither":                           {nil, "", ""},
		"both wrong":                        {map[string]string{newerInMain: "NEWER", olderInMain: "OLDER"}, "", ""},
	} {
		t.Run(what, func(t *testing.T) {
			mirror := newFakeMirror(t)
			mirror.serve(c.files)
			var warnings []string
			cache := &Cache{Dir: t.TempDir(), Warn: func(what string) { warnings = append(warnings, what) }}
			got, err := cache.settle(t.Context(), toySeries())
			if c.want == "" {
				if err == nil || !strings.Contains(err.Error(), "toy_2+a.tar") || !strings.Contains(err.Error(), "toy_1.tar") {
					t.Errorf("got base %s, error %v; want an error that names both files", got.Upstream.Version, err)
				}
				return
			}
			if err != nil || got.Upstream.Version != c.want {
				t.Fatalf("got base %q, %v, want %q", got.Upstream.Version, err, c.want)
			}
			all := strings.Join(warnings, "\n")
			if c.warning == "" && all != "" || !strings.Contains(all, c.warning) {
				t.Errorf("warned %q, want %q", all, c.warning)
			}
			kept, err := os.ReadFile(cache.downloaded(got.Upstream))
			if err != nil || checkSum(cache.downloaded(got.Upstream), got.Upstream.SHA256) != nil {
				t.Errorf("kept %q, %v", kept, err)
			}
			left, err := filepath.Glob(filepath.Join(cache.Dir, "dl", "*.part*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
			// Another process asks nobody for what it has, nor again at once for
			// what could not be had.
			mirror.askedNow()
			again, err := (&Cache{Dir: cache.Dir}).settle(t.Context(), toySeries())
			if err != nil || again.Upstream != got.Upstream {
				t.Errorf("the second time: %q, %v", again.Upstream.Version, err)
			}
			if asked := mirror.askedNow(); len(asked) > 0 {
				t.Errorf("the second time asked for %v", asked)
			}
		})
	}
}

// TestSettleTriesAgain has a better base appear.
func TestSettleTriesAgain(t *testing.T) {
	mirror := newFakeMirror(t)
	mirror.serve(map[string]string{olderInMain: "older"})
	cache := &Cache{Dir: t.TempDir()}
	settle := func(want string) Series {
		t.Helper()
		s, err := cache.settle(t.Context(), toySeries())
		if err != nil || s.Upstream.Version != want {
			t.Fatalf("settled on %q, %v, want %q", s.Upstream.Version, err, want)
		}
		return s
	}
	older := settle("1")
	mirror.serve(map[string]string{newerInMain: "newer"})
	settle("1")
	long := time.Now().Add(-retryAfter - time.Minute)
	if err := os.Chtimes(cache.missingNote(older.Bases[0]), long, long); err != nil {
		t.Fatal(err)
	}
	newer := settle("2")
	settle("2")
	// What is built from one must not be taken for what is built from the other.
	one, err := older.Key()
	other, otherErr := newer.Key()
	if err := errors.Join(err, otherErr); err != nil || one == other {
		t.Errorf("two bases, keys %v and %v, %v", one, other, err)
	}
	// What is said about a base is not what is built from it.
	newer.Upstream.Lacks, newer.Upstream.Snapshot = "TSA-2", ""
	if key, err := newer.Key(); err != nil || key != other {
		t.Errorf("key %v, %v, want %v", key, err, other)
	}
}

// TestSettleOnWhatIsUnpacked needs no file of a base that was unpacked before.
func TestSettleOnWhatIsUnpacked(t *testing.T) {
	newFakeMirror(t)
	cache := &Cache{Dir: t.TempDir()}
	name, key := pristine(toySeries().Bases[0])
	if err := os.MkdirAll(cache.entry(name, key), 0o755); err != nil {
		t.Fatal(err)
	}
	if s, err := cache.settle(t.Context(), toySeries()); err != nil || s.Upstream.Version != "2" {
		t.Errorf("settled on %q, %v", s.Upstream.Version, err)
	}
}

// TestNoVulnerablePackages: before anything is built, whoever asks for packages
// is told what a base lacks.
func TestNoVulnerablePackages(t *testing.T) {
	mirror := newFakeMirror(t)
	mirror.serve(map[string]string{olderInMain: "older"})
	dir := t.TempDir()
	for _, name := range []string{"hypervisor-patches", "guest-kernel-patches"} {
		var text strings.Builder
		text.WriteString("name = toy\npackage = toy\n")
		for _, u := range toySeries().Bases {
			text.WriteString("version = " + u.Version + "\nfile = " + u.File + "\nsha256 = " + u.SHA256 + "\n")
			if u.Lacks != "" {
				text.WriteString("lacks = " + u.Lacks + "\n")
			}
		}
		write(t, filepath.Join(dir, name, "UPSTREAM"), text.String())
	}
	cache := &Cache{Dir: t.TempDir()}
	_, err := cache.Packages(t.Context(), Root{}, Checkout{Dir: dir}, false)
	if !errors.Is(err, ErrVulnerable) || !strings.Contains(err.Error(), "TSA-1") {
		t.Errorf("got %v, want ErrVulnerable that names TSA-1", err)
	}
	b := packageBuild{Cache: cache, from: Checkout{Dir: dir}}
	if err := b.bases(t.Context(), true); err != nil {
		t.Errorf("with the risk accepted: %v", err)
	}
}

func TestNewest(t *testing.T) {
	source := Upstream{Package: "xen", Version: "4.20.3+127-g1", File: "xen.orig.tar.xz"}
	binary := Upstream{Package: "linux-source-6.12", Version: "6.12.117-1", File: "linux-source.deb"}
	for what, c := range map[string]struct {
		base   Upstream
		listed string
		want   string // "" for an error
	}{
		"newer":    {source, "xen | 4.20.3+127-g1 | http://m trixie/main Sources\nxen | 4.20.4+63-g7 | http://m trixie-security/main Sources\n", "4.20.4+63-g7"},
		"the same": {source, "xen | 4.20.3+127-g1 | http://m trixie/main Sources\n", "4.20.3+127-g1"},
		"older":    {source, "xen | 4.20.3+9-g1 | http://m trixie/main Sources\n", "4.20.3+127-g1"},
		"numbers, not text": {binary, "linux-source-6.12 | 6.12.118-1 | http://s trixie-security/main amd64 Packages\n" +
			"linux-source-6.12 | 6.12.98-1 | http://s trixie/main amd64 Packages\n", "6.12.118-1"},
		"of the other kind": {binary, "linux-source-6.12 | 6.12.117-1 | http://s trixie/main amd64 Packages\n     linux | 6.13.1-1 | http://s trixie/main Sources\n", "6.12.117-1"},
		"gone":              {source, "", ""},
	} {
		if got, err := newest(t.Context(), c.base, []byte(c.listed)); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: got %q, %v, want %q", what, got, err, c.want)
		}
	}
}
