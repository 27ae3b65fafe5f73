/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_plan.c - step plans, from the hand of a scheduler that lost its mind.
 *
 * Input: lines of a letter and whole numbers (absent ones are 0):
 *   c SLOT                      close
 *   k DST SRC                   copy a block
 *   o SLOT TOKEN N BIAS ALLOWED FORBIDDEN HAS LOGPROBS PROMPT_LOGPROBS TOP_K MIN_TOKENS
 *                               open with N prompt tokens from TOKEN on; BIAS, ALLOWED, FORBIDDEN are numbers of list entries
 *   p TEMP TOP_P MIN_P REP FREQ PRES SEED         in thousandths, for the openings that follow
 *   d TOKEN...                  the draft of the sequence that follows
 *   s SLOT START N KEEP LP FLAGS BLOCK...         a sequence
 *   x OFFSET VALUE              overwrites a word of the finished plan; the checksum is made right again
 *   z N                         cuts N bytes off its end
 *   .                           ends the plan, which is executed
 * Any other input is one plan byte by byte, whose magic, version, length and checksum are put right.
 * Promise: a worker refuses what it cannot do, and touches nothing beyond its memory.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "kernels/kern.h"
#include "runtime/sched/worker.h"
#include "tests/fuzz/fuzz.h"
#include "tests/model/model_testing.h"
/* White box: the checksum is its own. */
#include "runtime/sched/plan.c"

#define SLOTS       4
#define LEN         64
#define BLOCK       16
#define BLOCKS      12
#define STEP_TOKENS 48
#define LIST_MAX    1100 /* just beyond what a slot takes */
#define WORDS_MAX   24
#define PLANS_MAX   64

static struct {
    tm_model m;
    comm_group *group;
    kern_backend *be;
} g_model;

typedef struct play {
    rt_worker *worker;
    rt_plan_writer writer;
    rt_slot_params params;
    int32_t draft[RT_DRAFT_MAX];
    int32_t n_draft;
    long patches[16][2];
    int n_patches;
    long cut;
    int n_plans;
    bool over;
} play;

/* Once; stays until the end of the process. */
static void load_model(void)
{
    comm_world world = {.rank = 0, .size = 1, .local_rank = 0, .local_size = 1, .n_hosts = 1};
    comm_options co = {
        .kind = "self", .window_bytes = 4 << 20, .plan_bytes_max = 64, .timeout_ms = 60000};

    if (g_model.be != NULL)
        return;
    TP_ASSERT(kern_cpu_ops()->open(&g_model.be, &(kern_open_args){.n_threads = 1}) == TP_OK);
    TP_ASSERT(comm_group_create(&g_model.group, &world, &co) == TP_OK);
    TP_ASSERT(tm_open(&g_model.m, &(tm_options){.dir = MODEL_GOLDENS "/llama3",
                                                .dtype = KERN_DTYPE_F32,
                                                .be = g_model.be,
                                                .group = g_model.group}) == TP_OK);
}

/* ---- one plan ---- */

static void read_all(const uint8_t *plan, size_t bytes)
{
    rt_plan_reader r;
    rt_plan_open_view o;
    rt_plan_seq q;
    const int32_t *blocks;
    int64_t sum = 0;

    if (rt_plan_open_reader(&r, plan, bytes) != TP_OK)
        return;
    for (uint32_t i = 0; i < r.header.n_close; i++)
        sum += r.closes[i];
    for (uint32_t i = 0; i < r.header.n_copy; i++)
        sum += r.copies[i].dst + (int64_t)r.copies[i].src;
    for (uint32_t i = 0; i < r.header.n_open; i++) {
        if (rt_plan_read_open(&r, &o) != TP_OK)
            return;
        sum += o.prompt[0] + (int64_t)o.prompt[o.head.n_prompt - 1];
        for (int k = 0; k < o.head.n_forbidden; k++)
            sum += o.forbidden[k];
    }
    for (uint32_t i = 0; i < r.header.n_seq; i++) {
        if (rt_plan_read_seq(&r, &q, &blocks) != TP_OK)
            return;
        for (int k = 0; k < q.n_blocks + q.n_draft; k++)
            sum += blocks[k];
    }
    TP_ASSERT(sum != INT64_MIN);
}

