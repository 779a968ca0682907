/*
 * Frames, the heap, the P2M with its TLBs, guest memory, domains. What is free,
 * or kept in an image, is poisoned: nobody may touch it.
 */
#include "model.h"

#include <sanitizer/asan_interface.h>

bool guest_copy_faults(void);
void assert_may_sleep(void);

struct page_info frame_table[NR_MFN];
struct domain *slots[NR_SLOTS];
unsigned long heap_limit, frames_used, frames_end, allocations;
uint8_t dom0_memory[16384];

/* Each frame is followed by as much that is never valid. */
static uint8_t memory[NR_MFN][2 * PAGE_SIZE] __attribute__((aligned(4096)));
static uint32_t free_stack[NR_MFN];
static unsigned int nr_free;
static struct domain *dead[16];
static unsigned int nr_dead;
static unsigned int next_domid;

void *frame_va(mfn_t mfn) { return memory[mfn_x(mfn)]; }

mfn_t va_frame(const void *va)
{
    size_t offset = (const uint8_t *)va - memory[0];

    ASSERT(offset < sizeof(memory) && offset % sizeof(memory[0]) < PAGE_SIZE);

    return _mfn(offset / sizeof(memory[0]));
}

void machine_start(void)
{
    __asan_poison_memory_region(memory, sizeof(memory));
    for ( unsigned int i = NR_MFN - 1; i; i-- )
    {
        frame_table[i].m2p = INVALID_M2P_ENTRY;
        free_stack[nr_free++] = i;
    }
}

void machine_check_empty(void)
{
    for ( unsigned int i = 1; i < frames_end; i++ )
    {
        struct page_info *page = &frame_table[i];

        if ( page->use == FRAME_OFFLINE ) /* repaired, for the next run */
        {
            page->use = FRAME_FREE;
            page->count_info = 0;
            frames_used--;
            free_stack[nr_free++] = i;
        }
        if ( page->use != FRAME_FREE )
            STOP("frame %u is leaked: use %d count %#lx owner %p", i, page->use,
                 page->count_info, (void *)page->owner);
    }
    if ( frames_used || nr_free != NR_MFN - 1 )
        STOP("%lu frames in use at the end", frames_used);
    if ( allocations )
        STOP("%lu allocations are leaked", allocations);
    next_domid = 1;
    /* Each run begins alike. */
    for ( unsigned int i = 1; i < frames_end; i++ )
    {
        free_stack[NR_MFN - 1 - i] = i;
        frame_table[i].origin = 0;
        frame_table[i].disclosed = false;
    }
    frames_end = 0;
}

/* A frame without an owner is out of everybody's reach. */
void page_set_owner(struct page_info *page, struct domain *d)
{
    page->owner = d;
    if ( d )
        return;
    page->use = FRAME_ANONYMOUS;
    __asan_poison_memory_region(frame_va(page_to_mfn(page)), PAGE_SIZE);
}

/* The heap. */

void *standin_zalloc(size_t size)
{
    interleave();
    if ( decide_alloc_failure() )
        return NULL;
    allocations++;

    return calloc(1, size);
}

void standin_free(void *p)
{
    if ( p )
        allocations--;
    free(p);
}

/* Xen's own claims, and its rule of who may have memory that is kept. */
static DEFINE_SPINLOCK(heap_lock);
#define total_avail_pages ((long)min(nr_free + 0UL, heap_limit - min(heap_limit, frames_used)))
#include "claims.inc"

long kept_by_heap(void) { return kept_pages; }

/* alloc_heap_pages(), for a single page. */
static struct page_info *take_frame(enum frame_use use, struct domain *d, unsigned int memflags)
{
    unsigned int tries = 0;
    struct page_info *page;

