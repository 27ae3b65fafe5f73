/* SPDX-License-Identifier: Apache-2.0 */
/* status.h - how functions report failure, and the assertions that never sleep.
 *
 * Three classes, never mixed:
 *   bug               TP_ASSERT: always on; prints a line and aborts the job.
 *   expected failure  a negative tp_status travels up; out-parameters are written only on success.
 *   fatal to group    the same status, and the caller ends the group through comm_abort().
 *
 * The first function that sees a failure describes it once:
 *   return TP_FAIL(TP_ERR_IO, "open %s: %m", path);      logs the line and keeps the text
 *   return TP_REJECT(TP_ERR_INVALID, "top_p is %g ...");  keeps the text only (a client's mistake)
 * Callers pass the status on with TP_TRY and read the text with tp_last_error().
 *
 * Threads: the kept text is per thread.
 */
#ifndef TP_STATUS_H
#define TP_STATUS_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TP_MUST_USE     __attribute__((warn_unused_result))
#define TP_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define TP_NORETURN     __attribute__((noreturn))
#define TP_LIKELY(x)    __builtin_expect(!!(x), 1)
#define TP_UNLIKELY(x)  __builtin_expect(!!(x), 0)
#define TP_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

typedef enum tp_status {
    TP_OK = 0,
    TP_ERR_INVALID = -1,     /* an argument, option or request breaks its contract */
    TP_ERR_NOMEM = -2,       /* memory could not be had */
    TP_ERR_IO = -3,          /* the operating system refused: file, socket, mapping */
    TP_ERR_NOT_FOUND = -4,   /* a name, key, file or id does not exist */
    TP_ERR_FORMAT = -5,      /* a file or message is damaged */
    TP_ERR_UNSUPPORTED = -6, /* well formed, but not something this build can do */
    TP_ERR_FULL = -7,        /* a bounded resource is used up for now; no message is kept */
    TP_ERR_TIMEOUT = -8,     /* a deadline passed */
    TP_ERR_CANCELLED = -9,   /* the owner withdrew the work */
    TP_ERR_COMM = -10,       /* a peer rank is lost or disagrees */
    TP_ERR_DEVICE = -11,     /* the compute device failed */
    TP_ERR_LIMIT = -12,      /* a stated limit or budget was overrun */
    TP_ERR_DRAINING = -13,   /* the server is ending and takes no new work */
    TP_ERR_EXIT = -14        /* nothing failed, but the program has said all it had to (--help) */
} tp_status;

/* "invalid", "out of memory", ...: for log lines. */
const char *tp_status_name(tp_status st);

/* Text of the newest failure of this thread; "" when none.  Valid until the thread's next failure. */
const char *tp_last_error(void);

tp_status tp_fail_at(const char *file, int line, tp_status st, const char *fmt, ...)
    TP_PRINTF(4, 5);
tp_status tp_reject(tp_status st, const char *fmt, ...) TP_PRINTF(2, 3);

/* Both yield the st that they were given, not the function's result: the compiler then sees that the path fails
 * and does not warn about out-parameters that it leaves unset.  st is evaluated twice: give a plain value. */
/* An operator must know: log at error level, keep the text, yield st. */
#define TP_FAIL(st, ...) ((void)tp_fail_at(__FILE__, __LINE__, (st), __VA_ARGS__), (st))
/* A client or caller must know: keep the text, yield st, no log line. */
#define TP_REJECT(st, ...) ((void)tp_reject((st), __VA_ARGS__), (st))

#define TP_TRY(expr)                                                                               \
    do {                                                                                           \
        tp_status tp_try_st_ = (expr);                                                             \
        if (TP_UNLIKELY(tp_try_st_ != TP_OK))                                                      \
            return tp_try_st_;                                                                     \
    } while (0)

/* The same for functions that clean up: assigns `st` and jumps. */
#define TP_TRY_GOTO(st, expr, label)                                                               \
    do {                                                                                           \
        (st) = (expr);                                                                             \
        if (TP_UNLIKELY((st) != TP_OK))                                                            \
            goto label;                                                                            \
    } while (0)

TP_NORETURN void tp_assert_fail(const char *file, int line, const char *expr);

#define TP_ASSERT(expr)                                                                            \
    do {                                                                                           \
        if (TP_UNLIKELY(!(expr)))                                                                  \
            tp_assert_fail(__FILE__, __LINE__, #expr);                                             \
    } while (0)

#ifdef NDEBUG
#    define TP_DASSERT(expr) ((void)0)
#else
#    define TP_DASSERT(expr) TP_ASSERT(expr) /* hot loops: debug builds only */
#endif

#ifdef __cplusplus
}
#endif

#endif
