// SPDX-License-Identifier: GPL-2.0
/* Hypercalls through privcmd, how long they take, and what is reported. */
#include "hostile.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <xen/sys/privcmd.h>

void *unmapped, *readonly, *straddling;
void *noncanonical = (void *)0x0000900000000000UL;
void *of_xen = (void *)0xffff830000000000UL;

static int privcmd = -1;
static unsigned int failed;
static uint64_t longest; /* in ns */

void die(const char *what)
{
	fprintf(stderr, "hostile: %s: %s\n", what, strerror(errno));
	exit(2);
}

static const char *name_of(long rc, char *buffer)
{
	static const struct { int nr; const char *name; } names[] = {
		{ 0, "0" }, { EPERM, "EPERM" }, { ENOENT, "ENOENT" },
		{ ESRCH, "ESRCH" }, { EAGAIN, "EAGAIN" }, { ENOMEM, "ENOMEM" },
		{ EACCES, "EACCES" }, { EFAULT, "EFAULT" }, { EBUSY, "EBUSY" },
		{ EEXIST, "EEXIST" }, { ENODEV, "ENODEV" }, { EINVAL, "EINVAL" },
		{ ENOSYS, "ENOSYS" }, { EOPNOTSUPP, "EOPNOTSUPP" },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (rc == -names[i].nr)
			return names[i].name;
	sprintf(buffer, "%ld", rc);
	return buffer;
}

static void report(const char *name, const char *want, const char *got)
{
	if (strcmp(want, got))
		failed++;
	printf("{\"case\":\"%s\",\"want\":\"%s\",\"got\":\"%s\"}\n", name, want,
	       got);
	fflush(stdout);
}

/* A return value, 0 or -errno. */
void expect(const char *name, long want, long got)
{
	char a[24], b[24];

	report(name, name_of(want, a), name_of(got, b));
}

void expect_value(const char *name, long want, long got)
{
	char a[24], b[24];

	sprintf(a, "%ld", want);
	sprintf(b, "%ld", got);
	report(name, a, b);
}

unsigned int failures(void) { return failed; }

uint64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000UL + now.tv_nsec;
}

long hypercall(uint64_t op, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	struct privcmd_hypercall call = { .op = op, .arg = { a, b, c, d } };
	int rc = ioctl(privcmd, IOCTL_PRIVCMD_HYPERCALL, &call);

	return rc < 0 ? -errno : rc;
}

/* How long this vCPU, which we are pinned to, has been running. */
static uint64_t running(void)
{
	static __thread struct vcpu_runstate_info info;

	if (hypercall(__HYPERVISOR_vcpu_op, VCPUOP_get_runstate_info,
		      sched_getcpu(), (uint64_t)&info, 0))
		die("runstate");
	return info.time[RUNSTATE_running];
}

/* The same, and remembers the longest time that one took. */
long timed(uint64_t op, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	uint64_t before = running(), took;
	long rc = hypercall(op, a, b, c, d);

	took = running() - before;
	if (took > longest)
		longest = took;
	return rc;
}

/* In milliseconds. */
double slowest(void) { return longest / 1e6; }

void setup(void)
{
	char *pages;

	privcmd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);
	if (privcmd < 0)
		die("/dev/xen/privcmd");
	pages = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);
	if (pages == MAP_FAILED)
		die("mmap");
	memset(pages, 0, 4 * PAGE);
	/* Read-only, a hole, writable, a hole. */
	if (mprotect(pages, PAGE, PROT_READ) ||
	    mprotect(pages + PAGE, PAGE, PROT_NONE) ||
	    mprotect(pages + 3 * PAGE, PAGE, PROT_NONE))
		die("mprotect");
	readonly = pages;
	unmapped = pages + PAGE;
	straddling = pages + 3 * PAGE;
	/* Xen can't fault in what has not been touched yet. */
	if (mlockall(MCL_CURRENT))
		die("mlockall");
}

static long mmap_resource(struct privcmd_mmap_resource *arg)
{
	return ioctl(privcmd, IOCTL_PRIVCMD_MMAP_RESOURCE, arg) < 0 ? -errno : 0;
}

uint64_t resource_size(uint16_t domid, uint32_t type, uint32_t id, long *rc)
{
	struct privcmd_mmap_resource arg = { .dom = domid, .type = type, .id = id };

	*rc = mmap_resource(&arg);
	return arg.num;
}

/* Memory of another domain. For each page that cannot be mapped there is an error. */
void *foreign_map(uint16_t domid, const xen_pfn_t *pfns, int *errors, unsigned int nr,
		  int prot, long *rc)
{
	void *at = mmap(NULL, nr * PAGE, prot, MAP_SHARED, privcmd, 0);
	struct privcmd_mmapbatch_v2 arg = {
		.num = nr, .dom = domid, .addr = (uint64_t)at, .arr = pfns, .err = errors,
	};

	if (at == MAP_FAILED)
		die("mmap of privcmd");
	*rc = ioctl(privcmd, IOCTL_PRIVCMD_MMAPBATCH_V2, &arg) < 0 ? -errno : 0;
	return at;
}

/* Xen sees the protection that is asked for. */
void *resource_map(uint16_t domid, uint32_t type, uint32_t id, uint32_t frame,
		   uint64_t nr, int prot, long *rc)
{
	struct privcmd_mmap_resource arg = {
		.dom = domid, .type = type, .id = id, .idx = frame, .num = nr,
	};
	void *at = mmap(NULL, nr * PAGE, prot, MAP_SHARED, privcmd, 0);

	if (at == MAP_FAILED)
		die("mmap of privcmd");
	arg.addr = (uint64_t)at;
	*rc = mmap_resource(&arg);
	if (*rc) {
		munmap(at, nr * PAGE);
		return NULL;
	}
	return at;
}
