// SPDX-License-Identifier: GPL-2.0
/*
 * What a backend in dom0 does, on demand: one line asks for it, one line says
 * what came of it.
 */
#include "hostile.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <xen/sys/gntalloc.h>
#include <xen/sys/gntdev.h>

#define PEER_PORT 7070

static FILE *from_peer, *to_peer;

/* The side in the domU. */

void peer_connect(const char *address)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	if (s < 0 || !inet_aton(address, &to.sin_addr) ||
	    connect(s, (struct sockaddr *)&to, sizeof(to)))
		die("connect to dom0");
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	from_peer = fdopen(s, "r");
	to_peer = fdopen(dup(s), "w");
	if (!from_peer || !to_peer)
		die("fdopen");
}

static char *ask(const char *format, va_list args)
{
	static char answer[400];

	vfprintf(to_peer, format, args);
	fputc('\n', to_peer);
	fflush(to_peer);
	if (!fgets(answer, sizeof(answer), from_peer))
		die("dom0 does not answer");
	return answer;
}

static char *ask_line(const char *format, ...)
{
	va_list args;
	char *answer;

	va_start(args, format);
	answer = ask(format, args);
	va_end(args);
	return answer;
}

/* The number that dom0 answers; what went wrong there is fatal. */
long peer(const char *format, ...)
{
	va_list args;
	char *answer;

	va_start(args, format);
	answer = ask(format, args);
	va_end(args);
	if (*answer == '!') {
		fprintf(stderr, "hostile: dom0, asked for %s: %s", format, answer);
		exit(2);
	}
	return atol(answer);
}

struct counters peer_counters(void)
{
	struct counters c;
	uint64_t *word = (uint64_t *)&c;
	char *answer = ask_line("status %u", self);
	unsigned int i;

	for (i = 0; i < sizeof(c) / sizeof(*word); i++)
		word[i] = strtoull(answer, &answer, 10);
	return c;
}

bool peer_bit(uint64_t pfn) { return peer("bit %u %lu", self, pfn); }

/* The side in dom0. */

static struct {
	int fd;
	void *at;
} maps[16];

static long map(uint16_t domid, uint32_t ref, char mode)
{
	struct ioctl_gntdev_map_grant_ref arg = {
		.count = 1, .refs[0] = { .domid = domid, .ref = ref },
	};
	unsigned int i;

	for (i = 0; maps[i].at; i++)
		if (i + 1 == ARRAY_SIZE(maps))
			return -ENOSPC;
	maps[i].fd = open("/dev/xen/gntdev", O_RDWR | O_CLOEXEC);
	if (maps[i].fd < 0 || ioctl(maps[i].fd, IOCTL_GNTDEV_MAP_GRANT_REF, &arg))
		return -errno;
	maps[i].at = mmap(NULL, PAGE, mode == 'w' ? PROT_READ | PROT_WRITE : PROT_READ,
			  MAP_SHARED, maps[i].fd, arg.index);
	if (maps[i].at == MAP_FAILED) {
		maps[i].at = NULL;
		close(maps[i].fd);
		return -errno;
	}
	return i;
}

static long unmap(unsigned int i)
{
	if (i >= ARRAY_SIZE(maps) || !maps[i].at)
		return -EINVAL;
	munmap(maps[i].at, PAGE);
	maps[i].at = NULL;
	return close(maps[i].fd) ? -errno : 0;
}

/* One access through a grant, as by a backend: 'w' fills the page. */
static long copy(uint16_t domid, uint32_t ref, char mode)
{
	static char local[PAGE] __attribute__((aligned(4096)));
	struct ioctl_gntdev_grant_copy_segment segment = { .len = PAGE };
	struct ioctl_gntdev_grant_copy arg = { .count = 1, .segments = &segment };
	int fd = open("/dev/xen/gntdev", O_RDWR | O_CLOEXEC), rc;

	memset(local, 0x22, PAGE);
	if (mode == 'w') {
		segment.flags = GNTCOPY_dest_gref;
		segment.source.virt = local;
		segment.dest.foreign.ref = ref;
		segment.dest.foreign.domid = domid;
	} else {
		segment.flags = GNTCOPY_source_gref;
		segment.dest.virt = local;
		segment.source.foreign.ref = ref;
		segment.source.foreign.domid = domid;
	}
	rc = fd < 0 || ioctl(fd, IOCTL_GNTDEV_GRANT_COPY, &arg) ? -errno : segment.status;
	close(fd);
	return rc;
}

