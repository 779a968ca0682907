/*
 * Calls whose answers are known: versions, batches at and past the cap, what is
 * wrong in the midst of one, ranges, and what the next kernel is told; images that
are replaced, dropped, or not wanted after all. Calls are played as
 * they are, with a preemption at each look in turn, and at all of them: the
 * answers have to be the same.
 */
#include "model.h"

#define ARGUMENTS (2 * PAGE_SIZE)
#define LIST (FIRST_BULK * PAGE_SIZE)      /* 65 pages are the longest list */
#define LAST_PAGE ((FIRST_BULK + NR_BULK - 1) * PAGE_SIZE) /* nothing behind it */
#define FIRST_TRACKED (FIRST_BULK + 66)
#define MAX_TRACKED 472
#define MAX XEN_WARMCACHE_MAX_BATCH

static struct domain *d;
static unsigned int batch, nr_tracked;     /* elements of a call, pages that they are about */
static unsigned long answers;
static struct xen_warmcache_io io[MAX + 1];
static uint64_t pfns[MAX + 1];
static struct xen_warmcache_io last[MAX_TRACKED]; /* what was last announced of each page */

#define EXPECT(got, want) do { long got_ = (got), want_ = (want); answers++; \
    if ( got_ != want_ ) STOP("%s is %ld instead of %ld", #got, got_, want_); } while ( 0 )

static long call(struct xen_warmcache_op *op, const void *list, unsigned int size)
{
    op->list = op->list ?: LIST;

    return memop(d, 0, op, ARGUMENTS, list, size);
}

/* As above, but only the result matters. */
#define CALL(...) call(&OP(__VA_ARGS__), NULL, 0)

static long ask(struct xen_domctl_warmcache *op)
{
    struct vcpu *was = become(&slots[DOM0]->vcpus[0]);
    long rc = domctl(d, op);

    become(was);

    return rc;
}

#define ASK(...) ask(&DOMCTL(__VA_ARGS__))

static struct xen_warmcache_status status(void)
{
    struct xen_warmcache_status st;

    EXPECT(ASK(STATUS, .u.status = { .buf.p = (void *)0x1000, .size = sizeof(st) }), 0);
    memcpy(&st, dom0_memory + 0x1000, sizeof(st));

    return st;
}

static void read_list(void *to, unsigned int size)
{
    EXPECT(raw_copy_from_guest(to, (void *)LIST, size), 0);
}

/* Any version but its own, also where nothing is enabled. */
static void versions(void)
{
    static const uint32_t other[] = { 0, 2, 4, 0xffff, ~0U };
    uint64_t before = digest(d);

    for ( unsigned int i = 0; i < ARRAY_SIZE(other); i++ )
    {
        for ( unsigned int cmd = 0; cmd < 9 && other[i] < 0x10000; cmd++ )
            EXPECT(call(&(struct xen_warmcache_op){ .cmd = cmd, .version = other[i], .nr = 1 },
                        io, sizeof(io[0])), -EACCES);
        for ( unsigned int cmd = 0; cmd < 11; cmd++ )
            EXPECT(ask(&(struct xen_domctl_warmcache){ .cmd = cmd, .version = other[i] }),
                   -EACCES);
    }
    EXPECT(digest(d) == before, true);
}

static void enabling(void)
{
    static const uint32_t need_it[] = {
        XEN_DOMCTL_WARMCACHE_DISABLE, XEN_DOMCTL_WARMCACHE_ARM, XEN_DOMCTL_WARMCACHE_DISARM,
        XEN_DOMCTL_WARMCACHE_APPROVE, XEN_DOMCTL_WARMCACHE_DROP,
    };
    struct xen_warmcache_info info;

    for ( unsigned int turn = 0; turn < 2; turn++ )
    {
        versions();
        for ( unsigned int cmd = 0; cmd < 9; cmd++ )
            EXPECT(call(&(struct xen_warmcache_op){ .cmd = cmd, .nr = 1,
                                                    .version = XEN_WARMCACHE_VERSION },
                        io, sizeof(io[0])), -ENODEV);
        for ( unsigned int i = 0; i < ARRAY_SIZE(need_it); i++ )
            EXPECT(ask(&(struct xen_domctl_warmcache){ .cmd = need_it[i],
                                                       .version = XEN_WARMCACHE_VERSION }), -ENODEV);
        EXPECT(status().flags, 0);
        EXPECT(ASK(ENABLE), 0);
        EXPECT(ASK(ENABLE), -EEXIST);
        if ( !turn )
            EXPECT(ASK(DISABLE), 0);
    }
    versions();
    EXPECT(CALL(ATTACH, .nr = 2), -EINVAL);
    EXPECT(CALL(ATTACH, .nr = 1), 0);
    read_list(&info, sizeof(info));
    EXPECT(info.max_pfn, status().max_pfn);
    EXPECT(info.held, 0);
    EXPECT(ASK(ARM), 0);
    EXPECT(status().version, XEN_WARMCACHE_VERSION);
}

static void announce(void)
{
    struct xen_warmcache_op op = OP(REGISTER, .nr = batch);

    for ( unsigned int i = 0; i < batch; i++ )
    {
        unsigned int page = i % nr_tracked;

        io[i] = (struct xen_warmcache_io){
            .pfn = FIRST_TRACKED + page, .cookie = { 7, 0, i, 3, ~i },
            .sector = 8 * i, .nr_sectors = 8, .vbd = page < nr_tracked / 8 * 5 ? 1 : 2,
            .ref = REF_OF(FIRST_TRACKED + page),
        };
        pfns[i] = io[i].pfn;
        last[page] = io[i];
    }
    EXPECT(call(&op, io, batch * sizeof(io[0])), 0);
    EXPECT(op.nr, batch);
    EXPECT(status().pending, nr_tracked);
}

static void confirm(unsigned int expected)
{
    struct xen_warmcache_op op = OP(COMMIT, .nr = batch);

    EXPECT(call(&op, pfns, batch * sizeof(pfns[0])), 0);
    EXPECT(op.nr, batch);
    EXPECT(status().committed, expected);
    EXPECT(status().pending, 0);
}

static void read_all(void)
{
    announce();
    for ( unsigned int i = 0; i < nr_tracked; i++ )
        backend_fills(d, FIRST_TRACKED + i, i);
    confirm(nr_tracked);
    for ( unsigned int i = 0; i < nr_tracked; i++ )
    {
        struct xen_warmcache_entry e = {};

        EXPECT(reusable(d, FIRST_TRACKED + i, &e), true);
        EXPECT(e.sector == last[i].sector && e.vbd == last[i].vbd &&
               !memcmp(e.cookie, last[i].cookie, sizeof(e.cookie)), true);
    }
}

/* What is wrong in element @at ends the call there. */
static void wrong_element(unsigned int at)
{
    struct xen_warmcache_op op = OP(REGISTER, .nr = batch);
    struct xen_warmcache_io was = io[at];

    io[at].pad = 1;
    EXPECT(call(&op, io, batch * sizeof(io[0])), -EINVAL);
    EXPECT(op.nr, at);
    io[at] = was;
}

/* The list ends after @fit of its @nr elements; whole batches of Xen's are done. */
static void short_list(unsigned int cmd, const void *list, unsigned int size, unsigned int per_batch)
{
    unsigned int fit = PAGE_SIZE / size, nr = fit + per_batch;
    struct xen_warmcache_op op = { .cmd = cmd, .version = XEN_WARMCACHE_VERSION, .nr = nr,
                                   .list = LAST_PAGE };

    EXPECT(call(&op, list, list ? nr * size : 0), -EFAULT);
    EXPECT(op.nr, fit / per_batch * per_batch);
}

static void batches(void)
{
    static const uint32_t too_many[] = { MAX + 1, 1U << 31, ~0U };
    static const unsigned int at[] = { 0, 1, 15, 16, 17, 100 };

    for ( unsigned int cmd = 0; cmd < 7; cmd++ )
    {
        uint64_t before = digest(d);

        for ( unsigned int i = 0; i < ARRAY_SIZE(too_many); i++ )
        {
            struct xen_warmcache_op op = { .cmd = cmd, .version = XEN_WARMCACHE_VERSION,
                                           .nr = too_many[i] };

            EXPECT(call(&op, NULL, 0), -EINVAL);
        }
        EXPECT(digest(d) == before, true);
        EXPECT(call(&(struct xen_warmcache_op){ .cmd = cmd, .nr = 0,
                                                .version = XEN_WARMCACHE_VERSION }, NULL, 0), 0);
    }
    announce();
    confirm(0); /* there was no I/O */
    read_all();
    for ( unsigned int i = 0; i < ARRAY_SIZE(at); i++ )
        wrong_element(at[i]);
    wrong_element(batch - 1);
    short_list(XEN_WARMCACHE_CMD_REGISTER, io, sizeof(io[0]), 40);
    short_list(XEN_WARMCACHE_CMD_COMMIT, pfns, sizeof(pfns[0]), 64);
    short_list(XEN_WARMCACHE_CMD_UNREGISTER, pfns, sizeof(pfns[0]), 64);
    short_list(XEN_WARMCACHE_CMD_GET_HELD, NULL, sizeof(uint64_t), 64);
    read_all();
    {
        struct xen_warmcache_op op = OP(UNREGISTER, .nr = batch);

        EXPECT(call(&op, pfns, batch * sizeof(pfns[0])), 0);
        EXPECT(op.nr, batch);
        EXPECT(status().committed + status().pending, 0);
    }
}

/* Announces @nr elements, and that many pages of them are pending then. */
static void announced(const struct xen_warmcache_io *list, unsigned int nr, unsigned int pages)
{
    struct xen_warmcache_op op = OP(REGISTER, .nr = nr);

    EXPECT(call(&op, list, nr * sizeof(*list)), 0);
    EXPECT(op.nr, nr);
    EXPECT(status().pending, pages);
}

#define ANNOUNCED(pages, ...) announced((struct xen_warmcache_io[]){ __VA_ARGS__ }, \
    sizeof((struct xen_warmcache_io[]){ __VA_ARGS__ }) / sizeof(struct xen_warmcache_io), pages)
