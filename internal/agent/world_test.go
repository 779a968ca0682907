package agent

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/disk/storetest"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/xenctl"
)

// bubble is a test with a clock of its own, which goes on when everybody waits: see
// testing/synctest.
func bubble(f func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, f)
	}
}

// world is a machine without Xen, for the agent's logic: domains whose images
// are kept and adopted, disks with counters, a toolstack. It is no model of
// Xen's own rules.
type world struct {
	t *testing.T

	// going are the machine's own doings: guests that go down, and come up.
	going sync.WaitGroup

	mu       sync.Mutex
	noCache  bool // Xen has no warm cache
	pvhDom0  bool // dom0 is no PV domain
	domains  []*fakeDomain
	images   map[ident.UUID]*fakeImage
	disks    map[ident.VBD]*fakeDisk
	store    *storetest.Store
	nextID   ident.Domid
	recreate bool // there is an xl process
	fatal    bool // pages that are restored take the guest down
	deaf     bool // the guest does not react to a reboot request
	// unchecked: there may be two domains of one UUID.
	unchecked bool
	untold    bool  // the guest never reports
	skew      bool  // Xen speaks another version of the interface
	fail      error // of every operation of Xen's on a domain, if set
	asked     int   // reboots that the toolstack was asked for
	downTime  time.Duration
	// looked, if set, is called once when it is asked who uses a disk, with the
	// world locked.
	looked func()
	looks  int    // how often that was asked
	maps   int    // how often a table was mapped
	after  func() // what happens once it has been answered
	// flush, if set, is called when a disk is to be written out.
	flush func()
	// slow, if set, is called before it is listed which domains there are.
	slow func()
	// loader is a boot loader, which runs before the kernel does, with the world
	// locked.
	loader func(*fakeDomain)
	// late is what happens to the disks after the death of a guest and before
	// its backends are gone, with the world locked.
	late []func(*fakeDomain)
	// kept is what survives the agents, by directory.
	kept map[string]*fakeState
	// approved, if set, is told of each approval, with the world locked.
	approved func(*fakeDomain, ident.VBD)
}

type fakeDomain struct {
	info       xenctl.DomainInfo
	introduced bool
	st         xenctl.WarmcacheStatus
	entries    []cachemap.Entry
	memory     []byte
	reuse      []uint64
	held       []uint64
	verdicts   map[ident.VBD]xenctl.Verdict
	ttl        time.Duration
}

type fakeImage struct {
	entries []cachemap.Entry
	memory  []byte
	reuse   []uint64
	st      xenctl.WarmcacheStatus
}

type fakeDisk struct {
	data     []byte
	written  uint64
	identity disk.Identity
	guest    map[ident.Domid]*disk.GuestIO
	user     string
	leaving  bool
	watched  fakeWatch
}

const (
	xvda     = ident.VBD(51712)
	xvdb     = ident.VBD(51728)
	numPages = 128
)

var webUUID = ident.UUID{0x5c, 0x0f}

func newWorld(t *testing.T) *world {
	w := &world{t: t, images: map[ident.UUID]*fakeImage{}, disks: map[ident.VBD]*fakeDisk{}, kept: map[string]*fakeState{},
		store: &storetest.Store{}, nextID: 1, recreate: true, downTime: 700 * time.Millisecond}
	t.Cleanup(w.going.Wait)
	for i, vbd := range []ident.VBD{xvda, xvdb} {
		d := &fakeDisk{data: make([]byte, 1<<20), guest: map[ident.Domid]*disk.GuestIO{},
			identity: disk.Identity{Name: "/dev/" + vbd.Name(), Size: 1 << 20, Block: fmt.Sprintf("254:%d", 16*i)}}
		for j := range d.data {
			d.data[j] = byte(j/4096 + i)
		}
		w.disks[vbd] = d
	}
	return w
}

// set changes how the world behaves, while agents run in it.
func (w *world) set(what *bool, to bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*what = to
}

