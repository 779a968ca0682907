// SPDX-License-Identifier: GPL-2.0
/* XEN_DOMCTL_warmcache and the resource, as only a broken dom0 uses them. */
#include "hostile.h"

#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static struct xen_domctl domctl __attribute__((aligned(4096)));

long warmcache_domctl(uint16_t domid, struct xen_domctl_warmcache *arg)
{
	long rc;

	memset(&domctl, 0, sizeof(domctl));
	domctl.cmd = XEN_DOMCTL_warmcache;
	domctl.interface_version = XEN_DOMCTL_INTERFACE_VERSION;
	domctl.domain = domid;
	domctl.u.warmcache = *arg;
	rc = hypercall(__HYPERVISOR_domctl, (uint64_t)&domctl, 0, 0, 0);
	*arg = domctl.u.warmcache;
	return rc;
}

static struct xen_domctl_warmcache arg;

static long send(uint16_t domid, uint32_t cmd)
{
	arg.cmd = cmd;
	arg.version = XEN_WARMCACHE_VERSION;
	return warmcache_domctl(domid, &arg);
}

static long plain(uint16_t domid, uint32_t cmd)
{
	memset(&arg, 0, sizeof(arg));
	return send(domid, cmd);
}

static void each_command(const char *whose, uint16_t domid, long want, long image)
{
	unsigned int cmd;

	for (cmd = 0; cmd <= XEN_DOMCTL_WARMCACHE_IMAGE_DROP; cmd++) {
		char name[80];

		snprintf(name, sizeof(name), "domctl %u of %s", cmd, whose);
		expect(name, cmd >= XEN_DOMCTL_WARMCACHE_IMAGE_STATUS ? image : want,
		       plain(domid, cmd));
	}
}

static long status_to(uint16_t domid, void *buf, uint32_t size, uint32_t pad)
{
	memset(&arg, 0, sizeof(arg));
	set_xen_guest_handle(arg.u.status.buf, buf);
	arg.u.status.size = size;
	arg.u.status.pad = pad;
	return send(domid, XEN_DOMCTL_WARMCACHE_STATUS);
}

static void status(uint16_t domid)
{
	static unsigned char buf[1024];
	const struct { void *at; const char *name; } bad[] = {
		{ NULL, "STATUS to NULL" }, { unmapped, "STATUS to a page not mapped" },
		{ readonly, "STATUS to a read-only page" },
		{ noncanonical, "STATUS to an address not canonical" },
		{ of_xen, "STATUS to where Xen is" }, { straddling - 4, "STATUS to a page too few" },
	};
	static const uint32_t sizes[] = { 0, 1, 8, 100, sizeof(struct xen_warmcache_status), ~0U };
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		expect(bad[i].name, -EFAULT, status_to(domid, bad[i].at, 100, 0));
	expect("STATUS with pad 1", -EINVAL, status_to(domid, buf, 100, 1));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint32_t fits = sizes[i] < sizeof(struct xen_warmcache_status)
				? sizes[i] : sizeof(struct xen_warmcache_status);

		memset(buf, 0xee, sizeof(buf));
		expect("STATUS of another size", 0, status_to(domid, buf, sizes[i], 0));
		expect_value("STATUS of another size, written", fits, arg.u.status.size);
		for (j = fits; j < sizeof(buf) && buf[j] == 0xee; j++)
			;
		expect_value("STATUS of another size, first byte not overwritten",
			     sizeof(buf), j);
	}
}

static long drop(uint16_t domid, uint32_t flags, uint32_t vbd, uint32_t nr, void *pfns)
{
	memset(&arg, 0, sizeof(arg));
	arg.u.drop.flags = flags;
	arg.u.drop.vbd = vbd;
	arg.u.drop.nr = nr;
	set_xen_guest_handle(arg.u.drop.pfns, pfns);
	return send(domid, XEN_DOMCTL_WARMCACHE_DROP);
}

static long approve(uint16_t domid, uint32_t vbd, uint32_t verdict)
{
	memset(&arg, 0, sizeof(arg));
	arg.u.approve.vbd = vbd;
	arg.u.approve.verdict = verdict;
	return send(domid, XEN_DOMCTL_WARMCACHE_APPROVE);
}

