/* SPDX-License-Identifier: GPL-2.0 */
/* Fault injector: what its parts share. */
#ifndef FAULTS_H
#define FAULTS_H

#include <linux/types.h>

#include <asm/insn.h>

/*
 * A stream of numbers that follows from type and seed alone.  Which object of
 * the kernel a number selects also depends on the kernel's state, so that runs
 * are only the same if they start from the same state.
 */
struct plan {
	u64 state;
};

u64 plan_next(struct plan *plan);

/* A number below @n. */
static inline u64 plan_below(struct plan *plan, u64 n)
{
	return plan_next(plan) % n;
}

/* A type of fault.  Everything that inject() changes it logs first. */
struct fault {
	const char *name;
	/* May be NULL.  0, or -errno. */
	int (*prepare)(void);
	/* 0, or -ENOENT if nothing was found that it can be done to. */
	int (*inject)(const struct fault *fault, struct plan *plan);
	/* For the types that one function handles. */
	int how;
};

extern const struct fault text_faults[], memory_faults[], copy_faults[], block_faults[];

/* Functions of the kernel that modules cannot link with. */
extern unsigned long (*find_symbol)(const char *name);
extern int (*find_function)(unsigned long address, unsigned long *size, unsigned long *offset);
extern int (*decode)(struct insn *insn, const void *text, int length, enum insn_mode mode);
int symbols_init(unsigned long lookup);

/*
 * A part of the kernel's text, from one symbol to another, whose functions are
 * watched; and how many faults in ten it gets.
 */
struct window {
	const char *from, *to;
	unsigned int share;
	unsigned long start, end;
	unsigned int first, count; /* functions, in the list of all that are watched */
};

extern struct window windows[];
extern const unsigned int nr_windows;

extern unsigned int nr_functions, nr_ran; /* those that are watched; of these, those that ran */

/* Between the two, the functions that run are marked. */
int watch_start(void);
int watch_stop(void);

/* A function of the window that ran, or 0. */
unsigned long watch_choose(const struct window *window, struct plan *plan, unsigned long *size);

/* Logs, then replaces @length bytes of the kernel's text. */
int text_write(const char *fault, unsigned long address, const u8 *bytes, unsigned int length);

/* Logs, then replaces data. */
void data_write(const char *fault, const char *what, void *address, const void *bytes, unsigned int length);

/* The end of the PFNs. */
unsigned long pfn_end(void);

#define fault_log(fault, fmt, ...) pr_emerg("fault %s: " fmt, fault, ##__VA_ARGS__)

/* No type of fault takes more attempts than this to find a victim. */
#define ATTEMPTS 200000

#endif /* FAULTS_H */
