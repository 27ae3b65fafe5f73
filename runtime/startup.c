/* SPDX-License-Identifier: Apache-2.0 */
/* startup.c - defaults, agreement, and the memory budget.
 *
 * A small group (4 KiB window) carries the agreement, because the real one can only be sized once the model is known.
 * Memory of a rank = weights + workspace (activations, sampler) + tables (slots, histories) + comm window + KV blocks;
 * everything but the blocks is a closed formula, the blocks take --kv-cache-memory-bytes or a share of the memory: on
 * CPU of what is free, on a device of all there is, less what is in use already (its context, the windows of sums).
 * On a device only its own memory is planned.
 */
#include "runtime/startup.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/memory_limit.h"
#include "comm/device.h"
#include "runtime/model/identity.h"
#include "runtime/sample/sample.h"

#define DEFAULT_WATERMARK    0.01
#define DEFAULT_STEP_TIMEOUT 10000
#define DEFAULT_KV_BYTES_MAX (INT64_C(1) << 30) /* of a default cache on CPU */
#define UNKNOWN_MEMORY       (INT64_C(4) << 30) /* that a host has when it does not say */
#define SMALL_WINDOW         4096
#define PLAN_ERROR           0.03         /* what a plan may be off */
#define PLAN_SLACK           (64LL << 20) /* and this: buffers of conversions, graphs */

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

tp_status rt_settle_agree(comm_group *g, tp_status st, const char *what)
{
    int32_t mine = st, all[TP_SEG_MAX];

    TP_TRY(comm_allgather(g, &mine, all, sizeof mine));
    if (st != TP_OK)
        return st;
    for (int r = 0; r < comm_size(g); r++)
        if (all[r] != TP_OK)
            return TP_REJECT(TP_ERR_COMM, "%s failed on rank %d (%s)", what, r,
                             tp_status_name((tp_status)all[r]));
    return TP_OK;
}

/* ---- options ---- */

static tp_status settle_dtype(const char *word, kern_dtype of_checkpoint, kern_dtype *out)
{
    if (word == NULL || strcmp(word, "auto") == 0) {
        *out = of_checkpoint;
        return TP_OK;
    }
    for (int t = KERN_DTYPE_F32; t <= KERN_DTYPE_F16; t++) {
        if (strcmp(word, kern_dtype_name((kern_dtype)t)) == 0) {
            *out = (kern_dtype)t;
            return TP_OK;
        }
    }
    return TP_FAIL(TP_ERR_INVALID, "--dtype %s: expected auto, float32, bfloat16 or float16", word);
}

static tp_status settle_length(rt_settled *s, const rt_engine_options *opt)
{
    s->max_model_len_given = opt->max_model_len > 0;
    s->max_model_len = s->max_model_len_given ? opt->max_model_len : s->config.max_position;
    if (s->max_model_len > s->config.max_position)
        return TP_FAIL(TP_ERR_INVALID,
                       "--max-model-len %" PRId64 ": the model's config.json supports %" PRId64
                       " positions",
                       s->max_model_len, s->config.max_position);
    return TP_OK;
}

/* Sizes of decode steps that get a graph: those asked for or the usual ones, up to what can run at once. */
static tp_status settle_capture(rt_settled *s, const rt_engine_options *opt)
{
    static const int usual[] = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256};
    bool given = opt->n_capture_sizes > 0;
    const int *sizes = given ? opt->capture_sizes : usual;
    int n = given ? opt->n_capture_sizes : (int)TP_ARRAY_LEN(usual);
    int most = given ? s->max_num_seqs : (int)smaller(s->max_num_seqs, usual[n - 1]);

    s->n_capture = 0;
    if (opt->enforce_eager)
        return TP_OK;
    if (n > RT_CAPTURE_MAX)
        return TP_FAIL(TP_ERR_INVALID, "--cudagraph-capture-sizes: %d sizes, expected up to %d", n,
                       RT_CAPTURE_MAX);
    for (int i = 0; i < n; i++) {
        if (sizes[i] < 1 || (i > 0 && sizes[i] <= sizes[i - 1]))
            return TP_FAIL(TP_ERR_INVALID,
                           "--cudagraph-capture-sizes: %d after %d, expected ascending numbers "
                           "from 1",
                           sizes[i], i > 0 ? sizes[i - 1] : 0);
        if (sizes[i] <= most)
            s->capture[s->n_capture++] = sizes[i];
    }
    /* every step that only decodes has a graph */
    if (!given && s->capture[s->n_capture - 1] < most)
        s->capture[s->n_capture++] = most;
    return TP_OK;
}