static void decisions(uint16_t domid)
{
	static uint64_t nonsense[] = { 0, ~0UL, 1UL << 29, 1UL << 32, 1UL << 63, 5, 5 };

	expect("APPROVE vbd 0", -EINVAL, approve(domid, 0, 1));
	expect("APPROVE with verdict 0", -EINVAL, approve(domid, VBD, 0));
	expect("APPROVE with verdict 3", -EINVAL, approve(domid, VBD, 3));
	expect("APPROVE with verdict ~0", -EINVAL, approve(domid, VBD, ~0U));
	expect("APPROVE a vbd of which nothing is held", -ENOENT, approve(domid, VBD, 1));
	expect("refuse a vbd of which nothing is held", -ENOENT, approve(domid, VBD, 2));

	expect("DROP with flags 3", -EINVAL, drop(domid, 3, 0, 0, NULL));
	expect("DROP with flags 4", -EINVAL, drop(domid, 4, 0, 0, NULL));
	expect("DROP with flags ~0", -EINVAL, drop(domid, ~0U, 0, 0, NULL));
	expect("DROP of vbd 0", -EINVAL, drop(domid, 1, 0, 0, NULL));
	expect("DROP of an unknown vbd", 0, drop(domid, 1, 77, 0, NULL));
	expect("DROP of no PFNs", 0, drop(domid, 2, 0, 0, NULL));
	expect("DROP of PFNs at NULL", -EFAULT, drop(domid, 2, 0, 1, NULL));
	expect("DROP of PFNs at a page not mapped", -EFAULT, drop(domid, 2, 0, 1, unmapped));
	expect("DROP of PFNs where Xen is", -EFAULT, drop(domid, 2, 0, 1, of_xen));
	expect("DROP of ~0 PFNs", -EFAULT, drop(domid, 2, 0, ~0U, straddling - PAGE));
	expect_value("DROP of ~0 PFNs, left", ~0U - PAGE / 8, arg.u.drop.nr);
	expect("DROP of PFNs out of range", 0,
	       drop(domid, 2, 0, ARRAY_SIZE(nonsense), nonsense));
	expect_value("DROP of PFNs out of range, dropped", 0, arg.u.drop.dropped);
}

static void resources(uint16_t enabled, uint16_t plain, uint16_t dead)
{
	const uint32_t type = XENMEM_resource_warmcache;
	uint64_t frames;
	void *at;
	long rc;

	frames = resource_size(enabled, type, XEN_WARMCACHE_RESOURCE_TABLE, &rc);
	expect("size of the table", 0, rc);
	resource_size(enabled, type, 3, &rc);
	expect("resource 3", -EINVAL, rc);
	resource_size(enabled, type, ~0U, &rc);
	expect("resource ~0", -EINVAL, rc);
	resource_size(plain, type, XEN_WARMCACHE_RESOURCE_TABLE, &rc);
	expect("resource of a domain not enabled", -EINVAL, rc);
	resource_size(dead, type, XEN_WARMCACHE_RESOURCE_TABLE, &rc);
	expect("resource of no domain", -ESRCH, rc);
	resource_map(enabled, type, XEN_WARMCACHE_RESOURCE_TABLE, frames, 1, PROT_READ, &rc);
	expect("resource past its end", -EINVAL, rc);
	resource_map(enabled, type, XEN_WARMCACHE_RESOURCE_TABLE, frames - 1, 2, PROT_READ, &rc);
	expect("resource across its end", -EINVAL, rc);
	resource_map(enabled, type, XEN_WARMCACHE_RESOURCE_TABLE, ~0U, 2, PROT_READ, &rc);
	expect("resource, frame and number overflow", -EINVAL, rc);
	at = resource_map(enabled, type, XEN_WARMCACHE_RESOURCE_TABLE, 0, 1, PROT_READ, &rc);
	expect("resource mapped read-only", 0, rc);
	if (at)
		munmap(at, PAGE);
}