/* And then all is forgotten. */
#define SAID(...) do { ANNOUNCED(__VA_ARGS__); EXPECT(ASK(DROP), 0); } while ( 0 )

/* Elements of one call take effect in their order. */
static void order(void)
{
    struct xen_warmcache_io read = { .pfn = FIRST_TRACKED, .sector = 8, .nr_sectors = 8, .vbd = 1 };
    struct xen_warmcache_io write = { .pfn = XEN_WARMCACHE_NO_PFN, .sector = 15, .nr_sectors = 1,
                                      .vbd = 1, .flags = XEN_WARMCACHE_IO_BEGIN };
    struct xen_warmcache_io over = { .pfn = XEN_WARMCACHE_NO_PFN, .vbd = 1,
                                     .flags = XEN_WARMCACHE_IO_END };

    SAID(1, write, over, read);
    SAID(0, read, write, over);
    SAID(0, write, read, over);
}

#define OF(name, number) ((struct xen_warmcache_io){ .pfn = XEN_WARMCACHE_NO_PFN, .vbd = 1, \
                                        .flags = XEN_WARMCACHE_IO_##name, .id = number })
static struct xen_warmcache_io page_of(uint32_t kind, unsigned int page, uint64_t sector, uint32_t id)
{
    return (struct xen_warmcache_io){ .pfn = FIRST_TRACKED + page, .sector = sector, .nr_sectors = 8,
                                      .vbd = 1, .flags = kind, .id = id, .ref = REF_OF(FIRST_TRACKED + page) };
}
#define READ_OF(page, sector) page_of(XEN_WARMCACHE_IO_READ, page, sector, 0)
#define WRITE_OF(page, sector, id) page_of(XEN_WARMCACHE_IO_WRITE, page, sector, id)
#define BEGIN(number, first, count) ({ struct xen_warmcache_io io_ = OF(BEGIN, number); \
                                       io_.sector = first; io_.nr_sectors = count; io_; })

/* A write is under way until its end is told, and until then no page is known but its own. */
static void under_way(void)
{
    unsigned long untrackable = status().untrackable;
    struct xen_warmcache_io wrong;

    SAID(0, BEGIN(1, 80, 16));
    SAID(0, READ_OF(0, 80));
    SAID(0, READ_OF(0, 88));
    SAID(2, READ_OF(0, 72), READ_OF(1, 96));
    EXPECT(status().untrackable, untrackable + 2);
    SAID(2, WRITE_OF(2, 80, 1), WRITE_OF(3, 88, 1));
    SAID(0, WRITE_OF(2, 80, 2));                            /* of none that is known */
    SAID(0, WRITE_OF(2, 72, 1));                            /* not where it writes */
    SAID(1, WRITE_OF(2, 80, 1));
    SAID(0, BEGIN(2, 87, 1));                               /* meets it */
    SAID(0, WRITE_OF(2, 80, 1));
    SAID(1, WRITE_OF(2, 88, 1));
    SAID(0, WRITE_OF(2, 80, 2));                            /* a part of the page */
    SAID(1, OF(END, 2), WRITE_OF(2, 80, 1));
    SAID(0, OF(END, 7), READ_OF(3, 88));                    /* of another one */
    SAID(1, OF(END, 1), READ_OF(3, 88));
    SAID(0, BEGIN(1, 80, 8), WRITE_OF(2, 80, 1), READ_OF(2, 80)); /* what is said last counts */
    SAID(0, OF(END, 1));

#define WRONG(of, member, value) do { wrong = of; wrong.member = value; \
    EXPECT(call(&OP(REGISTER, .nr = 1), &wrong, sizeof(wrong)), -EINVAL); } while ( 0 )
    WRONG(READ_OF(0, 8), id, 1);
    WRONG(READ_OF(0, 8), ref, ~0U);
    WRONG(READ_OF(0, 8), pfn, XEN_WARMCACHE_NO_PFN);
    WRONG(READ_OF(0, 8), nr_sectors, 16);
    WRONG(BEGIN(1, 8, 8), pfn, FIRST_TRACKED);
    WRONG(BEGIN(1, 8, 8), ref, 1);
    WRONG(BEGIN(1, 8, 8), nr_sectors, 0);
    WRONG(OF(END, 1), sector, 8);
    WRONG(OF(END, 1), nr_sectors, 8);
    WRONG(OF(END, 1), ref, 1);
    WRONG(OF(END, 1), flags, 4);
}

