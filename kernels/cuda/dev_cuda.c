/* SPDX-License-Identifier: Apache-2.0 */
/* dev_cuda.c - the device by the CUDA runtime: what it is, its memory, streams, events, graphs.
 *
 * The runtime's current device is a property of the thread, so every call enters the device first; the thread-local
 * copy makes that a comparison.  Sticky errors (the context is lost) are kept with their first text, because CUDA gives
 * the same code for every later call and says no more what had happened.
 */
#include "kernels/cuda/dev_cuda.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/module.h"

static _Thread_local int t_current = -1;

/* ---- errors ---- */
static bool is_sticky(cudaError_t e)
{
    static const cudaError_t codes[] = {cudaErrorIllegalAddress,
                                        cudaErrorLaunchFailure,
                                        cudaErrorLaunchTimeout,
                                        cudaErrorECCUncorrectable,
                                        cudaErrorAssert,
                                        cudaErrorHardwareStackError,
                                        cudaErrorIllegalInstruction,
                                        cudaErrorMisalignedAddress,
                                        cudaErrorInvalidAddressSpace,
                                        cudaErrorInvalidPc,
                                        cudaErrorNvlinkUncorrectable,
                                        cudaErrorContextIsDestroyed,
                                        cudaErrorUnknown};

    for (size_t i = 0; i < TP_ARRAY_LEN(codes); i++)
        if (codes[i] == e)
            return true;
    return false;
}

tp_status kern_dev_cuda_fail(kern_dev *d, cudaError_t e, const char *what)
{
    (void)cudaGetLastError(); /* clears it, unless it is sticky */
    if (atomic_load_explicit(&d->failed, memory_order_acquire))
        return TP_REJECT(TP_ERR_DEVICE, "%s", d->error_text);
    if (e == cudaErrorMemoryAllocation)
        return TP_FAIL(TP_ERR_NOMEM,
                       "device %d: %s: %s; lower --gpu-memory-utilization or the "
                       "limits of a step",
                       d->props.ordinal, cudaGetErrorName(e), what);
    if (is_sticky(e)) {
        (void)snprintf(d->error_text, sizeof d->error_text, "device %d (%s): %s: %s (%s)",
                       d->props.ordinal, d->props.pci, cudaGetErrorName(e), cudaGetErrorString(e),
                       what);
        atomic_store_explicit(&d->failed, true,
                              memory_order_release); /* the text is there before */
    }
    return TP_FAIL(TP_ERR_DEVICE, "device %d (%s): %s: %s (%s)", d->props.ordinal, d->props.pci,
                   cudaGetErrorName(e), cudaGetErrorString(e), what);
}

tp_status kern_dev_query_error(kern_dev *d)
{
    if (atomic_load_explicit(&d->failed, memory_order_acquire))
        return TP_REJECT(TP_ERR_DEVICE, "%s", d->error_text);
    return TP_OK;
}

/* ---- devices ---- */
/* Not logged: who asks may have another choice. */
tp_status kern_dev_count(int *n)
{
    int driver = 0, runtime = 0, count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);

    if (e == cudaSuccess || e == cudaErrorNoDevice) {
        *n = e == cudaSuccess ? count : 0;
        return TP_OK;
    }
    (void)cudaGetLastError();
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        return TP_REJECT(TP_ERR_DEVICE,
                         "no NVIDIA driver: libcuda.so.1 was not found or does not answer (%s); "
                         "install the driver, or run the container with access to the GPUs",
                         cudaGetErrorName(e));
    if (driver < runtime && e == cudaErrorInsufficientDriver)
        return TP_REJECT(TP_ERR_DEVICE,
                         "the NVIDIA driver is too old: it supports CUDA %d.%d, this build needs "
                         "%d.%d",
                         driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    return TP_REJECT(TP_ERR_DEVICE, "no usable GPU: %s: %s", cudaGetErrorName(e),
                     cudaGetErrorString(e));
}

void kern_dev_enter(const kern_dev *d)
{
    if (TP_LIKELY(t_current == d->props.ordinal))
        return;
    if (cudaSetDevice(d->props.ordinal) == cudaSuccess) /* else the next call says why */
        t_current = d->props.ordinal;
}