// create makes a domain, adopting what is kept for it.
func (w *world) create(name string, uuid ident.UUID) *fakeDomain {
	d := &fakeDomain{info: xenctl.DomainInfo{Domid: w.nextID, UUID: uuid, HVM: true, HAP: true},
		introduced: true, verdicts: map[ident.VBD]xenctl.Verdict{},
		entries: make([]cachemap.Entry, numPages), memory: make([]byte, numPages*4096),
		reuse: make([]uint64, numPages/64), held: make([]uint64, numPages/64)}
	w.nextID++
	if img := w.images[uuid]; img != nil {
		delete(w.images, uuid)
		copy(d.entries, img.entries)
		copy(d.memory, img.memory)
		copy(d.reuse, img.reuse)
		copy(d.held, img.reuse)
		n := uint64(cachemap.NewView(d.entries, d.held).Len())
		d.st = xenctl.WarmcacheStatus{Enabled: true, Armed: true, MaxPFN: numPages, Preserved: n, Adopted: n}
		w.count(d)
	}
	for _, o := range w.domains {
		if o.info.UUID == uuid && o.info.Alive() && !w.unchecked {
			w.t.Errorf("domain %d is created while %d, of the same UUID, is alive", d.info.Domid, o.info.Domid)
		}
	}
	w.domains = append(w.domains, d)
	w.store.Set(fmt.Sprintf("/local/domain/%d/name", d.info.Domid), name)
	for vbd, k := range w.disks {
		dir := fmt.Sprintf("/local/domain/0/backend/vbd/%d/%d", d.info.Domid, vbd)
		w.store.Set(dir+"/params", k.identity.Name)
		w.store.Set(dir+"/physical-device", "fe:0")
		k.guest[d.info.Domid] = &disk.GuestIO{}
	}
	return d
}

// load has the guest read n pages of each disk; they become reusable.
func (w *world) load(d *fakeDomain, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := 0
	for _, vbd := range []ident.VBD{xvda, xvdb} {
		for i := range n {
			s := cachemap.Sector(8 * i)
			d.entries[p] = cachemap.Entry{VBD: vbd, Cookie: cachemap.File{Inode: 12, Index: uint32(i)}.Cookie(), Sector: s}
			copy(d.memory[p*4096:(p+1)*4096], w.disks[vbd].data[s*512:])
			d.reuse[p/64] |= 1 << (p % 64)
			p++
		}
	}
	d.st.Attached = true
	w.count(d)
}

func (w *world) count(d *fakeDomain) {
	d.st.Committed = uint64(cachemap.NewView(d.entries, d.reuse).Len())
	both := make([]uint64, len(d.held))
	for i := range both {
		both[i] = d.held[i] & d.reuse[i]
	}
	d.st.Held = uint64(cachemap.NewView(d.entries, both).Len())
}

// die takes a domain down, first its backends; xl, if there is one, recreates it
// a little later.
func (w *world) die(d *fakeDomain, reason xenctl.ShutdownReason) {
	w.mu.Lock()
	d.info.Shutdown, d.info.Reason = true, reason
	w.mu.Unlock()
	w.going.Go(func() {
		for _, f := range w.late {
			time.Sleep(w.downTime / 8)
			w.mu.Lock()
			f(d)
			w.mu.Unlock()
		}
		time.Sleep(w.downTime)
		w.mu.Lock()
		for vbd, k := range w.disks {
			w.store.Remove(fmt.Sprintf("/local/domain/0/backend/vbd/%d/%d", d.info.Domid, vbd))
			delete(k.guest, d.info.Domid)
		}
		w.mu.Unlock()
		time.Sleep(5 * drainTick) // Xen preserves the pages
		w.mu.Lock()
		defer w.mu.Unlock()
		if d.st.Enabled && d.st.Armed {
			w.images[d.info.UUID] = &fakeImage{d.entries, d.memory, d.reuse, d.st}
		}
		for i, x := range w.domains {
			if x == d {
				w.domains = append(w.domains[:i:i], w.domains[i+1:]...)
			}
		}
		if !w.recreate {
			return
		}
		n := w.create("domU-web", d.info.UUID)
		if !w.untold {
			w.boots(n)
		}
	})
}

