/* SPDX-License-Identifier: Apache-2.0 */
/* model_config.c - config.json and generation_config.json of a Hugging Face directory.
 *
 * One row of `arch_rows` per architecture says what its keys mean and default to; nothing else in the runtime asks
 * which architecture it is.  Both generations of keys are read: "torch_dtype", "rope_theta", "rope_scaling" (v4) and
 * "dtype", "rope_parameters" (v5).  The limits below keep every later product inside int64.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/model/config_read.h"
#include "runtime/model/model.h"
#include "runtime/model/rope.h"

#define CONFIG_BYTES_MAX (4 << 20)
#define LAYERS_MAX       256 /* bits of rt_config.sliding_layers */
#define HIDDEN_MAX       (1 << 16)
#define INTER_MAX        (1 << 20)
#define HEADS_MAX        1024
#define HEAD_DIM_MAX     512
#define VOCAB_MAX        (1 << 22)
#define POSITIONS_MAX    (INT64_C(1) << 31)

typedef enum bias_rule { BIAS_NONE, BIAS_ALWAYS, BIAS_BY_KEY } bias_rule;

typedef enum window_rule {
    WINDOW_NONE,
    WINDOW_ALL_LAYERS, /* "sliding_window" alone decides */
    WINDOW_BY_FLAG     /* "use_sliding_window", from layer "max_window_layers" on */
} window_rule;

typedef struct arch_row {
    rt_arch arch;
    const char *architecture, *model_type;
    int head_dim;         /* when the key is absent; 0 = hidden / heads */
    int kv_heads;         /* when the key is absent; 0 = as many as query heads */
    int64_t max_position; /* when the key is absent */
    bias_rule qkv_bias, o_bias, mlp_bias;
    bool qk_norm;
    window_rule window;
    int window_default; /* when "sliding_window" is absent (not when null) */
} arch_row;

static const arch_row arch_rows[] = {
    {.arch = RT_ARCH_LLAMA,
     .architecture = "LlamaForCausalLM",
     .model_type = "llama",
     .max_position = 2048,
     .qkv_bias = BIAS_BY_KEY,
     .o_bias = BIAS_BY_KEY,
     .mlp_bias = BIAS_BY_KEY},
    {.arch = RT_ARCH_MISTRAL,
     .architecture = "MistralForCausalLM",
     .model_type = "mistral",
     .kv_heads = 8,
     .max_position = 131072,
     .window = WINDOW_ALL_LAYERS,
     .window_default = 4096},
    {.arch = RT_ARCH_QWEN2,
     .architecture = "Qwen2ForCausalLM",
     .model_type = "qwen2",
     .kv_heads = 32,
     .max_position = 32768,
     .qkv_bias = BIAS_ALWAYS,
     .window = WINDOW_BY_FLAG,
     .window_default = 4096},
    {.arch = RT_ARCH_QWEN3,
     .architecture = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .head_dim = 128,
     .kv_heads = 32,
     .max_position = 32768,
     .qkv_bias = BIAS_BY_KEY,
     .o_bias = BIAS_BY_KEY,
     .qk_norm = true,
     .window = WINDOW_BY_FLAG,
     .window_default = 4096},
};

/* By architecture name where config.json gives one, else by model_type. */
static tp_status find_row(const rt_cfg *r, const arch_row **out)
{
    const tp_json *list = rt_cfg_get(r, "architectures");
    const char *architecture = tp_json_string(tp_json_first(list)), *model_type;

    TP_TRY(rt_cfg_string(r, "model_type", NULL, &model_type));
    for (size_t i = 0; i < TP_ARRAY_LEN(arch_rows); i++) {
        const arch_row *row = &arch_rows[i];

        if (architecture != NULL ? strcmp(row->architecture, architecture) == 0
                                 : model_type != NULL && strcmp(row->model_type, model_type) == 0) {
            *out = row;
            return TP_OK;
        }
    }
    return TP_FAIL(TP_ERR_UNSUPPORTED,
                   "%s: architecture \"%.64s\" (model_type \"%.64s\") is not supported; supported:"
                   " LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM",
                   r->path, architecture != NULL ? architecture : "absent",
                   model_type != NULL ? model_type : "absent");
}

static tp_status refuse_quantized(const rt_cfg *r)
{
    const tp_json *q = rt_cfg_get(r, "quantization_config");

    if (q == NULL)
        return TP_OK;
    return TP_FAIL(
        TP_ERR_UNSUPPORTED,
        "%s: \"quantization_config\" with quant_method \"%.40s\": quantised checkpoints are"
        " not supported; supported: float32, bfloat16, float16 weights",
        r->path, tp_json_get_string(q, "quant_method", "absent"));
}

