/*
 * CPUs as coroutines: one runs until it comes to a place where another may come
 * between. Which one goes on is decided by the input, so that a run can be
 * repeated. Locks and timers belong here too.
 */
#include "model.h"

#include <sanitizer/common_interface_defs.h>
#include <stdarg.h>
#include <ucontext.h>

struct input input;
unsigned int chances, before_next[CHANCE_FAULT + 1];
unsigned long fail_alloc_at, alloc_count, preempt_at, preempt_count, fault_at, fault_count;
bool preempt_always, verbose;
char reason[256];
uint64_t current_seed;

#define STACK_SIZE (256 << 10)
static struct cpu {
    ucontext_t context;
    char *stack;
    void *fake;
    void *fiber;
    bool busy;
    void (*operation)(void *);
    char argument[256];
    struct vcpu *as;
    struct lock *wants;
    bool (*condition)(void *);
    void *condition_argument;
    struct lock *held[8];
    unsigned int nr_held;
} cpus[NR_CPUS];
static int running = -1;
static void *outside_fiber;
char grace_period;
static ucontext_t outside;
static void *outside_fake;
static const void *outside_stack;
static size_t outside_size;

void printf_(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    fflush(stdout);
}

void quiet(const char *format, ...) {}

void tell_seed(void)
{
    if ( current_seed )
        fprintf(stderr, "seed %lu\n", current_seed);
    fflush(stderr);
}

_Noreturn void fail(const char *file, int line, const char *what)
{
    const char *name = strrchr(file, '/');

    fprintf(stderr, "VIOLATION %s:%d: %s\n", name ? name + 1 : file, line, what);
    tell_seed();
    abort();
}

bool input_left(void) { return input.front < input.back; }

uint8_t next_byte(void)
{
    return input_left() ? input.data[input.front++] : 0;
}

/*
 * Whether it happens this time. A byte from the end of the input says how often
 * it does not before, @most times but one, and mostly fewer. Never again when
 * there are no bytes left.
 */
static bool happens(enum chance chance, unsigned int most)
{
    unsigned int *left = &before_next[chance];

    if ( !(chances & chance) )
        return false;
    if ( !*left )
    {
        uint8_t b;

        if ( !input_left() )
            return false;
        b = input.data[--input.back];
        *left = 1 + b / 4 % (b & 1 ? most : (most + 3) / 4);
    }

    return !--*left;
}

bool decide_alloc_failure(void)
{
    return ++alloc_count == fail_alloc_at || happens(CHANCE_ALLOC, 64);
}

bool hypercall_preempt_check(void)
{
    interleave();

    return ++preempt_count == preempt_at || preempt_always ||
           happens(CHANCE_PREEMPT, 8);
}

static bool decide_fault(void)
{
    return ++fault_count == fault_at || happens(CHANCE_FAULT, 64);
}

bool guest_copy_faults(void) { return decide_fault(); }

struct vcpu *become(struct vcpu *v)
{
    struct vcpu *was = cpus[running].as;

    cpus[running].as = v;

    return was;
}

struct vcpu *current_vcpu(void)
{
    static struct vcpu idle;

    return running < 0 ? &idle : cpus[running].as;
}

/* What others have published while this CPU did not run. */
static void find_published(void)
{
    for ( unsigned int i = 0; i < NR_SLOTS; i++ )
        if ( slots[i] )
            race_acquire(&slots[i]->warmcache);
}

static void leave(void)
{
    struct cpu *c = &cpus[running];

    running = -1;
    race_switch(outside_fiber);
    __sanitizer_start_switch_fiber(&c->fake, outside_stack, outside_size);
    swapcontext(&c->context, &outside);
    __sanitizer_finish_switch_fiber(c->fake, &outside_stack, &outside_size);
    find_published();
}

static void body(void)
{
    __sanitizer_finish_switch_fiber(NULL, &outside_stack, &outside_size);
    for ( ; ; )
    {
        struct cpu *c = &cpus[running];

        race_acquire(c);
        find_published();
        c->operation(c->argument);
        race_release(&grace_period);
        ASSERT(!c->nr_held);
        c->busy = false;
        leave();
    }
}

static void enter(unsigned int cpu)
{
    struct cpu *c = &cpus[cpu];

    ASSERT(running < 0);
    running = cpu;
    race_switch(c->fiber);
    __sanitizer_start_switch_fiber(&outside_fake, c->stack, STACK_SIZE);
    swapcontext(&outside, &c->context);
    __sanitizer_finish_switch_fiber(outside_fake, NULL, NULL);
    ASSERT(running < 0);
}

bool cpu_idle(unsigned int cpu) { return !cpus[cpu].busy; }

bool all_idle(void)
{
    for ( unsigned int i = 0; i < NR_CPUS; i++ )
        if ( cpus[i].busy )
            return false;

    return true;
}

void cpu_run(unsigned int cpu, void (*operation)(void *), void *argument,
             size_t size, struct vcpu *as)
{
    struct cpu *c = &cpus[cpu];

    ASSERT(!c->busy && size <= sizeof(c->argument));
    if ( !c->stack )
    {
        c->stack = malloc(STACK_SIZE);
        outside_fiber = race_self();
        c->fiber = race_cpu();
        getcontext(&c->context);
        c->context.uc_stack.ss_sp = c->stack;
        c->context.uc_stack.ss_size = STACK_SIZE;
        makecontext(&c->context, body, 0);
    }
    c->operation = operation;
    memcpy(c->argument, argument, size);
    c->as = as;
    c->busy = true;
    race_release(c); /* what it is to work on was found in the ordinary way */
    enter(cpu);
}

