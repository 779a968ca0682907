package cli

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/disk/storetest"
	"github.com/warmreboot/warmreboot/internal/toolstack"
	"github.com/warmreboot/warmreboot/internal/version"
	"github.com/warmreboot/warmreboot/xenctl"
)

// patient is a host on which all is well, until a test makes it ill.
type patient struct {
	xen   *fakeXen
	agent *fakeService
	local *local
	store *storetest.Store
}

func healthy() *patient {
	p := &patient{xen: newFakeXen()}
	p.local = p.xen.local()
	p.store = p.local.store.(*storetest.Store)
	p.store.Set("/local/domain/3/device/vbd/51712/feature-persistent", "0")
	p.store.Set("/local/domain/0/backend/vbd/3/51712/feature-persistent", "1")
	p.agent = &fakeService{host: api.Host{Version: version.String()}, list: []api.DomainStatus{
		{Domain: "web", UUID: p.xen.info.UUID, Domid: 3, State: "running", Managed: true, Enabled: true, Armed: true, Attached: true, Committed: 512,
			Custody: []api.VBDCustody{{Name: "xvda", Backing: "/dev/vdb", State: "certain"}}},
		{Domain: "other", Domid: 4, State: "running"}}}
	return p
}

// addDrive gives the patient an IDE drive with a backend and a medium, if any.
func addDrive(p *patient, kind, params string) {
	p.store.Set("/local/domain/3/device/vbd/5632/device-type", "cdrom")
	if kind == "" {
		return
	}
	p.store.Set("/local/domain/0/backend/"+kind+"/3/5632/params", params)
	p.store.Set("/local/domain/0/backend/"+kind+"/3/5632/mode", "r")
	p.store.Set("/local/domain/0/backend/"+kind+"/3/5632/device-type", "cdrom")
}

// lock adds a lock that ends in a while.
func (p *patient) lock(left time.Duration, l api.LockStatus) {
	p.agent.forecast.Now = time.Now()
	l.Until = p.agent.forecast.Now.Add(left)
	p.agent.forecast.Locks = append(p.agent.forecast.Locks, l)
}

// lostLocks are what two domains have when nobody knows what was locked.
var lostLocks = []api.LockStatus{{Domain: "web", UUID: ident.UUID{1}, Owner: "warmrebootd", Reason: "nobody knows what was locked"},
	{Domain: "db", UUID: ident.UUID{2}, Owner: "warmrebootd", Reason: "nobody knows what was locked"}}

// misconfigured has what was read then be in force, as the files are wrong now.
func (p *patient) misconfigured(loaded time.Time) {
	p.agent.forecast.Config = api.ConfigStatus{Dir: "/etc/w", Loaded: loaded, Error: "a.toml:3: oh\nb.toml: no"}
}

// loadedBy has a domain, other, be booted by a loader.
func (p *patient) loadedBy(l loader, err error) {
	p.agent.list[1].UUID = ident.UUID{7}
	p.local.loader = func(_ context.Context, o toolstack.Owner, d toolstack.Domain) (loader, error) {
		if d.Name != "other" || d.Domid != 4 || d.UUID != (ident.UUID{7}) || o.Toolstack != toolstack.XL {
			return loader{}, nil
		}
		return l, err
	}
}

// brokenDisks cannot resolve anything.
type brokenDisks struct{ disks }

func (brokenDisks) Resolve(disk.Backend) (disk.Backing, error) {
	return disk.Backing{}, fmt.Errorf("qcow2: %w", disk.ErrUnsupported)
}

