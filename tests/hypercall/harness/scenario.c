/*
 * One life of a domain and its next, in which everything is used once; run with
 * every allocation failing in turn, with every copy to or from a guest failing,
 * and with a preemption wherever Xen looks for one.
 */
#include "model.h"

static const struct step {
    enum operation what;
    unsigned int slot;
    uint8_t b[8];
} steps[] = {
    { OP_START, 1, { 0, 1 | 4 | 8, 3, 0, 0, 0, BULKY } },     /* enabled, attached, armed */
    { OP_BULK, 1 },
    { OP_IO, 1, { 0, 5, 0, 0 } },                            /* reads */
    { OP_IO, 1, { 0, 5, 8, 8 } },
    { OP_IO, 1, { 1, 5, 8, 20 } },                           /* of the other vbd */
    { OP_IO, 1, { 2, 5, 16, 30 } },                          /* write */
    { OP_IO, 1, { 12, 2, 8, 0 } },                           /* direct write over what is known */
    { OP_IO, 1, { 0, 3, 30, 40, 0xff } },                     /* fails */
    { OP_STORE, 1, { 1 } },
    { OP_MAPPING, 1, { 0, 0, 2, 1 } },                       /* dom0 maps a page for writing */
    { OP_MAPPING, 1, { 2, 0 } },
    { OP_MAPPING, 1, { 3, 0 } },
    { OP_P2M, 1, { 0, 9 } },                                 /* ballooned out */
    { OP_P2M, 1, { 2, 21, 60 } },                            /* moved */
    { OP_MEMOP, 1, { XEN_WARMCACHE_CMD_UNREGISTER, 1, 61 } },
    { OP_RESOURCE, 1, { 0, 0, 3 } },
    { OP_RESOURCE, 1, { 1, 0, 0 } },
    { OP_DOMCTL, 1, { XEN_DOMCTL_WARMCACHE_STATUS + 50, 0, 80 } },
    { OP_DOMCTL, 1, { XEN_DOMCTL_WARMCACHE_ARM + 50, 4 } },
    { OP_KILL, 1 },
    { OP_MAPPING, 1, { 3, 0 } }, { OP_MAPPING, 1, { 3, 1 } }, /* the resource is unmapped */
    { OP_MAPPING, 1, { 3, 2 } }, { OP_MAPPING, 1, { 3, 3 } }, { OP_MAPPING, 1, { 3, 4 } },
    { OP_DOMCTL, 2, { XEN_DOMCTL_WARMCACHE_IMAGE_STATUS + 50, 0 } },
    { OP_START, 1, { 0, 4, 0x80, 0, 0, 0, BULKY } },          /* adopts, four pages at a time */
    { OP_MEMOP, 1, { XEN_WARMCACHE_CMD_GET_HELD, 23, 62 } },
    { OP_MEMOP, 1, { XEN_WARMCACHE_CMD_GET_APPROVED, 20, 62, 0, 0, 0 } }, /* undecided */
    { OP_DOMCTL, 1, { 0, 1, 1 } },                           /* approved */
    { OP_DOMCTL, 1, { 0, 2, 1 } },
    { OP_MEMOP, 1, { XEN_WARMCACHE_CMD_GET_APPROVED, 20, 62, 0, 0, 0 } },
    { OP_MEMOP, 1, { XEN_WARMCACHE_CMD_REPORT, 1, 62 } },
    { OP_IO, 1, { 0, 5, 8, 8 } },
    { OP_DOMCTL, 1, { 0, 2, 0xc2 } },                        /* the other is refused */
    { OP_DOMCTL, 1, { 0, 1, 0xc2 } },
    { OP_DOMCTL, 1, { XEN_DOMCTL_WARMCACHE_DROP + 50, 3, 1, 2 } },
    { OP_P2M, 1, { 5 } },                                    /* another kernel, which begins anew */
    { OP_MEMOP, 1, { XEN_WARMCACHE_CMD_ATTACH, 1, 62 } },
    { OP_IO, 1, { 2, 5, 8, 8 } },
    { OP_DOMCTL, 1, { XEN_DOMCTL_WARMCACHE_DISABLE + 50 } },
    { OP_START, 2, { 1, 1 | 4 | 8, 3 } },                    /* another domain takes frames */
    { OP_IO, 2, { 0, 5, 0, 0 } },
    { OP_KILL, 1 },
    { OP_KILL, 2 },
    { OP_DOMCTL, 1, { XEN_DOMCTL_WARMCACHE_IMAGE_DROP + 50, 1 } },
    { OP_TIME, 0, { 3, 255 } },
};

