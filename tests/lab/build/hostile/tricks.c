// SPDX-License-Identifier: GPL-2.0
/*
 * Ways to have a reuse bit set that is not deserved, or to keep one. The
 * backend's part is played by dom0.
 */
#include "hostile.h"

static unsigned int next_page = 3500, next_grant = 10;

/* A page of ours, in a state that a trick begins with. */
struct subject {
	unsigned int page, grant;
	uint64_t pfn, sector;
	uint32_t ref;
};

static struct subject subject(void)
{
	struct subject s = { .page = next_page++, .grant = next_grant++,
			     .sector = fresh_sector() };

	s.pfn = pfn(s.page);
	s.ref = grant(s.grant, 0, s.pfn, false);
	return s;
}

static void commit(struct subject s)
{
	expect("its COMMIT", 0, wc(XEN_WARMCACHE_CMD_COMMIT, 1, &s.pfn));
}

static void bit(const char *name, bool want, struct subject s)
{
	expect_value(name, want, peer_bit(s.pfn));
}

static struct subject registered(uint32_t flags)
{
	struct subject s = subject();

	expect("its REGISTER", 0, announce(s.pfn, s.sector, flags, s.ref));
	return s;
}

/* Read from disk, as it should be. */
static struct subject committed(void)
{
	struct subject s = registered(XEN_WARMCACHE_IO_READ);

	expect_value("its read", 0, peer("copy %u %u w", self, s.ref));
	commit(s);
	bit("its bit", true, s);
	return s;
}

static void granted(void)
{
	struct subject s;
	long i, j;

	s = registered(XEN_WARMCACHE_IO_READ);
	commit(s);
	bit("READ without any I/O", false, s);

	s = registered(XEN_WARMCACHE_IO_READ);
	peer("copy %u %u r", self, s.ref);
	commit(s);
	bit("READ that the backend only read", false, s);

	s = registered(XEN_WARMCACHE_IO_READ);
	peer("copy %u %u w", self, grant(next_grant++, 0, s.pfn, false));
	commit(s);
	bit("READ filled through a grant that was not announced", false, s);

	s = registered(XEN_WARMCACHE_IO_WRITE);
	peer("copy %u %u r", self, grant(next_grant++, 0, s.pfn, true));
	commit(s);
	bit("WRITE read through a grant that was not announced", false, s);

	s = registered(XEN_WARMCACHE_IO_READ);
	peer("copy %u %u w", self, s.ref);
	peer("copy %u %u w", self, s.ref);
	commit(s);
	bit("READ filled twice through one grant", false, s);

	s = registered(XEN_WARMCACHE_IO_READ);
	peer("copy %u %u w", self, s.ref);
	peer("copy %u %u w", self, grant(next_grant++, 0, s.pfn, false));
	commit(s);
	bit("READ filled through two grants", false, s);

	s = registered(XEN_WARMCACHE_IO_READ);
	i = peer("map %u %u w", self, s.ref);
	j = peer("map %u %u w", self, grant(next_grant++, 0, s.pfn, false));
	commit(s);
	bit("READ while mapped writable twice", false, s);
	peer("unmap %ld", i);
	peer("unmap %ld", j);
	commit(s);
	bit("READ after two writable mappings", false, s);

	s = registered(XEN_WARMCACHE_IO_READ);
	peer("copy %u %u w", self, s.ref);
	i = peer("map %u %u r", self, grant(next_grant++, 0, s.pfn, true));
	commit(s);
	bit("READ while somebody has the page mapped", false, s);
	peer("unmap %ld", i);
	commit(s);
	bit("READ committed again when nobody has", false, s);

	s = subject();
	i = peer("map %u %u w", self, s.ref);
	expect("its REGISTER", 0, announce(s.pfn, s.sector, XEN_WARMCACHE_IO_READ, s.ref));
	peer("unmap %ld", i);
	commit(s);
	bit("READ mapped before it was registered", false, s);

	s = registered(XEN_WARMCACHE_IO_WRITE);
	peer("copy %u %u r", self, s.ref);
	commit(s);
	bit("WRITE", true, s);

	s = registered(XEN_WARMCACHE_IO_WRITE);
	commit(s);
	bit("WRITE without any I/O", false, s);

	s = registered(XEN_WARMCACHE_IO_WRITE);
	peer("copy %u %u w", self, s.ref);
	commit(s);
	bit("WRITE that the backend filled", false, s);

	s = registered(XEN_WARMCACHE_IO_READ);
	peer("copy %u %u w", self, s.ref);
	*(volatile char *)page(s.page) = 1;
	commit(s);
	bit("READ, written by the guest before COMMIT", false, s);

	s = committed();
	i = peer("map %u %u w", self, s.ref);
	bit("committed, then mapped writable", false, s);
	peer("unmap %ld", i);

	s = committed();
	peer("copy %u %u w", self, s.ref);
	bit("committed, then filled again", false, s);

	s = committed();
	peer("copy %u %u r", self, s.ref);
	bit("committed, then read by dom0", true, s);
}

