/* SPDX-License-Identifier: Apache-2.0 */
/* injection.c - see injection.h. */
#include "tests/unit/injection/injection.h"

#include <math.h>

#include "base/fault.h"
#include "base/hash.h"
#include "base/log.h"

#define TRAIT      "llama3"
#define DENSE      60 /* points at the beginning that a sample takes all of */
#define POINTS_MAX 1000000

static bool g_all;
static char g_dir[32];

bool inj_all(void)
{
    return g_all;
}

void inj_set_all(bool on)
{
    g_all = on;
}

/* ---- failing ---- */

static void arm(int64_t k, bool lasts)
{
    if (lasts)
        tp_mem_fail_after(k);
    else
        tp_mem_fail_once(k);
}

void inj_disarm(void)
{
    tp_mem_fail_after(-1);
}

/* Allocations that an undisturbed run makes. */
static int64_t count_points(inj_fn try, void *ctx)
{
    int64_t before = tp_mem_count(), n;

    assert_int_equal(try(ctx), INJ_SAME);
    n = tp_mem_count() - before;
    assert_in_range(n, 1, POINTS_MAX);
    return n;
}

void inj_every_allocation(const char *what, inj_fn try, void *ctx, int sample)
{
    int64_t n, n_tried = 0, n_failed = 0;
    double step = 1;

    inj_disarm();
    n = count_points(try, ctx);
    if (!g_all && n > sample)
        step = (double)(n - DENSE) / (sample - DENSE > 0 ? sample - DENSE : 1);
    for (int64_t k = 0; k < n; n_tried++) {
        for (int lasts = 0; lasts < 2; lasts++) {
            inj_outcome got;

            (void)TP_REJECT(TP_ERR_NOMEM, "%s", ""); /* forget the last text */
            arm(k, lasts != 0);
            got = try(ctx);
            inj_disarm();
            n_failed += got == INJ_FAILED;
        }
        k = k < DENSE ? k + 1 : k + (int64_t)ceil(step);
    }
    assert_int_equal(try(ctx), INJ_SAME); /* nothing has been broken for good */
    print_message("    %s: %lld of %lld allocations failed, in 2 ways; %lld attempts failed\n",
                  what, (long long)n_tried, (long long)n, (long long)n_failed);
}

void inj_every_pass(const char *point, const char *what, inj_fn try, void *ctx)
{
    int n_failed = 0, n = 0;
    bool hit;

    do {
        assert_true(tp_fault_arm(point, ++n));
        n_failed += try(ctx) == INJ_FAILED;
        hit = !tp_fault_armed(point);
        assert_true(tp_fault_arm(point, 0));
    } while (hit);
    assert_true(n > 1);
    assert_int_equal(try(ctx), INJ_SAME);
    print_message("    %s: %s at %d points; %d attempts failed\n", what, point, n - 1, n_failed);
}

/* ---- a model ---- */

static void link_to(const char *from, const char *name)
{
    char to[128];

    inj_path(name, to);
    assert_int_equal(symlink(from, to), 0);
}

const char *inj_make_model(void)
{
    tp_buf b;

    tp_log_set_level(TP_LOG_NONE);
    assert_int_equal(tp_hash_init(), TP_OK);
    tok_make_dir(g_dir);
    tp_buf_init(&b, 1 << 20);
    tok_put_document(&b);
    tok_write(g_dir, "tokenizer.json", b.data, b.len);
    tp_buf_release(&b);
    link_to(MODEL_GOLDENS "/" TRAIT "/config.json", "config.json");
    link_to(MODEL_GOLDENS "/" TRAIT "/model.safetensors", "model.safetensors");
    link_to(TEMPLATES "/" INJ_TEMPLATE, "chat_template.jinja");
    return g_dir;
}

void inj_path(const char *name, char out[128])
{
    (void)snprintf(out, 128, "%s/%.60s", g_dir, name);
}

void inj_remove_model(void)
{
    static const char *const k_names[] = {"config.json", "model.safetensors"};
    char path[128];

    for (size_t i = 0; i < TP_ARRAY_LEN(k_names); i++) {
        inj_path(k_names[i], path);
        (void)unlink(path);
    }
    tok_remove(g_dir);
}
