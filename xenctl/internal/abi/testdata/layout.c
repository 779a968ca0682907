/* SPDX-License-Identifier: MIT */
/*
 * Prints the size and the field offsets of every structure that the Go side
 * copies into or out of a hypercall, and the numbers it passes, as the C
 * headers have them.  One line each: "struct.field offset size".
 *
 * Build: gcc -D__XEN_TOOLS__ -I <tree>/tools/include layout.c
 * (tools/include/xen is the link farm of the public headers that the tree's
 * build makes; any directory with xen/ -> xen/include/public will do.)
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/sysctl.h>
#include <xen/sched.h>
#include <xen/memory.h>
#include <xen/warmcache.h>

#define S(t) printf("%s - %zu\n", #t, sizeof(struct t))
#define F(t, f) printf("%s.%s %zu %zu\n", #t, #f, \
                       offsetof(struct t, f), sizeof(((struct t *)0)->f))
#define C(c) printf("%s = %llu\n", #c, (unsigned long long)(c))

int main(void)
{
    S(xen_domctl);
    F(xen_domctl, cmd); F(xen_domctl, interface_version);
    F(xen_domctl, domain); F(xen_domctl, u);

    S(xen_domctl_getdomaininfo);
    F(xen_domctl_getdomaininfo, domain);
    F(xen_domctl_getdomaininfo, flags);
    F(xen_domctl_getdomaininfo, tot_pages);
    F(xen_domctl_getdomaininfo, max_pages);
    F(xen_domctl_getdomaininfo, cpu_time);
    F(xen_domctl_getdomaininfo, nr_online_vcpus);
    F(xen_domctl_getdomaininfo, max_vcpu_id);
    F(xen_domctl_getdomaininfo, ssidref);
    F(xen_domctl_getdomaininfo, handle);
    F(xen_domctl_getdomaininfo, cpupool);
    F(xen_domctl_getdomaininfo, gpaddr_bits);

    S(xen_sysctl);
    F(xen_sysctl, cmd); F(xen_sysctl, interface_version); F(xen_sysctl, u);

    S(xen_sysctl_physinfo);
    F(xen_sysctl_physinfo, nr_cpus);
    F(xen_sysctl_physinfo, capabilities);
    F(xen_sysctl_physinfo, total_pages);
    F(xen_sysctl_physinfo, free_pages);
    F(xen_sysctl_physinfo, scrub_pages);
    F(xen_sysctl_physinfo, outstanding_pages);
    F(xen_sysctl_physinfo, max_mfn);

    S(xen_sysctl_getdomaininfolist);
    F(xen_sysctl_getdomaininfolist, first_domain);
    F(xen_sysctl_getdomaininfolist, max_domains);
    F(xen_sysctl_getdomaininfolist, buffer);
    F(xen_sysctl_getdomaininfolist, num_domains);

    S(sched_remote_shutdown);
    F(sched_remote_shutdown, domain_id);
    F(sched_remote_shutdown, reason);

    S(xen_warmcache_entry);
    F(xen_warmcache_entry, sector); F(xen_warmcache_entry, vbd);
    F(xen_warmcache_entry, cookie);

    S(xen_domctl_warmcache);
    F(xen_domctl_warmcache, cmd); F(xen_domctl_warmcache, version);
    F(xen_domctl_warmcache, u.enable.ttl);
    F(xen_domctl_warmcache, u.enable.cursor);
    F(xen_domctl_warmcache, u.approve.vbd);
    F(xen_domctl_warmcache, u.approve.verdict);
    F(xen_domctl_warmcache, u.approve.pages);
    F(xen_domctl_warmcache, u.approve.cursor);
    F(xen_domctl_warmcache, u.drop.flags);
    F(xen_domctl_warmcache, u.drop.vbd);
    F(xen_domctl_warmcache, u.drop.nr);
    F(xen_domctl_warmcache, u.drop.cursor);
    F(xen_domctl_warmcache, u.drop.pfns);
    F(xen_domctl_warmcache, u.drop.dropped);
    F(xen_domctl_warmcache, u.status.buf);
    F(xen_domctl_warmcache, u.status.size);
    F(xen_domctl_warmcache, u.image.uuid);
    F(xen_domctl_warmcache, u.image.index);
    F(xen_domctl_warmcache, u.image.ttl_left);
    F(xen_domctl_warmcache, u.image.pages);
    F(xen_domctl_warmcache, u.probe.magic);

    S(xen_warmcache_report);
    F(xen_warmcache_report, held); F(xen_warmcache_report, restored);
    F(xen_warmcache_report, refused); F(xen_warmcache_report, flags);

    S(xen_warmcache_status);
    F(xen_warmcache_status, version); F(xen_warmcache_status, flags);
    F(xen_warmcache_status, ttl); F(xen_warmcache_status, max_pfn);
    F(xen_warmcache_status, committed); F(xen_warmcache_status, pending);
    F(xen_warmcache_status, held); F(xen_warmcache_status, preserved);
    F(xen_warmcache_status, adopted); F(xen_warmcache_status, lost_busy);
    F(xen_warmcache_status, registered); F(xen_warmcache_status, commits);
    F(xen_warmcache_status, commits_ignored);
    F(xen_warmcache_status, unregistered);
    F(xen_warmcache_status, write_faults);
    F(xen_warmcache_status, foreign_writes);
    F(xen_warmcache_status, p2m_changes);
    F(xen_warmcache_status, replaced);
    F(xen_warmcache_status, untrackable);
    F(xen_warmcache_status, hypercalls);
    F(xen_warmcache_status, report);

    C(__HYPERVISOR_memory_op); C(__HYPERVISOR_xen_version);
    C(__HYPERVISOR_sched_op); C(__HYPERVISOR_sysctl); C(__HYPERVISOR_domctl);
    C(XEN_DOMCTL_INTERFACE_VERSION); C(XEN_SYSCTL_INTERFACE_VERSION);
    C(DOMID_INVALID); C(SCHEDOP_remote_shutdown);
    C(SHUTDOWN_poweroff); C(SHUTDOWN_reboot); C(SHUTDOWN_suspend);
    C(SHUTDOWN_crash); C(SHUTDOWN_watchdog); C(SHUTDOWN_soft_reset);
    C(XEN_DOMCTL_getdomaininfo); C(XEN_DOMCTL_warmcache);
    C(XEN_SYSCTL_physinfo); C(XEN_SYSCTL_getdomaininfolist);
    C(XEN_DOMINF_dying); C(XEN_DOMINF_hvm_guest); C(XEN_DOMINF_shutdown);
    C(XEN_DOMINF_paused); C(XEN_DOMINF_hap);
    C(XEN_DOMINF_shutdownmask); C(XEN_DOMINF_shutdownshift);
    C(XENMEM_resource_warmcache);
    C(XEN_WARMCACHE_VERSION); C(XEN_WARMCACHE_SECTORS_PER_PAGE);
    C(XEN_WARMCACHE_COOKIE_WORDS);
    C(XEN_WARMCACHE_RESOURCE_TABLE); C(XEN_WARMCACHE_RESOURCE_BITMAP);
    C(XEN_WARMCACHE_RESOURCE_HELD);
    C(XEN_DOMCTL_WARMCACHE_ENABLE); C(XEN_DOMCTL_WARMCACHE_DISABLE);
    C(XEN_DOMCTL_WARMCACHE_ARM); C(XEN_DOMCTL_WARMCACHE_DISARM);
    C(XEN_DOMCTL_WARMCACHE_STATUS); C(XEN_DOMCTL_WARMCACHE_APPROVE);
    C(XEN_DOMCTL_WARMCACHE_DROP); C(XEN_DOMCTL_WARMCACHE_IMAGE_STATUS);
    C(XEN_DOMCTL_WARMCACHE_IMAGE_DROP);
    C(XEN_DOMCTL_WARMCACHE_PROBE); C(XEN_DOMCTL_WARMCACHE_MAGIC);
    C(XEN_WARMCACHE_VERDICT_UNDECIDED); C(XEN_WARMCACHE_VERDICT_APPROVED);
    C(XEN_WARMCACHE_VERDICT_REFUSED);
    C(XEN_WARMCACHE_DROP_VBD); C(XEN_WARMCACHE_DROP_PFNS);
    C(XEN_WARMCACHE_STATUS_ENABLED); C(XEN_WARMCACHE_STATUS_ARMED);
    C(XEN_WARMCACHE_STATUS_ATTACHED); C(XEN_WARMCACHE_STATUS_EARLY_IO);
    C(XEN_WARMCACHE_REPORT_DONE);
    C(XEN_WARMCACHE_REFUSED_UNAPPROVED); C(XEN_WARMCACHE_REFUSED_NO_MOUNT);
    C(XEN_WARMCACHE_REFUSED_NO_INODE); C(XEN_WARMCACHE_REFUSED_NOT_REGULAR);
    C(XEN_WARMCACHE_REFUSED_BEYOND_EOF); C(XEN_WARMCACHE_REFUSED_SECTOR);
    C(XEN_WARMCACHE_REFUSED_CACHED); C(XEN_WARMCACHE_REFUSED_DROPPED);
    C(XEN_WARMCACHE_REFUSED_RECLAIMED); C(XEN_WARMCACHE_REFUSED_NOT_HELD);
    C(XEN_WARMCACHE_REFUSED_ERROR); C(XEN_WARMCACHE_NR_REFUSED);
    return 0;
}