    interleave();
    if ( decide_alloc_failure() )
        return NULL;
 again:
    spin_lock(&heap_lock);
    if ( outstanding_claims + 1 > total_avail_pages + kept_pages &&
         ((memflags & MEMF_no_refcount) || !d || !d->outstanding_pages) )
    {
        spin_unlock(&heap_lock);
        return NULL;
    }
    if ( !total_avail_pages )
    {
        bool retry = may_reclaim(d, 0, memflags) && tries++ < KEPT_TRIES;

        spin_unlock(&heap_lock);
        if ( retry && warmcache_reclaim() )
            goto again;
        return NULL;
    }
    if ( d && d->outstanding_pages && !(memflags & MEMF_no_refcount) )
    {
        d->outstanding_pages--;
        outstanding_claims--;
    }
    page = &frame_table[free_stack[--nr_free]];
    ASSERT(page->use == FRAME_FREE && !page->count_info && !page->owner);
    page->use = use;
    page->u.inuse.type_info = 0;
    frames_used++;
    frames_end = max(frames_end, mfn_x(page_to_mfn(page)) + 1);
    __asan_unpoison_memory_region(frame_va(page_to_mfn(page)), PAGE_SIZE);
    spin_unlock(&heap_lock);

    return page;
}

static void give_frame(struct page_info *page, bool scrub)
{
    void *va = frame_va(page_to_mfn(page));

    ASSERT(page->use != FRAME_FREE && !page->refs && !page->list);
    ASSERT(!(page->count_info & PGC_count_mask));
    spin_lock(&heap_lock);
    page->owner = NULL;
    page->m2p = INVALID_M2P_ENTRY;
    __asan_unpoison_memory_region(va, PAGE_SIZE);
    if ( scrub )
    {
        memset(va, 0, PAGE_SIZE);
        page->origin = 0;
        page->disclosed = false;
    }
    __asan_poison_memory_region(va, PAGE_SIZE);
    if ( page->count_info & PGC_offlining )
        page->use = FRAME_OFFLINE;
    else
    {
        page->use = FRAME_FREE;
        page->count_info = 0;
        frames_used--;
        free_stack[nr_free++] = page_to_mfn(page).v;
    }
    spin_unlock(&heap_lock);
}

void *alloc_xenheap_page(void)
{
    struct page_info *page = take_frame(FRAME_XEN, NULL, 0);

    if ( !page )
        return NULL;
    /* Not cleared by the heap: what is left in it must not be relied upon. */
    memset(frame_va(page_to_mfn(page)), 0xc5, PAGE_SIZE);
    page->origin = 0;
    page->disclosed = false;

    return frame_va(page_to_mfn(page));
}

void free_xenheap_page(void *va)
{
    struct page_info *page;

    if ( !va )
        return;
    page = virt_to_page(va);
    ASSERT(page->use == FRAME_XEN);
    if ( page->refs || page->list )
        STOP("a frame that is mapped by dom0 is freed");
    page->count_info = 0;
    give_frame(page, true);
}

static unsigned char uuid_of(const struct domain *d) { return d->handle[0]; }
static bool is_of(unsigned char origin, const struct domain *d)
{
    return origin == uuid_of(d) || (d->was && origin == d->was);
}

int assign_page(struct page_info *page, unsigned int order, struct domain *d,
                unsigned int memflags)
{
    int rc = 0;
    void *va = frame_va(page_to_mfn(page));

    rspin_lock(&d->page_alloc_lock);
    ASSERT(!page->count_info && !order);
    if ( d->is_dying )
        rc = -EINVAL;
    else if ( d->tot_pages >= d->max_pages )
        rc = -E2BIG;
    else
    {
        if ( page->origin && !is_of(page->origin, d) )
            STOP("frame %lu with bytes of UUID %u is given to UUID %u",
                 mfn_x(page_to_mfn(page)), page->origin, uuid_of(d));
        ASSERT(!page_get_owner(page) && page->m2p == INVALID_M2P_ENTRY);
        if ( domain_adjust_tot_pages(d, 1) == 1 )
            d->refs++;
        page_set_owner(page, d);
        page->use = FRAME_DOMAIN;
        page->origin = uuid_of(d);
        page->disclosed = false;
        __asan_unpoison_memory_region(va, PAGE_SIZE);
        page->count_info = PGC_allocated | 1;
        page_list_add_tail(page, &d->page_list);
    }
    rspin_unlock(&d->page_alloc_lock);

    return rc;
}

struct page_info *alloc_domheap_page(struct domain *d, unsigned int memflags)
{
    struct page_info *page = take_frame(FRAME_ANONYMOUS, d, memflags);
    const uint64_t *va;

