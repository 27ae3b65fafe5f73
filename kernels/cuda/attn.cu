/* SPDX-License-Identifier: Apache-2.0 */
/* attn.cu - which attention kernel does what: decode for the first n_decode sequences, prefill for the rest, the
 * generic kernel for both where the other two have no instance (attn_decode.cu, attn_prefill.cu, attn_generic.cu).
 *
 * Scratch belongs to decode: counters of arrived partial results, which are zero between calls (the memory is zeroed by
 * who allocates it, each call leaves zeros), then the partial results.
 */
#include "kernels/cuda/attn_kernels.h"

#define BLOCKS_PER_SM 2     /* of decode: what registers and shared memory allow */
#define SMALL_DIM_MAX 32    /* head_dim without a fast kernel */
#define SMEM_BYTES    98304 /* of the largest instance: all architectures since sm_80 have 99 KiB */

static bool tensor_cores(int head_dim, kern_dtype kv)
{
    switch (head_dim) {
#define CASE(D) case D:
        KERN_ATTN_EACH_DIM(CASE)
#undef CASE
        return kv == KERN_DTYPE_BF16 || kv == KERN_DTYPE_F16;
    }
    return false;
}

/* Blocks that share the work of a KV head. */
static int blocks_of(int n_sm, int n_kv)
{
    int n = (int)tp_blocks_of((int64_t)BLOCKS_PER_SM * n_sm, n_kv);

    return n < 1 ? 1 : n > KERN_ATTN_BLOCKS_MAX ? KERN_ATTN_BLOCKS_MAX : n;
}

/* Blocks beyond one per tile of keys have nothing to do. */
static int useful(int n_blocks, int64_t ctx_max, int64_t n_seqs)
{
    int64_t tiles = ctx_max > KERN_ATTN_TILE ? (ctx_max + KERN_ATTN_TILE - 1) / KERN_ATTN_TILE : 1;

    return tiles * n_seqs < n_blocks ? (int)(tiles * n_seqs) : n_blocks;
}

static int64_t counter_bytes(int n_q, int n_sm)
{
    return (kern_attn_decode_counters(n_q, blocks_of(n_sm, 1)) * 4 + 255) / 256 * 256;
}

/* The generic kernel could do any size, but a large model on it would be slow without anybody knowing why; small test
 * models may. */
bool kern_cuda_attn_supports(int head_dim, kern_dtype kv)
{
    bool fast = tensor_cores(head_dim, KERN_DTYPE_BF16); /* an F32 cache takes the same sizes */

    return (fast || (head_dim > 0 && head_dim <= SMALL_DIM_MAX)) &&
           (kv == KERN_DTYPE_F32 || kv == KERN_DTYPE_BF16 || kv == KERN_DTYPE_F16);
}

size_t kern_cuda_attn_scratch_bytes(int n_q, int head_dim, int64_t ctx_max, int seqs_max, int n_sm)
{
    int n_blocks = useful(blocks_of(n_sm, 1), ctx_max, seqs_max);

    return (size_t)(counter_bytes(n_q, n_sm) + kern_attn_decode_parts(n_q, head_dim, n_blocks) * 4);
}

static tp_status check(const kern_attn_args *a)
{
    const kern_kv_desc *d = &a->kv->desc;

    if (!kern_cuda_attn_supports(a->head_dim, d->dtype))
        return TP_FAIL(TP_ERR_INVALID,
                       "attn: head_dim %d, expected 64, 80, 96, 128, 192, 256 or up to %d",
                       a->head_dim, SMALL_DIM_MAX);
    if (d->block_tokens % ATTN_GROUP != 0 || a->kv->block_stride % (ATTN_GROUP * a->head_dim) != 0)
        return TP_FAIL(TP_ERR_INVALID,
                       "attn: blocks of %d tokens, %lld numbers apart; expected "
                       "multiples of %d tokens",
                       d->block_tokens, (long long)a->kv->block_stride, ATTN_GROUP);
    if (a->scratch == NULL)
        return TP_FAIL(TP_ERR_INVALID, "attn: a pointer is NULL");
    return TP_OK;
}