// TestDoctor: each illness is found, graded and has a next step; nothing is
// changed by looking.
func TestDoctor(t *testing.T) {
	for name, c := range map[string]struct {
		make func(*patient)
		want severity
		line string
		next string
	}{
		"healthy":            {func(*patient) {}, sevOK, "OK       domain web: tracked, reusable now 512 pages", ""},
		"no patches in Xen":  {func(p *patient) { p.xen.feature = xenctl.No }, sevCritical, "CRITICAL xen: this Xen has no warm cache", "CONFIG_WARMCACHE"},
		"Xen of another one": {func(p *patient) { p.xen.feature, p.xen.probeErr = xenctl.Unknown, xenctl.ErrVersion }, sevCritical, "CRITICAL xen: this Xen has another version", "belong together"},
		"Xen cannot tell":    {func(p *patient) { p.xen.feature, p.xen.probeErr = xenctl.Unknown, fs.ErrPermission }, sevUnknown, "UNKNOWN  xen: it cannot be told", "root"},
		"PVH dom0":           {func(p *patient) { p.xen.dom0.HVM = true }, sevCritical, "CRITICAL xen: dom0 is a PVH domain", "without dom0=pvh"},
		"restored": {func(p *patient) {
			p.agent.list[0].Attached, p.agent.list[0].Resumed = false, true
			p.store.Set("/local/domain/3/device/vbd/51712/feature-persistent", "1") // as it was where it came from
		}, sevWarning, "WARNING  guest kernel web: it was suspended since its boot", "warmreboot reboot web --cold"},
		"guest kernel": {func(p *patient) { p.agent.list[0].Attached = false }, sevWarning, "WARNING  guest kernel web: its kernel does not track", "CONFIG_XEN_WARMCACHE"},
		"persistent grants": {func(p *patient) { p.store.Set("/local/domain/3/device/vbd/51712/feature-persistent", "1") }, sevWarning,
			"WARNING  vbd xvda web: persistent grants are on", "feature_persistent=0"},
		"vbd of a format": {func(p *patient) { p.local.disks = brokenDisks{} }, sevWarning, "WARNING  vbd xvda web: qcow2", "raw image"},
		"vbd of QEMU": {func(p *patient) {
			p.store.Remove("/local/domain/0/backend/vbd/3/51712")
			p.store.Set("/local/domain/0/backend/qdisk/3/51712/params", "aio:/x")
		}, sevWarning, "WARNING  vbd xvda web: QEMU is its backend", "blkback"},
		"vbd of a driver domain": {func(p *patient) { p.store.Remove("/local/domain/0/backend/vbd/3/51712") }, sevWarning, "its backend is not", "dom0"},
		"empty drive":            {func(p *patient) { addDrive(p, "qdisk", "aio:") }, sevOK, "OK       domain web: tracked", ""},
		"no drive":               {func(p *patient) { addDrive(p, "", "") }, sevOK, "OK       domain web: tracked", ""},
		"ISO":                    {func(p *patient) { addDrive(p, "vbd", "/x.iso") }, sevOK, "OK       domain web: tracked", ""},
		"a disk called hdc": {func(p *patient) {
			addDrive(p, "qdisk", "aio:/x")
			p.store.Set("/local/domain/0/backend/qdisk/3/5632/device-type", "disk")
		}, sevWarning, "WARNING  vbd hdc web: QEMU is its backend", "blkback"},
		"custody": {func(p *patient) {
			c := &p.agent.list[0].Custody[0]
			c.State, c.Reason = "uncertain", "opened by less"
		}, sevWarning, "WARNING  custody xvda web: custody of /dev/vdb is uncertain: opened by less", "who writes"},
		"memory": {func(p *patient) { p.xen.info.MaxPages = 1 << 21 }, sevWarning, "WARNING  memory: overcommitted: the domains may take 8192 MiB, the machine has 4096 MiB", "maxmem"},
		"memory not known": {func(p *patient) {
			p.local.memory = func() (xenctl.Memory, error) { return xenctl.Memory{}, fs.ErrPermission }
		}, sevUnknown, "UNKNOWN  memory", "xl info"},
		"clock":             {func(p *patient) { p.local.synced = func() (bool, error) { return false, nil } }, sevWarning, "WARNING  clock: nothing keeps", "chrony"},
		"clock set back":    {func(p *patient) { p.agent.entries = []api.HistoryEntry{{At: time.Now().Add(time.Hour)}} }, sevWarning, "WARNING  clock: the last reboot is recorded 1h0m0s in the future", "set the clock right"},
		"agent not running": {func(p *patient) { p.agent.err = api.Errorf(api.AgentDown, "no answer") }, sevCritical, "CRITICAL agent: no answer", "systemctl start"},
		"agent older":       {func(p *patient) { p.agent.host.Version = "0.0.1" }, sevWarning, "WARNING  agent: warmrebootd is of version 0.0.1", "restart"},
		"agent too old":     {func(p *patient) { p.agent.err = api.Errorf(api.VersionSkew, "unknown request") }, sevCritical, "CRITICAL agent: unknown request", "restart"},
		"not in Xen":        {func(p *patient) { p.agent.list[0].Enabled = false }, sevWarning, "WARNING  domain web: the agent manages it, but", "journalctl"},
		"not armed":         {func(p *patient) { p.agent.list[0].Armed = false }, sevWarning, "WARNING  domain web: Xen would preserve nothing", "restart"},
		"PV":                {func(p *patient) { p.xen.info.HVM = false }, sevWarning, "WARNING  domain web: it is a PV guest", "pvh"},
		"toolstack": {func(p *patient) {
			p.local.owner = func(ident.Domid, ident.UUID, string) (toolstack.Owner, error) {
				return toolstack.Owner{OnReboot: "destroy"}, nil
			}
		}, sevWarning, `WARNING  toolstack web: its on_reboot is "destroy"`, "configuration"},
		"rebooting": {func(p *patient) { p.agent.list[0].Current = &api.Summary{}; p.agent.list[0].Attached = false }, sevOK, "OK       domain web: a reboot is under way", "--wait"},
		"down":      {func(p *patient) { p.agent.list[0].State = "down" }, sevOK, "OK       domain web: it is down", "history web"},
		"schedule stopped": {func(p *patient) {
			p.agent.forecast.Halted = []api.HaltedRules{{Schedule: "nightly", Why: "db was not well"}}
		}, sevWarning, "WARNING  schedule nightly: it is stopped: db was not well", "warmreboot resume nightly"},
		"a lock that ends": {func(p *patient) { p.lock(14*time.Minute, api.LockStatus{Domain: "db", Owner: "ann"}) }, sevWarning,
			"WARNING  lock db: the lock of ann ends in 14m0s", "warmreboot lock db"},
		"a lock that does not end yet":    {func(p *patient) { p.lock(16*time.Minute, api.LockStatus{Domain: "db", Owner: "ann"}) }, sevOK, "OK       schedules: 0 runs ahead, 1 locks", "plan"},
		"the lock of an operation":        {func(p *patient) { p.lock(time.Second, api.LockStatus{Domain: "db", Owner: "ann", Operation: "7"}) }, sevOK, "OK       schedules: ", "plan"},
		"locks that were set aside":       {func(p *patient) { p.agent.forecast.Locks = lostLocks }, sevWarning, "WARNING  lock web: it counts as locked (and 1 more): nobody knows", "unlock"},
		"a configuration that is wrong":   {func(p *patient) { p.misconfigured(time.Now()) }, sevWarning, "WARNING  config: what is in /etc/w is wrong; that of ", "warmreboot config check /etc/w"},
		"wrong ever since it was started": {func(p *patient) { p.misconfigured(time.Time{}) }, sevCritical, "CRITICAL config: what is in /etc/w is wrong; none is in force: no schedule is done, and no window, group or limit is obeyed: a.toml:3: oh (and 1 more)", "config check"},
		"called like an option": {func(p *patient) { p.agent.list[0].Domain, p.agent.list[0].State = "--all", "down" }, sevOK, "OK       domain --all: it is down",
			"warmreboot history " + healthy().xen.info.UUID.String()},
		"armed, and no update": {func(p *patient) { p.loadedBy(loader{"/u/7", true, true}, nil) }, sevCritical, "CRITICAL kernel other: its next boot is of a new kernel on trial, and no update", "remove armed in /u/7"},
		"armed, by an update": {func(p *patient) {
			p.loadedBy(loader{"/u/7", true, true}, nil)
			p.agent.operations = []api.Operation{{Kind: api.KindUpdate, UUID: ident.UUID{7}, State: api.OperationRunning}}
		}, sevOK, "OK       domain web: tracked", ""},
		"by one that has ended": {func(p *patient) {
			p.loadedBy(loader{"/u/7", true, true}, nil)
			p.agent.operations = []api.Operation{{Kind: api.KindUpdate, UUID: ident.UUID{7}, State: api.OperationDone}, {Kind: api.KindReboot, UUID: ident.UUID{7}, State: api.OperationRunning}}
		}, sevCritical, "CRITICAL kernel other: its next boot", ""},
		"a loader without an agent": {func(p *patient) {
			p.agent.err = api.Errorf(api.AgentDown, "no answer")
			p.local.loader = func(context.Context, toolstack.Owner, toolstack.Domain) (loader, error) {
				return loader{"/u/7", true, true}, nil
			}
		}, sevCritical, "WARNING  kernel web: it is in an update, /u/7, which nobody looks after", "systemctl start"},
		"a loader that stays":      {func(p *patient) { p.loadedBy(loader{"/u/7", true, false}, nil) }, sevWarning, "WARNING  kernel other: it is booted by an update's loader, and there is no such update", "warmreboot update other"},
		"a loader from elsewhere":  {func(p *patient) { p.loadedBy(loader{"/u/7", false, false}, nil) }, sevWarning, "WARNING  kernel other: it is booted by an update's loader, /u/7, which is not here", "xl create"},
		"a loader of nobody knows": {func(p *patient) { p.loadedBy(loader{}, fs.ErrPermission) }, sevUnknown, "UNKNOWN  kernel other: whether", "root"},
		"nothing managed":          {func(p *patient) { p.agent.list = p.agent.list[1:] }, sevOK, "OK       domains: no domain is managed", "enable"},
	} {
		t.Run(name, func(t *testing.T) {
			p := healthy()
			c.make(p)
			r := runCLI(p.agent, p.local, "doctor")
			if r.code != int(c.want) || !strings.HasPrefix(r.out, "WARMREBOOT "+c.want.String()+" - ") || r.stderr != "" {
				t.Errorf("%+v", r)
			}
			i := slices.IndexFunc(strings.Split(r.out, "\n"), func(l string) bool {
				return strings.Contains(l, c.line) && (c.next == "" || strings.Contains(l, "; next: ") && strings.Contains(l, c.next))
			})
			if i < 1 { // the first is the summary
				t.Errorf("no line with %q and %q in\n%s", c.line, c.next, r.out)
			}
			if len(p.xen.changed) != 0 || p.store.Writes() != 0 {
				t.Error("something was changed")
			}
			var d diagnosis
			j := runCLI(p.agent, p.local, "doctor", "-o", "json")
			if !strings.Contains(j.out, `"severity": "`+c.want.String()+`"`) || j.code != int(c.want) {
				t.Errorf("%+v", j)
			}
			_ = d
		})
	}
}

