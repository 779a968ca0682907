// SPDX-License-Identifier: GPL-2.0
/* Fault injector: memcpy() copies more than it was asked to. */
#include <linux/atomic.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/printk.h>
#include <linux/string.h>

#include "faults.h"

static unsigned int overrun; /* of the next copy, in bytes */

/* Takes memcpy()'s place. */
static noinline void *copy_too_much(void *to, const void *from, size_t length)
{
	void *start = to;

	if (unlikely(READ_ONCE(overrun)) && length >= 64)
		length += xchg(&overrun, 0);
	asm volatile("rep movsb" : "+D" (to), "+S" (from), "+c" (length) : : "memory");
	return start;
}

static int replace_memcpy(void)
{
	unsigned long address = find_symbol("memcpy");
	u8 jump[5] = { 0xe9 };
	s32 distance;

	if (!address)
		return -ENOENT;
	distance = (unsigned long)copy_too_much - (address + sizeof(jump));
	memcpy(jump + 1, &distance, sizeof(distance));
	return text_write("copy-overrun", address, jump, sizeof(jump));
}

/* How much is as in Rio: a byte, or up to a KiB, or up to a page. */
static int arm_overrun(const struct fault *fault, struct plan *plan)
{
	unsigned int share = plan_below(plan, 100);
	unsigned int bytes = share < 50 ? 1 : share < 94 ? 2 + plan_below(plan, 1023) :
			     1025 + plan_below(plan, 3072);

	fault_log(fault->name, "the next copy of 64 bytes or more copies %u too many\n", bytes);
	WRITE_ONCE(overrun, bytes);
	return 0;
}

const struct fault copy_faults[] = {
	{ .name = "copy-overrun", .prepare = replace_memcpy, .inject = arm_overrun },
	{}
};