static tp_status read_int(const rt_cfg *r, const char *key, int64_t max, int64_t dflt, int *out)
{
    int64_t n;

    TP_TRY(rt_cfg_int(r, key, 1, max, dflt, &n));
    *out = (int)n;
    return TP_OK;
}

static tp_status read_heads(rt_config *c, const rt_cfg *r, const arch_row *row)
{
    int64_t kv_default = c->n_heads, head_dim_default = row->head_dim;

    if (row->kv_heads != 0 && tp_json_get(r->text, "num_key_value_heads") == NULL)
        kv_default = row->kv_heads;
    TP_TRY(read_int(r, "num_key_value_heads", HEADS_MAX, kv_default, &c->n_kv_heads));
    if (c->n_heads % c->n_kv_heads != 0)
        return TP_FAIL(TP_ERR_INVALID,
                       "%s: \"num_attention_heads\" is %d, expected a multiple of"
                       " \"num_key_value_heads\" (%d)",
                       r->path, c->n_heads, c->n_kv_heads);
    if (head_dim_default == 0) {
        head_dim_default = c->hidden / c->n_heads;
        if (rt_cfg_get(r, "head_dim") == NULL && c->hidden % c->n_heads != 0)
            return TP_FAIL(
                TP_ERR_INVALID,
                "%s: \"hidden_size\" is %d, expected a multiple of \"num_attention_heads\""
                " (%d) as \"head_dim\" is absent",
                r->path, c->hidden, c->n_heads);
    }
    TP_TRY(read_int(r, "head_dim", HEAD_DIM_MAX, head_dim_default, &c->head_dim));
    if (c->head_dim < 4 || c->head_dim > HEAD_DIM_MAX || c->head_dim % 2 != 0)
        return TP_FAIL(TP_ERR_INVALID,
                       "%s: \"head_dim\" is %d, expected an even number from 4 to %d", r->path,
                       c->head_dim, HEAD_DIM_MAX);
    return TP_OK;
}

static tp_status read_dims(rt_config *c, const rt_cfg *r, const arch_row *row)
{
    const char *act;
    double eps;

    TP_TRY(read_int(r, "num_hidden_layers", LAYERS_MAX, RT_CFG_REQUIRED, &c->n_layers));
    TP_TRY(read_int(r, "hidden_size", HIDDEN_MAX, RT_CFG_REQUIRED, &c->hidden));
    TP_TRY(read_int(r, "intermediate_size", INTER_MAX, RT_CFG_REQUIRED, &c->intermediate));
    TP_TRY(read_int(r, "num_attention_heads", HEADS_MAX, RT_CFG_REQUIRED, &c->n_heads));
    TP_TRY(read_int(r, "vocab_size", VOCAB_MAX, RT_CFG_REQUIRED, &c->vocab));
    TP_TRY(read_heads(c, r, row));
    TP_TRY(rt_cfg_double(r, "rms_norm_eps", 0, 1, 1e-6, &eps));
    c->norm_eps = (float)eps;
    TP_TRY(rt_cfg_string(r, "hidden_act", "silu", &act));
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return TP_FAIL(TP_ERR_UNSUPPORTED, "%s: \"hidden_act\" is \"%.40s\"; supported: silu",
                       r->path, act);
    return TP_OK;
}

static tp_status read_bias(const rt_cfg *r, const char *key, bias_rule rule, bool *out)
{
    *out = rule == BIAS_ALWAYS;
    return rule == BIAS_BY_KEY ? rt_cfg_bool(r, key, false, out) : TP_OK;
}

static tp_status read_layer_types(rt_config *c, const rt_cfg *r, const tp_json *list)
{
    int layer = 0;

    TP_JSON_EACH(item, list)
    {
        const char *name = tp_json_string(item);
        bool sliding = name != NULL && strcmp(name, "sliding_attention") == 0;
        char text[RT_CFG_SHOW_BYTES];

        if (!sliding && (name == NULL || strcmp(name, "full_attention") != 0))
            return TP_FAIL(
                TP_ERR_UNSUPPORTED,
                "%s: \"layer_types\"[%d] is %s; supported: full_attention, sliding_attention",
                r->path, layer, rt_cfg_show(item, text));
        if (sliding && layer < c->n_layers)
            c->sliding_layers[layer / 64] |= UINT64_C(1) << (layer % 64);
        layer++;
    }
    if (layer != c->n_layers)
        return TP_FAIL(TP_ERR_INVALID, "%s: \"layer_types\" has %d entries, expected %d", r->path,
                       layer, c->n_layers);
    return TP_OK;
}

