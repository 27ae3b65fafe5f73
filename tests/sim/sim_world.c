/* SPDX-License-Identifier: Apache-2.0 */
/* sim_world.c - chance: what an episode is like, who comes, and what must be the answer.
 *
 * The next token of a text is a function of everything before it, so the whole answer is known when a request is made.
 * Prompts come from four documents, from texts of requests that have ended (a conversation goes on) or from nothing, so
 * many begin alike; with other salts, too.
 */
#include "tests/sim/sim.h"

#include <string.h>

#include "base/mem.h"

#define STEP_US 1000 /* about a virtual step's duration */

/* ---- chance ---- */

uint64_t sim_mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint32_t sim_below(sim *m, uint32_t n)
{
    m->rng += UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)((sim_mix(m->rng) >> 32) * n >> 32);
}

bool sim_percent(sim *m, int p)
{
    return (int)sim_below(m, 100) < p;
}

static int32_t between(sim *m, int32_t low, int32_t high)
{
    return low + (int32_t)sim_below(m, (uint32_t)(high - low + 1));
}

static int one_of(sim *m, const int *values, int n)
{
    return values[sim_below(m, (uint32_t)n)];
}

#define ONE_OF(m, ...)                                                                             \
    one_of(m, (const int[]){__VA_ARGS__}, (int)(sizeof((const int[]){__VA_ARGS__}) / sizeof(int)))

/* ---- texts ---- */

uint64_t sim_first_key(uint64_t salt)
{
    return sim_mix(salt + 1);
}

uint64_t sim_next_key(uint64_t key, int32_t token)
{
    return sim_mix(key + (uint64_t)(uint32_t)token * UINT64_C(0x9e3779b97f4a7c15) + 1);
}

int32_t sim_draw(uint64_t key, uint64_t seed)
{
    return (int32_t)(sim_mix(key ^ seed) & 0x7fffffff);
}

bool sim_ends_text(const sim_config *cfg, int32_t token)
{
    return cfg->eos_every > 0 && token % cfg->eos_every == 0;
}

/* Chance here is a function of the text, so that drafts change nothing else of an episode. */
int sim_draft(const rt_seq *q, int32_t n_ahead, int most, int32_t *out)
{
    const sim_choice *c = q->owner;
    uint64_t rng = c->keys[q->n_known - 1];
    int n = (int)((rng = sim_mix(rng)) % (unsigned)(most + 2)), percent = c->request->percent_true;

    TP_ASSERT(q->n_known == c->n_seen && c->n_seen + n_ahead == q->n_total);
    n = n < most ? n : most;
    for (int i = 0; i < n; i++) {
        int32_t token = c->text[q->n_known + n_ahead + i];

        rng = sim_mix(rng + 1);
        out[i] = (int)(rng % 100) < percent ? token : token ^ 1;
    }
    return n;
}

/* ---- episodes ---- */

static size_t pad8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

/* A plan in which everything has room, or one that any request just gets through. */
static void choose_plan_size(sim *m)
{
    sim_config *c = &m->cfg;
    size_t slots = (size_t)c->sched.n_slots, len = (size_t)c->len_max;
    size_t table = (len + (size_t)c->sched.block_tokens - 1) / (size_t)c->sched.block_tokens;
    size_t one = sizeof(rt_plan_open) + pad8(4 * len) + sizeof(rt_plan_seq) +
                 pad8(4 * (table + RT_DRAFT_MAX));

    c->ample = sim_percent(m, 75);
    c->list_cap = c->ample ? (uint32_t)slots : 1 + sim_below(m, (uint32_t)slots);
    c->plan_bytes = sizeof(rt_plan_header) + pad8(4 * c->list_cap) + 8 * c->list_cap + one;
    c->plan_bytes += c->ample ? one * slots : sim_below(m, 256);
}