static tp_status decide(rt_settled *s, const rt_engine_options *opt, const kern_backend *be)
{
    double share = be->device ? RT_DEFAULT_DEVICE_SHARE : RT_DEFAULT_HOST_SHARE;

    if (opt->model_dir == NULL)
        return TP_ERR_NOT_FOUND; /* the caller has said why */
    if (strlen(opt->model_dir) >= sizeof s->model_dir)
        return TP_FAIL(TP_ERR_INVALID, "path of the model is longer than %zu bytes",
                       sizeof s->model_dir - 1);
    memcpy(s->model_dir, opt->model_dir, strlen(opt->model_dir) + 1);
    TP_TRY(rt_config_load(&s->config, s->model_dir));
    TP_TRY(settle_dtype(opt->dtype, s->config.dtype, &s->dtype));
    TP_TRY(settle_length(s, opt));
    s->max_num_seqs = opt->max_num_seqs > 0 ? opt->max_num_seqs : RT_DEFAULT_NUM_SEQS;
    s->max_num_batched_tokens =
        opt->max_num_batched_tokens > 0 ? opt->max_num_batched_tokens : RT_DEFAULT_BATCHED_TOKENS;
    s->block_tokens = opt->block_tokens > 0 ? opt->block_tokens : RT_DEFAULT_BLOCK_TOKENS;
    s->kv_bytes = opt->kv_cache_memory_bytes;
    s->memory_share = opt->memory_share > 0 ? opt->memory_share : share;
    s->watermark = opt->watermark >= 0 ? opt->watermark : DEFAULT_WATERMARK;
    s->step_timeout_ms = opt->step_timeout_ms > 0 ? opt->step_timeout_ms : DEFAULT_STEP_TIMEOUT;
    s->max_queued_reqs = opt->max_num_queued_reqs;
    if (s->max_queued_reqs <= 0)
        s->max_queued_reqs = 4 * s->max_num_seqs > 256 ? 4 * s->max_num_seqs : 256;
    s->max_queued_tokens = opt->max_num_queued_tokens;
    s->dummy_weights = opt->dummy_weights;
    s->speculation = opt->speculation;
    s->lazy_weights = !opt->eager_weights;
    s->ahead = !opt->sync_scheduling;
    TP_TRY(settle_capture(s, opt));
    if (s->block_tokens % 16 != 0)
        return TP_FAIL(TP_ERR_INVALID, "--block-size %d: expected a multiple of 16",
                       s->block_tokens);
    if (s->max_num_batched_tokens < s->max_num_seqs)
        return TP_FAIL(TP_ERR_INVALID,
                       "--max-num-batched-tokens %d is below --max-num-seqs %d: every running "
                       "sequence needs one token per step",
                       s->max_num_batched_tokens, s->max_num_seqs);
    return TP_OK;
}

/* Do all ranks find rank 0's model under its path?  Rank 0 says who does not. */
static tp_status compare_models(comm_group *g, const rt_settled *s, const comm_world *world)
{
    struct card {
        uint8_t id[TP_HASH128_BYTES];
        char host[sizeof world->host];
    } mine, all[TP_SEG_MAX];
    static const uint8_t none[TP_HASH128_BYTES];
    tp_status st = TP_OK;

    rt_model_identity(mine.id, s->model_dir);
    memcpy(mine.host, world->host, sizeof mine.host);
    TP_TRY(comm_allgather(g, &mine, all, sizeof mine));
    for (int r = 1; r < comm_size(g); r++) {
        if (memcmp(all[r].id, all[0].id, sizeof mine.id) == 0)
            continue;
        if (comm_rank(g) != 0)
            return TP_REJECT(TP_ERR_INVALID, "the ranks see different models");
        st = TP_FAIL(TP_ERR_INVALID, "rank %d on %s finds %s in %s: it must be a copy of rank 0's",
                     r, all[r].host,
                     memcmp(all[r].id, none, sizeof none) == 0 ? "no model" : "another model",
                     s->model_dir);
    }
    return st;
}

/* The kind of group that --comm asks for. */
static const char *group_kind(const rt_engine_options *opt, const kern_backend *be)
{
    return be != NULL && be->device ? comm_host_kind(opt->comm) : opt->comm;
}

