/* SPDX-License-Identifier: Apache-2.0 */
/* test_ptx.cu - every wrapper of ptx.cuh, and what else crosses lanes or rounds, on fixed inputs; one source for nvcc and
 * the emulated device.
 *
 *     test_ptx write FILE        runs everything and writes the results
 *     test_ptx compare A B       compares two such files; ends with 1 where they differ by more than they may
 *
 * The results of a real GPU, kept as tests/data/ptx_golden.bin, are what the emulated device is held to: all else in the
 * emulator is our reading of the manual.
 *
 * A file is a list of records: a line "name kind n", then n words of 32 bits.  Kinds: `bits` must be equal; `float` may
 * differ by 2^-20 of the value (NaN equals NaN); `sum` may differ by 2^-19 of the word in the record that follows, which
 * is the sum of the magnitudes that were added.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/ptx.cuh"

/* ---- memory that both sides see ---- */

#ifdef __CUDACC__
static void *shared_alloc(size_t bytes)
{
    void *p = NULL;
    if (cudaMallocManaged(&p, bytes) != cudaSuccess) {
        fprintf(stderr, "cudaMallocManaged: %s\n", cudaGetErrorString(cudaGetLastError()));
        exit(2);
    }
    return p;
}
static void shared_free(void *p)
{
    cudaFree(p);
}
static void wait_for_kernels()
{
    cudaError_t e = cudaDeviceSynchronize();
    if (e != cudaSuccess) {
        fprintf(stderr, "kernel: %s\n", cudaGetErrorString(e));
        exit(2);
    }
}
#else
static void *shared_alloc(size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 256, bytes))
        exit(2);
    return p;
}
static void shared_free(void *p)
{
    free(p);
}
static void wait_for_kernels() {}
#endif

template <class T> static T *make(size_t n)
{
    T *p = (T *)shared_alloc(n * sizeof(T));
    memset((void *)p, 0, n * sizeof(T));
    return p;
}

/* ---- inputs ---- */

static uint64_t random_state = 0x243f6a8885a308d3u;

static uint32_t random_word()
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    uint32_t x = (uint32_t)(random_state >> 33 ^ random_state >> 13);
    return x ^ x << 7;
}

/* Magnitudes from 2^-8 to 2^8, as the 16 bits of a format with m bits of mantissa. */
static uint16_t random_number(int m)
{
    uint32_t bias = m == 7 ? 127 : 15;
    uint32_t exponent = bias - 8 + random_word() % 16;
    return (uint16_t)(exponent << m | (random_word() & ((1u << m) - 1)) |
                      (random_word() & 1) << 15);
}

static double worth(uint16_t bits, int m)
{
    int exponent = bits >> m & ((1 << (15 - m)) - 1), bias = m == 7 ? 127 : 15;
    double magnitude = ldexp((bits & ((1 << m) - 1)) + (1 << m), exponent - bias - m);
    return bits & 0x8000 ? -magnitude : magnitude;
}

/* ---- the file ---- */

static FILE *out;

static void record(const char *name, const char *kind, const void *words, int n)
{
    fprintf(out, "%s %s %d\n", name, kind, n);
    if (fwrite(words, 4, (size_t)n, out) != (size_t)n)
        exit(2);
}

/* ---- mma ---- */

enum { WARPS = 16 };

/* Registers as they are: [warp][lane][4], [warp][lane][2], [warp][lane][4]. */
template <bool BF16> TP_KERNEL(32) run_mma(float *d, const uint32_t *a, const uint32_t *b)
{
    size_t i = (size_t)blockIdx.x * 32 + threadIdx.x;
    uint32_t ra[4], rb[2];
    float rd[4];
    for (int j = 0; j < 4; j++) {
        ra[j] = a[i * 4 + j];
        rd[j] = d[i * 4 + j];
    }
    for (int j = 0; j < 2; j++)
        rb[j] = b[i * 2 + j];
    if (BF16)
        tp_mma_bf16(rd, ra, rb);
    else
        tp_mma_f16(rd, ra, rb);
    for (int j = 0; j < 4; j++)
        d[i * 4 + j] = rd[j];
}

