/* SPDX-License-Identifier: Apache-2.0 */
/* predicates.c - what can stand behind `is`. */
#include "runtime/template/text_ops.h"

#define TEST(name) static tp_status name(rt_render *r, rt_val in, const rt_args *a, rt_val *out)

static tp_status yes(rt_val *out, bool b)
{
    *out = rt_val_bool(b);
    return TP_OK;
}

/* Tests that look at the kind alone. */
#define KIND_TEST(name, condition)                                                                 \
    TEST(name)                                                                                     \
    {                                                                                              \
        (void)r;                                                                                   \
        (void)a;                                                                                   \
        return yes(out, condition);                                                                \
    }

KIND_TEST(t_defined, in.kind != RT_UNDEFINED)
KIND_TEST(t_undefined, in.kind == RT_UNDEFINED)
KIND_TEST(t_none, in.kind == RT_NONE)
KIND_TEST(t_boolean, in.kind == RT_BOOL)
KIND_TEST(t_true, in.kind == RT_BOOL && in.u.b)
KIND_TEST(t_false, in.kind == RT_BOOL && !in.u.b)
KIND_TEST(t_integer, in.kind == RT_INT || in.kind == RT_BIGINT)
KIND_TEST(t_float, in.kind == RT_FLOAT)
KIND_TEST(t_number, rt_val_is_number(in))
KIND_TEST(t_string, in.kind == RT_STR)
KIND_TEST(t_mapping, in.kind == RT_DICT)
KIND_TEST(t_iterable, rt_val_iterable(in))
/* whatever has a length and items by number or key; an undefined value has both methods */
KIND_TEST(t_sequence, in.kind == RT_STR || in.kind == RT_LIST || in.kind == RT_TUPLE ||
                          in.kind == RT_DICT || in.kind == RT_RANGE || in.kind == RT_UNDEFINED)
KIND_TEST(t_callable, in.kind == RT_MACRO || in.kind == RT_METHOD || in.kind == RT_FUNCTION ||
                          in.kind == RT_UNDEFINED)
KIND_TEST(t_escaped, in.kind == RT_STR && in.u.str->safe)

static tp_status modulo(rt_render *r, rt_val v, rt_val by, int64_t *out)
{
    int64_t n;
    rt_val m;

    TP_TRY(rt_tmpl_binary(r, '%', v, by, &m));
    if (m.kind == RT_FLOAT) {
        *out = m.u.f == (double)(int64_t)m.u.f ? (int64_t)m.u.f : 2;
        return TP_OK;
    }
    if (!rt_val_as_int(m, &n))
        return rt_tmpl_error(r, "a number is expected, not '%s'", rt_val_type_name(v));
    *out = n;
    return TP_OK;
}

TEST(t_odd)
{
    int64_t m;

    (void)a;
    TP_TRY(modulo(r, in, rt_val_int(2), &m));
    return yes(out, m == 1);
}

TEST(t_even)
{
    int64_t m;

    (void)a;
    TP_TRY(modulo(r, in, rt_val_int(2), &m));
    return yes(out, m == 0);
}

TEST(t_divisibleby)
{
    int64_t m;

    TP_TRY(modulo(r, in, a->v[0], &m));
    return yes(out, m == 0);
}

static tp_status str_class(rt_render *r, rt_val in, bool upper, rt_val *out)
{
    static const rt_args none = {0};
    rt_attr attr;
    rt_str *s;

    TP_TRY(rt_val_to_str(r, in, &s));
    rt_tmpl_find_attr(upper ? "isupper" : "islower", 7, &attr);
    return attr.str_fn->fn(r, rt_val_str(s), &none, out);
}

TEST(t_lower)
{
    (void)a;
    return str_class(r, in, false, out);
}
TEST(t_upper)
{
    (void)a;
    return str_class(r, in, true, out);
}

/* Identity: the same kind and, for what has no state, the same value. */
TEST(t_sameas)
{
    rt_val other = a->v[0];
    bool same = in.kind == other.kind;

    if (same && in.kind != RT_NONE && in.kind != RT_UNDEFINED)
        TP_TRY(rt_val_equal(r, in, other, &same));
    return yes(out, same);
}

TEST(t_in)
{
    bool found;

    TP_TRY(rt_val_contains(r, a->v[0], in, &found));
    return yes(out, found);
}

TEST(t_eq)
{
    bool same;

    TP_TRY(rt_val_equal(r, in, a->v[0], &same));
    return yes(out, same);
}

TEST(t_ne)
{
    bool same;

    TP_TRY(rt_val_equal(r, in, a->v[0], &same));
    return yes(out, !same);
}

TEST(t_gt)
{
    int order;

    TP_TRY(rt_val_compare(r, in, a->v[0], &order));
    return yes(out, order > 0 && order != 2);
}

TEST(t_ge)
{
    int order;

    TP_TRY(rt_val_compare(r, in, a->v[0], &order));
    return yes(out, order >= 0 && order != 2);
}

TEST(t_lt)
{
    int order;

    TP_TRY(rt_val_compare(r, in, a->v[0], &order));
    return yes(out, order < 0);
}

TEST(t_le)
{
    int order;

    TP_TRY(rt_val_compare(r, in, a->v[0], &order));
    return yes(out, order <= 0);
}

TEST(t_filter)
{
    rt_str *name;

    (void)a;
    TP_TRY(rt_arg_str(r, in, &name));
    return yes(out, rt_tmpl_find_filter(name->s, name->n) != NULL);
}

TEST(t_test)
{
    rt_str *name;

    (void)a;
    TP_TRY(rt_arg_str(r, in, &name));
    return yes(out, rt_tmpl_find_test(name->s, name->n) != NULL);
}

static const rt_builtin tests[] = {
    {"!=", "other", 1, t_ne},
    {"<", "other", 1, t_lt},
    {"<=", "other", 1, t_le},
    {"==", "other", 1, t_eq},
    {">", "other", 1, t_gt},
    {">=", "other", 1, t_ge},
    {"boolean", "", 0, t_boolean},
    {"callable", "", 0, t_callable},
    {"defined", "", 0, t_defined},
    {"divisibleby", "num", 1, t_divisibleby},
    {"eq", "other", 1, t_eq},
    {"equalto", "other", 1, t_eq},
    {"escaped", "", 0, t_escaped},
    {"even", "", 0, t_even},
    {"false", "", 0, t_false},
    {"filter", "", 0, t_filter},
    {"float", "", 0, t_float},
    {"ge", "other", 1, t_ge},
    {"greaterthan", "other", 1, t_gt},
    {"gt", "other", 1, t_gt},
    {"in", "seq", 1, t_in},
    {"integer", "", 0, t_integer},
    {"iterable", "", 0, t_iterable},
    {"le", "other", 1, t_le},
    {"lessthan", "other", 1, t_lt},
    {"lower", "", 0, t_lower},
    {"lt", "other", 1, t_lt},
    {"mapping", "", 0, t_mapping},
    {"ne", "other", 1, t_ne},
    {"none", "", 0, t_none},
    {"number", "", 0, t_number},
    {"odd", "", 0, t_odd},
    {"sameas", "other", 1, t_sameas},
    {"sequence", "", 0, t_sequence},
    {"string", "", 0, t_string},
    {"test", "", 0, t_test},
    {"true", "", 0, t_true},
    {"undefined", "", 0, t_undefined},
    {"upper", "", 0, t_upper},
};

const rt_builtin *rt_tmpl_find_test(const char *name, size_t n)
{
    return rt_tmpl_find(tests, TP_ARRAY_LEN(tests), name, n);
}