/* Xen writes to these pages, and believes what is in them. */
void dom0_writable(uint16_t domid)
{
	static const char *const names[] = { "table", "reuse bitmap", "held bitmap" };
	unsigned int id;
	long rc;

	for (id = 0; id < ARRAY_SIZE(names); id++) {
		char name[40];
		void *at = resource_map(domid, XENMEM_resource_warmcache, id, 0, 1,
					PROT_READ | PROT_WRITE, &rc);

		sprintf(name, "%s mapped writable", names[id]);
		expect_value(name, 0, !!at);
		if (at)
			munmap(at, PAGE);
	}
}

void dom0_calls(uint16_t enabled, uint16_t other, uint16_t pv, uint16_t dead)
{
	static const uint32_t versions[] = { 0, 2, 4, ~0U };
	unsigned int i;

	each_command("itself", 0, -EINVAL, -EINVAL);
	each_command("DOMID_INVALID", DOMID_INVALID, -ESRCH, -ENOENT);
	each_command("no domain", dead, -ESRCH, -ESRCH);
	for (i = 0; i < ARRAY_SIZE(versions); i++) {
		memset(&arg, 0, sizeof(arg));
		arg.version = versions[i];
		arg.cmd = XEN_DOMCTL_WARMCACHE_STATUS;
		expect("domctl of another version", -EACCES, warmcache_domctl(enabled, &arg));
	}
	expect("domctl 10", -EOPNOTSUPP, plain(enabled, 10));
	expect("PROBE of a domain", -EINVAL, plain(enabled, XEN_DOMCTL_WARMCACHE_PROBE));
	expect("PROBE", 0, plain(DOMID_INVALID, XEN_DOMCTL_WARMCACHE_PROBE));
	expect_value("what PROBE answers", 1, arg.u.probe.magic == XEN_DOMCTL_WARMCACHE_MAGIC);
	expect("domctl ~0", -EOPNOTSUPP, plain(enabled, ~0U));
	expect("domctl NULL", -EFAULT, hypercall(__HYPERVISOR_domctl, 0, 0, 0, 0));
	expect("domctl not mapped", -EFAULT,
	       hypercall(__HYPERVISOR_domctl, (uint64_t)unmapped, 0, 0, 0));

	expect("ENABLE twice", -EEXIST, plain(enabled, XEN_DOMCTL_WARMCACHE_ENABLE));
	expect("ENABLE of a PV domain", -EOPNOTSUPP, plain(pv, XEN_DOMCTL_WARMCACHE_ENABLE));
	memset(&arg, 0, sizeof(arg));
	arg.u.enable.cursor = 1;
	expect("ARM with a cursor", -EINVAL, send(enabled, XEN_DOMCTL_WARMCACHE_ARM));
	for (i = XEN_DOMCTL_WARMCACHE_DISABLE; i <= XEN_DOMCTL_WARMCACHE_DROP; i++)
		if (i != XEN_DOMCTL_WARMCACHE_STATUS)
			expect("domctl of a domain not enabled", -ENODEV, plain(other, i));
	expect("STATUS of a domain not enabled", 0, status_to(other, NULL, 0, 0));

	status(enabled);
	decisions(enabled);
	resources(enabled, other, dead);

	memset(&arg, 0, sizeof(arg));
	arg.u.image.index = ~0U - 1;
	expect("IMAGE_STATUS past the last", -ENOENT,
	       send(DOMID_INVALID, XEN_DOMCTL_WARMCACHE_IMAGE_STATUS));
	memset(&arg, 0, sizeof(arg));
	memset(arg.u.image.uuid, 0x77, sizeof(arg.u.image.uuid));
	arg.u.image.index = ~0U;
	expect("IMAGE_STATUS of an unknown UUID", -ENOENT,
	       send(DOMID_INVALID, XEN_DOMCTL_WARMCACHE_IMAGE_STATUS));
	expect("IMAGE_DROP of an unknown UUID", -ENOENT,
	       send(DOMID_INVALID, XEN_DOMCTL_WARMCACHE_IMAGE_DROP));
	expect("IMAGE_STATUS of a domain", -EINVAL,
	       plain(enabled, XEN_DOMCTL_WARMCACHE_IMAGE_STATUS));
	expect("IMAGE_DROP of a domain", -EINVAL, plain(enabled, XEN_DOMCTL_WARMCACHE_IMAGE_DROP));
}