static int attribute(enum cudaDeviceAttr a, int ordinal)
{
    int v = 0;

    return cudaDeviceGetAttribute(&v, a, ordinal) == cudaSuccess ? v : 0;
}

/* Without a context on the device. */
static tp_status describe(kern_dev_props *p, int64_t *memory_free, int ordinal)
{
    struct cudaDeviceProp c;
    kern_dev_nvml nvml;
    char hex[40];
    const unsigned char *u = (const unsigned char *)c.uuid.bytes;
    int n = 0;
    cudaError_t e = cudaGetDeviceProperties(&c, ordinal);

    if (e != cudaSuccess) {
        (void)cudaGetLastError();
        return TP_REJECT(TP_ERR_DEVICE, "device %d: %s: %s", ordinal, cudaGetErrorName(e),
                         cudaGetErrorString(e));
    }
    *p = (kern_dev_props){
        .ordinal = ordinal,
        .cc = c.major * 10 + c.minor,
        .n_sm = c.multiProcessorCount,
        .max_smem_per_block = (int)c.sharedMemPerBlockOptin,
        .clock_mhz = attribute(cudaDevAttrClockRate, ordinal) / 1000,
        .l2_bytes = c.l2CacheSize,
        .memory_bytes = (int64_t)c.totalGlobalMem,
        .memory_gbps = 2e-6 * attribute(cudaDevAttrMemoryClockRate, ordinal) *
                       (attribute(cudaDevAttrGlobalMemoryBusWidth, ordinal) / 8.0),
        .integrated = c.integrated != 0,
    };
    (void)cudaDriverGetVersion(&p->driver);
    (void)cudaRuntimeGetVersion(&p->runtime);
    (void)snprintf(p->name, sizeof p->name, "%.127s", c.name);
    if (cudaDeviceGetPCIBusId(p->pci, sizeof p->pci, ordinal) != cudaSuccess)
        (void)snprintf(p->pci, sizeof p->pci, "unknown");
    for (int i = 0; i < 16; i++)
        n += snprintf(hex + n, sizeof hex - (size_t)n, "%s%02x",
                      i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
    kern_dev_nvml_read(p->pci, hex, &nvml);
    memcpy(p->uuid, nvml.uuid, sizeof p->uuid);
    p->mig = nvml.mig;
    *memory_free = nvml.memory_free;
    return TP_OK;
}

tp_status kern_dev_open(kern_dev **out, int ordinal)
{
    kern_dev *d;
    int64_t memory_free;
    int count;
    tp_status st;

    TP_TRY(kern_dev_count(&count));
    if (ordinal < 0 || ordinal >= count)
        return TP_FAIL(TP_ERR_DEVICE,
                       "there is no CUDA device %d: %d visible; look at CUDA_VISIBLE_DEVICES and "
                       "start fewer ranks per host",
                       ordinal, count);
    d = tp_calloc(1, sizeof *d);
    if (d == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "device %d: no host memory to open it", ordinal);
    st = describe(&d->props, &memory_free, ordinal);
    if (st == TP_OK) {
        cudaError_t e = cudaSetDevice(ordinal); /* makes the context */

        if (e != cudaSuccess)
            st = kern_dev_cuda_fail(d, e, "opening the device");
    }
    if (st != TP_OK) {
        tp_free(d);
        return st;
    }
    t_current = ordinal;
    *out = d;
    return TP_OK;
}

/* The context stays: other handles of this process may use it. */
void kern_dev_close(kern_dev *d)
{
    tp_free(d);
}

const kern_dev_props *kern_dev_get_props(const kern_dev *d)
{
    return &d->props;
}

tp_status kern_dev_memory(kern_dev *d, int64_t *total, int64_t *available)
{
    size_t t, a;

    CUDA_TRY(d, cudaMemGetInfo(&a, &t), "asking for its memory");
    *total = (int64_t)t;
    *available = (int64_t)a;
    return TP_OK;
}

tp_status kern_module_list(kern_device_info *out, int cap, int *n)
{
    int count;

    TP_TRY(kern_dev_count(&count));
    count = count < cap ? count : cap;
    for (int i = 0; i < count; i++) {
        kern_dev_props p;
        int64_t memory_free;

        TP_TRY(describe(&p, &memory_free, i));
        out[i] = (kern_device_info){.ordinal = i,
                                    .cc = p.cc,
                                    .n_sm = p.n_sm,
                                    .driver = p.driver,
                                    .runtime = p.runtime,
                                    .memory_total = p.memory_bytes,
                                    .memory_free = memory_free,
                                    .peers = UINT64_C(1) << i,
                                    .mig = p.mig};
        memcpy(out[i].name, p.name, sizeof out[i].name);
        memcpy(out[i].pci, p.pci, sizeof out[i].pci);
        memcpy(out[i].uuid, p.uuid, sizeof out[i].uuid);
        for (int peer = 0; peer < count && peer < 64; peer++) {
            int can = 0;

            if (peer != i && cudaDeviceCanAccessPeer(&can, i, peer) == cudaSuccess && can != 0)
                out[i].peers |= UINT64_C(1) << peer;
        }
    }
    *n = count;
    return TP_OK;
}

/* ---- memory ---- */
tp_status kern_dev_alloc(kern_dev *d, size_t bytes, void **out)
{
    char what[96];
    void *p = NULL;
    cudaError_t e;

    (void)snprintf(what, sizeof what, "no room for %zu bytes", bytes);
    CUDA_TRY(d, cudaMalloc(&p, bytes != 0 ? bytes : 256), what);
    /* Our streams do not wait for the default one, on which this fill may still be under way when cudaMemset returns. */
    e = cudaMemset(p, 0, bytes);
    if (e == cudaSuccess)
        e = cudaStreamSynchronize(cudaStreamLegacy);
    if (e != cudaSuccess) {
        (void)cudaFree(p);
        return kern_dev_cuda_fail(d, e, "clearing new memory");
    }
    *out = p;
    return TP_OK;
}

void kern_dev_free(kern_dev *d, void *p)
{
    if (p == NULL)
        return;
    kern_dev_enter(d);
    (void)cudaFree(p); /* a lost context has freed it already */
}

tp_status kern_dev_alloc_pinned(kern_dev *d, size_t bytes, void **out)
{
    char what[96];

    (void)snprintf(what, sizeof what, "no host memory for %zu pinned bytes", bytes);
    CUDA_TRY(
        d, cudaHostAlloc(out, bytes != 0 ? bytes : 1, cudaHostAllocPortable | cudaHostAllocMapped),
        what);
    memset(*out, 0, bytes);
    return TP_OK;
}

void kern_dev_free_pinned(kern_dev *d, void *p)
{
    if (p == NULL)
        return;
    kern_dev_enter(d);
    (void)cudaFreeHost(p);
}

static tp_status copy(kern_dev *d, void *dst, const void *src, size_t bytes,
                      enum cudaMemcpyKind kind, kern_stream s)
{
    if (bytes > 0)
        CUDA_TRY(d, cudaMemcpyAsync(dst, src, bytes, kind, s), "copying");
    return TP_OK;
}

tp_status kern_dev_copy_in(kern_dev *d, void *dst, const void *src, size_t bytes, kern_stream s)
{
    return copy(d, dst, src, bytes, cudaMemcpyHostToDevice, s);
}

tp_status kern_dev_copy_out(kern_dev *d, void *dst, const void *src, size_t bytes, kern_stream s)
{
    return copy(d, dst, src, bytes, cudaMemcpyDeviceToHost, s);
}

tp_status kern_dev_copy(kern_dev *d, void *dst, const void *src, size_t bytes, kern_stream s)
{
    return copy(d, dst, src, bytes, cudaMemcpyDeviceToDevice, s);
}

tp_status kern_dev_set(kern_dev *d, void *dst, int byte, size_t bytes, kern_stream s)
{
    if (bytes > 0)
        CUDA_TRY(d, cudaMemsetAsync(dst, byte, bytes, s), "filling memory");
    return TP_OK;
}

/* ---- streams, events ---- */
tp_status kern_dev_stream_create(kern_dev *d, kern_stream *out)
{
    cudaStream_t s;

    CUDA_TRY(d, cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "making a stream");
    *out = s;
    return TP_OK;
}

void kern_dev_stream_destroy(kern_dev *d, kern_stream s)
{
    if (s == NULL)
        return;
    kern_dev_enter(d);
    (void)cudaStreamDestroy(s);
}

tp_status kern_dev_sync(kern_dev *d, kern_stream s)
{
    CUDA_TRY(d, cudaStreamSynchronize(s), "waiting for the stream");
    return TP_OK;
}

/* "Not ready" is no error, but the runtime keeps it as the last one. */
static tp_status answer(kern_dev *d, cudaError_t e, bool *done)
{
    if (e == cudaErrorNotReady) {
        (void)cudaGetLastError();
        *done = false;
        return TP_OK;
    }
    if (e != cudaSuccess)
        return kern_dev_cuda_fail(d, e, "asking whether work is done");
    *done = true;
    return TP_OK;
}

tp_status kern_dev_query(kern_dev *d, kern_stream s, bool *done)
{
    kern_dev_enter(d);
    return answer(d, cudaStreamQuery(s), done);
}

tp_status kern_dev_event_create(kern_dev *d, bool timing, kern_event *out)
{
    cudaEvent_t e;

    CUDA_TRY(d, cudaEventCreateWithFlags(&e, timing ? cudaEventDefault : cudaEventDisableTiming),
             "making an event");
    *out = e;
    return TP_OK;
}

void kern_dev_event_destroy(kern_dev *d, kern_event e)
{
    if (e == NULL)
        return;
    kern_dev_enter(d);
    (void)cudaEventDestroy(e);
}

tp_status kern_dev_event_record(kern_dev *d, kern_event e, kern_stream s)
{
    CUDA_TRY(d, cudaEventRecord(e, s), "recording an event");
    return TP_OK;
}

tp_status kern_dev_event_wait(kern_dev *d, kern_event e)
{
    CUDA_TRY(d, cudaEventSynchronize(e), "waiting for an event");
    return TP_OK;
}

tp_status kern_dev_stream_wait(kern_dev *d, kern_stream s, kern_event e)
{
    CUDA_TRY(d, cudaStreamWaitEvent(s, e, 0), "letting a stream wait");
    return TP_OK;
}

tp_status kern_dev_event_query(kern_dev *d, kern_event e, bool *done)
{
    kern_dev_enter(d);
    return answer(d, cudaEventQuery(e), done);
}

tp_status kern_dev_event_ms(kern_dev *d, kern_event from, kern_event to, float *ms)
{
    CUDA_TRY(d, cudaEventElapsedTime(ms, from, to), "reading the time between events");
    return TP_OK;
}

/* ---- graphs ---- */
struct kern_dev_graph {
    cudaGraphExec_t exec;
};

tp_status kern_dev_graph_begin(kern_dev *d, kern_stream s)
{
    CUDA_TRY(d, cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), "recording a graph");
    return TP_OK;
}

