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
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "launcher/bind.h"

int launch_env_rank(void)
{
    static const char *const k_names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                          "SLURM_PROCID"};

    for (size_t i = 0; i < TP_ARRAY_LEN(k_names); i++) {
        const char *v = getenv(k_names[i]);
        char *end;
        long rank;

        if (v == NULL || *v == '\0')
            continue;
        rank = strtol(v, &end, 10);
        if (*end == '\0')
            return (int)rank;
    }
    return -1;
}

bool launch_under_launcher(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") != NULL || getenv("PMIX_RANK") != NULL ||
           getenv("PMI_RANK") != NULL || getenv("SLURM_STEP_NUM_TASKS") != NULL;
}

static void exec_mpirun(int n, char **argv)
{
    char count[16], *args[16];
    int argc = 0, n_args = 0, null_fd = open("/dev/null", O_RDONLY);
    char **all;

    while (argv[argc] != NULL)
        argc++;
    snprintf(count, sizeof count, "%d", n);
    args[n_args++] = (char[]){"mpirun"};
    if (n > launch_usable_cores())
        args[n_args++] = (char[]){"--oversubscribe"};
    args[n_args++] = (char[]){"--bind-to"};
    args[n_args++] = (char[]){"none"};
    args[n_args++] = (char[]){"-np"};
    args[n_args++] = count;
    args[n_args++] = (char[]){"/proc/self/exe"};
    all = tp_calloc((size_t)(n_args + argc), sizeof *all);
    if (all == NULL)
        _exit(1);
    memcpy(all, args, (size_t)n_args * sizeof *args);
    memcpy(all + n_args, argv + 1, (size_t)(argc - 1) * sizeof *argv);
    char exe[4096];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (len > 0) {
        exe[len] = '\0';
        all[n_args - 1] = exe;
    }
    if (null_fd >= 0)
        dup2(null_fd, STDIN_FILENO);
    if (geteuid() == 0) {
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    }
    execvp(all[0], all);
    tp_error("launcher",
             "cannot run mpirun: %s; install Open MPI (Debian: openmpi-bin), or start one "
             "rank",
             strerror(errno));
    _exit(127);
}

int launch_own_ranks(int n, char **argv)
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
        exec_mpirun(n, argv);
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
