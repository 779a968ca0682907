/*
 * What an input is made of: operations of guests, backends and dom0, and the
 * checks after each. In an honest run the guests keep to the protocol, so that
 * the bytes of each reusable page must equal those of its block; in any other
 * they do what they like.
 */
#include "model.h"

#define NR_PAGES 64            /* of a domain */
#define NR_UUIDS 4
#define NR_VBDS 2
#define NR_BLOCKS 48
#define NR_MAPPINGS 24
#define FOR_BACKENDS 8         /* of them, not for anybody else */

static bool honest;
static struct lock domctl_lock = { .rank = RANK_DOMCTL };

/* Blocks of the disks of each UUID, and whether one is being read or written. */
static uint64_t disk[NR_UUIDS][NR_VBDS][NR_BLOCKS], next_token;
static bool block_busy[NR_UUIDS][NR_VBDS][NR_BLOCKS];
/* Who writes to it directly, and how often at a time: only its next life waits for that. */
static struct { const struct domain *d; unsigned int nr; } direct_to[NR_UUIDS][NR_VBDS][NR_BLOCKS];
static bool page_busy[NR_SLOTS][NR_PAGES];
static bool stopped[NR_SLOTS];  /* the kernel was told that there is no warm cache */
static uint32_t last_name;      /* of a write, or of a grant */
static uint8_t last_block[NR_UUIDS][NR_VBDS]; /* where I/O was last: half of it goes there again */
#define STRANGE 0x80000000U     /* the grant of no I/O, or no grant at all */

static struct mapping {
    struct page_info *page;
    enum { MAP_NONE, MAP_GRANT, MAP_FOREIGN, MAP_RESOURCE } kind;
    bool writable, busy;       /* busy: an operation is about to unmap it */
    bool announced;            /* is taken for the I/O that the page waits for */
} mappings[NR_MAPPINGS];

/* Pages lie on both sides of where the tables' pages meet. */
static unsigned long page_gfn(unsigned int i)
{
    static const unsigned int first[] = { 1, 120, 504, 1020 };

    return first[i / 16 % 4] + i % 16;
}

/*
 * A page of the slot's domain: half of the time one that something was done to
 * lately, as most mistakes take two operations that meet.
 */
static uint8_t recent[NR_SLOTS][4];

static unsigned int touch_page(unsigned int slot, unsigned int page)
{
    memmove(&recent[slot][1], &recent[slot][0], sizeof(recent[slot]) - 1);

    return recent[slot][0] = page;
}

static unsigned int pick_page(unsigned int slot, uint8_t b)
{
    return b < 0x80 ? touch_page(slot, b % NR_PAGES)
                    : recent[slot][b % ARRAY_SIZE(recent[slot])];
}

static unsigned long pick_gfn(unsigned int slot)
{
    static const unsigned long odd[] = { 0, 64 + 1023, 64 + 1024, NR_GFN, 1UL << 29,
                                         1UL << 40, ~0UL - 1, 200 };
    uint8_t b = next_byte();

    return b < 0xf0 || honest ? page_gfn(pick_page(slot, b)) : odd[b % 8];
}

struct work {
    void (*run)(struct work *w);
    struct domain *d;
    unsigned int slot, cpu;
    uint8_t b[8];
};

/* What callers are told, so that runs can be compared. */
uint64_t noted;

static void note(uint64_t value) { noted = (noted ^ value) * 0x100000001b3; }

static bool nobody_in_flight(void *argument)
{
    return !((struct domain *)argument)->in_flight;
}

/* The guest runs only while it isn't paused, and Xen waits for it to leave. */
static bool enter_guest(const struct work *w)
{
    if ( !w->d->creation_finished || w->d->paused || w->d->pauses || w->d->is_dying )
        return false;
    w->d->in_flight++;
    race_acquire(&w->d->pauses);

    return true;
}

/* What was done before is over for whoever waits for that. */
static void no_longer_in_flight(struct domain *d)
{
    race_release(d);
    d->in_flight--;
}

static void leave_guest(const struct work *w) { no_longer_in_flight(w->d); }

static bool store(struct domain *d, unsigned int cpu, unsigned long at, const void *from,
                  unsigned int len)
{
    bool ok = true;

    while ( ok && len )
    {
        unsigned int n = min_t(unsigned long, len, PAGE_SIZE - at % PAGE_SIZE);

        ok = guest_store(d, cpu, at, from, n);
        at += n;
        from += n;
        len -= n;
    }

    return ok;
}

long memop(struct domain *d, unsigned int cpu, struct xen_warmcache_op *op,
           unsigned long at, const void *list, unsigned int size)
{
    XEN_GUEST_HANDLE_PARAM(xen_warmcache_op_t) uop = { (void *)at };
    unsigned long start = 0;
    long rc;

    if ( !op->list )
        op->list = at + 64;
    if ( size )
        store(d, cpu, op->list, list, size);
    store(d, cpu, at, op, sizeof(*op));
    for ( ; ; )
    {
        rc = warmcache_memop(uop, start);
        if ( rc != -ERESTART )
            break;
        start = continuation;
        if ( d->paused || d->is_dying )
            break;
        interleave();
    }
    if ( rc != -ERESTART && !raw_copy_from_guest(op, (void *)at, sizeof(*op)) &&
         !rc && honest && op->nr > XEN_WARMCACHE_MAX_BATCH )
        STOP("more than was asked for");

    return rc;
}

/*
 * Of sectors that a write is announced for nothing may be known but the write's
 * own page, unless it has ended since.
 */
static void check_announced(const struct domain *d, const struct xen_warmcache_io *io,
                            unsigned int nr)
{
    for ( unsigned int k = 0; k < nr; k++ )
    {
        if ( io[k].flags != XEN_WARMCACHE_IO_BEGIN )
            continue;
        for ( unsigned int i = 0; i < NR_PAGES; i++ )
        {
            struct xen_warmcache_entry e;
            unsigned long pfn = page_gfn(i);
            bool excepted = false, over = false;

            if ( !known(d, pfn, &e) || e.vbd != io[k].vbd ||
                 e.sector + 8 <= io[k].sector ||
                 e.sector >= io[k].sector + io[k].nr_sectors )
                continue;
            for ( unsigned int j = k + 1; j < nr; j++ )
            {
                over |= io[j].flags == XEN_WARMCACHE_IO_END &&
                        io[j].vbd == io[k].vbd && io[j].id == io[k].id;
                excepted |= io[j].pfn == pfn && io[j].sector == e.sector &&
                            (over || (io[j].flags == XEN_WARMCACHE_IO_WRITE &&
                                      io[j].id == io[k].id));
            }
            if ( !excepted )
                STOP("PFN %#lx is known for sector %lu after element %u of %u announced a write of %lu+%lu",
                     pfn, e.sector, k, nr, io[k].sector, io[k].nr_sectors);
        }
    }
}