tp_status rt_settle(rt_settled *out, const rt_engine_options *opt, const comm_world *world,
                    const kern_backend *be)
{
    comm_options small = {.kind = group_kind(opt, be),
                          .window_bytes = SMALL_WINDOW,
                          .plan_bytes_max = SMALL_WINDOW,
                          .timeout_ms = 0};
    rt_settled s = {0};
    comm_group *g;
    tp_status st;

    TP_TRY(comm_group_create(&g, world, &small));
    st = rt_settle_agree(g, be != NULL ? TP_OK : TP_ERR_DEVICE, "opening the device");
    if (st == TP_OK) {
        st = comm_rank(g) == 0 ? decide(&s, opt, be) : TP_OK;
        st = rt_settle_agree(g, st, "reading the model's configuration");
    }
    if (st == TP_OK)
        st = comm_broadcast(g, &s, sizeof s, 0);
    if (st == TP_OK)
        st = compare_models(g, &s, world);
    comm_group_destroy(g);
    if (st == TP_OK)
        *out = s;
    return st;
}

/* ---- the group ---- */

static tp_status device_alloc(void *be, size_t bytes, void **out)
{
    return ((kern_backend *)be)->ops->alloc(be, bytes, out);
}

static void device_free(void *be, void *p)
{
    ((kern_backend *)be)->ops->free(be, p);
}

static tp_status device_put(void *be, void *dst, const void *src, size_t bytes)
{
    return ((kern_backend *)be)->ops->put(be, dst, src, bytes);
}

static tp_status device_get(void *be, void *dst, const void *src, size_t bytes)
{
    return ((kern_backend *)be)->ops->get(be, dst, src, bytes);
}

tp_status rt_attach_device(comm_group *g, kern_backend *be, const char *want, const void *reducers)
{
    comm_device d = {.backend = be,
                     .dev = be->dev,
                     .stream = be->stream,
                     .alloc = device_alloc,
                     .free = device_free,
                     .put = device_put,
                     .get = device_get};

    return be->device && comm_size(g) > 1 ? comm_attach_device(g, &d, want, reducers) : TP_OK;
}

tp_status rt_create_group(comm_group **out, const rt_settled *s, const rt_engine_options *opt,
                          const comm_world *world, kern_backend *be)
{
    /* Nobody knows how long loading or a step may take: waits have no deadline.  The lifeline and the watchdog end them
     * when a rank is lost or hangs. */
    comm_options co = {
        .kind = group_kind(opt, be),
        .window_bytes = rt_model_window_bytes(&s->config, world->size, s->max_num_batched_tokens),
        .plan_bytes_max = rt_plan_bytes_max(s),
        .timeout_ms = 0};
    comm_group *g;
    tp_status st;

    TP_TRY(comm_group_create(&g, world, &co));
    st = rt_attach_device(g, be, opt->comm, opt->reducers);
    if (st == TP_OK && opt->comm_table != NULL && be->device && comm_size(g) > 1)
        st = comm_device_use_table(g, opt->comm_table, opt->device_name);
    if (opt->comm_table != NULL && !be->device && comm_rank(g) == 0)
        tp_warn("comm", "--comm-table %s is not read: it is for GPUs, and CPUs sum in one way",
                opt->comm_table);
    if (st != TP_OK) {
        comm_group_destroy(g);
        return st;
    }
    *out = g;
    return TP_OK;
}

/* ---- memory ---- */

size_t rt_plan_bytes_max(const rt_settled *s)
{
    size_t per_seq = 256 + sizeof(int32_t) * (2 * RT_BIAS_MAX + RT_ALLOWED_MAX);
    size_t table = (size_t)(s->max_model_len / s->block_tokens + 2) * sizeof(int32_t);

    return (size_t)(1 << 16) + (size_t)s->max_num_seqs * 256 + 4 * (per_seq + table) +
           sizeof(int32_t) * (size_t)(2 * s->max_model_len + 8 * s->max_num_batched_tokens);
}

rt_model_options rt_model_options_of(const rt_settled *s, bool progress)
{
    return (rt_model_options){.dir = s->model_dir,
                              .dtype = s->dtype,
                              .max_tokens_per_step = s->max_num_batched_tokens,
                              .max_seqs = s->max_num_seqs,
                              .max_model_len = s->max_model_len,
                              .block_tokens = s->block_tokens,
                              .dummy_weights = s->dummy_weights,
                              .lazy_weights = s->lazy_weights,
                              .progress = progress};
}