/* gcc with sanitizers takes the size for 0 here, behind the check, and warns. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Warray-bounds"
#pragma GCC diagnostic ignored "-Wstringop-overread"
static void put_envelope(uint8_t *plan, size_t bytes)
{
    rt_plan_header h;

    if (bytes < sizeof h)
        return;
    memcpy(&h, plan, sizeof h);
    h.magic = RT_PLAN_MAGIC;
    h.version = RT_PLAN_VERSION;
    h.bytes = (uint32_t)bytes;
    h.checksum = checksum(&h, plan + sizeof h, bytes - sizeof h);
    memcpy(plan, &h, sizeof h);
}
#pragma GCC diagnostic pop

/* Runs a plan; its envelope is made right first. */
static void execute(play *p, uint8_t *plan, size_t bytes)
{
    const rt_step_result *results;
    bool stop = false;
    int n = 0;

    put_envelope(plan, bytes);
    read_all(plan, bytes);
    tp_mem_forbid(true);
    p->over = rt_worker_issue(p->worker, plan, bytes, &stop) != TP_OK ||
              rt_worker_collect(p->worker) != TP_OK || stop;
    tp_mem_forbid(false);
    if (p->over)
        return;
    results = rt_worker_results(p->worker, &n);
    for (int i = 0; i < n; i++)
        TP_ASSERT(results[i].n_top <= RT_LOGPROBS_MAX && results[i].token < g_model.m.config.vocab);
}

static void finish(play *p)
{
    size_t bytes;
    const uint8_t *plan = rt_plan_finish(&p->writer, &bytes);
    uint8_t *copy = tp_malloc(bytes);
    size_t keep = p->cut >= 0 && (size_t)p->cut <= bytes ? bytes - (size_t)p->cut : bytes;

    TP_ASSERT(copy != NULL);
    memcpy(copy, plan, bytes);
    for (int i = 0; i < p->n_patches; i++) {
        int32_t value = (int32_t)p->patches[i][1];
        long at = p->patches[i][0];

        if (at >= 0 && (size_t)at + sizeof value <= bytes)
            memcpy(copy + at, &value, sizeof value);
    }
    if (keep <
        bytes) { /* exactly as long as it says, so that a sanitizer sees who reads behind it */
        uint8_t *shorter = tp_malloc(keep);

        TP_ASSERT(shorter != NULL);
        memcpy(shorter, copy, keep);
        tp_free(copy);
        copy = shorter;
    }
    execute(p, copy, keep);
    tp_free(copy);
    p->n_patches = 0;
    p->cut = 0;
    rt_plan_begin(&p->writer, (uint64_t)++p->n_plans, 0);
}

/* ---- lines ---- */

static void add_open(play *p, const long *v)
{
    static int32_t lists[3][LIST_MAX];
    static float bias[LIST_MAX];
    int32_t n = v[2] < 1 ? 1 : v[2] < 2 * LEN ? (int32_t)v[2] : 2 * LEN, prompt[2 * LEN];
    rt_plan_open_view o = {.prompt = prompt,
                           .bias_ids = lists[0],
                           .bias = bias,
                           .allowed = lists[1],
                           .forbidden = lists[2]};

    for (int i = 0; i < n; i++)
        prompt[i] = (int32_t)((uint32_t)v[1] + (uint32_t)i);
    for (int i = 0; i < LIST_MAX; i++) {
        lists[0][i] = lists[1][i] = lists[2][i] = (int32_t)((uint32_t)v[1] + 3 * (uint32_t)i);
        bias[i] = (float)(i % 7) - 3;
    }
    o.head = (rt_plan_open){.slot = (int32_t)v[0],
                            .n_prompt = n,
                            .n_bias = (int32_t)((unsigned long)v[3] % LIST_MAX),
                            .n_allowed = (int32_t)((unsigned long)v[4] % LIST_MAX),
                            .n_forbidden = (int32_t)((unsigned long)v[5] % LIST_MAX),
                            .has_allowed = (int32_t)v[6],
                            .params = p->params};
    o.head.params.n_logprobs = (int32_t)((uint32_t)v[7] - 1);
    o.head.params.n_prompt_logprobs = (int32_t)((uint32_t)v[8] - 1);
    o.head.params.top_k = (int32_t)v[9];
    o.head.params.min_tokens = (int32_t)v[10];
    (void)rt_plan_add_open(&p->writer, &o);
}