/* For element j of a lane's d: |d| + sum of |a| |b| over its row and column, out of the registers of the warp. */
static float magnitude(const uint32_t *a, const uint32_t *b, const float *d, int lane, int j, int m)
{
    int row = lane / 4 + 8 * (j / 2), column = 2 * (lane % 4) + j % 2;
    double sum = fabs((double)d[lane * 4 + j]);
    for (int k = 0; k < 16; k++) {
        uint32_t wa = a[(row % 8 * 4 + k % 8 / 2) * 4 + row / 8 + 2 * (k / 8)];
        uint32_t wb = b[(column * 4 + k % 8 / 2) * 2 + k / 8];
        sum += fabs(worth((uint16_t)(wa >> 16 * (k % 2)), m) *
                    worth((uint16_t)(wb >> 16 * (k % 2)), m));
    }
    return (float)sum;
}

template <bool BF16> static void mma(const char *name)
{
    const int m = BF16 ? 7 : 10, n = WARPS * 32;
    uint32_t *a = make<uint32_t>(n * 4), *b = make<uint32_t>(n * 2);
    float *d = make<float>(n * 4), *scale = make<float>(n * 4);
    for (int i = 0; i < n * 4; i++) {
        a[i] = random_number(m) | (uint32_t)random_number(m) << 16;
        d[i] = (float)worth(random_number(m), m);
    }
    for (int i = 0; i < n * 2; i++)
        b[i] = random_number(m) | (uint32_t)random_number(m) << 16;
    for (int i = 0; i < n * 4; i++) {
        int w = i / 128;
        scale[i] = magnitude(a + w * 128, b + w * 64, d + w * 128, i / 4 % 32, i % 4, m);
    }
    TP_LAUNCH((run_mma<BF16>), WARPS, 32, 0, NULL, d, a, b);
    wait_for_kernels();
    record(name, "sum", d, n * 4);
    record("magnitudes", "bits", scale, n * 4);
    shared_free(a);
    shared_free(b);
    shared_free(d);
    shared_free(scale);
}

/* ---- ldmatrix, cp.async, loads ---- */

TP_KERNEL(32) run_ldmatrix(uint32_t *d, const uint32_t *in, const uint32_t *rows)
{
    TP_DYN_SMEM(uint32_t, s);
    int lane = (int)threadIdx.x;
    for (int i = lane; i < 64 * 4; i += 32)
        s[i] = in[i];
    __syncwarp();
    uint32_t r[8];
    tp_ldmatrix_x4(r, s + rows[lane] * 4);
    tp_ldmatrix_x4_trans(r + 4, s + rows[lane] * 4);
    for (int j = 0; j < 8; j++)
        d[lane * 8 + j] = r[j];
}

TP_KERNEL(64) run_cp_async(uint32_t *d, const uint32_t *in)
{
    TP_DYN_SMEM(uint32_t, s);
    int t = (int)threadIdx.x;
    uint32_t sum = 0;
    for (int i = 0; i < 4; i++) {
        tp_cp_async16(s + (i * 64 + t) * 4, in + (i * 64 + (t ^ i)) * 4, (t + i) % 3 != 0);
        tp_cp_async_commit();
    }
    tp_cp_async_wait<2>();
    __syncthreads();
    for (int i = 0; i < 8; i++)
        sum = sum * 31 + s[(i / 4 * 64 + 63 - t) * 4 + i % 4];
    tp_cp_async_wait<0>();
    __syncthreads();
    for (int i = 8; i < 16; i++)
        sum = sum * 31 + s[(i / 4 * 64 + 63 - t) * 4 + i % 4];
    d[t] = sum;
}

TP_KERNEL(32) run_loads(uint32_t *d, const uint32_t *in, uint32_t *word)
{
    int lane = (int)threadIdx.x;
    tp_grid_wait();
    uint4 v = tp_ld_once(in + lane * 4);
    d[lane * 4] = v.x, d[lane * 4 + 1] = v.y, d[lane * 4 + 2] = v.z, d[lane * 4 + 3] = v.w;
    tp_st_release_sys(word + lane, (uint32_t)lane * 3 + 1);
    d[128 + lane] = tp_ld_acquire_sys(word + lane);
    uint64_t before = tp_global_ns();
    d[160 + lane] = tp_global_ns() >= before;
    tp_grid_trigger();
}

