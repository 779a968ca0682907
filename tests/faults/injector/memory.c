// SPDX-License-Identifier: GPL-2.0
/* Fault injector: faults in data: stacks, heap, page tables, the page cache. */
#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>

#include "faults.h"

static void flip(const char *fault, const char *what, u8 *byte, struct plan *plan)
{
	u8 new = *byte ^ (1 << plan_below(plan, 8));

	data_write(fault, what, byte, &new, 1);
}

/* A page of RAM for which is() holds, or NULL. */
static struct page *random_page(struct plan *plan, bool (*is)(struct page *page))
{
	unsigned int i;

	for (i = 0; i < ATTEMPTS; i++) {
		unsigned long pfn = plan_below(plan, pfn_end());
		struct page *page;

		if (!pfn_valid(pfn))
			continue;
		page = pfn_to_page(pfn);
		if (!PageReserved(page) && is(page))
			return page;
	}
	return NULL;
}

/* In the part of a sleeping task's stack that is in use. */
static int flip_stack(const struct fault *fault, struct plan *plan)
{
	struct task_struct *process, *task, *victim = NULL;
	unsigned int found = 0;

	rcu_read_lock();
	for_each_process_thread(process, task)
		if (task != current && task->thread.sp && !plan_below(plan, ++found))
			victim = task;
	if (victim) {
		unsigned long top = (unsigned long)task_stack_page(victim) + THREAD_SIZE;
		unsigned long sp = READ_ONCE(victim->thread.sp);

		fault_log(fault->name, "the stack of %s (%d)\n", victim->comm, victim->pid);
		if (sp < top)
			flip(fault->name, "stack", (u8 *)sp + plan_below(plan, top - sp), plan);
	}
	rcu_read_unlock();
	return victim ? 0 : -ENOENT;
}

static bool is_slab(struct page *page)
{
	return folio_test_slab(page_folio(page));
}

static int flip_slab(const struct fault *fault, struct plan *plan)
{
	struct page *page = random_page(plan, is_slab);

	if (!page)
		return -ENOENT;
	flip(fault->name, "slab", (u8 *)page_address(page) + plan_below(plan, PAGE_SIZE), plan);
	return 0;
}

static bool is_table(struct page *page)
{
	return PageTable(page);
}

/* Every other time a process's, else the kernel's own of a page of RAM. */
static int flip_page_table(const struct fault *fault, struct plan *plan)
{
	pte_t *(*walk)(unsigned long address, unsigned int *level) =
		(void *)find_symbol("lookup_address");
	unsigned int level, i;

	if (plan_below(plan, 2) && walk) {
		unsigned long pfn = plan_below(plan, pfn_end());
		pte_t *entry = walk((unsigned long)__va(PFN_PHYS(pfn)), &level);

		if (!entry)
			return -ENOENT;
		fault_log(fault->name, "level %u of the direct map\n", level);
		flip(fault->name, "page table", (u8 *)entry + plan_below(plan, 8), plan);
		return 0;
	}
	for (i = 0; i < 100; i++) {
		struct page *page = random_page(plan, is_table);
		u64 *entry;

		if (!page)
			return -ENOENT;
		entry = (u64 *)page_address(page) + plan_below(plan, PTRS_PER_PTE);
		if (!(*entry & _PAGE_PRESENT))
			continue;
		flip(fault->name, "page table", (u8 *)entry + plan_below(plan, 8), plan);
		return 0;
	}
	return -ENOENT;
}

static bool is_any(struct page *page)
{
	return true;
}

/* Page cache of a regular file on a disk. */
static bool is_cache(struct page *page)
{
	struct folio *folio = page_folio(page);
	struct address_space *mapping = READ_ONCE(folio->mapping);

	return mapping && folio_test_uptodate(folio) &&
	       !folio_test_slab(folio) && !((unsigned long)mapping & PAGE_MAPPING_FLAGS) && mapping->host &&
	       S_ISREG(mapping->host->i_mode) && mapping->host->i_sb->s_bdev;
}

enum { ANYWHERE, CACHE };

/* Through the direct map, past everything that guards a page. */
static int write_wild(const struct fault *fault, struct plan *plan)
{
	struct page *page = random_page(plan, fault->how == CACHE ? is_cache : is_any);
	unsigned int length = 1 + plan_below(plan, 64), at = plan_below(plan, PAGE_SIZE - length);
	u8 bytes[64];
	unsigned int i;

	if (!page)
		return -ENOENT;
	for (i = 0; i < length; i++)
		bytes[i] = plan_next(plan);
	if (fault->how == CACHE)
		fault_log(fault->name, "PFN %#lx, inode %lu, index %lu\n", page_to_pfn(page),
			  page_folio(page)->mapping->host->i_ino, page_folio(page)->index);
	data_write(fault->name, "memory", (u8 *)page_address(page) + at, bytes, length);
	return 0;
}

/* Frees what is in use: an object of the heap, or a page of the page cache. */
static int free_in_use(const struct fault *fault, struct plan *plan)
{
	bool cache = plan_below(plan, 2);
	struct page *page = random_page(plan, cache ? is_cache : is_slab);

	if (!page)
		return -ENOENT;
	if (cache) {
		fault_log(fault->name, "PFN %#lx, inode %lu, index %lu is freed\n", page_to_pfn(page),
			  page_folio(page)->mapping->host->i_ino, page_folio(page)->index);
		folio_put(page_folio(page));
	} else {
		/* kfree() takes the start of an object; most sizes divide by this one. */
		void *object = page_address(page) + 64 * plan_below(plan, PAGE_SIZE / 64);

		fault_log(fault->name, "the object at %px is freed\n", object);
		kfree(object);
	}
	return 0;
}

const struct fault memory_faults[] = {
	{ .name = "stack-flip", .inject = flip_stack },
	{ .name = "slab-flip", .inject = flip_slab },
	{ .name = "page-table-flip", .inject = flip_page_table },
	{ .name = "wild-write", .inject = write_wild, .how = ANYWHERE },
	{ .name = "page-cache-write", .inject = write_wild, .how = CACHE },
	{ .name = "use-after-free", .inject = free_in_use },
	{}
};
