/* SPDX-License-Identifier: GPL-2.0 */
/* Hypercalls as no well-behaved caller makes them. See main.c. */
#ifndef HOSTILE_H
#define HOSTILE_H

#define _GNU_SOURCE
#define __XEN_TOOLS__ 1
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/vcpu.h>
#include <xen/warmcache.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>

#define PAGE 4096UL
/* Where Xen keeps its progress in a memory_op's command; not in its headers. */
#define MEMOP_EXTENT_SHIFT 6
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* A vbd that no domain has: what is said of it can't touch a real disk. */
#define VBD 0x8d00

/* What nobody else may ever see; scan.c looks for it. */
#define SECRET 0xc0ffee5aU

/* call.c: one line of JSON for each case; what Xen is asked, and with what. */
void setup(void);
void expect(const char *name, long want, long got);
void expect_value(const char *name, long want, long got);
unsigned int failures(void);
void die(const char *what) __attribute__((noreturn));
long hypercall(uint64_t op, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
long timed(uint64_t op, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
double slowest(void);
uint64_t resource_size(uint16_t domid, uint32_t type, uint32_t id, long *rc);
void *foreign_map(uint16_t domid, const xen_pfn_t *pfns, int *errors, unsigned int nr,
		  int prot, long *rc);
void *resource_map(uint16_t domid, uint32_t type, uint32_t id, uint32_t frame,
		   uint64_t nr, int prot, long *rc);
uint64_t nanoseconds(void);

/* Addresses that Xen must not follow, or not write to. */
extern void *unmapped, *readonly, *noncanonical, *of_xen, *straddling;

/* pool.c: pages of our own whose PFNs we know. */
#define POOL 4096
/* Pages that the races use: 2000 of them. */
#define REGION_OF_RACES 1000
void pool_setup(void);
void pool_restore(void);
uint64_t pool_changed(uint64_t pfn);
void *page(unsigned int i);
uint64_t pfn(unsigned int i);
long balloon_out(uint64_t pfn);
long balloon_in(uint64_t pfn);
void grants_setup(unsigned int spare);
uint32_t grant(unsigned int i, uint16_t domid, uint64_t pfn, bool readonly);
void ungrant(unsigned int i);

/* guest.c */
long wc(uint16_t cmd, uint32_t nr, void *list);
extern struct xen_warmcache_op *op; /* of the last wc() */
extern uint16_t self, victim;
uint64_t fresh_sector(void);
struct xen_warmcache_io io_of(uint64_t pfn, uint64_t sector, uint32_t flags);
void attach(void);
long announce(uint64_t pfn, uint64_t sector, uint32_t flags, uint32_t ref);
void guest_disabled(void);
void guest_calls(void);
void guest_privileges(uint16_t dead);
void guest_overcommit(void);

/* frames.c, tricks.c, race.c */
void guest_frames(void);
void guest_batches(void);
void guest_tricks(void);
void guest_lies(void);
void guest_races(unsigned int seconds);
void guest_secret(void);

/* peer.c: dom0's side of a trick, asked for over the network. */
struct counters {
	uint64_t committed, pending, registered, commits, ignored,
		 unregistered, write_faults, foreign_writes, p2m_changes,
		 replaced, untrackable;
};
void peer_serve(void) __attribute__((noreturn));
void peer_connect(const char *address);
long peer(const char *format, ...) __attribute__((format(printf, 1, 2)));
struct counters peer_counters(void);
bool peer_bit(uint64_t pfn);

/* dom0.c */
long warmcache_domctl(uint16_t domid, struct xen_domctl_warmcache *arg);
void dom0_calls(uint16_t enabled, uint16_t plain, uint16_t pv, uint16_t dead);
void dom0_writable(uint16_t domid);
void dom0_zombie(uint16_t domid);
void dom0_storm(uint16_t domid, unsigned int seconds);
void dom0_touch(uint16_t domid, unsigned int seconds);
void dom0_latency(unsigned int seconds);
void dom0_hold(uint16_t domid) __attribute__((noreturn));
void dom0_counters(uint16_t domid);
int dom0_control(int argc, char **argv);

#endif
