// SPDX-License-Identifier: GPL-2.0
/* XENMEM_warmcache with arguments that make no sense. */
#include "hostile.h"

#include <sys/mman.h>

static struct xen_warmcache_op the_op __attribute__((aligned(4096)));
static char buffer[64 * PAGE] __attribute__((aligned(4096)));

struct xen_warmcache_op *op = &the_op;
uint16_t self, victim;

static const struct {
	const char *name;
	bool out; /* Xen writes to the list */
	unsigned int size; /* of an element */
} commands[] = {
	[XEN_WARMCACHE_CMD_ATTACH] = { "ATTACH", true, 16 },
	[XEN_WARMCACHE_CMD_REGISTER] = { "REGISTER", false, 64 },
	[XEN_WARMCACHE_CMD_COMMIT] = { "COMMIT", false, 8 },
	[XEN_WARMCACHE_CMD_UNREGISTER] = { "UNREGISTER", false, 8 },
	[XEN_WARMCACHE_CMD_GET_HELD] = { "GET_HELD", true, 8 },
	/* Nothing is held, so nothing is written. */
	[XEN_WARMCACHE_CMD_GET_APPROVED] = { "GET_APPROVED", false, 40 },
	[XEN_WARMCACHE_CMD_REPORT] = { "REPORT", false, 120 },
};

static long call(unsigned long start, struct xen_warmcache_op *op)
{
	return timed(__HYPERVISOR_memory_op,
		     XENMEM_warmcache | start << MEMOP_EXTENT_SHIFT, (uint64_t)op,
		     0, 0);
}

static void prepare(uint16_t cmd, uint32_t nr, void *list)
{
	*op = (struct xen_warmcache_op){
		.cmd = cmd, .version = XEN_WARMCACHE_VERSION, .nr = nr,
	};
	op->list = (uint64_t)list;
}

long wc(uint16_t cmd, uint32_t nr, void *list)
{
	prepare(cmd, nr, list);
	return call(0, op);
}

uint64_t fresh_sector(void)
{
	static uint64_t last = 1 << 20;

	return last += XEN_WARMCACHE_SECTORS_PER_PAGE;
}

struct xen_warmcache_io io_of(uint64_t pfn, uint64_t sector, uint32_t flags)
{
	return (struct xen_warmcache_io){
		.pfn = pfn, .sector = sector, .nr_sectors = 8, .vbd = VBD,
		.cookie = { 12, 0, sector / 8, 1 }, .flags = flags,
	};
}

/* Begins anew, also with what is under way. */
void attach(void)
{
	static struct xen_warmcache_info info;

	expect("ATTACH", 0, wc(XEN_WARMCACHE_CMD_ATTACH, 1, &info));
}

/* A WRITE is under way from here on. */
long announce(uint64_t pfn, uint64_t sector, uint32_t flags, uint32_t ref)
{
	static struct xen_warmcache_io io[2];
	static uint32_t last = 1000;
	bool write = flags == XEN_WARMCACHE_IO_WRITE;

	io[0] = io_of(XEN_WARMCACHE_NO_PFN, sector, XEN_WARMCACHE_IO_BEGIN);
	io[1] = io_of(pfn, sector, flags);
	io[1].ref = ref;
	if (write)
		io[0].id = io[1].id = ++last;
	return wc(XEN_WARMCACHE_CMD_REGISTER, 1 + write, io + !write);
}

/* A name for the case, valid until the next one. */
static const char *of(const char *command, const char *what)
{
	static char name[100];

	snprintf(name, sizeof(name), "%s: %s", command, what);
	return name;
}

/* A list that the command accepts. */
static void *list_for(uint16_t cmd)
{
	memset(buffer, 0, sizeof(buffer));
	if (cmd == XEN_WARMCACHE_CMD_REGISTER) {
		struct xen_warmcache_io io = {
			.pfn = XEN_WARMCACHE_NO_PFN, .vbd = VBD, .flags = XEN_WARMCACHE_IO_END,
		};
		unsigned int i;

		for (i = 0; i < 1000; i++)
			((struct xen_warmcache_io *)buffer)[i] = io;
	}
	return buffer;
}

