/* SPDX-License-Identifier: Apache-2.0 */
/* picture_png.c - pixels, and the PNG file that they make (RFC 2083).
 *
 * The file: signature; IHDR (4 bits a pixel, indices into a palette); PLTE; IDAT with one zlib stream of rows, each behind
 * a filter byte 0; IEND.  Compression knows runs of one byte only: a literal, then matches at distance 1, in one block
 * with the fixed Huffman codes of RFC 1951.  A picture is mostly white, so that is enough.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/picture.h"

#define SCALE     LAUNCH_PICTURE_SCALE
#define GLYPH_W   5
#define GLYPH_H   7
#define ADVANCE   6 /* dots; a dot is SCALE pixels wide and high */
#define RUN_MAX   258
#define SHORT_MAX 10 /* longest run whose code has no extra bits, but for RUN_MAX */

/* Rows of 5 dots from the top, a digit of base 32 each; from the space to the tilde. */
static const char k_glyphs[][GLYPH_H + 1] = {
    "0000000", "4444404", "aa00000", "aavavaa", "4fke5u4", "op248j3", "cik8lid", "4400000",
    "2488842", "8422248", "04lel40", "044v440", "0000c48", "000v000", "00000cc", "01248g0",
    "ehjlphe", "4c4444e", "eh1248v", "v2421he", "26aiv22", "vgu11he", "68guhhe", "v124888",
    "ehhehhe", "ehhf12c", "0cc0cc0", "0cc0c48", "248g842", "00v0v00", "8421248", "eh12404",
    "eh1dlle", "ehhvhhh", "uhhuhhu", "ehggghe", "sihhhis", "vgguggv", "vgguggg", "ehgnhhf",
    "hhhvhhh", "e44444e", "72222ic", "hikokih", "ggggggv", "hrllhhh", "hhpljhh", "ehhhhhe",
    "uhhuggg", "ehhhlid", "uhhukih", "fgge11u", "v444444", "hhhhhhe", "hhhhha4", "hhhllla",
    "hha4ahh", "hhha444", "v1248gv", "e88888e", "0g84210", "e22222e", "4ah0000", "000000v",
    "8420000", "00e1fhf", "ggmphhu", "00egghe", "11djhhf", "00ehvge", "698s888", "0fhhf1e",
    "ggmphhh", "40c444e", "20622ic", "ggikoki", "c44444e", "00qllhh", "00mphhh", "00ehhhe",
    "00uhugg", "00djf11", "00mpggg", "00ege1u", "88s8896", "00hhhjd", "00hhha4", "00hhlla",
    "00ha4ah", "00hhf1e", "00v248v", "2448442", "4444444", "8442448", "008l200"};

static const char k_unknown[] = "vhhhhhv";

/* ---- pixels ---- */

static void set_pixel(launch_picture *p, int x, int y, launch_colour c)
{
    int width = p->width * SCALE, height = p->height * SCALE;

    if (p->pixels != NULL && x >= 0 && x < width && y >= 0 && y < height)
        p->pixels[(size_t)y * (size_t)width + (size_t)x] = (uint8_t)c;
}

static void fill(launch_picture *p, int x, int y, int w, int h, launch_colour c)
{
    for (int i = 0; i < w * h; i++)
        set_pixel(p, x + i % w, y + i / w, c);
}

void launch_pixels_line(launch_picture *p, launch_point a, launch_point b, int thick,
                        launch_colour c)
{
    double dx = (b.x - a.x) * SCALE, dy = (b.y - a.y) * SCALE;
    int steps = (int)ceil(fmax(fabs(dx), fabs(dy))), side = thick * SCALE / 2;

    for (int i = 0; i <= steps; i++) {
        double t = steps > 0 ? (double)i / steps : 0;

        fill(p, (int)lround(a.x * SCALE + t * dx) - side / 2,
             (int)lround(a.y * SCALE + t * dy) - side / 2, side, side, c);
    }
}

void launch_pixels_dot(launch_picture *p, launch_point at, int radius, launch_colour c)
{
    int r = radius * SCALE, x = (int)lround(at.x * SCALE), y = (int)lround(at.y * SCALE);

    for (int dy = -r; dy <= r; dy++)
        for (int dx = -r; dx <= r; dx++)
            if (dx * dx + dy * dy <= r * r)
                set_pixel(p, x + dx, y + dy, c);
}

