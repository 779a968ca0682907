package cli

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/disk/storetest"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/internal/toolstack"
	"github.com/warmreboot/warmreboot/xenctl"
)

// fakeXen has one domain "web" with three reusable pages of xvda, and notes
// whatever would change something.
type fakeXen struct {
	hypervisor.Xen // nil: what is not implemented here must not be called
	info           xenctl.DomainInfo
	others         []xenctl.DomainInfo // beside that
	dom0           xenctl.DomainInfo
	status         xenctl.WarmcacheStatus
	feature        xenctl.Feature
	entries        []cachemap.Entry
	memory         []byte
	disk           []byte
	changed        []string
	probeErr       error
}

func newFakeXen() *fakeXen {
	x := &fakeXen{info: xenctl.DomainInfo{Domid: 3, UUID: ident.UUID{1}, HVM: true}, feature: xenctl.Yes,
		status:  xenctl.WarmcacheStatus{Enabled: true, Armed: true, Attached: true, Committed: 3},
		entries: make([]cachemap.Entry, 64), memory: make([]byte, 64*4096), disk: make([]byte, 16*4096)}
	for i := range x.disk {
		x.disk[i] = byte(i >> 12)
	}
	for i, page := range []int{9, 2, 3} {
		x.entries[i] = cachemap.Entry{VBD: 51712, Cookie: cachemap.File{Inode: 1, Index: uint32(page)}.Cookie(), Sector: cachemap.Sector(8 * page)}
		copy(x.memory[i*4096:], x.disk[page*4096:(page+1)*4096])
	}
	return x
}

func (x *fakeXen) local() *local {
	return &local{xen: x, store: webStore(), disks: fakeDisks{x}, close: func() {},
		memory: func() (xenctl.Memory, error) { return xenctl.Memory{Total: 1 << 20, Free: 1 << 18}, nil },
		synced: func() (bool, error) { return true, nil },
		owner: func(ident.Domid, ident.UUID, string) (toolstack.Owner, error) {
			return toolstack.Owner{Toolstack: toolstack.XL, Process: "xl (1)", OnReboot: "restart"}, nil
		},
		loader: func(context.Context, toolstack.Owner, toolstack.Domain) (loader, error) { return loader{}, nil }}
}

func (x *fakeXen) ProbeWarmcache() (xenctl.Feature, error) { return x.feature, x.probeErr }
func (x *fakeXen) Domains() ([]xenctl.DomainInfo, error) {
	return append([]xenctl.DomainInfo{x.dom0, x.info}, x.others...), nil
}
func (x *fakeXen) Image(ident.UUID) (xenctl.Image, error) { return xenctl.Image{}, xenctl.ErrNoImage }
func (x *fakeXen) WarmcacheStatus(ident.Domid) (xenctl.WarmcacheStatus, error) {
	return x.status, nil
}

func (x *fakeXen) WarmcacheDrop(ident.Domid) (uint64, error) {
	x.changed = append(x.changed, "drop")
	return 0, nil
}

type fakeMapping struct{ x *fakeXen }

func (m fakeMapping) Entries() []cachemap.Entry { return m.x.entries }
func (m fakeMapping) Words() []uint64           { return []uint64{7} }
func (fakeMapping) Close() error                { return nil }

type fakePages struct {
	x    *fakeXen
	pfns []ident.PFN
}

func (p fakePages) Page(i int) ([]byte, error) { return p.x.memory[p.pfns[i]*4096:][:4096], nil }
func (fakePages) Close() error                 { return nil }

func (x *fakeXen) MapTable(ident.Domid) (hypervisor.Table, error)  { return fakeMapping{x}, nil }
func (x *fakeXen) MapReuse(ident.Domid) (hypervisor.Bitmap, error) { return fakeMapping{x}, nil }
func (x *fakeXen) MapPages(_ ident.Domid, p []ident.PFN) (hypervisor.Pages, error) {
	return fakePages{x, p}, nil
}