/* More writes are under way than there is room for. */
static void crowded(void)
{
    for ( unsigned int i = 0; i < 1030; i++ )
        io[i] = BEGIN(100 + i, 8000 + 8 * i, 8);
    EXPECT(call(&OP(REGISTER, .nr = 1030), io, 1030 * sizeof(io[0])), 0);
    SAID(0, READ_OF(3, 88));
    for ( unsigned int i = 0; i < 1030; i++ )
        io[i] = OF(END, 100 + 1029 - i);
    EXPECT(call(&OP(REGISTER, .nr = 5), io, 5 * sizeof(io[0])), 0);
    SAID(0, READ_OF(3, 88));
    EXPECT(call(&OP(REGISTER, .nr = 1), io + 5, sizeof(io[0])), 0);
    SAID(1, READ_OF(3, 88));
    SAID(0, READ_OF(3, 8000));
    EXPECT(call(&OP(REGISTER, .nr = 1024), io + 6, 1024 * sizeof(io[0])), 0);
    SAID(1, READ_OF(3, 8000));
}

/*
 * One access by another domain in the direction of the I/O, of all of the page, through
 * its grant, is taken for the backend's. OTHERS is somebody's type reference.
 */
enum way { MAP, COPY, OTHERS };

static void through(bool write, struct domain *whom, bool readonly, uint32_t ref, enum way way,
                    unsigned int times, bool taken)
{
    uint64_t pfn = FIRST_TRACKED;
    p2m_type_t t;
    struct page_info *page;
    struct vcpu *was;

    if ( write )
        ANNOUNCED(1, BEGIN(1, 0, 8), WRITE_OF(0, 0, 1));
    else
        ANNOUNCED(1, READ_OF(0, 0));
    page = guest_page(d, pfn, &t);
    was = become(&whom->vcpus[0]);
    while ( times-- )
        if ( way == MAP )
            warmcache_page_granted(page, readonly, ref);
        else
        {
            if ( way == COPY )
                warmcache_page_typing(page, ref);
            warmcache_page_typed(page);
        }
    become(was);
    put_page(page);
    EXPECT(call(&OP(COMMIT, .nr = 1), &pfn, sizeof(pfn)), 0);
    EXPECT(status().committed, taken);
    EXPECT(status().pending, 0);
    EXPECT(call(&OP(UNREGISTER, .nr = 1), &pfn, sizeof(pfn)), 0);
    if ( write )
        ANNOUNCED(0, OF(END, 1));
}

static void accesses(void)
{
    uint32_t ref = REF_OF(FIRST_TRACKED);
    struct domain *dom0 = slots[DOM0];

    EXPECT(ASK(DROP), 0);
    for ( enum way way = MAP; way <= COPY; way++ )
    {
        through(false, dom0, false, ref, way, 1, true);
        through(false, d, false, ref, way, 1, false);
        through(false, dom0, false, ref, way, 2, false);
        through(false, dom0, false, ref + 1, way, 1, false);
        through(false, dom0, false, INVALID_GRANT_REF, way, 1, false); /* a part of it */
        through(true, dom0, false, ref, way, 1, false);
    }
    through(false, dom0, false, ref, OTHERS, 1, false);
    through(false, dom0, true, ref, MAP, 1, false);
    through(true, dom0, true, ref, MAP, 1, true);
    through(true, d, true, ref, MAP, 1, false);
    through(true, dom0, true, ref, MAP, 2, true);
    through(true, dom0, true, ref + 1, MAP, 1, false);
}

/* What can't be tracked any more isn't what it was known for, either. */
static void not_trackable(void)
{
    uint64_t pfn = FIRST_TRACKED;

    through(false, slots[DOM0], false, REF_OF(pfn), MAP, 1, true);
    ANNOUNCED(1, READ_OF(0, 0));
    backend_fills(d, pfn, 1);
    EXPECT(call(&OP(COMMIT, .nr = 1), &pfn, sizeof(pfn)), 0);
    EXPECT(change_type(d, pfn, p2m_ram_cache, p2m_ram_cache, p2m_access_rx), 0);
    EXPECT(status().committed, 1);
    ANNOUNCED(0, READ_OF(0, 8));
    EXPECT(status().committed, 0);
    EXPECT(change_type(d, pfn, p2m_ram_cache, p2m_ram_cache, p2m_access_rwx), 0);
}

static void another_kernel(void)
{
    struct xen_warmcache_info info;

    read_all();
    ANNOUNCED(1, READ_OF(nr_tracked, 1 << 20), BEGIN(5, 2 << 20, 8));
    warmcache_kernel_begins(d);
    EXPECT(status().flags & XEN_WARMCACHE_STATUS_ATTACHED, 0);
    EXPECT(CALL(REGISTER, .nr = 1), -ENODEV);
    EXPECT(CALL(COMMIT, .nr = 1), -ENODEV);
    pfns[0] = FIRST_TRACKED;
    EXPECT(call(&OP(UNREGISTER, .nr = 1), pfns, sizeof(pfns[0])), 0);
    EXPECT(status().committed, nr_tracked - 1);
    EXPECT(status().pending, 1);
    EXPECT(CALL(ATTACH, .nr = 1), 0);
    read_list(&info, sizeof(info));
    EXPECT(info.held, 0);
    EXPECT(status().committed + status().pending, 0);
    SAID(1, READ_OF(0, 2 << 20));                           /* the other's write is over */
    EXPECT(ASK(DROP), 0);
}

/* Xen looks whether to be preempted after each range, however short it is. */
static void short_ranges(void)
{
    unsigned long looks = preempt_count;
    struct xen_warmcache_op op = OP(REGISTER, .nr = 40);

    for ( unsigned int i = 0; i < 40; i++ )
        io[i] = (struct xen_warmcache_io){ .pfn = XEN_WARMCACHE_NO_PFN, .vbd = 2, .nr_sectors = 255 * 8,
                                           .flags = XEN_WARMCACHE_IO_BEGIN, .id = i };
    EXPECT(call(&op, io, 40 * sizeof(io[0])), 0);
    EXPECT(op.nr, 40);
    EXPECT(preempt_count - looks >= 39, true);
    for ( unsigned int i = 0; i < 40; i++ )
        io[i] = (struct xen_warmcache_io){ .pfn = XEN_WARMCACHE_NO_PFN, .vbd = 2,
                                           .flags = XEN_WARMCACHE_IO_END, .id = i };
    EXPECT(call(&OP(REGISTER, .nr = 40), io, 40 * sizeof(io[0])), 0);
}

/* No more than 64 pages can be looked up by the same hash. */
static void same_hash(void)
{
    unsigned long untrackable = status().untrackable;
    struct xen_warmcache_op op = OP(REGISTER, .nr = 70);

    for ( unsigned int i = 0; i < 70; i++ )
        io[i] = (struct xen_warmcache_io){ .pfn = FIRST_BULK + 10 + i, .vbd = 1, .nr_sectors = 8, .ref = i,
                                           .sector = (uint64_t)i << 40 };
    EXPECT(call(&op, io, 70 * sizeof(io[0])), 0);
    EXPECT(op.nr, 70);
    EXPECT(status().pending, 64);
    EXPECT(status().untrackable, untrackable + 6);
    EXPECT(ASK(DROP), 0);
    EXPECT(status().pending, 0);
}