static int64_t available_bytes(void)
{
    int64_t available = tp_memory_available();

    return available < INT64_MAX ? available : UNKNOWN_MEMORY;
}

/* Bytes that the default share leaves for blocks. */
static tp_status default_bytes(const rt_settled *s, const rt_budget *b, int local_size,
                               kern_backend *be, int64_t *out)
{
    int64_t planned = b->weights + b->workspace + b->tables + b->comm, total, available;

    if (!be->device) {
        int64_t share = (int64_t)((double)available_bytes() * s->memory_share) / local_size;

        *out = smaller(share - planned, DEFAULT_KV_BYTES_MAX / local_size);
        return TP_OK;
    }
    TP_TRY(be->ops->memory(be, &total, &available));
    *out = (int64_t)((double)total * s->memory_share) - (total - available) - planned;
    return TP_OK;
}

/* Blocks that this rank can hold: what was asked for, or what the default share leaves, up to what can be used. */
static tp_status count_blocks(const rt_settled *s, rt_budget *b, int local_size, kern_backend *be)
{
    int64_t per_seq = (s->max_model_len + s->block_tokens - 1) / s->block_tokens;
    int64_t useful = per_seq * s->max_num_seqs, bytes = s->kv_bytes;

    if (bytes <= 0)
        TP_TRY(default_bytes(s, b, local_size, be, &bytes));
    b->n_blocks =
        smaller(smaller(bytes / b->kv_per_block, useful), INT32_MAX / s->block_tokens - 1);
    return TP_OK;
}

static tp_status fit_length(rt_settled *s, const rt_budget *b)
{
    int64_t tokens = (int64_t)s->n_blocks * s->block_tokens;

    if (s->n_blocks < 1)
        return TP_FAIL(TP_ERR_INVALID,
                       "no memory is left for the KV cache: one block of %d tokens takes %" PRId64
                       " bytes; raise --kv-cache-memory-bytes or --gpu-memory-utilization, or use "
                       "more ranks",
                       s->block_tokens, b->kv_per_block);
    if (tokens >= s->max_model_len)
        return TP_OK;
    if (s->max_model_len_given)
        return TP_FAIL(TP_ERR_INVALID,
                       "--max-model-len %" PRId64 " does not fit the KV cache of %" PRId64
                       " tokens: raise --kv-cache-memory-bytes to %" PRId64 " or lower "
                       "--max-model-len",
                       s->max_model_len, tokens,
                       (s->max_model_len + s->block_tokens - 1) / s->block_tokens *
                           b->kv_per_block);
    s->max_model_len = tokens;
    return TP_OK;
}

static double mib(int64_t bytes)
{
    return (double)bytes / (1024.0 * 1024.0);
}

static void print_budget(const rt_settled *s, const rt_budget *all, int n)
{
    for (int r = 0; r < n; r++) {
        const rt_budget *b = &all[r];

        tp_info("memory",
                "rank %d: weights %.1f + workspace %.1f + tables %.1f + comm %.1f + KV cache %.1f "
                "= %.1f MiB",
                r, mib(b->weights), mib(b->workspace), mib(b->tables), mib(b->comm), mib(b->kv),
                mib(b->weights + b->workspace + b->tables + b->comm + b->kv));
    }
    tp_info("memory",
            "KV cache: %d blocks of %d tokens = %" PRId64 " tokens, %.1f sequences of the full "
            "length %" PRId64,
            s->n_blocks, s->block_tokens, (int64_t)s->n_blocks * s->block_tokens,
            (double)s->n_blocks * s->block_tokens / (double)s->max_model_len, s->max_model_len);
}