static void choose_sizes(sim *m)
{
    sim_config *c = &m->cfg;
    rt_sched_options *o = &c->sched;
    int32_t capacity;

    o->n_slots = between(m, 1, ONE_OF(m, 2, 8, SIM_SLOTS_MAX, SIM_SLOTS_MAX));
    o->max_tokens = o->n_slots + between(m, 0, ONE_OF(m, 0, 8, 64, 400));
    o->block_tokens = ONE_OF(m, 1, 2, 4, 8, SIM_BLOCK_TOKENS);
    o->n_blocks = between(m, 1, ONE_OF(m, 4, 32, 96, SIM_BLOCKS_MAX));
    o->watermark = 0.01 * ONE_OF(m, 0, 0, 1, 5, 30, 95);
    capacity = o->n_blocks * o->block_tokens;
    c->len_max = capacity < SIM_TEXT_MAX ? capacity : SIM_TEXT_MAX;
    if (c->len_max > 2 && sim_percent(m, 30))
        c->len_max = between(m, 2, c->len_max);
    c->prompt_max = between(m, 1, c->len_max);
    c->answer_max = between(m, 1, c->len_max);
}

static void choose_clients(sim *m)
{
    sim_config *c = &m->cfg;

    c->queue_max = between(m, 0, SIM_OPEN_MAX - SIM_SLOTS_MAX);
    c->arrive_every = ONE_OF(m, 300, 1000, 4000, 20000) * between(m, 1, 5);
    c->burst_max = ONE_OF(m, 1, 1, 3, 20);
    c->eos_every = ONE_OF(m, 0, 0, 3, 50, 200, 1000);
    c->percent_fork = ONE_OF(m, 0, 10, 60);
    c->percent_prefill = ONE_OF(m, 0, 0, 5, 50);
    c->percent_rows = ONE_OF(m, 0, 5, 40);
    c->percent_cancel = ONE_OF(m, 0, 1, 10, 60);
    c->percent_stall = ONE_OF(m, 0, 0, 10, 50);
    c->percent_known = ONE_OF(m, 0, 50, 95);
    c->n_salts = ONE_OF(m, 1, 1, 2, 4);
    c->cut_after = (int64_t)STEP_US * ONE_OF(m, 20, 200, 2000);
}

void sim_configure(sim *m)
{
    sim_config *c = &m->cfg;
    rt_sched_options *o = &c->sched;

    choose_sizes(m);
    choose_clients(m);
    choose_plan_size(m);
    c->pipe_steps = sim_percent(m, 70) ? RT_PIPE_STEPS : 1;
    c->caching = sim_percent(m, 75);
    rt_block_namer_init(&m->namer, c->sched.block_tokens);
    memcpy(m->namer.key, &m->seed, sizeof m->seed); /* names are chance, too */
    memset(m->namer.key + sizeof m->seed, 0, sizeof m->namer.key - sizeof m->seed);
    o->draft = sim_percent(m, 50) ? sim_draft : NULL;
    o->draft_max = o->draft != NULL ? between(m, 1, RT_DRAFT_MAX) : 0;
    o->draft_seqs_max = ONE_OF(m, 0, 0, 2, 8);
    c->percent_true = ONE_OF(m, 0, 50, 90, 100);
    c->percent_late = ONE_OF(m, 0, 20, 80);
    c->n_plans = between(m, 20, ONE_OF(m, 500, 3000, 6000));
    c->drain_after = ONE_OF(m, 0, 5, 50, -1);
    c->drain_after = c->drain_after < 0 ? SIM_NEVER : c->drain_after * STEP_US;
    c->lost_at = sim_percent(m, 5) ? between(m, 1, (int32_t)c->n_plans) : SIM_NEVER;
    for (int d = 0; d < 4; d++)
        for (int i = 0; i < SIM_TEXT_MAX; i++)
            m->documents[d][i] = (int32_t)sim_below(m, 1000);
}

/* ---- requests ---- */

