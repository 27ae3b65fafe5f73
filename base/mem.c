/* SPDX-License-Identifier: Apache-2.0 */
/* mem.c - counting and failing wrappers around the heap; large aligned blocks straight from the kernel.
 *
 * Aligned blocks of LARGE_BYTES and more are anonymous mappings on a huge page boundary: their pages are zero
 * without being touched (the thread that first writes one decides its NUMA node) and go back to the system at
 * once when freed.  They are kept in a list, so that tp_free can tell them from heap blocks; only a pointer on
 * a huge page boundary is looked up, which hardly any heap pointer is.
 */
#include "base/mem.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_BYTES                                                                                 \
    ((size_t)4 << 10) /* the tail of a large block is small pages: nothing is wasted */
#define HUGE_BYTES  ((size_t)2 << 20)
#define LARGE_BYTES ((size_t)4 << 20)
#define MAP_BYTES                                                                                  \
    (128 << 10) /* heap blocks from this size on are mappings where no hole is large enough */
#define SPARE_BYTES ((size_t)32 << 20) /* of freed pages that are kept for the next to ask */
#define FAIL_OFF    INT64_C(-1)

typedef struct mapping {
    struct mapping *next;
    void *base;
    size_t bytes;
} mapping;

static pthread_mutex_t g_mappings_lock = PTHREAD_MUTEX_INITIALIZER;
static mapping *g_mappings; /* owned; guarded by g_mappings_lock */

/* At the start of a freed block of pages. */
typedef struct spare {
    struct spare *next;
    size_t bytes; /* of the block */
} spare;

static pthread_mutex_t g_spares_lock = PTHREAD_MUTEX_INITIALIZER;
static spare *g_spares;      /* owned; guarded by g_spares_lock */
static size_t g_spare_bytes; /* guarded by g_spares_lock */

static atomic_int_fast64_t g_count;
static atomic_int_fast64_t g_fail_after = FAIL_OFF;
static atomic_bool g_fail_lasts;
static _Thread_local int g_forbidden;

/* Counts one allocation; false when an injected failure is due. */
static bool may_allocate(void)
{
    int_fast64_t left;

    TP_ASSERT(g_forbidden == 0);
    atomic_fetch_add_explicit(&g_count, 1, memory_order_relaxed);
    left = atomic_load_explicit(&g_fail_after, memory_order_relaxed);
    while (TP_UNLIKELY(left != FAIL_OFF)) {
        int_fast64_t next = left > 0 ? left - 1 : atomic_load(&g_fail_lasts) ? 0 : FAIL_OFF;

        if (atomic_compare_exchange_weak(&g_fail_after, &left, next))
            return left > 0;
    }
    return true;
}

void *tp_malloc(size_t size)
{
    return may_allocate() ? malloc(size != 0 ? size : 1) : NULL;
}

void *tp_calloc(size_t n, size_t size)
{
    size_t bytes;

    if (!may_allocate() || __builtin_mul_overflow(n, size, &bytes))
        return NULL;
    return calloc(bytes != 0 ? bytes : 1, 1);
}

static bool is_on_huge_boundary(const void *p)
{
    return ((uintptr_t)p & (HUGE_BYTES - 1)) == 0;
}

void *tp_realloc(void *p, size_t size)
{
    return may_allocate() ? realloc(p, size != 0 ? size : 1) : NULL;
}

char *tp_strdup(const char *s)
{
    return tp_strndup(s, strlen(s));
}

char *tp_strndup(const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *copy = tp_malloc(len + 1);

    if (copy == NULL)
        return NULL;
    memcpy(copy, s, len);
    copy[len] = '\0';
    return copy;
}

