// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of a guest's program of which it knows the PFNs, and a grant table
 * frame among them, so that no help of the guest's kernel is needed.
 */
#include "hostile.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Far beyond what the guest's kernel uses. */
#define GRANT_FRAME 20
#define GRANTS_PER_FRAME (PAGE / sizeof(grant_entry_v1_t))

static char *memory;
static uint64_t *numbers;
static volatile grant_entry_v1_t *grants;
static bool changed[POOL];

static unsigned int index_of(uint64_t pfn)
{
	unsigned int i = 0;

	while (numbers[i] != pfn)
		if (++i == POOL)
			die("not a PFN of the pool");
	return i;
}

/* Something other than the guest's own RAM will be at @pfn. */
uint64_t pool_changed(uint64_t pfn)
{
	changed[index_of(pfn)] = true;
	return pfn;
}

/* Puts RAM everywhere before the guest's kernel gets the pages back. */
void pool_restore(void)
{
	unsigned int i;

	for (i = 0; i < POOL; i++) {
		struct xen_remove_from_physmap arg = {
			.domid = DOMID_SELF, .gpfn = numbers[i],
		};

		if (!changed[i])
			continue;
		/* Nothing need be there. */
		hypercall(__HYPERVISOR_memory_op, XENMEM_remove_from_physmap,
			  (uint64_t)&arg, 0, 0);
		if (balloon_in(numbers[i]) != 1)
			die("put RAM back");
		memset(page(i), 0, PAGE);
	}
}

void pool_setup(void)
{
	int map = open("/proc/self/pagemap", O_RDONLY);
	unsigned int i;

	numbers = calloc(POOL, sizeof(*numbers));
	memory = mmap(NULL, POOL * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map < 0 || !numbers || memory == MAP_FAILED)
		die("pool");
	madvise(memory, POOL * PAGE, MADV_NOHUGEPAGE);
	memset(memory, 0x11, POOL * PAGE);
	if (mlock(memory, POOL * PAGE))
		die("mlock");
	if (pread(map, numbers, POOL * sizeof(*numbers),
		  (uint64_t)memory / PAGE * sizeof(*numbers)) !=
	    (ssize_t)(POOL * sizeof(*numbers)))
		die("pagemap");
	close(map);
	for (i = 0; i < POOL; i++) {
		numbers[i] &= (1UL << 55) - 1;
		if (!numbers[i])
			die("no PFN: not root?");
	}
}

void *page(unsigned int i) { return memory + i * PAGE; }
uint64_t pfn(unsigned int i) { return numbers[i]; }

static long reservation(unsigned int cmd, uint64_t pfn)
{
	xen_pfn_t extent = pfn;
	struct xen_memory_reservation arg = { .nr_extents = 1, .domid = DOMID_SELF };

	set_xen_guest_handle(arg.extent_start, &extent);
	return hypercall(__HYPERVISOR_memory_op, cmd, (uint64_t)&arg, 0, 0);
}

/* 1 if it was done. */
long balloon_out(uint64_t pfn)
{
	return reservation(XENMEM_decrease_reservation, pool_changed(pfn));
}
long balloon_in(uint64_t pfn) { return reservation(XENMEM_populate_physmap, pfn); }

/* Puts a frame of the grant table in the place of pool page @spare. */
void grants_setup(unsigned int spare)
{
	struct xen_add_to_physmap arg = {
		.domid = DOMID_SELF, .space = XENMAPSPACE_grant_table,
		.idx = GRANT_FRAME, .gpfn = pfn(spare),
	};

	if (balloon_out(pfn(spare)) != 1 ||
	    hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap,
		      (uint64_t)&arg, 0, 0))
		die("map a grant table frame");
	grants = page(spare);
}

/* The @i-th of our grants; returns the grant reference. */
uint32_t grant(unsigned int i, uint16_t domid, uint64_t pfn, bool readonly)
{
	grants[i].frame = pfn;
	grants[i].domid = domid;
	__sync_synchronize();
	grants[i].flags = GTF_permit_access | (readonly ? GTF_readonly : 0);
	return GRANT_FRAME * GRANTS_PER_FRAME + i;
}

void ungrant(unsigned int i) { grants[i].flags = 0; }