static int32_t choose_prompt(sim *m, sim_request *r, int32_t text[SIM_TEXT_MAX])
{
    const sim_config *c = &m->cfg;
    int32_t n = between(m, 1, sim_percent(m, 10) ? c->len_max : c->prompt_max), known = 0;
    const int32_t *from = NULL;

    if (sim_percent(m, c->percent_known)) {
        const sim_past *p = &m->past[sim_below(m, SIM_PAST_MAX)];

        known = SIM_TEXT_MAX;
        from = m->documents[sim_below(m, 4)];
        if (p->n > 0 && sim_percent(m, 50)) { /* that conversation goes on, mostly under its salt */
            from = p->text;
            known = p->n;
            r->salt = sim_percent(m, 80) ? p->salt : r->salt;
        }
    }
    known = known < n ? known : n;
    if (known > 0 && sim_percent(m, 70)) /* after that, something of its own */
        known = between(m, 0, known);
    for (int32_t i = 0; i < n; i++)
        text[i] = i < known ? from[i] : (int32_t)sim_below(m, 1000);
    return n;
}

static void choose_reader(sim *m, sim_request *r)
{
    const sim_config *c = &m->cfg;

    r->box = 8 * r->n + between(m, 0, 100);
    r->read_at = m->now;
    r->read_every = sim_percent(m, 5) ? STEP_US * 2 : between(m, 1, STEP_US / 4);
    r->stall_from = r->stall_to = r->starved_at = SIM_NEVER;
    if (sim_percent(m, c->percent_stall)) {
        r->stall_from = m->now + between(m, 0, 100 * STEP_US);
        r->stall_to = r->stall_from + between(m, 0, (int32_t)c->cut_after * 2);
    }
    r->cancel_at = SIM_NEVER;
    if (sim_percent(m, c->percent_cancel))
        r->cancel_at = m->now + between(m, 0, STEP_US * ONE_OF(m, 2, 20, 300));
}

/* The oracle of one choice. */
static bool foretell(const sim *m, sim_choice *c, const int32_t *prompt, int32_t n_prompt,
                     int32_t n_total)
{
    const sim_request *r = c->request;
    uint64_t key = sim_first_key(r->salt);

    c->text = tp_calloc((size_t)n_total, sizeof *c->text);
    c->keys = tp_calloc((size_t)n_total, sizeof *c->keys);
    c->table = tp_calloc((size_t)n_total + 1, sizeof *c->table);
    c->seq.blocks = tp_calloc((size_t)n_total + 1, sizeof *c->seq.blocks);
    if (c->text == NULL || c->keys == NULL || c->table == NULL || c->seq.blocks == NULL)
        return false;
    c->ends_at = n_total;
    for (int32_t p = 0; p < n_total; p++) {
        c->text[p] = p < n_prompt ? prompt[p] : sim_draw(key, c->seq.open.head.params.seed);
        key = c->keys[p] = sim_next_key(key, c->text[p]);
        if (p >= n_prompt && c->ends_at == n_total && sim_ends_text(&m->cfg, c->text[p]))
            c->ends_at = p + 1;
    }
    return true;
}

/* As the engine does it when a request is submitted; forks have their parent's names. */
static bool name_blocks(const sim *m, sim_choice *c)
{
    const sim_choice *first = &c->request->choices[0];
    rt_seq *q = &c->seq;
    int32_t tokens = m->cfg.sched.block_tokens, n = q->n_prompt / tokens;

    q->names = tp_calloc((size_t)(q->n_total_max / tokens) + 1, sizeof *q->names);
    q->tail = tp_calloc((size_t)tokens, sizeof *q->tail);
    if (q->names == NULL || q->tail == NULL)
        return false;
    q->n_named = n;
    q->n_tail = q->n_prompt - n * tokens;
    memcpy(q->tail, c->text + (size_t)n * (size_t)tokens, sizeof *q->tail * (size_t)q->n_tail);
    if (c != first) {
        memcpy(q->names, first->seq.names, sizeof *q->names * ((size_t)n + 1));
        return true;
    }
    q->names[0] = rt_block_namer_root(&m->namer, &c->request->salt, sizeof c->request->salt);
    for (int32_t i = 0; i < n; i++)
        q->names[i + 1] =
            rt_block_namer_next(&m->namer, &q->names[i], c->text + (size_t)i * (size_t)tokens);
    return true;
}