/* A write of [first, first + nr) sectors is announced: only that is forgotten. */
static void write_range(uint32_t vbd, uint64_t first, uint64_t nr)
{
    struct xen_warmcache_op op = OP(REGISTER, .nr = 2);
    struct xen_warmcache_io write[] = {
        { .pfn = XEN_WARMCACHE_NO_PFN, .sector = first, .vbd = vbd, .nr_sectors = nr,
          .flags = XEN_WARMCACHE_IO_BEGIN, .id = 9 },
        { .pfn = XEN_WARMCACHE_NO_PFN, .vbd = vbd, .flags = XEN_WARMCACHE_IO_END, .id = 9 },
    };
    unsigned int left = 0;

    EXPECT(call(&op, write, sizeof(write)), 0);
    EXPECT(op.nr, 2);
    EXPECT(op.cursor, 0);
    for ( unsigned int i = 0; i < nr_tracked; i++ )
    {
        struct xen_warmcache_entry e;

        if ( last[i].vbd == vbd && last[i].sector + 8 > first && last[i].sector < first + nr )
            last[i].vbd = 0; /* no longer known */
        left += last[i].vbd != 0;
        EXPECT(reusable(d, FIRST_TRACKED + i, &e), last[i].vbd != 0);
    }
    EXPECT(status().committed, left);
}

static void ranges(void)
{
    uint64_t first = 8 * (batch - nr_tracked); /* of those that are known */

    read_all();
    write_range(3, 0, (1UL << 55) - 1);
    write_range(1, first + 8 * nr_tracked, 1);
    write_range(last[0].vbd, last[0].sector + 8, 7);
    write_range(last[5].vbd, last[5].sector + 7, 1);
    write_range(last[10].vbd, last[10].sector - 1, 2);
    write_range(1, first + 8 * 20, 8 * 300);   /* looked up block by block */
    write_range(2, first + 8 * 20, 8 * 511);
    write_range(1, 0, (1UL << 55) - 1);        /* hash bucket by hash bucket */
    write_range(2, 3, (1UL << 55) - 1);
    EXPECT(status().committed, 0);
}

/* A caller of 32 bits has no address above 4 GiB. */
static void compat(void)
{
    struct vcpu *v = current;

    v->hcall_compat = true;
    EXPECT(call(&OP(COMMIT, .nr = 1), pfns, sizeof(pfns[0])), 0);
    EXPECT(CALL(GET_HELD, .nr = 1, .list = XLAT_BASE), -EFAULT);
    v->hcall_compat = false;
}

static void first_life(void *unused)
{
    enabling();
    batches();
    ranges();
    order();
    under_way();
    if ( batch == MAX ) /* once is enough */
        crowded();
    accesses();
    not_trackable();
    another_kernel();
    short_ranges();
    same_hash();
    compat();
    read_all();
}

/* The pages that are told of @vbd, @step at a time, are @expected of it, in order. */
static void told(uint32_t vbd, unsigned int step, unsigned int expected)
{
    static struct xen_warmcache_page pages[MAX];
    struct xen_warmcache_op op = OP(GET_APPROVED, .nr = step, .vbd = vbd);
    unsigned long before = 0, nr = 0;

    do {
        op.nr = step;
        EXPECT(call(&op, NULL, 0), 0);
        read_list(pages, op.nr * sizeof(pages[0]));
        for ( unsigned int i = 0; i < op.nr; i++, nr++ )
        {
            const struct xen_warmcache_io *l = &last[pages[i].pfn - FIRST_TRACKED];

            EXPECT(pages[i].pfn > before && pages[i].pfn < op.cursor, true);
            EXPECT(pages[i].pfn - FIRST_TRACKED < nr_tracked, true);
            EXPECT(pages[i].entry.vbd == vbd && pages[i].entry.sector == l->sector &&
                   !memcmp(pages[i].entry.cookie, l->cookie, sizeof(l->cookie)), true);
            before = pages[i].pfn;
        }
        EXPECT(op.nr == step || op.cursor >= status().max_pfn, true);
    } while ( op.cursor < status().max_pfn );
    EXPECT(nr, expected);
}

static void held(void)
{
    static uint64_t words[MAX];
    struct xen_warmcache_op op = OP(GET_HELD, .nr = MAX);

    EXPECT(call(&op, NULL, 0), 0);
    EXPECT(op.nr, MAX);
    read_list(words, sizeof(words));
    for ( unsigned long pfn = 0; pfn < MAX * 64; pfn++ )
        EXPECT(words[pfn / 64] >> pfn % 64 & 1,
               pfn >= FIRST_TRACKED && pfn < FIRST_TRACKED + nr_tracked);
    EXPECT(CALL(GET_HELD, .nr = 1, .cursor = 1), -EINVAL);
    op = OP(GET_HELD, .nr = 1, .cursor = ~63UL);
    EXPECT(call(&op, NULL, 0), 0);
    read_list(words, sizeof(words[0]));
    EXPECT(words[0], 0);
}

/* Whether nothing is left of what the page held. */
static bool cleared(unsigned long pfn)
{
    p2m_type_t t;
    struct page_info *page = guest_page(d, pfn, &t);
    uint64_t first;

    memcpy(&first, frame_va(page_to_mfn(page)), sizeof(first));
    put_page(page);

    return !first;
}

