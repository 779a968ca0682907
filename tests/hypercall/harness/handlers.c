/*
 * The sources under test, as they are, and behind them what checks the
 * structures that only they can see.
 */
#define RACES_LOOKED_FOR
#include "model.h"

#include "xen/arch/x86/mm/warmcache.c"
#include "xen/arch/x86/mm/warmcache-image.c"

struct timer *const reaper_timer = &reaper;

enum tracked tracked(const struct domain *d, unsigned long pfn)
{
    LOOK;
    if ( !d->warmcache )
        return NOT_TRACKED;

    switch ( wc_state(d->warmcache, pfn) )
    {
    case WC_NONE:       return NOT_TRACKED;
    case WC_PROTECTED:  return BEING_PROTECTED;
    case WC_COMMITTED:  return COMMITTED;
    case WC_READ_SEEN:
    case WC_WRITE_SEEN: return SEEN;
    default:            return AWAITING;
    }
}

bool attached(const struct domain *d)
{
    LOOK;

    return d->warmcache && d->warmcache->attached;
}

bool reusable(const struct domain *d, unsigned long pfn,
              struct xen_warmcache_entry *entry)
{
    LOOK;
    const struct warmcache *wc = d->warmcache;

    if ( !wc || !wc_test_bit(&wc->reuse, pfn) )
        return false;
    *entry = *wc_entry(wc, pfn);

    return true;
}

bool known(const struct domain *d, unsigned long pfn, struct xen_warmcache_entry *entry)
{
    LOOK;
    const struct warmcache *wc = d->warmcache;

    if ( !wc || wc_state(wc, pfn) == WC_NONE )
        return false;
    *entry = *wc_entry(wc, pfn);

    return true;
}

/* What is true of each PFN whenever nobody holds the lock. */
static void check_pfn(const struct domain *d, unsigned long pfn, bool quiet)
{
    const struct warmcache *wc = d->warmcache;
    const struct wc_meta *meta = wc_meta(wc, pfn);
    const struct xen_warmcache_entry *e = wc_entry(wc, pfn);
    const struct p2m_entry *p = pfn < NR_GFN ? &d->arch.p2m.entries[pfn] : NULL;
    enum wc_state state = wc_state(wc, pfn);
    static const struct xen_warmcache_entry none;

    if ( wc_test_bit(&wc->reuse, pfn) != (state == WC_COMMITTED) )
        STOP("PFN %#lx: state %d, reuse bit %d", pfn, state,
             (int)wc_test_bit(&wc->reuse, pfn));
    if ( wc_test_bit(&wc->held, pfn) && state != WC_COMMITTED )
        STOP("PFN %#lx: held, but in state %d", pfn, state);
    if ( state == WC_NONE )
    {
        if ( (e && memcmp(e, &none, sizeof(none))) ||
             (meta && (meta->next || meta->pdx || meta->ref)) )
            STOP("PFN %#lx: something is left of its entry", pfn);
        return;
    }
    if ( !pfn || !e || !e->vbd || e->sector % XEN_WARMCACHE_SECTORS_PER_PAGE )
        STOP("PFN %#lx: the entry is not valid", pfn);
    if ( quiet && state == WC_PROTECTED )
        STOP("PFN %#lx: left behind in state PROTECTED", pfn);
    if ( d->p2m_gone )
        return;
    /*
     * While it is adopted, under the P2M's lock, a page is known before it is
     * reachable.  Another CPU may have unpaused the domain meanwhile.
     */
    if ( !quiet && d->populating && p && !p->mfn && d->arch.p2m.lock.holder )
        return;
    if ( !p || p->type != p2m_ram_cache || p->mfn != meta->pdx )
        STOP("PFN %#lx: state %d, but P2M type %d, frame %u instead of %u", pfn,
             state, p ? p->type : -1, p ? p->mfn : 0, meta->pdx);
    if ( frame_table[meta->pdx].owner != d ||
         (quiet && frame_table[meta->pdx].m2p != pfn) )
        STOP("PFN %#lx: frame %u is not the domain's", pfn, meta->pdx);
    if ( quiet && state == WC_COMMITTED &&
         !(frame_table[meta->pdx].count_info & PGC_allocated) )
        STOP("PFN %#lx: frame %u is being freed", pfn, meta->pdx);
}

void check_bits(const struct domain *d)
{
    LOOK;
    const struct warmcache *wc = d->warmcache;

    if ( !wc || wc->lock.holder )
        return;
    for ( unsigned long i = 0; i < wc->reuse.nr; i++ )
    {
        const uint64_t *word = wc_slot(&wc->reuse, i);

        for ( uint64_t left = word ? *word : 0; left; left &= left - 1 )
            check_pfn(d, i * 64 + ffsl(left) - 1, false);
    }
}

