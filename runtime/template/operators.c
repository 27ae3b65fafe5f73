/* SPDX-License-Identifier: Apache-2.0 */
/* operators.c - + - * / // % ** on values, as Python computes them; integers stop at 64 bits. */
#include <math.h>

#include "runtime/template/interp.h"

static tp_status bad_types(rt_render *r, const char *op, rt_val a, rt_val b)
{
    if (a.kind == RT_UNDEFINED || b.kind == RT_UNDEFINED)
        return rt_tmpl_undefined_error(r, a.kind == RT_UNDEFINED ? a : b);
    return rt_tmpl_error(r, "unsupported operand types for %s: '%s' and '%s'", op,
                         rt_val_type_name(a), rt_val_type_name(b));
}

static const char *op_name(int op)
{
    static const struct {
        int op;
        const char *name;
    } names[] = {{'+', "+"}, {'-', "-"}, {'*', "*"}, {'/', "/"}, {'%', "%"}};

    for (size_t i = 0; i < TP_ARRAY_LEN(names); i++)
        if (names[i].op == op)
            return names[i].name;
    return op == RT_OP2('/', '/') ? "//" : "**";
}

static tp_status overflow(rt_render *r)
{
    return rt_tmpl_error(r, "an integer beyond 64 bits; chat templates compute with 64");
}

static double as_double(rt_val v)
{
    return v.kind == RT_FLOAT ? v.u.f : v.kind == RT_BOOL ? (double)v.u.b : (double)v.u.i;
}

/* ---- sequences ---- */

static tp_status add_lists(rt_render *r, rt_val a, rt_val b, rt_val *out)
{
    size_t n = a.u.list->n + b.u.list->n;
    rt_val *items;

    TP_TRY(rt_tmpl_charge(r, n >> 5));
    TP_TRY(rt_tmpl_array(r, n, &items));
    for (size_t i = 0; i < a.u.list->n; i++)
        items[i] = a.u.list->items[i];
    for (size_t i = 0; i < b.u.list->n; i++)
        items[a.u.list->n + i] = b.u.list->items[i];
    return rt_val_list(r, a.kind, items, n, out);
}

/* Next to Markup, a plain string is escaped first. */
static tp_status add_strings(rt_render *r, rt_val a, rt_val b, rt_val *out)
{
    bool safe = a.u.str->safe || b.u.str->safe;

    if (safe && !a.u.str->safe)
        TP_TRY(rt_val_escape(r, a, &a));
    if (safe && !b.u.str->safe)
        TP_TRY(rt_val_escape(r, b, &b));
    TP_TRY(rt_str_concat(r, a.u.str, b.u.str, out));
    out->u.str->safe = safe;
    return TP_OK;
}

static tp_status repeat_string(rt_render *r, const rt_str *s, int64_t times, rt_val *out)
{
    size_t mark = rt_out_mark(r);

    if (times > 0 && s->n > 0 && (uint64_t)times > r->work.max / s->n)
        return TP_REJECT(TP_ERR_LIMIT, "line %d: a string is repeated beyond %zu bytes", r->line,
                         r->work.max);
    for (int64_t i = 0; i < times && s->n > 0; i++) {
        TP_TRY(rt_tmpl_charge(r, (i & 15) == 0));
        TP_TRY(rt_out_str(r, s));
    }
    TP_TRY(rt_out_cut(r, mark, out));
    out->u.str->safe = s->safe;
    return TP_OK;
}

static tp_status repeat_list(rt_render *r, rt_val list, int64_t times, rt_val *out)
{
    size_t n = list.u.list->n, at = 0;
    rt_val *items;

    if (times < 0 || n == 0) /* a loop of nothing would still take its time */
        times = 0;
    if (n > 0 && (uint64_t)times > RT_RANGE_MAX * 10 / n)
        return TP_REJECT(TP_ERR_LIMIT, "line %d: a list is repeated beyond a million items",
                         r->line);
    TP_TRY(rt_tmpl_charge(r, n * (size_t)times >> 5));
    TP_TRY(rt_tmpl_array(r, n * (size_t)times, &items));
    for (int64_t t = 0; t < times; t++)
        for (size_t i = 0; i < n; i++)
            items[at++] = list.u.list->items[i];
    return rt_val_list(r, list.kind, items, at, out);
}

static bool is_list(rt_val v)
{
    return v.kind == RT_LIST || v.kind == RT_TUPLE;
}