// webStore is what xenstore says of web.
func webStore() *storetest.Store {
	return storetest.New(map[string]string{"/local/domain/3/name": "web",
		"/local/domain/0/backend/vbd/3/51712/params":          "/dev/vdb",
		"/local/domain/0/backend/vbd/3/51712/physical-device": "fe:10"})
}

type fakeDisks struct{ x *fakeXen }

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }

func (f fakeDisks) Resolve(disk.Backend) (disk.Backing, error) { return disk.Backing{}, nil }
func (f fakeDisks) Open(disk.Backing) (diskReader, error) {
	return memoryReader{bytes.NewReader(f.x.disk)}, nil
}

func TestCheck(t *testing.T) {
	x := newFakeXen()
	r := runCLI(&fakeService{}, x.local(), "check", "web", "-o", "json")
	var got checkResult
	r.json(t, &got)
	if r.code != 0 || got.Pages != 3 || got.Checked != 3 || got.Mismatches != 0 || got.Unreadable != 0 || got.Domid != 3 {
		t.Errorf("%+v", r)
	}
	x.memory[2*4096+77]++
	r = runCLI(&fakeService{}, x.local(), "check", "web", "-o", "json")
	r.json(t, &got)
	if r.code != ExitMismatch || got.Mismatches != 1 || len(got.Examples) != 1 || got.Examples[0] != (checkExample{2, 51712, 24}) {
		t.Errorf("%+v", r)
	}
	r = runCLI(&fakeService{}, x.local(), "check", "web")
	if r.code != ExitMismatch || !strings.Contains(r.out, "PFN 0x2 differs from xvda sector 24") {
		t.Errorf("%+v", r)
	}
	x.entries[2].Sector = 1 << 40 // a page cannot equal what is not there
	if r := runCLI(&fakeService{}, x.local(), "check", "web"); r.code != ExitMismatch {
		t.Errorf("%+v", r)
	}
	if len(x.changed) != 0 {
		t.Errorf("changed: %q", x.changed)
	}
}

func TestCheckMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*fakeXen)
		domain  string
		code    int
	}{
		"unknown":     {func(*fakeXen) {}, "nobody", ExitNotFound},
		"no cache":    {func(x *fakeXen) { x.feature = xenctl.No }, "web", ExitNoWarmcache},
		"skew":        {func(x *fakeXen) { x.feature, x.probeErr = xenctl.Unknown, xenctl.ErrVersion }, "web", ExitVersionSkew},
		"PV":          {func(x *fakeXen) { x.info.HVM = false }, "web", ExitNotTracked},
		"not enabled": {func(x *fakeXen) { x.status.Enabled = false }, "3", ExitNotTracked},
	} {
		x := newFakeXen()
		c.prepare(x)
		if r := runCLI(&fakeService{}, x.local(), "check", c.domain); r.code != c.code {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := runCLI(&fakeService{}, nil, "check", "web"); r.code != ExitFailure || !strings.Contains(r.stderr, "not a Xen dom0") {
		t.Errorf("%+v", r)
	}
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestProgress: on a terminal, something is shown once it takes long, and not before.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stderr lockedBuffer
		e := &env{rawErr: &stderr, terminal: true, pace: humanPace}
		stop := e.progress(t.Context(), &fakeService{}, "web")
		time.Sleep(humanPace.after - time.Millisecond)
		synctest.Wait()
		if stderr.String() != "" {
			t.Errorf("shown already: %q", stderr.String())
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := strings.Count(stderr.String(), "waiting for the guest to go down"); n != 1 {
			t.Errorf("%q", stderr.String())
		}
		time.Sleep(4 * humanPace.every)
		stop()
		if n := strings.Count(stderr.String(), "waiting for the guest to go down"); n != 5 || !strings.HasSuffix(stderr.String(), "\r\033[K") {
			t.Errorf("%d times: %q", n, stderr.String())
		}
	})
}