static void second_life(void *unused)
{
    unsigned int ones = nr_tracked / 8 * 5, twos = nr_tracked - ones;
    struct xen_domctl_warmcache op;
    struct xen_warmcache_info info;
    uint64_t token = 1;

    EXPECT(CALL(ATTACH, .nr = 1), 0);
    read_list(&info, sizeof(info));
    EXPECT(info.held, nr_tracked);
    held();

    EXPECT(CALL(GET_APPROVED, .nr = 1, .vbd = 1), -EAGAIN);
    EXPECT(CALL(GET_APPROVED, .nr = MAX, .vbd = 2, .cursor = ~0UL), -EAGAIN);
    EXPECT(CALL(GET_APPROVED, .nr = 0, .vbd = 1), 0);
    told(3, 1, 0); /* nobody knows it */
    EXPECT(ASK(APPROVE, .u.approve = { .vbd = 3, .verdict = 1 }), -ENOENT);
    EXPECT(ASK(APPROVE, .u.approve = { .vbd = 0, .verdict = 1 }), -EINVAL);
    EXPECT(ASK(APPROVE, .u.approve = { .vbd = 1, .verdict = 0 }), -EINVAL);
    EXPECT(ASK(APPROVE, .u.approve = { .vbd = 1, .verdict = 3 }), -EINVAL);

    op = DOMCTL(APPROVE, .u.approve = { .vbd = 1, .verdict = XEN_WARMCACHE_VERDICT_APPROVED });
    EXPECT(ask(&op), 0);
    EXPECT(op.u.approve.pages, ones);
    told(1, MAX, ones);
    told(1, 7, ones);
    EXPECT(CALL(GET_APPROVED, .nr = 1, .vbd = 2), -EAGAIN);

    op = DOMCTL(APPROVE, .u.approve = { .vbd = 2, .verdict = XEN_WARMCACHE_VERDICT_REFUSED });
    EXPECT(ask(&op), 0);
    EXPECT(op.u.approve.pages, twos);
    EXPECT(status().held, ones);
    EXPECT(cleared(FIRST_TRACKED + nr_tracked - 1), true);
    EXPECT(d->logged[FIRST_TRACKED + nr_tracked - 1], true);
    EXPECT(cleared(FIRST_TRACKED + 1), false);
    EXPECT(d->logged[FIRST_TRACKED + 1], false);
    EXPECT(CALL(GET_APPROVED, .nr = 1, .vbd = 2), -EACCES);
    EXPECT(ASK(APPROVE, .u.approve = { .vbd = 2, .verdict = 1 }), -EBUSY);
    EXPECT(ASK(APPROVE, .u.approve = { .vbd = 2, .verdict = 2 }), 0);
    EXPECT(CALL(GET_APPROVED, .nr = 1, .vbd = 2, .cursor = ~0UL), -EACCES);

    /* A page that was written to, one that dom0 drops, all. */
    EXPECT(guest_store(d, 0, FIRST_TRACKED * PAGE_SIZE, &token, sizeof(token)), true);
    told(1, MAX, ones - 1);
    pfns[0] = FIRST_TRACKED + 1;
    memcpy(dom0_memory, pfns, sizeof(pfns[0]));
    op = DOMCTL(DROP, .u.drop = { .flags = XEN_WARMCACHE_DROP_PFNS, .nr = 1 });
    EXPECT(ask(&op), 0);
    EXPECT(op.u.drop.dropped, 1);
    told(1, 16, ones - 2);
    op = DOMCTL(DROP, .u.drop = { .flags = XEN_WARMCACHE_DROP_VBD, .vbd = 1 });
    EXPECT(ask(&op), 0);
    EXPECT(op.u.drop.dropped, ones - 2);
    told(1, 1, 0); /* approved, but nothing is left */

    /* The next kernel has to attach first: until then nobody announces what it writes. */
    warmcache_kernel_begins(d);
    EXPECT(CALL(GET_APPROVED, .nr = 1, .vbd = 1), -ENODEV);

    EXPECT(ASK(DISABLE), 0);
    EXPECT(CALL(GET_APPROVED, .nr = 1, .vbd = 1), -ENODEV);
    versions();
}

static void as_guest(void (*what)(void *))
{
    void *unused = NULL;

    d = slots[1];
    cpu_run(0, what, &unused, sizeof(unused), &d->vcpus[0]);
    while ( !all_idle() )
        cpus_step();
    check_quiet();
}

static const uint8_t idle[8] = { [6] = BULKY }, working[8] = { 0, 1 | 4 | 8, [6] = BULKY };

/* The domain's death is preempted while its pages are moved, and dom0 asks something. */
static void asked_meanwhile(uint8_t cmd, unsigned int expected)
{
    static uint8_t ones[1 << 16]; /* change over at each chance, to the other CPU */
    uint8_t b[8] = { 50 + cmd };

    ASSERT(b[0] % 10 == cmd);
    prepare();
    run_one(OP_START, 1, working);
    run_one(OP_BULK, 1, working);
    d = slots[1];
    memset(ones, 1, sizeof(ones));
    input = (struct input){ ones, 0, sizeof(ones) };
    chances = CHANCE_CPUS;
    preempt_always = true;
    begin(0, OP_KILL, 1, b);
    while ( count_committed(d, false) == NR_BULK )
        cpus_step();
    EXPECT(count_committed(d, false) > 0, true);
    begin(1, OP_DOMCTL, 1, b);
    while ( !all_idle() )
        cpus_step();
    chances = 0;
    preempt_always = false;
    check_quiet();
    run_one(OP_START, 1, idle);
    EXPECT(count_committed(slots[1], true), expected);
    shut_down();
}

/* A domain that is given the UUID of an image replaces it when it dies. */
static void renamed(void)
{
    prepare();
    run_one(OP_START, 1, working);
    run_one(OP_BULK, 1, working);
    run_one(OP_START, 2, (const uint8_t[8]){ 1, 1 | 4 | 8 });
    run_one(OP_KILL, 1, idle);                                  /* an image of UUID 1 */
    EXPECT(held_by_images(), NR_BULK);
    run_one(OP_MACHINE, 2, (const uint8_t[8]){ 3 });            /* UUID 1, and disabled */
    EXPECT(slots[2]->handle[0], 1);
    run_one(OP_DOMCTL, 2, (const uint8_t[8]){ 50 + XEN_DOMCTL_WARMCACHE_ENABLE });
    run_one(OP_DOMCTL, 2, (const uint8_t[8]){ 50 + XEN_DOMCTL_WARMCACHE_ARM });
    run_one(OP_MEMOP, 2, (const uint8_t[8]){ XEN_WARMCACHE_CMD_ATTACH, 1, 62 });
    run_one(OP_IO, 2, (const uint8_t[8]){ 0, 5 });
    EXPECT(count_committed(slots[2], false), 6);
    run_one(OP_KILL, 2, idle);
    run_one(OP_TIME, 0, (const uint8_t[8]){ 1 });
    EXPECT(held_by_images(), 6);

    /* While it has the pages, but has not run, a domain keeps its UUID. */
    run_one(OP_START, 1, (const uint8_t[8]){ 0, 2 });
    EXPECT(count_committed(slots[1], true), 6);
    run_one(OP_MACHINE, 1, (const uint8_t[8]){ 3, 0, 1 });
    EXPECT(slots[1]->handle[0], 1);
    run_one(OP_START, 1, idle);                                 /* is let run */
    run_one(OP_MACHINE, 1, (const uint8_t[8]){ 3, 0, 1 });
    EXPECT(slots[1]->handle[0], 2);
    shut_down();
}

/* What the guest was told of it may be using: that is left alone. */
static void refused_later(void *unused)
{
    struct xen_domctl_warmcache op;

    for ( unsigned int verdict = XEN_WARMCACHE_VERDICT_APPROVED;
          verdict <= XEN_WARMCACHE_VERDICT_REFUSED; verdict++ )
    {
        EXPECT(count_committed(d, true), NR_BULK);
        op = DOMCTL(APPROVE, .u.approve = { .vbd = 1, .verdict = verdict });
        EXPECT(ask(&op), 0);
        EXPECT(op.u.approve.pages, NR_BULK);
    }
    EXPECT(count_committed(d, true), 0);
    EXPECT(cleared(FIRST_BULK + 5), false);
}

static bool early(void) { return status().flags & XEN_WARMCACHE_STATUS_EARLY_IO; }

/* A page of the domain's is mapped through a grant by @whom, who then lets go of it. */
static void granted(struct domain *whom, unsigned long gfn, bool readonly)
{
    p2m_type_t t;
    struct page_info *page = guest_page(d, gfn, &t);
    struct vcpu *was = become(&whom->vcpus[0]);

    warmcache_page_granted(page, readonly, 0);
    become(was);
    put_page(page);
}