static unsigned long count_bits(const struct wc_array *a)
{
    unsigned long n = 0;

    for ( unsigned long i = 0; i < a->nr; i++ )
    {
        const uint64_t *word = wc_slot(a, i);

        n += word ? __builtin_popcountl(*word) : 0;
    }

    return n;
}

void check_tables(const struct domain *d, bool all)
{
    LOOK;
    const struct warmcache *wc = d->warmcache;
    unsigned long pfn, committed = 0, pending = 0, held = 0, indexed = 0, bucket;
    unsigned long by_vbd[WC_MAX_VBDS] = {};
    static uint8_t seen[NR_GFN * 2];

    if ( !wc )
        return;
    ASSERT(!wc->lock.holder && wc->max_pfn <= sizeof(seen));
    if ( wc->nr_writes > WC_MAX_WRITES || (wc->attached && !wc->enabled) )
        STOP("%u writes are under way, attached %d, enabled %d", wc->nr_writes,
             wc->attached, wc->enabled);
    memset(seen, 0, wc->max_pfn);

    for ( pfn = 0; pfn < wc->max_pfn; pfn++ )
    {
        const struct wc_meta *meta = wc_meta(wc, pfn);

        if ( !all )
        {
            if ( !meta )
            {
                pfn |= (1UL << wc->meta.shift) - 1;
                continue;
            }
            if ( !*(const uint64_t *)meta )
                continue;
        }
        check_pfn(d, pfn, true);
        if ( !meta )
            continue;
        committed += meta->state == WC_COMMITTED;
        pending += meta->state != WC_NONE && meta->state != WC_COMMITTED;
        if ( wc_test_bit(&wc->held, pfn) )
        {
            struct wc_vbd *vbd = wc_find_vbd((void *)wc, wc_entry(wc, pfn)->vbd);

            if ( !vbd )
                STOP("PFN %#lx: held, but its vbd is not known", pfn);
            by_vbd[vbd - wc->vbds]++;
            held++;
        }
    }
    if ( committed != count_bits(&wc->reuse) || held != count_bits(&wc->held) )
        STOP("%lu PFNs are committed and %lu held, but %lu and %lu bits are set",
             committed, held, count_bits(&wc->reuse), count_bits(&wc->held));
    if ( committed != wc->st.committed || pending != wc->st.pending ||
         held != wc->st.held )
        STOP("counted %lu committed, %lu pending, %lu held, but the status has %lu, %lu, %lu",
             committed, pending, held, (unsigned long)wc->st.committed,
             (unsigned long)wc->st.pending, (unsigned long)wc->st.held);
    for ( unsigned int i = 0; i < wc->nr_vbds; i++ )
        if ( by_vbd[i] != wc->vbds[i].held ||
             (wc->vbds[i].verdict == XEN_WARMCACHE_VERDICT_REFUSED && by_vbd[i]) )
            STOP("vbd %u: %lu held, but %lu counted, verdict %u", wc->vbds[i].vbd,
                 wc->vbds[i].held, by_vbd[i], wc->vbds[i].verdict);

    for ( bucket = 0; bucket < wc->nr_buckets; bucket++ )
    {
        const uint32_t *head = wc_slot(&wc->heads, bucket);
        unsigned int len = 0;

        for ( pfn = head ? *head : 0; pfn; pfn = wc_meta(wc, pfn)->next )
        {
            const struct xen_warmcache_entry *e;

            if ( pfn >= wc->max_pfn || wc_state(wc, pfn) == WC_NONE || seen[pfn]++ )
                STOP("bucket %lu: PFN %#lx does not belong there", bucket, pfn);
            e = wc_entry(wc, pfn);
            if ( wc_bucket(wc, e->vbd, e->sector) != bucket )
                STOP("bucket %lu: PFN %#lx has another hash", bucket, pfn);
            if ( wc_lookup(wc, e->vbd, e->sector) != pfn )
                STOP("vbd %u sector %lu is known twice", e->vbd, e->sector);
            if ( ++len > WC_CHAIN_MAX )
                STOP("bucket %lu: the chain is too long", bucket);
            indexed++;
        }
    }
    if ( indexed != committed + pending )
        STOP("%lu PFNs are in the index, %lu have an entry", indexed,
             committed + pending);
    if ( wc->preserving && !d->is_dying )
        STOP("an image is being filled from a living domain");
}

