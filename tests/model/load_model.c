/* SPDX-License-Identifier: Apache-2.0 */
/* load_model.c - loads a model on all ranks and ends: for damaged checkpoints, and to compare plan, memory and speed.
 *
 *     load_model DIR [auto|float32|bfloat16|float16 [dummy]]
 *     load_model --each DIR...            one after the other, with a line "RANK NUMBER STATUS" for each
 *
 * Prints one line per rank.  Exit code 0 only when the model (the last one) was loaded.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "runtime/model/model.h"

static int64_t resident_bytes(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f == NULL)
        return 0;
    if (fscanf(f, "%*s %ld", &pages) != 1)
        pages = 0;
    (void)fclose(f);
    return (int64_t)pages * 4096;
}

static kern_dtype parse_dtype(const char *name, kern_dtype own)
{
    for (int t = KERN_DTYPE_F32; t <= KERN_DTYPE_F16; t++) {
        if (strcmp(kern_dtype_name((kern_dtype)t), name) == 0)
            return (kern_dtype)t;
    }
    return own;
}

static tp_status load(const rt_config *c, const rt_shard *s, comm_group *g,
                      const rt_model_options *o)
{
    int64_t before = resident_bytes(), bytes;
    double seconds;
    kern_backend *be;
    rt_memory_plan plan;
    rt_model *m;
    tp_status st;

    TP_TRY(kern_cpu_ops()->open(&be, &(kern_open_args){.n_threads = 1}));
    st = rt_model_memory(&plan, c, s, be, o);
    if (st == TP_OK)
        st = rt_model_load(&m, c, s, be, g, o);
    if (st == TP_OK) {
        rt_model_load_stats(m, &bytes, &seconds);
        (void)printf(
            "rank %d: weights %.1f MB, workspace %.1f MB planned; resident grew by %.1f MB;"
            " read %.1f MB in %.3f s, %.2f GB/s\n",
            s->rank, (double)plan.weights / 1e6, (double)plan.workspace / 1e6,
            (double)(resident_bytes() - before) / 1e6, (double)bytes / 1e6, seconds,
            (double)bytes / 1e9 / seconds);
        rt_model_destroy(m);
    }
    be->ops->close(be);
    return st;
}

static tp_status run(const comm_world *world, const char *dir, const char *dtype, bool dummy)
{
    rt_model_options o = {.dir = dir,
                          .max_tokens_per_step = 512,
                          .max_seqs = 16,
                          .max_model_len = 4096,
                          .block_tokens = 16,
                          .dummy_weights = dummy,
                          .progress = world->rank == 0};
    comm_options opt = {.kind = "auto", .plan_bytes_max = 64, .timeout_ms = 30000};
    comm_group *g;
    rt_config c;
    rt_shard s;
    tp_status st;

    TP_TRY(rt_config_load(&c, dir));
    o.dtype = parse_dtype(dtype, c.dtype);
    TP_TRY(rt_shard_plan(&s, &c, world->size, world->rank, o.dtype, o.dtype));
    opt.window_bytes = rt_model_window_bytes(&c, world->size, o.max_tokens_per_step);
    TP_TRY(comm_group_create(&g, world, &opt));
    st = load(&c, &s, g, &o);
    comm_group_destroy(g);
    return st;
}

int main(int argc, char **argv)
{
    comm_world world;
    tp_status st = TP_OK;

    if (argc < 2 || comm_init(&world) != TP_OK)
        return 2;
    tp_log_set_rank(world.rank, world.size);
    if (strcmp(argv[1], "--each") != 0) {
        st = run(&world, argv[1], argc > 2 ? argv[2] : "auto",
                 argc > 3 && strcmp(argv[3], "dummy") == 0);
    } else {
        for (int i = 2; i < argc; i++) {
            st = run(&world, argv[i], "auto", false);
            (void)printf("%d %d %s\n", world.rank, i - 2, tp_status_name(st));
            (void)fflush(stdout);
        }
    }
    comm_finalize();
    return st == TP_OK ? 0 : 1;
}
