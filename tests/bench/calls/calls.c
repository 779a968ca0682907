// SPDX-License-Identifier: GPL-2.0
/*
 * What REGISTER, COMMIT, UNREGISTER and a write fault cost: a whole PVH guest of
 * one vCPU that does nothing else, for 16384 pages, 32 at a time, and prints ns
 * for each page on Xen's console.  No I/O is done, so a COMMIT forgets the page;
 * that takes as long.  Each line is printed thrice; the last time the pages lie
 * scattered.  In the lab, where an instruction takes 2 ns:
 *
 *	gcc -O2 -Wall -ffreestanding -fno-pic -fno-stack-protector -fcf-protection=none \
 *		-mno-sse -mno-mmx -mno-red-zone -fno-asynchronous-unwind-tables -c calls.c
 *	ld -static -nostdlib -z noexecstack --build-id=none -Ttext-segment=0x100000 \
 *		-z max-page-size=4096 -e _start -o calls64 calls.o
 *	objcopy -O elf32-i386 calls64 calls
 *	build/labcmd boot; build/labcmd put calls /root/calls
 *	build/labcmd exec 'setsid warmrebootd >/dev/null 2>&1 </dev/null &'
 *	build/labcmd exec 'printf "name=\"calls\"\ntype=\"pvh\"\nkernel=\"/root/calls\"\nmemory=128\n" >/tmp/calls.cfg
 *		xl create -p /tmp/calls.cfg; warmreboot enable calls; xl unpause calls'
 *	grep -a COST ~/.cache/warmreboot/labs/lab/console.log
 */
#include <stddef.h>
#include <stdint.h>

#define FIRST	8192UL	/* PFN */
#define PAGES	16384UL
#define BATCH	32UL
#define VBD	51712	/* xvda */

enum { ATTACH, REGISTER, COMMIT, UNREGISTER };
enum { READ, WRITE, BEGIN, END };

struct op {
	uint16_t cmd, version;
	uint32_t nr;
	uint64_t cursor;
	uint32_t vbd, pad;
	void *list;
};

struct io {
	uint64_t pfn, sector, nr_sectors;
	uint32_t vbd, flags, id, ref, cookie[5], pad;
};

/* Begins in 32-bit mode without paging; maps 1 GiB as it is, for 64 bits. */
__asm__(".section .note.Xen, \"a\", @note\n"
	".long 4, 4, 18\n" /* XEN_ELFNOTE_PHYS32_ENTRY */
	".asciz \"Xen\"\n"
	".long _start\n"
	".text\n"
	".code32\n"
	".globl _start\n"
	"_start: mov $stack_top, %esp\n"
	"mov $pdpt + 3, %eax; mov %eax, pml4\n"
	"mov $pd + 3, %eax; mov %eax, pdpt\n"
	"mov $pd, %edi; mov $0x83, %eax; mov $512, %ecx\n"
	"1: mov %eax, (%edi); add $8, %edi; add $0x200000, %eax; loop 1b\n"
	"mov $0x20, %eax; mov %eax, %cr4\n"
	"mov $pml4, %eax; mov %eax, %cr3\n"
	"mov $0xc0000080, %ecx; rdmsr; or $0x100, %eax; wrmsr\n"
	"mov %cr0, %eax; or $0x80000001, %eax; mov %eax, %cr0\n"
	"lgdt gdtr; ljmp $8, $2f\n"
	".code64\n"
	"2: mov $16, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n"
	"mov $stack_top, %rsp\n"
	"call calls\n"
	"0: cli; hlt; jmp 0b\n"
	".data\n"
	".balign 8\n"
	"gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff\n"
	"gdtr: .word 23; .quad gdt\n"
	".bss\n"
	".balign 4096\n"
	"pml4: .skip 4096\n"
	"pdpt: .skip 4096\n"
	"pd: .skip 4096\n"
	".skip 16384\n"
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

static void number(uint64_t n)
{
	if (n > 9)
		number(n / 10);
	put('0' + n % 10);
}

/* Xen has it count ns, as the lab's processor does. */
static uint64_t now(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static struct op op;
static uint64_t failed;

static void call(uint16_t cmd, void *list, uint32_t nr)
{
	long rc = 12 /* memory_op */, a = 29 /* XENMEM_warmcache */;
	void *b = &op;

	op = (struct op){ .cmd = cmd, .version = 3, .nr = nr, .list = list };
	__asm__ volatile("vmmcall" : "+a"(rc), "+D"(a), "+S"(b) : :
			 "memory", "rdx", "r8", "r10");
	failed += rc != 0;
}

static uint64_t pfn(unsigned long i, unsigned long step)
{
	return FIRST + i * step % PAGES;
}

/* As the kernel does: that a write is over is told with the one that comes next. */
static void register_all(uint32_t flags, unsigned long step)
{
	static struct io io[2 + BATCH];
	static uint32_t id;
	unsigned long i;

	for (i = 0; i < PAGES; i++) {
		if (i % BATCH == 0) {
			io[0] = (struct io){ .pfn = -1, .vbd = VBD, .flags = END, .id = id };
			io[1] = (struct io){
				.pfn = -1, .sector = i * 8, .nr_sectors = BATCH * 8,
				.vbd = VBD, .flags = BEGIN, .id = ++id,
			};
		}
		io[2 + i % BATCH] = (struct io){
			.pfn = pfn(i, step), .sector = i * 8, .nr_sectors = 8,
			.vbd = VBD, .flags = flags, .id = flags == WRITE ? id : 0,
			.cookie = { 77, 0, i, 1 },
		};
		if (i % BATCH == BATCH - 1)
			call(REGISTER, flags == WRITE ? io : io + 2,
			     flags == WRITE ? 2 + BATCH : BATCH);
	}
	io[0] = (struct io){ .pfn = -1, .vbd = VBD, .flags = END, .id = id };
	call(REGISTER, io, 1);
}

static void name_all(uint16_t cmd, unsigned long step)
{
	static uint64_t pfns[BATCH];
	unsigned long i;

	for (i = 0; i < PAGES; i++) {
		pfns[i % BATCH] = pfn(i, step);
		if (i % BATCH == BATCH - 1)
			call(cmd, pfns, BATCH);
	}
}

static void write_all(void)
{
	unsigned long i;

	for (i = 0; i < PAGES; i++)
		*(volatile uint64_t *)((FIRST + i) << 12) = i;
}

static void line(const char *what, uint64_t took)
{
	text("COST ");
	text(what);
	text(" ");
	number(took / PAGES);
	text("\n");
}

#define MEASURE(what, work) \
	do { \
		uint64_t start = now(); \
		work; \
		line(what, now() - start); \
	} while (0)

void calls(void)
{
	static const unsigned long steps[] = { 1, 1, 521 };
	static uint64_t info[2];
	unsigned int i;

	call(ATTACH, info, 1);
	write_all();
	for (i = 0; i < 3; i++) {
		MEASURE("register, read", register_all(READ, steps[i]));
		MEASURE("commit", name_all(COMMIT, steps[i]));
		MEASURE("register, read-only already", register_all(READ, steps[i]));
		MEASURE("unregister", name_all(UNREGISTER, steps[i]));
		MEASURE("write fault, not tracked", write_all());
		MEASURE("register, write", register_all(WRITE, steps[i]));
		MEASURE("write fault, tracked", write_all());
	}
	text("COST failed ");
	number(failed);
	text("\n");
}
