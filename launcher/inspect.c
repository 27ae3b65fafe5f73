/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - what a model is and what each rank would keep of it; config.json is enough. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "launcher/model_path.h"
#include "launcher/serve.h"
#include "runtime/model/model_inspect.h"

static double gb(int64_t bytes)
{
    return (double)bytes / 1e9;
}

static void print_config(const rt_config *c, const char *dir)
{
    char rope[RT_INSPECT_ROPE_BYTES];

    rt_inspect_rope_text(c, rope);
    printf("model          %s\n", dir);
    printf("architecture   %s (%s), %s\n", c->architecture, c->model_type,
           kern_dtype_name(c->dtype));
    printf("layers         %d, hidden %d, intermediate %d\n", c->n_layers, c->hidden,
           c->intermediate);
    printf("heads          %d query, %d key/value, %d elements each%s%s\n", c->n_heads,
           c->n_kv_heads, c->head_dim, c->qkv_bias ? ", bias" : "",
           c->qk_norm ? ", normed q and k" : "");
    printf("positions      %" PRId64 ", RoPE %s\n", c->max_position, rope);
    if (c->sliding_window > 0)
        printf("window         %d tokens\n", c->sliding_window);
    printf("vocabulary     %d%s\n", c->vocab, c->tied ? ", head tied to the embedding" : "");
}

static void print_bytes(const rt_inspect *x)
{
    printf("parameters     %.3f B: %.3f B in the layers, %.3f B in the embedding\n",
           (double)x->params / 1e9, (double)x->linear_params / 1e9, (double)x->embed_params / 1e9);
    if (!x->has_weights) {
        printf("on disk        no weights: %s\n", x->weights_note);
        return;
    }
    printf("on disk        %.3f GB in %d file%s:", gb(x->disk_bytes), x->n_files,
           x->n_files == 1 ? "" : "s");
    for (int i = 0; i < x->n_dtypes; i++)
        printf(" %s %.3f GB (%" PRId64 " tensors)", x->dtypes[i].name, gb(x->dtypes[i].bytes),
               x->dtypes[i].n_tensors);
    putchar('\n');
}

static void print_ranks(const rt_inspect *x)
{
    printf("\n%4s %13s %9s %15s %17s %11s %12s %14s\n", "rank", "query heads", "kv heads",
           "intermediate", "vocabulary", "weights GB", "per token GB", "KV bytes/token");
    for (int r = 0; r < x->n_ranks; r++) {
        const rt_shard *s = &x->ranks[r];

        printf("%4d %5d..%-6d %3d..%-4d %6d..%-7d %7d..%-8d %11.3f %12.3f %14" PRId64 "\n", r,
               s->head_first, s->head_first + s->n_heads_local, s->kv_first,
               s->kv_first + s->n_kv_local, s->inter_first, s->inter_first + s->n_inter_local,
               s->vocab_first, s->vocab_first + s->n_vocab_local, gb(s->weight_bytes),
               gb(rt_inspect_streamed_bytes(x, r)), s->kv_bytes_per_token);
    }
}

int launch_inspect(const launch_options *opt)
{
    char dir[LAUNCH_PATH_MAX];
    int n_ranks = opt->tensor_parallel_size > 0 ? (int)opt->tensor_parallel_size : 1, code = 1;
    rt_inspect *x;

    if (launch_find_model(dir, opt) != TP_OK) {
        tp_error("launcher", "%s", tp_last_error());
        return 1;
    }
    x = tp_calloc(1, sizeof *x);
    if (x != NULL && rt_inspect_load(x, dir, n_ranks, -1, -1) == TP_OK) {
        print_config(&x->config, dir);
        print_bytes(x);
        print_ranks(x);
        code = 0;
    }
    tp_free(x);
    return code;
}