/* A page of dom0, for the domain to map. */
static long share(uint16_t domid)
{
	struct ioctl_gntalloc_alloc_gref arg = {
		.domid = domid, .flags = GNTALLOC_FLAG_WRITABLE, .count = 1,
	};
	int fd = open("/dev/xen/gntalloc", O_RDWR | O_CLOEXEC);

	/* Left open: the grant is to last. */
	if (fd < 0 || ioctl(fd, IOCTL_GNTALLOC_ALLOC_GREF, &arg))
		return -errno;
	return arg.gref_ids[0];
}

static long bit(uint16_t domid, uint64_t pfn)
{
	const uint64_t per_frame = PAGE * 8;
	long rc;
	uint64_t *words = resource_map(domid, XENMEM_resource_warmcache,
				       XEN_WARMCACHE_RESOURCE_BITMAP,
				       pfn / per_frame, 1, PROT_READ, &rc);

	if (!words)
		return rc;
	rc = words[pfn % per_frame / 64] >> pfn % 64 & 1;
	munmap(words, PAGE);
	return rc;
}

static void status(uint16_t domid, FILE *out)
{
	static struct xen_warmcache_status st;
	struct xen_domctl_warmcache arg = {
		.cmd = XEN_DOMCTL_WARMCACHE_STATUS, .version = XEN_WARMCACHE_VERSION,
		.u.status.size = sizeof(st),
	};
	long rc;

	set_xen_guest_handle(arg.u.status.buf, &st);
	rc = warmcache_domctl(domid, &arg);
	if (rc)
		fprintf(out, "! %ld\n", rc);
	else
		fprintf(out, "%lu %lu %lu %lu %lu %lu %lu %lu %lu %lu %lu\n",
			st.committed, st.pending, st.registered, st.commits,
			st.commits_ignored, st.unregistered, st.write_faults,
			st.foreign_writes, st.p2m_changes, st.replaced, st.untrackable);
}

static void serve_one(FILE *in, FILE *out)
{
	char line[200];

	while (fgets(line, sizeof(line), in)) {
		unsigned int domid, number;
		unsigned long pfn;
		long rc = -EINVAL;
		char mode;

		if (sscanf(line, "status %u", &domid) == 1) {
			status(domid, out);
			fflush(out);
			continue;
		}
		if (sscanf(line, "map %u %u %c", &domid, &number, &mode) == 3)
			rc = map(domid, number, mode);
		else if (sscanf(line, "copy %u %u %c", &domid, &number, &mode) == 3)
			rc = copy(domid, number, mode);
		else if (sscanf(line, "unmap %u", &number) == 1)
			rc = unmap(number);
		else if (sscanf(line, "share %u", &domid) == 1)
			rc = share(domid);
		else if (sscanf(line, "bit %u %lu", &domid, &pfn) == 2)
			rc = bit(domid, pfn);
		fprintf(out, rc < 0 ? "! %ld\n" : "%ld\n", rc);
		fflush(out);
	}
}

void peer_serve(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (s < 0 || bind(s, (struct sockaddr *)&at, sizeof(at)) || listen(s, 4))
		die("listen");
	for (;;) {
		int c = accept(s, NULL, NULL);
		FILE *in, *out;

		if (c < 0)
			die("accept");
		setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		in = fdopen(c, "r");
		out = fdopen(dup(c), "w");
		if (in && out)
			serve_one(in, out);
		fclose(in);
		fclose(out);
	}
}