static void memory()
{
    enum { N = 64 * 4 * 4 };
    uint32_t *in = make<uint32_t>(N), *rows = make<uint32_t>(32), *d = make<uint32_t>(256);
    for (int i = 0; i < N; i++)
        in[i] = random_word();
    for (int i = 0; i < 32; i++)
        rows[i] = random_word() % 64;
    TP_LAUNCH(run_ldmatrix, 1, 32, 64 * 16, NULL, d, in, rows);
    wait_for_kernels();
    record("ldmatrix", "bits", d, 256);
    TP_LAUNCH(run_cp_async, 1, 64, N * 4, NULL, d, in);
    wait_for_kernels();
    record("cp_async", "bits", d, 64);
    TP_LAUNCH(run_loads, 1, 32, 0, NULL, d, in, rows);
    wait_for_kernels();
    record("loads", "bits", d, 192);
    shared_free(in);
    shared_free(rows);
    shared_free(d);
}

/* ---- what crosses lanes ---- */

TP_KERNEL(32) run_lanes(uint32_t *d, const uint32_t *in, int arg, int width)
{
    int lane = (int)threadIdx.x;
    uint32_t v = in[lane];
    float f = (float)(v & 0xffff);
    d[lane] = __shfl_sync(TP_WARP_ALL, v, arg, width);
    d[32 + lane] = __shfl_down_sync(TP_WARP_ALL, v, (unsigned)arg, width);
    d[64 + lane] = __shfl_xor_sync(TP_WARP_ALL, v, arg, width);
    d[96 + lane] = __float_as_uint(__shfl_sync(TP_WARP_ALL, f, lane * 5 + arg, width));
    d[128 + lane] = __ballot_sync(TP_WARP_ALL, (int)(v >> arg & 1));
    d[160 + lane] = (uint32_t)(__any_sync(TP_WARP_ALL, v % 64 == 0) != 0);
    d[192 + lane] = lane < 16 ? __shfl_xor_sync(0xffffu, v, arg & 15) : v;
    d[224 + lane] = (uint32_t)(__popc(v) + 100 * __clz((int)v) + 10000 * __ffs((int)v));
}

static void lanes()
{
    uint32_t *in = make<uint32_t>(32), *d = make<uint32_t>(256);
    for (int i = 0; i < 32; i++)
        in[i] = random_word();
    for (int width = 8; width <= 32; width *= 2)
        for (int arg = 0; arg < 32; arg += 5) {
            TP_LAUNCH(run_lanes, 1, 32, 0, NULL, d, in, arg, width);
            wait_for_kernels();
            record("lanes", "bits", d, 256);
        }
    shared_free(in);
    shared_free(d);
}

/* ---- what rounds ---- */

enum { N_FLOATS = 2048 };

TP_KERNEL(256) run_conversions(uint32_t *narrow, float *wide, float *fast, const float *in)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    __nv_bfloat16 b = __float2bfloat16(in[i]);
    __half h = __float2half(in[i]);
    narrow[i] = (uint32_t)__bfloat16_as_ushort(b) | (uint32_t)__half_as_ushort(h) << 16;
    wide[2 * i] = __bfloat162float(b);
    wide[2 * i + 1] = __half2float(h);
    float x = in[i];
    fast[4 * i] = tp_exp2(x);
    fast[4 * i + 1] = fabsf(x) < 80.0f ? __expf(x) : 0.0f;
    fast[4 * i + 2] = x > 0x1p-120f ? rsqrtf(x) : 0.0f;
    fast[4 * i + 3] = tp_exp2(-fabsf(x));
}

static void conversions()
{
    static const float edges[] = {
        0.0f,     -0.0f,    1.0f,     INFINITY,   -INFINITY, NAN,       65504.0f,   65519.9f,
        65520.0f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f, 0x1p-14f,  0x1p-133f, 0x1.8p127f, 0x1.fep127f,
        127.9f,   -126.5f,  -149.0f,  128.0f,     0x1p-126f, 0x1p-127f};
    const int n_edges = (int)(sizeof(edges) / sizeof(edges[0]));
    float *in = make<float>(N_FLOATS), *wide = make<float>(2 * N_FLOATS);
    float *fast = make<float>(4 * N_FLOATS);
    uint32_t *narrow = make<uint32_t>(N_FLOATS);
    for (int i = 0; i < N_FLOATS; i++) {
        uint32_t bits = random_word(); /* a third anywhere, the rest where halves are */
        if (i % 3)
            bits = (bits & 0x807fffffu) | (100 + random_word() % 45) << 23;
        if (i % 3 == 2)
            bits = (bits & 0xffff0000u) | 0x8000u; /* ties of BF16 */
        memcpy(&in[i], &bits, 4);
        if (i < n_edges)
            in[i] = edges[i];
    }
    TP_LAUNCH(run_conversions, N_FLOATS / 256, 256, 0, NULL, narrow, wide, fast, in);
    wait_for_kernels();
    record("to_16_bits", "bits", narrow, N_FLOATS);
    record("to_float", "float", wide, 2 * N_FLOATS);
    record("fast", "float", fast, 4 * N_FLOATS);
    shared_free(in);
    shared_free(wide);
    shared_free(fast);
    shared_free(narrow);
}

