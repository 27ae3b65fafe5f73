/* SPDX-License-Identifier: Apache-2.0 */
/* mem.h - the only door to the heap.
 *
 * All of tpserve allocates here, so that tests can fail the n-th allocation and so that the step loop can
 * prove that it allocates nothing.  Threads: any; tp_mem_forbid() concerns the calling thread only.
 */
#ifndef TP_MEM_H
#define TP_MEM_H

#include <stdint.h>

#include "base/status.h"

/* NULL when memory is short or an injected failure is due.  Size 0 yields a unique pointer. */
void *tp_malloc(size_t size);
void *tp_calloc(size_t n, size_t size); /* zeroed; NULL when n * size overflows */
void *tp_realloc(void *p, size_t size); /* on NULL the old block is still valid */
char *tp_strdup(const char *s);
char *tp_strndup(const char *s, size_t n);
void tp_free(void *p); /* NULL is fine; also frees tp_aligned_alloc() */

/* `align` is a power of two >= 16; contents are zero.  Large blocks ask for huge pages. */
void *tp_aligned_alloc(size_t align, size_t size);
/* Bytes that such a block takes from the system: large ones are whole pages.  For memory plans. */
size_t tp_aligned_bytes(size_t size);

/* Whole pages beside the heap, with any contents: for what is large and lives as long as a request.  They leave no holes
 * behind; a few are kept for the next to ask, the others go back to the system at once.  The owner remembers the size;
 * NULL is fine to free. */
void *tp_pages_alloc(size_t size);
void tp_pages_free(void *p, size_t size);

/* Once, before there are threads: large blocks always go back to the system when they are freed. */
void tp_mem_init(void);
/* Gives free pages inside the heap back to the system: milliseconds after a peak, and other threads may wait for it. */
void tp_mem_trim(void);

/* While true, an allocation by this thread is a bug (TP_ASSERT).  Nests by counting. */
void tp_mem_forbid(bool on);

/* Test hooks: let `n` more allocations of this process succeed, then fail every later one, or only the next; -1 = off. */
void tp_mem_fail_after(int64_t n);
void tp_mem_fail_once(int64_t n);
/* Allocations made so far by this process. */
int64_t tp_mem_count(void);

#endif
