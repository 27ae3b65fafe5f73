/* SPDX-License-Identifier: Apache-2.0 */
/* dev_memory_emu.c - memory of emulated devices, pinned memory, and memory that processes share.
 *
 * Every allocation is a mapping of its own that ends at a guard page, so that the first byte behind it (rounded to 256)
 * traps, and after free so does every byte.  With AddressSanitizer the rounding is poisoned too.
 *
 * Shared memory is a memfd, which nobody has to unlink: it dies with its last user.  A handle names the process and the
 * descriptor; a peer opens it through /proc, which the same user may.
 *
 * Locks: g_lock guards the list of regions and the count of runners; leaf.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "kernels/cuda/emu/dev_emu.h"

#ifdef __SANITIZE_ADDRESS__
#    include <sanitizer/asan_interface.h>
#    define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#    define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#    define POISON(p, n)   ((void)(p), (void)(n))
#    define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#define PAGE        ((size_t)4096)
#define GRAIN       ((size_t)256)
#define IPC_MAGIC   UINT32_C(0x45495043)
#define NO_DEVICE   (-1)
#define ROUND(n, g) (((n) + (g)-1) / (g) * (g))

typedef struct region {
    struct region *next;
    unsigned char *map; /* guard page, pages, guard page */
    size_t pages_bytes;
    unsigned char *base; /* what the caller has */
    size_t bytes;
    int ordinal;  /* whose memory it counts as; NO_DEVICE: pinned, or a peer's */
    bool guarded; /* closed while nothing runs */
    int fd;       /* shared memory: owned, -1 else */
    int n_opens;  /* by kern_dev_ipc_open() in the process that owns it */
} region;

/* What lies in a kern_dev_ipc. */
typedef struct ipc_handle {
    uint32_t magic;
    int32_t pid, fd;
    uint64_t bytes; /* tells where the memory starts in its pages, too */
} ipc_handle;
_Static_assert(sizeof(ipc_handle) <= KERN_DEV_IPC_BYTES, "handles travel in kern_dev_ipc");

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static region *g_regions; /* owned */
static int g_runners;

