/* SPDX-License-Identifier: Apache-2.0 */
/* value.h - the values a template computes with, and what Python would do with them.
 *
 * A value is 16 bytes and never changes once made; only namespaces, loops and generators have state.  All of
 * them live in the arena of one render (or, for literals, in the template), so nothing is ever freed singly.
 *
 * Strings are byte ranges that may share memory: a slice points into its parent.  A string knows which of its
 * bytes came from the request: `user` when all did, `shade` (one byte per byte) when only some did.
 */
#ifndef RT_TEMPLATE_VALUE_H
#define RT_TEMPLATE_VALUE_H

#include <stdint.h>
#include <string.h>

#include "base/status.h"

typedef struct rt_render rt_render;

typedef enum rt_kind {
    RT_MISSING, /* no value at all: an argument that was not given; never visible to a template */
    RT_UNDEFINED,
    RT_NONE,
    RT_BOOL,
    RT_INT,
    RT_BIGINT, /* an integer beyond 64 bits: its digits; can be printed and compared for equality */
    RT_FLOAT,
    RT_STR,
    RT_LIST,
    RT_TUPLE,
    RT_DICT,
    RT_NAMESPACE,
    RT_RANGE,
    RT_LOOP,
    RT_GENERATOR, /* what map, select, ... return: a list that can be walked once */
    RT_VIEW,      /* dict.keys(), .values(), .items(): a list that prints differently */
    RT_MACRO,
    RT_METHOD,  /* a method bound to its object */
    RT_FUNCTION /* range, namespace, ... */
} rt_kind;

typedef struct rt_str {
    const char *s;     /* UTF-8, n bytes, not NUL-terminated */
    const char *shade; /* n bytes, 1 = came from the request; NULL: see user */
    size_t n;
    size_t n_chars; /* code points; SIZE_MAX = not counted yet */
    uint64_t hash;  /* 0 = not computed yet */
    bool user;      /* with shade == NULL: every byte came from the request */
    bool safe;      /* Markup: was passed through `safe` or `escape` */
} rt_str;

typedef struct rt_list rt_list;
typedef struct rt_dict rt_dict;
typedef struct rt_range rt_range;
typedef struct rt_loop rt_loop;
typedef struct rt_macro rt_macro;
typedef struct rt_method rt_method;
typedef struct rt_builtin rt_builtin;
typedef struct rt_undef rt_undef;

typedef struct rt_val {
    rt_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        rt_str *str;   /* STR, BIGINT */
        rt_list *list; /* LIST, TUPLE, GENERATOR, VIEW */
        rt_dict *dict; /* DICT, NAMESPACE */
        rt_range *range;
        rt_loop *loop;
        rt_macro *macro;
        rt_method *method;
        const rt_builtin *fn;
        const rt_undef *undef; /* NULL: nothing is known about it */
    } u;
} rt_val;

struct rt_undef {
    const rt_str *name; /* variable, attribute or key that was looked for; NULL = none */
    const char *owner;  /* type name of the object it was looked for in; NULL = a variable */
    bool unsafe;        /* the sandbox hides it: using it is a security error */
};

struct rt_list {
    const rt_val *items;
    size_t n;
    size_t pos;       /* GENERATOR: first item that was not taken yet */
    const char *name; /* VIEW, GENERATOR: type name when printed */
};

typedef struct rt_entry {
    rt_val key, val;
    uint64_t hash;
} rt_entry;

struct rt_dict {
    rt_entry *items; /* in insertion order */
    size_t n, cap;
    uint32_t *index; /* open addressing, entry + 1; NULL while small */
    size_t n_index;  /* power of two */
};

struct rt_range {
    int64_t start, step;
    size_t n;
    int64_t stop; /* as given: for printing */
};

struct rt_method {
    rt_val self;
    const rt_builtin *fn;
};

/* Arguments of a call.  For a builtin with named parameters: n = number of parameters, absent ones MISSING. */
typedef struct rt_kwarg {
    const rt_str *name;
    rt_val val;
} rt_kwarg;

typedef struct rt_args {
    const rt_val *v;
    size_t n;
    const rt_kwarg *kw;
    size_t n_kw;
} rt_args;

typedef tp_status (*rt_builtin_fn)(rt_render *r, rt_val self, const rt_args *a, rt_val *out);

/* A filter, test, method or function written in C. */
struct rt_builtin {
    const char *name;
    const char *params; /* names separated by blanks; NULL: takes arguments as they come */
    int n_required;
    rt_builtin_fn fn;
};

/* ---- constructors ---- */

