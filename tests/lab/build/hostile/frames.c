// SPDX-License-Identifier: GPL-2.0
/* REGISTER of frames that can't be tracked, and batches that repeat. */
#include "hostile.h"

/* Pool pages from here on are put to special uses. */
enum { PLAIN = 100, BALLOONED, SPECIAL_FRAME, FOREIGN, SELF_MAPPED, SELF_GRANTED,
       MAPPED_RW, MAPPED_RO, TIME_AREA, REGION };

static uint64_t hvm_param(uint32_t index)
{
	struct xen_hvm_param arg = { .domid = DOMID_SELF, .index = index };

	if (hypercall(__HYPERVISOR_hvm_op, HVMOP_get_param, (uint64_t)&arg, 0, 0))
		die("HVMOP_get_param");
	return arg.value;
}

/* The caller says which counter goes up by one. */
static void try(const char *what, uint64_t pfn, bool trackable)
{
	char name[80];
	struct counters before = peer_counters(), after;

	snprintf(name, sizeof(name), "frame %s", what);
	expect(name, 0, announce(pfn, fresh_sector(), XEN_WARMCACHE_IO_READ, 0));
	after = peer_counters();
	snprintf(name, sizeof(name), "frame %s, untrackable", what);
	expect_value(name, !trackable, after.untrackable - before.untrackable);
	snprintf(name, sizeof(name), "frame %s, pending", what);
	expect_value(name, trackable, after.pending - before.pending);
	/* Nobody has done any I/O. */
	expect("its COMMIT", 0, wc(XEN_WARMCACHE_CMD_COMMIT, 1, &pfn));
	after = peer_counters();
	expect_value("its COMMIT, committed", 0, after.committed - before.committed);
	expect_value("its COMMIT, pending", 0, after.pending - before.pending);
}

/* Returns the handle. */
static uint32_t map_grant(uint16_t domid, uint32_t ref, uint64_t at)
{
	struct gnttab_map_grant_ref arg = {
		.host_addr = at * PAGE, .flags = GNTMAP_host_map, .ref = ref, .dom = domid,
	};
	long rc = hypercall(__HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref,
			    (uint64_t)&arg, 1, 0);

	if (rc || arg.status) {
		fprintf(stderr, "hostile: map grant %u of %u: %ld, %d\n", ref, domid, rc,
			arg.status);
		exit(2);
	}
	return arg.handle;
}

static void unmap_grant(uint32_t handle, uint64_t at)
{
	struct gnttab_unmap_grant_ref arg = { .host_addr = at * PAGE, .handle = handle };

	if (hypercall(__HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref, (uint64_t)&arg,
		      1, 0) || arg.status)
		die("unmap a grant");
}

static long time_area(uint64_t addr)
{
	static struct vcpu_register_time_memory_area area;

	area.addr.p = addr;
	return hypercall(__HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_time_phys_area, 1,
			 (uint64_t)&area, 0);
}

