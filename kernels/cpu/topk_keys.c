/* SPDX-License-Identifier: Apache-2.0 */
/* topk_keys.c - quickselect and quicksort of keys, greatest first.
 *
 * Pivots are medians of three.  The sort keeps the larger part on a stack of its own and goes on with the smaller
 * one, so the stack is as deep as the logarithm of n; runs below 16 keys are left to one insertion sort.
 */
#include "kernels/cpu/topk_keys.h"

#define SHORT 16

static void swap(uint64_t *a, uint64_t *b)
{
    uint64_t t = *a;

    *a = *b;
    *b = t;
}

/* Parts keys[lo .. hi] (hi > lo + 1) around a pivot; returns where the pivot landed. */
static int partition(uint64_t *keys, int lo, int hi)
{
    int mid = lo + (hi - lo) / 2, i = lo, j = hi - 1;
    uint64_t pivot;

    if (keys[mid] > keys[lo])
        swap(&keys[mid], &keys[lo]);
    if (keys[hi] > keys[lo])
        swap(&keys[hi], &keys[lo]);
    if (keys[hi] > keys[mid])
        swap(&keys[hi], &keys[mid]);
    /* keys[lo] >= keys[mid] >= keys[hi]: both ends are guards. */
    pivot = keys[mid];
    swap(&keys[mid], &keys[hi - 1]);
    for (;;) {
        while (keys[++i] > pivot)
            ;
        while (keys[--j] < pivot)
            ;
        if (i >= j)
            break;
        swap(&keys[i], &keys[j]);
    }
    swap(&keys[i], &keys[hi - 1]);
    return i;
}

static void insertion(uint64_t *keys, int lo, int hi)
{
    for (int i = lo + 1; i <= hi; i++) {
        uint64_t key = keys[i];
        int j = i;

        for (; j > lo && keys[j - 1] < key; j--)
            keys[j] = keys[j - 1];
        keys[j] = key;
    }
}

void kern_key_select(uint64_t *keys, int n, int k)
{
    int lo = 0, hi = n - 1;

    while (hi - lo >= SHORT) {
        int p = partition(keys, lo, hi);

        if (p == k - 1)
            return;
        if (p > k - 1)
            hi = p - 1;
        else
            lo = p + 1;
    }
    insertion(keys, lo, hi);
}

void kern_key_sort(uint64_t *keys, int n)
{
    int stack[2 * 32], depth = 0, lo = 0, hi = n - 1;

    for (;;) {
        while (hi - lo >= SHORT) {
            int p = partition(keys, lo, hi);
            bool left_larger = p - lo > hi - p;

            stack[depth++] = left_larger ? lo : p + 1;
            stack[depth++] = left_larger ? p - 1 : hi;
            if (left_larger)
                lo = p + 1;
            else
                hi = p - 1;
        }
        if (depth == 0)
            break;
        hi = stack[--depth];
        lo = stack[--depth];
    }
    insertion(keys, 0, n - 1);
}