/* Which layers see only the newest `sliding_window` keys. */
static tp_status read_window(rt_config *c, const rt_cfg *r, const arch_row *row)
{
    const tp_json *list = rt_cfg_get(r, "layer_types");
    bool given = tp_json_get(r->text, "sliding_window") != NULL;
    bool on = row->window == WINDOW_ALL_LAYERS;
    int64_t window = given ? 0 : row->window_default, first = 0;

    if (row->window == WINDOW_NONE)
        return TP_OK;
    if (row->window == WINDOW_BY_FLAG) {
        TP_TRY(rt_cfg_bool(r, "use_sliding_window", false, &on));
        TP_TRY(rt_cfg_int(r, "max_window_layers", 0, INT32_MAX, 28, &first));
    }
    TP_TRY(rt_cfg_int(r, "sliding_window", 1, POSITIONS_MAX - 1, window, &window));
    if (!on || window == 0)
        return TP_OK;
    if (list != NULL) {
        TP_TRY(read_layer_types(c, r, list));
    } else {
        for (int64_t l = first; l < c->n_layers; l++)
            c->sliding_layers[l / 64] |= UINT64_C(1) << (l % 64);
    }
    c->sliding_window = (int)window;
    return TP_OK;
}

static tp_status read_dtype(rt_config *c, const rt_cfg *r)
{
    const tp_json *v = rt_cfg_get(r, "dtype");
    const char *name;
    char text[RT_CFG_SHOW_BYTES];

    if (v == NULL)
        v = rt_cfg_get(r, "torch_dtype");
    c->dtype = KERN_DTYPE_F32;
    if (v == NULL || tp_json_kind(v) == TP_JSON_OBJECT)
        return TP_OK;
    name = tp_json_string(v);
    if (name != NULL && strncmp(name, "torch.", 6) == 0)
        name += 6;
    for (int t = KERN_DTYPE_F32; t <= KERN_DTYPE_F16; t++) {
        if (name != NULL && strcmp(name, kern_dtype_name((kern_dtype)t)) == 0) {
            c->dtype = (kern_dtype)t;
            return TP_OK;
        }
    }
    return TP_FAIL(TP_ERR_UNSUPPORTED, "%s: \"dtype\" is %s; supported: float32, bfloat16, float16",
                   r->path, rt_cfg_show(v, text));
}

/* Adds ids that are not in the list yet. */
static tp_status add_eos(rt_config *c, const rt_cfg *r)
{
    const tp_json *v = rt_cfg_get(r, "eos_token_id");
    bool list = v != NULL && tp_json_kind(v) == TP_JSON_ARRAY;
    char text[RT_CFG_SHOW_BYTES];

    for (const tp_json *item = list ? tp_json_first(v) : v; item != NULL;
         item = list ? tp_json_next(item) : NULL) {
        int64_t id;
        bool known = false;

        if (tp_json_kind(item) != TP_JSON_NUMBER || !tp_json_int64(item, &id) || id < 0 ||
            id > INT32_MAX)
            return TP_FAIL(TP_ERR_INVALID, "%s: \"eos_token_id\" is %s, expected token ids",
                           r->path, rt_cfg_show(v, text));
        for (int i = 0; i < c->n_eos; i++)
            known = known || c->eos[i] == id;
        if (known)
            continue;
        if (c->n_eos == RT_EOS_MAX)
            return TP_FAIL(TP_ERR_LIMIT, "%s: \"eos_token_id\" lists more than %d ids", r->path,
                           RT_EOS_MAX);
        c->eos[c->n_eos++] = (int32_t)id;
    }
    return TP_OK;
}

static tp_status read_ids(rt_config *c, const rt_cfg *r)
{
    int64_t bos = -1;
    const tp_json *v = rt_cfg_get(r, "bos_token_id");

    TP_TRY(add_eos(c, r));
    if (v != NULL && tp_json_kind(v) != TP_JSON_ARRAY)
        TP_TRY(rt_cfg_int(r, "bos_token_id", -1, INT32_MAX, -1, &bos));
    if (bos >= 0)
        c->bos_id = (int32_t)bos;
    return TP_OK;
}

static tp_status read_config(rt_config *c, const rt_cfg *r)
{
    const arch_row *row = NULL;
    const char *model_type;
    int64_t longest;

    TP_TRY(find_row(r, &row));
    TP_TRY(refuse_quantized(r));
    c->arch = row->arch;
    TP_TRY(rt_cfg_string(r, "model_type", row->model_type, &model_type));
    (void)snprintf(c->model_type, sizeof c->model_type, "%s", model_type);
    (void)snprintf(c->architecture, sizeof c->architecture, "%s", row->architecture);
    TP_TRY(read_dims(c, r, row));
    TP_TRY(read_bias(r, "attention_bias", row->qkv_bias, &c->qkv_bias));
    TP_TRY(read_bias(r, "attention_bias", row->o_bias, &c->o_bias));
    TP_TRY(read_bias(r, "mlp_bias", row->mlp_bias, &c->mlp_bias));
    c->qk_norm = row->qk_norm;
    TP_TRY(rt_cfg_bool(r, "tie_word_embeddings", false, &c->tied));
    TP_TRY(read_window(c, r, row));
    TP_TRY(rt_cfg_int(r, "max_position_embeddings", 1, POSITIONS_MAX, row->max_position, &longest));
    TP_TRY(rt_rope_read(c, r, longest));
    TP_TRY(read_dtype(c, r));
    return read_ids(c, r);
}

