/* SPDX-License-Identifier: Apache-2.0 */
/* plan_tool.c - `tpserve plan`: will a model fit, how fast could it be, and what would a load take?  From config.json alone.
 *
 * Nothing is measured: every number is predicted, and printed with what it rests on.
 */
#include "launcher/plan_tool.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "launcher/serve.h"
#include "runtime/engine.h"

#define KERNELS_A_LAYER 10
#define BATCH_MAX       4096
#define CPU_TFLOPS      1.0 /* when none are given */

/* ---- the question ---- */

static tp_status settle_formats(launch_plan *p)
{
    const char *q = p->opt->quantization, *kv = p->opt->kv_cache_dtype;

    p->dtype = p->config.dtype;
    for (int t = KERN_DTYPE_F32; t <= KERN_DTYPE_F16; t++)
        if (strcmp(p->opt->dtype, kern_dtype_name((kern_dtype)t)) == 0)
            p->dtype = (kern_dtype)t;
    if (strcmp(q, "none") != 0 && p->dtype == KERN_DTYPE_F32)
        p->dtype = KERN_DTYPE_BF16;
    p->format = p->dtype == KERN_DTYPE_F32 ? LAUNCH_FORMAT_F32 : LAUNCH_FORMAT_BF16;
    if (strcmp(q, "fp8") == 0)
        p->format = LAUNCH_FORMAT_FP8;
    else if (strcmp(q, "int4") == 0)
        p->format = LAUNCH_FORMAT_INT4;
    p->kv_element_bytes = (double)kern_dtype_bytes(p->dtype);
    if (strcmp(kv, "auto") != 0)
        p->kv_element_bytes = strcmp(kv, "fp8") == 0 ? 1 : 2;
    return TP_OK;
}

static tp_status read_batches(launch_plan *p)
{
    const char *s = p->opt->batch;

    for (;;) {
        char *end;
        long n = strtol(s, &end, 10);

        if (end == s || n < 1 || n > BATCH_MAX || (*end != ',' && *end != '\0'))
            return TP_REJECT(TP_ERR_INVALID,
                             "--batch: expected numbers from 1 to %d with commas, found \"%s\"",
                             BATCH_MAX, p->opt->batch);
        if (p->n_batches == LAUNCH_PLAN_BATCHES_MAX)
            return TP_REJECT(TP_ERR_INVALID, "--batch: more than %d numbers",
                             LAUNCH_PLAN_BATCHES_MAX);
        p->batches[p->n_batches++] = (int)n;
        if (*end == '\0')
            return TP_OK;
        s = end + 1;
    }
}

/* "2,1000,200" or "2,1000,200,50". */
static tp_status read_load(launch_plan *p)
{
    double v[4] = {0};
    const char *s = p->opt->load;
    int n = 0;
    bool ok = true;

    if (s == NULL)
        return TP_OK;
    for (bool more = true; more && ok; n++) {
        char *end;

        ok = n < 4;
        if (!ok)
            break;
        v[n] = strtod(s, &end);
        ok =
            end != s && isfinite(v[n]) && v[n] >= 0 && v[n] <= 1e9 && (*end == ',' || *end == '\0');
        more = *end == ',';
        s = end + 1;
    }
    if (!ok || n < 3 || v[0] <= 0 || v[2] < 1)
        return TP_REJECT(
            TP_ERR_INVALID,
            "--load: expected REQUESTS/S,PROMPT,OUTPUT or REQUESTS/S,PROMPT,OUTPUT,MS such "
            "as 2,1000,200,50, found \"%s\"",
            p->opt->load);
    p->load = (launch_load){
        .requests_per_s = v[0], .prompt = v[1], .output = v[2], .ms_per_token_max = v[3]};
    if (v[1] + v[2] > (double)p->max_model_len)
        return TP_REJECT(
            TP_ERR_INVALID,
            "--load: a prompt and its answer are %.0f tokens, but the longest context is %" PRId64,
            v[1] + v[2], p->max_model_len);
    return TP_OK;
}

static tp_status settle(launch_plan *p, const launch_options *opt)
{
    p->opt = opt;
    TP_TRY(launch_find_model(p->dir, opt));
    if (rt_config_load(&p->config, p->dir) != TP_OK)
        return TP_ERR_EXIT; /* it has been said */
    p->model = launch_roof_model_of(&p->config);
    p->max_model_len = opt->max_model_len > 0 ? opt->max_model_len : p->config.max_position;
    if (p->max_model_len > p->config.max_position)
        return TP_REJECT(TP_ERR_INVALID,
                         "--max-model-len %" PRId64 ": config.json supports %" PRId64 " positions",
                         p->max_model_len, p->config.max_position);
    p->chunk = opt->max_num_batched_tokens > 0 ? (int)opt->max_num_batched_tokens
                                               : RT_DEFAULT_BATCHED_TOKENS;
    p->memory_share = opt->gpu_memory_utilization;
    TP_TRY(settle_formats(p));
    TP_TRY(read_batches(p));
    p->max_seqs = opt->max_num_seqs > 0 ? (int)opt->max_num_seqs : RT_DEFAULT_NUM_SEQS;
    for (int i = 0; i < p->n_batches; i++)
        p->max_seqs = p->batches[i] > p->max_seqs ? p->batches[i] : p->max_seqs;
    p->chunk = p->chunk > p->max_seqs ? p->chunk : p->max_seqs;
    return read_load(p);
}