void guest_frames(void)
{
	static struct xen_warmcache_info info;
	uint32_t handle;
	long i, j;

	if (wc(XEN_WARMCACHE_CMD_ATTACH, 1, &info))
		die("ATTACH");
	try("in the middle of RAM", pfn(PLAIN), true);
	try("0", 0, false);
	try("max_pfn - 1, where no RAM is", info.max_pfn - 1, false);
	try("max_pfn", info.max_pfn, false);
	try("of the local APIC", 0xfee00, false);
	try("2^29", 1UL << 29, false);
	try("2^32 + one that is RAM", (1UL << 32) + pfn(PLAIN), false);
	try("2^52", 1UL << 52, false);
	try("~0 - 1", ~1UL, false);
	try("of the xenstore ring", hvm_param(HVM_PARAM_STORE_PFN), false);
	try("of the console ring", hvm_param(HVM_PARAM_CONSOLE_PFN), false);

	expect_value("balloon out", 1, balloon_out(pfn(BALLOONED)));
	try("ballooned out", pfn(BALLOONED), false);
	expect_value("balloon in", 1, balloon_in(pfn(BALLOONED)));
	try("ballooned in again", pfn(BALLOONED), true);

	/* grants_setup() has put a page of Xen there. */
	try("of the grant table", pfn(0), false);

	balloon_out(pfn(FOREIGN));
	handle = map_grant(0, peer("share %u", self), pfn(FOREIGN));
	try("mapped from dom0", pfn(FOREIGN), false);
	unmap_grant(handle, pfn(FOREIGN));

	balloon_out(pfn(SELF_MAPPED));
	handle = map_grant(self, grant(0, self, pool_changed(pfn(SELF_GRANTED)), false),
			   pfn(SELF_MAPPED));
	try("mapped by grant from itself", pfn(SELF_MAPPED), false);
	try("granted to itself, and mapped", pfn(SELF_GRANTED), false);
	unmap_grant(handle, pfn(SELF_MAPPED));

	i = peer("map %u %u w", self, grant(1, 0, pfn(MAPPED_RW), false));
	try("mapped writable by dom0", pfn(MAPPED_RW), false);
	j = peer("map %u %u r", self, grant(2, 0, pfn(MAPPED_RO), true));
	try("mapped read-only by dom0", pfn(MAPPED_RO), false);
	peer("unmap %ld", i);
	peer("unmap %ld", j);
	try("no longer mapped by dom0", pfn(MAPPED_RW), true);

	expect("area for the time", 0, time_area(pfn(TIME_AREA) * PAGE));
	try("where Xen writes the time", pfn(TIME_AREA), false);
	expect("no area for the time", 0, time_area(~0UL));
	try("where Xen wrote the time", pfn(TIME_AREA), true);
}

/* How many of a batch of READs come to be pending. */
static long batch(unsigned int nr, unsigned int pages, uint64_t stride, unsigned int sectors)
{
	static struct xen_warmcache_io list[XEN_WARMCACHE_MAX_BATCH];
	struct counters before = peer_counters(), after;
	uint64_t base = fresh_sector() + (1UL << 40);
	unsigned int i;

	for (i = 0; i < nr; i++)
		list[i] = io_of(pfn(REGION + i % pages), base + i % sectors * stride,
				XEN_WARMCACHE_IO_READ);
	expect("its REGISTER", 0, wc(XEN_WARMCACHE_CMD_REGISTER, nr, list));
	expect_value("its REGISTER, done", nr, op->nr);
	after = peer_counters();
	return after.pending - before.pending;
}

static long forget(void)
{
	static uint64_t list[POOL];
	unsigned int i;
	long rc;

	for (i = 0; i < POOL; i++)
		list[i] = pfn(i);
	rc = wc(XEN_WARMCACHE_CMD_UNREGISTER, POOL, list);
	expect("UNREGISTER of all", 0, rc);
	return peer_counters().pending;
}

void guest_batches(void)
{
	/* A multiple of the number of hash buckets, whatever it is. */
	const uint64_t colliding = 8UL << 29;
	uint64_t twice[] = { pfn(REGION), pfn(REGION), 0, ~0UL, 1UL << 29, 1UL << 63 };
	long before = forget();
	struct counters c;

	expect_value("nothing is pending", 0, before);
	expect_value("one page 4096 times", 1, batch(4096, 1, 8, 4096));
	expect_value("forgotten", 0, forget());
	expect_value("one sector 3000 times", 1, batch(3000, 3000, 8, 1));
	expect_value("forgotten", 0, forget());
	expect_value("one page and sector 4096 times", 1, batch(4096, 1, 8, 1));
	expect_value("forgotten", 0, forget());
	/* A bucket takes 64 sectors. */
	expect_value("1000 sectors with one hash", 64, batch(1000, 1000, colliding, 1000));
	expect_value("forgotten", 0, forget());
	expect_value("3000 pages", 3000, batch(3000, 3000, 8, 3000));

	c = peer_counters();
	expect("UNREGISTER of one twice, and of nonsense", 0,
	       wc(XEN_WARMCACHE_CMD_UNREGISTER, ARRAY_SIZE(twice), twice));
	expect_value("UNREGISTER of one twice, unregistered", 1,
		     peer_counters().unregistered - c.unregistered);
	expect("COMMIT of one twice, and of nonsense", 0,
	       wc(XEN_WARMCACHE_CMD_COMMIT, ARRAY_SIZE(twice), twice));
	expect_value("COMMIT of one twice, ignored", ARRAY_SIZE(twice),
		     peer_counters().ignored - c.ignored);
	expect_value("forgotten", 0, forget());
}
