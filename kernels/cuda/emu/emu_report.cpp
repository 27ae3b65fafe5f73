/* SPDX-License-Identifier: Apache-2.0 */
/* emu_report.cpp - settings, and what is said about a defect: the kernel, the thread, the place, who waits where. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/cuda/emu/emu_runtime.h"

static emu_settings settings = {EMU_SCHED_FORWARD, 1, 120, false, false, EMU_SMEM_MAX, NULL};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static EMU_RAW void read_environment()
{
    const char *text = getenv("EMU_SCHED");
    if (text && (strcmp(text, "reverse") == 0 || strcmp(text, "1") == 0))
        settings.schedule = EMU_SCHED_REVERSE;
    if (text && (strcmp(text, "random") == 0 || strcmp(text, "2") == 0))
        settings.schedule = EMU_SCHED_RANDOM;
    if ((text = getenv("EMU_SEED")))
        settings.seed = strtoull(text, NULL, 10);
    if ((text = getenv("EMU_HANG_S")))
        settings.hang_s = strtod(text, NULL);
    text = getenv("EMU_FRESH");
    settings.fresh = text && strcmp(text, "1") == 0;
    text = getenv("EMU_GRID_WAIT");
    settings.grid_wait = text && strcmp(text, "1") == 0;
}

EMU_RAW emu_settings *emu_get_settings(void)
{
    pthread_once(&once, read_environment);
    return &settings;
}

EMU_RAW void emu_set_schedule(emu_schedule schedule, uint64_t seed)
{
    emu_get_settings()->schedule = schedule;
    settings.seed = seed;
}

EMU_RAW void emu_set_hang_seconds(double seconds)
{
    emu_get_settings()->hang_s = seconds;
}

EMU_RAW void emu_require_grid_wait(bool on)
{
    emu_get_settings()->grid_wait = on;
}

EMU_RAW void emu_set_smem_limit(size_t bytes)
{
    emu_get_settings()->smem_limit = bytes < EMU_SMEM_MAX ? bytes : (size_t)EMU_SMEM_MAX;
}

EMU_RAW void emu_set_report_handler(emu_report_handler handler)
{
    emu_get_settings()->handler = handler;
}

EMU_RAW void emu_take_counters(emu_counters *out)
{
    emu_rt *rt = emu_rt_get();
    *out = rt->counters;
    rt->counters = emu_counters{};
}

EMU_RAW double emu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- reports ---- */

struct text {
    char buf[6000];
    size_t len;
};

static EMU_RAW __attribute__((format(printf, 2, 0))) void vput(text *t, const char *format,
                                                               va_list args)
{
    int n = vsnprintf(t->buf + t->len, sizeof(t->buf) - t->len, format, args);
    if (n > 0)
        t->len += (size_t)n < sizeof(t->buf) - t->len ? (size_t)n : sizeof(t->buf) - t->len - 1;
}

static EMU_RAW __attribute__((format(printf, 2, 3))) void put(text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vput(t, format, args);
    va_end(args);
}

static EMU_RAW void put_where(text *t, const emu_rt *rt)
{
    if (!rt || !rt->launch)
        return;
    uint3 b = rt->grid.block_idx;
    put(t, "\n  kernel %s, launched at %s:%d, block (%u,%u,%u)", rt->launch->name, rt->launch->file,
        rt->launch->line, b.x, b.y, b.z);
    if (rt->current) {
        uint3 i = rt->current->self.thread_idx;
        put(t, ", thread (%u,%u,%u) = warp %d lane %d", i.x, i.y, i.z,
            rt->current->index / EMU_WARP, rt->current->lane);
    }
}

static EMU_RAW bool alike(const emu_fiber *a, const emu_fiber *b)
{
    if (a->state != b->state)
        return false;
    if (a->state == EMU_LEFT)
        return true;
    if (a->line != b->line || a->file != b->file)
        return false;
    return a->state != EMU_IN_COLLECTIVE ||
           a->warp->request[a->lane]->mask == b->warp->request[b->lane]->mask;
}

/* Neighbours that wait for the same thing share a line. */
static EMU_RAW void put_threads(text *t, const emu_rt *rt)
{
    for (uint32_t i = 0, j; i < rt->n_threads; i = j) {
        const emu_fiber *f = &rt->fibers[i];
        for (j = i + 1; j < rt->n_threads && alike(f, &rt->fibers[j]); j++) {
        }
        put(t, "\n  threads %u-%u: ", i, j - 1);
        const char *file = f->file ? f->file : "?";
        switch (f->state) {
        case EMU_LEFT: put(t, "left the kernel"); break;
        case EMU_AT_BARRIER: put(t, "wait at the barrier %s:%d", file, f->line); break;
        case EMU_SPINNING: put(t, "spin at %s:%d", file, f->line); break;
        case EMU_IN_COLLECTIVE: {
            const emu_request *r = f->warp->request[f->lane];
            put(t, "wait in %s, mask %08x, at %s:%d", emu_request_name(r), r->mask, file, f->line);
            break;
        }
        case EMU_READY: put(t, "can run"); break;
        }
    }
}

[[noreturn]] static EMU_RAW void say(const text *t)
{
    emu_report_handler handler = settings.handler;
    if (handler) {
        handler(t->buf);
    } else {
        fputs(t->buf, stderr);
        fputc('\n', stderr);
    }
    abort();
}

EMU_RAW void emu_defect(const char *file, int line, const char *format, ...)
{
    text t; /* not thread-local: a module that dlopen() loads has room for little of that */
    t.len = 0;
    put(&t, "emulated device: %s:%d: ", file, line);
    va_list args;
    va_start(args, format);
    vput(&t, format, args);
    va_end(args);
    put_where(&t, emu_this);
    say(&t);
}

EMU_RAW void emu_stuck(const char *format, ...)
{
    text t; /* not thread-local: a module that dlopen() loads has room for little of that */
    t.len = 0;
    put(&t, "emulated device: ");
    va_list args;
    va_start(args, format);
    vput(&t, format, args);
    va_end(args);
    put_where(&t, emu_this);
    put_threads(&t, emu_this);
    say(&t);
}