/* Any hypercall with any arguments. */
static void op_memop(struct work *w)
{
    union {
        struct xen_warmcache_io io[40];
        uint64_t pfn[280];
        struct xen_warmcache_report report;
    } list = {};
    struct xen_warmcache_op op = { .cmd = w->b[0] % 9, .version = XEN_WARMCACHE_VERSION,
                                   .nr = w->b[1] % 24 };
    unsigned long at = page_gfn(w->b[2] % NR_PAGES) * PAGE_SIZE + (w->b[2] >> 6) * 16;
    unsigned int size = 0;
    long rc;

    if ( w->b[3] == 1 )
        op.version = 7;
    if ( w->b[3] == 2 )
        op.pad = 1;
    if ( w->b[3] == 3 )
        op.nr = 5000;
    if ( w->b[3] == 4 || op.cmd == XEN_WARMCACHE_CMD_GET_HELD ||
         op.cmd == XEN_WARMCACHE_CMD_GET_APPROVED )
        op.cursor = w->b[4] < 0xf0 ? w->b[4] * 64UL & ~(w->b[4] & 1UL) : ~0UL << (w->b[4] % 8);
    if ( w->b[3] >= 0xf0 )
        op.list = pick_gfn(w->slot) * PAGE_SIZE;
    if ( w->b[3] == 5 )
        op.nr = 41 + next_byte();
    op.vbd = 1 + w->b[5] % 3;

    switch ( op.cmd )
    {
    case XEN_WARMCACHE_CMD_REGISTER:
        for ( unsigned int i = 0; i < op.nr && i < ARRAY_SIZE(list.io); i++ )
        {
            uint8_t b = next_byte(), s = next_byte();

            list.io[i] = (struct xen_warmcache_io){
                .pfn = b & 8 ? XEN_WARMCACHE_NO_PFN : pick_gfn(w->slot),
                .cookie = { s, 0, i, 1 }, .sector = s % NR_BLOCKS * 8, .nr_sectors = 8,
                .vbd = 1 + (b & 1), .flags = (b & 8 ? 2 : 0) | (b >> 1 & 1),
            };
            /* Few names, so that they meet; of writes that are honest, too. */
            if ( list.io[i].flags )
                list.io[i].id = s & 0x40 ? last_name - (s & 3) : s & 3;
            if ( !(b & 8) )
                list.io[i].ref = b >> 4 & 3;
            else if ( b & 2 )
                list.io[i].sector = list.io[i].nr_sectors = 0;
            else
            {
                list.io[i].sector += b >> 4 & 7;
                list.io[i].nr_sectors = b == 0xfd ? (1UL << 55) - 1 : 1 + (s & 63) * (b & 0x80 ? 97UL : 1);
            }
            if ( b == 0x70 )
                list.io[i].sector = 1UL << (s % 64); /* same hash */
            if ( b == 0x71 )
                list.io[i].pad = 1;
            if ( b == 0x72 )
                list.io[i].flags = s;
        }
        size = min_t(unsigned int, op.nr, ARRAY_SIZE(list.io)) * sizeof(list.io[0]);
        break;

    case XEN_WARMCACHE_CMD_COMMIT:
    case XEN_WARMCACHE_CMD_UNREGISTER:
        for ( unsigned int i = 0; i < op.nr && i < ARRAY_SIZE(list.pfn); i++ )
            list.pfn[i] = pick_gfn(w->slot);
        size = min_t(unsigned int, op.nr, ARRAY_SIZE(list.pfn)) * sizeof(list.pfn[0]);
        break;

    case XEN_WARMCACHE_CMD_ATTACH:
    case XEN_WARMCACHE_CMD_REPORT:
        op.nr = w->b[1] < 0xf0 ? 1 : w->b[1] % 3;
        list.report.flags = w->b[4] % 3;
        size = op.cmd == XEN_WARMCACHE_CMD_REPORT ? sizeof(list.report) : 0;
        break;
    }

    if ( !enter_guest(w) )
        return;
    rc = memop(w->d, w->cpu, &op, at, &list, size);
    note(rc);
    note(op.nr);
    note(op.cursor);
    SAY("d%u: memop %u nr %u at %#lx: %ld\n", w->d->domain_id, op.cmd, op.nr, at, rc);
    if ( !rc && op.cmd == XEN_WARMCACHE_CMD_REGISTER && !w->b[3] &&
         !(chances & (CHANCE_CPUS | CHANCE_FAULT)) && op.nr <= ARRAY_SIZE(list.io) )
        check_announced(w->d, list.io, op.nr);
    leave_guest(w);
}

/* Backends, and whoever else maps pages of a guest. */

static struct mapping *free_mapping(bool backend)
{
    for ( unsigned int i = backend ? 0 : FOR_BACKENDS; i < NR_MAPPINGS; i++ )
        if ( mappings[i].kind == MAP_NONE )
            return &mappings[i];

    return NULL;
}

/*
 * By @whom: the domain itself or, as backends are, dom0; with @grant through @ref,
 * where odd ones are grant copies, which take a type reference to write.
 */
