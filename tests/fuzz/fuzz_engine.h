/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_engine.h - an engine for targets behind the API: a tiny model of random weights with a real tokenizer and template. */
#ifndef TESTS_FUZZ_ENGINE_H
#define TESTS_FUZZ_ENGINE_H

#include "kernels/kern.h"
#include "runtime/engine.h"
#include "tests/fuzz/fuzz.h"

/* Loaded and not running; it lives until the end of the process.  sync: rt_engine_run() would need no scheduler thread. */
static inline rt_engine *fuzz_engine_create(bool sync)
{
    comm_world world = {.rank = 0, .size = 1, .local_rank = 0, .local_size = 1, .n_hosts = 1};
    rt_engine_options opt = {.model_dir = fuzz_dir(),
                             .max_num_seqs = 4,
                             .max_num_batched_tokens = 64,
                             .max_model_len = 256,
                             .kv_cache_memory_bytes = 1 << 20,
                             .watermark = -1,
                             .sync_scheduling = sync,
                             .dtype = "float32",
                             .comm = "self"};
    kern_backend *be;
    rt_engine *e;

    fuzz_link("config.json", MODEL_GOLDENS "/llama3/config.json");
    fuzz_link("model.safetensors", MODEL_GOLDENS "/llama3/model.safetensors");
    fuzz_link("tokenizer.json", TOKENIZER_DATA "/qwen2/tokenizer.json");
    fuzz_link("tokenizer_config.json", TOKENIZER_DATA "/qwen2/tokenizer_config.json");
    fuzz_link("chat_template.jinja", TEMPLATES "/chatml_tools.jinja");
    TP_ASSERT(kern_cpu_ops()->open(&be, &(kern_open_args){.n_threads = 1}) == TP_OK);
    TP_ASSERT(rt_engine_create(&e, &opt, be, &world) == TP_OK);
    return e;
}

#endif
