/* SPDX-License-Identifier: Apache-2.0 */
/* side.h - inside comm: the device side of a group, and the pieces that make it. */
#ifndef COMM_DEVICE_SIDE_H
#define COMM_DEVICE_SIDE_H

#include "comm/device.h"
#include "comm/group.h"

#define COMM_REDUCERS_MAX 4
#define COMM_WAY_LEN      16
#define COMM_TABLE_MAX    16 /* lines of a table */
#define COMM_CHOICE_LEN   256

/* A table as it is read, and as it is used: upto ascending, the last one INT64_MAX. */
typedef struct comm_table_line {
    int64_t upto; /* bytes of a sum */
    char way[COMM_WAY_LEN];
} comm_table_line;

typedef struct comm_table {
    int n_lines;
    comm_table_line line[COMM_TABLE_MAX];
} comm_table;

/* One way of one reducer, for sums of up to `upto` bytes. */
typedef struct comm_choice {
    int64_t upto;
    comm_reducer *r;
    int way;
} comm_choice;

typedef struct comm_device_side {
    comm_device d;
    float *window;                      /* device */
    bool window_ours;                   /* from d.alloc, not a reducer's */
    comm_reducer *r[COMM_REDUCERS_MAX]; /* owned */
    int n_reducers;
    comm_choice choice[2 * COMM_TABLE_MAX];
    int n_choices;
    comm_reducer *gatherer; /* borrowed: one of r; NULL: none can */
    char text[COMM_CHOICE_LEN];
} comm_device_side;

/* ---- called by group.c ---- */
float *comm_device_window(comm_group *g);
tp_status comm_device_reduce(comm_group *g, const float *in, float *out, int64_t count);
tp_status comm_device_sum_norm(comm_group *g, const float *in, int64_t rows, int dim,
                               const struct kern_rmsnorm_args *a);
tp_status comm_device_gather(comm_group *g, const void *in, void *out, size_t bytes);
void comm_device_abort(comm_group *g);  /* any thread */
void comm_device_detach(comm_group *g); /* collective while the group lives */

/* ---- pieces ---- */
extern const comm_reducer_ops comm_staged_ops;

/* Every rank's status meets here: the own failure, or COMM... the first other rank's.  A call on the data path. */
tp_status comm_device_agree(comm_group *g, tp_status mine);

/* Gathers known data with r and compares; as comm_selftest(). */
tp_status comm_selftest_gather(comm_group *g, comm_device_side *s, comm_reducer *r);
/* Sums known data by every way of r and compares.  All ranks return the same; the text says what was wrong. */
tp_status comm_selftest(comm_group *g, comm_device_side *s, comm_reducer *r);

/* The built-in thresholds. */
void comm_table_default(comm_table *out, int n_ranks);
tp_status comm_table_parse(comm_table *out, const char *text, int n_ranks, const char *device);
/* From a table to ways that are there: what is not, or cannot do so many bytes, is replaced by the next best. */
void comm_table_apply(comm_device_side *s, const comm_table *t);

#endif
