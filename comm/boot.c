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
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/cores.h"
#include "base/log.h"
#include "comm/boot.h"
#include "comm/comm.h"
#include "comm/mpi/mpi_boot.h"
#include "comm/shm/region.h"

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

/* Ranks that the launcher says it started; 0 = no launcher, -1 = a launcher that does not say how many. */
static int launched_size(void)
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
    int local = env_number("OMPI_COMM_WORLD_LOCAL_SIZE");

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
    int expected = launched_size();

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

void comm_finalize(void)
{
    if (comm_mpi_running())
        comm_mpi_stop();
}

TP_NORETURN void comm_boot_abort(int exit_code)
{
    if (comm_mpi_running())
        comm_mpi_abort(exit_code);
    _exit(exit_code);
}
