/*
 * A stand-in for the parts of Xen that the warm cache is built on, so that its
 * unmodified sources can be compiled for user space. Names and contracts are
 * Xen's; what Xen would assert is asserted here, and more.
 */
#ifndef STANDIN_H
#define STANDIN_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xen/kconfig.h>

#include "races.h"

/* Language and library. */

#define __init
#define cf_check
#define __read_mostly
#define custom_param(name, fn) int (*const param_##fn)(const char *) = fn
#define __initcall(fn) int run_##fn(void) { return fn(); }
#define __maybe_unused __attribute__((unused))
#define fallthrough __attribute__((fallthrough))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define always_inline inline __attribute__((always_inline))
#define ACCESS_ONCE(x) (*(volatile typeof(x) *)&(x))
#define container_of(ptr, type, member) \
    ((type *)((char *)(ptr) - offsetof(type, member)))
#define typeof_field(type, field) typeof(((type *)NULL)->field)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define ROUNDDOWN(x, a) ((x) & ~((typeof(x))(a) - 1))
#define ROUNDUP(x, a) (((x) + (a) - 1) & ~((typeof(x))(a) - 1))
#define min(a, b) ({ typeof(a) a_ = (a); typeof(b) b_ = (b); \
                     (void)(&a_ == &b_); a_ < b_ ? a_ : b_; })
#define max(a, b) ({ typeof(a) a_ = (a); typeof(b) b_ = (b); \
                     (void)(&a_ == &b_); a_ > b_ ? a_ : b_; })
#define min_t(t, a, b) ({ t a_ = (a), b_ = (b); a_ < b_ ? a_ : b_; })
/* What keeps speculation within bounds is no check of its own. */
#define array_index_nospec(i, n) ({ ASSERT((i) < (n)); (i); })
#define BUILD_BUG_ON(c) _Static_assert(!(c), #c)

_Noreturn void fail(const char *file, int line, const char *what);
#define ASSERT(c) ((c) ? (void)0 : fail(__FILE__, __LINE__, #c))
#define ASSERT_UNREACHABLE() fail(__FILE__, __LINE__, "unreachable")
#define BUG_ON(c) ASSERT(!(c))
#define BUG() ASSERT_UNREACHABLE()

typedef int64_t s_time_t;
typedef uint64_t paddr_t;

#define flsl(x) ({ unsigned long x_ = (x); x_ ? 64 - __builtin_clzl(x_) : 0; })
#define ffsl(x) __builtin_ffsl(x)
#define smp_wmb() __asm__ __volatile__ ("" ::: "memory")
#define test_bit(n, p) ((p)[(n) / 64] >> (n) % 64 & 1)
#define __set_bit(n, p) ((p)[(n) / 64] |= 1UL << (n) % 64)
#define DECLARE_BITMAP(name, bits) unsigned long name[DIV_ROUND_UP(bits, 64)]
#define __clear_bit(n, p) (*(p) &= ~(1UL << (n)))

/* cmpxchg() is a place where another CPU may come between. */
#define cmpxchg(p, o, n) ({ __auto_type o_ = (typeof(*(p)))(o); interleave(); \
    __atomic_compare_exchange_n(p, &o_, (typeof(*(p)))(n), false, \
                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); o_; })

#define cmpxchgptr(p, o, n) cmpxchg(p, o, n)
#define read_atomic(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define write_atomic(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)

#define XENLOG_INFO ""
#define XENLOG_WARNING ""
#define printk(...) quiet(__VA_ARGS__)
void quiet(const char *format, ...);

/* Locks: held by a CPU, ordered by rank, perhaps recursive. */

