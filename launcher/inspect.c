/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - what a model is and what each rank would keep of it; config.json is enough. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "launcher/model_path.h"
#include "launcher/serve.h"
#include "runtime/model/model.h"

static double gb(int64_t bytes)
{
    return (double)bytes / 1e9;
}

static void print_config(const rt_config *c, const char *dir)
{
    printf("model          %s\n", dir);
    printf("architecture   %s (%s), %s\n", c->architecture, c->model_type,
           kern_dtype_name(c->dtype));
    printf("layers         %d, hidden %d, intermediate %d\n", c->n_layers, c->hidden,
           c->intermediate);
    printf("heads          %d query, %d key/value, %d each\n", c->n_heads, c->n_kv_heads,
           c->head_dim);
    printf("vocabulary     %d%s\n", c->vocab, c->tied ? ", head tied to the embedding" : "");
    printf("context        %" PRId64 " tokens", c->max_position);
    if (c->sliding_window > 0)
        printf(", sliding window %d", c->sliding_window);
    printf("\nparameters     %.3f B, %.1f GB as %s\n", (double)rt_config_params(c) / 1e9,
           gb(rt_config_params(c) * (int64_t)kern_dtype_bytes(c->dtype)),
           kern_dtype_name(c->dtype));
}

static tp_status print_shards(const rt_config *c, int n_ranks)
{
    printf("\n%4s %13s %9s %15s %17s %12s %14s\n", "rank", "query heads", "kv heads",
           "intermediate", "vocabulary", "weights GB", "KV bytes/token");
    for (int r = 0; r < n_ranks; r++) {
        rt_shard s;

        TP_TRY(rt_shard_plan(&s, c, n_ranks, r, c->dtype, c->dtype));
        printf("%4d %5d..%-6d %3d..%-4d %6d..%-7d %7d..%-8d %12.3f %14" PRId64 "\n", r,
               s.head_first, s.head_first + s.n_heads_local, s.kv_first, s.kv_first + s.n_kv_local,
               s.inter_first, s.inter_first + s.n_inter_local, s.vocab_first,
               s.vocab_first + s.n_vocab_local, gb(s.weight_bytes), s.kv_bytes_per_token);
    }
    return TP_OK;
}

int launch_inspect(const launch_options *opt)
{
    char dir[LAUNCH_PATH_MAX];
    rt_config c;
    int n_ranks = opt->tensor_parallel_size > 0 ? (int)opt->tensor_parallel_size : 1;

    if (launch_find_model(dir, opt) != TP_OK) {
        tp_error("launcher", "%s", tp_last_error());
        return 1;
    }
    if (rt_config_load(&c, dir) != TP_OK)
        return 1;
    print_config(&c, dir);
    return print_shards(&c, n_ranks) == TP_OK ? 0 : 1;
}
