/* SPDX-License-Identifier: Apache-2.0 */
/* mpi_boot.c - see mpi_boot.h. */
#include "comm/mpi/mpi_boot.h"

#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "comm/mpi/mpi_try.h"
#include "comm/shm/region.h"

tp_status comm_mpi_error(const char *call, int code)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int len = 0;

    (void)MPI_Error_string(code, text, &len);
    return TP_FAIL(TP_ERR_COMM, "%s: %s", call, text);
}

static tp_status find_place(comm_world *out, MPI_Comm local)
{
    int first;

    COMM_MPI_TRY(MPI_Comm_rank(MPI_COMM_WORLD, &out->rank));
    COMM_MPI_TRY(MPI_Comm_size(MPI_COMM_WORLD, &out->size));
    COMM_MPI_TRY(MPI_Comm_rank(local, &out->local_rank));
    COMM_MPI_TRY(MPI_Comm_size(local, &out->local_size));
    first = out->local_rank == 0;
    COMM_MPI_TRY(MPI_Allreduce(&first, &out->n_hosts, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD));
    return TP_OK;
}

/* Makes every pair of local ranks attach, then takes the segments' names away. */
static tp_status unname_segments(MPI_Comm local, int local_size)
{
    char *bytes = tp_calloc(2, (size_t)local_size);
    int rc;

    if (bytes == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "start of MPI");
    rc = MPI_Alltoall(bytes, 1, MPI_CHAR, bytes + local_size, 1, MPI_CHAR, local);
    tp_free(bytes);
    if (rc != MPI_SUCCESS)
        return comm_mpi_error("first exchange", rc);
    COMM_MPI_TRY(MPI_Barrier(local));
    comm_region_unname_mpi();
    return TP_OK;
}

static bool g_started_here; /* false: our host (a test harness) started MPI and will end it */

tp_status comm_mpi_start(comm_world *out)
{
    MPI_Comm local = MPI_COMM_NULL;
    int provided = MPI_THREAD_SINGLE;
    tp_status st;

    if (comm_mpi_running()) {
        COMM_MPI_TRY(MPI_Query_thread(&provided));
    } else {
        COMM_MPI_TRY(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
        g_started_here = true;
    }
    if (provided < MPI_THREAD_FUNNELED)
        return TP_FAIL(TP_ERR_COMM, "this MPI library supports no threads (level %d)", provided);
    COMM_MPI_TRY(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    COMM_MPI_TRY(
        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local));
    st = find_place(out, local);
    if (st == TP_OK && g_started_here)
        st = unname_segments(local, out->local_size);
    COMM_MPI_TRY(MPI_Comm_free(&local));
    if (st == TP_OK)
        out->has_mpi = true;
    return st;
}

bool comm_mpi_running(void)
{
    int started = 0, ended = 0;

    (void)MPI_Initialized(&started);
    (void)MPI_Finalized(&ended);
    return started && !ended;
}

void comm_mpi_stop(void)
{
    if (!g_started_here)
        return;
    comm_region_rename_mpi();
    (void)MPI_Barrier(MPI_COMM_WORLD); /* before the first rank removes its name again */
    (void)MPI_Finalize();
}

TP_NORETURN void comm_mpi_abort(int exit_code)
{
    (void)MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}

tp_status comm_mpi_share(void *buf, size_t bytes)
{
    TP_ASSERT(bytes <= INT32_MAX);
    COMM_MPI_TRY(MPI_Bcast(buf, (int)bytes, MPI_BYTE, 0, MPI_COMM_WORLD));
    return TP_OK;
}

tp_status comm_mpi_gather(void *all, const void *mine, size_t bytes)
{
    TP_ASSERT(bytes <= INT32_MAX);
    COMM_MPI_TRY(MPI_Allgather((void *)(uintptr_t)mine, (int)bytes, MPI_BYTE, all, (int)bytes,
                               MPI_BYTE, MPI_COMM_WORLD));
    return TP_OK;
}

tp_status comm_mpi_agree(bool mine, bool *all)
{
    int in = mine, out = 0;

    COMM_MPI_TRY(MPI_Allreduce(&in, &out, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD));
    *all = out != 0;
    return TP_OK;
}

void comm_library(char *text, size_t cap)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int n;

    if (MPI_Get_library_version(version, &n) != MPI_SUCCESS)
        (void)snprintf(version, sizeof version, "unknown");
    version[strcspn(version, "\n,")] = '\0';
    (void)snprintf(text, cap, "%s", version);
}
