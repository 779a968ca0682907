/*
 * What ThreadSanitizer is told, if the sources are compiled for it. Each CPU is a
 * thread to it, although only one runs at a time: it is enough that an access could
 * have come at the same time as another, by what orders them. Locks do, and whatever
 * else is told below; that CPUs change over does not. The model itself, of which only
 * one CPU at a time is in the middle, is not compiled for it; RACES_LOOKED_FOR is
 * defined by what is.
 */
#ifndef RACES_H
#define RACES_H

#ifdef RACES

#include <sanitizer/asan_interface.h>

void __tsan_acquire(void *);
void __tsan_release(void *);
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned int flags);
void __tsan_switch_to_fiber(void *fiber, unsigned int flags);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);

/*
 * What is published by a pointer that is written once is found through it, which
 * orders the one before the other. The pointer itself is read at any time.
 */
#define LOOSE volatile

/* What one CPU does after another may race with it as well as what it does beside it. */
#define RACE_CPU(n) ((n) / 9 % NR_CPUS) /* an operation takes nine bytes, or some more */

#define race_self() __tsan_get_current_fiber()
#define race_cpu() __tsan_create_fiber(0)
/* 1: without what is before being ordered with what is after. */
#define race_switch(fiber) __tsan_switch_to_fiber(fiber, 1)
#define race_acquire(p) __tsan_acquire((void *)(p))
#define race_release(p) __tsan_release((void *)(p))

/* These are AddressSanitizer's. */
#define __sanitizer_start_switch_fiber(fake, bottom, size) ((void)(fake))
#define __sanitizer_finish_switch_fiber(fake, bottom, size) ((void)(fake))
#define __asan_poison_memory_region(at, size) ((void)(at))
#define __asan_unpoison_memory_region(at, size) ((void)(at))

static inline int race_look(void)
{
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);

    return 0;
}

static inline void race_looked(const int *unused)
{
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

/* For a function of the model, which looks at what it likes without a lock. */
#define LOOK __attribute__((cleanup(race_looked), unused)) int look = race_look()

static inline int race_boot(void)
{
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);

    return 0;
}

static inline void race_booted(const int *unused)
{
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
}

/* For what Xen does before there is another CPU, and the model between two runs. */
#define BOOT __attribute__((cleanup(race_booted), unused)) int boot = race_boot()

/* Those of the library would be taken for accesses. */
#ifndef RACES_LOOKED_FOR
void *plain_memset(void *to, int c, size_t n);
void *plain_memcpy(void *to, const void *from, size_t n);
void *plain_memmove(void *to, const void *from, size_t n);
int plain_memcmp(const void *a, const void *b, size_t n);
#define memset(to, c, n) plain_memset(to, c, n)
#define memcpy(to, from, n) plain_memcpy(to, from, n)
#define memmove(to, from, n) plain_memmove(to, from, n)
#define memcmp(a, b, n) plain_memcmp(a, b, n)
#endif

#else

#define LOOSE
#define RACE_CPU(n) 0
#define race_self() NULL
#define race_cpu() NULL
#define race_switch(fiber) ((void)(fiber))
#define race_acquire(p) ((void)(p))
#define race_release(p) ((void)(p))
#define LOOK ((void)0)
#define BOOT ((void)0)

#endif
#endif