/* *done = false: no operand is a sequence. */
static tp_status sequences(rt_render *r, int op, rt_val a, rt_val b, rt_val *out, bool *done)
{
    int64_t times;

    *done = true;
    if (op == '+' && a.kind == RT_STR && b.kind == RT_STR)
        return add_strings(r, a, b, out);
    if (op == '+' && is_list(a) && a.kind == b.kind)
        return add_lists(r, a, b, out);
    if (op == '%' && a.kind == RT_STR)
        return rt_tmpl_percent(r, a.u.str, b, out);
    if (op == '*' && (a.kind == RT_STR || is_list(a)) && rt_val_as_int(b, &times))
        return a.kind == RT_STR ? repeat_string(r, a.u.str, times, out)
                                : repeat_list(r, a, times, out);
    if (op == '*' && (b.kind == RT_STR || is_list(b)) && rt_val_as_int(a, &times))
        return b.kind == RT_STR ? repeat_string(r, b.u.str, times, out)
                                : repeat_list(r, b, times, out);
    *done = false;
    return TP_OK;
}

/* ---- numbers ---- */

static tp_status int_power(rt_render *r, int64_t base, int64_t exp, rt_val *out)
{
    int64_t result = 1;

    if (exp < 0) {
        if (base == 0)
            return rt_tmpl_error(r, "division by zero");
        *out = rt_val_float(pow((double)base, (double)exp));
        return TP_OK;
    }
    while (exp > 0) {
        if ((exp & 1) && __builtin_mul_overflow(result, base, &result))
            return overflow(r);
        exp >>= 1;
        if (exp > 0 && __builtin_mul_overflow(base, base, &base))
            return overflow(r);
    }
    *out = rt_val_int(result);
    return TP_OK;
}

static tp_status int_divide(rt_render *r, int op, int64_t x, int64_t y, rt_val *out)
{
    int64_t q, m;

    if (y == 0)
        return rt_tmpl_error(r, "division by zero");
    if (op == '/') {
        *out = rt_val_float((double)((long double)x / (long double)y));
        return TP_OK;
    }
    if (x == INT64_MIN && y == -1)
        return overflow(r);
    q = x / y;
    m = x % y;
    if (m != 0 && (m < 0) != (y < 0)) { /* Python rounds down */
        q--;
        m += y;
    }
    *out = rt_val_int(op == '%' ? m : q);
    return TP_OK;
}

static tp_status ints(rt_render *r, int op, int64_t x, int64_t y, rt_val *out)
{
    int64_t z = 0;
    bool over = false;

    switch (op) {
    case '+': over = __builtin_add_overflow(x, y, &z); break;
    case '-': over = __builtin_sub_overflow(x, y, &z); break;
    case '*': over = __builtin_mul_overflow(x, y, &z); break;
    case RT_OP2('*', '*'): return int_power(r, x, y, out);
    default: return int_divide(r, op, x, y, out);
    }
    if (over)
        return overflow(r);
    *out = rt_val_int(z);
    return TP_OK;
}

static tp_status floats(rt_render *r, int op, double x, double y, rt_val *out)
{
    double z, m;

    if ((op == '/' || op == '%' || op == RT_OP2('/', '/')) && y == 0.0)
        return rt_tmpl_error(r, "division by zero");
    switch (op) {
    case '+': z = x + y; break;
    case '-': z = x - y; break;
    case '*': z = x * y; break;
    case '/': z = x / y; break;
    case RT_OP2('*', '*'): z = pow(x, y); break;
    default:
        m = fmod(x, y);
        z = (x - m) / y;
        if (m != 0.0 && (m < 0.0) != (y < 0.0)) {
            m += y;
            z -= 1.0;
        }
        if (op == '%')
            z = m != 0.0 ? m : copysign(0.0, y);
        else if (z != 0.0)
            z = z - floor(z) > 0.5 ? floor(z) + 1.0 : floor(z);
        else
            z = copysign(0.0, x / y);
    }
    if (isnan(z) && !isnan(x) && !isnan(y) && op == RT_OP2('*', '*'))
        return rt_tmpl_error(r, "a power that is no real number");
    *out = rt_val_float(z);
    return TP_OK;
}

tp_status rt_tmpl_binary(rt_render *r, int op, rt_val a, rt_val b, rt_val *out)
{
    int64_t x, y;
    bool done;

    TP_TRY(sequences(r, op, a, b, out, &done));
    if (done)
        return TP_OK;
    if (rt_val_as_int(a, &x) && rt_val_as_int(b, &y))
        return ints(r, op, x, y, out);
    if (a.kind == RT_BIGINT || b.kind == RT_BIGINT)
        return overflow(r);
    if (rt_val_is_number(a) && rt_val_is_number(b))
        return floats(r, op, as_double(a), as_double(b), out);
    return bad_types(r, op_name(op), a, b);
}