static bool make_choice(const sim *m, sim_request *r, int index, const int32_t *prompt,
                        int32_t n_prompt, int32_t n_total)
{
    sim_choice *c = &r->choices[index];
    rt_seq *q = &c->seq;

    c->request = r;
    c->index = index;
    q->open.head.n_prompt = n_prompt;
    q->open.head.params.seed = r->seed + (uint64_t)index;
    /* A salt says nothing to ranks; ours have to know whose keys may be read by whom. */
    q->open.head.params.top_k = (int32_t)r->salt;
    q->open.head.params.n_prompt_logprobs = r->prompt_rows && index == 0 ? 1 : -1;
    if (!foretell(m, c, prompt, n_prompt, n_total))
        return false;
    q->open.prompt = c->text;
    q->owner = c;
    q->n_prompt = n_prompt;
    q->n_total_max = n_total;
    q->lp_start = r->prompt_rows && index == 0 ? 0 : INT32_MAX;
    q->n_new_max = q->n_draft_max = INT32_MAX;
    q->fork_of = index > 0 ? &r->choices[0].seq : NULL;
    c->n_seen = n_prompt;
    c->next_row = 1;
    return !m->cfg.caching || name_blocks(m, c);
}

sim_request *sim_make_request(sim *m)
{
    const sim_config *c = &m->cfg;
    sim_request *r = tp_calloc(1, sizeof *r);
    int32_t prompt[SIM_TEXT_MAX], n_prompt, n_answer;

    SIM_CHECK(m, r != NULL, "out of memory");
    r->id = ++m->next_id;
    r->salt = sim_below(m, (uint32_t)c->n_salts);
    r->seed = sim_percent(m, 70) ? 0 : (uint64_t)sim_below(m, UINT32_MAX) << 8;
    r->n = sim_percent(m, c->percent_fork) ? between(m, 2, SIM_CHOICES_MAX) : 1;
    r->n_open = r->n;
    r->prompt_rows = sim_percent(m, c->percent_rows);
    r->percent_true = c->percent_true;
    n_prompt = choose_prompt(m, r, prompt);
    n_answer = sim_percent(m, c->percent_prefill) ? 0 : between(m, 1, c->answer_max);
    if (n_answer > c->len_max - n_prompt)
        n_answer = c->len_max - n_prompt;
    choose_reader(m, r);
    for (int i = 0; i < r->n; i++)
        SIM_CHECK(m, make_choice(m, r, i, prompt, n_prompt, n_prompt + n_answer), "out of memory");
    m->n_held++;
    return r;
}

/* Whoever still looks at it finds nonsense. */
void sim_free_request(sim *m, sim_request *r)
{
    for (int i = 0; i < r->n; i++) {
        sim_choice *c = &r->choices[i];

        memset(c->seq.blocks, 0xdb, sizeof *c->seq.blocks * (size_t)c->seq.n_total_max);
        tp_free(c->text);
        tp_free(c->keys);
        tp_free(c->table);
        tp_free(c->seq.blocks);
        tp_free(c->seq.names);
        tp_free(c->seq.tail);
    }
    memset(r, 0xdb, sizeof *r);
    tp_free(r);
    m->n_held--;
}

void sim_remember_text(sim *m, const sim_choice *c)
{
    sim_past *p = &m->past[m->n_past++ % SIM_PAST_MAX];

    p->n = c->n_seen;
    p->salt = c->request->salt;
    memcpy(p->text, c->text, sizeof *p->text * (size_t)c->n_seen);
}
