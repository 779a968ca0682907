package abi

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The lab job passes the directory of the patched tree's public headers; with
// the flag given, a header or a compiler that is missing is a failure.
var xenInclude = flag.String("xen-include", "",
	"colon-separated include directories that hold xen/warmcache.h of the patched tree")

const reference = "testdata/layout.txt"

// TestReferenceIsCurrent builds the C program against the patched headers and
// compares what it prints with the committed reference.
func TestReferenceIsCurrent(t *testing.T) {
	if *xenInclude == "" {
		t.Skip("no -xen-include: the committed reference is not compared with the headers")
	}
	exe := filepath.Join(t.TempDir(), "layout")
	args := []string{"-Wall", "-D__XEN_TOOLS__"}
	for _, dir := range strings.Split(*xenInclude, ":") {
		args = append(args, "-I", dir)
	}
	args = append(args, "testdata/layout.c", "-o", exe)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	got, err := exec.Command(exe).Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the headers say; the headers:\n%s", reference, got)
	}
}

// readReference returns the lines of the reference by their first word.
func readReference(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open(reference)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := map[string]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		name, value, ok := strings.Cut(s.Text(), " ")
		if !ok {
			t.Fatalf("%s: bad line %q", reference, s.Text())
		}
		lines[name] = value
	}
	return lines
}

// unionOffset is where a command structure starts inside xen_domctl_warmcache:
// the Go members repeat the header, so offsets agree without a correction.
func TestStructs(t *testing.T) {
	ref := readReference(t)
	size := func(name string, v any) {
		t.Helper()
		if got, want := fmt.Sprintf("- %d", reflect.TypeOf(v).Size()), ref[name]; got != want {
			t.Errorf("%s: Go %q, C %q", name, got, want)
		}
	}
	field := func(name string, v any, goField string) {
		t.Helper()
		f, ok := reflect.TypeOf(v).FieldByName(goField)
		if !ok {
			t.Errorf("%T has no field %s", v, goField)
			return
		}
		if got, want := fmt.Sprintf("%d %d", f.Offset, f.Type.Size()), ref[name]; got != want {
			t.Errorf("%s: Go %T.%s %q, C %q", name, v, goField, got, want)
		}
	}

	size("xen_domctl", Domctl{})
	field("xen_domctl.cmd", Domctl{}, "Cmd")
	field("xen_domctl.interface_version", Domctl{}, "InterfaceVersion")
	field("xen_domctl.domain", Domctl{}, "Domain")
	field("xen_domctl.u", Domctl{}, "U")

	gdi := DomctlGetDomainInfo{}
	size("xen_domctl_getdomaininfo", gdi)
	for c, g := range map[string]string{
		"domain": "Domain", "flags": "Flags", "tot_pages": "TotPages",
		"max_pages": "MaxPages", "cpu_time": "CPUTime",
		"nr_online_vcpus": "NrOnlineVcpus", "max_vcpu_id": "MaxVcpuID",
		"ssidref": "Ssidref", "handle": "Handle", "cpupool": "Cpupool",
		"gpaddr_bits": "GpaddrBits",
	} {
		field("xen_domctl_getdomaininfo."+c, gdi, g)
	}

	size("xen_sysctl", Sysctl{})
	field("xen_sysctl.cmd", Sysctl{}, "Cmd")
	field("xen_sysctl.interface_version", Sysctl{}, "InterfaceVersion")
	// The union of struct xen_sysctl starts at an 8-byte boundary.
	field("xen_sysctl.u", Sysctl{}, "U")
	phys := SysctlPhysinfoData{}
	size("xen_sysctl_physinfo", phys)
	for c, g := range map[string]string{
		"nr_cpus": "NrCPUs", "capabilities": "Capabilities",
		"total_pages": "TotalPages", "free_pages": "FreePages",
		"scrub_pages": "ScrubPages", "outstanding_pages": "OutstandingPages",
		"max_mfn": "MaxMFN",
	} {
		field("xen_sysctl_physinfo."+c, phys, g)
	}
	list := SysctlGetDomainInfoList{}
	size("xen_sysctl_getdomaininfolist", list)
	for c, g := range map[string]string{
		"first_domain": "FirstDomain", "max_domains": "MaxDomains",
		"buffer": "Buffer", "num_domains": "NumDomains",
	} {
		field("xen_sysctl_getdomaininfolist."+c, list, g)
	}

	size("sched_remote_shutdown", SchedRemoteShutdown{})
	field("sched_remote_shutdown.domain_id", SchedRemoteShutdown{}, "DomainID")
	field("sched_remote_shutdown.reason", SchedRemoteShutdown{}, "Reason")

	entry := WarmcacheEntry{}
	size("xen_warmcache_entry", entry)
	for c, g := range map[string]string{
		"sector": "Sector", "vbd": "VBD", "cookie": "Cookie",
	} {
		field("xen_warmcache_entry."+c, entry, g)
	}

	const dw = "xen_domctl_warmcache."
	field(dw+"cmd", DomctlWarmcacheEnable{}, "Cmd")
	field(dw+"version", DomctlWarmcacheEnable{}, "Version")
	field(dw+"u.enable.ttl", DomctlWarmcacheEnable{}, "TTL")
	field(dw+"u.enable.cursor", DomctlWarmcacheEnable{}, "Cursor")
	field(dw+"u.approve.vbd", DomctlWarmcacheApprove{}, "VBD")
	field(dw+"u.approve.verdict", DomctlWarmcacheApprove{}, "Verdict")
	field(dw+"u.approve.pages", DomctlWarmcacheApprove{}, "Pages")
	field(dw+"u.approve.cursor", DomctlWarmcacheApprove{}, "Cursor")
	field(dw+"u.drop.flags", DomctlWarmcacheDrop{}, "Flags")
	field(dw+"u.drop.vbd", DomctlWarmcacheDrop{}, "VBD")
	field(dw+"u.drop.nr", DomctlWarmcacheDrop{}, "Nr")
	field(dw+"u.drop.cursor", DomctlWarmcacheDrop{}, "Cursor")
	field(dw+"u.drop.pfns", DomctlWarmcacheDrop{}, "PFNs")
	field(dw+"u.drop.dropped", DomctlWarmcacheDrop{}, "Dropped")
	field(dw+"u.status.buf", DomctlWarmcacheStatus{}, "Buf")
	field(dw+"u.status.size", DomctlWarmcacheStatus{}, "Size")
	field(dw+"u.image.uuid", DomctlWarmcacheImage{}, "UUID")
	field(dw+"u.image.index", DomctlWarmcacheImage{}, "Index")
	field(dw+"u.image.ttl_left", DomctlWarmcacheImage{}, "TTLLeft")
	field(dw+"u.image.pages", DomctlWarmcacheImage{}, "Pages")
	field(dw+"u.probe.magic", DomctlWarmcacheProbe{}, "Magic")

	report := WarmcacheReport{}
	size("xen_warmcache_report", report)
	field("xen_warmcache_report.held", report, "Held")
	field("xen_warmcache_report.restored", report, "Restored")
	field("xen_warmcache_report.refused", report, "Refused")
	field("xen_warmcache_report.flags", report, "Flags")

	status := WarmcacheStatus{}
	size("xen_warmcache_status", status)
	for c, g := range map[string]string{
		"version": "Version", "flags": "Flags", "ttl": "TTL",
		"max_pfn": "MaxPFN", "committed": "Committed", "pending": "Pending",
		"held": "Held", "preserved": "Preserved", "adopted": "Adopted",
		"lost_busy": "LostBusy", "registered": "Registered",
		"commits": "Commits", "commits_ignored": "CommitsIgnored",
		"unregistered": "Unregistered", "write_faults": "WriteFaults",
		"foreign_writes": "ForeignWrites", "p2m_changes": "P2MChanges",
		"replaced": "Replaced", "untrackable": "Untrackable",
		"hypercalls": "Hypercalls", "report": "Report",
	} {
		field("xen_warmcache_status."+c, status, g)
	}
}

