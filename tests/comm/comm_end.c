/* SPDX-License-Identifier: Apache-2.0 */
/* comm_end.c - a small job that ends in the way it is told; leftovers.sh looks at what stays behind.
 *
 * comm_end MODE: normal; abort (rank 1 gives up with code 71); kill (the last rank gets SIGKILL in the middle of
 * reduces); wait (until somebody kills us).  Each rank prints "pid N"; rank 0 prints "job HEX".
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "comm/comm.h"

#define COUNT 3000

static tp_status reduce(comm_group *g)
{
    static float out[COUNT];
    float *roots = comm_window(g);

    memset(roots, 0, COUNT * sizeof *roots);
    return comm_reduce(g,
                       &(comm_reduce_args){.n_seg = 8, .roots = roots, .out = out, .count = COUNT});
}

static void end_as_told(comm_group *g, const char *mode)
{
    if (strcmp(mode, "abort") == 0 && comm_rank(g) == 1)
        comm_abort(g, 71, "told to give up");
    if (strcmp(mode, "kill") == 0 && comm_rank(g) == comm_size(g) - 1)
        (void)raise(SIGKILL);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "normal";
    const char *space = getenv("PMIX_NAMESPACE");
    comm_options opt = {.kind = argc > 2 ? argv[2] : "auto",
                        .window_bytes = 4 * COUNT * sizeof(float),
                        .plan_bytes_max = 4096};
    comm_world w;
    comm_group *g = NULL;
    int n = strcmp(mode, "normal") == 0 ? 1000 : 1000000000;

    if (comm_init(&w) != TP_OK || comm_group_create(&g, &w, &opt) != TP_OK)
        return 72;
    printf("pid %d\n", (int)getpid());
    if (w.rank == 0 && space != NULL)
        printf("job %08lx\n", strtoul(space, NULL, 10));
    fflush(stdout);
    tp_sleep_us(200 * 1000); /* let mpirun pass the lines on */
    for (int i = 0; i < n; i++) {
        tp_status st = reduce(g);

        if (st != TP_OK)
            comm_abort(g, 70, tp_last_error());
        if (i == 500)
            end_as_told(g, mode);
    }
    comm_group_destroy(g);
    comm_finalize();
    return 0;
}