// boots is that the new guest runs.
func (w *world) boots(d *fakeDomain) { w.going.Go(func() { w.restore(d) }) }

// restore is the new guest: it takes what is approved and reports.
func (w *world) restore(d *fakeDomain) {
	if w.loader != nil {
		time.Sleep(3 * time.Second)
		w.mu.Lock()
		w.loader(d)
		w.mu.Unlock()
		time.Sleep(2 * time.Second)
	}
	for range 200 {
		time.Sleep(20 * time.Millisecond)
		w.mu.Lock()
		d.st.Attached = true
		decided := true
		var restored uint64
		for p, e := range cachemap.NewView(d.entries, d.held).All() {
			switch d.verdicts[e.VBD] {
			case xenctl.Undecided:
				decided = false
			case xenctl.Approved:
				if d.reuse[p/64]>>(p%64)&1 != 0 {
					restored++
				}
			}
		}
		if decided && restored > 0 && w.fatal {
			w.mu.Unlock()
			w.die(d, xenctl.ShutdownCrash)
			return
		}
		if decided {
			d.st.Report = xenctl.WarmcacheReport{Held: d.st.Adopted, Restored: restored, Done: true, Refused: map[string]uint64{}}
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
	}
}

func (w *world) domain(id ident.Domid) (*fakeDomain, error) {
	for _, d := range w.domains {
		if d.info.Domid == id {
			return d, nil
		}
	}
	return nil, xenctl.ErrNoDomain
}

// with runs f on a domain under the lock.
func (w *world) with(id ident.Domid, f func(*fakeDomain) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.noCache {
		return xenctl.ErrNotSupported
	}
	if w.skew {
		return xenctl.ErrVersion
	}
	if w.fail != nil {
		return w.fail
	}
	d, err := w.domain(id)
	if err != nil {
		return err
	}
	return f(d)
}

func enabled(d *fakeDomain) error {
	if !d.st.Enabled {
		return xenctl.ErrNotEnabled
	}
	return nil
}

func (w *world) ProbeWarmcache() (xenctl.Feature, error) {
	if w.noCache {
		return xenctl.No, nil
	}
	if w.skew {
		return xenctl.Unknown, xenctl.ErrVersion
	}
	return xenctl.Yes, nil
}

func (w *world) Domains() ([]xenctl.DomainInfo, error) {
	w.mu.Lock()
	if slow := w.slow; slow != nil {
		w.mu.Unlock()
		slow()
		w.mu.Lock()
	}
	defer w.mu.Unlock()
	all := []xenctl.DomainInfo{{Domid: 0, HVM: w.pvhDom0}}
	for _, d := range w.domains {
		all = append(all, d.info)
	}
	return all, nil
}

func (w *world) ShutdownDomain(id ident.Domid, r xenctl.ShutdownReason) error {
	w.mu.Lock()
	d, err := w.domain(id)
	w.mu.Unlock()
	if err != nil {
		return err
	}
	w.die(d, r)
	return nil
}

func (w *world) WarmcacheEnable(id ident.Domid, _ time.Duration) error {
	return w.with(id, func(d *fakeDomain) error {
		if !d.info.HVM {
			return xenctl.ErrNotSupported
		}
		if d.st.Enabled {
			return xenctl.ErrExists
		}
		d.st.Enabled, d.st.MaxPFN = true, numPages
		return nil
	})
}

func (w *world) WarmcacheDisable(id ident.Domid) error {
	return w.with(id, func(d *fakeDomain) error {
		defer func() { d.st = xenctl.WarmcacheStatus{} }()
		return enabled(d)
	})
}

func (w *world) WarmcacheArm(id ident.Domid, ttl time.Duration) error {
	return w.with(id, func(d *fakeDomain) error { d.st.Armed, d.ttl = true, ttl; return enabled(d) })
}

func (w *world) WarmcacheDisarm(id ident.Domid) error {
	return w.with(id, func(d *fakeDomain) error { d.st.Armed = false; return enabled(d) })
}

func (w *world) WarmcacheStatus(id ident.Domid) (st xenctl.WarmcacheStatus, err error) {
	err = w.with(id, func(d *fakeDomain) error { st = d.st; return nil })
	return st, err
}

func (w *world) WarmcacheVerdict(id ident.Domid, vbd ident.VBD, v xenctl.Verdict) (n uint64, err error) {
	err = w.with(id, func(d *fakeDomain) error {
		if d.verdicts[vbd] == xenctl.Refused && v != xenctl.Refused {
			return unix.EBUSY
		}
		d.verdicts[vbd] = v
		if v == xenctl.Approved && w.approved != nil {
			w.approved(d, vbd)
		}
		for p, e := range cachemap.NewView(d.entries, d.held).All() {
			if e.VBD != vbd || d.reuse[p/64]>>(p%64)&1 == 0 {
				continue
			}
			n++
			if v == xenctl.Refused {
				d.reuse[p/64] &^= 1 << (p % 64)
			}
		}
		w.count(d)
		return enabled(d)
	})
	return n, err
}

func (w *world) WarmcacheDrop(id ident.Domid) (uint64, error) {
	return w.dropIf(id, func(ident.PFN, cachemap.Entry) bool { return true })
}

func (w *world) WarmcacheDropVBD(id ident.Domid, vbd ident.VBD) (uint64, error) {
	return w.dropIf(id, func(_ ident.PFN, e cachemap.Entry) bool { return e.VBD == vbd })
}

func (w *world) WarmcacheDropPFNs(id ident.Domid, pfns []ident.PFN) (uint64, error) {
	set := map[ident.PFN]bool{}
	for _, p := range pfns {
		set[p] = true
	}
	return w.dropIf(id, func(p ident.PFN, _ cachemap.Entry) bool { return set[p] })
}

func (w *world) dropIf(id ident.Domid, which func(ident.PFN, cachemap.Entry) bool) (n uint64, err error) {
	err = w.with(id, func(d *fakeDomain) error {
		for p, e := range cachemap.NewView(d.entries, d.reuse).All() {
			if which(p, e) {
				d.reuse[p/64] &^= 1 << (p % 64)
				n++
			}
		}
		w.count(d)
		return enabled(d)
	})
	return n, err
}

func (w *world) Image(u ident.UUID) (xenctl.Image, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if img := w.images[u]; img != nil {
		return xenctl.Image{UUID: u, Pages: img.st.Committed}, nil
	}
	return xenctl.Image{}, xenctl.ErrNoImage
}

func (w *world) DropImage(u ident.UUID) (uint64, error) {
	img, err := w.Image(u)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.images, u)
	return img.Pages, err
}