static void add_seq(play *p, const long *v, int n)
{
    int32_t blocks[WORDS_MAX];
    rt_plan_seq s = {.slot = (int32_t)v[0],
                     .start = (int32_t)v[1],
                     .n_new = (int32_t)v[2],
                     .table_keep = (int32_t)v[3],
                     .n_blocks = n > 6 ? n - 6 : 0,
                     .lp_start = (int32_t)v[4],
                     .flags = (uint32_t)v[5],
                     .n_draft = p->n_draft};

    for (int i = 0; i < s.n_blocks; i++)
        blocks[i] = (int32_t)v[6 + i];
    (void)rt_plan_add_seq(&p->writer, &s, blocks, p->draft);
    p->n_draft = 0;
}

static void set_draft(play *p, const long *v, int n)
{
    p->n_draft = n < RT_DRAFT_MAX ? n : RT_DRAFT_MAX;
    for (int i = 0; i < p->n_draft; i++)
        p->draft[i] = (int32_t)v[i];
}

static void set_params(play *p, const long *v)
{
    rt_slot_params *q = &p->params;
    float *const fields[] = {&q->temperature, &q->top_p,     &q->min_p,
                             &q->repetition,  &q->frequency, &q->presence};

    for (size_t i = 0; i < TP_ARRAY_LEN(fields); i++)
        *fields[i] = (float)v[i] / 1000.0f;
    q->seed = (uint64_t)v[6];
}

static void do_line(play *p, fuzz_part line)
{
    char text[256];
    long v[WORDS_MAX] = {0};
    int n = 0;

    if (line.n == 0 || line.n >= sizeof text)
        return;
    memcpy(text, line.text, line.n);
    text[line.n] = '\0';
    for (char *at = text + 1, *end; n < WORDS_MAX; at = end) {
        v[n] = strtol(at, &end, 10);
        if (end == at)
            break;
        n++;
    }
    switch (text[0]) {
    case 'c': (void)rt_plan_add_close(&p->writer, (int32_t)v[0]); break;
    case 'k': (void)rt_plan_add_copy(&p->writer, (int32_t)v[0], (int32_t)v[1]); break;
    case 'o': add_open(p, v); break;
    case 'p': set_params(p, v); break;
    case 'd': set_draft(p, v, n); break;
    case 's': add_seq(p, v, n); break;
    case 'x':
        if (p->n_patches < (int)TP_ARRAY_LEN(p->patches)) {
            p->patches[p->n_patches][0] = v[0];
            p->patches[p->n_patches++][1] = v[1];
        }
        break;
    case 'z': p->cut = v[0]; break;
    case '.': finish(p); break;
    default: break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rt_worker_options wo = {.n_slots = SLOTS,
                            .max_model_len = LEN,
                            .max_tokens = STEP_TOKENS,
                            .block_tokens = BLOCK,
                            .n_blocks = BLOCKS,
                            .draft_max = RT_DRAFT_MAX - 1};
    play p = {.params = {.top_p = 1, .repetition = 1}};
    fuzz_part rest = {(const char *)data, size}, line;

    fuzz_init();
    load_model();
    TP_ASSERT(rt_worker_create(&p.worker, &wo, &g_model.m.config, &g_model.m.shard, g_model.m.model,
                               g_model.be, g_model.m.kv, g_model.group) == TP_OK);
    TP_ASSERT(rt_plan_writer_init(&p.writer, 1 << 16, 64) == TP_OK);
    rt_plan_begin(&p.writer, 0, 0);
    if (size > 0 && memchr("ckopdsxz.", data[0], 9) == NULL) {
        uint8_t *copy = tp_malloc(size);

        TP_ASSERT(copy != NULL);
        memcpy(copy, data, size);
        execute(&p, copy, size);
        tp_free(copy);
    }
    while (!p.over && p.n_plans < PLANS_MAX && fuzz_next_line(&rest, &line))
        do_line(&p, line);
    rt_plan_writer_release(&p.writer);
    rt_worker_destroy(p.worker);
    return 0;
}
