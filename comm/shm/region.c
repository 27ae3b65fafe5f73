/* SPDX-License-Identifier: Apache-2.0 */
/* region.c - see region.h.
 *
 * First choice is a memfd: it has no name, so nothing can be left behind whenever a rank dies, and it does not count
 * against the size of /dev/shm, which is 64 MiB in a container.  Rank 0 tells its pid and descriptor through MPI;
 * peers open /proc/<pid>/fd/<fd>.  A random token in the memory proves that it is the right object (ranks in
 * different pid namespaces would look at some other process).  The size is sealed, so no peer can cut it away.
 *
 * If any rank cannot map that, a POSIX object "tpserve.<uid>.<token>" is used, fully allocated at once (a short
 * /dev/shm is then an error message and not a SIGBUS), and its name is removed as soon as all have tried to map it.
 * A death in the milliseconds between leaves the name; its maker holds a flock as long as it lives, so the next
 * start can tell and sweeps it.
 *
 * Open MPI keeps 4 MiB per rank named vader_segment.* (sm_segment.* from 5.0) in /dev/shm until MPI_Finalize, and
 * for ever after an unclean death.  Once all local ranks are attached the names are not needed: they are removed,
 * and older ones that no visible process maps are swept at start.
 */
#include "comm/shm/region.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "comm/mpi/mpi_boot.h"

#define SHM_DIR     "/dev/shm"
#define OUR_PREFIX  "tpserve."
#define SWEEP_AGE_S 60 /* younger files may belong to a job that is starting */

/* What rank 0 tells the others. */
typedef struct invitation {
    /* Also the first 8 bytes of the memory until all have mapped it; 0 = rank 0 failed. */
    uint64_t token;
    uint64_t bytes;
    int32_t pid, fd;
} invitation;

static void token_name(char *name, size_t cap, uint64_t token)
{
    snprintf(name, cap, "/" OUR_PREFIX "%u.%016" PRIx64, (unsigned)getuid(), token);
}

