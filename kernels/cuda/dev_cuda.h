/* SPDX-License-Identifier: Apache-2.0 */
/* dev_cuda.h - the inside of the CUDA device; private to dev_*.c. */
#ifndef KERN_DEV_CUDA_H
#define KERN_DEV_CUDA_H

#include <stdatomic.h>

#include <cuda_runtime_api.h>

#include "kernels/cuda/dev.h"

struct kern_dev {
    kern_dev_props props;
    atomic_bool failed;   /* error_text is final */
    char error_text[320]; /* of the first sticky error */
};

/* Turns an error of the runtime into a status; logs, and keeps the text of a sticky one. */
tp_status kern_dev_cuda_fail(kern_dev *d, cudaError_t e, const char *what);

/* Enters the device and calls; `what` says what was being done. */
#define CUDA_TRY(d, expr, what)                                                                    \
    do {                                                                                           \
        cudaError_t cuda_try_e_;                                                                   \
                                                                                                   \
        kern_dev_enter(d);                                                                         \
        cuda_try_e_ = (expr);                                                                      \
        if (TP_UNLIKELY(cuda_try_e_ != cudaSuccess))                                               \
            return kern_dev_cuda_fail((d), cuda_try_e_, (what));                                   \
    } while (0)

/* What NVML knows and the runtime does not, where libnvidia-ml.so.1 is there. */
typedef struct kern_dev_nvml {
    int64_t memory_free; /* -1: unknown */
    bool mig;
    char uuid[64]; /* as nvidia-smi prints it */
} kern_dev_nvml;

void kern_dev_nvml_read(const char *pci, const char *uuid_hex, kern_dev_nvml *out);

#endif