    if ( !page )
        return NULL;
    ASSERT(d);
    va = frame_va(page_to_mfn(page));
    /* A living owner who gives a page up has to clear it himself. */
    if ( page->origin && !page->disclosed && !is_of(page->origin, d) )
        STOP("frame %lu was not scrubbed: bytes of UUID %u for UUID %u",
             mfn_x(page_to_mfn(page)), page->origin, uuid_of(d));
    page->origin = 0;
    if ( assign_page(page, 0, d, memflags) )
    {
        give_frame(page, false);
        return NULL;
    }
    (void)va;

    return page;
}

void put_domain(struct domain *d)
{
    ASSERT(d->refs > 0);
    if ( --d->refs )
        return;
    ASSERT(d->is_dying == DOMDYING_dead && nr_dead < ARRAY_SIZE(dead));
    dead[nr_dead++] = d;
}

/* The RCU grace period is over: no CPU is in the middle of anything. */
void domain_free_dead(void)
{
    while ( nr_dead )
    {
        struct domain *d = dead[--nr_dead];

        race_acquire(&grace_period);
        warmcache_destroy(d);
        ASSERT(!d->warmcache && !d->tot_pages && !d->xenheap_pages);
        ASSERT(!d->page_list.nr && !d->xenpage_list.nr && !d->arch.relmem_list.nr);
        for ( unsigned int i = 0; i < NR_SLOTS; i++ )
            if ( slots[i] == d )
                slots[i] = NULL;
        free(d);
    }
}

void free_domheap_page(struct page_info *page)
{
    struct domain *d = page_get_owner(page);
    bool drop = false, scrub = true;

    if ( page->count_info & PGC_xen_heap )
    {
        rspin_lock(&d->page_alloc_lock);
        page_list_del(page);
        drop = !--d->xenheap_pages;
        rspin_unlock(&d->page_alloc_lock);
        /* The frame itself is freed by whom it belongs to. */
    }
    else
    {
        if ( d )
        {
            rspin_lock(&d->page_alloc_lock);
            page_list_del(page);
            drop = !domain_adjust_tot_pages(d, -1);
            rspin_unlock(&d->page_alloc_lock);
            scrub = d->is_dying;
            page->disclosed = !scrub;
        }
        else
            ASSERT(page->use == FRAME_ANONYMOUS);
        give_frame(page, scrub);
    }
    if ( drop )
        put_domain(d);
}

bool get_page(struct page_info *page, const struct domain *d)
{
    interleave();
    if ( !(page->count_info & PGC_count_mask) || page_get_owner(page) != d )
        return false;
    page->count_info++;
    page->refs++;

    return true;
}

static void drop_reference(struct page_info *page)
{
    interleave();
    ASSERT(page->count_info & PGC_count_mask);
    if ( !(--page->count_info & PGC_count_mask) )
        free_domheap_page(page);
}

void put_page(struct page_info *page)
{
    ASSERT(page->refs);
    page->refs--;
    drop_reference(page);
}

void put_page_alloc_ref(struct page_info *page)
{
    if ( !(page->count_info & PGC_allocated) )
        return;
    page->count_info &= ~PGC_allocated;
    /* BUG_ON() in Xen. */
    if ( !(page->count_info & PGC_xen_heap) &&
         (page->count_info & PGC_count_mask) <= 1 )
        STOP("put_page_alloc_ref() of a page without another reference");
    drop_reference(page);
}

void share_xen_page_with_guest(struct page_info *page, struct domain *d,
                               enum XENSHARE_flags flags)
{
    if ( page_get_owner(page) == d )
        return;

    ASSERT(page->use == FRAME_XEN && flags == SHARE_ro);
    set_gpfn_from_mfn(mfn_x(page_to_mfn(page)), INVALID_M2P_ENTRY);
    rspin_lock(&d->page_alloc_lock);
    page->u.inuse.type_info = PGT_none | PGT_validated | 1;
    page_set_owner(page, d);
    ASSERT(!(page->count_info & ~PGC_xen_heap));
    if ( !d->is_dying )
    {
        page->count_info |= PGC_xen_heap | PGC_allocated | 1;
        if ( !d->xenheap_pages++ )
            d->refs++;
        page_list_add_tail(page, &d->xenpage_list);
    }
    rspin_unlock(&d->page_alloc_lock);
}

