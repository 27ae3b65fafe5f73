/* SPDX-License-Identifier: Apache-2.0 */
/* interp.c - budgets, memory and the output buffer of a render. */
#include "runtime/template/interp.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

#define ARENA_OVERHEAD 64 /* at least what the arena takes beside a request: header and alignment */
#define LOOK_EVERY     1024 /* charged units between two looks at the clock */

/* ---- failure ---- */

int rt_tmpl_quote_len(const rt_str *s)
{
    size_t n = s->n;

    if (n > RT_QUOTE_MAX) {
        n = RT_QUOTE_MAX;
        while (n > 0 && ((unsigned char)s->s[n] & 0xC0) == 0x80)
            n--;
    }
    return (int)n;
}

tp_status rt_tmpl_error(rt_render *r, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return TP_REJECT(TP_ERR_INVALID, "line %d: %s", r->line, text);
}

tp_status rt_tmpl_undefined_error(rt_render *r, rt_val v)
{
    const rt_undef *u = v.u.undef;

    if (u == NULL || u->name == NULL)
        return rt_tmpl_error(r, "an undefined value is used");
    if (u->unsafe)
        return rt_tmpl_error(r, "access to attribute '%.*s' of '%s' object is unsafe",
                             rt_tmpl_quote_len(u->name), u->name->s, u->owner);
    if (u->owner == NULL)
        return rt_tmpl_error(r, "'%.*s' is undefined", rt_tmpl_quote_len(u->name), u->name->s);
    return rt_tmpl_error(r, "'%s object' has no attribute '%.*s'", u->owner,
                         rt_tmpl_quote_len(u->name), u->name->s);
}

static int64_t cpu_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * TP_NS_PER_S + t.tv_nsec;
}

tp_status rt_tmpl_over_budget(rt_render *r)
{
    if (r->ops_left <= 0)
        return TP_REJECT(TP_ERR_LIMIT, "line %d: the chat template takes too many steps", r->line);
    if (r->cpu_end_ns == 0)
        r->cpu_end_ns = cpu_ns() + r->time_max_ms * TP_NS_PER_MS;
    else if (cpu_ns() > r->cpu_end_ns)
        return TP_REJECT(TP_ERR_LIMIT, "line %d: the chat template takes longer than %lld ms",
                         r->line, (long long)r->time_max_ms);
    r->ops_next_look = r->ops_left > LOOK_EVERY ? r->ops_left - LOOK_EVERY : 0;
    return TP_OK;
}

/* ---- memory ---- */

tp_status rt_tmpl_no_memory(rt_render *r, size_t wanted)
{
    if (wanted > r->arena.max || r->arena.taken > r->arena.max - wanted)
        return TP_REJECT(TP_ERR_LIMIT,
                         "line %d: the chat template needs more than %zu bytes of memory", r->line,
                         r->arena.max);
    return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory for %zu bytes", wanted);
}

tp_status rt_tmpl_alloc(rt_render *r, size_t size, void *out_pointer)
{
    void *p = tp_arena_alloc(&r->arena, size);

    if (TP_UNLIKELY(p == NULL))
        return rt_tmpl_no_memory(r, size + ARENA_OVERHEAD);
    memcpy(out_pointer, &p, sizeof p);
    return TP_OK;
}

tp_status rt_tmpl_array(rt_render *r, size_t n, rt_val **out)
{
    if (n > SIZE_MAX / sizeof **out)
        return rt_tmpl_no_memory(r, SIZE_MAX);
    return rt_tmpl_alloc(r, n * sizeof **out, out);
}

/* ---- output ---- */

static tp_status room(rt_render *r, size_t n)
{
    if (n > r->work.max - r->work.len)
        return TP_REJECT(TP_ERR_LIMIT, "line %d: the chat template writes more than %zu bytes",
                         r->line, r->work.max);
    if (!tp_buf_reserve(&r->work, n) || (r->marked && !tp_buf_reserve(&r->shade, n)))
        return TP_REJECT(TP_ERR_NOMEM, "chat template: no memory for its output");
    return TP_OK;
}

tp_status rt_out_bytes(rt_render *r, const char *s, size_t n, bool user)
{
    if (n == 0)
        return TP_OK;
    TP_TRY(room(r, n));
    memcpy(r->work.data + r->work.len, s, n);
    r->work.len += n;
    if (r->marked) {
        memset(r->shade.data + r->shade.len, user, n);
        r->shade.len += n;
    }
    return rt_tmpl_charge(r, n >> 10);
}

tp_status rt_out_puts(rt_render *r, const char *s)
{
    return rt_out_bytes(r, s, strlen(s), false);
}

tp_status rt_out_part(rt_render *r, const rt_str *s, size_t begin, size_t end)
{
    size_t at = r->work.len;

    TP_TRY(rt_out_bytes(r, s->s + begin, end - begin, s->user));
    if (r->marked && s->shade != NULL && end > begin)
        memcpy(r->shade.data + at, s->shade + begin, end - begin);
    return TP_OK;
}

tp_status rt_out_str(rt_render *r, const rt_str *s)
{
    return rt_out_part(r, s, 0, s->n);
}

tp_status rt_out_cut(rt_render *r, size_t mark, rt_val *out)
{
    static const rt_str empty = {.s = ""};
    size_t n = r->work.len - mark;
    rt_str built = {.s = "", .n = n};

    if (n > 0) {
        built.s = r->work.data + mark;
        built.shade = r->marked ? r->shade.data + mark : NULL;
    }
    TP_TRY(rt_str_concat(r, &empty, &built, out));
    r->work.len = mark;
    if (r->marked)
        r->shade.len = mark;
    return TP_OK;
}
