/* What the parts of the model share. */
#ifndef MODEL_H
#define MODEL_H

#include "standin.h"
#include <xen/warmcache.h>

/* The input: operations from its front, decisions of the machine from its end. */
struct input { const uint8_t *data; size_t front, back; };
extern struct input input;
uint8_t next_byte(void);
bool input_left(void);

enum chance { CHANCE_CPUS = 1, CHANCE_ALLOC = 2, CHANCE_PREEMPT = 4, CHANCE_FAULT = 8 };
extern unsigned int chances;   /* which decisions the input takes */
extern unsigned int before_next[CHANCE_FAULT + 1]; /* how often each may be asked for */

/* For the exhaustive scenario: the n-th of its kind, from 1; 0: none. */
extern unsigned long fail_alloc_at, alloc_count;
extern unsigned long preempt_at, preempt_count;
extern bool preempt_always;
extern unsigned long fault_at, fault_count;

#define STOP(...) do { snprintf(reason, sizeof(reason), __VA_ARGS__); \
                       fail(__FILE__, __LINE__, reason); } while ( 0 )
extern char reason[256];
extern bool verbose;
extern uint64_t current_seed;   /* told when a run fails */
void tell_seed(void);
#define SAY(...) do { if ( verbose ) printf_(__VA_ARGS__); } while ( 0 )
void printf_(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* CPUs: each runs one operation at a time; they change over in interleave(). */
void cpu_run(unsigned int cpu, void (*operation)(void *), void *argument,
             size_t size, struct vcpu *as);
extern char grace_period; /* its end is after that of each operation before */
bool cpu_idle(unsigned int cpu);
bool all_idle(void);
void cpus_step(void);          /* run something that is not idle */
void wait_until(bool (*condition)(void *), void *argument);
struct vcpu *become(struct vcpu *v);  /* returns who it was */

/* The machine. */
#define NR_SLOTS 3
#define DOM0 0
extern struct domain *slots[NR_SLOTS];
extern s_time_t now;
extern unsigned long heap_limit, frames_used, frames_end, allocations;
void machine_start(void);
void machine_check_empty(void);
struct domain *domain_create(unsigned int slot, unsigned char uuid,
                             unsigned int max_pages);
void domain_free_dead(void);
int domain_rename(struct domain *d, unsigned char uuid);  /* as XEN_DOMCTL_setdomainhandle */
void domain_renamed(struct domain *d, unsigned char was); /* after its handle was changed */
void timers_run(void);
int change_type(struct domain *d, unsigned long gfn, p2m_type_t ot,
                p2m_type_t nt, p2m_access_t a);
int remove_page(struct domain *d, unsigned long gfn);
/* A store by a CPU of the guest. False if there's nothing to be written to. */
bool guest_store(struct domain *d, unsigned int cpu, unsigned long address,
                 const void *from, unsigned int len);
struct page_info *guest_page(struct domain *d, unsigned long gfn, p2m_type_t *t);
extern uint8_t dom0_memory[16384];
long kept_by_heap(void);        /* pages that it takes to be in images */
extern long continuation;      /* where to go on, after -ERESTART */

/* handlers.c: what only the sources' own file can see. */
extern struct timer *const reaper_timer;
enum tracked { NOT_TRACKED, BEING_PROTECTED, AWAITING, SEEN, COMMITTED };
enum tracked tracked(const struct domain *d, unsigned long pfn);
bool attached(const struct domain *d);
bool reusable(const struct domain *d, unsigned long pfn,
              struct xen_warmcache_entry *entry);
bool known(const struct domain *d, unsigned long pfn, struct xen_warmcache_entry *entry);
void check_tables(const struct domain *d, bool all); /* no CPU is in the middle of anything */
void check_bits(const struct domain *d);    /* holds whenever wc->lock is free */
void check_images(s_time_t now);
bool images_left(void);
unsigned long held_by_images(void);
int command_line(const char *s);
void command_line_default(void);
int run_wc_init(void);

unsigned long count_committed(const struct domain *d, bool held);
uint64_t digest(const struct domain *d);    /* of all that is kept for it */

/* From here on Xen has the arguments of callers of 32 bits that it has translated. */
#define XLAT_BASE 0xffff828000000000UL

/* operations.c */
enum operation {
    OP_START, OP_IO, OP_IO_2, OP_IO_3, OP_STORE, OP_MAPPING, OP_DOMCTL, OP_DOMCTL_2,
    OP_MEMOP, OP_MEMOP_2, OP_KILL, OP_P2M, OP_RESOURCE, OP_TIME, OP_POPULATE,
    OP_MACHINE, OP_BULK,
};
#define FIRST_BULK 1400        /* PFNs of a domain that has NR_BULK more pages */
#define NR_BULK 540
#define BULKY 0xf8             /* OP_START: byte 6 that says so */
#define OP(name, ...) ((struct xen_warmcache_op){ .cmd = XEN_WARMCACHE_CMD_##name, \
                                .version = XEN_WARMCACHE_VERSION, __VA_ARGS__ })
#define DOMCTL(name, ...) ((struct xen_domctl_warmcache){ \
    .cmd = XEN_DOMCTL_WARMCACHE_##name, .version = XEN_WARMCACHE_VERSION, __VA_ARGS__ })
/*
 * A hypercall by @cpu of the guest, to its end unless the domain is stopped
 * meanwhile: @op is stored at @at, and @size bytes for its list, which follows
 * there if op->list is NULL.
 */
long memop(struct domain *d, unsigned int cpu, struct xen_warmcache_op *op,
           unsigned long at, const void *list, unsigned int size);
long domctl(struct domain *d, struct xen_domctl_warmcache *op);
/* The grant of a page whose I/O is announced one call at a time. */
#define REF_OF(pfn) ((uint32_t)(pfn) & 0xffff)
/* A read that the backend carries out, through the grant that REF_OF() says. */
void backend_fills(struct domain *d, unsigned long gfn, uint64_t token);
extern uint64_t noted;
void prepare(void);
/* On a CPU that is idle; it may not be over on return. */
void begin(unsigned int cpu, enum operation what, unsigned int slot, const uint8_t b[8]);
void run_one(enum operation what, unsigned int slot, const uint8_t b[8]); /* to its end */
void run_input(const uint8_t *data, size_t size);
void run_meeting(bool write, const uint8_t *data, size_t size);
void check_quiet(void);
void shut_down(void);

/* scenario.c, cases.c */
int run_scenarios(void);
int run_cases(void);

#endif