// mapped is any of the mappings: a copy, which is what a short-lived mapping
// amounts to.
type mapped struct {
	entries []cachemap.Entry
	words   []uint64
	pages   [][]byte
}

func (m mapped) Entries() []cachemap.Entry  { return m.entries }
func (m mapped) Words() []uint64            { return m.words }
func (m mapped) Page(i int) ([]byte, error) { return m.pages[i], nil }
func (mapped) Close() error                 { return nil }

func (w *world) MapTable(id ident.Domid) (t hypervisor.Table, err error) {
	err = w.with(id, func(d *fakeDomain) error {
		w.maps++
		t = mapped{entries: append([]cachemap.Entry(nil), d.entries...)}
		return enabled(d)
	})
	return t, err
}

func (w *world) MapReuse(id ident.Domid) (b hypervisor.Bitmap, err error) {
	err = w.with(id, func(d *fakeDomain) error {
		b = mapped{words: append([]uint64(nil), d.reuse...)}
		return enabled(d)
	})
	return b, err
}

func (w *world) MapHeld(id ident.Domid) (b hypervisor.Bitmap, err error) {
	err = w.with(id, func(d *fakeDomain) error {
		b = mapped{words: append([]uint64(nil), d.held...)}
		return enabled(d)
	})
	return b, err
}

