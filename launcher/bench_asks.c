/* SPDX-License-Identifier: Apache-2.0 */
/* bench_asks.c - the loads that options ask for, and the requests of a load.
 *
 * Every number is drawn by (seed, request, what for), so a request is the same however many others there are, and two
 * servers get the same load.  The loads of a run have the same lengths and times, but not the same prompts: a server keeps
 * what it has computed.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "kernels/philox.h"
#include "launcher/bench.h"

/* What a number is for: the philox stream.  Tokens have one of their own, as their index counts tokens. */
enum { FOR_TOKEN, FOR_INPUT, FOR_OUTPUT, FOR_LEAVING, FOR_PLACE, FOR_ARRIVAL };

/* Merges of two or three letters in the usual vocabularies; control tokens lie lower or far above. */
#define FIRST_ID 300
#define N_IDS    700

#define EXPONENTIAL_MAX 8        /* times the mean */
#define REQUESTS_MAX    10000000 /* of a load: --num-prompts */
#define CONCURRENCY_MAX 65536
#define CONCURRENCY     16 /* where neither it nor a rate is given */

/* ---- loads ---- */

typedef struct number_list {
    double v[LAUNCH_LOADS_MAX];
    int n;
} number_list;

static tp_status read_numbers(number_list *out, const char *option, const char *text, double min,
                              double max)
{
    const char *s = text;

    out->n = 0;
    for (;;) {
        char *end;
        double v = strtod(s, &end);

        if (end == s || !(v >= min && v <= max) || (*end != '\0' && *end != ','))
            return TP_REJECT(TP_ERR_INVALID,
                             "--%s: expected numbers from %g to %g such as 1,4,16, found \"%s\"",
                             option, min, max, text);
        if (out->n == LAUNCH_LOADS_MAX)
            return TP_REJECT(TP_ERR_INVALID, "--%s: more than %d numbers", option,
                             LAUNCH_LOADS_MAX);
        out->v[out->n++] = v;
        if (*end == '\0')
            return TP_OK;
        s = end + 1;
    }
}

tp_status launch_read_loads(launch_load *out, int *n, const launch_options *opt)
{
    number_list concurrencies = {.n = 1}, rates = {.v = {(double)INFINITY}, .n = 1};
    launch_load load = {.n_requests = (int)opt->num_prompts,
                        .burstiness = opt->burstiness,
                        .input_len = (int)opt->random_input_len,
                        .output_len = (int)opt->random_output_len,
                        .prefix_len = (int)opt->random_prefix_len,
                        .range_ratio = opt->random_range_ratio,
                        .exponential = strcmp(opt->length_distribution, "exponential") == 0,
                        .leave_rate = opt->disconnect_rate,
                        .seed = (uint64_t)opt->seed};

    if (opt->request_rate != NULL)
        TP_TRY(read_numbers(&rates, "request-rate", opt->request_rate, 1e-6, INFINITY));
    if (opt->max_concurrency != NULL)
        TP_TRY(read_numbers(&concurrencies, "max-concurrency", opt->max_concurrency, 0,
                            CONCURRENCY_MAX));
    else if (opt->request_rate == NULL)
        concurrencies.v[0] = CONCURRENCY;
    if (load.burstiness <= 0)
        return TP_REJECT(TP_ERR_INVALID, "--burstiness: expected a number above 0, found %g",
                         load.burstiness);
    if (load.leave_rate > 0 && !opt->stream)
        return TP_REJECT(TP_ERR_INVALID,
                         "--disconnect-rate needs streams, which --no-stream turns off: nobody "
                         "knows where in an answer that comes whole a client leaves");
    if (rates.n * concurrencies.n > LAUNCH_LOADS_MAX)
        return TP_REJECT(TP_ERR_INVALID, "%d rates times %d concurrencies are more than %d loads",
                         rates.n, concurrencies.n, LAUNCH_LOADS_MAX);
    *n = 0;
    for (int r = 0; r < rates.n; r++) {
        for (int c = 0; c < concurrencies.n; c++) {
            load.rate = rates.v[r];
            load.concurrency = (int)concurrencies.v[c];
            load.number = *n;
            out[(*n)++] = load;
        }
    }
    return TP_OK;
}

