// SPDX-License-Identifier: GPL-2.0
/* Two vCPUs at once: one changes what Xen is working on for the other. */
#include "hostile.h"

#include <pthread.h>
#include <sched.h>

static struct xen_warmcache_op shared __attribute__((aligned(4096)));
static struct xen_warmcache_io list[XEN_WARMCACHE_MAX_BATCH] __attribute__((aligned(4096)));
static volatile bool over;
static unsigned long calls, surprises;

static uint64_t seed = 88172645463325252UL;

static uint64_t random_number(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	return *state ^= *state << 17;
}

static void on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("second vCPU");
}

static long submit(void)
{
	calls++;
	return hypercall(__HYPERVISOR_memory_op, XENMEM_warmcache, (uint64_t)&shared, 0, 0);
}

/* Changes the command, its arguments and its list, all the time. */
static void *scribble(void *unused)
{
	uint64_t r = seed ^ 1;
	volatile uint64_t *op = (uint64_t *)&shared, *words = (uint64_t *)list;

	on_cpu(1);
	while (!over) {
		uint64_t x = random_number(&r);

		switch (x % 8) {
		case 0: op[0] = (x >> 8) % 8 | 1 << 16 | (x >> 20) % 4200 << 32; break;
		case 1: op[1] = x; break;
		case 2: op[2] = x >> 40; break;
		case 3: op[3] = (uint64_t)list + (x >> 8) % sizeof(list); break;
		case 4: op[3] = (uint64_t)list; break;
		case 5: op[2] = VBD; break;
		default: words[(x >> 3) % (sizeof(list) / 8)] = x >> (x % 64); break;
		}
	}
	return unused;
}

static void changing(uint64_t until)
{
	pthread_t other;
	uint64_t r = seed;

	over = false;
	if (pthread_create(&other, NULL, scribble, NULL))
		die("thread");
	while (nanoseconds() < until) {
		unsigned int i;
		long rc;

		for (i = 0; i < XEN_WARMCACHE_MAX_BATCH; i++) {
			list[i] = io_of(i & XEN_WARMCACHE_IO_BEGIN ? XEN_WARMCACHE_NO_PFN :
					pfn(REGION_OF_RACES + random_number(&r) % 2000),
					random_number(&r) % 100000 * 8, i % 4);
			if (list[i].flags)
				list[i].id = random_number(&r) % 2000;
			if (list[i].flags == XEN_WARMCACHE_IO_END)
				list[i].sector = list[i].nr_sectors = 0;
		}
		shared = (struct xen_warmcache_op){
			.cmd = XEN_WARMCACHE_CMD_REGISTER, .version = XEN_WARMCACHE_VERSION,
			.nr = XEN_WARMCACHE_MAX_BATCH,
		};
		shared.list = (uint64_t)list;
		rc = submit();
		if (rc && rc != -EINVAL && rc != -EFAULT && rc != -EACCES && rc != -ENODEV)
			surprises++;
	}
	over = true;
	pthread_join(other, NULL);
}

/* Writes to the pages, and takes some of them away. */
static void *write_pages(void *unused)
{
	uint64_t r = seed ^ 2;
	struct xen_warmcache_op *mine = calloc(2, sizeof(*mine));
	uint64_t *pfns = calloc(64, sizeof(*pfns));

	on_cpu(1);
	while (!over) {
		unsigned int i, n = REGION_OF_RACES + random_number(&r) % 2000;

		for (i = 0; i < 500; i++)
			((volatile char *)page(REGION_OF_RACES + random_number(&r) % 1900))[i]++;
		for (i = 0; i < 64; i++)
			pfns[i] = pfn(REGION_OF_RACES + random_number(&r) % 2000);
		*mine = (struct xen_warmcache_op){
			.cmd = XEN_WARMCACHE_CMD_COMMIT + random_number(&r) % 2,
			.version = XEN_WARMCACHE_VERSION, .nr = 64,
		};
		mine->list = (uint64_t)pfns;
		hypercall(__HYPERVISOR_memory_op, XENMEM_warmcache, (uint64_t)mine, 0, 0);
		if (n >= REGION_OF_RACES + 1900 && balloon_out(pfn(n)) == 1 &&
		    balloon_in(pfn(n)) != 1)
			surprises++;
	}
	free(mine);
	free(pfns);
	return unused;
}

static void fighting(uint64_t until)
{
	static struct xen_warmcache_info info;
	pthread_t other;
	uint64_t r = seed ^ 3;

	over = false;
	if (pthread_create(&other, NULL, write_pages, NULL))
		die("thread");
	while (nanoseconds() < until) {
		unsigned int i;
		long rc;

		for (i = 0; i < 256; i++)
			list[i] = io_of(pfn(REGION_OF_RACES + random_number(&r) % 2000),
					random_number(&r) % 4000 * 8, XEN_WARMCACHE_IO_READ);
		shared = (struct xen_warmcache_op){
			.cmd = XEN_WARMCACHE_CMD_REGISTER, .version = XEN_WARMCACHE_VERSION,
			.nr = 256,
		};
		shared.list = (uint64_t)list;
		rc = submit();
		/* dom0 switches it off and on again meanwhile. */
		if (rc && rc != -ENODEV)
			surprises++;
		if (rc)
			wc(XEN_WARMCACHE_CMD_ATTACH, 1, &info);
	}
	over = true;
	pthread_join(other, NULL);
}

void guest_races(unsigned int seconds)
{
	uint64_t now = nanoseconds();

	on_cpu(0);
	changing(now + seconds * 500000000UL);
	expect_value("list altered by another vCPU, surprises", 0, surprises);
	fighting(now + seconds * 1000000000UL);
	expect_value("two vCPUs and dom0 on the same pages, surprises", 0, surprises);
	fprintf(stderr, "%lu calls\n", calls);
	expect_value("more than 20 calls were made", 1, calls > 20);
}