static struct mapping *map_by(struct domain *whom, struct domain *d, unsigned long gfn,
                              bool writable, bool grant, uint32_t ref, bool backend)
{
    struct mapping *m = free_mapping(backend);
    enum tracked before;
    p2m_type_t t;
    struct page_info *page;
    struct vcpu *was;

    if ( !m )
        return NULL;
    m->kind = grant ? MAP_GRANT : MAP_FOREIGN;
    m->busy = true;
    page = d->is_dying ? NULL : guest_page(d, gfn, &t);
    if ( !page )
    {
        *m = (struct mapping){};
        return NULL;
    }
    m->page = page;
    m->writable = writable;
    interleave();
    before = tracked(d, gfn);
    was = become(&whom->vcpus[current->cpu]);
    if ( grant && writable && (ref & 1) )
    {
        warmcache_page_typing(page, ref);
        interleave();
        warmcache_page_typed(page);
    }
    else if ( grant )
        warmcache_page_granted(page, !writable, ref);
    else if ( writable )
        warmcache_page_writable(page);
    become(was);
    m->announced = grant && before == AWAITING && tracked(d, gfn) == SEEN;
    if ( m->announced && whom == d )
        STOP("PFN %#lx: the guest's own mapping is taken for its backend's", gfn);
    if ( m->announced && (ref & STRANGE) )
        STOP("PFN %#lx: a grant that wasn't announced is taken for the backend's", gfn);

    return m;
}

/* For an I/O, which the page waits for or not. */
static struct mapping *map(struct domain *d, unsigned long gfn, bool writable, uint32_t ref)
{
    return map_by(slots[DOM0], d, gfn, writable, true, ref, true);
}

static void unmap(struct mapping *m)
{
    struct page_info *page = m->page;

    m->busy = true;
    interleave();
    *m = (struct mapping){};
    put_page(page);
}

static void write_mapped(struct mapping *m, uint64_t token)
{
    struct page_info *page = m->page;
    struct domain *d = page_get_owner(page);
    enum tracked state = tracked(d, page->m2p);

    if ( state == COMMITTED || state == AWAITING || (state == SEEN && !m->announced) )
        STOP("somebody writes to PFN %#lx, which is in state %d", page->m2p, state);
    memcpy(frame_va(page_to_mfn(page)), &token, sizeof(token));
}

static uint64_t read_mapped(const struct mapping *m)
{
    uint64_t token;

    memcpy(&token, frame_va(page_to_mfn(m->page)), sizeof(token));

    return token;
}

/* One of those that no operation is in the middle of, if there are any. */
static struct mapping *pick_mapping(uint8_t b)
{
    struct mapping *idle[NR_MAPPINGS];
    unsigned int n = 0;

    for ( unsigned int i = 0; i < NR_MAPPINGS; i++ )
        if ( mappings[i].kind != MAP_NONE && !mappings[i].busy )
            idle[n++] = &mappings[i];

    return n ? idle[b % n] : NULL;
}

/* As a device model has it done: without a mapping, but with a reference. */
static void xen_writes(struct domain *d, unsigned long gfn)
{
    p2m_type_t t;
    struct page_info *page = d->is_dying ? NULL : guest_page(d, gfn, &t);

    if ( !page )
        return;
    interleave();
    memcpy(frame_va(page_to_mfn(page)), &(uint64_t){ ++next_token }, sizeof(next_token));
    warmcache_gfn_written(d, gfn);
    if ( tracked(d, gfn) >= AWAITING )
        STOP("Xen has written to PFN %#lx, which is still tracked", gfn);
    put_page(page);
}

static void op_mapping(struct work *w)
{
    unsigned long gfn = page_gfn(pick_page(w->slot, w->b[2]));
    struct domain *whom = slots[DOM0];
    struct mapping *m;

    if ( !honest && w->b[4] > 0xc0 )
        whom = w->d;
    switch ( w->b[0] % 4 )
    {
    case 0:
        m = map_by(whom, w->d, gfn, w->b[3] & 1, (w->b[3] & 2) && !honest, w->b[3] >> 2 & 3, false);
        if ( m )
            m->busy = false;
        break;

    case 1: /* grant copy, or a write that Xen makes for dom0 */
        if ( w->b[5] & 1 )
        {
            xen_writes(w->d, gfn);
            break;
        }
        m = honest ? NULL : map_by(whom, w->d, gfn, w->b[3] & 1, true, STRANGE | w->b[3] >> 7, false);
        if ( m )
        {
            if ( m->writable )
                write_mapped(m, ++next_token);
            unmap(m);
        }
        break;

    case 2:
        m = pick_mapping(w->b[1]);
        if ( m && m->writable )
            write_mapped(m, ++next_token);
        break;

    case 3:
        m = pick_mapping(w->b[1]);
        if ( m )
            unmap(m);
        break;
    }
}

/*
 * Somebody else who maps the page of an I/O: at one of the moments of the I/O,
 * to write at each of the next, and to let go of it at another, or later.
 */
enum moment { BEFORE, ANNOUNCED, GRANTED, TRANSFERRED, CONFIRMED };

struct intruder {
    struct mapping *m;
    unsigned long gfn;
    unsigned int page, from, to; /* page: of the I/O's */
    bool writable, grant, own; /* own: it is the guest itself */
};

static struct intruder intruder_of(const struct work *w, unsigned int nr)
{
    struct intruder x = {
        .page = w->b[6] % nr, .from = w->b[7] % 5, .writable = w->b[6] & 0x40,
        .grant = (w->b[6] & 0x20) && !honest,
    };

    x.own = x.grant && (w->b[7] & 0x40);
    x.to = x.from + 1 + w->b[7] / 5 % 3;
    if ( w->b[6] < 0x80 ) /* nobody */
        x.from = CONFIRMED + 1;

    return x;
}

static void intrude(struct intruder *x, struct domain *d, enum moment moment)
{
    if ( moment == x->from && x->gfn != XEN_WARMCACHE_NO_PFN )
        x->m = map_by(x->own ? d : slots[DOM0], d, x->gfn, x->writable, x->grant,
                      STRANGE | x->page, false);
    if ( !x->m )
        return;
    if ( moment == x->to )
    {
        unmap(x->m);
        x->m = NULL;
        return;
    }
    if ( moment != x->from && x->writable )
        write_mapped(x->m, ++next_token);
    if ( moment == CONFIRMED )
        x->m->busy = false; /* anybody's from now on */
}

/*
 * Block I/O as blkfront and blkback do it: announced, granted, transferred, and
 * confirmed, each page in its turn. Direct I/O may meet any other that is under way.
 */