/* A domain that has been destroyed, but of which somebody has pages mapped. */
void dom0_zombie(uint16_t domid)
{
	long rc;

	expect("ENABLE of a dying domain", -EINVAL, plain(domid, XEN_DOMCTL_WARMCACHE_ENABLE));
	expect("STATUS of a dying domain", 0, status_to(domid, NULL, 0, 0));
	expect("ARM of a dying domain", 0, plain(domid, XEN_DOMCTL_WARMCACHE_ARM));
	expect("DROP of a dying domain", 0, plain(domid, XEN_DOMCTL_WARMCACHE_DROP));
	expect_value("DROP of a dying domain, dropped", 0, arg.u.drop.dropped);
	expect("APPROVE of a dying domain", -ENOENT, approve(domid, VBD, 1));
	resource_map(domid, XENMEM_resource_warmcache, XEN_WARMCACHE_RESOURCE_HELD, 0, 1,
		     PROT_READ, &rc);
	expect_value("resource of a dying domain, mapped", 0, !rc);
	expect("DISABLE of a dying domain", 0, plain(domid, XEN_DOMCTL_WARMCACHE_DISABLE));
	expect("DISABLE of a dying domain twice", -ENODEV,
	       plain(domid, XEN_DOMCTL_WARMCACHE_DISABLE));
}

/* Everything that dom0 can do, in any order, while the guest is at it as well. */
void dom0_storm(uint16_t domid, unsigned int seconds)
{
	static uint64_t pfns[512];
	uint64_t end = nanoseconds() + seconds * 1000000000UL, x = 88172645463325252UL;
	unsigned long calls = 0, surprises = 0;
	unsigned int i;
	long rc = 0;

	for (; nanoseconds() < end; calls++) {
		void *at;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		switch (x % 9) {
		case 0: rc = plain(domid, XEN_DOMCTL_WARMCACHE_ARM); break;
		case 1: rc = plain(domid, XEN_DOMCTL_WARMCACHE_DISARM); break;
		case 2: rc = drop(domid, 0, 0, 0, NULL); break;
		case 3: rc = drop(domid, 1, VBD, 0, NULL); break;
		case 4:
			for (i = 0; i < ARRAY_SIZE(pfns); i++)
				pfns[i] = (x >> 8) % 0x10000 + i;
			rc = drop(domid, 2, 0, ARRAY_SIZE(pfns), pfns);
			break;
		case 5: rc = approve(domid, VBD, 1 + (x >> 9) % 2) == -ENOENT ? 0 : -EINVAL; break;
		case 6:
			at = resource_map(domid, XENMEM_resource_warmcache, (x >> 9) % 3, 0, 1,
					  PROT_READ, &rc);
			if (at)
				munmap(at, PAGE);
			break;
		case 7:
			rc = plain(domid, XEN_DOMCTL_WARMCACHE_DISABLE);
			if (!rc)
				rc = plain(domid, XEN_DOMCTL_WARMCACHE_ENABLE);
			break;
		default: rc = status_to(domid, pfns, sizeof(pfns), 0); break;
		}
		if (rc && !surprises++)
			fprintf(stderr, "call %lu, %lu: %ld\n", calls, x % 9, rc);
	}
	expect_value("dom0's calls meanwhile, surprises", 0, surprises);
	expect_value("more than 100 calls of dom0 were made", 1, calls > 100);
}

/*
 * Maps pages of a domain that goes on, here and there, half of the times to write to
 * them. What is written is what is there, so that nobody can tell but Xen. It is no
 * surprise if the domain is gone.
 */