static attn_view view_of(const kern_attn_args *a, int n_sm)
{
    const kern_kv *kv = a->kv;
    attn_view v = {};

    v.out = a->out;
    v.q = a->q;
    v.cache = static_cast<const unsigned char *>(kv->data) +
              a->layer * kv->layer_stride * (kv->desc.dtype == KERN_DTYPE_F32 ? 4 : 2);
    v.seqs = a->seqs;
    v.block_tables = a->block_tables;
    v.kv_of_q = a->kv_of_q;
    v.counters = static_cast<uint32_t *>(a->scratch);
    v.parts = reinterpret_cast<float *>(static_cast<unsigned char *>(a->scratch) +
                                        counter_bytes(a->n_q, n_sm));
    v.q_stride = a->q_stride;
    v.block_stride = kv->block_stride;
    v.v_offset = kv->v_offset;
    v.head_stride = kv->head_stride;
    v.n_q = a->n_q;
    v.head_dim = a->head_dim;
    v.window = a->window;
    v.groups_per_block = kv->desc.block_tokens / ATTN_GROUP;
    v.units_per_block = (int)(kv->block_stride / (ATTN_GROUP * a->head_dim));
    v.scale = a->scale;
    v.out_dtype = a->out_dtype;
    v.q_even = a->q_stride % 2 == 0 && tp_aligned(a->q, 8);
    return v;
}

tp_status kern_cuda_attn(const kern_attn_args *a, int n_sm, kern_stream s)
{
    int n_rest = a->n_seqs - a->n_decode, n_kv = a->kv->desc.n_kv;
    kern_dtype kv = a->kv->desc.dtype;

    if (a->n_seqs == 0 || a->n_q == 0 || n_kv == 0)
        return TP_OK;
    TP_TRY(check(a));
    attn_view v = view_of(a, n_sm), rest = v;

    rest.seqs = a->seqs + a->n_decode;
    if (tensor_cores(a->head_dim, kv)) {
        if (a->n_decode > 0)
            kern_attn_decode_launch(&v, kv, a->n_decode, n_kv,
                                    useful(blocks_of(n_sm, n_kv), a->max_ctx, a->n_decode), s);
        if (n_rest > 0 && a->max_rows > 0)
            kern_attn_prefill_launch(&rest, kv, n_rest, a->max_rows, s);
    } else {
        if (a->n_decode > 0)
            kern_attn_generic_launch(&v, kv, a->n_decode, 1, s);
        if (n_rest > 0 && a->max_rows > 0)
            kern_attn_generic_launch(&rest, kv, n_rest, a->max_rows, s);
    }
    return tp_launched("attn");
}

extern "C" int kern_cuda_programmatic;
int kern_cuda_programmatic;
static bool g_can_be_programmatic;

void kern_cuda_set_programmatic(bool on)
{
    kern_cuda_programmatic = on && g_can_be_programmatic;
}

/* Attention is all that needs more shared memory than there is without asking. */
tp_status kern_cuda_prepare(const kern_dev_props *p)
{
    int e = 0;

    if (p->max_smem_per_block < SMEM_BYTES)
        return TP_FAIL(TP_ERR_UNSUPPORTED,
                       "%s has %d bytes of shared memory per block, attention needs %d", p->name,
                       p->max_smem_per_block, SMEM_BYTES);
    g_can_be_programmatic = p->cc >= 90;
    e = kern_attn_decode_prepare();
    if (e == 0)
        e = kern_attn_prefill_prepare();
    return e == 0
               ? TP_OK
               : TP_FAIL(TP_ERR_DEVICE, "shared memory for attention: %s", TP_LAUNCH_ERROR_NAME(e));
}