#define FIRST_DEATH 19         /* makes an image */
#define SECOND_START 26        /* adopts it */

struct outcome {
    uint64_t digest, noted;
    unsigned long allocs, preempts, faults;
    unsigned int failed_in;    /* step in which an allocation was made to fail */
};

/* With @bulk so many pages that no loop gets through without a look. */
static void step(unsigned int i, bool bulk)
{
    uint8_t b[8];

    memcpy(b, steps[i].b, sizeof(b));
    if ( !bulk )
        b[6] = 0;
    if ( bulk || steps[i].what != OP_BULK )
        run_one(steps[i].what, steps[i].slot, b);
}

static struct outcome play(bool bulk)
{
    struct outcome o = {};

    for ( unsigned int i = 0; i < ARRAY_SIZE(steps); i++ )
    {
        if ( alloc_count < fail_alloc_at )
            o.failed_in = i;
        step(i, bulk);
        for ( unsigned int s = 1; s < NR_SLOTS; s++ )
            if ( slots[s] && !slots[s]->is_dying )
                o.digest = o.digest * 31 + digest(slots[s]);
        if ( verbose && slots[1] )
            SAY("step %u: digest %#lx noted %#lx\n", i, digest(slots[1]), noted);
    }
    o.noted = noted;
    o.allocs = alloc_count;
    o.preempts = preempt_count;
    o.faults = fault_count;
    shut_down();

    return o;
}

static unsigned long each(unsigned long *at, const unsigned long *count, const char *what)
{
    unsigned long n, image = 0, adoption = 0;
    struct outcome o;

    for ( n = 1; ; n++ )
    {
        prepare();
        *at = n;
        current_seed = n;
        o = play(false);
        if ( *count < n )
            break;
        image += o.failed_in == FIRST_DEATH;
        adoption += o.failed_in == SECOND_START;
    }
    *at = 0;
    printf("%s: each of %lu in turn", what, n - 1);
    if ( at == &fail_alloc_at )
    {
        printf("; %lu while an image is made, %lu while it is adopted", image, adoption);
        if ( !image || !adoption )
            STOP("the failing allocations are not where they ought to be");
    }
    printf("\n");
    fflush(stdout);

    return n - 1;
}

int run_scenarios(void)
{
    struct outcome plain, other;

    prepare();
    plain = play(true);
    printf("plain: %lu allocations, %lu copies, %lu looks for preemption\n",
           plain.allocs, plain.faults, plain.preempts);
    /* The scenario must do what it says, or nothing is shown by it. */
    ASSERT(steps[FIRST_DEATH].what == OP_KILL && steps[SECOND_START].what == OP_START);
    prepare();
    for ( unsigned int i = 0; i < ARRAY_SIZE(steps); i++ )
    {
        step(i, true);
        if ( steps[i].what == OP_BULK && count_committed(slots[1], false) < 540 )
            STOP("only %lu pages were committed", count_committed(slots[1], false));
        if ( steps[i].what == OP_START && i > 20 && steps[i].slot == 1 &&
             count_committed(slots[1], true) < 540 )
            STOP("only %lu pages were adopted", count_committed(slots[1], true));
    }
    shut_down();

    for ( unsigned long n = 1; n <= plain.preempts; n++ )
    {
        prepare();
        preempt_at = n;
        current_seed = n;
        other = play(true);
        if ( other.digest != plain.digest || other.noted != plain.noted )
            STOP("preempted at its %lu-th look, Xen ends in another state or says something else (%d %d)",
                 n, other.digest != plain.digest, other.noted != plain.noted);
    }
    prepare();
    preempt_always = true;
    other = play(true);
    if ( other.digest != plain.digest || other.noted != plain.noted )
        STOP("preempted at every look, Xen ends in another state or says something else (%d %d)",
             other.digest != plain.digest, other.noted != plain.noted);
    printf("preemptions: each of %lu in turn, and all: the same end\n", plain.preempts);
    fflush(stdout);

    each(&fail_alloc_at, &alloc_count, "failing allocations");
    each(&fault_at, &fault_count, "failing copies");

    return 0;
}