void dom0_touch(uint16_t domid, unsigned int seconds)
{
	enum { NR = 64 };
	uint64_t end = nanoseconds() + seconds * 1000000000UL, x = 88172645463325252UL;
	unsigned long mapped = 0, written = 0;
	xen_pfn_t pfns[NR];
	int errors[NR];
	unsigned int i;
	long rc = 0;

	while (nanoseconds() < end && rc != -ESRCH && rc != -EINVAL) {
		int prot = PROT_READ;
		char *at;

		for (i = 0; i < NR; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			pfns[i] = x % 0x20000; /* of 512 MiB */
			errors[i] = 0;
		}
		if (x >> 63)
			prot |= PROT_WRITE;
		at = foreign_map(domid, pfns, errors, NR, prot, &rc);
		for (i = 0; i < NR && !rc; i++) {
			volatile unsigned int *word = (void *)(at + i * PAGE);

			if (errors[i])
				continue;
			mapped++;
			if (prot & PROT_WRITE) {
				__sync_fetch_and_or(word, 0);
				written++;
			} else
				(void)*word;
		}
		munmap(at, NR * PAGE);
	}
	printf("{\"mapped\":%lu,\"written\":%lu,\"rc\":%ld}\n", mapped, written, rc);
}

static volatile sig_atomic_t stopped;

static void stop(int unused) { stopped = 1; }

/*
 * How late a process in dom0 is woken up at worst. There is one processor, so
 * nothing in Xen can last longer without its being seen here.
 */
void dom0_latency(unsigned int seconds)
{
	uint64_t end = nanoseconds() + seconds * 1000000000UL, worst = 0, now, late;
	const struct timespec nap = { .tv_nsec = 1000000 };

	signal(SIGTERM, stop);
	while (!stopped && (now = nanoseconds()) < end) {
		if (nanosleep(&nap, NULL))
			break; /* told to stop, so not late */
		late = nanoseconds() - now - nap.tv_nsec;
		if (late > worst)
			worst = late;
	}
	printf("{\"worst_ms\":%.1f}\n", worst / 1e6);
}

/* As long as we live, the domain can't go away. */
void dom0_hold(uint16_t domid)
{
	long rc;

	if (!resource_map(domid, XENMEM_resource_warmcache, XEN_WARMCACHE_RESOURCE_BITMAP, 0, 1,
			  PROT_READ, &rc))
		die("map the reuse bitmap");
	printf("held\n");
	fflush(stdout);
	for (;;)
		pause();
}

void dom0_counters(uint16_t domid)
{
	static struct xen_warmcache_status st;

	if (status_to(domid, &st, sizeof(st), 0))
		die("STATUS");
	printf("{\"registered\":%lu,\"committed\":%lu,\"foreign_writes\":%lu,\"p2m_changes\":%lu}\n",
	       st.registered, st.committed, st.foreign_writes, st.p2m_changes);
}

/* control COMMAND DOMID|UUID [TTL]: one domctl, for the tests' own use. */
int dom0_control(int argc, char **argv)
{
	uint16_t domid = DOMID_INVALID;
	unsigned int i, cmd;
	long rc;

	memset(&arg, 0, sizeof(arg));
	if (argc < 2)
		return 2;
	if (!strncmp(argv[0], "image", 5)) {
		if (strlen(argv[1]) != 36)
			return 2;
		for (i = 0; i < 16; i++, argv[1] += 2) {
			argv[1] += *argv[1] == '-';
			sscanf(argv[1], "%2hhx", &arg.u.image.uuid[i]);
		}
		arg.u.image.index = ~0U;
		cmd = !strcmp(argv[0], "image-drop") ? XEN_DOMCTL_WARMCACHE_IMAGE_DROP
						     : XEN_DOMCTL_WARMCACHE_IMAGE_STATUS;
	} else {
		domid = atoi(argv[1]);
		arg.u.enable.ttl = argc > 2 ? atoi(argv[2]) : 0;
		cmd = !strcmp(argv[0], "enable") ? XEN_DOMCTL_WARMCACHE_ENABLE
		    : !strcmp(argv[0], "disable") ? XEN_DOMCTL_WARMCACHE_DISABLE
						  : XEN_DOMCTL_WARMCACHE_ARM;
		if (cmd == XEN_DOMCTL_WARMCACHE_DISABLE)
			arg.u.enable.ttl = 0;
	}
	rc = send(domid, cmd);
	printf("{\"rc\":%ld,\"pages\":%lu}\n", rc,
	       domid == DOMID_INVALID && !rc ? arg.u.image.pages : 0UL);
	return 0;
}