/* Texts may hold NULs: none is one of a set, though strchr finds the one that ends it. */
static inline bool rt_one_of(char c, const char *set)
{
    return c != 0 && strchr(set, c) != NULL;
}

static inline rt_val rt_val_none(void)
{
    return (rt_val){.kind = RT_NONE};
}
static inline rt_val rt_val_undefined(void)
{
    return (rt_val){.kind = RT_UNDEFINED};
}
static inline rt_val rt_val_bool(bool b)
{
    return (rt_val){.kind = RT_BOOL, .u.b = b};
}
static inline rt_val rt_val_int(int64_t i)
{
    return (rt_val){.kind = RT_INT, .u.i = i};
}
static inline rt_val rt_val_float(double f)
{
    return (rt_val){.kind = RT_FLOAT, .u.f = f};
}
static inline rt_val rt_val_str(rt_str *s)
{
    return (rt_val){.kind = RT_STR, .u.str = s};
}

static inline bool rt_val_is_number(rt_val v)
{
    return v.kind == RT_BOOL || v.kind == RT_INT || v.kind == RT_FLOAT || v.kind == RT_BIGINT;
}
/* INT or BOOL, as Python counts bool as an int. */
static inline bool rt_val_as_int(rt_val v, int64_t *out)
{
    if (v.kind == RT_INT)
        *out = v.u.i;
    else if (v.kind == RT_BOOL)
        *out = v.u.b;
    else
        return false;
    return true;
}

/* A list or tuple over items that the caller allocated in the arena and no longer touches. */
tp_status rt_val_list(rt_render *r, rt_kind kind, const rt_val *items, size_t n, rt_val *out);
tp_status rt_val_view(rt_render *r, rt_kind kind, const char *name, const rt_val *items, size_t n,
                      rt_val *out);

/* ---- what Python does with any value ---- */

const char *rt_val_type_name(rt_val v); /* "str", "dict", ...: for messages */
bool rt_val_truth(rt_val v);
tp_status rt_val_equal(rt_render *r, rt_val a, rt_val b, bool *out);
/* *out < 0, 0, > 0; an error for types that Python cannot order. */
tp_status rt_val_compare(rt_render *r, rt_val a, rt_val b, int *out);
/* len(); an error for what has none. */
tp_status rt_val_length(rt_render *r, rt_val v, size_t *out);
/* item in box */
tp_status rt_val_contains(rt_render *r, rt_val box, rt_val item, bool *out);
/* list(v): items of anything that can be walked; takes what is left of a generator. */
tp_status rt_val_items(rt_render *r, rt_val v, const rt_val **items, size_t *n);
bool rt_val_iterable(rt_val v);

/* ---- strings (str.c) ---- */

rt_str *rt_str_make(rt_render *r, const char *s, size_t n,
                    bool user);                                 /* borrows s; NULL: no memory */
tp_status rt_str_lit(rt_render *r, const char *s, rt_val *out); /* borrows a C literal */
tp_status rt_str_slice(rt_render *r, const rt_str *a, size_t begin, size_t end, rt_val *out);
tp_status rt_str_concat(rt_render *r, const rt_str *a, const rt_str *b, rt_val *out);
size_t rt_str_chars(rt_str *s);
/* Byte offset of the code point with index i (0..chars). */
size_t rt_str_offset(rt_str *s, size_t i);
uint64_t rt_str_hash(rt_str *s);
bool rt_str_same(const rt_str *a, const rt_str *b);
bool rt_str_is(const rt_str *a, const char *literal);
/* Like memmem; n = not found. */
size_t rt_str_find(const rt_str *s, size_t from, const char *needle, size_t n_needle);
/* Shade of byte i as the builders want it: true = from the request. */
static inline bool rt_str_user_at(const rt_str *s, size_t i)
{
    return s->shade != NULL ? s->shade[i] != 0 : s->user;
}

/* ---- dicts ---- */

rt_dict *rt_dict_make(rt_render *r, size_t expected); /* NULL: no memory */
/* Replaces or appends.  Errors: an unhashable key, memory. */
tp_status rt_dict_put(rt_render *r, rt_dict *d, rt_val key, rt_val val);
tp_status rt_dict_put_str(rt_render *r, rt_dict *d, const char *key, rt_val val);
/* *out = NULL when absent.  Errors: an unhashable key. */
tp_status rt_dict_find(rt_render *r, const rt_dict *d, rt_val key, const rt_val **out);
const rt_val *rt_dict_get_cstr(const rt_dict *d, const char *key);

#endif