/* This rank's memory without the KV cache, for the present max_model_len. */
static tp_status plan_memory(const rt_settled *s, const rt_shard *shard, kern_backend *be,
                             comm_group *g, rt_budget *b)
{
    rt_model_options mo = rt_model_options_of(s, false);
    rt_worker_options wo = {.n_slots = s->max_num_seqs,
                            .max_model_len = s->max_model_len,
                            .max_tokens = s->max_num_batched_tokens,
                            .block_tokens = s->block_tokens,
                            .draft_max = s->speculation.max_tokens};
    int n_ranks = comm_size(g);
    rt_memory_plan plan;

    TP_TRY(
        rt_settle_agree(g, rt_model_memory(&plan, &s->config, shard, be, &mo), "the memory plan"));
    b->weights = plan.weights;
    b->workspace = plan.workspace + rt_sampler_bytes(&s->config, shard, be);
    b->tables = rt_worker_bytes(&wo);
    b->kv_per_block = plan.kv_per_block > 0 ? plan.kv_per_block : 1;
    if (be->device) { /* windows of devices exist already and are not free any more */
        int64_t total;

        return rt_settle_agree(g, be->ops->memory(be, &total, &b->available), "asking for memory");
    }
    b->workspace += rt_sampler_host_bytes(&s->config, shard, be);
    b->tables += rt_worker_host_bytes(&wo);
    b->comm = (int64_t)rt_plan_bytes_max(s);
    if (n_ranks > 1)
        b->comm +=
            2 * (int64_t)rt_model_window_bytes(&s->config, n_ranks, s->max_num_batched_tokens);
    return TP_OK;
}

/* The number of blocks that every rank can hold, and what that means for each; all [ranks]. */
static tp_status agree_blocks(rt_settled *s, rt_budget *mine, int local_size, kern_backend *be,
                              comm_group *g, rt_budget *all)
{
    int64_t blocks = INT64_MAX;

    TP_TRY(rt_settle_agree(g, count_blocks(s, mine, local_size, be), "asking for memory"));
    TP_TRY(comm_allgather(g, mine, all, sizeof *mine));
    for (int r = 0; r < comm_size(g); r++)
        blocks = smaller(blocks, all[r].n_blocks);
    s->n_blocks = (int32_t)(blocks > 0 ? blocks : 0);
    for (int r = 0; r < comm_size(g); r++)
        all[r].kv = (int64_t)s->n_blocks * all[r].kv_per_block;
    mine->kv = (int64_t)s->n_blocks * mine->kv_per_block;
    return TP_OK;
}

/* Pages come when they are used (a large cache's soon after the start): what cannot fit is said now. */
static void check_room(const rt_budget *b, int local_size)
{
    int64_t planned =
        (b->weights + b->workspace + b->tables + b->comm + b->kv) * (int64_t)local_size;
    int64_t available = tp_memory_available();

    if (planned > available)
        tp_warn(
            "memory",
            "%.1f MiB are planned on this host, %.1f MiB can be had: expect the kernel to end a "
            "rank; lower --kv-cache-memory-bytes or use more hosts",
            mib(planned), mib(available));
}

tp_status rt_settle_memory(rt_settled *s, const rt_shard *shard, kern_backend *be, comm_group *g,
                           int local_size, rt_budget *out)
{
    rt_budget b = {0}, all[TP_SEG_MAX];
    int64_t planned_len;

    /* The second round gives the blocks what shorter tables spare; it cannot shorten the context again. */
    do {
        planned_len = s->max_model_len;
        TP_TRY(plan_memory(s, shard, be, g, &b));
        TP_TRY(agree_blocks(s, &b, local_size, be, g, all));
        /* every rank comes to the same answer; rank 0 says it */
        TP_TRY(rt_settle_agree(g, comm_rank(g) == 0 ? fit_length(s, &b) : TP_OK,
                               "fitting the KV cache"));
        TP_TRY(comm_broadcast(g, s, sizeof *s, 0));
    } while (s->max_model_len < planned_len);
    if (comm_rank(g) == 0) {
        print_budget(s, all, comm_size(g));
        if (!be->device)
            check_room(&b, local_size);
    }
    *out = b;
    return TP_OK;
}

void rt_compare_memory(const rt_budget *b, kern_backend *be, const comm_group *g)
{
    int64_t planned = b->weights + b->workspace + b->tables + b->kv, total, available, taken, off;

    if (!be->device || be->ops->memory(be, &total, &available) != TP_OK)
        return;
    taken = b->available - available;
    off = taken > planned ? taken - planned : planned - taken;
    if ((double)off > PLAN_ERROR * (double)planned + (double)PLAN_SLACK)
        tp_warn("memory", "planned %.1f MiB of the device, %.1f MiB were taken", mib(planned),
                mib(taken));
    else if (comm_rank(g) == 0)
        tp_info("memory", "planned %.1f MiB of each device, %.1f MiB taken, %.1f MiB left",
                mib(planned), mib(taken), mib(available));
}