/* ---- a device ---- */

/* The row with what the options say in its place.  The ranks of a CPU share the host. */
static tp_status settle_gpu(launch_gpu *g, const launch_plan *p, int n_ranks)
{
    const launch_options *o = p->opt;
    bool cpu = strcmp(g->name, "cpu") == 0;

    if (o->memory_gbps > 0)
        g->bandwidth_tbs = o->memory_gbps / 1e3;
    if (o->device_memory > 0)
        g->memory_gb = (double)o->device_memory / 1e9;
    if (o->tflops > 0) {
        g->tflops_16 = o->tflops;
        g->tflops_8 = g->tflops_8 > 0 ? 2 * o->tflops : 0;
    }
    if (!cpu)
        return TP_OK;
    if (g->bandwidth_tbs <= 0)
        return TP_REJECT(TP_ERR_INVALID,
                         "--gpu cpu needs --memory-gbps, the host's memory bandwidth "
                         "(tpserve doctor measures it)");
    if (g->memory_gb <= 0)
        g->memory_gb = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 1e9;
    if (g->tflops_16 <= 0)
        g->tflops_16 = CPU_TFLOPS;
    g->bandwidth_tbs /= n_ranks;
    g->tflops_16 /= n_ranks;
    g->memory_gb /= n_ranks;
    return TP_OK;
}

tp_status launch_plan_fit_on(launch_plan_fit *out, const launch_plan *p, const launch_gpu *gpu,
                             int n_ranks)
{
    rt_model_options mo = {.dtype = p->dtype,
                           .max_tokens_per_step = p->chunk,
                           .max_seqs = p->max_seqs,
                           .max_model_len = p->max_model_len,
                           .block_tokens = RT_DEFAULT_BLOCK_TOKENS};
    launch_plan_fit f = {.c = {.model = p->model,
                               .gpu = *gpu,
                               .n_ranks = n_ranks,
                               .format = p->format,
                               .kv_element_bytes = p->kv_element_bytes,
                               .sum_element_bytes = 4,
                               .embed_sums = 1,
                               .kernels_per_layer = KERNELS_A_LAYER}};
    double share = p->memory_share > 0             ? p->memory_share
                   : strcmp(gpu->name, "cpu") == 0 ? RT_DEFAULT_HOST_SHARE
                                                   : RT_DEFAULT_DEVICE_SHARE;
    double left;
    int64_t workspace;

    TP_TRY(settle_gpu(&f.c.gpu, p, n_ranks));
    TP_TRY(launch_fullest_share(&f.c.share, &p->config, n_ranks));
    TP_TRY(launch_workspace_bytes(&workspace, &p->config, n_ranks, &mo));
    f.workspace = (double)workspace;
    f.usable = share * f.c.gpu.memory_gb * 1e9;
    f.resident = launch_roof_resident(&f.c);
    f.streamed = launch_roof_streamed(&f.c);
    f.kv_per_token = launch_roof_kv_per_token(&f.c);
    left = f.usable - f.resident - f.workspace;
    if (left > 0)
        f.kv_tokens =
            (int64_t)(left / f.kv_per_token / RT_DEFAULT_BLOCK_TOKENS) * RT_DEFAULT_BLOCK_TOKENS;
    if (p->opt->kv_cache_memory_bytes > 0 && left > (double)p->opt->kv_cache_memory_bytes)
        f.kv_tokens = (int64_t)((double)p->opt->kv_cache_memory_bytes / f.kv_per_token);
    f.fits = f.kv_tokens >= p->max_model_len;
    *out = f;
    return TP_OK;
}

/* The smallest of 1, 2, 4, 8 ranks that fits, or --tensor-parallel-size; out->fits tells whether one does. */
static tp_status smallest_fit(launch_plan_fit *out, const launch_plan *p, const launch_gpu *gpu)
{
    if (p->opt->tensor_parallel_size > 0)
        return launch_plan_fit_on(out, p, gpu, (int)p->opt->tensor_parallel_size);
    for (int n = 1; n <= 8; n *= 2) {
        TP_TRY(launch_plan_fit_on(out, p, gpu, n));
        if (out->fits || strcmp(gpu->name, "cpu") == 0)
            return TP_OK;
    }
    return TP_OK;
}

/* ---- answers ---- */