tp_status kern_dev_graph_end(kern_dev *d, kern_stream s, kern_dev_graph **out)
{
    kern_dev_graph *g = tp_calloc(1, sizeof *g);
    cudaGraph_t graph = NULL;
    cudaError_t e;

    kern_dev_enter(d);
    e = cudaStreamEndCapture(s, &graph); /* also without memory: the stream must leave the mode */
    if (e == cudaSuccess && g != NULL)
        e = cudaGraphInstantiate(&g->exec, graph, 0);
    if (graph != NULL)
        (void)cudaGraphDestroy(graph);
    if (e == cudaSuccess && g != NULL)
        e = cudaGraphUpload(g->exec, s);
    if (e != cudaSuccess || g == NULL) {
        kern_dev_graph_destroy(d, g);
        if (e != cudaSuccess)
            return kern_dev_cuda_fail(d, e, "ending the recording of a graph");
        return TP_FAIL(TP_ERR_NOMEM, "device %d: no host memory for a graph", d->props.ordinal);
    }
    *out = g;
    return TP_OK;
}

tp_status kern_dev_graph_launch(kern_dev *d, kern_dev_graph *g, kern_stream s)
{
    CUDA_TRY(d, cudaGraphLaunch(g->exec, s), "launching a graph");
    return TP_OK;
}

void kern_dev_graph_destroy(kern_dev *d, kern_dev_graph *g)
{
    if (g == NULL)
        return;
    kern_dev_enter(d);
    if (g->exec != NULL)
        (void)cudaGraphExecDestroy(g->exec);
    tp_free(g);
}