static tp_status read_generation(rt_config *c, const rt_cfg *r)
{
    const struct {
        const char *key;
        double min, max;
        float *out;
    } keys[] = {
        {"temperature", 0, 100, &c->gen_temperature},
        {"top_p", 0, 1, &c->gen_top_p},
        {"min_p", 0, 1, &c->gen_min_p},
        {"repetition_penalty", 1e-6, 1e6, &c->gen_repetition_penalty},
    };
    int64_t top_k;

    for (size_t i = 0; i < TP_ARRAY_LEN(keys); i++) {
        double d;

        TP_TRY(rt_cfg_double(r, keys[i].key, keys[i].min, keys[i].max, -1, &d));
        *keys[i].out = (float)d;
    }
    TP_TRY(rt_cfg_int(r, "top_k", -1, INT32_MAX, -1, &top_k));
    c->gen_top_k = (int)top_k;
    return read_ids(c, r);
}

/* An object, or NOT_FOUND. */
static tp_status parse_object(tp_json **out, const char *path)
{
    tp_json *root;

    TP_TRY(tp_json_parse_file(&root, path, CONFIG_BYTES_MAX, NULL));
    if (tp_json_kind(root) != TP_JSON_OBJECT) {
        tp_status st = TP_FAIL(TP_ERR_FORMAT, "%s: holds %s, expected an object", path,
                               tp_json_kind_name(tp_json_kind(root)));
        tp_json_free(root);
        return st;
    }
    *out = root;
    return TP_OK;
}

static tp_status load_generation(rt_config *c, const char *dir)
{
    char path[4096];
    tp_json *root;
    tp_status st;

    (void)snprintf(path, sizeof path, "%s/generation_config.json", dir);
    if (access(path, F_OK) != 0)
        return TP_OK;
    TP_TRY(parse_object(&root, path));
    st = read_generation(c, &(rt_cfg){.path = path, .prefix = "", .text = root});
    tp_json_free(root);
    return st;
}

tp_status rt_config_load(rt_config *out, const char *model_dir)
{
    rt_config c = {.bos_id = -1,
                   .gen_temperature = -1,
                   .gen_top_p = -1,
                   .gen_min_p = -1,
                   .gen_repetition_penalty = -1,
                   .gen_top_k = -1};
    char path[4096];
    tp_json *root;
    const tp_json *text;
    tp_status st;

    if ((size_t)snprintf(path, sizeof path, "%s/config.json", model_dir) >= sizeof path - 32)
        return TP_FAIL(TP_ERR_INVALID, "model directory name is longer than %zu bytes",
                       sizeof path);
    TP_TRY(parse_object(&root, path));
    text = tp_json_get(root, "text_config");
    if (tp_json_is_null(text) || tp_json_kind(text) != TP_JSON_OBJECT)
        text = NULL;
    st = read_config(&c, &(rt_cfg){.path = path,
                                   .prefix = "",
                                   .text = text != NULL ? text : root,
                                   .top = text != NULL ? root : NULL});
    tp_json_free(root);
    TP_TRY(st);
    TP_TRY(load_generation(&c, model_dir));
    *out = c;
    return TP_OK;
}

bool rt_config_layer_sliding(const rt_config *c, int layer)
{
    return c->sliding_window > 0 && ((c->sliding_layers[layer / 64] >> (layer % 64)) & 1) != 0;
}

int64_t rt_config_params(const rt_config *c)
{
    int64_t h = c->hidden, q = (int64_t)c->n_heads * c->head_dim;
    int64_t kv = (int64_t)c->n_kv_heads * c->head_dim, inter = c->intermediate;
    int64_t layer = h * (q + 2 * kv) + q * h + 3 * h * inter + 2 * h;

    layer += c->qkv_bias ? q + 2 * kv : 0;
    layer += c->o_bias ? h : 0;
    layer += c->mlp_bias ? 2 * inter + h : 0;
    layer += c->qk_norm ? 2 * c->head_dim : 0;
    return layer * c->n_layers + h + (c->tied ? 1 : 2) * h * c->vocab;
}
