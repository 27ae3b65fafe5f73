/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - formats one event into a fixed buffer and hands it to the kernel in one write().
 *
 * No heap and no locks, so that it may be called from anywhere, also while memory is short.  A line that is
 * too long is cut at a code point.  errno is preserved: callers log and then look at it.
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"

#define LINE_BYTES 4096
#define LEVEL_AUTO (-2)

static const char *const LEVEL_NAMES[] = {"error", "warn", "info", "debug", "trace"};

static atomic_int g_level = LEVEL_AUTO;
static atomic_int g_rank = 0;
static atomic_int g_world = 0; /* 0: not known yet */
static atomic_bool g_json = false;
static char g_host[64]; /* written once, before the threads start */

typedef struct line {
    char text[LINE_BYTES];
    size_t len;
} line;

void tp_log_set_rank(int rank, int world)
{
    char host[sizeof g_host];

    if (gethostname(host, sizeof host) != 0)
        host[0] = '\0';
    host[sizeof host - 1] = '\0';
    host[strcspn(host, ".")] = '\0';
    memcpy(g_host, host, sizeof g_host);
    atomic_store(&g_rank, rank);
    atomic_store(&g_world, world);
}

void tp_log_set_level(tp_log_level level)
{
    atomic_store(&g_level, (int)level);
}

tp_log_level tp_log_get_level(void)
{
    int level = atomic_load_explicit(&g_level, memory_order_relaxed);

    if (level != LEVEL_AUTO)
        return (tp_log_level)level;
    return atomic_load_explicit(&g_rank, memory_order_relaxed) == 0 ? TP_LOG_INFO : TP_LOG_WARN;
}

bool tp_log_parse_level(const char *word, tp_log_level *out)
{
    for (size_t i = 0; i < TP_ARRAY_LEN(LEVEL_NAMES); i++) {
        if (strcmp(word, LEVEL_NAMES[i]) == 0) {
            *out = (tp_log_level)i;
            return true;
        }
    }
    return false;
}

void tp_log_set_json(bool on)
{
    atomic_store(&g_json, on);
}

bool tp_log_enabled(tp_log_level level)
{
    return level <= tp_log_get_level();
}

/* Appends bytes while at least `reserve` bytes stay free behind them; false when they do not fit. */
static bool line_put(line *l, const char *s, size_t n, size_t reserve)
{
    if (l->len + n + reserve > sizeof l->text)
        return false;
    memcpy(l->text + l->len, s, n);
    l->len += n;
    return true;
}

static void line_printf(line *l, const char *fmt, ...) TP_PRINTF(2, 3);

static void line_printf(line *l, const char *fmt, ...)
{
    char piece[160];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(piece, sizeof piece, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    (void)line_put(l, piece, (size_t)n < sizeof piece ? (size_t)n : sizeof piece - 1, 1);
}

/* Appends text with control characters, DEL, C1 controls and ill-formed bytes made visible. */
static void line_put_escaped(line *l, const char *s, bool json, size_t reserve)
{
    size_t left = strlen(s);

    while (left > 0) {
        uint32_t cp = 0;
        int n = tp_utf8_decode(s, left, &cp);
        char esc[8];

        if (n == 0 || cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) {
            /* Two-byte C1 controls are shown byte by byte: the second byte alone is ill formed. */
            (void)snprintf(esc, sizeof esc, json ? "\\\\x%02x" : "\\x%02x", (unsigned char)*s);
            if (!line_put(l, esc, strlen(esc), reserve))
                return;
            n = 1;
        } else if (json && (*s == '"' || *s == '\\')) {
            esc[0] = '\\';
            esc[1] = *s;
            if (!line_put(l, esc, 2, reserve))
                return;
        } else if (!line_put(l, s, (size_t)n, reserve)) {
            return;
        }
        s += n;
        left -= (size_t)n;
    }
}

static void line_put_time(line *l)
{
    struct timespec now;
    struct tm tm;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &tm);
    line_printf(l, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", tm.tm_year + 1900, tm.tm_mon + 1,
                tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, now.tv_nsec / 1000000);
}

static void format_text(line *l, tp_log_level level, const char *component, const char *text)
{
    int world = atomic_load(&g_world);

    line_put_time(l);
    line_printf(l, " %-5s ", LEVEL_NAMES[level]);
    if (world > 0)
        line_printf(l, "[%d/%d %s] ", atomic_load(&g_rank), world, g_host);
    line_printf(l, "%s: ", component);
    line_put_escaped(l, text, false, 1);
    (void)line_put(l, "\n", 1, 0);
}

static void format_json(line *l, tp_log_level level, const char *component, const char *text)
{
    int world = atomic_load(&g_world);

    line_printf(l, "{\"time\":\"");
    line_put_time(l);
    line_printf(l, "\",\"level\":\"%s\",", LEVEL_NAMES[level]);
    if (world > 0)
        line_printf(l, "\"rank\":%d,\"world\":%d,\"host\":\"%s\",", atomic_load(&g_rank), world,
                    g_host);
    line_printf(l, "\"component\":\"%s\",\"message\":\"", component);
    line_put_escaped(l, text, true, 3);
    (void)line_put(l, "\"}\n", 3, 0);
}

void tp_log_write(tp_log_level level, const char *component, const char *fmt, ...)
{
    int saved_errno = errno;
    char text[LINE_BYTES];
    line l;
    va_list ap;
    ssize_t written;

    va_start(ap, fmt);
    if (vsnprintf(text, sizeof text, fmt, ap) < 0)
        text[0] = '\0';
    va_end(ap);
    l.len = 0;
    if (atomic_load(&g_json))
        format_json(&l, level, component, text);
    else
        format_text(&l, level, component, text);
    do
        written = write(STDERR_FILENO, l.text, l.len);
    while (written < 0 && errno == EINTR);
    errno = saved_errno;
}