/* Lists. */

struct page_info *page_list_remove_head(struct page_list_head *h)
{
    struct page_info *p = h->first;

    if ( p )
        page_list_del(p);

    return p;
}

void page_list_add_tail(struct page_info *p, struct page_list_head *h)
{
    ASSERT(!p->list && !p->next && !p->prev);
    p->list = h;
    p->prev = h->last;
    *(h->last ? &h->last->next : &h->first) = p;
    h->last = p;
    h->nr++;
}

void page_list_del(struct page_info *p)
{
    struct page_list_head *h = p->list;

    ASSERT(h);
    *(p->prev ? &p->prev->next : &h->first) = p->next;
    *(p->next ? &p->next->prev : &h->last) = p->prev;
    p->prev = p->next = NULL;
    p->list = NULL;
    h->nr--;
}

/* Puts @from in front of @to; @from is to be initialised anew. */
void page_list_splice(struct page_list_head *from, struct page_list_head *to)
{
    struct page_list_head rest = *to;
    struct page_info *p;

    *to = (struct page_list_head){};
    for ( ; (p = from->first); )
    {
        page_list_del(p);
        page_list_add_tail(p, to);
    }
    for ( p = rest.first; p; )
    {
        struct page_info *next = p->next;

        p->list = NULL;
        p->prev = p->next = NULL;
        page_list_add_tail(p, to);
        p = next;
    }
}

/* The command line. */

void *memchr_inv(const void *s, int c, size_t n)
{
    for ( const unsigned char *p = s; n--; p++ )
        if ( *p != (unsigned char)c )
            return (void *)p;

    return NULL;
}

int parse_bool(const char *s, const char *e)
{
    size_t len = e ? e - s : strlen(s);
    static const char *const words[] = { "0", "1", "no", "yes", "off", "on", "false", "true" };

    for ( unsigned int i = 0; i < ARRAY_SIZE(words); i++ )
        if ( strlen(words[i]) == len && !strncmp(s, words[i], len) )
            return i & 1;

    return -1;
}

unsigned long long parse_size_and_unit(const char *s, const char **ps)
{
    unsigned long long n = strtoull(s, (char **)ps, 0);

    switch ( **ps )
    {
    case 'G': n <<= 10; fallthrough;
    case 'M': n <<= 10; fallthrough;
    case 'K': n <<= 10; fallthrough;
    case 'B': ++*ps; break;
    default: n <<= 10; break;
    }

    return n;
}

/* The P2M. */

static mfn_t get_entry(struct p2m_domain *p2m, gfn_t gfn, p2m_type_t *t,
                       p2m_access_t *a, unsigned int q, unsigned int *order,
                       bool *sve)
{
    const struct p2m_entry *e;

    ASSERT(lock_is_mine(&p2m->lock));
    *t = p2m_mmio_dm;
    *a = p2m_access_n;
    if ( gfn_x(gfn) >= NR_GFN )
        return INVALID_MFN;
    e = &p2m->entries[gfn_x(gfn)];
    *t = e->type;
    *a = e->access;

    return e->mfn ? _mfn(e->mfn) : INVALID_MFN;
}

void guest_flush_tlb_mask(const struct domain *d, unsigned long mask)
{
    memset(((struct domain *)d)->tlb, 0, sizeof(d->tlb));
}

void paging_mark_pfn_dirty(struct domain *d, pfn_t pfn)
{
    ASSERT(!lock_is_mine(&d->page_alloc_lock));
    warmcache_gfn_written(d, pfn.v);
    if ( pfn.v < NR_GFN )
        d->logged[pfn.v] = true;
}

int p2m_set_entry(struct p2m_domain *p2m, gfn_t gfn, mfn_t mfn,
                  unsigned int order, p2m_type_t t, p2m_access_t a)
{
    struct p2m_entry *e, old;

    ASSERT(lock_is_mine(&p2m->lock) && !order && gfn_x(gfn) < NR_GFN);
    warmcache_p2m_changing(p2m->domain, gfn, mfn, order, t == p2m_ram_cache);
    interleave();
    if ( decide_alloc_failure() )
        return -ENOMEM;
    e = &p2m->entries[gfn_x(gfn)];
    old = *e;
    *e = (struct p2m_entry){ mfn_valid(mfn) ? mfn_x(mfn) : 0, t, a };
    if ( old.mfn )
    {
        if ( p2m->defer_npt_flush )
            p2m->need_npt_flush = true;
        else
            guest_flush_tlb_mask(p2m->domain, ~0UL);
    }

    return 0;
}