/* Before the kernel attaches: what is not a backend's write, and what may be one. */
static void boot_loader(void *unused)
{
    EXPECT(early(), false);
    granted(d, FIRST_BULK, true);               /* its own */
    granted(slots[DOM0], FIRST_BULK + 1, false); /* a disk is read */
    EXPECT(early(), false);
    granted(slots[DOM0], FIRST_BULK + 2, true);
    EXPECT(early(), true);
    EXPECT(CALL(ATTACH, .nr = 1), 0);
    EXPECT(early(), true);
}

static void after_it(void *unused)
{
    EXPECT(early(), true);
    EXPECT(CALL(ATTACH, .nr = 1), 0);
    EXPECT(ASK(DROP, .u.drop = { .flags = XEN_WARMCACHE_DROP_VBD, .vbd = 1 }), 0);
    EXPECT(early(), true);
    EXPECT(ASK(DROP), 0);
    EXPECT(early(), false);
}

static void attached_first(void *unused)
{
    EXPECT(count_committed(d, true) > 0, true);
    EXPECT(CALL(ATTACH, .nr = 1), 0);
    granted(slots[DOM0], FIRST_BULK, true);
    EXPECT(early(), false);
}

static void nothing_held(void *unused)
{
    EXPECT(count_committed(d, true), 0);
    granted(slots[DOM0], FIRST_BULK, true);
    EXPECT(early(), false);
}

/* I/O that no kernel can have announced is noticed, and remembered as long as it matters. */
static void early_io(void)
{
    prepare();
    run_one(OP_START, 1, working);
    run_one(OP_BULK, 1, working);
    run_one(OP_KILL, 1, idle);
    run_one(OP_START, 1, idle);
    as_guest(boot_loader);
    run_one(OP_KILL, 1, idle);
    run_one(OP_START, 1, idle);                                 /* hears of its predecessor's */
    as_guest(after_it);
    run_one(OP_KILL, 1, idle);
    run_one(OP_START, 1, working);
    run_one(OP_BULK, 1, working);
    run_one(OP_KILL, 1, idle);
    run_one(OP_START, 1, idle);
    as_guest(attached_first);
    run_one(OP_KILL, 1, idle);
    run_one(OP_START, 2, (const uint8_t[8]){ 1, 1, [6] = BULKY });
    d = slots[2];
    {
        void *unused = NULL;

        cpu_run(0, nothing_held, &unused, sizeof(unused), &d->vcpus[0]);
        while ( !all_idle() )
            cpus_step();
    }
    shut_down();
}

/* PROBE is about no domain, and answers what nothing else does. */
static void probed(void *unused)
{
    struct xen_domctl_warmcache op = DOMCTL(PROBE);
    struct vcpu *was = become(&slots[DOM0]->vcpus[0]);

    EXPECT(domctl(d, &op), -EINVAL);
    EXPECT(domctl(NULL, &op), 0);
    EXPECT(op.u.probe.magic, XEN_DOMCTL_WARMCACHE_MAGIC);
    EXPECT(domctl(NULL, &op), -EINVAL);
    become(was);
}

static void probe(void)
{
    prepare();
    run_one(OP_START, 1, (const uint8_t[8]){});
    as_guest(probed);
    shut_down();
}

/* Lets the timer free what is given up. */
static void reap(void)
{
    for ( unsigned int i = 0; i < 4; i++ )
        run_one(OP_TIME, 0, (const uint8_t[8]){ 0, 1 });
}

/* Something that the toolstack does, on the first CPU. */
static void as_dom0(void (*what)(void *))
{
    void *unused = NULL;

    cpu_run(0, what, &unused, sizeof(unused), &slots[DOM0]->vcpus[0]);
    while ( !all_idle() )
        cpus_step();
    check_quiet();
}

/* An image of UUID 1, with NR_BULK pages. */
static void make_image(void)
{
    prepare();
    run_one(OP_START, 1, working);
    run_one(OP_BULK, 1, working);
    run_one(OP_KILL, 1, idle);
    EXPECT(held_by_images(), NR_BULK);
}

#define OTHER (const uint8_t[8]){ 1, 2 }        /* UUID 2, left paused */
#define OTHER_RUNS (const uint8_t[8]){ 1, 0 }

static unsigned long left_free;
static bool got[2];

static void allocate_twice(void *unused)
{
    for ( unsigned int i = 0; i < 2; i++ )
    {
        struct page_info *page = alloc_domheap_page(d, 0);

        got[i] = page;
    }
}

/*
 * Who may have what an image holds. A domain that is over its limit gets
 * nothing by that, nor does one that runs; one that is being created gets it,
 * and no more is freed than a step.
 */
static void given_up(void)
{
    /* Free memory, but none for this domain. */
    make_image();
    run_one(OP_START, 2, OTHER);
    d = slots[2];
    d->max_pages = d->tot_pages;
    as_dom0(allocate_twice);
    EXPECT(got[0] || got[1], false);
    EXPECT(held_by_images(), NR_BULK);
    d->max_pages += 10;

    /* None free, and the domain is being created. */
    heap_limit = frames_used + 1;
    as_dom0(allocate_twice);
    EXPECT(got[0] && got[1], true);
    EXPECT(held_by_images(), NR_BULK - 512);
    shut_down();

    /* None free, and it runs. */
    make_image();
    run_one(OP_START, 2, OTHER_RUNS);
    d = slots[2];
    d->max_pages += 10;
    heap_limit = frames_used + 1;
    as_dom0(allocate_twice);
    EXPECT(got[0], true);
    EXPECT(got[1], false);
    EXPECT(held_by_images(), NR_BULK);
    shut_down();
}

static void xen_needs_a_page(void *unused)
{
    void *page = alloc_xenheap_page();

    got[0] = page;
    free_xenheap_page(page);
}

/* Xen's own structures, of whatever domain. */
static void given_up_to_xen(void)
{
    make_image();
    heap_limit = frames_used;
    as_dom0(xen_needs_a_page);
    EXPECT(got[0], true);
    EXPECT(held_by_images(), NR_BULK - 512);
    shut_down();
}

static void claims(void *unused)
{
    unsigned long all = left_free + NR_BULK;

    d->max_pages = 10000;
    EXPECT(domain_set_outstanding_pages(d, d->tot_pages + all + 1), -ENOMEM);
    EXPECT(domain_set_outstanding_pages(d, d->tot_pages + all), 0);
    EXPECT(kept_by_heap(), NR_BULK);
    /* It is all spoken for. */
    EXPECT(alloc_xenheap_page() == NULL, true);
}

/* What images hold can be claimed, and claiming alone frees nothing. */
static void claimed(void)
{
    make_image();
    run_one(OP_START, 2, OTHER);
    d = slots[2];
    left_free = 1;
    heap_limit = frames_used + left_free;
    as_dom0(claims);
    EXPECT(held_by_images(), NR_BULK);
    as_dom0(allocate_twice);
    EXPECT(got[0] && got[1], true);
    EXPECT(held_by_images(), NR_BULK - 512);
    EXPECT(d->outstanding_pages, left_free + NR_BULK - 2);
    /* The image's own domain can't have its pages back: they are another's now. */
    run_one(OP_START, 1, (const uint8_t[8]){ 0, 2, [6] = BULKY });
    EXPECT(count_committed(slots[1], true), 0);
    shut_down();
}

static void adopt_only(void *unused)
{
    warmcache_adopt(d);
    EXPECT(d->warmcache != NULL, true);
}