func (w *world) MapPages(id ident.Domid, pfns []ident.PFN) (p hypervisor.Pages, err error) {
	err = w.with(id, func(d *fakeDomain) error {
		m := mapped{}
		for _, p := range pfns {
			m.pages = append(m.pages, append([]byte(nil), d.memory[p*4096:(p+1)*4096]...))
		}
		p = m
		return nil
	})
	return p, err
}

// Xenstore.

// fakeStore is the world's.
type fakeStore struct {
	*storetest.Store
	w *world
}

func (f fakeStore) Introduced(ctx context.Context, id uint16) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	w := f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	d, err := w.domain(ident.Domid(id))
	return err == nil && d.introduced, nil
}

// Lifecycle.

func (w *world) Reboot(ctx context.Context, id ident.Domid) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	w.asked++
	deaf := w.deaf
	w.mu.Unlock()
	if deaf { // it takes no note
		w.store.Set(fmt.Sprintf("/local/domain/%d/control/shutdown", id), "reboot")
		return nil
	}
	return w.ShutdownDomain(id, xenctl.ShutdownReboot)
}

func (w *world) ForceReboot(ctx context.Context, id ident.Domid) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	w.asked++
	w.mu.Unlock()
	return w.ShutdownDomain(id, xenctl.ShutdownReboot)
}

// fakeDisks are the world's disks; a Backing names its vbd in Path.
type fakeDisks struct{ w *world }

func (f fakeDisks) disk(b disk.Backing) *fakeDisk {
	d := f.find(b)
	if d == nil {
		f.w.t.Errorf("no disk %q", b.Path)
	}
	return d
}

func (f fakeDisks) find(b disk.Backing) *fakeDisk {
	for _, d := range f.w.disks {
		if d.identity.Name == b.Path {
			return d
		}
	}
	return nil
}

func (f fakeDisks) Resolve(be disk.Backend) (disk.Backing, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	d := f.w.disks[be.VBD]
	return disk.Backing{Identity: d.identity, Path: d.identity.Name}, nil
}

func (f fakeDisks) Read(b disk.Backing, be disk.Backend) (disk.Reading, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	d := f.find(b)
	if d == nil { // another one has taken its place
		return disk.Reading{}, fs.ErrNotExist
	}
	r := disk.Reading{At: time.Now(), Written: d.written}
	if g := d.guest[be.Domid]; g != nil {
		c := *g
		r.Guest = &c
	}
	return r, nil
}

type fakeReader struct{ d *fakeDisk }

func (r fakeReader) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(r.d.data)) {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(p, r.d.data[off:]), nil
}
func (r fakeReader) Size() int64 { return int64(len(r.d.data)) }
func (fakeReader) Close() error  { return nil }

func (f fakeDisks) Open(b disk.Backing) (Reader, error) { return fakeReader{f.disk(b)}, nil }

func (f fakeDisks) InUse(all []disk.Backing) (users []disk.Use) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.looks++
	if looked := f.w.looked; looked != nil {
		f.w.looked = nil
		looked()
	}
	for _, b := range all {
		users = append(users, disk.Use{By: f.disk(b).user, Leaving: f.disk(b).leaving})
	}
	if after := f.w.after; after != nil {
		f.w.after = nil
		after()
	}
	return users
}

