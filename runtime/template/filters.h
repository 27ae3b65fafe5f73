/* SPDX-License-Identifier: Apache-2.0 */
/* filters.h - filters, grouped by what they work on; filters.c holds the table. */
#ifndef RT_TEMPLATE_FILTERS_H
#define RT_TEMPLATE_FILTERS_H

#include "runtime/template/interp.h"

#define RT_FILTER(name) tp_status name(rt_render *r, rt_val in, const rt_args *a, rt_val *out)

/* filters_seq.c */
RT_FILTER(rt_filter_list);
RT_FILTER(rt_filter_first);
RT_FILTER(rt_filter_last);
RT_FILTER(rt_filter_reverse);
RT_FILTER(rt_filter_join);
RT_FILTER(rt_filter_items);
RT_FILTER(rt_filter_batch);
RT_FILTER(rt_filter_map);
RT_FILTER(rt_filter_select);
RT_FILTER(rt_filter_reject);
RT_FILTER(rt_filter_selectattr);
RT_FILTER(rt_filter_rejectattr);
RT_FILTER(rt_filter_sum);

/* filters_sort.c */
RT_FILTER(rt_filter_sort);
RT_FILTER(rt_filter_dictsort);
RT_FILTER(rt_filter_unique);
RT_FILTER(rt_filter_min);
RT_FILTER(rt_filter_max);

/* An attribute path of map, sort, ...: "a.b.0" or an index; undefined is replaced by dflt unless MISSING. */
tp_status rt_filter_path(rt_render *r, rt_val obj, rt_val path, rt_val dflt, rt_val *out);

#endif