/* ---- comparing ---- */

struct entry {
    char name[64], kind[16];
    int n;
    uint32_t *words;
};

static bool read_entry(FILE *f, entry *e)
{
    if (fscanf(f, "%63s %15s %d", e->name, e->kind, &e->n) != 3 || fgetc(f) != '\n' || e->n < 0 ||
        e->n > 1 << 20)
        return false;
    e->words = (uint32_t *)calloc((size_t)e->n + 1, 4);
    return e->words && fread(e->words, 4, (size_t)e->n, f) == (size_t)e->n;
}

static double value(uint32_t word)
{
    float f;
    memcpy(&f, &word, 4);
    return (double)f;
}

/* How far two words are apart, in units of what is allowed: up to 1 is fine. */
static double distance(const char *kind, uint32_t a, uint32_t b, uint32_t scale)
{
    if (a == b)
        return 0;
    double x = value(a), y = value(b);
    if (strcmp(kind, "float") == 0) {
        if (isnan(x) || isnan(y))
            return isnan(x) && isnan(y) ? 0 : INFINITY;
        return fabs(x - y) / (fmax(fabs(x), fabs(y)) * 0x1p-20);
    }
    if (strcmp(kind, "sum") == 0)
        return fabs(x - y) / (value(scale) * 0x1p-19);
    return INFINITY;
}

/* Reports one pair of records; `next` follows a. */
static bool compare_entries(const entry *a, const entry *b, const entry *next)
{
    double worst = 0;
    int at = 0;
    for (int i = 0; i < a->n; i++) {
        uint32_t scale = next && next->n == a->n ? next->words[i] : 0;
        double d = distance(a->kind, a->words[i], b->words[i], scale);
        if (!(d <= worst)) {
            worst = d;
            at = i;
        }
    }
    bool fine = worst <= 1;
    if (!fine || strcmp(a->kind, "bits") != 0)
        printf("%-12s %-6s %6d words, worst %.3g of what is allowed, at %d: %08x %08x%s\n", a->name,
               a->kind, a->n, worst, at, a->words[at], b->words[at], fine ? "" : "  DIFFERENT");
    return fine;
}

enum { ENTRIES_MAX = 64 };

static int read_file(const char *path, entry *entries)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(2);
    }
    int n = 0;
    while (n < ENTRIES_MAX && read_entry(f, &entries[n]))
        n++;
    fclose(f);
    return n;
}

static int compare(const char *path_a, const char *path_b)
{
    static entry a[ENTRIES_MAX], b[ENTRIES_MAX];
    int n = read_file(path_a, a), n_b = read_file(path_b, b), different = 0;
    if (n != n_b || n == 0) {
        printf("%s has %d records, %s has %d\n", path_a, n, path_b, n_b);
        return 1;
    }
    for (int i = 0; i < n; i++) {
        if (strcmp(a[i].name, b[i].name) != 0 || a[i].n != b[i].n) {
            printf("record %d: %s[%d] and %s[%d]\n", i, a[i].name, a[i].n, b[i].name, b[i].n);
            return 1;
        }
        different += !compare_entries(&a[i], &b[i], i + 1 < n ? &a[i + 1] : NULL);
    }
    for (int i = 0; i < n; i++) {
        free(a[i].words);
        free(b[i].words);
    }
    printf("%d records, %d different\n", n, different);
    return different != 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "compare") == 0)
        return compare(argv[2], argv[3]);
    if (argc != 3 || strcmp(argv[1], "write") != 0) {
        fprintf(stderr, "usage: test_ptx write FILE | compare A B\n");
        return 2;
    }
    out = fopen(argv[2], "wb");
    if (!out) {
        perror(argv[2]);
        return 2;
    }
    mma<true>("mma_bf16");
    mma<false>("mma_f16");
    memory();
    lanes();
    conversions();
    int status = TP_LAUNCH_STATUS();
    if (status)
        fprintf(stderr, "launch: %s\n", TP_LAUNCH_ERROR_NAME(status));
    return fclose(out) || status;
}