static long copy_to(uint64_t to)
{
	struct gnttab_copy arg = {
		.source = { .domid = DOMID_SELF }, .dest = { .domid = DOMID_SELF }, .len = PAGE,
	};
	long rc;

	arg.source.u.gmfn = pfn(next_page++);
	arg.dest.u.gmfn = to;
	rc = hypercall(__HYPERVISOR_grant_table_op, GNTTABOP_copy, (uint64_t)&arg, 1, 0);
	return rc ? rc : arg.status;
}

static long move(unsigned int space, uint64_t from, uint64_t to)
{
	struct xen_add_to_physmap arg = {
		.domid = DOMID_SELF, .space = space, .idx = from, .gpfn = to,
	};

	return hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (uint64_t)&arg, 0, 0);
}

/* Two requests for one sector, of which nobody knows which comes last. */
static void reordered(void)
{
	static struct xen_warmcache_io write, over;
	struct subject s = subject();

	write = io_of(XEN_WARMCACHE_NO_PFN, s.sector + 1, XEN_WARMCACHE_IO_BEGIN);
	write.id = 77;
	over = (struct xen_warmcache_io){ .pfn = XEN_WARMCACHE_NO_PFN, .vbd = VBD,
					  .flags = XEN_WARMCACHE_IO_END, .id = 77 };
	expect("a write begins", 0, wc(XEN_WARMCACHE_CMD_REGISTER, 1, &write));
	expect("its REGISTER", 0, announce(s.pfn, s.sector, XEN_WARMCACHE_IO_READ, s.ref));
	peer("copy %u %u w", self, s.ref);
	commit(s);
	bit("READ while its sector is written to", false, s);
	expect("its REGISTER", 0, announce(s.pfn, s.sector, XEN_WARMCACHE_IO_WRITE, s.ref));
	peer("copy %u %u r", self, s.ref);
	commit(s);
	bit("WRITE while its sector is written to", false, s);
	expect("the write ends", 0, wc(XEN_WARMCACHE_CMD_REGISTER, 1, &over));

	s = subject();
	write.sector = s.sector;
	expect("its REGISTER", 0, announce(s.pfn, s.sector, XEN_WARMCACHE_IO_READ, s.ref));
	expect("a write begins", 0, wc(XEN_WARMCACHE_CMD_REGISTER, 1, &write));
	expect("and ends", 0, wc(XEN_WARMCACHE_CMD_REGISTER, 1, &over));
	peer("copy %u %u w", self, s.ref);
	commit(s);
	bit("READ after whose REGISTER its sector was written to", false, s);

	expect("its REGISTER", 0, announce(s.pfn, s.sector, XEN_WARMCACHE_IO_READ, s.ref));
	peer("copy %u %u w", self, s.ref);
	commit(s);
	bit("READ after the write", true, s);
}

/* Between two kernels there may have been one that announces nothing. */
static void another_kernel(void)
{
	struct subject s = committed();

	attach();
	bit("committed, then another kernel attached", false, s);
}

static void written(const char *name, uint64_t sector)
{
	static struct xen_warmcache_io io[2];

	io[0] = io_of(XEN_WARMCACHE_NO_PFN, sector, XEN_WARMCACHE_IO_BEGIN);
	io[0].nr_sectors = 1;
	io[1] = (struct xen_warmcache_io){ .pfn = XEN_WARMCACHE_NO_PFN, .vbd = VBD,
					   .flags = XEN_WARMCACHE_IO_END };
	expect(name, 0, wc(XEN_WARMCACHE_CMD_REGISTER, 2, io));
}