/* The innermost ones, that of the images and that of the heap, don't nest. */
enum rank { RANK_DOMCTL, RANK_P2M, RANK_PAGE_ALLOC, RANK_WARMCACHE, RANK_INNERMOST };
typedef struct lock {
    int holder;           /* CPU + 1 */
    unsigned int depth;
    enum rank rank;
    bool recursive;
} spinlock_t, rspinlock_t;
#define DEFINE_SPINLOCK(l) spinlock_t l = { .rank = RANK_INNERMOST }
void lock_acquire(struct lock *l);
void lock_release(struct lock *l);
bool lock_is_mine(const struct lock *l);
#define spin_lock_init(l) (*(l) = (spinlock_t){ .rank = RANK_WARMCACHE })
#define spin_lock(l) lock_acquire(l)
#define spin_unlock(l) lock_release(l)
#define spin_is_locked(l) lock_is_mine(l)
#define rspin_lock(l) lock_acquire(l)
#define rspin_is_locked(l) lock_is_mine(l)
#define nrspin_lock(l) lock_acquire(l)
#define nrspin_unlock(l) lock_release(l)
#define rspin_unlock(l) lock_release(l)

/* CPUs. */

#define NR_CPUS 3
void interleave(void);         /* another CPU may run here */
bool hypercall_preempt_check(void);
bool decide_alloc_failure(void);

struct vcpu { struct domain *domain; unsigned int cpu; bool hcall_compat; };
extern struct vcpu *current_vcpu(void);
#define current (current_vcpu())

#define INVALID_GRANT_REF (~(uint32_t)0)

/* Memory. */

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096UL
#define PAGE_ORDER_4K 0
#define PAGE_ORDER_2M 9
#define NR_MFN 2304            /* frames of the machine; 0 is not usable */
#define NR_GFN 4096            /* of each domain's P2M */

typedef struct { unsigned long v; } mfn_t;
typedef struct { unsigned long v; } gfn_t;
typedef struct { unsigned long v; } pfn_t;
#define _mfn(x) ((mfn_t){ (x) })
#define _gfn(x) ((gfn_t){ (x) })
#define _pfn(x) ((pfn_t){ (x) })
#define mfn_x(m) ((m).v)
#define gfn_x(g) ((g).v)
#define gfn_add(g, n) _gfn(gfn_x(g) + (n))
#define INVALID_MFN _mfn(~0UL)
#define INVALID_M2P_ENTRY (~0UL)
#define mfn_eq(a, b) (mfn_x(a) == mfn_x(b))
#define mfn_valid(m) (mfn_x(m) && mfn_x(m) < NR_MFN)

#define PGC_allocated  (1UL << 63)
#define PGC_xen_heap   (1UL << 62)
#define PGC_offlining  (1UL << 61)
#define PGC_extra      (1UL << 60)
#define PGC_count_mask ((1UL << 50) - 1)
#define PGT_none 0UL
#define PGT_validated (1UL << 60)

struct page_list_head { struct page_info *first, *last; unsigned long nr; };

enum frame_use { FRAME_FREE, FRAME_XEN, FRAME_DOMAIN, FRAME_ANONYMOUS, FRAME_OFFLINE };

struct page_info {
    unsigned long count_info;
    struct { struct { unsigned long type_info; } inuse; } u;
    struct domain *owner;
    struct page_info *prev, *next;
    struct page_list_head *list;   /* that it is on */
    /* The model's own. */
    enum frame_use use;
    unsigned long m2p;
    unsigned int refs;             /* that the model took */
    unsigned char origin;          /* UUID whose bytes it may hold, 0: none */
    bool disclosed;                /* given up by its owner, who had to clear it */
};
extern struct page_info frame_table[NR_MFN];

#define page_to_mfn(p) _mfn((unsigned long)((p) - frame_table))
#define mfn_to_page(m) (&frame_table[mfn_x(m)])
#define mfn_to_pdx(m) mfn_x(m)
#define pdx_to_mfn(x) _mfn(x)
#define pdx_to_page(x) (&frame_table[x])
#define page_to_pdx(p) mfn_x(page_to_mfn(p))
#define page_get_owner(p) ((p)->owner)
void page_set_owner(struct page_info *page, struct domain *d);
#define get_gpfn_from_mfn(m) (frame_table[m].m2p)
#define set_gpfn_from_mfn(m, g) (frame_table[m].m2p = (g))
#define is_special_page(p) (!!((p)->count_info & PGC_xen_heap))

void *frame_va(mfn_t mfn);
void clear_domain_page(mfn_t mfn);
mfn_t va_frame(const void *va);
#define page_to_virt(p) frame_va(page_to_mfn(p))
#define virt_to_page(va) mfn_to_page(va_frame(va))
#define virt_to_mfn(va) mfn_x(va_frame(va))
#define clear_page(va) memset(va, 0, PAGE_SIZE)