static void set_access(const region *r, bool open)
{
    /* Closing cannot fail for mappings of our own; opening only when the kernel is out of memory for its tables, and
     * then the access itself traps. */
    (void)mprotect(r->map + PAGE, r->pages_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

static void set_all_access(bool open)
{
    for (const region *r = g_regions; r != NULL; r = r->next)
        if (r->guarded)
            set_access(r, open);
}

void emu_memory_open(void)
{
    (void)pthread_mutex_lock(&g_lock);
    if (g_runners++ == 0)
        set_all_access(true);
    (void)pthread_mutex_unlock(&g_lock);
}

void emu_memory_close(void)
{
    (void)pthread_mutex_lock(&g_lock);
    if (--g_runners == 0)
        set_all_access(false);
    (void)pthread_mutex_unlock(&g_lock);
}

/* The region that holds [p, p + bytes), or NULL.  Caller holds g_lock. */
static region *find_region(const void *p, size_t bytes)
{
    const unsigned char *b = p;

    for (region *r = g_regions; r != NULL; r = r->next)
        if (b >= r->base && bytes <= r->bytes && b <= r->base + (r->bytes - bytes))
            return r;
    return NULL;
}

static bool is_kind(const void *p, size_t bytes, bool device)
{
    const region *r;
    bool yes;

    (void)pthread_mutex_lock(&g_lock);
    r = find_region(p, bytes);
    yes = r != NULL && r->guarded == device;
    (void)pthread_mutex_unlock(&g_lock);
    return yes;
}

bool emu_is_device(const void *p, size_t bytes)
{
    return emu_get_machine()->open_memory ? true : is_kind(p, bytes, true);
}

bool emu_is_pinned(const void *p, size_t bytes)
{
    return emu_get_machine()->open_memory ? true : is_kind(p, bytes, false);
}

static int64_t bytes_used(int ordinal)
{
    int64_t used = 0;

    (void)pthread_mutex_lock(&g_lock);
    for (const region *r = g_regions; r != NULL; r = r->next)
        if (r->ordinal == ordinal)
            used += (int64_t)ROUND(r->bytes, GRAIN);
    (void)pthread_mutex_unlock(&g_lock);
    return used;
}

/* Maps the pages of r between two guard pages; base is set so that the end meets the second one. */
static bool map_region(region *r)
{
    int flags = r->fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    size_t room = ROUND(r->bytes, GRAIN);

    r->pages_bytes = ROUND(room != 0 ? room : 1, PAGE);
    r->map = mmap(NULL, r->pages_bytes + 2 * PAGE, PROT_NONE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r->map == MAP_FAILED) {
        r->map = NULL;
        return false;
    }
    if (mmap(r->map + PAGE, r->pages_bytes, PROT_READ | PROT_WRITE,
             flags | MAP_FIXED | MAP_NORESERVE, r->fd, 0) == MAP_FAILED)
        return false;
    r->base = r->map + PAGE + (r->pages_bytes - room);
    POISON(r->map + PAGE, (size_t)(r->base - (r->map + PAGE)));
    POISON(r->base + r->bytes, room - r->bytes);
    return true;
}

static void destroy_region(region *r)
{
    if (r == NULL)
        return;
    if (r->map != NULL) {
        UNPOISON(r->map + PAGE, r->pages_bytes);
        (void)munmap(r->map, r->pages_bytes + 2 * PAGE);
    }
    if (r->fd >= 0)
        (void)close(r->fd);
    tp_free(r);
}

static void add_region(region *r)
{
    (void)pthread_mutex_lock(&g_lock);
    r->next = g_regions;
    g_regions = r;
    if (r->guarded && g_runners == 0)
        set_access(r, false);
    (void)pthread_mutex_unlock(&g_lock);
}

/* Makes a region of `ordinal`; with fd >= 0 from that file, which becomes the region's. */
static region *create_region(size_t bytes, int ordinal, bool guarded, int fd)
{
    region *r = tp_calloc(1, sizeof *r);

    if (r == NULL) {
        if (fd >= 0)
            (void)close(fd);
        return NULL;
    }
    *r = (region){.bytes = bytes,
                  .ordinal = ordinal,
                  .guarded = guarded && !emu_get_machine()->open_memory,
                  .fd = fd};
    if (!map_region(r)) {
        destroy_region(r);
        return NULL;
    }
    add_region(r);
    return r;
}

/* Takes the region that starts at p out of the list; freeing what was never allocated is a bug. */
static region *take_region(const void *p)
{
    region **link, *found;

    (void)pthread_mutex_lock(&g_lock);
    for (link = &g_regions; *link != NULL && (*link)->base != p; link = &(*link)->next)
        ;
    found = *link;
    TP_ASSERT(found != NULL);
    *link = found->next;
    (void)pthread_mutex_unlock(&g_lock);
    return found;
}

tp_status kern_dev_memory(kern_dev *d, int64_t *total, int64_t *available)
{
    TP_TRY(emu_usable(d));
    *total = d->props.memory_bytes;
    *available = d->props.memory_bytes - bytes_used(d->props.ordinal);
    return TP_OK;
}

static tp_status check_room(kern_dev *d, size_t bytes)
{
    int64_t used = bytes_used(d->props.ordinal), total = d->props.memory_bytes;

    if (bytes <= (size_t)total && (int64_t)ROUND(bytes, GRAIN) <= total - used)
        return TP_OK;
    return TP_FAIL(TP_ERR_NOMEM,
                   "device %d: cudaErrorMemoryAllocation: no room for %zu bytes, %lld of %lld are "
                   "free; lower --gpu-memory-utilization or the limits of a step",
                   d->props.ordinal, bytes, (long long)(total - used), (long long)total);
}

tp_status kern_dev_alloc(kern_dev *d, size_t bytes, void **out)
{
    region *r;

    TP_TRY(emu_usable(d));
    TP_TRY(emu_not_recording(d, "memory was asked for"));
    TP_TRY(check_room(d, bytes));
    r = create_region(bytes, d->props.ordinal, true, -1);
    if (r == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "device %d: the host has no memory for %zu emulated bytes",
                       d->props.ordinal, bytes);
    *out = r->base;
    return TP_OK;
}

/* As cudaFree() does, waits for everything that may still use it. */
void kern_dev_free(kern_dev *d, void *p)
{
    if (p == NULL)
        return;
    emu_run_all(d);
    destroy_region(take_region(p));
}

tp_status kern_dev_alloc_pinned(kern_dev *d, size_t bytes, void **out)
{
    region *r;

    TP_TRY(emu_usable(d));
    TP_TRY(emu_not_recording(d, "pinned memory was asked for"));
    r = create_region(bytes, NO_DEVICE, false, -1);
    if (r == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "device %d: no host memory for %zu pinned bytes",
                       d->props.ordinal, bytes);
    *out = r->base;
    return TP_OK;
}

void kern_dev_free_pinned(kern_dev *d, void *p)
{
    kern_dev_free(d, p);
}

/* ---- shared between processes ---- */
tp_status kern_dev_alloc_shared(kern_dev *d, size_t bytes, void **out, kern_dev_ipc *handle)
{
    size_t room = ROUND(bytes, GRAIN), pages = ROUND(room != 0 ? room : 1, PAGE);
    ipc_handle h = {.magic = IPC_MAGIC, .pid = (int32_t)getpid(), .bytes = bytes};
    region *r;

    TP_TRY(emu_usable(d));
    TP_TRY(emu_not_recording(d, "shared memory was asked for"));
    TP_TRY(check_room(d, bytes));
    h.fd = memfd_create("tpserve-emu", MFD_CLOEXEC);
    if (h.fd < 0)
        return TP_FAIL(TP_ERR_IO, "memfd_create: %m");
    if (ftruncate(h.fd, (off_t)pages) != 0) {
        tp_status st = TP_FAIL(TP_ERR_NOMEM, "shared memory of %zu bytes: %m", bytes);

        (void)close(h.fd);
        return st;
    }
    r = create_region(bytes, d->props.ordinal, true, h.fd);
    if (r == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "device %d: cannot map %zu shared bytes", d->props.ordinal,
                       bytes);
    memset(handle, 0, sizeof *handle);
    memcpy(handle, &h, sizeof h);
    *out = r->base;
    return TP_OK;
}

void kern_dev_free_shared(kern_dev *d, void *p)
{
    kern_dev_free(d, p);
}

/* Memory of this very process (virtual ranks): the pointer itself, counted. */
static void *open_own(const ipc_handle *h)
{
    void *p = NULL;

    (void)pthread_mutex_lock(&g_lock);
    for (region *r = g_regions; r != NULL && p == NULL; r = r->next)
        if (r->fd >= 0 && r->fd == h->fd && r->bytes == h->bytes) {
            r->n_opens++;
            p = r->base;
        }
    (void)pthread_mutex_unlock(&g_lock);
    return p;
}

static region *open_peer(const ipc_handle *h)
{
    char path[64];
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)h->pid, (int)h->fd);
    fd = open(path, O_RDWR | O_CLOEXEC);
    return fd >= 0 ? create_region((size_t)h->bytes, NO_DEVICE, true, fd) : NULL;
}

