package xenctl

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl/internal/abi"
)

func TestErrors(t *testing.T) {
	err := wrap(unix.ENODEV, warmcacheErrors, "warmcache_arm", "domid=%d", 7)
	if !errors.Is(err, ErrNotEnabled) || !errors.Is(err, unix.ENODEV) || errors.Is(err, ErrNoDomain) {
		t.Error(err)
	}
	if got, want := err.Error(), "warmcache_arm(domid=7): warm cache not enabled: no such device"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	err = wrap(unix.EPERM, warmcacheErrors, "op", "")
	if !errors.Is(err, unix.EPERM) || errors.Is(err, ErrNotEnabled) {
		t.Error(err)
	}
	if wrap(nil, nil, "op", "") != nil {
		t.Error("an error without one")
	}
}

func TestDomainInfo(t *testing.T) {
	raw := abi.DomctlGetDomainInfo{Domain: 3, Handle: ident.UUID{1}, TotPages: 9,
		Flags: abi.DominfHVMGuest | abi.DominfHAP | abi.DominfShutdown | abi.ShutdownCrash<<abi.DominfShutdownShift}
	d := infoFromABI(&raw)
	if d.Domid != 3 || !d.HVM || !d.HAP || d.Dying || !d.Shutdown || d.Reason != ShutdownCrash || d.Pages != 9 || d.Alive() {
		t.Errorf("%+v", d)
	}
}

func TestStatus(t *testing.T) {
	raw := abi.WarmcacheStatus{Flags: abi.WarmcacheStatusEnabled | abi.WarmcacheStatusAttached | abi.WarmcacheStatusEarlyIO, TTL: 90, Committed: 5}
	raw.Report.Refused[abi.WarmcacheRefusedSector] = 3
	raw.Report.Refused[11] = 4 // of a later version
	raw.Report.Flags = abi.WarmcacheReportDone
	s := statusFromABI(&raw)
	if !s.Enabled || s.Armed || !s.Attached || !s.EarlyIO || s.TTL != 90*time.Second || s.Committed != 5 || !s.Report.Done ||
		len(s.Report.Refused) != 2 || s.Report.Refused["sector"] != 3 || s.Report.Refused["other"] != 4 {
		t.Errorf("%+v", s)
	}
	for i, name := range refusedNames {
		if name == "" {
			t.Errorf("reason %d has no name", i)
		}
	}
}

// TestProbed: what another operation answers is not taken for a warm cache.
func TestProbed(t *testing.T) {
	for _, c := range []struct {
		name  string
		magic uint64
		errno error
		want  Feature
		fails bool
	}{
		{"has it", abi.WarmcacheMagic, nil, Yes, false},
		{"the argument came back as it was", 0, nil, No, false},
		{"another operation wrote something", 1, nil, No, false},
		{"no such operation", 0, unix.ENOSYS, No, false},
		{"another operation refuses", 0, unix.EOPNOTSUPP, No, false},
		{"another operation found nothing", 0, unix.ENOENT, Unknown, true},
		{"another operation took offence", 0, unix.EINVAL, Unknown, true},
		{"another version", 0, unix.EACCES, Unknown, true},
		{"not allowed", 0, unix.EPERM, Unknown, true},
		{"an error all the same", abi.WarmcacheMagic, unix.EFAULT, Unknown, true},
	} {
		got, err := probed(c.magic, wrap(c.errno, imageErrors, "warmcache_probe", ""))
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{0: 0, -time.Second: 0, 1500 * time.Millisecond: 1, time.Minute: 60, 1 << 62: 1 << 31} {
		if got := seconds(d); got != want {
			t.Errorf("%v: %d, want %d", d, got, want)
		}
	}
}

func TestOpenWithoutXen(t *testing.T) {
	h, err := Open()
	if err == nil {
		h.Close()
		t.Skip("this is a Xen dom0")
	}
	if !errors.Is(err, ErrNotXen) {
		t.Skipf("there is a privcmd device: %v", err)
	}
}
