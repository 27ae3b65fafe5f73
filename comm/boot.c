/* SPDX-License-Identifier: Apache-2.0 */
/* boot.c - from an environment to a world.
 *
 * MPI is started only when something launched us as a rank: starting it alone costs 0.4 s, opens sockets, and under
 * an unknown launcher makes every process a world of one.  Who launched us is read from the environment:
 *
 *   OMPI_COMM_WORLD_SIZE/_RANK   mpirun (ORTE and PRRTE)
 *   PMIX_RANK                    any PMIx launcher: srun --mpi=pmix, prun
 *   PMI_SIZE, PMI_RANK           PMI-1/2 launchers: srun --mpi=pmi2, hydra
 *   SLURM_STEP_NUM_TASKS > 1     srun without a PMI: refused below with the flag that is missing.  SLURM_NTASKS is
 *                                no sign: a batch script has it too, and starts its programs alone
 *
 * When MPI finds fewer ranks than the launcher says it started, every process would serve on its own and fight for
 * the port: that is an error with the likely remedy.
 *
 * Ranks must not outlive their launcher: SIGKILL is asked for when the parent dies.  (mpirun dies at once on a
 * second SIGTERM and leaves its ranks running; Open MPI 5 leaves idle ranks after a SIGKILL of mpirun, too.)
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cores.h"
#include "base/log.h"
#include "comm/boot.h"
#include "comm/comm.h"
#include "comm/group.h"
#include "comm/life.h"
#include "comm/mpi/mpi_boot.h"
#include "comm/shm/region.h"

#define ABORT_US (1000 * 1000) /* for MPI_Abort to end this process */

/* A non-negative number from the environment; -1 when unset or not a number. */
static int env_number(const char *name)
{
    const char *text = getenv(name);
    char *end;
    long v;

    if (text == NULL || *text == '\0')
        return -1;
    v = strtol(text, &end, 10);
    return *end == '\0' && v >= 0 && v <= 1000000 ? (int)v : -1;
}

int comm_env_rank(void)
{
    static const char *const k_names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};
    int rank = -1;

    for (size_t i = 0; i < TP_ARRAY_LEN(k_names) && rank < 0; i++)
        rank = env_number(k_names[i]);
    return rank;
}

int comm_env_local_size(void)
{
    return env_number("OMPI_COMM_WORLD_LOCAL_SIZE");
}

const char *comm_env_job(void)
{
    static const char *const k_names[] = {"PMIX_NAMESPACE", "PMI_JOBID", "SLURM_JOB_ID"};

    for (size_t i = 0; i < TP_ARRAY_LEN(k_names); i++) {
        const char *job = getenv(k_names[i]);

        if (job != NULL && *job != '\0')
            return job;
    }
    return "";
}

/* Ranks that the launcher says it started; 0 = no launcher, -1 = a launcher that does not say how many. */
int comm_env_size(void)
{
    int n = env_number("OMPI_COMM_WORLD_SIZE");

    if (n > 0)
        return n;
    n = env_number("PMI_SIZE");
    if (n > 0)
        return n;
    n = env_number("SLURM_STEP_NUM_TASKS");
    if (n > 1)
        return n;
    if (env_number("PMIX_RANK") >= 0 || env_number("PMI_RANK") >= 0)
        return n > 0 ? n : -1;
    return 0;
}

static tp_status die_with_launcher(void)
{
    pid_t parent = getppid();

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return TP_FAIL(TP_ERR_IO, "prctl(PR_SET_PDEATHSIG): %s", strerror(errno));
    if (getppid() != parent)
        _exit(1); /* it died in between: nobody is left to tell */
    return TP_OK;
}

/* What Open MPI must be told before it starts; a setting of the user's wins. */
static void tune_mpi(void)
{
    int local = comm_env_local_size();

    /* It yields only when it believes the node to be oversubscribed, and it believes the slot count of a host file
     * or an allocation.  More ranks than cores without yielding is 200 to 2000 times slower. */
    if (local > tp_cores_usable())
        (void)setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    /* Copying through the segment is faster up to 64 KiB, and the kernel's cross-process copy is refused in most
     * containers, with a warning per rank. */
    (void)setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
}

tp_status comm_init(comm_world *out)
{
    static bool done;
    comm_world w = {.size = 1, .local_size = 1, .n_hosts = 1};
    int expected = comm_env_size();

    TP_ASSERT(!done);
    done = true;
    if (gethostname(w.host, sizeof w.host - 1) != 0)
        snprintf(w.host, sizeof w.host, "unknown");
    comm_region_sweep();
    if (expected != 0) {
        TP_TRY(die_with_launcher());
        tune_mpi();
        TP_TRY(comm_mpi_start(&w));
        if (expected > 0 && expected != w.size)
            return TP_FAIL(
                TP_ERR_COMM,
                "the launcher started %d ranks, but MPI sees %d: launcher and MPI library "
                "do not fit together (with Slurm, try srun --mpi=pmix)",
                expected, w.size);
    }
    tp_log_set_rank(w.rank, w.size);
    tp_debug("comm", "rank %d of %d on %s, %d of %d there, %d hosts", w.rank, w.size, w.host,
             w.local_rank, w.local_size, w.n_hosts);
    *out = w;
    return TP_OK;
}

tp_status comm_world_gather(const comm_world *w, void *all, const void *mine, size_t bytes)
{
    if (w->size > 1)
        return comm_mpi_gather(all, mine, bytes);
    memcpy(all, mine, bytes);
    return TP_OK;
}

void comm_finalize(void)
{
    comm_life_bye();
    if (comm_mpi_running())
        comm_mpi_stop(); /* waits for all: one that dies now is still noticed */
    comm_life_stop();
}

/* MPI_Abort asks the launcher, which may be cut off or gone. */
static void *end_anyway(void *code)
{
    tp_sleep_us(ABORT_US);
    _exit((int)(intptr_t)code);
}

TP_NORETURN void comm_boot_abort(int exit_code)
{
    static atomic_bool begun;
    pthread_t thread;

    if (atomic_exchange(&begun, true)) /* another thread is in MPI_Abort */
        end_anyway((void *)(intptr_t)exit_code);
    if (!comm_life_all_leave() && comm_mpi_running() &&
        pthread_create(&thread, NULL, end_anyway, (void *)(intptr_t)exit_code) == 0)
        comm_mpi_abort(exit_code);
    _exit(exit_code);
}