static void op_io(struct work *w)
{
    unsigned int uuid = w->d->handle[0] % NR_UUIDS, vbd = w->b[0] & 1;
    unsigned int nr = 1 + w->b[1] % 6;
    unsigned int first = w->b[2] < 0x80 ? w->b[2] % (NR_BLOCKS - 6) : last_block[uuid][vbd];
    unsigned int page = pick_page(w->slot, w->b[3]) % (NR_PAGES - 6);
    struct intruder x = intruder_of(w, nr);
    bool direct = (w->b[0] & 12) == 12, write = direct || (w->b[0] & 2), fails = w->b[4] > 0xe0;
    bool early = !honest && w->b[5] % 4 == 1; /* says that it is over before it is */
    struct xen_warmcache_io list[7], *io = list + write, over;
    struct xen_warmcache_op op = OP(REGISTER, .nr = direct ? 1 : nr + write);
    uint64_t pfns[6];
    unsigned long at = page_gfn(NR_PAGES - 1 - w->cpu) * PAGE_SIZE + 256;
    bool told = true;
    long rc = 0;

    if ( page + nr > NR_PAGES - NR_CPUS ) /* those are for arguments */
        page = 0;
    if ( !w->d->creation_finished || w->d->paused )
        return;
    for ( unsigned int i = 0; i < nr; i++ )
        if ( (direct_to[uuid][vbd][first + i].nr && direct_to[uuid][vbd][first + i].d != w->d) ||
             (!direct && (block_busy[uuid][vbd][first + i] || page_busy[w->slot][page + i])) )
            return;
    last_block[uuid][vbd] = first;
    for ( unsigned int i = 0; i < nr && direct; i++ )
    {
        direct_to[uuid][vbd][first + i].d = w->d;
        direct_to[uuid][vbd][first + i].nr++;
    }
    list[0] = (struct xen_warmcache_io){
        .pfn = XEN_WARMCACHE_NO_PFN, .sector = first * 8, .nr_sectors = nr * 8,
        .vbd = 1 + vbd, .flags = XEN_WARMCACHE_IO_BEGIN, .id = ++last_name,
    };
    over = (struct xen_warmcache_io){
        .pfn = XEN_WARMCACHE_NO_PFN, .vbd = 1 + vbd, .flags = XEN_WARMCACHE_IO_END,
        .id = list[0].id,
    };
    for ( unsigned int i = 0; i < nr && !direct; i++ )
    {
        block_busy[uuid][vbd][first + i] = page_busy[w->slot][page + i] = true;
        io[i] = (struct xen_warmcache_io){
            .pfn = pfns[i] = page_gfn(page + i), .cookie = { uuid, 0, first + i },
            .sector = (first + i) * 8, .nr_sectors = 8, .vbd = 1 + vbd, .flags = write,
            .id = write ? over.id : 0, .ref = ++last_name,
        };
    }
    x.gfn = direct ? XEN_WARMCACHE_NO_PFN : pfns[x.page];
    intrude(&x, w->d, BEFORE);

    if ( enter_guest(w) )
    {
        if ( !stopped[w->slot] )
            rc = memop(w->d, w->cpu, &op, at, list, op.nr * sizeof(list[0]));
        /* A kernel that is refused once does without from then on. */
        if ( rc == -ENODEV || rc == -EOPNOTSUPP )
            stopped[w->slot] = true;
        /* The page of the arguments was taken away, or replaced: no request. */
        else if ( rc == -EFAULT || ((chances & CHANCE_CPUS) &&
                                    (rc == -EACCES || rc == -EINVAL)) )
            rc = -ERESTART;
        else if ( rc && rc != -ERESTART && honest )
            STOP("REGISTER: %ld", rc);
        leave_guest(w);
    }
    SAY("d%u: %s%s of blocks %u+%u, page %u: %ld\n", w->d->domain_id,
        direct ? "direct " : "", write ? "write" : "read", first, nr, page, rc);

    intrude(&x, w->d, ANNOUNCED);

    /* The request is on the ring: it is carried out whatever becomes of the guest. */
    for ( unsigned int i = 0; i < nr && rc != -ERESTART; i++ )
    {
        struct mapping *m = NULL;

        interleave();
        if ( !direct && !w->d->is_dying )
            m = map(w->d, pfns[i], !write, io[i].ref);
        if ( m && early && enter_guest(w) )
        {
            op = OP(COMMIT, .nr = 1);
            memop(w->d, w->cpu, &op, at, &pfns[i], sizeof(pfns[i]));
            leave_guest(w);
        }
        if ( i == x.page )
            intrude(&x, w->d, GRANTED);
        if ( fails && i == nr / 2 )
        {
            if ( m && !write )
                write_mapped(m, ++next_token);
        }
        else if ( direct )
            disk[uuid][vbd][first + i] = ++next_token;
        else if ( m && write )
        {
            interleave();
            disk[uuid][vbd][first + i] = read_mapped(m);
        }
        else if ( m )
        {
            interleave();
            write_mapped(m, disk[uuid][vbd][first + i]);
        }
        if ( m )
            unmap(m);
        else if ( !direct )
            fails = true;
        if ( i == x.page )
            intrude(&x, w->d, TRANSFERRED);
    }

    if ( !direct && !stopped[w->slot] && (rc != -ERESTART || !honest) )
    {
        if ( enter_guest(w) )
        {
            op = fails ? OP(UNREGISTER, .nr = nr) : OP(COMMIT, .nr = nr);
            rc = memop(w->d, w->cpu, &op, at, pfns, nr * sizeof(pfns[0]));
            leave_guest(w);
        }
        else
            /* A kernel does nothing else with the pages before it was told. */
            told = false;
    }
    intrude(&x, w->d, CONFIRMED);
    if ( write && !stopped[w->slot] && enter_guest(w) )
    {
        op = OP(REGISTER, .nr = 1);
        memop(w->d, w->cpu, &op, at, &over, sizeof(over));
        leave_guest(w);
    }
    for ( unsigned int i = 0; i < nr && direct; i++ )
        direct_to[uuid][vbd][first + i].nr--;
    for ( unsigned int i = 0; i < nr && !direct; i++ )
    {
        block_busy[uuid][vbd][first + i] = false;
        if ( told || !honest )
            page_busy[w->slot][page + i] = false;
    }
}

static void op_store(struct work *w)
{
    unsigned int page = pick_page(w->slot, w->b[0]);
    uint64_t token = ++next_token;

    /* A kernel does not write to a page that is being read, or written out. */
    if ( (honest && page_busy[w->slot][page]) || !enter_guest(w) )
        return;
    store(w->d, w->cpu, page_gfn(page) * PAGE_SIZE, &token, sizeof(token));
    leave_guest(w);
}