func TestDoctorOfOne(t *testing.T) {
	p := healthy()
	if r := runCLI(p.agent, p.local, "doctor", "other"); r.code != 1 || !strings.Contains(r.out, "domain other:") || strings.Contains(r.out, " web:") {
		t.Errorf("%+v", r)
	}
	if r := runCLI(p.agent, p.local, "doctor", "nobody"); r.code != 3 || !strings.Contains(r.out, "there is no such domain") {
		t.Errorf("%+v", r)
	}
	p.local.synced = func() (bool, error) { return false, nil } // a warning does not hide that
	if r := runCLI(p.agent, p.local, "doctor", "nobody"); r.code != 3 || !strings.HasPrefix(r.out, "WARMREBOOT UNKNOWN - nobody: domain: there is no such domain (and 1 more)") {
		t.Errorf("%+v", r)
	}
	// Where there is no Xen at all.
	if r := runCLI(p.agent, nil, "doctor"); r.code != 2 || !strings.HasPrefix(r.out, "WARMREBOOT CRITICAL - xen: not a Xen dom0") {
		t.Errorf("%+v", r)
	}
	// Of several, the worst counts, and what is not known is not the worst.
	p.xen.feature = xenctl.No
	p.local.synced = func() (bool, error) { return false, fs.ErrPermission }
	if r := runCLI(p.agent, p.local, "doctor"); r.code != 2 || !strings.Contains(r.out, "(and 1 more)") {
		t.Errorf("%+v", r)
	}
}