static void unlock_p2m(struct p2m_domain *p2m)
{
    if ( p2m->lock.depth == 1 && (p2m->defer_npt_flush || p2m->need_npt_flush) )
        STOP("the P2M is unlocked before the TLBs are flushed");
    p2m_unlock(p2m);
}

int guest_physmap_add_page(struct domain *d, gfn_t gfn, mfn_t mfn,
                           unsigned int order)
{
    struct p2m_domain *p2m = &d->arch.p2m;
    struct p2m_entry *old = &p2m->entries[gfn_x(gfn)];
    unsigned long m2p;
    int rc = 0;

    ASSERT(gfn_x(gfn) < NR_GFN && !order);
    p2m_lock(p2m);
    if ( old->mfn )
        set_gpfn_from_mfn(old->mfn, INVALID_M2P_ENTRY);
    m2p = get_gpfn_from_mfn(mfn_x(mfn));
    if ( m2p != INVALID_M2P_ENTRY && m2p != gfn_x(gfn) &&
         p2m->entries[m2p].mfn == mfn_x(mfn) )
        rc = p2m_set_entry(p2m, _gfn(m2p), INVALID_MFN, 0, p2m_invalid,
                           p2m->default_access);
    if ( !rc )
        rc = p2m_set_entry(p2m, gfn, mfn, 0, p2m_ram_rw, p2m->default_access);
    if ( !rc )
    {
        set_gpfn_from_mfn(mfn_x(mfn), gfn_x(gfn));
        paging_mark_pfn_dirty(d, _pfn(gfn_x(gfn)));
    }
    else if ( old->mfn )
        set_gpfn_from_mfn(old->mfn, gfn_x(gfn));
    unlock_p2m(p2m);

    return rc;
}

int guest_physmap_remove_page(struct domain *d, gfn_t gfn, mfn_t mfn,
                              unsigned int order)
{
    struct p2m_domain *p2m = &d->arch.p2m;
    int rc = -EINVAL;

    ASSERT(!order);
    p2m_lock(p2m);
    if ( p2m->entries[gfn_x(gfn)].mfn == mfn_x(mfn) )
    {
        rc = p2m_set_entry(p2m, gfn, INVALID_MFN, 0, p2m_invalid,
                           p2m->default_access);
        if ( !rc )
            set_gpfn_from_mfn(mfn_x(mfn), INVALID_M2P_ENTRY);
    }
    unlock_p2m(p2m);

    return rc;
}

mfn_t get_gfn_query(struct domain *d, unsigned long gfn, p2m_type_t *t)
{
    p2m_access_t a;

    p2m_lock(&d->arch.p2m);

    return get_entry(&d->arch.p2m, _gfn(gfn), t, &a, 0, NULL, NULL);
}

void put_gfn(struct domain *d, unsigned long gfn) { unlock_p2m(&d->arch.p2m); }

int change_type(struct domain *d, unsigned long gfn, p2m_type_t ot,
                p2m_type_t nt, p2m_access_t a)
{
    struct p2m_domain *p2m = &d->arch.p2m;
    struct p2m_entry *e = &p2m->entries[gfn];
    int rc = -EBUSY;

    p2m_lock(p2m);
    if ( e->mfn && e->type == ot )
        rc = p2m_set_entry(p2m, _gfn(gfn), _mfn(e->mfn), 0, nt, a);
    unlock_p2m(p2m);

    return rc;
}

