// SPDX-License-Identifier: GPL-2.0
/* Fault injector: what the kernel doesn't export, and writing where one can't. */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/printk.h>

#include "faults.h"

unsigned long (*find_symbol)(const char *name);
int (*find_function)(unsigned long address, unsigned long *size, unsigned long *offset);
int (*decode)(struct insn *insn, const void *text, int length, enum insn_mode mode);

static void *(*poke)(void *address, const void *bytes, size_t length);
static void (*poke_sync)(void);

int symbols_init(unsigned long lookup)
{
	unsigned int i;

	if (!lookup)
		return -EINVAL;
	find_symbol = (void *)lookup;
	find_function = (void *)find_symbol("kallsyms_lookup_size_offset");
	decode = (void *)find_symbol("insn_decode");
	poke = (void *)find_symbol("text_poke");
	poke_sync = (void *)find_symbol("text_poke_sync");
	for (i = 0; i < nr_windows; i++) {
		windows[i].start = find_symbol(windows[i].from);
		windows[i].end = find_symbol(windows[i].to);
		if (!windows[i].start || windows[i].end <= windows[i].start)
			return -ENOENT;
	}
	return find_function && decode && poke && poke_sync ? 0 : -ENOENT;
}

/*
 * Not text_poke_bp(): that another CPU sees half of the change is what a bit
 * that flips in memory would do to it as well.
 */
int text_write(const char *fault, unsigned long address, const u8 *bytes, unsigned int length)
{
	fault_log(fault, "%pS: %*ph becomes %*ph\n", (void *)address, (int)length, (void *)address,
		  (int)length, bytes);
	poke((void *)address, bytes, length);
	poke_sync();
	return 0;
}

void data_write(const char *fault, const char *what, void *address, const void *bytes,
		unsigned int length)
{
	/* No more than the log shows at once. */
	fault_log(fault, "%s at %px: %u bytes, %*ph becomes %*ph\n", what, address, length,
		  (int)min(length, 16U), address, (int)min(length, 16U), bytes);
	memcpy(address, bytes, length);
}

unsigned long pfn_end(void)
{
	static unsigned long end;
	unsigned long pfn;

	if (end)
		return end;
	for (pfn = 0; pfn < 1UL << 22; pfn += PAGES_PER_SECTION)
		if (pfn_valid(pfn))
			end = pfn + PAGES_PER_SECTION;
	return end;
}