/* ---- requests ---- */

static double uniform(const launch_load *load, int request, uint32_t index, uint32_t what)
{
    return kern_philox_uniform(load->seed, (uint64_t)request + 1, index, what);
}

static int draw_length(const launch_load *load, int mean, double u)
{
    double low = floor(mean * (1 - load->range_ratio)), high = ceil(mean * (1 + load->range_ratio));
    double len = low + floor(u * (high - low + 1));

    if (load->exponential)
        len = fmin(ceil(-log1p(-u) * mean), (double)EXPONENTIAL_MAX * mean);
    return len < 1 ? 1 : (int)len;
}

/* A normal number by the method of Box and Muller; index and index + 1 are used up. */
static double normal(const launch_load *load, int request, uint32_t index)
{
    double radius = sqrt(-2 * log1p(-uniform(load, request, index, FOR_ARRIVAL)));

    return radius *
           cos(2 * 3.14159265358979323846 * uniform(load, request, index + 1, FOR_ARRIVAL));
}

/* Gamma with mean 1 (Marsaglia and Tsang, 2000); shape 1 is the exponential gap of a Poisson process. */
static double draw_gap(const launch_load *load, int request)
{
    double shape = load->burstiness, d, c, boost = 1;
    uint32_t at = 0;

    if (shape == 1)
        return -log1p(-uniform(load, request, 0, FOR_ARRIVAL));
    if (shape < 1)
        boost = pow(1 - uniform(load, request, at++, FOR_ARRIVAL), 1 / shape);
    d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3;
    c = 1 / sqrt(9 * d);
    for (;; at += 3) {
        double x = normal(load, request, at), v = 1 + c * x;
        double u = 1 - uniform(load, request, at + 2, FOR_ARRIVAL);

        v = v * v * v;
        if (v > 0 && log(u) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v * boost / shape;
    }
}

void launch_plan_asks(launch_ask *asks, const launch_load *load)
{
    double at = 0;

    for (int i = 0; i < load->n_requests; i++) {
        launch_ask *a = &asks[i];

        a->input_len =
            load->prefix_len + draw_length(load, load->input_len, uniform(load, i, 0, FOR_INPUT));
        a->output_len = draw_length(load, load->output_len, uniform(load, i, 0, FOR_OUTPUT));
        a->start_s = at;
        a->leave_after = -1;
        if (uniform(load, i, 0, FOR_LEAVING) < load->leave_rate)
            a->leave_after = (int)(uniform(load, i, 0, FOR_PLACE) * a->output_len);
        if (isfinite(load->rate))
            at += draw_gap(load, i) / load->rate;
    }
}

/* A number below n: the same for all requests within the shared prefix. */
static int draw_below(const launch_load *load, int index, int i, int n)
{
    int request = i < load->prefix_len ? -1 : load->number * REQUESTS_MAX + index;

    return (int)(uniform(load, request, (uint32_t)i, FOR_TOKEN) * n);
}

int32_t launch_prompt_id(const launch_load *load, int index, int i)
{
    return FIRST_ID + draw_below(load, index, i, N_IDS);
}

const char *launch_prompt_word(const launch_load *load, int index, int i)
{
    static const char *const k_words[] = {
        "the",  "of",   "and",   "to",    "in",    "is",    "that",  "for",  "it",    "as",
        "was",  "with", "be",    "by",    "on",    "not",   "he",    "his",  "but",   "at",
        "are",  "this", "have",  "from",  "or",    "had",   "an",    "they", "which", "one",
        "you",  "were", "her",   "all",   "there", "would", "their", "we",   "him",   "been",
        "has",  "when", "who",   "will",  "more",  "no",    "if",    "out",  "so",    "said",
        "what", "up",   "its",   "about", "into",  "than",  "them",  "can",  "only",  "other",
        "new",  "some", "could", "time"};

    return k_words[draw_below(load, index, i, (int)TP_ARRAY_LEN(k_words))];
}