// TestDoctorOfOnesSchedules: what is said of one domain is its own: its lock, and the
// schedules that it has.
func TestDoctorOfOnesSchedules(t *testing.T) {
	p := healthy()
	web, other := p.agent.list[0].UUID, ident.UUID{7}
	p.agent.list[1].UUID = other
	f := &p.agent.forecast
	f.Halted = []api.HaltedRules{{Schedule: "nightly", Why: "not well"}}
	f.Runs = []api.PlannedRun{{Schedule: "nightly", Domain: "other", UUID: other}, {Schedule: "weekly", Domain: "web", UUID: web}}
	p.lock(time.Minute, api.LockStatus{Domain: "other", UUID: other, Owner: "ann"})
	for _, domain := range []string{"web", "3", web.String()} {
		if r := runCLI(p.agent, p.local, "doctor", domain); r.code != 0 || strings.Contains(r.out, "nightly") || strings.Contains(r.out, "ann") {
			t.Errorf("%s: %+v", domain, r)
		}
	}
	for _, domain := range []string{"other", "4", other.String()} {
		if r := runCLI(p.agent, p.local, "doctor", domain); r.code != 1 || !strings.Contains(r.out, "WARNING  schedule nightly: ") || !strings.Contains(r.out, "WARNING  lock other: ") {
			t.Errorf("%s: %+v", domain, r)
		}
	}
}

func TestClockSynced(t *testing.T) {
	if _, err := clockSynced(); err != nil {
		t.Error(err)
	}
}