func (f fakeDisks) Flush(disk.Backing) error {
	f.w.mu.Lock()
	flush := f.w.flush
	f.w.mu.Unlock()
	if flush != nil {
		flush()
	}
	return nil
}

func (fakeDisks) Settle(disk.Backing) error { return nil }

// fakeWatch is who has opened a disk's image file.
type fakeWatch struct{ doubt, breach string }

type fakeAccess struct {
	f fakeDisks
	b disk.Backing
}

func (a fakeAccess) Ask() (doubt, breach string, err error) {
	a.f.w.mu.Lock()
	defer a.f.w.mu.Unlock()
	d := a.f.find(a.b)
	if d == nil { // another one has taken its place
		return "", "", nil
	}
	return d.watched.doubt, d.watched.breach, nil
}

func (a fakeAccess) Close() error {
	a.f.w.mu.Lock()
	defer a.f.w.mu.Unlock()
	if d := a.f.find(a.b); d != nil {
		d.watched = fakeWatch{}
	}
	return nil
}

func (f fakeDisks) WatchAccess(b disk.Backing) (AccessWatcher, error) {
	return fakeAccess{f, b}, nil
}

func (fakeDisks) Trace(disk.Backing, disk.Backend) (Tracer, error) {
	return nil, disk.ErrUnsupported
}

func (fakeDisks) WatchFile(disk.Backing) (FileWatcher, error) { return nil, disk.ErrUnsupported }

func (fakeDisks) CloseTraces(func(domid, vbd uint32) bool) error { return nil }

// agent starts an agent in the world; it ends with the test.
func (w *world) agent(dir string) *Agent {
	w.t.Helper()
	return w.start(dir, func(*Options) {})
}

// start starts an agent with options of its own.
func (w *world) start(dir string, change func(*Options)) *Agent {
	w.t.Helper()
	s := w.state(dir)
	o := Options{Xen: w, Store: fakeStore{w.store, w}, Lifecycle: w, Disks: fakeDisks{w}, Journal: s, History: s, Boot: "boot", DiskWait: time.Second,
		Log: slog.New(slog.NewTextHandler(testWriter{w.t}, nil))}
	change(&o)
	a := New(o)
	if err := a.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(a.Stop)
	return a
}

// fakeState is a journal and a history, in memory: as often as the agent is killed
// here, files would take their time.
type fakeState struct {
	mu      sync.Mutex
	records map[ident.UUID][]byte
	entries []api.HistoryEntry // the latest first
}

// state returns what is kept in dir.
func (w *world) state(dir string) *fakeState {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.kept[dir] == nil {
		w.kept[dir] = &fakeState{records: map[ident.UUID][]byte{}}
	}
	return w.kept[dir]
}

func (s *fakeState) Load() (all []*Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, raw := range s.records {
		r, err := decodeRecord(raw)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func (s *fakeState) Save(r *Record) error {
	raw, err := encodeRecord(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[r.UUID] = raw
	return nil
}

func (s *fakeState) Remove(u ident.UUID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, u)
	return nil
}

// Add enters a reboot once, as the real one does.
func (s *fakeState) Add(e api.HistoryEntry) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) > 0 && e.Sequence != 0 && s.entries[0].Sequence == e.Sequence && s.entries[0].Started.Equal(e.Started) {
		return s.entries[0].ID, nil
	}
	e.ID = uint64(len(s.entries) + 1)
	s.entries = append([]api.HistoryEntry{e}, s.entries...)
	return e.ID, nil
}

func (s *fakeState) history() []api.HistoryEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.entries)
}

func (s *fakeState) raw(u ident.UUID) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records[u]
}

type testWriter struct{ t *testing.T }

func (t testWriter) Write(p []byte) (int, error) {
	if testing.Verbose() {
		fmt.Print(string(p))
	}
	return len(p), nil
}

var _ api.Service = (*Agent)(nil)

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(testWriter{t}, nil)) }