static void let_run(void *unused)
{
    slots[2]->creation_finished = true;
    warmcache_creation_finished(slots[2]);
}

static void switched_off(void *unused)
{
    EXPECT(CALL(ATTACH, .nr = 1), -ENOSYS);
    EXPECT(ASK(ENABLE), -ENOSYS);
}

static void disarm(void *unused) { EXPECT(domctl(d, &DOMCTL(DISARM)), 0); }
static void on_demand(void *unused) { warmcache_forgo(d); }

/* A domain that is populated on demand has no use for its image: it is given up first. */
static void populated_on_demand(void)
{
    make_image();
    d = domain_create(1, 1, 2000);
    as_dom0(on_demand);                                         /* before it is asked for */
    reap();
    EXPECT(held_by_images(), 0);
    shut_down();

    make_image();
    d = domain_create(1, 1, 2000);
    as_dom0(adopt_only);
    EXPECT(held_by_images(), NR_BULK);
    as_dom0(on_demand);                                         /* and after that */
    reap();
    EXPECT(held_by_images(), 0);
    shut_down();
}

/* The image of a domain that is not let run, or dies before that. */
static void not_run(void)
{
    make_image();
    d = domain_create(1, 1, 2000);
    as_dom0(adopt_only);
    run_one(OP_KILL, 1, idle);                                  /* for the next attempt */
    EXPECT(held_by_images(), NR_BULK);
    run_one(OP_START, 1, (const uint8_t[8]){ 0, 2, [6] = BULKY });
    EXPECT(count_committed(slots[1], true), NR_BULK);
    shut_down();

    make_image();
    d = domain_create(1, 1, 2000);
    as_dom0(adopt_only);
    as_dom0(disarm);                                            /* then for nobody */
    run_one(OP_KILL, 1, idle);
    reap();
    EXPECT(held_by_images(), 0);
    shut_down();

    make_image();
    d = domain_create(1, 1, 2000);
    as_dom0(adopt_only);
    for ( unsigned int i = 0; i < 3; i++ )
    {
        now += SECONDS(1000);                                   /* nobody comes */
        timers_run();
    }
    check_quiet();
    EXPECT(held_by_images(), 0);
    shut_down();
}

static void rename_it(void *unused) { EXPECT(domain_rename(d, 1), 0); }

/* Who takes a UUID, by whatever way, ends the image of it, and none has no UUID. */
static void identities(void)
{
    make_image();
    run_one(OP_START, 2, OTHER_RUNS);
    d = slots[2];
    as_dom0(rename_it);
    EXPECT(d->handle[0], 1);
    reap();
    EXPECT(held_by_images(), 0);
    shut_down();

    make_image();
    domain_create(2, 1, 2000);                                  /* has memory by other ways */
    as_dom0(let_run);
    reap();
    EXPECT(held_by_images(), 0);
    shut_down();

    prepare();
    run_one(OP_START, 1, working);
    run_one(OP_BULK, 1, working);
    memset(slots[1]->handle, 0, sizeof(slots[1]->handle));
    domain_renamed(slots[1], 1);
    run_one(OP_KILL, 1, idle);
    EXPECT(held_by_images(), 0);
    shut_down();
}

/* The command line. */
static void limited(void)
{
    EXPECT(command_line("max=4M,on"), 0);
    EXPECT(command_line("max="), -EINVAL);
    EXPECT(command_line("max=4M0"), -EINVAL);
    EXPECT(command_line("maximal"), -EINVAL);
    EXPECT(command_line("max=400K"), 0);
    prepare();
    run_one(OP_START, 1, working);
    run_one(OP_BULK, 1, working);
    run_one(OP_KILL, 1, idle);
    EXPECT(held_by_images(), 100);
    shut_down();

    EXPECT(command_line("off"), 0);
    prepare();
    run_one(OP_START, 1, (const uint8_t[8]){ 0, 1 });
    d = slots[1];
    EXPECT(d->warmcache == NULL, true);
    as_guest(switched_off);
    command_line_default();
    shut_down();
}

/* A large image is freed piecemeal. */
static void dropped(void)
{
    prepare();
    run_one(OP_START, 1, working);
    run_one(OP_BULK, 1, working);
    run_one(OP_KILL, 1, idle);
    EXPECT(held_by_images(), NR_BULK);
    reap();                                                     /* the dead domain's table */
    run_one(OP_DOMCTL, 1, (const uint8_t[8]){ 50 + XEN_DOMCTL_WARMCACHE_IMAGE_DROP });
    EXPECT(held_by_images(), NR_BULK - 512);
    reap();
    EXPECT(held_by_images(), 0);
    EXPECT(images_left(), false);
    shut_down();
}

static uint8_t bytes[4096];

static void fill_bytes(void)
{
    static uint64_t state = 1;

    for ( unsigned int i = 0; i < sizeof(bytes); i++ )
    {
        state = state * 0x5851f42d4c957f2dULL + 1;
        bytes[i] = state >> 56;
    }
}

/* What is tracked equals its block, whichever of two requests for it comes last. */
static void meetings(void)
{
    for ( current_seed = 1; current_seed <= 300; current_seed++ )
    {
        fill_bytes();
        run_meeting(current_seed & 1, bytes, sizeof(bytes));
    }
}

/* Two CPUs come between each other as it happens. */
static void at_once(void (*one)(void *), struct vcpu *as, void (*other)(void *), struct vcpu *as_other)
{
    void *unused = NULL;

    fill_bytes();
    input = (struct input){ bytes, 0, sizeof(bytes) };
    chances = CHANCE_CPUS;
    cpu_run(0, one, &unused, sizeof(unused), as);
    cpu_run(1, other, &unused, sizeof(unused), as_other);
    while ( !all_idle() )
        cpus_step();
    chances = 0;
    check_quiet();
}

#define ADOPTED 4
static void adopt_some(void *unused)
{
    warmcache_adopt(d);
    d->in_flight++;
    d->populating++;
    for ( unsigned int i = 0; i < ADOPTED; i++ )
        warmcache_populate(d, _gfn(FIRST_BULK + i), 0, 0);
    d->populating--;
    d->in_flight--;
}

static unsigned long held_then, late;

static void run_it(void *unused)
{
    d->creation_finished = true;
    warmcache_creation_finished(d);
    held_then = count_committed(d, true);
}

/* What isn't held, though it came out of an image, is memory like any other. */
static void came_late(void *unused)
{
    for ( unsigned int i = 0; i < ADOPTED; i++ )
    {
        p2m_type_t t;
        struct page_info *page = guest_page(d, FIRST_BULK + i, &t);

        if ( !page )
            continue;
        put_page(page);
        if ( tracked(d, FIRST_BULK + i) != NOT_TRACKED )
            continue;
        EXPECT(cleared(FIRST_BULK + i), true);
        EXPECT(t, p2m_ram_rw);
        late++;
    }
}

/* A domain that is let run while it is populated: what it holds it held when it began to. */
static void run_too_early(void)
{
    for ( current_seed = 1; current_seed <= 200; current_seed++ )
    {
        make_image();
        d = domain_create(1, 1, 2000);
        at_once(adopt_some, &slots[DOM0]->vcpus[0], run_it, &slots[DOM0]->vcpus[1]);
        EXPECT(count_committed(d, true), held_then);
        as_dom0(came_late);
        reap();
        EXPECT(held_by_images(), 0);
        shut_down();
    }
    EXPECT(late > 0, true);
}

