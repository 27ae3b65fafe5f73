/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_config.c - config.json, and generation_config.json behind a line of "----".  What is accepted has usable numbers: it is
 * cut into shards for several numbers of ranks, and its position frequencies are worked out. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/model/rope.h"
#include "tests/fuzz/fuzz.h"

static void check_shards(const rt_config *c)
{
    static const int k_ranks[] = {1, 2, 3, 7, 64};

    for (size_t i = 0; i < TP_ARRAY_LEN(k_ranks); i++) {
        int n = k_ranks[i], inter = 0, vocab = 0, heads = 0, done = 0;
        rt_shard s;

        for (; done < n && rt_shard_plan(&s, c, n, done, KERN_DTYPE_BF16, KERN_DTYPE_BF16) == TP_OK;
             done++) {
            TP_ASSERT((s.n_kv_local > 0) == (s.n_heads_local > 0));
            TP_ASSERT(s.n_kv_local == 0 || s.kv_first + s.n_kv_local <= c->n_kv_heads);
            TP_ASSERT(s.weight_bytes > 0 && s.kv_bytes_per_token >= 0);
            inter += s.n_inter_local;
            vocab += s.n_vocab_local;
            heads += s.n_heads_local;
        }
        TP_ASSERT(done == 0 || done == n);
        TP_ASSERT(done == 0 ||
                  (inter == c->intermediate && vocab == c->vocab && heads == c->n_heads));
        TP_ASSERT(rt_model_window_bytes(c, n, 2048) > 0);
    }
}

static void check_rope(const rt_config *c)
{
    int n = rt_rope_dims(c) / 2;
    double *freqs = tp_calloc((size_t)n + 1, sizeof *freqs), amplitude = 0;

    TP_ASSERT(freqs != NULL && n > 0);
    rt_rope_freqs(c, freqs, &amplitude);
    TP_ASSERT(isfinite(amplitude));
    for (int i = 0; i < n; i++)
        TP_ASSERT(isfinite(freqs[i]));
    tp_free(freqs);
}

static void check(const rt_config *c)
{
    TP_ASSERT(c->n_layers > 0 && c->hidden > 0 && c->intermediate > 0 && c->vocab > 0);
    TP_ASSERT(c->n_heads > 0 && c->n_kv_heads > 0 && c->n_heads % c->n_kv_heads == 0);
    TP_ASSERT(c->head_dim > 0 && c->max_position > 0 && c->n_eos <= RT_EOS_MAX);
    TP_ASSERT(rt_config_params(c) > 0);
    TP_ASSERT(isfinite(c->norm_eps));
    for (int i = 0; i < c->n_eos; i++)
        TP_ASSERT(c->eos[i] >= 0);
    for (int i = 0; i < c->n_layers; i++)
        (void)rt_config_layer_sliding(c, i);
    check_shards(c);
    check_rope(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_part rest = {(const char *)data, size}, part = {"", 0};
    rt_config c;

    fuzz_init();
    (void)fuzz_next_part(&rest, &part);
    fuzz_file("config.json", part.text, part.n);
    if (fuzz_next_part(&rest, &part))
        fuzz_file("generation_config.json", part.text, part.n);
    else
        fuzz_no_file("generation_config.json");
    if (rt_config_load(&c, fuzz_dir()) == TP_OK)
        check(&c);
    else
        TP_ASSERT(tp_last_error()[0] != '\0');
    return 0;
}