tp_status kern_dev_ipc_open(kern_dev *d, const kern_dev_ipc *handle, void **out)
{
    ipc_handle h;
    region *r;

    TP_TRY(emu_usable(d));
    memcpy(&h, handle, sizeof h);
    if (h.magic != IPC_MAGIC)
        return emu_fail(d, "cudaErrorInvalidResourceHandle", "this is no handle of shared memory");
    if (h.pid == (int32_t)getpid()) {
        void *p = open_own(&h);

        if (p == NULL)
            return emu_fail(d, "cudaErrorInvalidResourceHandle", "the shared memory is gone");
        *out = p;
        return TP_OK;
    }
    r = open_peer(&h);
    if (r == NULL)
        return TP_FAIL(TP_ERR_DEVICE,
                       "device %d: cudaErrorMapBufferObjectFailed: memory of process %d: %m",
                       d->props.ordinal, (int)h.pid);
    *out = r->base;
    return TP_OK;
}

void kern_dev_ipc_close(kern_dev *d, void *p)
{
    bool own = false;

    (void)d;
    if (p == NULL)
        return;
    (void)pthread_mutex_lock(&g_lock);
    for (region *r = g_regions; r != NULL; r = r->next)
        if (r->base == p && r->n_opens > 0) {
            r->n_opens--;
            own = true;
        }
    (void)pthread_mutex_unlock(&g_lock);
    if (!own)
        destroy_region(take_region(p));
}