static void changed(void)
{
	struct subject s, other;

	s = committed();
	*(volatile char *)page(s.page) = 1;
	bit("committed, then written by the guest", false, s);

	s = committed();
	expect("GET_HELD into it", 0, wc(XEN_WARMCACHE_CMD_GET_HELD, 1, page(s.page)));
	bit("committed, then written by Xen", false, s);

	s = committed();
	expect("grant copy into it", 0, copy_to(s.pfn));
	bit("committed, then copied into by itself", false, s);

	s = committed();
	expect_value("balloon out", 1, balloon_out(s.pfn));
	bit("committed, then ballooned out", false, s);
	expect_value("balloon in", 1, balloon_in(s.pfn));
	bit("committed, then ballooned out and in", false, s);

	s = committed();
	other = subject();
	balloon_out(other.pfn);
	expect("move it to another PFN", 0, move(XENMAPSPACE_gmfn, pool_changed(s.pfn), other.pfn));
	bit("committed, then moved", false, s);
	bit("what it was moved to", false, other);
	expect("move it back", 0, move(XENMAPSPACE_gmfn, other.pfn, s.pfn));
	bit("committed, then moved to and fro", false, s);
	balloon_in(other.pfn);

	s = committed();
	expect("a grant frame over it", 0,
	       move(XENMAPSPACE_grant_table, 21, pool_changed(s.pfn)));
	bit("committed, then replaced by a grant frame", false, s);

	s = committed();
	other = subject();
	expect("its sector for another page", 0,
	       announce(other.pfn, s.sector, XEN_WARMCACHE_IO_READ, other.ref));
	bit("committed, then its sector read into another page", false, s);

	s = committed();
	written("a write to its last sector", s.sector + 7);
	bit("committed, then its last sector written", false, s);

	s = committed();
	written("a write to the sector before", s.sector - 1);
	written("a write to the sector after", s.sector + 8);
	bit("committed, then its neighbours written", true, s);
	expect("UNREGISTER", 0, wc(XEN_WARMCACHE_CMD_UNREGISTER, 1, &s.pfn));
	bit("committed, then unregistered", false, s);

	s = committed();
	commit(s);
	bit("committed twice", true, s);
}

void guest_tricks(void)
{
	attach();
	granted();
	reordered();
	changed();
	another_kernel();
}

static void map_and_unmap(uint32_t ref, uint64_t at)
{
	struct gnttab_map_grant_ref map = {
		.host_addr = at * PAGE, .flags = GNTMAP_host_map, .ref = ref, .dom = self,
	};
	struct gnttab_unmap_grant_ref unmap = { .host_addr = at * PAGE };

	hypercall(__HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, (uint64_t)&map, 1, 0);
	expect("map its own grant", 0, map.status);
	unmap.handle = map.handle;
	hypercall(__HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref, (uint64_t)&unmap, 1, 0);
	expect("unmap its own grant", 0, unmap.status);
}

/* What the guest does itself is not the backend's I/O. */
void guest_lies(void)
{
	static struct xen_warmcache_io list[3];
	struct subject s;
	uint64_t window;

	attach();
	s = registered(XEN_WARMCACHE_IO_READ);
	expect("grant copy into it", 0, copy_to(s.pfn));
	commit(s);
	bit("READ filled by the guest's own grant copy", false, s);

	s = registered(XEN_WARMCACHE_IO_READ);
	window = pfn(next_page++);
	balloon_out(window);
	map_and_unmap(grant(next_grant++, self, pool_changed(s.pfn), false), window);
	commit(s);
	bit("READ that the guest mapped by a grant to itself", false, s);
	balloon_in(window);

	s = subject();
	list[0] = io_of(s.pfn, s.sector, XEN_WARMCACHE_IO_READ);
	list[0].ref = s.ref;
	list[1] = io_of(XEN_WARMCACHE_NO_PFN, s.sector, XEN_WARMCACHE_IO_BEGIN);
	expect("READ and then a write to its sector in a batch", 0,
	       wc(XEN_WARMCACHE_CMD_REGISTER, 2, list));
	peer("copy %u %u w", self, s.ref);
	commit(s);
	bit("READ whose sector is written later in the batch", false, s);

	s = subject();
	list[0] = list[2] = io_of(XEN_WARMCACHE_NO_PFN, s.sector, XEN_WARMCACHE_IO_BEGIN);
	list[1] = io_of(s.pfn, s.sector, XEN_WARMCACHE_IO_WRITE);
	list[1].ref = s.ref;
	list[2].id = 1;
	expect("WRITE and then a write to its sector in a batch", 0,
	       wc(XEN_WARMCACHE_CMD_REGISTER, 3, list));
	peer("copy %u %u r", self, s.ref);
	commit(s);
	bit("WRITE whose sector is written later in the batch", false, s);
}

/*
 * Puts the pattern where an image has its tables, too: the cookie is whatever
 * the guest says.
 */
void guest_secret(void)
{
	static uint64_t nothing;
	unsigned int i, j;

	/* To attach once more would forget what the kernel has told. */
	if (wc(XEN_WARMCACHE_CMD_COMMIT, 1, &nothing))
		attach();
	for (i = 0; i < 64; i++) {
		static struct xen_warmcache_io io;
		struct subject s = subject();

		io = io_of(s.pfn, s.sector, XEN_WARMCACHE_IO_READ);
		io.ref = s.ref;
		for (j = 0; j < XEN_WARMCACHE_COOKIE_WORDS; j++)
			io.cookie[j] = SECRET;
		if (wc(XEN_WARMCACHE_CMD_REGISTER, 1, &io) ||
		    peer("copy %u %u w", self, s.ref) ||
		    wc(XEN_WARMCACHE_CMD_COMMIT, 1, &s.pfn) || !peer_bit(s.pfn))
			die("a page with a secret entry");
	}
	expect("secret entries", 0, 0);
}
