package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/custody"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/reboot"
	"github.com/warmreboot/warmreboot/internal/store"
	"github.com/warmreboot/warmreboot/xenctl"
)

func sampleRecord() *Record {
	r := disk.Reading{At: time.Unix(1e9, 0).UTC(), Written: 8, Guest: &disk.GuestIO{Written: 8}}
	a := custody.Open(disk.Identity{Name: "/dev/vdb", Block: "254:16", Size: 1 << 30}, r)
	a.Close(r)
	return &Record{Policy: DefaultPolicy,
		Boot: "b", Accounts: map[ident.VBD]*custody.Account{51712: &a}, State: reboot.State{
			UUID: ident.UUID{1, 2, 3}, Name: "web", Enabled: true, Sequence: 4, Domid: 7,
			Intent: &reboot.Intent{Mode: api.Force, Domid: 7, At: r.At},
			Reboot: &reboot.Reboot{Summary: api.Summary{Domain: "web", Refused: map[string]uint64{"sector": 1}, VBDs: []api.VBDSummary{}}}},
	}
}

func TestRecordRoundTrip(t *testing.T) {
	want := sampleRecord()
	raw, err := encodeRecord(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeRecord(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 4
		if r, err := decodeRecord(bad); err == nil && !reflect.DeepEqual(r, want) {
			t.Fatalf("byte %d flipped, taken for %+v", i, r)
		}
		if _, err := decodeRecord(raw[:i]); err == nil && i < len(raw)-1 {
			t.Fatalf("cut off at %d, accepted", i)
		}
	}
}

// TestRecordOfAnotherVersion: of an agent with other ideas of custody, the accounts
// do not count, the rest does; of a newer one nothing is guessed at.
func TestRecordOfAnotherVersion(t *testing.T) {
	r := sampleRecord()
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	first := fmt.Appendf(nil, "%08x\n%s\n", crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)), body) // without a format
	got, err := decodeRecord(first)
	if err != nil || got.Accounts != nil || got.Domid != r.Domid || !got.Enabled || got.Reboot == nil {
		t.Errorf("%+v, %v", got, err)
	}
	newer := recordKind
	newer.Version++
	raw, err := newer.Encode(body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeRecord(raw); !errors.Is(err, store.ErrNewer) {
		t.Errorf("of a newer agent: %+v, %v", got, err)
	}
	// It is left where it is: that agent may come back.
	j, err := OpenJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(j.dir.Path, recordName(r.UUID))
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := j.Load(); len(all) != 0 || !errors.Is(err, store.ErrNewer) {
		t.Errorf("%v, %v", all, err)
	}
	if left, err := os.ReadFile(path); err != nil || !bytes.Equal(left, raw) {
		t.Errorf("%q, %v", left, err)
	}
}

