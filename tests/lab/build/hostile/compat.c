// SPDX-License-Identifier: GPL-2.0
/*
 * A whole PVH guest of 32 bits that has its warm cache used as a kernel would, and
 * prints what Xen answers. Nothing but these pages is known of it, and no disk.
 */
#include "pvh32.h"

#include <xen/xen.h>
#include <xen/memory.h>
#include <xen/warmcache.h>

#define LEAVES 0x40000000U
#define VBD 0x8d00

static char page[4096] __attribute__((aligned(4096)));
static char hypercalls[4096] __attribute__((aligned(4096)));
static struct xen_warmcache_io io[XEN_WARMCACHE_MAX_BATCH];
static struct xen_warmcache_info info;
static uint64_t words[64], pfns[1];
static struct xen_warmcache_op op;

static void say(const char *name, int32_t got)
{
	text("COMPAT ");
	text(name);
	put('=');
	if (got < 0) {
		put('-');
		got = -got;
	}
	number(got);
	put('\n');
}

static void cpuid(uint32_t leaf, uint32_t *a, uint32_t *b, uint32_t *c)
{
	uint32_t d;

	__asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(d) : "0"(leaf), "2"(0));
}

static int32_t call(uint16_t cmd, uint32_t nr, uint64_t list)
{
	uint32_t what = XENMEM_warmcache;
	void *arg = &op;
	int32_t rc;

	op.cmd = cmd;
	op.nr = nr;
	op.cursor = 0;
	op.list = list;
	__asm__ volatile("call *%3" : "=a"(rc), "+b"(what), "+c"(arg)
			 : "r"(hypercalls + __HYPERVISOR_memory_op * 32) : "memory");
	return rc;
}

static uint64_t address(const void *of) { return (uint32_t)of; }

void guest(const struct hvm_start_info *unused)
{
	uint32_t a, b, c, i;

	(void)unused;
	cpuid(LEAVES + 4, &a, &b, &c);
	say("feature", a >> 31);
	cpuid(LEAVES + 2, &a, &b, &c);
	__asm__ volatile("wrmsr" : : "c"(b), "a"(hypercalls), "d"(0) : "memory");

	op.version = XEN_WARMCACHE_VERSION - 1;
	say("version", call(XEN_WARMCACHE_CMD_ATTACH, 1, address(&info)));
	op.version = XEN_WARMCACHE_VERSION;
	io[0].pfn = pfns[0] = (uint32_t)page >> 12;
	io[0].sector = 8;
	io[0].nr_sectors = 8;
	io[0].vbd = VBD;
	io[0].ref = 1;
	say("unattached", call(XEN_WARMCACHE_CMD_REGISTER, 1, address(io)));
	say("attach", call(XEN_WARMCACHE_CMD_ATTACH, 1, address(&info)));
	say("max_pfn", info.max_pfn);
	say("held", info.held);
	say("register", call(XEN_WARMCACHE_CMD_REGISTER, 1, address(io)));
	say("registered", op.nr);
	say("beyond", call(XEN_WARMCACHE_CMD_REGISTER, 1, address(io) | 1ULL << 32));
	io[0].pad = 1;
	say("pad", call(XEN_WARMCACHE_CMD_REGISTER, 1, address(io)));
	io[0].pad = 0;
	say("commit", call(XEN_WARMCACHE_CMD_COMMIT, 1, address(pfns)));
	say("get_held", call(XEN_WARMCACHE_CMD_GET_HELD, 64, address(words)));
	say("words", op.nr);
	say("get_approved", call(XEN_WARMCACHE_CMD_GET_APPROVED, 1, address(words)));
	/* So much that Xen looks after others in between. */
	for (i = 0; i < XEN_WARMCACHE_MAX_BATCH; i++) {
		io[i].pfn = XEN_WARMCACHE_NO_PFN;
		io[i].sector = 0;
		io[i].nr_sectors = i & 1 ? 0 : 1ULL << 54;
		io[i].vbd = VBD;
		io[i].flags = i & 1 ? XEN_WARMCACHE_IO_END : XEN_WARMCACHE_IO_BEGIN;
		io[i].id = i / 2;
		io[i].ref = 0;
	}
	say("long", call(XEN_WARMCACHE_CMD_REGISTER, XEN_WARMCACHE_MAX_BATCH, address(io)));
	say("elements", op.nr);
	say("end", 0);
}
