/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - one line per event on stderr.
 *
 *   2026-11-21T02:15:04.123Z info  [0/2 node1] sched: admitted request 17, 312 tokens
 *
 * Text that came from outside (headers, names, paths) is escaped: control bytes and DEL become \xHH,
 * so a line is always one line.  A line longer than 4 KiB is cut.  Levels: error warn info debug trace;
 * the default shows info on rank 0 and warn elsewhere.  --log-level sets it.
 * Threads: any; each line is one write().
 */
#ifndef TP_LOG_H
#define TP_LOG_H

#include "base/status.h"

typedef enum tp_log_level {
    TP_LOG_NONE = -1, /* as a level to set: nothing is logged (programs that fail on purpose) */
    TP_LOG_ERROR = 0,
    TP_LOG_WARN,
    TP_LOG_INFO,
    TP_LOG_DEBUG,
    TP_LOG_TRACE
} tp_log_level;

/* Shown between brackets; call once per process as soon as the rank is known. */
void tp_log_set_rank(int rank, int world);
void tp_log_set_level(tp_log_level level);
tp_log_level tp_log_get_level(void);
/* "error" ... "trace" -> level; false when the word is unknown. */
bool tp_log_parse_level(const char *word, tp_log_level *out);
/* JSON lines instead of text. */
void tp_log_set_json(bool on);

bool tp_log_enabled(tp_log_level level);
void tp_log_write(tp_log_level level, const char *component, const char *fmt, ...) TP_PRINTF(3, 4);

#define TP_LOG_AT(level, component, ...)                                                           \
    do {                                                                                           \
        if (tp_log_enabled(level))                                                                 \
            tp_log_write((level), (component), __VA_ARGS__);                                       \
    } while (0)

#define tp_error(component, ...) TP_LOG_AT(TP_LOG_ERROR, component, __VA_ARGS__)
#define tp_warn(component, ...)  TP_LOG_AT(TP_LOG_WARN, component, __VA_ARGS__)
#define tp_info(component, ...)  TP_LOG_AT(TP_LOG_INFO, component, __VA_ARGS__)
#define tp_debug(component, ...) TP_LOG_AT(TP_LOG_DEBUG, component, __VA_ARGS__)
#define tp_trace(component, ...) TP_LOG_AT(TP_LOG_TRACE, component, __VA_ARGS__)

#endif