static unsigned long check_image(const struct wc_image *img, bool listed)
{
    static uint8_t seen[NR_MFN];
    unsigned long nr = 0;

    memset(seen, 0, sizeof(seen));
    for ( unsigned long pfn = 0; img->frames.nr && pfn < img->max_pfn; pfn++ )
    {
        const uint32_t *pdx = wc_slot(&img->frames, pfn);
        const struct xen_warmcache_entry *e;
        const struct page_info *page;

        if ( !pdx )
            pfn |= (1UL << img->frames.shift) - 1;
        if ( !pdx || !*pdx )
            continue;
        e = wc_slot(&img->table, pfn);
        page = &frame_table[*pdx];
        if ( page->owner || (page->count_info & ~PGC_offlining) || page->refs ||
             page->u.inuse.type_info || page->list ||
             page->m2p != INVALID_M2P_ENTRY || seen[*pdx]++ )
            STOP("image: frame %u of PFN %#lx belongs to somebody", *pdx, pfn);
        if ( page->origin != img->handle[0] )
            STOP("image of UUID %u has a frame of UUID %u", img->handle[0], page->origin);
        if ( !e || !e->vbd )
            STOP("image: PFN %#lx has no entry", pfn);
        nr++;
    }
    if ( nr != img->nr )
        STOP("image has %lu pages, but says %lu", nr, img->nr);

    return nr;
}

static unsigned long frames_in_images;

void check_images(s_time_t now)
{
    LOOK;
    const struct wc_image *img, *other;
    s_time_t due = STIME_MAX;

    ASSERT(!image_lock.holder);
    frames_in_images = 0;
    list_for_each_entry ( img, &images, list )
    {
        frames_in_images += check_image(img, true);
        due = min(due, img->expires);
        list_for_each_entry ( other, &images, list )
            if ( img != other && !memcmp(img->handle, other->handle, 16) )
                STOP("two images of UUID %u", img->handle[0]);
    }
    list_for_each_entry ( img, &released, list )
    {
        frames_in_images += check_image(img, false);
        if ( img->owner )
            STOP("an image that is given up is still a domain's");
        due = now + WC_REAP_INTERVAL;
    }
    list_for_each_entry ( img, &bound, list )
    {
        frames_in_images += check_image(img, false);
        due = min(due, img->expires);
        if ( !img->owner || img->owner->image != img )
            STOP("an image is not that of the domain it is bound to");
    }
    if ( (long)frames_in_images != kept_by_heap() )
        STOP("images have %lu pages, but the heap counts %ld", frames_in_images, kept_by_heap());
    for ( unsigned int i = 0; i < NR_SLOTS; i++ )
    {
        const struct warmcache *wc = slots[i] ? slots[i]->warmcache : NULL;

        if ( wc && wc->preserving )
            frames_in_images += check_image(wc->preserving, false);
    }
    if ( frames_in_images != nr_pages )
        STOP("images have %lu pages, but %lu are counted", frames_in_images, nr_pages);
    /* What is to be freed must be waited for by the timer. */
    if ( due != STIME_MAX && (!reaper.armed || reaper.expires > max(due, now)) )
        STOP("an image is due in %ld ns, but the timer %s in %ld ns",
             (long)(due - now), reaper.armed ? "fires" : "is off, not",
             (long)(reaper.expires - now));
}

unsigned long held_by_images(void) { return frames_in_images; }

int command_line(const char *s)
{
    BOOT;

    return param_parse_warmcache(s);
}

void command_line_default(void)
{
    BOOT;

    opt_warmcache = true;
    max_pages = ULONG_MAX;
}

bool images_left(void)
{
    LOOK;

    return !list_empty(&images) || !list_empty(&released);
}

unsigned long count_committed(const struct domain *d, bool held)
{
    LOOK;
    return d->warmcache ? held ? d->warmcache->st.held : d->warmcache->st.committed : 0;
}

static uint64_t mix(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *p = data;

    while ( size-- )
        hash = (hash ^ *p++) * 0x100000001b3;

    return hash;
}

uint64_t digest(const struct domain *d)
{
    LOOK;
    const struct warmcache *wc = d->warmcache;
    uint64_t hash = 0xcbf29ce484222325;

    if ( !wc )
        return hash;
    hash = mix(hash, &wc->st, sizeof(wc->st));
    hash = mix(hash, wc->vbds, wc->nr_vbds * sizeof(wc->vbds[0]));
    hash = mix(hash, wc->writes, wc->nr_writes * sizeof(wc->writes[0]));
    hash = mix(hash, &wc->more_writes, sizeof(wc->more_writes));
    hash = mix(hash, &wc->attached, sizeof(wc->attached));
    for ( unsigned long pfn = 0; pfn < wc->max_pfn; pfn++ )
        if ( wc_state(wc, pfn) != WC_NONE )
        {
            uint64_t state = wc_state(wc, pfn) | wc_test_bit(&wc->held, pfn) << 8 | pfn << 16;

            hash = mix(hash, &state, sizeof(state));
            hash = mix(hash, wc_entry(wc, pfn), sizeof(struct xen_warmcache_entry));
        }

    return hash;
}
