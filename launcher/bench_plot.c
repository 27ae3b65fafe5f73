/* SPDX-License-Identifier: Apache-2.0 */
/* bench_plot.c - a picture of latency against load.
 *
 * Loads stand side by side in the order in which they were measured, each with its output tokens/s below; time is
 * logarithmic, in decades that hold every point.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "launcher/bench.h"
#include "launcher/picture.h"

#define WIDTH    900
#define HEIGHT   540
#define LEFT     80
#define RIGHT    200 /* the legend stands there */
#define TOP      50
#define BOTTOM   90
#define N_SERIES 6

typedef struct axes {
    int n;            /* loads */
    double low, high; /* decades: log10 of milliseconds */
} axes;

typedef struct series {
    const char *name;
    launch_colour colour;
    double ms[LAUNCH_RESULTS_MAX]; /* 0 = no point */
} series;

static void read_series(series out[N_SERIES], launch_result *r, int n)
{
    static const char *const k_names[N_SERIES] = {"TTFT p50", "TTFT p99", "TPOT p50",
                                                  "ITL p99",  "E2EL p50", "E2EL p99"};
    static const launch_colour k_colours[N_SERIES] = {LAUNCH_GREEN,  LAUNCH_LIGHT_GREEN,
                                                      LAUNCH_VIOLET, LAUNCH_LIGHT_VIOLET,
                                                      LAUNCH_BLUE,   LAUNCH_LIGHT_BLUE};

    for (int s = 0; s < N_SERIES; s++)
        out[s] = (series){.name = k_names[s], .colour = k_colours[s]};
    for (int i = 0; i < n; i++) {
        out[0].ms[i] = launch_percentile(&r[i].ttft_ms, 50);
        out[1].ms[i] = launch_percentile(&r[i].ttft_ms, 99);
        out[2].ms[i] = launch_percentile(&r[i].tpot_ms, 50);
        out[3].ms[i] = launch_percentile(&r[i].itl_ms, 99);
        out[4].ms[i] = launch_percentile(&r[i].e2el_ms, 50);
        out[5].ms[i] = launch_percentile(&r[i].e2el_ms, 99);
    }
}

static axes make_axes(const series *all, int n)
{
    axes a = {.n = n, .low = INFINITY, .high = -INFINITY};

    for (int s = 0; s < N_SERIES; s++) {
        for (int i = 0; i < n; i++) {
            if (all[s].ms[i] <= 0)
                continue;
            a.low = fmin(a.low, floor(log10(all[s].ms[i])));
            a.high = fmax(a.high, ceil(log10(all[s].ms[i])));
        }
    }
    if (!(a.low < a.high)) {
        a.low = isfinite(a.low) ? a.low : 0;
        a.high = a.low + 1;
    }
    return a;
}

static double x_of(const axes *a, int i)
{
    return LEFT + (WIDTH - LEFT - RIGHT) * (i + 0.5) / a->n;
}

static double y_of(const axes *a, double ms)
{
    return TOP + (HEIGHT - TOP - BOTTOM) * (a->high - log10(ms)) / (a->high - a->low);
}

/* ---- marks ---- */

static void put_text(launch_picture *p, double x, double y, const char *anchor, const char *text)
{
    launch_picture_text(p, (launch_point){x, y}, anchor, text);
}

static void put_decades(launch_picture *p, const axes *a)
{
    for (double d = a->low; d <= a->high; d++) {
        double y = y_of(a, pow(10, d));
        char text[32];

        (void)snprintf(text, sizeof text, "%g ms", pow(10, d));
        launch_picture_line(p, (launch_point){LEFT, y}, (launch_point){WIDTH - RIGHT, y},
                            LAUNCH_GREY);
        put_text(p, LEFT - 8, y + 4, "end", text);
    }
}

static void name_load(char out[48], const launch_load *l)
{
    if (isfinite(l->rate) && l->concurrency > 0)
        (void)snprintf(out, 48, "%.3g/s, %d", l->rate, l->concurrency);
    else if (isfinite(l->rate))
        (void)snprintf(out, 48, "%.3g/s", l->rate);
    else
        (void)snprintf(out, 48, l->concurrency > 0 ? "%d" : "all", l->concurrency);
}

static void put_loads(launch_picture *p, const axes *a, const launch_result *r)
{
    double y = HEIGHT - BOTTOM;
    char text[48];

    for (int i = 0; i < a->n; i++) {
        double x = x_of(a, i);
        double rate = r[i].duration_s > 0 ? (double)r[i].output_tokens / r[i].duration_s : 0;

        launch_picture_line(p, (launch_point){x, TOP}, (launch_point){x, y}, LAUNCH_GREY);
        name_load(text, &r[i].load);
        put_text(p, x, y + 20, "middle", text);
        (void)snprintf(text, sizeof text, "%.*f tok/s", rate < 100 ? 1 : 0, rate);
        put_text(p, x, y + 38, "middle", text);
        if (r[i].label != NULL)
            put_text(p, x, y + 54, "middle", r[i].label);
    }
    put_text(p, (LEFT + WIDTH - RIGHT) / 2.0, y + 76, "middle",
             isfinite(r[0].load.rate) ? "requests per second, requests at a time"
                                      : "requests at a time");
}

static void put_series(launch_picture *p, const axes *a, const series *s, int index)
{
    double legend_y = TOP + 20.0 * index, ms[LAUNCH_RESULTS_MAX];
    launch_point at[LAUNCH_RESULTS_MAX];
    int n = 0;

    for (int i = 0; i < a->n; i++) {
        if (s->ms[i] <= 0)
            continue;
        ms[n] = s->ms[i];
        at[n++] = (launch_point){x_of(a, i), y_of(a, s->ms[i])};
    }
    launch_picture_curve(p, at, ms, n, s->name, s->colour);
    launch_picture_line(p, (launch_point){WIDTH - RIGHT + 20, legend_y},
                        (launch_point){WIDTH - RIGHT + 50, legend_y}, s->colour);
    put_text(p, WIDTH - RIGHT + 58, legend_y + 4, "start", s->name);
}

tp_status launch_write_plot(const char *path, const launch_bench_head *head, launch_result *r,
                            int n)
{
    series all[N_SERIES];
    launch_picture p;
    char title[400];
    tp_status st;
    axes a;

    read_series(all, r, n);
    a = make_axes(all, n);
    launch_picture_init(&p, path, WIDTH, HEIGHT);
    (void)snprintf(title, sizeof title, "%s, %d + %d tokens: latency against load", head->model,
                   r[0].load.prefix_len + r[0].load.input_len, r[0].load.output_len);
    put_text(&p, LEFT, 28, "start", title);
    put_decades(&p, &a);
    put_loads(&p, &a, r);
    for (int s = 0; s < N_SERIES; s++)
        put_series(&p, &a, &all[s], s);
    st = launch_picture_write(&p, path);
    launch_picture_release(&p);
    return st;
}