static void handles(uint16_t cmd)
{
	const char *name = commands[cmd].name;
	unsigned int size = commands[cmd].size;
	bool reads = cmd != XEN_WARMCACHE_CMD_GET_APPROVED;
	void *list = list_for(cmd);

	prepare(cmd, 1, list);
	memcpy(straddling - sizeof(*op), op, sizeof(*op));
	expect(of(name, "op NULL"), -EFAULT, call(0, NULL));
	expect(of(name, "op not mapped"), -EFAULT, call(0, unmapped));
	expect(of(name, "op not canonical"), -EFAULT, call(0, noncanonical));
	expect(of(name, "op where Xen is"), -EFAULT, call(0, of_xen));
	expect(of(name, "op at the top of memory"), -EFAULT, call(0, (void *)-8L));
	expect(of(name, "op half mapped"), -EFAULT, call(0, straddling - 8));
	if (mprotect(readonly, PAGE, PROT_READ | PROT_WRITE))
		die("mprotect");
	memcpy(readonly, op, sizeof(*op));
	if (mprotect(readonly, PAGE, PROT_READ))
		die("mprotect");
	expect(of(name, "op read-only"), -EFAULT, call(0, readonly));
	expect(of(name, "op misaligned"), 0,
	       call(0, memcpy(buffer + sizeof(buffer) - 2 * PAGE + 3, op, sizeof(*op))));

	expect(of(name, "list NULL"), reads ? -EFAULT : 0, wc(cmd, 1, NULL));
	expect(of(name, "list not mapped"), reads ? -EFAULT : 0,
	       wc(cmd, 1, unmapped));
	expect(of(name, "list not canonical"), reads ? -EFAULT : 0,
	       wc(cmd, 1, noncanonical));
	expect(of(name, "list where Xen is"), reads ? -EFAULT : 0,
	       wc(cmd, 1, of_xen));
	expect(of(name, "list wraps around"), reads ? -EFAULT : 0,
	       wc(cmd, 1, (void *)-4L));
	expect(of(name, "list half mapped"), reads ? -EFAULT : 0,
	       wc(cmd, 1, straddling - size / 2));
	if (commands[cmd].out)
		expect(of(name, "list read-only"), -EFAULT, wc(cmd, 1, readonly));
}

static void arguments(uint16_t cmd)
{
	const char *name = commands[cmd].name;
	bool single = cmd == XEN_WARMCACHE_CMD_ATTACH ||
		      cmd == XEN_WARMCACHE_CMD_REPORT;
	bool cursor = cmd == XEN_WARMCACHE_CMD_GET_HELD ||
		      cmd == XEN_WARMCACHE_CMD_GET_APPROVED ||
		      cmd == XEN_WARMCACHE_CMD_REGISTER;
	static const uint16_t versions[] = { 0, 2, 4, 0xffff };
	void *list = list_for(cmd);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(versions); i++) {
		char what[20];

		sprintf(what, "version %u", versions[i]);
		prepare(cmd, 1, list);
		op->version = versions[i];
		expect(of(name, what), -EACCES, call(0, op));
	}
	prepare(cmd, 1, list);
	op->pad = 1;
	expect(of(name, "pad 1"), -EINVAL, call(0, op));
	expect(of(name, "nr 0"), 0, wc(cmd, 0, list));
	expect(of(name, "nr 0, list not mapped"), 0, wc(cmd, 0, unmapped));
	expect(of(name, "nr 2"), single ? -EINVAL : 0, wc(cmd, 2, list));
	if (!single) {
		expect(of(name, "nr 1000"), 0, wc(cmd, 1000, list));
		if (cmd != XEN_WARMCACHE_CMD_GET_APPROVED)
			expect_value(of(name, "nr 1000, done"), 1000, op->nr);
	}
	expect(of(name, "nr 4097"), -EINVAL, wc(cmd, XEN_WARMCACHE_MAX_BATCH + 1, list));
	expect(of(name, "nr ~0"), -EINVAL, wc(cmd, ~0U, list));

	prepare(cmd, 1, list);
	expect(of(name, "continued past the end"), -EINVAL, call(2, op));
	prepare(cmd, 1, list);
	expect(of(name, "continued far past the end"), -EINVAL, call((1UL << 58) - 1, op));
	prepare(cmd, 1, list);
	expect(of(name, "continued at the end"), 0, call(1, op));
	prepare(cmd, 1, list);
	op->cursor = cmd == XEN_WARMCACHE_CMD_GET_HELD ? -64UL : ~0UL;
	expect(of(name, "cursor past everything"), cursor ? 0 : -EINVAL, call(0, op));
}

