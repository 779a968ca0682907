// SPDX-License-Identifier: GPL-2.0
/* Fault injector: faults in the kernel's text, as a programmer could have made them. */
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/string.h>

#include "faults.h"

enum {
	FLIP, SOURCE, DESTINATION, INVERT, DELETE, BOUND, INIT, LOCK, ALLOCATION,
};

struct window windows[] = {
	/* mm, fs, block: what a file's page goes through. */
	{ "filemap_add_folio", "bust_spinlocks", 7 },
	/* Drivers from Xen's to blkfront. */
	{ "xen_warmcache_tracks", "blkif_interrupt", 3 },
};
const unsigned int nr_windows = ARRAY_SIZE(windows);

static const char *const lock_names[] = {
	"_raw_spin_lock", "_raw_spin_lock_irq", "_raw_spin_lock_irqsave", "_raw_spin_lock_bh",
	"_raw_read_lock", "_raw_write_lock", "_raw_spin_unlock_irqrestore", "mutex_lock", "mutex_unlock",
	"down_read", "down_write", "up_read", "up_write", "mutex_trylock", "_raw_spin_trylock", NULL
};

static const char *const allocation_names[] = {
	"__kmalloc_noprof", "__kmalloc_cache_noprof", "__kmalloc_node_noprof", "kmem_cache_alloc_noprof",
	"kmem_cache_alloc_lru_noprof", "kmem_cache_alloc_node_noprof", "__alloc_pages_noprof",
	"alloc_pages_noprof", "__folio_alloc_noprof", "folio_alloc_noprof", "filemap_alloc_folio_noprof",
	"mempool_alloc_noprof", "bio_alloc_bioset", "get_zeroed_page_noprof", "get_free_pages_noprof", NULL
};

/* An instruction that a fault can be put into, and what becomes of it. */
struct change {
	unsigned long address;
	unsigned int length;
	u8 bytes[MAX_INSN_SIZE];
};

/* The addresses of those functions that this kernel has. */
static unsigned long targets[ARRAY_SIZE(lock_names) + ARRAY_SIZE(allocation_names)];
static unsigned int nr_targets;

static void find_targets(const char *const *names)
{
	for (; *names; names++) {
		unsigned long address = find_symbol(*names);

		if (address)
			targets[nr_targets++] = address;
	}
}

static int find_locks(void)
{
	find_targets(lock_names);
	return nr_targets ? 0 : -ENOENT;
}

static int find_allocations(void)
{
	find_targets(allocation_names);
	return nr_targets ? 0 : -ENOENT;
}

/* Whether it calls one of the functions looked for. */
static bool calls_target(const struct insn *insn, unsigned long address)
{
	unsigned long target = address + insn->length + insn->immediate.value;
	unsigned int i;

	if (insn->opcode.bytes[0] != 0xe8)
		return false;
	for (i = 0; i < nr_targets; i++)
		if (targets[i] == target)
			return true;
	return false;
}

/* The condition code of a conditional jump, or -1.  Bit 0 inverts it. */
static int condition(const struct insn *insn)
{
	const u8 *op = insn->opcode.bytes;

	if ((op[0] & 0xf0) == 0x70)
		return op[0] & 0xf;
	if (op[0] == 0x0f && (op[1] & 0xf0) == 0x80)
		return op[1] & 0xf;
	return -1;
}

static void set_condition(struct insn *insn, struct change *change, int code)
{
	int at = insn_offset_immediate(insn) - 1;

	change->bytes[at] = (change->bytes[at] & 0xf0) | code;
}

/* Whether the instruction has a register and a register-or-memory operand; where the result goes. */
static bool two_operands(const struct insn *insn, bool *to_register)
{
	const u8 *op = insn->opcode.bytes;

	if (!insn->modrm.nbytes || insn->vex_prefix.nbytes)
		return false;
	if (op[0] == 0x0f) {
		*to_register = true;
		return op[1] == 0xaf || (op[1] & 0xf6) == 0xb6 || (op[1] & 0xf0) == 0x40;
	}
	*to_register = op[0] & 2;
	if (op[0] == 0x63 || op[0] == 0x8d) {
		*to_register = true;
		return true;
	}
	return (op[0] >= 0x88 && op[0] <= 0x8b) || (op[0] < 0x40 && (op[0] & 4) == 0);
}

static bool other_register(struct insn *insn, struct change *change, bool source, struct plan *plan)
{
	u8 *modrm = &change->bytes[insn_offset_modrm(insn)];
	bool to_register;
	u8 new;

	if (!two_operands(insn, &to_register))
		return false;
	new = plan_below(plan, 8);
	if (to_register != source) {
		if (new == X86_MODRM_REG(*modrm))
			new ^= 1;
		*modrm = (*modrm & ~0x38) | (new << 3);
		return true;
	}
	/* 4 and, without displacement, 5 would make the instruction longer. */
	if (X86_MODRM_MOD(*modrm) != 3 && (X86_MODRM_RM(*modrm) == 4 || X86_MODRM_RM(*modrm) == 5))
		return false;
	if (new == X86_MODRM_RM(*modrm))
		new ^= 1;
	if (X86_MODRM_MOD(*modrm) != 3 && (new == 4 || new == 5))
		new = X86_MODRM_RM(*modrm) ^ 1 ^ ((X86_MODRM_RM(*modrm) & 6) == 4);
	if (X86_MODRM_MOD(*modrm) != 3 && (new == 4 || new == 5))
		return false;
	*modrm = (*modrm & ~7) | new;
	return true;
}

