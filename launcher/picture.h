/* SPDX-License-Identifier: Apache-2.0 */
/* picture.h - lines, points and text on a white sheet, as SVG or PNG by the ending of the file's name.
 *
 * Coordinates are units from the upper left corner; a PNG has PICTURE_SCALE pixels a unit.  Out of memory shows at the
 * end: launch_picture_write() refuses.  Threads: one per picture.
 */
#ifndef LAUNCH_PICTURE_H
#define LAUNCH_PICTURE_H

#include <stdint.h>

#include "base/buf.h"

#define LAUNCH_PICTURE_SCALE 2

typedef enum launch_colour {
    LAUNCH_WHITE,
    LAUNCH_BLACK,
    LAUNCH_GREY,
    LAUNCH_GREEN,
    LAUNCH_LIGHT_GREEN,
    LAUNCH_VIOLET,
    LAUNCH_LIGHT_VIOLET,
    LAUNCH_BLUE,
    LAUNCH_LIGHT_BLUE,
    LAUNCH_N_COLOURS
} launch_colour;

extern const uint32_t launch_palette[LAUNCH_N_COLOURS]; /* 0xrrggbb */

typedef struct launch_point {
    double x, y;
} launch_point;

typedef struct launch_picture {
    bool png;
    int width, height; /* units */
    tp_buf svg;
    uint8_t *pixels; /* owned; [height, width] times the scale, each a launch_colour */
} launch_picture;

/* True for names that end in .svg or .png. */
bool launch_picture_can_write(const char *path);
void launch_picture_init(launch_picture *p, const char *path, int width, int height);
void launch_picture_release(launch_picture *p);

void launch_picture_line(launch_picture *p, launch_point a, launch_point b, launch_colour c);
/* A thick line through the points, with a dot at each; in SVG the dots answer the pointer with their number. */
void launch_picture_curve(launch_picture *p, const launch_point *at, const double *value, int n,
                          const char *name, launch_colour c);
/* On a base line; anchor: "start", "middle", "end". */
void launch_picture_text(launch_picture *p, launch_point at, const char *anchor, const char *text);
TP_MUST_USE tp_status launch_picture_write(launch_picture *p, const char *path);

/* picture_png.c: the same on pixels, and the file's bytes. */
void launch_pixels_line(launch_picture *p, launch_point a, launch_point b, int thick,
                        launch_colour c);
void launch_pixels_dot(launch_picture *p, launch_point at, int radius, launch_colour c);
void launch_pixels_text(launch_picture *p, launch_point at, const char *anchor, const char *text);
void launch_pixels_encode(const launch_picture *p, tp_buf *out);

#endif