// TestRecordIsBounded: what is too large is not written, and what was there stays.
func TestRecordIsBounded(t *testing.T) {
	j, err := OpenJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := sampleRecord()
	if err := j.Save(r); err != nil {
		t.Fatal(err)
	}
	large := *r
	large.Name = strings.Repeat("x", recordKind.Limit)
	if err := j.Save(&large); !errors.Is(err, store.ErrTooLarge) {
		t.Error(err)
	}
	if all, err := j.Load(); err != nil || len(all) != 1 || all[0].Name != r.Name {
		t.Errorf("%v, %v", all, err)
	}
}

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := sampleRecord()
	other := *r
	other.UUID = ident.UUID{9}
	for _, rec := range []*Record{r, &other} {
		if err := j.Save(rec); err != nil {
			t.Fatal(err)
		}
	}
	// A crash while saving leaves a half-written new file: of no consequence.
	if err := os.WriteFile(filepath.Join(j.dir.Path, recordName(r.UUID)+".new"), []byte("ha"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := j.Load()
	if err != nil || len(all) != 2 {
		t.Fatalf("%d records, %v", len(all), err)
	}
	// A corrupt one is set aside, the other is still there.
	if err := os.WriteFile(filepath.Join(j.dir.Path, recordName(other.UUID)), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err = j.Load()
	if !errors.Is(err, store.ErrDamaged) || len(all) != 1 || all[0].UUID != r.UUID {
		t.Fatalf("%d records, %v", len(all), err)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "domains", "*.corrupt")); len(found) != 1 {
		t.Errorf("set aside: %v", found)
	}
	if err := j.Remove(r.UUID); err != nil {
		t.Fatal(err)
	}
	if err := j.Remove(r.UUID); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	if all, err = j.Load(); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// TestRecordOfTheFirstRelease: what 0.1.0 has written down is understood.
func TestRecordOfTheFirstRelease(t *testing.T) {
	raw, err := os.ReadFile("testdata/record-0.1.0.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := decodeRecord(raw)
	if err != nil {
		t.Fatal(err)
	}
	if r.UUID != (ident.UUID{1, 2, 3}) || r.Name != "web" || !r.Enabled || r.Policy != DefaultPolicy || r.Boot != "b" || r.Sequence != 4 || r.Domid != 7 {
		t.Errorf("%+v", r)
	}
	if i := r.Intent; i == nil || i.Mode != api.Force || i.Domid != 7 {
		t.Errorf("%+v", i)
	}
	if b := r.Reboot; b == nil || !b.Decided || b.ImagePages != 5 || !b.Off || b.Ran.Unix() != 1e9 || b.Summary.Domain != "web" || b.Summary.Refused["sector"] != 1 {
		t.Errorf("%+v", b)
	}
	if l := r.Last; l == nil || l.Sequence != 3 || l.Outcome != "warm" {
		t.Errorf("%+v", l)
	}
	// What it knew of disks counts only as long as it means the same.
	if (r.Accounts[51712] != nil) != (accountsSince <= 1) {
		t.Errorf("%+v", r.Accounts)
	}
}

// FuzzDecodeRecord: whatever is in the file, it is a record that encodes again,
// or an error.
func FuzzDecodeRecord(f *testing.F) {
	raw, err := encodeRecord(sampleRecord())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("00000000\n\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeRecord(raw)
		if err != nil {
			return
		}
		again, err := encodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeRecord(again); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPolicy(t *testing.T) {
	for in, want := range map[string]int{"none": 0, "full": allPages, "sample=1": 1, "sample=256": 256} {
		if got, err := contentPages(in); got != want || err != nil {
			t.Errorf("%s: %d, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "all", "sample", "sample=", "sample=0", "sample=-1", "sample=x"} {
		if _, err := contentPages(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
	if p, err := withDefaults(api.Policy{}); err != nil || p != DefaultPolicy {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := withDefaults(api.Policy{Uncertain: "ignore"}); err == nil {
		t.Error("bad policy accepted")
	}
}

// TestWhoAsked: the history says who wanted a reboot, also when the agent is
// started again while it goes on.
func TestWhoAsked(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, _, dir := running(t, 5, api.Policy{})
		if _, err := a.RebootFor(ctx(t, 20*time.Second), Asker{By: api.BySchedule, Schedule: "weekly"}, "domU-web", api.Graceful); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		d := w.domains[0]
		w.mu.Unlock()
		w.die(d, xenctl.ShutdownCrash)
		a.Wake()
		status(t, a)
		// Asked for by the schedule again, but the agent does not see the end of it.
		go a.RebootFor(ctx(t, 20*time.Second), Asker{By: api.BySchedule, Schedule: "daily"}, "domU-web", api.Graceful)
		soon(t, w, a, "it goes down", func() bool { return len(w.domains) == 1 && w.domains[0].info.Shutdown })
		a.Stop()
		a = w.start(dir, func(*Options) {})
		status(t, a)
		all := w.state(dir).history()
		if len(all) != 4 {
			t.Fatalf("%d entries", len(all))
		}
		for i, want := range []Asker{{By: api.BySchedule, Schedule: "daily"}, {By: api.ByGuest}, {By: api.ByOperator}, {By: api.BySchedule, Schedule: "weekly"}} {
			if e := all[i]; e.By != want.By || e.Schedule != want.Schedule || e.Outcome != "warm" {
				t.Errorf("entry %d: %s %s %s, want %+v", i, e.By, e.Schedule, e.Outcome, want)
			}
		}
	})(t)
}