static unsigned row_of(const char *glyph, int y)
{
    char digit = glyph[y];

    return (unsigned)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

void launch_pixels_text(launch_picture *p, launch_point at, const char *anchor, const char *text)
{
    int width = (int)strlen(text) * ADVANCE * SCALE;
    int left = (int)lround(at.x * SCALE), top = (int)lround(at.y * SCALE) - GLYPH_H * SCALE;

    left -= strcmp(anchor, "end") == 0 ? width : strcmp(anchor, "middle") == 0 ? width / 2 : 0;
    for (; *text != '\0'; text++, left += ADVANCE * SCALE) {
        size_t at_glyph = (size_t)(unsigned char)*text - ' ';
        const char *glyph = at_glyph < TP_ARRAY_LEN(k_glyphs) ? k_glyphs[at_glyph] : k_unknown;

        for (int i = 0; i < GLYPH_W * GLYPH_H; i++)
            if ((row_of(glyph, i / GLYPH_W) >> (GLYPH_W - 1 - i % GLYPH_W) & 1) != 0)
                fill(p, left + i % GLYPH_W * SCALE, top + i / GLYPH_W * SCALE, SCALE, SCALE,
                     LAUNCH_BLACK);
    }
}

/* ---- compression ---- */

typedef struct bits {
    tp_buf *out;
    uint32_t held; /* lowest bits go first */
    int n;
} bits;

static void put_bits(bits *b, uint32_t value, int n)
{
    b->held |= value << b->n;
    for (b->n += n; b->n >= 8; b->n -= 8) {
        tp_buf_putc(b->out, (char)(b->held & 0xff));
        b->held >>= 8;
    }
}

/* Huffman codes go highest bit first. */
static void put_code(bits *b, uint32_t code, int n)
{
    while (n-- > 0)
        put_bits(b, code >> n & 1, 1);
}

static void put_literal(bits *b, uint8_t v)
{
    if (v < 144)
        put_code(b, 0x30u + v, 8);
    else
        put_code(b, 0x190u + (v - 144u), 9);
}

/* `run` more of the last byte: lengths 3 to 10 are the symbols 257 to 264, 258 is the symbol 285; distance 1 is 0. */
static void put_run(bits *b, uint8_t v, size_t run)
{
    for (; run >= RUN_MAX; run -= RUN_MAX) {
        put_code(b, 0xc5, 8);
        put_code(b, 0, 5);
    }
    while (run >= 3) {
        size_t len = run < SHORT_MAX ? run : SHORT_MAX;

        put_code(b, (uint32_t)len - 2, 7);
        put_code(b, 0, 5);
        run -= len;
    }
    for (; run > 0; run--)
        put_literal(b, v);
}

static uint32_t adler32(const uint8_t *data, size_t n)
{
    uint32_t a = 1, b = 0;

    for (size_t i = 0; i < n; i++) {
        a = (a + data[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

static void put_u32(tp_buf *b, uint32_t v)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        tp_buf_putc(b, (char)(v >> shift & 0xff));
}

static void put_zlib(tp_buf *out, const uint8_t *data, size_t n)
{
    bits b = {.out = out};

    tp_buf_put(out, "\x78\x01", 2);
    put_bits(&b, 1, 1); /* the last block, */
    put_bits(&b, 1, 2); /* with fixed codes */
    for (size_t i = 0, run; i < n; i += run) {
        for (run = 1; i + run < n && data[i + run] == data[i];)
            run++;
        put_literal(&b, data[i]);
        put_run(&b, data[i], run - 1);
    }
    put_code(&b, 0, 7); /* the end */
    put_bits(&b, 0, 7); /* to a whole byte */
    put_u32(out, adler32(data, n));
}

/* ---- the file ---- */

static uint32_t crc32(const uint8_t *data, size_t n)
{
    uint32_t crc = 0xffffffff;

    for (size_t i = 0; i < n; i++) {
        crc ^= data[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void put_chunk(tp_buf *out, const char *type, const void *data, size_t n)
{
    size_t start = out->len + 4;

    put_u32(out, (uint32_t)n);
    tp_buf_puts(out, type);
    tp_buf_put(out, data, n);
    if (!out->failed)
        put_u32(out, crc32((const uint8_t *)out->data + start, out->len - start));
}

/* Rows as they are compressed: a filter byte, then two pixels a byte. */
static void put_rows(tp_buf *out, const launch_picture *p)
{
    size_t width = (size_t)p->width * SCALE, height = (size_t)p->height * SCALE;

    for (size_t y = 0; y < height; y++) {
        const uint8_t *row = p->pixels + y * width;

        tp_buf_putc(out, 0);
        for (size_t x = 0; x < width; x += 2)
            tp_buf_putc(out, (char)(row[x] << 4 | row[x + 1]));
    }
}

void launch_pixels_encode(const launch_picture *p, tp_buf *out)
{
    tp_buf head, palette, rows, packed;

    tp_buf_init(&head, SIZE_MAX);
    tp_buf_init(&palette, SIZE_MAX);
    tp_buf_init(&rows, SIZE_MAX);
    tp_buf_init(&packed, SIZE_MAX);
    put_u32(&head, (uint32_t)(p->width * SCALE));
    put_u32(&head, (uint32_t)(p->height * SCALE));
    tp_buf_put(&head, "\4\3\0\0\0",
               5); /* 4 bits, palette, the only compression and filters, no interlace */
    for (int i = 0; i < LAUNCH_N_COLOURS; i++)
        for (int shift = 16; shift >= 0; shift -= 8)
            tp_buf_putc(&palette, (char)(launch_palette[i] >> shift & 0xff));
    put_rows(&rows, p);
    put_zlib(&packed, (const uint8_t *)tp_buf_str(&rows), rows.len);
    tp_buf_reset(out);
    tp_buf_put(out, "\x89PNG\r\n\x1a\n", 8);
    put_chunk(out, "IHDR", tp_buf_str(&head), head.len);
    put_chunk(out, "PLTE", tp_buf_str(&palette), palette.len);
    put_chunk(out, "IDAT", tp_buf_str(&packed), packed.len);
    put_chunk(out, "IEND", "", 0);
    out->failed |= head.failed || palette.failed || rows.failed || packed.failed;
    tp_buf_release(&head);
    tp_buf_release(&palette);
    tp_buf_release(&rows);
    tp_buf_release(&packed);
}