void backend_fills(struct domain *d, unsigned long gfn, uint64_t token)
{
    struct mapping *m = map(d, gfn, true, REF_OF(gfn));

    if ( !m )
        return;
    write_mapped(m, token);
    unmap(m);
}

/* More pages than any loop of Xen's handles without looking for preemption. */
static void op_bulk(struct work *w)
{
    unsigned long at = page_gfn(NR_PAGES - 1) * PAGE_SIZE;
    struct xen_warmcache_io io[10];
    uint64_t pfns[10];

    for ( unsigned int first = 0; first < NR_BULK; first += 10 )
    {
        struct xen_warmcache_op op = OP(REGISTER, .nr = 10);

        if ( !enter_guest(w) )
            return;
        for ( unsigned int i = 0; i < 10; i++ )
        {
            pfns[i] = FIRST_BULK + first + i;
            io[i] = (struct xen_warmcache_io){
                .pfn = pfns[i], .sector = (NR_BLOCKS + first + i) * 8, .nr_sectors = 8,
                .vbd = 1, .ref = REF_OF(pfns[i]),
            };
        }
        note(memop(w->d, w->cpu, &op, at, io, sizeof(io)));
        for ( unsigned int i = 0; i < 10; i++ )
            backend_fills(w->d, pfns[i], pfns[i]);
        op = OP(COMMIT, .nr = 10);
        note(memop(w->d, w->cpu, &op, at, pfns, sizeof(pfns)));
        leave_guest(w);
    }
}

/* The toolstack. */

static void populate_extent(struct domain *d, unsigned long gfn, unsigned int order)
{
    int rc;

    d->populating++;
    rc = warmcache_populate(d, _gfn(gfn), order, 0);
    d->populating--;
    if ( rc )
    {
        SAY("d%u: populate %#lx order %u: %d\n", d->domain_id, gfn, order, rc);
        return;
    }
    for ( unsigned long i = 0; i < 1UL << order && gfn + i < NR_GFN; i++ )
    {
        struct page_info *page;

        page = alloc_domheap_page(d, 0);
        if ( !page || guest_physmap_add_page(d, _gfn(gfn + i), page_to_mfn(page), 0) )
            return;
    }
}

/* Toolstacks don't destroy a domain while they populate it; Xen relies on that. */
static void populate(struct domain *d, unsigned long gfn, unsigned int order)
{
    if ( d->is_dying || d->paused )
        return;
    d->in_flight++;
    populate_extent(d, gfn, order);
    no_longer_in_flight(d);
}

static void op_populate(struct work *w)
{
    struct domain *d = w->d;

    if ( d->is_dying )
        return;
    if ( !d->creation_finished )
        warmcache_adopt(d);
    if ( w->b[0] < 0x40 )
        populate(d, page_gfn(w->b[1] % NR_PAGES) & ~3UL, w->b[0] < 4 ? 10 : 2);
    else if ( w->b[0] < 0xc0 )
        populate(d, page_gfn(w->b[1] % NR_PAGES), 0);
    else if ( w->b[0] > 0xf0 )
        warmcache_reclaim();
    else if ( w->b[0] > 0xe8 )
        warmcache_forgo(d);
    else if ( w->b[0] > 0xd0 )
        domain_set_outstanding_pages(d, w->b[1]);
}

static void op_unpause(struct work *w)
{
    struct domain *d = w->d;

    lock_acquire(&domctl_lock);
    if ( !d->creation_finished && !d->is_dying )
    {
        d->creation_finished = true;
        warmcache_creation_finished(d);
    }
    lock_release(&domctl_lock);
}

long domctl(struct domain *d, struct xen_domctl_warmcache *op)
{
    long rc;

    do {
        lock_acquire(&domctl_lock);
        rc = warmcache_domctl(d, op);
        lock_release(&domctl_lock);
        interleave();
    } while ( rc == -ERESTART );

    return rc;
}

static void start(struct work *w)
{
    struct domain *d = w->d;
    unsigned int how = w->b[1] < 0x60 ? w->b[1] : 1 | 4 | 8, had = chances;
    unsigned int order = w->b[2] & 0x80 ? 2 : 0;

    if ( how & 1 )
        domctl(d, &DOMCTL(ENABLE, .u.enable.ttl = w->b[2] % 8));
    warmcache_adopt(d);
    for ( unsigned int i = 0; i < NR_PAGES; i += 1 << order )
    {
        /* Input is short: something unusual happens to some of the pages. */
        chances = (i >> order) % 8 == w->b[7] % 8 ? had : 0;
        populate(d, page_gfn(i), order);
    }
    for ( unsigned int i = 0; i < NR_BULK && w->b[6] >= BULKY; i += 1 << order )
        populate(d, FIRST_BULK + i, order);
    chances = had;
    if ( !(how & 2) )
        op_unpause(w);
    if ( (how & 4) && enter_guest(w) )
    {
        struct xen_warmcache_op op = OP(ATTACH, .nr = 1);
        struct vcpu *dom0 = become(&d->vcpus[w->cpu]);

        memop(d, w->cpu, &op, page_gfn(NR_PAGES - 1) * PAGE_SIZE, NULL, 0);
        become(dom0);
        leave_guest(w);
    }
    if ( how & 8 )
        domctl(d, &DOMCTL(ARM));
    SAY("d%u: started, UUID %u\n", d->domain_id, d->handle[0]);
}

static int relinquish(struct domain *d, struct page_list_head *list)
{
    struct page_info *page;
    int rc = 0;

    rspin_lock(&d->page_alloc_lock);
    while ( (page = page_list_remove_head(list)) )
    {
        page_list_add_tail(page, &d->arch.relmem_list);
        if ( !get_page(page, d) )
            continue;
        put_page_alloc_ref(page);
        put_page(page);
        if ( hypercall_preempt_check() )
        {
            rc = -ERESTART;
            break;
        }
    }
    if ( !rc )
        page_list_splice(&d->arch.relmem_list, list);
    rspin_unlock(&d->page_alloc_lock);

    return rc;
}

