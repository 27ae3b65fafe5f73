/* SPDX-License-Identifier: Apache-2.0 */
/* picture.c - see picture.h: the choice of the format, and SVG. */
#include "launcher/picture.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "launcher/bench.h"

#define THICK 2 /* of curves */
#define DOT   3

const uint32_t launch_palette[LAUNCH_N_COLOURS] = {
    [LAUNCH_WHITE] = 0xffffff,        [LAUNCH_BLACK] = 0x000000,
    [LAUNCH_GREY] = 0xcccccc,         [LAUNCH_GREEN] = 0x1b7837,
    [LAUNCH_LIGHT_GREEN] = 0x7fbf7b,  [LAUNCH_VIOLET] = 0x762a83,
    [LAUNCH_LIGHT_VIOLET] = 0xaf8dc3, [LAUNCH_BLUE] = 0x2166ac,
    [LAUNCH_LIGHT_BLUE] = 0x67a9cf};

static bool ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);

    return n > m && strcasecmp(path + n - m, end) == 0;
}

bool launch_picture_can_write(const char *path)
{
    return ends_with(path, ".svg") || ends_with(path, ".png");
}

void launch_picture_init(launch_picture *p, const char *path, int width, int height)
{
    size_t scale = LAUNCH_PICTURE_SCALE;

    *p = (launch_picture){.png = ends_with(path, ".png"), .width = width, .height = height};
    tp_buf_init(&p->svg, SIZE_MAX);
    if (p->png) {
        p->pixels = tp_calloc((size_t)height * scale, (size_t)width * scale);
        return;
    }
    tp_buf_printf(&p->svg,
                  "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
                  "font-family=\"sans-serif\" font-size=\"13\">\n"
                  "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n",
                  width, height, width, height);
}

void launch_picture_release(launch_picture *p)
{
    tp_buf_release(&p->svg);
    tp_free(p->pixels);
    p->pixels = NULL;
}

void launch_picture_line(launch_picture *p, launch_point a, launch_point b, launch_colour c)
{
    if (p->png)
        launch_pixels_line(p, a, b, 1, c);
    else
        tp_buf_printf(&p->svg,
                      "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#%06x\"/>\n",
                      a.x, a.y, b.x, b.y, launch_palette[c]);
}

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

static void put_curve(tp_buf *b, const launch_point *at, const double *value, int n,
                      const char *name, launch_colour c)
{
    tp_buf_printf(b, "<g fill=\"none\" stroke=\"#%06x\" stroke-width=\"%d\">\n<polyline points=\"",
                  launch_palette[c], THICK);
    for (int i = 0; i < n; i++)
        tp_buf_printf(b, "%.1f,%.1f ", at[i].x, at[i].y);
    tp_buf_puts(b, "\"/>\n");
    for (int i = 0; i < n; i++) {
        tp_buf_printf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\"><title>", at[i].x, at[i].y, DOT);
        put_escaped(b, name);
        tp_buf_printf(b, " %.4g</title></circle>\n", value[i]);
    }
    tp_buf_puts(b, "</g>\n");
}

void launch_picture_curve(launch_picture *p, const launch_point *at, const double *value, int n,
                          const char *name, launch_colour c)
{
    if (!p->png) {
        put_curve(&p->svg, at, value, n, name, c);
        return;
    }
    for (int i = 0; i < n; i++) {
        launch_pixels_dot(p, at[i], DOT, c);
        if (i > 0)
            launch_pixels_line(p, at[i - 1], at[i], THICK, c);
    }
}

void launch_picture_text(launch_picture *p, launch_point at, const char *anchor, const char *text)
{
    if (p->png) {
        launch_pixels_text(p, at, anchor, text);
        return;
    }
    tp_buf_printf(&p->svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", at.x, at.y, anchor);
    put_escaped(&p->svg, text);
    tp_buf_puts(&p->svg, "</text>\n");
}

tp_status launch_picture_write(launch_picture *p, const char *path)
{
    if (p->png && p->pixels == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "out of memory for %s", path);
    if (p->png)
        launch_pixels_encode(p, &p->svg);
    else
        tp_buf_puts(&p->svg, "</svg>\n");
    return launch_write_file(path, &p->svg);
}
