// SPDX-License-Identifier: GPL-2.0
/*
 * A whole PVH guest that looks through all of its memory, as it gets it from
 * Xen, and prints what it finds on Xen's console. It needs no memory itself
 * but the few pages that it is loaded to.
 */
#include <stdint.h>

#include <xen/arch-x86/hvm/start_info.h>

#define SECRET 0xc0ffee5aU

__asm__(".section .note.Xen, \"a\", @note\n"
	".long 4, 4, 18\n" /* XEN_ELFNOTE_PHYS32_ENTRY */
	".asciz \"Xen\"\n"
	".long _start\n"
	".text\n"
	".globl _start\n"
	"_start: mov $stack_top, %esp\n"
	"push %ebx\n"
	"call scan\n"
	/* No vCPU is left that could wake up: the domain powers off. */
	"0: cli; hlt; jmp 0b\n"
	".bss\n"
	".balign 16\n"
	".skip 4096\n"
	"stack_top:\n"
	".text\n");

static void put(char c)
{
	__asm__ volatile("outb %0, $0xe9" : : "a"(c));
}

static void text(const char *s)
{
	while (*s)
		put(*s++);
}

static void number(uint32_t n)
{
	if (n > 9)
		number(n / 10);
	put('0' + n % 10);
}

void scan(const struct hvm_start_info *info)
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