/* domain_kill() and domain_relinquish_resources(). */
static void op_kill(struct work *w)
{
    struct domain *d = w->d;
    unsigned int stage = 0;

    lock_acquire(&domctl_lock);
    d->paused = true;
    d->is_shut_down = true;
    d->shutdown_code = w->b[0] > 0xe0 ? SHUTDOWN_suspend : SHUTDOWN_reboot;
    wait_until(nobody_in_flight, d);
    if ( d->is_dying )
    {
        lock_release(&domctl_lock);
        return;
    }
    d->is_dying = DOMDYING_dying;
    domain_set_outstanding_pages(d, 0);
    memset(d->tlb, 0, sizeof(d->tlb));
    while ( stage < 5 )
    {
        int rc = 0;

        switch ( stage )
        {
        case 0:
            p2m_lock(&d->arch.p2m);
            memset(d->arch.p2m.entries, 0, sizeof(d->arch.p2m.entries));
            d->p2m_gone = true;
            p2m_unlock(&d->arch.p2m);
            break;
        case 1: rc = warmcache_preserve(d); break;
        case 2: rc = warmcache_relinquish(d); break;
        case 3: rc = relinquish(d, &d->xenpage_list); break;
        case 4: rc = relinquish(d, &d->page_list); break;
        }
        if ( rc )
            ASSERT(rc == -ERESTART);
        else
            stage++;
        lock_release(&domctl_lock);
        interleave();
        lock_acquire(&domctl_lock);
    }
    d->is_dying = DOMDYING_dead;
    SAY("d%u: died\n", d->domain_id);
    put_domain(d);
    lock_release(&domctl_lock);
}

static void op_domctl(struct work *w)
{
    struct xen_domctl_warmcache op = { .version = XEN_WARMCACHE_VERSION };
    struct domain *d = w->d;
    uint64_t pfns[130];
    long rc;

    op.cmd = w->b[0] < 0x30 ? XEN_DOMCTL_WARMCACHE_APPROVE : w->b[0] % 10;
    if ( w->b[6] == 0xff )
        op.version = 7;
    switch ( op.cmd )
    {
    case XEN_DOMCTL_WARMCACHE_ENABLE:
    case XEN_DOMCTL_WARMCACHE_ARM:
        op.u.enable.ttl = w->b[1] % 8;
        op.u.enable.cursor = w->b[6] == 1;
        break;

    case XEN_DOMCTL_WARMCACHE_APPROVE:
        op.u.approve.vbd = w->b[1] % 4;
        op.u.approve.verdict = w->b[2] < 0xc0 ? 1 : w->b[2] % 4;
        break;

    case XEN_DOMCTL_WARMCACHE_DROP:
        op.u.drop.flags = w->b[1] % 4;
        op.u.drop.vbd = w->b[2] % 3;
        op.u.drop.cursor = w->b[6] == 1;
        op.u.drop.nr = w->b[3] & 0x80 ? w->b[3] : w->b[3] % 8;
        op.u.drop.pfns.p = (void *)(w->b[4] > 0xf0 ? sizeof(dom0_memory) - 512 : 0x800UL);
        for ( unsigned int i = 0; i < op.u.drop.nr && i < 130; i++ )
            pfns[i] = pick_gfn(w->slot);
        memcpy(dom0_memory + 0x800, pfns, min_t(unsigned int, op.u.drop.nr, 130) * 8);
        break;

    case XEN_DOMCTL_WARMCACHE_STATUS:
        op.u.status.buf.p = (void *)(w->b[1] > 0xf0 ? sizeof(dom0_memory) - 16 : 0x1000UL);
        op.u.status.size = w->b[2] * 3;
        op.u.status.pad = w->b[6] == 1;
        break;

    case XEN_DOMCTL_WARMCACHE_IMAGE_STATUS:
    case XEN_DOMCTL_WARMCACHE_IMAGE_DROP:
        memset(op.u.image.uuid, 1 + w->b[1] % 3, sizeof(op.u.image.uuid));
        op.u.image.index = w->b[2] < 0x80 ? ~0U : w->b[2] % 3;
        d = w->b[6] == 1 ? d : NULL;
        break;
    }
    rc = domctl(d, &op);
    note(rc);
    note(op.cmd == XEN_DOMCTL_WARMCACHE_APPROVE ? op.u.approve.pages :
         op.cmd == XEN_DOMCTL_WARMCACHE_DROP ? op.u.drop.dropped :
         op.cmd >= XEN_DOMCTL_WARMCACHE_IMAGE_STATUS ? op.u.image.pages : 0);
    SAY("domctl %u: %ld\n", op.cmd, rc);
    if ( rc == -ENOSYS )
        STOP("domctl %u: -ENOSYS", op.cmd);
}

static void op_resource(struct work *w)
{
    xen_pfn_t mfns[32];
    unsigned int id = w->b[0] % 4, frame = w->b[1] % 20, nr = 1 + w->b[2] % 8;
    unsigned int max = warmcache_resource_max_frames(w->d, id);
    int rc;

    if ( w->b[3] < 0xe0 )
        nr = min(nr, max > frame ? max - frame : 1);
    rc = warmcache_acquire_resource(w->d, id, frame, nr, mfns);
    if ( rc > 0 && frame + nr > max )
        STOP("frames past the end of resource %u", id);
    ASSERT(rc < 0 || rc == (int)nr);
    for ( int i = 0; i < rc; i++ )
    {
        struct mapping *m = free_mapping(false);
        struct page_info *page = mfn_to_page(_mfn(mfns[i]));

        ASSERT(mfn_valid(_mfn(mfns[i])) && page->use == FRAME_XEN);
        if ( !m || page_get_owner(page) != w->d )
            continue;
        *m = (struct mapping){ .page = page, .kind = MAP_RESOURCE, .busy = true };
        if ( get_page(page, w->d) )
            m->busy = false;
        else
            *m = (struct mapping){};
    }
}

static void op_time(struct work *w)
{
    now += SECONDS(w->b[0] % 4) + MILLISECS(w->b[1]);
    timers_run();
}

