/* SPDX-License-Identifier: Apache-2.0 */
/* engine_testing.h - a whole engine of one rank over a tiny checkpoint, on a thread of its own. */
#ifndef TESTS_UNIT_ENGINE_TESTING_H
#define TESTS_UNIT_ENGINE_TESTING_H

#include <pthread.h>

#include "base/hash.h"
#include "base/log.h"
#include "tests/unit/runtime/runtime_testing.h"

#define TEST_TRAIT "llama3" /* of the goldens: the checkpoint */

typedef struct test_engine {
    char dir[32]; /* the model's */
    kern_backend *be;
    rt_engine *engine;
    pthread_t thread;
    tp_status run_status; /* once the thread has ended */
} test_engine;

static inline void link_golden(const char *dir, const char *name)
{
    char from[512], to[128];

    (void)snprintf(from, sizeof from, "%s/%s/%s", MODEL_GOLDENS, TEST_TRAIT, name);
    (void)snprintf(to, sizeof to, "%s/%s", dir, name);
    assert_int_equal(symlink(from, to), 0);
}

static inline void unlink_golden(const char *dir, const char *name)
{
    char path[128];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)unlink(path);
}

/* A directory with the tiny tokenizer and links to the checkpoint. */
static inline void make_test_model(test_engine *t)
{
    tp_buf b;

    tp_log_set_level(TP_LOG_ERROR);
    assert_int_equal(tp_hash_init(), TP_OK);
    tok_make_dir(t->dir);
    tp_buf_init(&b, 1 << 20);
    tok_put_document(&b);
    tok_write(t->dir, "tokenizer.json", b.data, b.len);
    tp_buf_release(&b);
    link_golden(t->dir, "config.json");
    link_golden(t->dir, "model.safetensors");
}

static inline void remove_test_model(test_engine *t)
{
    unlink_golden(t->dir, "config.json");
    unlink_golden(t->dir, "model.safetensors");
    tok_remove(t->dir);
}

/* Few seats and a short context, so that they fill up; the rest is the test's. */
static inline rt_engine_options test_engine_options(const test_engine *t, int64_t kv_bytes,
                                                    int queue)
{
    return (rt_engine_options){.model_dir = t->dir,
                               .max_num_seqs = 6,
                               .max_num_batched_tokens = 48,
                               .max_model_len = 128,
                               .kv_cache_memory_bytes = kv_bytes,
                               .max_num_queued_reqs = queue,
                               .watermark = -1,
                               .dtype = "float32",
                               .comm = "self"};
}

static inline void create_test_engine(test_engine *t, const kern_ops *ops,
                                      const rt_engine_options *opt)
{
    comm_world world = {.rank = 0, .size = 1, .local_rank = 0, .local_size = 1, .n_hosts = 1};

    assert_int_equal(ops->open(&t->be, &(kern_open_args){.n_threads = 1}), TP_OK);
    assert_int_equal(rt_engine_create(&t->engine, opt, t->be, &world), TP_OK);
}

static inline void *test_engine_thread(void *arg)
{
    test_engine *t = arg;

    t->run_status = rt_engine_run(t->engine);
    return NULL;
}

static inline void run_test_engine(test_engine *t)
{
    assert_int_equal(pthread_create(&t->thread, NULL, test_engine_thread, t), 0);
}

/* The thread ends by itself, after a drain or a failure. */
static inline void join_test_engine(test_engine *t, tp_status wanted)
{
    assert_int_equal(pthread_join(t->thread, NULL), 0);
    assert_int_equal(t->run_status, wanted);
}

static inline void close_test_engine(test_engine *t)
{
    rt_engine_destroy(t->engine);
    t->be->ops->close(t->be);
}

#endif