/* Balloon: guest_remove_page(). */
int remove_page(struct domain *d, unsigned long gfn)
{
    struct p2m_domain *p2m = &d->arch.p2m;
    struct p2m_entry *e = &p2m->entries[gfn];
    struct page_info *page;
    int rc = -ENOENT;

    p2m_lock(p2m);
    if ( e->mfn )
    {
        page = &frame_table[e->mfn];
        rc = -ENXIO;
        if ( get_page(page, d) )
        {
            rc = p2m_set_entry(p2m, _gfn(gfn), INVALID_MFN, 0, p2m_invalid,
                               p2m->default_access);
            if ( !rc )
            {
                set_gpfn_from_mfn(mfn_x(page_to_mfn(page)), INVALID_M2P_ENTRY);
                put_page_alloc_ref(page);
            }
            put_page(page);
        }
    }
    unlock_p2m(p2m);

    return rc;
}

/* As get_page_from_gfn(): with a reference. */
struct page_info *guest_page(struct domain *d, unsigned long gfn, p2m_type_t *t)
{
    struct p2m_domain *p2m = &d->arch.p2m;
    struct page_info *page = NULL;

    if ( gfn >= NR_GFN )
        return NULL;
    p2m_lock(p2m);
    *t = p2m->entries[gfn].type;
    if ( p2m->entries[gfn].mfn )
    {
        page = &frame_table[p2m->entries[gfn].mfn];
        if ( !get_page(page, d) )
            page = NULL;
    }
    p2m_unlock(p2m);

    return page;
}

/* A CPU of the guest may write only to what is not known to equal the disk. */
static void store(struct domain *d, struct page_info *page, unsigned int offset,
                  const void *from, unsigned int len)
{
    unsigned long gfn = get_gpfn_from_mfn(mfn_x(page_to_mfn(page)));

    if ( page_get_owner(page) != d )
        STOP("a guest writes to frame %lu, which isn't its own",
             mfn_x(page_to_mfn(page)));
    if ( tracked(d, gfn) >= AWAITING )
        STOP("the guest has written to PFN %#lx, which is in state %d",
             gfn, tracked(d, gfn));
    memcpy((uint8_t *)frame_va(page_to_mfn(page)) + offset, from, len);
}

bool guest_store(struct domain *d, unsigned int cpu, unsigned long address,
                 const void *from, unsigned int len)
{
    unsigned long gfn = address >> PAGE_SHIFT;
    struct p2m_entry *e;

    if ( gfn >= NR_GFN )
        return false;
    e = &d->arch.p2m.entries[gfn];
    for ( unsigned int i = 0; i < 3; i++ )
    {
        interleave();
        if ( d->tlb[cpu][gfn] )
        {
            store(d, &frame_table[d->tlb[cpu][gfn] - 1], address % PAGE_SIZE, from, len);
            return true;
        }
        if ( !e->mfn || e->access != p2m_access_rwx )
            return false;
        switch ( e->type )
        {
        case p2m_ram_rw:
            d->tlb[cpu][gfn] = e->mfn + 1;
            break;

        case p2m_ram_cache: /* hvm_hap_nested_page_fault() */
        case p2m_ram_logdirty:
            change_type(d, gfn, e->type, p2m_ram_rw, p2m_access_rwx);
            break;

        default:
            return false;
        }
    }

    return false;
}

/* Guest memory, as Xen's copying functions see it: without the TLB. */

static unsigned int copy(uint8_t *guest, uint8_t *own, unsigned int len, bool to)
{
    struct domain *d = current->domain;

    assert_may_sleep();
    interleave();
    if ( guest_copy_faults() )
        return len;
    if ( current->hcall_compat && (unsigned long)guest >= XLAT_BASE )
        STOP("an address of a guest's is taken for one of Xen's own");

    if ( d == slots[DOM0] )
    {
        uintptr_t at = (uintptr_t)guest;

        if ( at > sizeof(dom0_memory) || len > sizeof(dom0_memory) - at )
            return len;
        to ? memcpy(dom0_memory + at, own, len) : memcpy(own, dom0_memory + at, len);
        return 0;
    }

    while ( len )
    {
        unsigned long at = (unsigned long)guest;
        unsigned int n = min_t(unsigned long, len, PAGE_SIZE - at % PAGE_SIZE);
        p2m_type_t t;
        struct page_info *page = guest_page(d, at >> PAGE_SHIFT, &t);
        uint8_t *va;

        if ( !page )
            break;
        va = (uint8_t *)frame_va(page_to_mfn(page)) + at % PAGE_SIZE;
        if ( to )
        {
            for ( unsigned int i = 0; i + 8 <= n; i += 8 )
                if ( !memcmp(own + i, "\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa", 8) )
                    STOP("the guest is told what the stack was filled with");
            memcpy(va, own, n);
            interleave();
            paging_mark_pfn_dirty(d, _pfn(at >> PAGE_SHIFT));
            if ( tracked(d, at >> PAGE_SHIFT) >= AWAITING )
                STOP("Xen has written to PFN %#lx, which is still tracked",
                     at >> PAGE_SHIFT);
        }
        else
            memcpy(own, va, n);
        put_page(page);
        guest += n;
        own += n;
        len -= n;
    }

    return len;
}