static int renamed_by;
static void rename_meanwhile(void *unused) { renamed_by = domain_rename(d, 2); }
static void is_off(void *unused) { EXPECT(status().flags, 0); }

/* A domain gets another UUID while it is populated: it has pages of one of them only. */
static void renamed_too_early(void)
{
    unsigned int refused = 0;

    for ( current_seed = 1; current_seed <= 200; current_seed++ )
    {
        make_image();
        d = domain_create(1, 1, 2000);
        at_once(adopt_some, &slots[DOM0]->vcpus[0], rename_meanwhile, &slots[DOM0]->vcpus[1]);
        if ( renamed_by )
        {
            EXPECT(renamed_by, -EBUSY);
            EXPECT(d->handle[0], 1);
            EXPECT(count_committed(d, true), ADOPTED);
            refused++;
        }
        else
        {
            EXPECT(d->handle[0], 2);
            EXPECT(count_committed(d, true), 0);
            as_dom0(is_off);
            reap();
            EXPECT(held_by_images() == 0 || held_by_images() == NR_BULK, true);
        }
        shut_down();
    }
    EXPECT(refused > 0 && refused < 200, true);
}

static void preserve_it(void *unused)
{
    while ( warmcache_preserve(d) == -ERESTART )
        ;
}

static bool there, there_then;

/* Whether there is an image of UUID 1. */
static void look_for_image(void *unused)
{
    struct xen_domctl_warmcache op = DOMCTL(IMAGE_STATUS, .u.image.index = ~0U);

    memset(op.u.image.uuid, 1, sizeof(op.u.image.uuid));
    there = !warmcache_domctl(NULL, &op);
}

static bool all_moved(void *unused) { return !count_committed(d, false); }

static void disarm_meanwhile(void *unused)
{
    wait_until(all_moved, NULL);
    EXPECT(warmcache_domctl(d, &DOMCTL(DISARM)), 0);
    look_for_image(NULL);
    there_then = there;
}

/*
 * Whoever was told that no image is kept finds it if there is one, also if nothing but
 * the handlers' own locks comes between that and the domain's death.
 */
static void disarmed(void)
{
    unsigned int appeared = 0;

    for ( current_seed = 1; current_seed <= 200; current_seed++ )
    {
        prepare();
        run_one(OP_START, 1, working);
        run_one(OP_BULK, 1, working);
        d = slots[1];
        d->is_dying = DOMDYING_dying;
        d->p2m_gone = true;
        at_once(preserve_it, &slots[DOM0]->vcpus[0], disarm_meanwhile, &slots[DOM0]->vcpus[1]);
        as_dom0(look_for_image);
        EXPECT(there, there_then);
        appeared += there;
        d->is_dying = DOMDYING_alive;
        shut_down();
    }
    EXPECT(appeared > 0 && appeared < 200, true);
}

static enum tracked then;

static void announce_one(void *unused)
{
    struct xen_warmcache_io one = READ_OF(0, 8);

    call(&OP(REGISTER, .nr = 1), &one, sizeof(one));
}

static void confirm_one(void *unused)
{
    uint64_t pfn = FIRST_TRACKED;

    call(&OP(COMMIT, .nr = 1), &pfn, sizeof(pfn));
}

static void fill_one(void *unused) { backend_fills(d, FIRST_TRACKED, 1); }

static void next_kernel(void *unused)
{
    warmcache_kernel_begins(d);
    then = tracked(d, FIRST_TRACKED);
}

/* What a kernel says that another one follows has no effect from then on. */
static void followed(void)
{
    for ( current_seed = 1; current_seed <= 200; current_seed++ )
    {
        prepare();
        run_one(OP_START, 1, working);
        d = slots[1];
        at_once(announce_one, &d->vcpus[0], next_kernel, &d->vcpus[1]);
        EXPECT(tracked(d, FIRST_TRACKED), then < AWAITING ? NOT_TRACKED : then);
        shut_down();

        prepare();
        run_one(OP_START, 1, working);
        d = slots[1];
        as_guest(announce_one);
        as_guest(fill_one);
        at_once(confirm_one, &d->vcpus[0], next_kernel, &d->vcpus[1]);
        EXPECT(tracked(d, FIRST_TRACKED), then);
        shut_down();
    }
}

static void try_at_once(void *unused)
{
    struct xen_warmcache_io one = READ_OF(0, 8);

    for ( unsigned int i = 0; i < 8; i++ )
    {
        long rc = call(&OP(REGISTER, .nr = i & 1), &one, sizeof(one));

        if ( rc && rc != -ENODEV )
            STOP("answered %ld", rc);
    }
}

static void enable_it(void *unused)
{
    EXPECT(domctl(d, &DOMCTL(ENABLE)), 0);
}

/* A guest that calls while dom0 enables its warm cache. */
static void enabled_meanwhile(void)
{
    for ( current_seed = 1; current_seed <= 200; current_seed++ )
    {
        prepare();
        run_one(OP_START, 1, idle);                             /* not enabled */
        d = slots[1];
        at_once(try_at_once, &d->vcpus[0], enable_it, &slots[DOM0]->vcpus[0]);
        shut_down();
    }
}

static unsigned long play(unsigned int elements, unsigned int pages, unsigned long at, bool always)
{
    batch = elements;
    nr_tracked = pages;
    prepare();
    preempt_at = at;
    preempt_always = always;
    current_seed = at;
    run_one(OP_START, 1, idle);                                 /* not enabled */
    as_guest(first_life);
    run_one(OP_KILL, 1, idle);
    run_one(OP_START, 1, idle);                                 /* adopts */
    as_guest(second_life);
    at = preempt_count;
    shut_down();

    return at;
}

int run_cases(void)
{
    unsigned long looks, n;

    meetings();
    looks = play(MAX, MAX_TRACKED, 0, false);
    printf("calls of %d elements about %d pages: %lu answers as expected\n", MAX, MAX_TRACKED, answers);
    play(MAX, MAX_TRACKED, 0, true);
    printf("preempted at each of %lu looks: the same\n", looks);
    fflush(stdout);
    looks = play(120, 40, 0, false);
    for ( n = 1; n <= looks; n++ )
        play(120, 40, n, false);
    asked_meanwhile(XEN_DOMCTL_WARMCACHE_STATUS, NR_BULK);
    asked_meanwhile(XEN_DOMCTL_WARMCACHE_DISARM, 0);
    asked_meanwhile(XEN_DOMCTL_WARMCACHE_DISABLE, 0);
    renamed();
    make_image();
    run_one(OP_START, 1, (const uint8_t[8]){ [6] = BULKY });
    as_guest(refused_later);
    shut_down();
    early_io();
    probe();
    given_up();
    given_up_to_xen();
    claimed();
    populated_on_demand();
    not_run();
    identities();
    limited();
    dropped();
    run_too_early();
    renamed_too_early();
    disarmed();
    followed();
    enabled_meanwhile();
    printf("calls of 120 elements, preempted at each of %lu looks in turn: the same\n", looks);

    return 0;
}
