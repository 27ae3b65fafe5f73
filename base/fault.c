/* SPDX-License-Identifier: Apache-2.0 */
/* fault.c - a table of armed points; nothing armed costs one atomic load per pass. */
#include "base/fault.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define POINTS_MAX 16
#define NAME_BYTES 48

typedef struct armed_point {
    char name[NAME_BYTES];
    int64_t left; /* passes until the failure; 0 = free entry */
} armed_point;

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static armed_point g_points[POINTS_MAX]; /* guarded by g_lock */
static atomic_int g_n_armed;

static armed_point *find_point(const char *name)
{
    for (size_t i = 0; i < POINTS_MAX; i++)
        if (g_points[i].left > 0 && strcmp(g_points[i].name, name) == 0)
            return &g_points[i];
    return NULL;
}

bool tp_fault_hit(const char *point)
{
    armed_point *p;
    bool hit = false;

    if (TP_LIKELY(atomic_load_explicit(&g_n_armed, memory_order_relaxed) == 0))
        return false;
    (void)pthread_mutex_lock(&g_lock);
    p = find_point(point);
    if (p != NULL && --p->left == 0) {
        hit = true;
        atomic_fetch_sub(&g_n_armed, 1);
    }
    (void)pthread_mutex_unlock(&g_lock);
    return hit;
}

bool tp_fault_armed(const char *point)
{
    bool armed;

    (void)pthread_mutex_lock(&g_lock);
    armed = find_point(point) != NULL;
    (void)pthread_mutex_unlock(&g_lock);
    return armed;
}

/* The entry of `point`, or a free one; NULL when the table is full. */
static armed_point *find_or_take(const char *point)
{
    armed_point *p = find_point(point);

    for (size_t i = 0; i < POINTS_MAX && p == NULL; i++)
        if (g_points[i].left == 0)
            p = &g_points[i];
    return p;
}

bool tp_fault_arm(const char *point, int64_t n)
{
    armed_point *p;

    TP_ASSERT(strlen(point) < NAME_BYTES);
    (void)pthread_mutex_lock(&g_lock);
    p = n > 0 ? find_or_take(point) : find_point(point);
    if (p != NULL) {
        if ((p->left > 0) != (n > 0))
            atomic_fetch_add(&g_n_armed, n > 0 ? 1 : -1);
        memcpy(p->name, point, strlen(point) + 1);
        p->left = n > 0 ? n : 0;
    }
    (void)pthread_mutex_unlock(&g_lock);
    return p != NULL || n <= 0;
}

tp_status tp_fault_arm_list(const char *list)
{
    const char *s = list;

    while (*s != '\0') {
        size_t name_len = strcspn(s, "=,");
        char name[NAME_BYTES];
        char *end;
        long long n;

        if (name_len == 0 || name_len >= sizeof name || s[name_len] != '=')
            return TP_FAIL(TP_ERR_INVALID, "fault list \"%s\": expected point=n[,point=n...]",
                           list);
        memcpy(name, s, name_len);
        name[name_len] = '\0';
        errno = 0;
        n = strtoll(s + name_len + 1, &end, 10);
        if (end == s + name_len + 1 || (*end != ',' && *end != '\0') || n < 0 || errno != 0)
            return TP_FAIL(TP_ERR_INVALID, "fault list \"%s\": %s needs a count from 0", list,
                           name);
        if (!tp_fault_arm(name, n))
            return TP_FAIL(TP_ERR_INVALID, "fault list \"%s\": more than %d points", list,
                           POINTS_MAX);
        s = *end == ',' ? end + 1 : end;
    }
    return TP_OK;
}
