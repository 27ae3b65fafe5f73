/* SPDX-License-Identifier: Apache-2.0 */
/* plan_load.c - what meets a stated load: for each device the best number of ranks and copies, and the best of all.
 *
 * "Best" is the lowest price per hour where --gpu-price gives one for every device in question, else the fewest
 * devices, and among equals the first of the table, which goes from small to large.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "launcher/plan_tool.h"

typedef struct candidate {
    const launch_gpu *gpu;
    launch_plan_fit fit;
    launch_load_answer a;
    double price; /* of all devices, per hour; 0 = not known */
    bool ok;
} candidate;

static int devices(const candidate *c)
{
    return c->a.copies * c->fit.c.n_ranks;
}

/* Price of one device per hour; 0 when it was not given. */
static tp_status price_of(const launch_plan *p, const char *name, double *out)
{
    const launch_list *list = &p->opt->gpu_price;

    *out = 0;
    for (int i = 0; i < list->n; i++) {
        const char *item = list->items[i], *equals = strchr(item, '=');
        char *end = NULL;
        double v = equals != NULL ? strtod(equals + 1, &end) : 0;
        char gpu[32];

        if (equals == NULL || end == equals + 1 || *end != '\0' || !(v > 0) ||
            equals - item >= (int)sizeof gpu)
            return TP_REJECT(TP_ERR_INVALID,
                             "--gpu-price: expected NAME=PRICE such as h100=2.5, found \"%s\"",
                             item);
        memcpy(gpu, item, (size_t)(equals - item));
        gpu[equals - item] = '\0';
        if (launch_find_gpu(gpu) == NULL)
            return TP_REJECT(TP_ERR_INVALID, "--gpu-price: \"%s\" is not a device that --gpu knows",
                             gpu);
        if (launch_find_gpu(gpu) == launch_find_gpu(name))
            *out = v;
    }
    return TP_OK;
}

static bool better(const candidate *a, const candidate *b, bool by_price)
{
    if (!b->ok)
        return a->ok;
    if (!a->ok)
        return false;
    if (by_price && a->price != b->price)
        return a->price < b->price;
    return devices(a) < devices(b);
}

static tp_status try_ranks(candidate *out, const launch_plan *p, const launch_gpu *gpu, int n_ranks,
                           double price)
{
    candidate c = {.gpu = gpu};

    TP_TRY(launch_plan_fit_on(&c.fit, p, gpu, n_ranks));
    c.a.limit = "the weights do not fit";
    if (c.fit.kv_tokens > 0)
        c.a = launch_roof_load(&c.fit.c, &p->load, (double)c.fit.kv_tokens, p->chunk,
                               LAUNCH_PLAN_HEADROOM);
    c.ok = c.a.ok;
    c.price = price * devices(&c);
    *out = c;
    return TP_OK;
}

static tp_status best_of_gpu(candidate *best, const launch_plan *p, const launch_gpu *gpu,
                             bool by_price)
{
    int only = (int)p->opt->tensor_parallel_size;
    double price;

    TP_TRY(price_of(p, gpu->name, &price));
    TP_TRY(try_ranks(best, p, gpu, only > 0 ? only : 1, price));
    for (int n = 2; n <= 8 && only == 0; n *= 2) {
        candidate c;

        TP_TRY(try_ranks(&c, p, gpu, n, price));
        if (better(&c, best, by_price) || !best->ok)
            *best = c;
    }
    return TP_OK;
}

static void print_candidate(FILE *out, const candidate *c)
{
    if (!c->ok) {
        fprintf(out, "%-10s no: %s\n", c->gpu->name, c->a.limit);
        return;
    }
    fprintf(out, "%-10s %7d %5d %6d %6d %9.1f %9.0f %9.0f", c->gpu->name, devices(c),
            c->fit.c.n_ranks, c->a.copies, c->a.batch, c->a.ms_per_token, 1e3 * c->a.ttft_s,
            100 * c->a.prefill_part);
    if (c->price > 0)
        fprintf(out, " %10.2f", c->price);
    fputc('\n', out);
}

static void put_candidate(launch_json *j, const char *key, const candidate *c)
{
    launch_json_open(j, key, '{');
    launch_json_text(j, "device", c->gpu->name);
    launch_json_bool(j, "meets", c->ok);
    if (c->ok) {
        launch_json_int(j, "devices", devices(c));
        launch_json_int(j, "ranks", c->fit.c.n_ranks);
        launch_json_int(j, "copies", c->a.copies);
        launch_json_int(j, "batch", c->a.batch);
        launch_json_real(j, "ms_per_token_predicted", c->a.ms_per_token);
        launch_json_real(j, "prompt_s_predicted", c->a.ttft_s);
        launch_json_real(j, "prefill_part", c->a.prefill_part);
        if (c->price > 0)
            launch_json_real(j, "price_per_hour", c->price);
    } else {
        launch_json_text(j, "limit", c->a.limit);
    }
    launch_json_close(j, '}');
}

static void print_head(FILE *out, const launch_load *l, bool by_price)
{
    fprintf(out, "\nload           %g requests/s of %.0f + %.0f tokens", l->requests_per_s,
            l->prompt, l->output);
    if (l->ms_per_token_max > 0)
        fprintf(out, ", at most %g ms per token", l->ms_per_token_max);
    fprintf(out,
            " (predicted; %.0f %% of the capacity is used)\n%-10s %7s %5s %6s %6s %9s %9s %9s%s\n",
            100 * LAUNCH_PLAN_HEADROOM, "device", "devices", "ranks", "copies", "batch", "ms/token",
            "prompt ms", "prefill %", by_price ? "      price" : "");
}

static bool all_priced(const launch_plan *p, const launch_gpu *only)
{
    double price;

    if (p->opt->gpu_price.n == 0)
        return false;
    return only == NULL || (price_of(p, only->name, &price) == TP_OK && price > 0);
}

/* With prices, only devices that have one are in question. */
static bool in_question(const launch_plan *p, const launch_gpu *g, const launch_gpu *only,
                        bool by_price)
{
    double price = 0;

    if (only != NULL)
        return g == only;
    return strcmp(g->name, "cpu") != 0 &&
           (!by_price || price_of(p, g->name, &price) != TP_OK || price > 0);
}

tp_status launch_plan_load(FILE *out, launch_json *j, const launch_plan *p, const launch_gpu *only)
{
    bool by_price = all_priced(p, only);
    const char *by = by_price ? "lowest price" : "fewest devices";
    candidate best = {0};

    if (j != NULL) {
        launch_json_open(j, "load", '{');
        launch_json_text(j, "chosen_by", by);
        launch_json_open(j, "candidates", '[');
    } else {
        print_head(out, &p->load, by_price);
    }
    for (int i = 0; i < launch_n_gpus; i++) {
        candidate c;

        if (!in_question(p, &launch_gpus[i], only, by_price))
            continue;
        TP_TRY(best_of_gpu(&c, p, &launch_gpus[i], by_price));
        if (better(&c, &best, by_price))
            best = c;
        if (j != NULL)
            put_candidate(j, NULL, &c);
        else
            print_candidate(out, &c);
    }
    if (j != NULL) {
        launch_json_close(j, ']');
        if (best.ok)
            put_candidate(j, "best", &best);
        launch_json_close(j, '}');
    } else if (best.ok) {
        fprintf(out, "%s: %d x %s, as %d group%s of %d\n", by, devices(&best), best.gpu->name,
                best.a.copies, best.a.copies == 1 ? "" : "s", best.fit.c.n_ranks);
    } else {
        fprintf(out, "nothing here meets this load\n");
    }
    return TP_OK;
}
