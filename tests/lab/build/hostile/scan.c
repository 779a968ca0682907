// SPDX-License-Identifier: GPL-2.0
/*
 * A whole PVH guest that looks through all of its memory, as it gets it from
 * Xen, and prints what it finds on Xen's console. It needs no memory itself
 * but the few pages that it is loaded to.
 */
#include "pvh32.h"

#define SECRET 0xc0ffee5aU

void guest(const struct hvm_start_info *info)
{
	const struct hvm_memmap_table_entry *map = (void *)(uint32_t)info->memmap_paddr;
	/* Not stored anywhere as it is. */
	volatile uint32_t inverse = ~SECRET;
	uint32_t want = ~inverse, i, pages = 0, hits = 0, used = 0;

	for (i = 0; i < info->memmap_entries; i++) {
		uint32_t at = map[i].addr, end = at + map[i].size;

		if (map[i].type != XEN_HVM_MEMMAP_TYPE_RAM)
			continue;
		at = (at + 4095) & ~4095U;
		for (; at + 4096 <= end; at += 4096, pages++) {
			const uint32_t *word = (void *)at, *last = word + 1024;
			uint32_t hit = 0, any = 0;

			for (; word < last; word += 4) {
				hit |= (word[0] == want) | (word[1] == want) |
				       (word[2] == want) | (word[3] == want);
				any |= word[0] | word[1] | word[2] | word[3];
			}
			hits += hit;
			used += !!any;
		}
	}
	text("SCAN pages=");
	number(pages);
	text(" hits=");
	number(hits);
	text(" used=");
	number(used);
	put('\n');
}
