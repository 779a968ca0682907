// SPDX-License-Identifier: GPL-2.0
/*
 * Fault injector: which functions the work runs through, so that faults can be
 * put where they will be met.  A breakpoint at the start of each, which is gone
 * once it was hit.
 *
 * Locking: none.  The guest has one vCPU.  watch_start() and watch_stop() are
 * called one after the other; on_breakpoint(), in between, only clears
 * breakpoints and sets marks.
 */
#include <linux/errno.h>
#include <linux/kdebug.h>
#include <linux/mm.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include <asm/ptrace.h>

#include "faults.h"

#define BREAKPOINT 0xcc

struct function {
	unsigned long address;
	unsigned long size;
	u8 first; /* byte */
	bool ran;
};

static struct function *functions; /* by address */
unsigned int nr_functions, nr_ran;

/* Another mapping of the text that is watched, which can be written to. */
static u8 *alias;
static unsigned long alias_of;

static u8 *writable(unsigned long address)
{
	return alias + (address - alias_of);
}

static struct function *find(unsigned long address)
{
	unsigned int from = 0, to = nr_functions;

	while (from < to) {
		unsigned int middle = (from + to) / 2;

		if (functions[middle].address == address)
			return &functions[middle];
		if (functions[middle].address < address)
			from = middle + 1;
		else
			to = middle;
	}
	return NULL;
}

static int on_breakpoint(struct notifier_block *block, unsigned long event, void *data)
{
	struct die_args *args = data;
	struct function *function;

	if (event != DIE_INT3)
		return NOTIFY_DONE;
	function = find(args->regs->ip - 1);
	if (!function)
		return NOTIFY_DONE;
	*writable(function->address) = function->first;
	function->ran = true;
	args->regs->ip = function->address;
	return NOTIFY_STOP;
}

static struct notifier_block notifier = { .notifier_call = on_breakpoint, .priority = INT_MAX };

/* Lists the functions in [from, to), or, without a list, counts them. */
static unsigned int list_functions(unsigned long from, unsigned long to, struct function *all)
{
	unsigned long address, size, offset;
	unsigned int n = 0;

	for (address = from; address < to; address += size - offset) {
		if (!find_function(address, &size, &offset) || size <= offset)
			break;
		if (all) {
			all[n].address = address - offset;
			all[n].size = size;
			all[n].first = *(u8 *)(address - offset);
		}
		n++;
	}
	return n;
}

static u8 *map_text(unsigned long from, unsigned long to)
{
	unsigned int n = (to - from) >> PAGE_SHIFT, i;
	struct page **pages = kvmalloc_array(n, sizeof(*pages), GFP_KERNEL);
	u8 *mapped;

	if (!pages)
		return NULL;
	for (i = 0; i < n; i++)
		pages[i] = virt_to_page(lm_alias(from + i * PAGE_SIZE));
	mapped = vmap(pages, n, VM_MAP, PAGE_KERNEL);
	kvfree(pages);
	return mapped;
}

int watch_start(void)
{
	unsigned long lowest = ULONG_MAX, highest = 0;
	unsigned int i, n = 0;
	int rc;

	if (functions)
		return -EBUSY;
	for (i = 0; i < nr_windows; i++) {
		lowest = min(lowest, windows[i].start);
		highest = max(highest, windows[i].end);
		n += list_functions(windows[i].start, windows[i].end, NULL);
	}
	functions = kvcalloc(n, sizeof(*functions), GFP_KERNEL);
	if (!functions)
		return -ENOMEM;
	for (i = 0; i < nr_windows; i++) {
		windows[i].first = nr_functions;
		windows[i].count = list_functions(windows[i].start, windows[i].end, functions + nr_functions);
		nr_functions += windows[i].count;
	}
	alias_of = ALIGN_DOWN(lowest, PAGE_SIZE);
	alias = map_text(alias_of, PAGE_ALIGN(highest));
	if (!alias)
		return -ENOMEM;
	rc = register_die_notifier(&notifier);
	if (rc)
		return rc;
	for (i = 0; i < nr_functions; i++)
		*writable(functions[i].address) = BREAKPOINT;
	return 0;
}

int watch_stop(void)
{
	unsigned int i, ran = 0;

	if (!alias)
		return -ENOENT;
	for (i = 0; i < nr_functions; i++) {
		if (!functions[i].ran)
			*writable(functions[i].address) = functions[i].first;
		ran += functions[i].ran;
	}
	unregister_die_notifier(&notifier);
	vunmap(alias);
	alias = NULL;
	nr_ran = ran;
	return ran ? 0 : -ENOENT;
}

unsigned long watch_choose(const struct window *window, struct plan *plan, unsigned long *size)
{
	unsigned int i;

	for (i = 0; i < ATTEMPTS && window->count; i++) {
		struct function *function = &functions[window->first + plan_below(plan, window->count)];

		if (function->ran) {
			*size = function->size;
			return function->address;
		}
	}
	return 0;
}
