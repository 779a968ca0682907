/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a whole PVH guest begins with, which prints on Xen's console. It stays in the
 * mode that it is entered in: 32 bits, without paging.
 */
#ifndef PVH32_H
#define PVH32_H

#include <stdint.h>

#include <xen/arch-x86/hvm/start_info.h>

__asm__(".section .note.Xen, \"a\", @note\n"
	".long 4, 4, 18\n" /* XEN_ELFNOTE_PHYS32_ENTRY */
	".asciz \"Xen\"\n"
	".long _start\n"
	".text\n"
	".globl _start\n"
	"_start: mov $stack_top, %esp\n"
	"push %ebx\n"
	"call guest\n"
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

void guest(const struct hvm_start_info *info);

#endif