func TestNumbers(t *testing.T) {
	ref := readReference(t)
	for name, got := range map[string]uint64{
		"__HYPERVISOR_memory_op":            HypervisorMemoryOp,
		"__HYPERVISOR_xen_version":          HypervisorXenVersion,
		"__HYPERVISOR_sched_op":             HypervisorSchedOp,
		"__HYPERVISOR_sysctl":               HypervisorSysctl,
		"__HYPERVISOR_domctl":               HypervisorDomctl,
		"XEN_DOMCTL_INTERFACE_VERSION":      DomctlInterfaceVersion,
		"XEN_SYSCTL_INTERFACE_VERSION":      SysctlInterfaceVersion,
		"DOMID_INVALID":                     DomidInvalid,
		"SCHEDOP_remote_shutdown":           SchedopRemoteShutdown,
		"SHUTDOWN_poweroff":                 ShutdownPoweroff,
		"SHUTDOWN_reboot":                   ShutdownReboot,
		"SHUTDOWN_suspend":                  ShutdownSuspend,
		"SHUTDOWN_crash":                    ShutdownCrash,
		"SHUTDOWN_watchdog":                 ShutdownWatchdog,
		"SHUTDOWN_soft_reset":               ShutdownSoftReset,
		"XEN_DOMCTL_getdomaininfo":          DomctlGetdomaininfo,
		"XEN_DOMCTL_warmcache":              DomctlWarmcache,
		"XEN_SYSCTL_physinfo":               SysctlPhysinfo,
		"XEN_SYSCTL_getdomaininfolist":      SysctlGetdomaininfolist,
		"XEN_DOMINF_dying":                  DominfDying,
		"XEN_DOMINF_hvm_guest":              DominfHVMGuest,
		"XEN_DOMINF_shutdown":               DominfShutdown,
		"XEN_DOMINF_paused":                 DominfPaused,
		"XEN_DOMINF_hap":                    DominfHAP,
		"XEN_DOMINF_shutdownmask":           DominfShutdownMask,
		"XEN_DOMINF_shutdownshift":          DominfShutdownShift,
		"XENMEM_resource_warmcache":         XenmemResourceWarmcache,
		"XEN_WARMCACHE_VERSION":             WarmcacheVersion,
		"XEN_WARMCACHE_SECTORS_PER_PAGE":    WarmcacheSectorsPerPage,
		"XEN_WARMCACHE_COOKIE_WORDS":        WarmcacheCookieWords,
		"XEN_WARMCACHE_RESOURCE_TABLE":      WarmcacheResourceTable,
		"XEN_WARMCACHE_RESOURCE_BITMAP":     WarmcacheResourceBitmap,
		"XEN_WARMCACHE_RESOURCE_HELD":       WarmcacheResourceHeld,
		"XEN_DOMCTL_WARMCACHE_ENABLE":       WarmcacheEnable,
		"XEN_DOMCTL_WARMCACHE_DISABLE":      WarmcacheDisable,
		"XEN_DOMCTL_WARMCACHE_ARM":          WarmcacheArm,
		"XEN_DOMCTL_WARMCACHE_DISARM":       WarmcacheDisarm,
		"XEN_DOMCTL_WARMCACHE_STATUS":       WarmcacheStatusCmd,
		"XEN_DOMCTL_WARMCACHE_APPROVE":      WarmcacheApprove,
		"XEN_DOMCTL_WARMCACHE_DROP":         WarmcacheDrop,
		"XEN_DOMCTL_WARMCACHE_IMAGE_STATUS": WarmcacheImageStatus,
		"XEN_DOMCTL_WARMCACHE_IMAGE_DROP":   WarmcacheImageDrop,
		"XEN_DOMCTL_WARMCACHE_PROBE":        WarmcacheProbe,
		"XEN_DOMCTL_WARMCACHE_MAGIC":        WarmcacheMagic,
		"XEN_WARMCACHE_VERDICT_UNDECIDED":   WarmcacheVerdictUndecided,
		"XEN_WARMCACHE_VERDICT_APPROVED":    WarmcacheVerdictApproved,
		"XEN_WARMCACHE_VERDICT_REFUSED":     WarmcacheVerdictRefused,
		"XEN_WARMCACHE_DROP_VBD":            WarmcacheDropVBD,
		"XEN_WARMCACHE_DROP_PFNS":           WarmcacheDropPFNs,
		"XEN_WARMCACHE_STATUS_ENABLED":      WarmcacheStatusEnabled,
		"XEN_WARMCACHE_STATUS_ARMED":        WarmcacheStatusArmed,
		"XEN_WARMCACHE_STATUS_ATTACHED":     WarmcacheStatusAttached,
		"XEN_WARMCACHE_STATUS_EARLY_IO":     WarmcacheStatusEarlyIO,
		"XEN_WARMCACHE_REPORT_DONE":         WarmcacheReportDone,
		"XEN_WARMCACHE_REFUSED_UNAPPROVED":  WarmcacheRefusedUnapproved,
		"XEN_WARMCACHE_REFUSED_NO_MOUNT":    WarmcacheRefusedNoMount,
		"XEN_WARMCACHE_REFUSED_NO_INODE":    WarmcacheRefusedNoInode,
		"XEN_WARMCACHE_REFUSED_NOT_REGULAR": WarmcacheRefusedNotRegular,
		"XEN_WARMCACHE_REFUSED_BEYOND_EOF":  WarmcacheRefusedBeyondEOF,
		"XEN_WARMCACHE_REFUSED_SECTOR":      WarmcacheRefusedSector,
		"XEN_WARMCACHE_REFUSED_CACHED":      WarmcacheRefusedCached,
		"XEN_WARMCACHE_REFUSED_DROPPED":     WarmcacheRefusedDropped,
		"XEN_WARMCACHE_REFUSED_RECLAIMED":   WarmcacheRefusedReclaimed,
		"XEN_WARMCACHE_REFUSED_NOT_HELD":    WarmcacheRefusedNotHeld,
		"XEN_WARMCACHE_REFUSED_ERROR":       WarmcacheRefusedError,
		"XEN_WARMCACHE_NR_REFUSED":          WarmcacheNrRefused,
	} {
		if want := ref[name]; want != fmt.Sprintf("= %d", got) {
			t.Errorf("%s: Go %d, C %q", name, got, want)
		}
	}
}