static bool off_by_one(struct insn *insn, struct change *change, struct plan *plan)
{
	int code = condition(insn);
	const u8 *op = insn->opcode.bytes;
	u8 *immediate;

	/* Less becomes less or equal, and so on; signed and unsigned. */
	switch (code) {
	case 0x2: case 0x6:
		set_condition(insn, change, code ^ 0x4);
		return true;
	case 0x3: case 0x7:
		set_condition(insn, change, code ^ 0x4);
		return true;
	case 0xc: case 0xe: case 0xd: case 0xf:
		set_condition(insn, change, code ^ 0x2);
		return true;
	}
	/* A comparison with a constant. */
	if (!((op[0] == 0x83 || op[0] == 0x81) && X86_MODRM_REG(insn->modrm.bytes[0]) == 7) &&
	    op[0] != 0x3c && op[0] != 0x3d)
		return false;
	immediate = &change->bytes[insn_offset_immediate(insn)];
	*immediate += plan_below(plan, 2) ? 1 : -1;
	return true;
}

/* A store of a first value, or a register that is set to one. */
static bool initialises(const struct insn *insn)
{
	const u8 *op = insn->opcode.bytes;
	u8 modrm = insn->modrm.bytes[0];

	if (insn->vex_prefix.nbytes)
		return false;
	if (op[0] == 0x88 || op[0] == 0x89 || op[0] == 0xc6 || op[0] == 0xc7)
		return X86_MODRM_MOD(modrm) != 3 || op[0] >= 0xc6;
	if (op[0] == 0x31 || op[0] == 0x33)
		return X86_MODRM_MOD(modrm) == 3 && X86_MODRM_REG(modrm) == X86_MODRM_RM(modrm);
	return op[0] >= 0xb8 && op[0] <= 0xbf;
}

/* Whether the fault fits this instruction, which is the @nth of its function. */
static bool fits(int how, struct insn *insn, unsigned int nth, struct change *change, struct plan *plan)
{
	static const u8 fails[] = { 0x31, 0xc0, 0x0f, 0x1f, 0x00 }; /* xor %eax, %eax; nop */
	u8 nop = 0x90;

	switch (how) {
	case FLIP:
		change->bytes[plan_below(plan, insn->length)] ^= 1 << plan_below(plan, 8);
		return true;
	case SOURCE:
	case DESTINATION:
		return other_register(insn, change, how == SOURCE, plan);
	case BOUND:
		return off_by_one(insn, change, plan);
	case INVERT:
		if (condition(insn) < 0)
			return false;
		set_condition(insn, change, condition(insn) ^ 1);
		return true;
	case ALLOCATION:
		if (!calls_target(insn, change->address))
			return false;
		memcpy(change->bytes, fails, sizeof(fails));
		return true;
	case DELETE:
		if (condition(insn) < 0)
			return false;
		break;
	case INIT:
		if (nth > 32 || !initialises(insn))
			return false;
		break;
	case LOCK:
		if (!calls_target(insn, change->address))
			return false;
		break;
	}
	memset(change->bytes, nop, insn->length);
	return true;
}

static unsigned long random_function(struct plan *plan, unsigned long *size)
{
	unsigned int share = plan_below(plan, 10), i = 0;

	while (share >= windows[i].share)
		share -= windows[i++].share;
	return watch_choose(&windows[i], plan, size);
}

/* One of the places in the function where the fault fits, each with the same probability. */
static bool choose(int how, unsigned long function, unsigned long size, struct change *chosen,
		   struct plan *plan)
{
	unsigned long address = function;
	unsigned int nth = 0, found = 0;

	while (address < function + size && *(u8 *)address != 0xcc) {
		struct change change = { .address = address };
		struct insn insn;

		if (decode(&insn, (void *)address, function + size - address, INSN_MODE_KERN))
			break;
		change.length = insn.length;
		memcpy(change.bytes, (void *)address, insn.length);
		if (fits(how, &insn, nth++, &change, plan) && !plan_below(plan, ++found))
			*chosen = change;
		address += insn.length;
	}
	return found;
}

static int inject_text(const struct fault *fault, struct plan *plan)
{
	unsigned int i;

	for (i = 0; i < 2000; i++) {
		unsigned long size, function = random_function(plan, &size);
		struct change change;

		if (function && choose(fault->how, function, size, &change, plan))
			return text_write(fault->name, change.address, change.bytes, change.length);
	}
	return -ENOENT;
}

const struct fault text_faults[] = {
	{ .name = "text-flip", .inject = inject_text, .how = FLIP },
	{ .name = "source-operand", .inject = inject_text, .how = SOURCE },
	{ .name = "destination-operand", .inject = inject_text, .how = DESTINATION },
	{ .name = "branch-inverted", .inject = inject_text, .how = INVERT },
	{ .name = "branch-deleted", .inject = inject_text, .how = DELETE },
	{ .name = "loop-bound", .inject = inject_text, .how = BOUND },
	{ .name = "init-skipped", .inject = inject_text, .how = INIT },
	{ .name = "lock-dropped", .prepare = find_locks, .inject = inject_text, .how = LOCK },
	{ .name = "allocation-failure", .prepare = find_allocations, .inject = inject_text, .how = ALLOCATION },
	{}
};