void *alloc_xenheap_page(void);
void free_xenheap_page(void *va);
struct page_info *alloc_domheap_page(struct domain *d, unsigned int memflags);
void free_domheap_page(struct page_info *page);
int assign_page(struct page_info *page, unsigned int order, struct domain *d,
                unsigned int memflags);
bool get_page(struct page_info *page, const struct domain *d);
void put_page(struct page_info *page);
void put_page_alloc_ref(struct page_info *page);
#define MEMF_no_refcount 1U
#define MEMF_no_tlbflush 4U
#define MEMF_no_owner 8U

void *standin_zalloc(size_t size);
void standin_free(void *p);
#define xvzalloc(type) ((type *)standin_zalloc(sizeof(type)))
#define xvzalloc_array(type, n) ((type *)standin_zalloc(sizeof(type) * (n)))
#define xvfree(p) standin_free(p)
#define XVFREE(p) do { standin_free(p); (p) = NULL; } while ( 0 )

enum XENSHARE_flags { SHARE_rw, SHARE_ro };
void share_xen_page_with_guest(struct page_info *page, struct domain *d,
                               enum XENSHARE_flags flags);

#define PAGE_LIST_HEAD(h) struct page_list_head h = {}
#define INIT_PAGE_LIST_HEAD(h) (*(h) = (struct page_list_head){})
struct page_info *page_list_remove_head(struct page_list_head *h);
void page_list_add_tail(struct page_info *p, struct page_list_head *h);
void page_list_del(struct page_info *p);
void page_list_splice(struct page_list_head *from, struct page_list_head *to);

/* The P2M. */

typedef enum {
    p2m_ram_rw, p2m_invalid, p2m_ram_logdirty, p2m_ram_ro, p2m_mmio_dm,
    p2m_ram_cache = 16,
} p2m_type_t;
#define p2m_is_hole(t) ((t) == p2m_mmio_dm || (t) == p2m_invalid)
typedef enum { p2m_access_n, p2m_access_r, p2m_access_rx, p2m_access_rwx } p2m_access_t;

struct p2m_entry { uint32_t mfn; uint8_t type, access; };
struct p2m_domain {
    struct domain *domain;
    struct lock lock;
    p2m_access_t default_access;
    bool defer_npt_flush, need_npt_flush;
    struct p2m_entry entries[NR_GFN];
    mfn_t (*get_entry)(struct p2m_domain *p2m, gfn_t gfn, p2m_type_t *t,
                       p2m_access_t *a, unsigned int q, unsigned int *order,
                       bool *sve);
};
#define p2m_get_hostp2m(d) (&(d)->arch.p2m)
#define p2m_lock(p) lock_acquire(&(p)->lock)
#define p2m_unlock(p) lock_release(&(p)->lock)
#define gfn_lock(p, g, o) p2m_lock(p)
#define gfn_unlock(p, g, o) p2m_unlock(p)
#define p2m_tlb_flush_sync(p) ASSERT(lock_is_mine(&(p)->lock))
int p2m_set_entry(struct p2m_domain *p2m, gfn_t gfn, mfn_t mfn,
                  unsigned int order, p2m_type_t t, p2m_access_t a);
int guest_physmap_add_page(struct domain *d, gfn_t gfn, mfn_t mfn,
                           unsigned int order);
int guest_physmap_remove_page(struct domain *d, gfn_t gfn, mfn_t mfn,
                              unsigned int order);
mfn_t get_gfn_query(struct domain *d, unsigned long gfn, p2m_type_t *t);
void put_gfn(struct domain *d, unsigned long gfn);
void guest_flush_tlb_mask(const struct domain *d, unsigned long mask);
void paging_mark_pfn_dirty(struct domain *d, pfn_t pfn);

/* The command line. */

int parse_bool(const char *s, const char *e);
unsigned long long parse_size_and_unit(const char *s, const char **ps);
void *memchr_inv(const void *s, int c, size_t n);

/* Domains. */

#include <public/xen.h>
#include <public/sched.h>