/* An element in error has no effect, and those before it are processed. */
static void elements(void)
{
	static const struct {
		const char *name;
		uint64_t pfn, sector, nr_sectors;
		uint32_t vbd, flags, pad;
		long want;
	} bad[] = {
		{ "vbd 0", ~0UL, 8, 8, 0, 2, 0, -EINVAL },
		{ "flags 4", ~0UL, 8, 8, VBD, 4, 0, -EINVAL },
		{ "flags ~0", ~0UL, 8, 8, VBD, ~0U, 0, -EINVAL },
		{ "element's pad 1", ~0UL, 8, 8, VBD, 2, 1, -EINVAL },
		{ "no sectors", ~0UL, 8, 0, VBD, 2, 0, -EINVAL },
		{ "READ without a page", ~0UL, 8, 8, VBD, 0, 0, -EINVAL },
		{ "WRITE without a page", ~0UL, 8, 8, VBD, 1, 0, -EINVAL },
		{ "BEGIN of a page", 1, 8, 8, VBD, 2, 0, -EINVAL },
		{ "END of a page", 1, 0, 0, VBD, 3, 0, -EINVAL },
		{ "END with sectors", ~0UL, 0, 8, VBD, 3, 0, -EINVAL },
		{ "END at a sector", ~0UL, 8, 0, VBD, 3, 0, -EINVAL },
		{ "END of what hasn't begun", ~0UL, 0, 0, VBD, 3, 0, 0 },
		{ "page with 7 sectors", 1, 8, 7, VBD, 0, 0, -EINVAL },
		{ "page with 16 sectors", 1, 8, 16, VBD, 0, 0, -EINVAL },
		{ "page at sector 1", 1, 1, 8, VBD, 0, 0, -EINVAL },
		{ "page at sector 12", 1, 12, 8, VBD, 1, 0, -EINVAL },
		{ "sector 2^55", ~0UL, 1UL << 55, 8, VBD, 2, 0, -EINVAL },
		{ "2^55 sectors", ~0UL, 0, 1UL << 55, VBD, 2, 0, -EINVAL },
		{ "sector ~0", ~0UL, ~0UL, 1, VBD, 2, 0, -EINVAL },
		{ "the largest range", ~0UL, 0, (1UL << 55) - 1, VBD, 2, 0, 0 },
		{ "the last range", ~0UL, (1UL << 55) - 1, (1UL << 55) - 1, VBD, 2, 0, 0 },
		{ "misaligned range", ~0UL, 3, 9, VBD, 2, 0, 0 },
	};
	struct xen_warmcache_io *list = list_for(XEN_WARMCACHE_CMD_REGISTER);
	struct xen_warmcache_io good = list[0];
	struct xen_warmcache_report *report;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		struct xen_warmcache_io io = {
			.pfn = bad[i].pfn, .sector = bad[i].sector,
			.nr_sectors = bad[i].nr_sectors, .vbd = bad[i].vbd,
			.flags = bad[i].flags, .pad = bad[i].pad,
		};

		list[0] = io;
		expect(of("REGISTER", bad[i].name), bad[i].want,
		       wc(XEN_WARMCACHE_CMD_REGISTER, 1, list));
		if (!bad[i].want)
			continue;
		list[0] = good;
		list[37] = io;
		wc(XEN_WARMCACHE_CMD_REGISTER, 60, list);
		expect_value(of(bad[i].name, "as the 38th element, done"), 37, op->nr);
		list[37] = good;
	}
	/* 50 elements lie on mapped memory; Xen takes 40 at a time. */
	memcpy(straddling - 50 * sizeof(*list), list, 50 * sizeof(*list));
	expect(of("REGISTER", "list ends early"), -EFAULT,
	       wc(XEN_WARMCACHE_CMD_REGISTER, 100, straddling - 50 * sizeof(*list)));
	expect_value(of("REGISTER", "list ends early, done"), 40, op->nr);

	/* Each visits every bucket; what it lasts is not one stretch of time. */
	for (i = 0; i < 64; i++) {
		list[i].flags = XEN_WARMCACHE_IO_BEGIN;
		list[i].nr_sectors = (1UL << 55) - 1;
	}
	prepare(XEN_WARMCACHE_CMD_REGISTER, 64, list);
	expect(of("REGISTER", "64 ranges of 2^55 sectors"), 0,
	       hypercall(__HYPERVISOR_memory_op, XENMEM_warmcache, (uint64_t)op, 0, 0));

	attach();

	report = list_for(XEN_WARMCACHE_CMD_REPORT);
	report->pad = 1;
	expect(of("REPORT", "report's pad 1"), -EINVAL, wc(XEN_WARMCACHE_CMD_REPORT, 1, report));
	report->pad = 0;
	report->flags = 2;
	expect(of("REPORT", "flags 2"), -EINVAL, wc(XEN_WARMCACHE_CMD_REPORT, 1, report));

	prepare(XEN_WARMCACHE_CMD_GET_HELD, 1, list_for(XEN_WARMCACHE_CMD_GET_HELD));
	op->cursor = 1;
	expect(of("GET_HELD", "cursor 1"), -EINVAL, call(0, op));
	prepare(XEN_WARMCACHE_CMD_GET_APPROVED, 1, buffer);
	op->vbd = ~0U;
	expect(of("GET_APPROVED", "unknown vbd"), 0, call(0, op));
	expect_value(of("GET_APPROVED", "unknown vbd, pages"), 0, op->nr);
}