static bool may_go_on(const struct cpu *c)
{
    return c->busy && (!c->wants || !c->wants->holder) &&
           (!c->condition || c->condition(c->condition_argument));
}

void cpus_step(void)
{
    unsigned int able[NR_CPUS], n = 0;

    for ( unsigned int i = 0; i < NR_CPUS; i++ )
        if ( may_go_on(&cpus[i]) )
            able[n++] = i;
    if ( !n )
        STOP("deadlock: no CPU can go on");
    enter(able[n > 1 && input_left() ? input.data[--input.back] % n : 0]);
}

void interleave(void)
{
    if ( running >= 0 && happens(CHANCE_CPUS, 64) )
        leave();
}

void wait_until(bool (*condition)(void *), void *argument)
{
    struct cpu *c = &cpus[running];

    while ( !condition(argument) )
    {
        c->condition = condition;
        c->condition_argument = argument;
        leave();
        c->condition = NULL;
    }
    race_acquire(argument);
}

/* Locks. */

static unsigned int outside_held;

void lock_acquire(struct lock *l)
{
    struct cpu *c = running < 0 ? NULL : &cpus[running];
    int me = running < 0 ? NR_CPUS + 1 : running + 1;

    if ( l->holder == me )
    {
        if ( !l->recursive )
            STOP("lock of rank %d is taken twice", l->rank);
        l->depth++;
        return;
    }
    if ( c )
        for ( unsigned int i = 0; i < c->nr_held; i++ )
            if ( c->held[i]->rank >= l->rank )
                STOP("lock of rank %d is taken with one of rank %d held",
                     l->rank, c->held[i]->rank);
    interleave();
    while ( l->holder )
    {
        if ( !c )
            STOP("a lock was left held");
        c->wants = l;
        leave();
        c->wants = NULL;
    }
    l->holder = me;
    l->depth = 1;
    race_acquire(l);
    if ( c )
        c->held[c->nr_held++] = l;
    else
        outside_held++;
}

void lock_release(struct lock *l)
{
    struct cpu *c = running < 0 ? NULL : &cpus[running];
    unsigned int i;

    if ( !lock_is_mine(l) )
        STOP("a lock is released that is not held");
    if ( --l->depth )
        return;
    race_release(l);
    l->holder = 0;
    if ( c )
    {
        for ( i = 0; c->held[i] != l; i++ )
            ;
        c->held[i] = c->held[--c->nr_held];
    }
    else
        outside_held--;
    interleave();
}

bool lock_is_mine(const struct lock *l)
{
    return l->holder == (running < 0 ? NR_CPUS + 1 : running + 1);
}

/* The locks that a CPU may hold when it touches guest memory. */
void assert_may_sleep(void)
{
    for ( unsigned int i = 0; running >= 0 && i < cpus[running].nr_held; i++ )
        if ( cpus[running].held[i]->rank != RANK_DOMCTL )
            STOP("guest memory is accessed with a lock of rank %d held",
                 cpus[running].held[i]->rank);
    ASSERT(!outside_held);
}

/* Time: one timer is all there is. */

s_time_t now;

s_time_t standin_now(void) { return now; }

void init_timer(struct timer *t, void (*function)(void *), void *data, unsigned int cpu)
{
    *t = (struct timer){ .function = function, .data = data };
}

void set_timer(struct timer *t, s_time_t expires)
{
    interleave();
    t->expires = expires;
    t->armed = true;
}

void timers_run(void)
{
    struct timer *t = reaper_timer;

    while ( t->armed && t->expires <= now )
    {
        t->armed = false;
        t->function(t->data);
    }
}

/* "lh": the position is above the sub-op, as in do_memory_op(). */
long continuation;

long hypercall_create_continuation(unsigned int op, const char *format, ...)
{
    va_list list;

    ASSERT(!strcmp(format, "lh"));
    va_start(list, format);
    continuation = va_arg(list, unsigned long) >> MEMOP_EXTENT_SHIFT;
    va_end(list);

    return -ERESTART;
}

#ifdef RACES
void __tsan_volatile_read1(void *at) {}
void __tsan_volatile_read8(void *at) {}
void __tsan_volatile_write8(void *at) {}

#undef memset
#undef memcpy
#undef memmove
#undef memcmp

void *plain_memset(void *to, int c, size_t n)
{
    for ( unsigned char *p = to; n--; )
        *p++ = c;

    return to;
}

void *plain_memmove(void *to, const void *from, size_t n)
{
    unsigned char *p = to;
    const unsigned char *q = from;

    if ( p <= q )
        while ( n-- )
            *p++ = *q++;
    else
        while ( n-- )
            p[n] = q[n];

    return to;
}

void *plain_memcpy(void *to, const void *from, size_t n)
{
    return plain_memmove(to, from, n);
}

int plain_memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *p = a, *q = b;

    for ( ; n--; p++, q++ )
        if ( *p != *q )
            return *p - *q;

    return 0;
}
#endif