#define HVM_PARAM_ALTP2M 35
enum { DOMDYING_alive, DOMDYING_dying, DOMDYING_dead };
struct domain {
    domid_t domain_id;
    xen_domain_handle_t handle;
    unsigned char was;             /* its UUID, while that is being changed; else 0 */
    int is_dying;
    bool is_shut_down, creation_finished;
    unsigned int shutdown_code;
    unsigned int max_pages, tot_pages, xenheap_pages, outstanding_pages;
    struct page_list_head page_list, xenpage_list;
    rspinlock_t page_alloc_lock;
    unsigned long dirty_cpumask;
    struct {
        struct page_list_head relmem_list;
        struct { uint64_t params[40]; } hvm;
        struct p2m_domain p2m;
    } arch;
    struct warmcache *LOOSE warmcache;
    /* The model's own. */
    bool hvm, hap, nested, iommu, sharing, paging, p2m_gone;
    uint32_t ssidref;
    int refs, in_flight, pauses, populating;
    bool paused;
    struct vcpu vcpus[NR_CPUS];
    bool logged[NR_GFN];            /* found by a migration */
    uint16_t tlb[NR_CPUS][NR_GFN];  /* frame + 1 that the CPU may write, 0: none */
};
#define is_hvm_domain(d) ((d)->hvm)
#define hap_enabled(d) ((d)->hap)
#define nestedhvm_enabled(d) ((d)->nested)
#define is_iommu_enabled(d) ((d)->iommu)
#define mem_sharing_enabled(d) ((d)->sharing)
#define mem_paging_enabled(d) ((d)->paging)
#define paging_mode_translate(d) ((d)->hvm)
#define domain_tot_pages(d) ((d)->tot_pages)
unsigned long domain_get_maximum_gpfn(struct domain *d);
void adjust_kept_pages(long pages);
bool claim_kept_page(struct domain *d);
int domain_set_outstanding_pages(struct domain *d, unsigned long pages);
unsigned long domain_adjust_tot_pages(struct domain *d, long pages);
void put_domain(struct domain *d);
/* Domains are freed only when no CPU is in the middle of anything. */
#define rcu_read_lock(l) ((void)0)
#define rcu_read_unlock(l) ((void)0)
struct domain *next_domain(const struct domain *d);
#define for_each_domain(d) \
    for ( (d) = next_domain(NULL); (d); (d) = next_domain(d) )
void domain_pause(struct domain *d);
void domain_unpause(struct domain *d);
void flush_tlb_all(void);

#define XSM_HOOK 0
#define xsm_warmcache_use(action, d) ((void)(d), 0)
#define xsm_security_domaininfo(d, info) ((info)->ssidref = (d)->ssidref)

/* Time. */

struct timer { void (*function)(void *); void *data; s_time_t expires; bool armed; };
s_time_t standin_now(void);
#define NOW() standin_now()
#define STIME_MAX INT64_MAX
#define SECONDS(n) ((s_time_t)(n) * 1000000000LL)
#define MILLISECS(n) ((s_time_t)(n) * 1000000LL)
void init_timer(struct timer *t, void (*function)(void *), void *data, unsigned int cpu);
void set_timer(struct timer *t, s_time_t expires);

/* Guest memory, of the current vCPU's domain. */

/* Xen's build compares the layouts. */
#define CHECK_warmcache_entry
#define CHECK_warmcache_info
#define CHECK_warmcache_io
#define CHECK_warmcache_op
#define CHECK_warmcache_page
#define CHECK_warmcache_report

unsigned int raw_copy_to_guest(void *to, const void *from, unsigned int len);
unsigned int raw_copy_from_guest(void *to, const void *from, unsigned int len);
unsigned int raw_clear_guest(void *to, unsigned int len);
#define __raw_copy_to_guest raw_copy_to_guest
#define __raw_copy_from_guest raw_copy_from_guest
#define __raw_clear_guest raw_clear_guest

#define __HYPERVISOR_memory_op_ __HYPERVISOR_memory_op
#define MEMOP_EXTENT_SHIFT 6
#define XENMEM_warmcache 29
long hypercall_create_continuation(unsigned int op, const char *format, ...);

#endif