static void op_p2m(struct work *w)
{
    struct p2m_domain *p2m = &w->d->arch.p2m;
    unsigned int page_from = pick_page(w->slot, w->b[1]);
    unsigned int page_to = pick_page(w->slot, w->b[2]);
    unsigned long gfn = page_gfn(page_from), to = page_gfn(page_to);
    p2m_type_t t;
    struct page_info *page;

    if ( w->d->is_dying || w->d->paused ||
         (honest && max(page_from, page_to) >= NR_PAGES - NR_CPUS) ||
         (honest && (page_busy[w->slot][page_from] || page_busy[w->slot][page_to])) )
        return;
    w->d->in_flight++;
    switch ( w->b[0] % 6 )
    {
    case 0:
        remove_page(w->d, gfn);
        break;

    case 1:
        populate(w->d, gfn, 0);
        break;

    case 2: /* XENMAPSPACE_gmfn */
        p2m_lock(p2m);
        page = guest_page(w->d, gfn, &t);
        if ( page )
        {
            if ( t == p2m_ram_rw || t == p2m_ram_logdirty || t == p2m_ram_cache )
                guest_physmap_add_page(w->d, _gfn(to), page_to_mfn(page), 0);
            put_page(page);
        }
        p2m_unlock(p2m);
        break;

    case 3:
        change_type(w->d, gfn, p2m_ram_rw, p2m_ram_logdirty, p2m_access_rwx);
        break;

    case 4: /* vm_event takes away, or gives back, the right to execute or write */
        change_type(w->d, gfn, p2m->entries[gfn].type, p2m->entries[gfn].type,
                    w->b[3] & 1 ? p2m_access_rwx : p2m_access_rx);
        break;

    case 5: /* XENMAPSPACE_shared_info */
        if ( !honest )
            warmcache_kernel_begins(w->d);
        break;
    }
    no_longer_in_flight(w->d);
}

static bool alone(unsigned int cpu)
{
    for ( unsigned int i = 0; i < NR_CPUS; i++ )
        if ( i != cpu && !cpu_idle(i) )
            return false;

    return true;
}

static void op_machine(struct work *w)
{
    switch ( w->b[0] % 4 )
    {
    case 0:
        heap_limit = w->b[1] & 1 ? NR_MFN : frames_used + w->b[1] % 16;
        break;

    case 1: /* a frame is found to be bad; Xen excludes those being allocated */
        for ( unsigned int i = 1 + w->b[1]; i < NR_MFN; i++ )
            if ( frame_table[i].use == FRAME_DOMAIN ||
                 (frame_table[i].use == FRAME_ANONYMOUS && alone(w->cpu)) )
            {
                frame_table[i].count_info |= PGC_offlining;
                break;
            }
        break;

    case 2:
        warmcache_reclaim();
        break;

    case 3: /* soft reset, or another UUID */
        lock_acquire(&domctl_lock);
        if ( w->d && !w->d->is_dying && !honest )
        {
            if ( w->b[1] & 1 )
                warmcache_reset(w->d);
            else
                domain_rename(w->d, 1 + w->b[2] % 3);
        }
        lock_release(&domctl_lock);
        break;
    }
}

/* Runs one operation on a CPU. */
static void trampoline(void *argument)
{
    struct work *w = argument;

    w->run(w);
}

static bool uuid_lives(unsigned char uuid)
{
    for ( unsigned int i = 1; i < NR_SLOTS; i++ )
        if ( slots[i] && slots[i]->handle[0] == uuid )
            return true;

    return false;
}

static void (*const runs[])(struct work *) = {
    [OP_START] = start, [OP_IO] = op_io, [OP_IO_2] = op_io, [OP_IO_3] = op_io,
    [OP_STORE] = op_store, [OP_MAPPING] = op_mapping, [OP_DOMCTL] = op_domctl,
    [OP_DOMCTL_2] = op_domctl, [OP_MEMOP] = op_memop, [OP_MEMOP_2] = op_memop,
    [OP_KILL] = op_kill, [OP_P2M] = op_p2m, [OP_RESOURCE] = op_resource,
    [OP_TIME] = op_time, [OP_POPULATE] = op_populate, [OP_MACHINE] = op_machine,
    [OP_BULK] = op_bulk,
};

void begin(unsigned int cpu, enum operation what, unsigned int slot, const uint8_t b[8])
{
    struct work w = { .run = runs[what], .slot = slot, .cpu = cpu };
    bool guest;

    memcpy(w.b, b, sizeof(w.b));
    /* What needs a domain makes one where there is none. */
    if ( !slots[slot] && w.run != op_time && w.run != op_machine && w.run != op_domctl )
        w.run = start;
    if ( honest && w.run == op_memop )
        w.run = op_store;
    guest = w.run == op_memop || w.run == op_store || w.run == op_io || w.run == op_bulk;
    if ( w.run == start )
    {
        unsigned char uuid = 1 + (w.b[0] < 0x80 ? w.b[0] % 3 : slot - 1); /* its own, mostly */

        if ( slots[w.slot] )
            w.run = slots[w.slot]->creation_finished ? op_kill : op_unpause;
        else
        {
            if ( honest && uuid_lives(uuid) )
                return;
            w.d = domain_create(w.slot, uuid, w.b[6] >= BULKY ? 2000
                                              : w.b[3] < 0xf0 ? NR_PAGES : NR_PAGES / 2);
            w.d->ssidref = w.b[4] == 1;
            w.d->iommu = w.b[5] == 1;
            w.d->hap = w.b[5] != 2;
            memset(page_busy[w.slot], 0, sizeof(page_busy[0]));
            stopped[w.slot] = false;
        }
    }
    w.d = slots[w.slot];
    cpu_run(cpu, trampoline, &w, sizeof(w),
            guest ? &w.d->vcpus[cpu] : &slots[DOM0]->vcpus[cpu]);
}

/*
 * The oracle of honest runs: what may be reused equals its block, where a kernel
 * announces what it writes.
 */
static void check_contents(void)
{
    for ( unsigned int s = 1; s < NR_SLOTS; s++ )
    {
        const struct domain *d = slots[s];

        if ( !d || d->p2m_gone || !attached(d) )
            continue;
        for ( unsigned int i = 0; i < NR_PAGES; i++ )
        {
            struct xen_warmcache_entry e;
            unsigned long pfn = page_gfn(i), mfn = d->arch.p2m.entries[pfn].mfn;
            uint64_t token;

            if ( !reusable(d, pfn, &e) )
                continue;
            memcpy(&token, frame_va(_mfn(mfn)), sizeof(token));
            if ( token != disk[d->handle[0] % NR_UUIDS][e.vbd - 1][e.sector / 8] )
                STOP("PFN %#lx has the reuse bit, but is not equal to sector %lu",
                     pfn, e.sector);
        }
    }
}