/* Maps `bytes` on a boundary of `align` and gives back what the alignment cost. */
static void *map_aligned(size_t align, size_t bytes)
{
    char *raw, *base;
    size_t head, tail;

    if (bytes > SIZE_MAX - align)
        return NULL;
    raw = mmap(NULL, bytes + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    head = (align - ((uintptr_t)raw & (align - 1))) & (align - 1);
    tail = align - head;
    base = raw + head;
    if (head > 0)
        (void)munmap(raw, head);
    if (tail > 0)
        (void)munmap(base + bytes, tail);
    (void)madvise(base, bytes, MADV_HUGEPAGE); /* a wish: works without */
    return base;
}

static size_t whole_pages(size_t size)
{
    return (size + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

size_t tp_aligned_bytes(size_t size)
{
    return size < LARGE_BYTES ? size : whole_pages(size);
}

static void *large_alloc(size_t align, size_t size)
{
    mapping *m = malloc(sizeof *m);

    if (m == NULL || size > SIZE_MAX - HUGE_BYTES)
        goto fail;
    m->bytes = tp_aligned_bytes(size);
    m->base = map_aligned(align > HUGE_BYTES ? align : HUGE_BYTES, m->bytes);
    if (m->base == NULL)
        goto fail;
    (void)pthread_mutex_lock(&g_mappings_lock);
    m->next = g_mappings;
    g_mappings = m;
    (void)pthread_mutex_unlock(&g_mappings_lock);
    return m->base;
fail:
    free(m);
    return NULL;
}

/* Takes the mapping that starts at p out of the list; NULL when p is a heap block. */
static mapping *take_mapping(const void *p)
{
    mapping **link, *found;

    (void)pthread_mutex_lock(&g_mappings_lock);
    for (link = &g_mappings; *link != NULL && (*link)->base != p; link = &(*link)->next)
        ;
    found = *link;
    if (found != NULL)
        *link = found->next;
    (void)pthread_mutex_unlock(&g_mappings_lock);
    return found;
}

void tp_free(void *p)
{
    if (TP_UNLIKELY(is_on_huge_boundary(p)) && p != NULL) {
        mapping *m = take_mapping(p);

        if (m != NULL) {
            (void)munmap(m->base, m->bytes);
            free(m);
            return;
        }
    }
    free(p);
}

void *tp_aligned_alloc(size_t align, size_t size)
{
    void *p = NULL;

    TP_ASSERT(align >= 16 && (align & (align - 1)) == 0);
    if (!may_allocate())
        return NULL;
    if (size >= LARGE_BYTES)
        return large_alloc(align, size);
    if (posix_memalign(&p, align, size != 0 ? size : 1) != 0)
        return NULL;
    memset(p, 0, size);
    return p;
}

/* ---- pages beside the heap ---- */

/* Takes a spare block of this size; NULL when there is none. */
static void *take_spare(size_t bytes)
{
    spare **link, *found;

    (void)pthread_mutex_lock(&g_spares_lock);
    for (link = &g_spares; *link != NULL && (*link)->bytes != bytes; link = &(*link)->next)
        ;
    found = *link;
    if (found != NULL) {
        *link = found->next;
        g_spare_bytes -= bytes;
    }
    (void)pthread_mutex_unlock(&g_spares_lock);
    return found;
}

void *tp_pages_alloc(size_t size)
{
    void *p;

    if (!may_allocate() || size == 0 || size > SIZE_MAX - PAGE_BYTES)
        return NULL;
    size = whole_pages(size);
    p = take_spare(size);
    if (p != NULL)
        return p;
    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p != MAP_FAILED ? p : NULL;
}

void tp_pages_free(void *p, size_t size)
{
    size_t bytes = whole_pages(size);
    spare *s = p;

    if (p == NULL)
        return;
    (void)pthread_mutex_lock(&g_spares_lock);
    if (g_spare_bytes + bytes <= SPARE_BYTES) {
        g_spare_bytes += bytes;
        *s = (spare){.next = g_spares, .bytes = bytes};
        g_spares = s;
        p = NULL;
    }
    (void)pthread_mutex_unlock(&g_spares_lock);
    if (p != NULL)
        (void)munmap(p, bytes);
}

/* Left alone, glibc takes the size of the largest block that was ever freed for ordinary: up to 32 MiB come from the heap
 * then, and twice as much is kept at its end. */
void tp_mem_init(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, MAP_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, 8 * MAP_BYTES);
}

void tp_mem_trim(void)
{
    spare *s;

    (void)pthread_mutex_lock(&g_spares_lock);
    s = g_spares;
    g_spares = NULL;
    g_spare_bytes = 0;
    (void)pthread_mutex_unlock(&g_spares_lock);
    while (s != NULL) {
        spare *next = s->next;

        (void)munmap(s, s->bytes);
        s = next;
    }
    (void)malloc_trim(0);
}

void tp_mem_forbid(bool on)
{
    g_forbidden += on ? 1 : -1;
    TP_ASSERT(g_forbidden >= 0);
}

void tp_mem_fail_after(int64_t n)
{
    atomic_store(&g_fail_lasts, true);
    atomic_store(&g_fail_after, n < 0 ? FAIL_OFF : n);
}

void tp_mem_fail_once(int64_t n)
{
    atomic_store(&g_fail_lasts, false);
    atomic_store(&g_fail_after, n < 0 ? FAIL_OFF : n);
}

int64_t tp_mem_count(void)
{
    return atomic_load_explicit(&g_count, memory_order_relaxed);
}