/* Maps the memory behind fd; the token must be there unless we write it. */
static void *map_checked(int fd, const invitation *inv, bool writer)
{
    struct stat sb;
    uint64_t *p;

    if (fstat(fd, &sb) != 0 || (uint64_t)sb.st_size != inv->bytes)
        return NULL;
    p = mmap(NULL, inv->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (writer)
        *p = inv->token;
    if (*p != inv->token) {
        munmap(p, inv->bytes);
        return NULL;
    }
    return p;
}

static int make_memfd(const invitation *inv)
{
    int fd;

    if (tp_fault_hit("comm.memfd"))
        return -1;
    fd = memfd_create("tpserve", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)inv->bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int make_named(const invitation *inv)
{
    char name[64];
    int fd, err;

    token_name(name, sizeof name, inv->token);
    fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) {
        tp_warn("comm", "shm_open %s: %s", name, strerror(errno));
        return -1;
    }
    (void)flock(fd, LOCK_SH);
    err = posix_fallocate(fd, 0, (off_t)inv->bytes);
    if (err != 0) {
        tp_warn("comm", "%s%s needs %" PRIu64 " MiB: %s; enlarge /dev/shm", SHM_DIR, name,
                inv->bytes >> 20, strerror(err));
        shm_unlink(name);
        close(fd);
        return -1;
    }
    return fd;
}

static int open_invited(const invitation *inv, bool named)
{
    char path[64];

    if (named) {
        token_name(path, sizeof path, inv->token);
        return shm_open(path, O_RDWR, 0600);
    }
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)inv->pid, (int)inv->fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

/* One try, collective.  *out is NULL on every rank when any rank could not map. */
static tp_status try_once(void **out, const comm_world *world, size_t bytes, bool named)
{
    invitation inv = {.bytes = bytes, .pid = getpid(), .fd = -1};
    void *addr = NULL;
    bool all = false;
    int fd = -1;

    if (world->rank == 0 && getrandom(&inv.token, sizeof inv.token, 0) == sizeof inv.token) {
        inv.token |= 1; /* never 0 */
        inv.fd = fd = named ? make_named(&inv) : make_memfd(&inv);
        addr = fd >= 0 ? map_checked(fd, &inv, true) : NULL;
        if (addr == NULL)
            inv.token = 0;
    }
    TP_TRY(comm_mpi_share(&inv, sizeof inv));
    if (world->rank != 0 && inv.token != 0) {
        fd = open_invited(&inv, named);
        addr = fd >= 0 ? map_checked(fd, &inv, false) : NULL;
    }
    TP_TRY(comm_mpi_agree(addr != NULL, &all));
    if (named && world->rank == 0 && fd >= 0) {
        char name[64];

        token_name(name, sizeof name, inv.token);
        if (inv.token != 0)
            shm_unlink(name);
    }
    if (fd >= 0)
        close(fd);
    if (!all) {
        if (addr != NULL)
            munmap(addr, bytes);
        addr = NULL;
    } else if (world->rank == 0) {
        *(uint64_t *)addr = 0; /* the token has done its work */
    }
    TP_TRY(comm_mpi_agree(true, &all)); /* nobody uses the memory before the token is gone */
    *out = addr;
    return TP_OK;
}

tp_status comm_region_create(comm_region *out, const comm_world *world, size_t bytes)
{
    void *addr = NULL;

    TP_TRY(try_once(&addr, world, bytes, false));
    if (addr == NULL) {
        if (world->rank == 0)
            tp_info("comm", "memfd cannot be shared between the ranks; trying " SHM_DIR);
        TP_TRY(try_once(&addr, world, bytes, true));
    }
    if (addr == NULL)
        return TP_REJECT(TP_ERR_IO, "%zu MiB of memory cannot be shared between the ranks of %s",
                         bytes >> 20, world->host);
    *out = (comm_region){addr, bytes};
    return TP_OK;
}

tp_status comm_region_create_private(comm_region *out, size_t bytes)
{
    void *addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (addr == MAP_FAILED)
        return TP_FAIL(TP_ERR_NOMEM, "mmap of %zu bytes: %s", bytes, strerror(errno));
    *out = (comm_region){addr, bytes};
    return TP_OK;
}

void comm_region_release(comm_region *r)
{
    if (r->addr != NULL)
        munmap(r->addr, r->bytes);
    *r = (comm_region){0};
}

/* ---- what is left behind ---- */

static bool is_mpi_segment(const char *name)
{
    return strncmp(name, "vader_segment.", 14) == 0 || strncmp(name, "sm_segment.", 11) == 0;
}

/* Does /proc/<pid>/maps mention the path? */
static bool maps_mention(const char *pid, const char *path)
{
    char line[512], maps[300];
    bool found = false;
    FILE *f;

    snprintf(maps, sizeof maps, "/proc/%s/maps", pid);
    f = fopen(maps, "re");
    if (f == NULL)
        return false;
    while (!found && fgets(line, sizeof line, f) != NULL)
        found = strstr(line, path) != NULL;
    fclose(f);
    return found;
}

static bool mapped_by_anyone(const char *path)
{
    DIR *d = opendir("/proc");
    struct dirent *e;
    bool found = false;

    if (d == NULL)
        return true; /* cannot tell */
    while (!found && (e = readdir(d)) != NULL)
        found = isdigit((unsigned char)e->d_name[0]) && maps_mention(e->d_name, path);
    closedir(d);
    return found;
}

/* True when the maker of one of our names is gone. */
static bool lock_is_free(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    bool free_now;

    if (fd < 0)
        return false;
    free_now = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return free_now;
}

void comm_region_sweep(void)
{
    DIR *d = opendir(SHM_DIR);
    struct dirent *e;

    if (d == NULL)
        return;
    while ((e = readdir(d)) != NULL) {
        char path[300];
        struct stat sb;
        bool mpi = is_mpi_segment(e->d_name);

        if (!mpi && strncmp(e->d_name, OUR_PREFIX, sizeof OUR_PREFIX - 1) != 0)
            continue;
        snprintf(path, sizeof path, SHM_DIR "/%s", e->d_name);
        if (lstat(path, &sb) != 0 || !S_ISREG(sb.st_mode) || sb.st_uid != geteuid() ||
            time(NULL) - sb.st_mtime < SWEEP_AGE_S)
            continue;
        if (mpi ? mapped_by_anyone(path) : !lock_is_free(path))
            continue;
        if (unlink(path) == 0)
            tp_info("comm", "removed %s, left by a job that died", path);
    }
    closedir(d);
}

/* Calls `act` with the path of every MPI segment that this process maps. */
static void each_mpi_segment(void (*act)(const char *path))
{
    char line[512];
    FILE *f = fopen("/proc/self/maps", "re");

    if (f == NULL)
        return;
    while (fgets(line, sizeof line, f) != NULL) {
        char *path = strstr(line, SHM_DIR "/");

        if (path == NULL || !is_mpi_segment(path + sizeof SHM_DIR))
            continue;
        path[strcspn(path, " \n")] = '\0'; /* also cuts " (deleted)" */
        act(path);
    }
    fclose(f);
}

static void remove_name(const char *path)
{
    (void)unlink(path); /* ENOENT: a peer was first */
}

static void make_empty(const char *path)
{
    int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0)
        close(fd);
}

void comm_region_unname_mpi(void)
{
    each_mpi_segment(remove_name);
}

void comm_region_rename_mpi(void)
{
    each_mpi_segment(make_empty);
}