unsigned int raw_copy_to_guest(void *to, const void *from, unsigned int len)
{
    return copy(to, (void *)from, len, true);
}

unsigned int raw_copy_from_guest(void *to, const void *from, unsigned int len)
{
    return copy((void *)from, to, len, false);
}

unsigned int raw_clear_guest(void *to, unsigned int len) { return len; }

/* Domains. */

struct domain *domain_create(unsigned int slot, unsigned char uuid,
                             unsigned int max_pages)
{
    struct domain *d = calloc(1, sizeof(*d));

    d->domain_id = next_domid++;
    memset(d->handle, uuid, sizeof(d->handle));
    d->max_pages = max_pages;
    d->hvm = d->hap = slot != DOM0;
    d->refs = 1;
    d->page_alloc_lock = (rspinlock_t){ .rank = RANK_PAGE_ALLOC, .recursive = true };
    d->arch.p2m = (struct p2m_domain){
        .domain = d, .lock = { .rank = RANK_P2M, .recursive = true },
        .default_access = p2m_access_rwx, .get_entry = get_entry,
    };
    for ( unsigned int i = 0; i < NR_GFN; i++ )
        d->arch.p2m.entries[i].type = p2m_mmio_dm;
    for ( unsigned int i = 0; i < NR_CPUS; i++ )
        d->vcpus[i] = (struct vcpu){ .domain = d, .cpu = i };
    slots[slot] = d;
    race_release(slots); /* the list of domains, as RCU has it */

    return d;
}

/* What it has in its memory goes on to be its own. */
void domain_renamed(struct domain *d, unsigned char was)
{
    for ( unsigned int i = 1; i < frames_end; i++ )
        if ( frame_table[i].owner == d && frame_table[i].origin == was )
            frame_table[i].origin = uuid_of(d);
}

int domain_rename(struct domain *d, unsigned char uuid)
{
    xen_domain_handle_t handle;
    int rc;

    memset(handle, uuid, sizeof(handle));
    d->was = uuid_of(d);
    rc = warmcache_rename(d, handle);
    domain_renamed(d, d->was);
    d->was = 0;

    return rc;
}

unsigned long domain_get_maximum_gpfn(struct domain *d) { return NR_GFN - 1; }

struct domain *next_domain(const struct domain *d)
{
    unsigned int i = 0;

    race_acquire(slots);
    while ( d && i < NR_SLOTS && slots[i++] != d )
        ;
    while ( i < NR_SLOTS && !slots[i] )
        i++;

    return i < NR_SLOTS ? slots[i] : NULL;
}

static bool nobody_runs(void *argument)
{
    return !((struct domain *)argument)->in_flight;
}

void domain_pause(struct domain *d)
{
    d->pauses++;
    wait_until(nobody_runs, d);
}

void domain_unpause(struct domain *d)
{
    ASSERT(d->pauses > 0);
    race_release(&d->pauses);
    d->pauses--;
}

void flush_tlb_all(void)
{
    for ( unsigned int i = 0; i < NR_SLOTS; i++ )
        if ( slots[i] )
            memset(slots[i]->tlb, 0, sizeof(slots[i]->tlb));
}

void clear_domain_page(mfn_t mfn)
{
    void *va = frame_va(mfn);

    __asan_unpoison_memory_region(va, PAGE_SIZE);
    memset(va, 0, PAGE_SIZE);
    if ( !mfn_to_page(mfn)->owner )
        mfn_to_page(mfn)->origin = 0;
}
