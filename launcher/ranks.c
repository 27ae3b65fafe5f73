/* SPDX-License-Identifier: Apache-2.0 */
/* ranks.c - a parent that stays: it turns signals into what mpirun understands and hands its exit code on.
 *
 * mpirun answers SIGTERM by killing the ranks within two seconds; only SIGUSR1 is forwarded and lets them drain.  So the
 * child runs in a process group of its own (a terminal's Ctrl-C reaches this process alone) and is sent SIGUSR1 first.
 */
#include "launcher/ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "launcher/bind.h"

/* The first of these variables that holds a number; -1 when none does. */
static int env_number(const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *v = getenv(names[i]);
        char *end;
        long number;

        if (v == NULL || *v == '\0')
            continue;
        number = strtol(v, &end, 10);
        if (*end == '\0')
            return (int)number;
    }
    return -1;
}

int launch_env_rank(void)
{
    static const char *const k_names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                          "SLURM_PROCID"};

    return env_number(k_names, TP_ARRAY_LEN(k_names));
}

bool launch_env_speaks(void)
{
    static const char *const k_local[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                                          "SLURM_LOCALID"};

    return launch_env_rank() <= 0 || env_number(k_local, TP_ARRAY_LEN(k_local)) == 0;
}

bool launch_under_launcher(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") != NULL || getenv("PMIX_RANK") != NULL ||
           getenv("PMI_RANK") != NULL || getenv("SLURM_STEP_NUM_TASKS") != NULL;
}

/* ---- the command line of mpirun ---- */

typedef struct arg_list {
    const char **items; /* owned; NULL-terminated */
    int n, max;
} arg_list;

static void put(arg_list *l, const char *arg)
{
    TP_ASSERT(l->n + 1 < l->max);
    l->items[l->n++] = arg;
}

/* Our own options for the ranks, all but the secrets: those must not show in anybody's process title. */
static void put_own_options(arg_list *l, int argc, char *const *argv)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i] + strspn(argv[i], "-");
        size_t len = strcspn(name, "=");
        const launch_row *row = name > argv[i] ? launch_find(name, len) : NULL;

        if (row == NULL || (row->flags & LAUNCH_SECRET) == 0)
            put(l, argv[i]);
        else if (name[len] != '=')
            i++;
    }
}

/* The keys travel in the environment, one per line. */
static tp_status pass_keys_on(const launch_list *keys)
{
    tp_status st = TP_OK;
    tp_buf all;

    if (keys->n == 0)
        return TP_OK;
    tp_buf_init(&all, 1 << 20);
    for (int i = 0; i < keys->n; i++)
        tp_buf_printf(&all, "%s%s", i > 0 ? "\n" : "", keys->items[i]);
    if (all.failed || setenv("TPSERVE_API_KEY", tp_buf_str(&all), 1) != 0)
        st = TP_FAIL(TP_ERR_NOMEM, "cannot hand the API keys to the ranks");
    if (all.data != NULL)
        tp_wipe(all.data, all.len);
    tp_buf_release(&all);
    return st;
}

static void detach_stdin(void)
{
    int fd = open("/dev/null", O_RDONLY);

    if (fd < 0)
        return;
    dup2(fd, STDIN_FILENO);
    close(fd);
}

/* In the child. */
TP_NORETURN static void exec_mpirun(const launch_options *opt, int argc, char *const *argv)
{
    int n = (int)opt->tensor_parallel_size;
    arg_list l = {.max = argc + 16};
    char count[16], exe[4096];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);

    l.items = tp_calloc((size_t)l.max, sizeof *l.items);
    if (l.items == NULL || len <= 0 || pass_keys_on(&opt->api_key) != TP_OK)
        _exit(1);
    exe[len] = '\0';
    snprintf(count, sizeof count, "%d", n);
    put(&l, "mpirun");
    if (n > launch_usable_cores())
        put(&l, "--oversubscribe");
    put(&l, "--bind-to");
    put(&l, "none");
    put(&l, "-np");
    put(&l, count);
    put(&l, exe);
    put_own_options(&l, argc, argv);
    detach_stdin();
    if (geteuid() == 0) { /* the user has started us as root: no need to ask again */
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    }
    execvp("mpirun", (char *const *)(uintptr_t)l.items);
    tp_error("launcher",
             "cannot run mpirun: %s; install Open MPI (Debian: openmpi-bin), or start one rank",
             strerror(errno));
    _exit(127);
}

/* ---- the parent ---- */

int launch_own_ranks(const launch_options *opt, int argc, char *const *argv)
{
    sigset_t set, old;
    int stops = 0, status = 0;
    pid_t child;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, &old);
    child = fork();
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &old, NULL);
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        exec_mpirun(opt, argc, argv);
    }
    if (child < 0) {
        tp_error("launcher", "cannot start a process: %s", strerror(errno));
        return 1;
    }
    for (;;) {
        int sig = 0;

        sigwait(&set, &sig);
        if (sig == SIGCHLD) {
            if (waitpid(child, &status, WNOHANG) == child)
                break;
        } else {
            kill(child, stops++ == 0 ? SIGUSR1 : SIGTERM);
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

tp_status launch_gather(void *all, const void *mine, size_t bytes, const comm_world *world)
{
    comm_options o = {.kind = "auto", .window_bytes = 4096, .plan_bytes_max = 4096};
    comm_group *g;
    tp_status st;

    TP_TRY(comm_group_create(&g, world, &o));
    st = comm_allgather(g, mine, all, bytes);
    comm_group_destroy(g);
    return st;
}
