/* SPDX-License-Identifier: Apache-2.0 */
/* bench_plot.c - a picture of latency against load, as SVG.
 *
 * Loads stand side by side in the order in which they were measured, each with its output tokens/s below; time is
 * logarithmic, in decades that hold every point.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "launcher/bench.h"

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
    const char *name, *colour;
    double ms[LAUNCH_LOADS_MAX]; /* 0 = no point */
} series;

static void read_series(series out[N_SERIES], launch_result *r, int n)
{
    static const char *const k_names[N_SERIES] = {"TTFT p50", "TTFT p99", "TPOT p50",
                                                  "ITL p99",  "E2EL p50", "E2EL p99"};
    static const char *const k_colours[N_SERIES] = {"#1b7837", "#7fbf7b", "#762a83",
                                                    "#af8dc3", "#2166ac", "#67a9cf"};

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

static void put_escaped(tp_buf *b, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '&')
            tp_buf_puts(b, "&amp;");
        else if (c == '<')
            tp_buf_puts(b, "&lt;");
        else if (c == '>')
            tp_buf_puts(b, "&gt;");
        else
            tp_buf_putc(b, c < 0x20 ? ' ' : (char)c); /* XML has no other control characters */
    }
}

static void put_text(tp_buf *b, double x, double y, const char *anchor, const char *text)
{
    tp_buf_printf(b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    put_escaped(b, text);
    tp_buf_puts(b, "</text>\n");
}

static void put_line(tp_buf *b, double x1, double y1, double x2, double y2)
{
    tp_buf_printf(b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#cccccc\"/>\n",
                  x1, y1, x2, y2);
}

static void put_decades(tp_buf *b, const axes *a)
{
    for (double d = a->low; d <= a->high; d++) {
        double y = y_of(a, pow(10, d));
        char text[32];

        (void)snprintf(text, sizeof text, "%g ms", pow(10, d));
        put_line(b, LEFT, y, WIDTH - RIGHT, y);
        put_text(b, LEFT - 8, y + 4, "end", text);
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

static void put_loads(tp_buf *b, const axes *a, const launch_result *r)
{
    double y = HEIGHT - BOTTOM;
    char text[48];

    for (int i = 0; i < a->n; i++) {
        put_line(b, x_of(a, i), TOP, x_of(a, i), y);
        name_load(text, &r[i].load);
        put_text(b, x_of(a, i), y + 20, "middle", text);
        (void)snprintf(text, sizeof text, "%.4g tok/s",
                       r[i].duration_s > 0 ? (double)r[i].output_tokens / r[i].duration_s : 0);
        put_text(b, x_of(a, i), y + 38, "middle", text);
    }
    put_text(b, (LEFT + WIDTH - RIGHT) / 2.0, y + 66, "middle",
             isfinite(r[0].load.rate) ? "requests per second, requests at a time"
                                      : "requests at a time");
}

static void put_series(tp_buf *b, const axes *a, const series *s, int index)
{
    double legend_y = TOP + 20.0 * index;

    tp_buf_printf(b, "<g fill=\"none\" stroke=\"%s\" stroke-width=\"2\">\n<polyline points=\"",
                  s->colour);
    for (int i = 0; i < a->n; i++)
        if (s->ms[i] > 0)
            tp_buf_printf(b, "%.1f,%.1f ", x_of(a, i), y_of(a, s->ms[i]));
    tp_buf_puts(b, "\"/>\n");
    for (int i = 0; i < a->n; i++)
        if (s->ms[i] > 0)
            tp_buf_printf(
                b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>%s %.4g ms</title></circle>\n",
                x_of(a, i), y_of(a, s->ms[i]), s->name, s->ms[i]);
    tp_buf_printf(b, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>\n</g>\n",
                  WIDTH - RIGHT + 20, legend_y, WIDTH - RIGHT + 50, legend_y);
    put_text(b, WIDTH - RIGHT + 58, legend_y + 4, "start", s->name);
}

tp_status launch_write_plot(const char *path, const launch_bench_head *head, launch_result *r,
                            int n)
{
    series all[N_SERIES];
    char title[400];
    tp_status st;
    tp_buf b;
    axes a;

    read_series(all, r, n);
    a = make_axes(all, n);
    tp_buf_init(&b, SIZE_MAX);
    tp_buf_printf(&b,
                  "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
                  "font-family=\"sans-serif\" font-size=\"13\">\n"
                  "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n",
                  WIDTH, HEIGHT, WIDTH, HEIGHT);
    (void)snprintf(title, sizeof title, "%s, %d + %d tokens: latency against load", head->model,
                   r[0].load.prefix_len + r[0].load.input_len, r[0].load.output_len);
    put_text(&b, LEFT, 28, "start", title);
    put_decades(&b, &a);
    put_loads(&b, &a, r);
    for (int s = 0; s < N_SERIES; s++)
        put_series(&b, &a, &all[s], s);
    tp_buf_puts(&b, "</svg>\n");
    st = launch_write_file(path, &b);
    tp_buf_release(&b);
    return st;
}