/* One line per device: the fewest ranks that fit. */
static tp_status print_overview(FILE *out, launch_json *j, const launch_plan *p)
{
    if (j != NULL)
        launch_json_open(j, "devices", '[');
    else
        fprintf(out,
                "\nfewest devices that hold the weights and one sequence of %" PRId64
                " tokens; decode at "
                "%" PRId64 " tokens of context (predicted)\n%-10s %5s %14s %11s %9s %13s %13s\n",
                p->max_model_len, p->opt->context, "device", "ranks", "weights/rank", "KV tokens",
                "at once", "ms, batch 1", "ms, batch 32");
    for (int i = 0; i < launch_n_gpus; i++) {
        launch_plan_fit f;

        if (strcmp(launch_gpus[i].name, "cpu") == 0)
            continue;
        TP_TRY(smallest_fit(&f, p, &launch_gpus[i]));
        if (j != NULL) {
            launch_plan_put_fit(j, p, &f);
            continue;
        }
        fprintf(out, "%-10s %5d %11.2f GB ", launch_gpus[i].name, f.c.n_ranks, f.resident / 1e9);
        if (!f.fits) {
            fprintf(out, "does not fit\n");
            continue;
        }
        fprintf(out, "%11" PRId64 " %9.1f %13.2f", f.kv_tokens,
                (double)f.kv_tokens / (double)p->max_model_len,
                launch_roof_decode(&f.c, 1, (double)p->opt->context).total);
        if (f.kv_tokens >= 32 * p->opt->context)
            fprintf(out, " %13.2f\n", launch_roof_decode(&f.c, 32, (double)p->opt->context).total);
        else
            fprintf(out, " %13s\n", "-");
    }
    if (j != NULL)
        launch_json_close(j, ']');
    else
        fputs(
            "\n--gpu NAME [--tensor-parallel-size N] shows one of them in full, with what the numbers rest on.\n",
            out);
    return TP_OK;
}

static void print_model(FILE *out, launch_json *j, const launch_plan *p)
{
    double params = (double)rt_config_params(&p->config);

    if (j != NULL) {
        launch_json_text(j, "model", p->dir);
        launch_json_text(j, "architecture", p->config.architecture);
        launch_json_int(j, "parameters", (int64_t)params);
        launch_json_text(j, "weights", launch_format_name(p->format));
        launch_json_int(j, "max_model_len", p->max_model_len);
        return;
    }
    fprintf(out, "model          %s\n", p->dir);
    fprintf(out, "architecture   %s, %.3f B parameters, %s in the checkpoint\n",
            p->config.architecture, params / 1e9, kern_dtype_name(p->config.dtype));
    fprintf(out, "counted as     %s weights%s, %g-byte KV cache, %" PRId64 " tokens at most\n",
            launch_format_name(p->format),
            p->format >= LAUNCH_FORMAT_FP8 ? " (a what-if: quantised weights cannot be served yet)"
                                           : "",
            p->kv_element_bytes, p->max_model_len);
}

/* The device of --gpu; NULL without the option. */
static tp_status find_gpu(const launch_gpu **out, const launch_options *opt)
{
    const launch_gpu *gpu = opt->gpu != NULL ? launch_find_gpu(opt->gpu) : NULL;
    tp_buf names;
    tp_status st;

    if (gpu != NULL || opt->gpu == NULL) {
        *out = gpu;
        return TP_OK;
    }
    tp_buf_init(&names, 4096);
    for (int i = 0; i < launch_n_gpus; i++)
        tp_buf_printf(&names, " %s", launch_gpus[i].name);
    st = TP_REJECT(TP_ERR_INVALID, "--gpu: \"%s\" is not known; known:%s", opt->gpu,
                   tp_buf_str(&names));
    tp_buf_release(&names);
    return st;
}

static tp_status print_one(launch_json *j, const launch_plan *p, const launch_gpu *gpu, bool *fits)
{
    launch_plan_fit f;

    TP_TRY(smallest_fit(&f, p, gpu));
    *fits = f.kv_tokens > 0;
    if (j != NULL) {
        launch_json_open(j, "devices", '[');
        launch_plan_put_fit(j, p, &f);
        launch_json_close(j, ']');
    } else {
        launch_plan_print_fit(stdout, p, &f);
    }
    return TP_OK;
}

/* j: NULL for text. */
static tp_status answer(launch_json *j, const launch_plan *p, bool *fits)
{
    const launch_gpu *gpu;

    *fits = true;
    TP_TRY(find_gpu(&gpu, p->opt));
    print_model(stdout, j, p);
    if (gpu != NULL)
        TP_TRY(print_one(j, p, gpu, fits));
    else
        TP_TRY(print_overview(stdout, j, p));
    return p->load.requests_per_s > 0 ? launch_plan_load(stdout, j, p, gpu) : TP_OK;
}

int launch_plan_command(const launch_options *opt)
{
    launch_plan *p = tp_calloc(1, sizeof *p);
    launch_json j;
    bool fits = false, printed = true;
    tp_status st;

    if (p == NULL)
        return 1;
    launch_json_init(&j);
    launch_json_open(&j, NULL, '{');
    st = settle(p, opt);
    if (st == TP_OK)
        st = answer(opt->json ? &j : NULL, p, &fits);
    if (st != TP_OK && st != TP_ERR_EXIT)
        tp_error("plan", "%s", tp_last_error());
    launch_json_close(&j, '}');
    if (st == TP_OK && opt->json)
        printed = launch_json_print(&j, stdout);
    tp_buf_release(&j.text);
    tp_free(p);
    return st == TP_OK && fits && printed ? 0 : 1;
}