void guest_calls(void)
{
	unsigned int cmd;

	for (cmd = 0; cmd < ARRAY_SIZE(commands); cmd++) {
		attach(); /* one that fails leaves nobody attached */
		handles(cmd);
		arguments(cmd);
	}
	expect("unknown command 7", -EINVAL, wc(7, 1, buffer));
	expect("unknown command 65535", -EINVAL, wc(0xffff, 1, buffer));
	elements();
}

/* In a domain for which dom0 has not, or no longer, enabled the warm cache. */
void guest_disabled(void)
{
	unsigned int cmd;

	for (cmd = 0; cmd < ARRAY_SIZE(commands); cmd++)
		expect(of(commands[cmd].name, "not enabled"), -ENODEV,
		       wc(cmd, 1, list_for(cmd)));
	expect("unknown command, not enabled", -ENODEV, wc(7, 1, buffer));
	prepare(0, 1, buffer);
	op->version = 9;
	expect("unknown version, not enabled", -EACCES, call(0, op));
}

/* What only dom0 may do. */
void guest_privileges(uint16_t dead)
{
	const struct { const char *name; uint16_t domid; long domctl, resource; } targets[] = {
		{ "on itself", self, -EPERM, -EPERM },
		{ "on another domU", victim, -EPERM, -EPERM },
		{ "on dom0", 0, -EPERM, -EPERM },
		{ "on DOMID_INVALID", DOMID_INVALID, -EPERM, -ESRCH },
		{ "on no domain", dead, -ESRCH, -ESRCH },
	};
	unsigned int i, cmd;

	for (i = 0; i < ARRAY_SIZE(targets); i++) {
		xen_pfn_t frame = 0;
		struct xen_mem_acquire_resource resource = {
			.domid = targets[i].domid, .type = XENMEM_resource_warmcache,
			.id = XEN_WARMCACHE_RESOURCE_BITMAP, .nr_frames = 1,
		};

		for (cmd = 0; cmd <= XEN_DOMCTL_WARMCACHE_PROBE; cmd++) {
			struct xen_domctl_warmcache arg = {
				.cmd = cmd, .version = XEN_WARMCACHE_VERSION,
			};
			char name[40];

			sprintf(name, "domctl %u from a domU", cmd);
			expect(of(name, targets[i].name), targets[i].domctl,
			       warmcache_domctl(targets[i].domid, &arg));
		}
		set_xen_guest_handle(resource.frame_list, &frame);
		expect(of("acquire_resource from a domU", targets[i].name), targets[i].resource,
		       timed(__HYPERVISOR_memory_op, XENMEM_acquire_resource,
			     (uint64_t)&resource, 0, 0));
	}
}

/* Above all of its memory, and below what has a meaning there. */
#define NOWHERE 0x400000UL

static long reserve(unsigned int cmd, xen_pfn_t *gfns, unsigned int nr, unsigned int order)
{
	struct xen_memory_reservation arg = {
		.nr_extents = nr, .extent_order = order, .domid = DOMID_SELF,
	};

	set_xen_guest_handle(arg.extent_start, gfns);
	return timed(__HYPERVISOR_memory_op, cmd, (uint64_t)&arg, 0, 0);
}

/*
 * Asks for memory until it is refused, and then goes on asking: what Xen keeps
 * for others isn't to be had, nor does it take long to be told.
 */
void guest_overcommit(void)
{
	static xen_pfn_t gfns[4096], gfn;
	const struct { unsigned int nr, order; } batches[] = {
		{ 4096, 0 }, { 64, 0 }, { 16, 4 }, { 8, 9 },
	};
	unsigned int i, j, got = 0;

	for (; got < ARRAY_SIZE(gfns); got++) {
		gfns[got] = gfn = NOWHERE + got;
		if (reserve(XENMEM_populate_physmap, &gfn, 1, 0) != 1)
			break;
	}
	expect_value("a page beyond the limit", 0, reserve(XENMEM_populate_physmap, &gfn, 1, 0));
	for (i = 0; i < ARRAY_SIZE(batches); i++) {
		static xen_pfn_t list[4096];
		long most = 0;

		for (j = 0; j < batches[i].nr; j++)
			list[j] = NOWHERE + 0x10000 + ((uint64_t)j << batches[i].order);
		for (j = 0; j < 100; j++) {
			long rc = reserve(XENMEM_populate_physmap, list, batches[i].nr,
					  batches[i].order);

			if (rc > most)
				most = rc;
		}
		expect_value("extents beyond the limit", 0, most);
	}
	expect_value("given back", got, reserve(XENMEM_decrease_reservation, gfns, got, 0));
}