static void check_frames(void)
{
    unsigned long anonymous = 0, refs = 0, mapped = 0;

    for ( unsigned int i = 1; i < frames_end; i++ )
    {
        const struct page_info *page = &frame_table[i];

        anonymous += page->use == FRAME_ANONYMOUS;
        refs += page->refs;
        if ( (page->count_info & PGC_count_mask) !=
             page->refs + !!(page->count_info & PGC_allocated) )
            STOP("frame %u: count %#lx, but %u mappings", i, page->count_info, page->refs);
        if ( page->use == FRAME_DOMAIN && (!page->owner || !page->list) )
            STOP("frame %u: of a domain, but on no list", i);
    }
    for ( unsigned int i = 0; i < NR_MAPPINGS; i++ )
        mapped += mappings[i].kind != MAP_NONE;
    if ( refs != mapped )
        STOP("%lu references are held, for %lu mappings", refs, mapped);
    if ( anonymous != held_by_images() )
        STOP("%lu frames have no owner, but images hold %lu", anonymous, held_by_images());
    for ( unsigned int s = 1; s < NR_SLOTS; s++ )
        if ( slots[s] && slots[s]->page_list.nr + slots[s]->arch.relmem_list.nr != slots[s]->tot_pages )
            STOP("d%u: %lu pages on its lists, tot_pages %u", slots[s]->domain_id,
                 slots[s]->page_list.nr + slots[s]->arch.relmem_list.nr, slots[s]->tot_pages);
}

void check_quiet(void)
{
    static unsigned int nr;
    bool all = !(++nr % 16) || !chances;

    timers_run();
    domain_free_dead();
    for ( unsigned int s = 1; s < NR_SLOTS; s++ )
        if ( slots[s] )
            check_tables(slots[s], all);
    check_images(now);
    check_frames();
    if ( honest )
        check_contents();
}

/* Whatever happened, everything can be taken down, and nothing is left. */
void shut_down(void)
{
    chances = 0;
    fail_alloc_at = preempt_at = fault_at = 0;
    preempt_always = false;
    heap_limit = NR_MFN;
    while ( !all_idle() )
        cpus_step();
    check_quiet();
    for ( unsigned int i = 0; i < NR_MAPPINGS; i++ )
        if ( mappings[i].kind != MAP_NONE )
            unmap(&mappings[i]);
    for ( unsigned int s = 1; s < NR_SLOTS; s++ )
        if ( slots[s] && !slots[s]->is_dying )
        {
            struct work w = { .run = op_kill, .d = slots[s], .slot = s };

            cpu_run(0, trampoline, &w, sizeof(w), &slots[DOM0]->vcpus[0]);
            ASSERT(all_idle());
        }
    check_quiet();
    for ( unsigned int i = 0; images_left() && i < 1000; i++ )
    {
        now += SECONDS(1000);
        timers_run();
    }
    check_quiet();
    for ( unsigned int s = 1; s < NR_SLOTS; s++ )
        ASSERT(!slots[s]);
    ASSERT(!images_left());
    machine_check_empty();
}

void prepare(void)
{
    static bool started;

    if ( !started )
    {
        machine_start();
        run_wc_init();
        domain_create(DOM0, 0xd0, 0);
        started = true;
    }
    now = SECONDS(1);
    reaper_timer->armed = false;
    heap_limit = NR_MFN;
    next_token = 1000;
    last_name = 3;
    memset(disk, 0, sizeof(disk));
    memset(block_busy, 0, sizeof(block_busy));
    memset(direct_to, 0, sizeof(direct_to));
    memset(last_block, 0, sizeof(last_block));
    memset(page_busy, 0, sizeof(page_busy));
    memset(stopped, 0, sizeof(stopped));
    memset(recent, 0, sizeof(recent));
    memset(before_next, 0, sizeof(before_next));
    memset(dom0_memory, 0, sizeof(dom0_memory));
    alloc_count = preempt_count = fault_count = 0;
    honest = false;
    chances = 0;
    input = (struct input){};
    noted = 0;
}

void run_input(const uint8_t *data, size_t size)
{
    uint8_t mode;

    prepare();
    input = (struct input){ data, 0, size };
    mode = next_byte();
    chances = mode & 15;
    honest = mode & 16;

    while ( input_left() || !all_idle() )
    {
        unsigned int cpu = NR_CPUS;

        for ( unsigned int s = 1; s < NR_SLOTS; s++ )
            if ( slots[s] )
                check_bits(slots[s]);
        if ( all_idle() )
        {
            check_quiet();
            cpu = RACE_CPU(input.front);
        }
        else if ( input_left() && (chances & CHANCE_CPUS) && next_byte() % 2 )
            for ( unsigned int i = 0; i < NR_CPUS; i++ )
                if ( cpu_idle(i) )
                    cpu = i;
        if ( cpu < NR_CPUS && input_left() )
        {
            uint8_t what = next_byte(), b[8];

            for ( unsigned int i = 0; i < sizeof(b); i++ )
                b[i] = next_byte();
            begin(cpu, what % 16, 1 + (what >> 4) % 2, b);
        }
        else if ( !all_idle() )
            cpus_step();
    }
    shut_down();
}

/*
 * Two requests for the same blocks, one of them direct, whose parts come in the order
 * that the input says.
 */
void run_meeting(bool write, const uint8_t *data, size_t size)
{
    prepare();
    run_one(OP_START, 1, (const uint8_t[8]){ 0, 1 | 4 | 8 });
    honest = true;
    chances = CHANCE_CPUS;
    input = (struct input){ data, 0, size };
    begin(0, OP_IO, 1, (const uint8_t[8]){ write ? 2 : 0, 2, 8, 8 });
    begin(1, OP_IO, 1, (const uint8_t[8]){ 12, 2, 9 });
    while ( !all_idle() )
        cpus_step();
    check_quiet();
    shut_down();
}

void run_one(enum operation what, unsigned int slot, const uint8_t b[8])
{
    begin(0, what, slot, b);
    while ( !all_idle() )
        cpus_step();
    check_quiet();
}
