/* SPDX-License-Identifier: Apache-2.0 */
/* dev_nvml.c - free memory and MIG, without making a context on the device.
 *
 * libnvidia-ml.so.1 comes with the driver; its header does not always come with the toolkit, so the few functions are
 * declared here.  Everything is optional: without the library the answers are "unknown".
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/dev_cuda.h"

typedef struct nvml_device nvml_device;
typedef struct nvml_memory {
    unsigned long long total, free, used;
} nvml_memory;

typedef struct nvml {
    int (*init)(void);
    int (*shutdown)(void);
    int (*by_uuid)(const char *uuid, nvml_device **out);
    int (*by_pci)(const char *pci, nvml_device **out);
    int (*memory)(nvml_device *d, nvml_memory *out);
} nvml;

static bool find(void *library, const char *name, void *fn, size_t bytes)
{
    void *p = dlsym(library, name);

    memcpy(fn, &p, bytes);
    return p != NULL;
}

static bool load(nvml *n)
{
    void *l = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);

    return l != NULL && find(l, "nvmlInit_v2", &n->init, sizeof n->init) &&
           find(l, "nvmlShutdown", &n->shutdown, sizeof n->shutdown) &&
           find(l, "nvmlDeviceGetHandleByUUID", &n->by_uuid, sizeof n->by_uuid) &&
           find(l, "nvmlDeviceGetHandleByPciBusId_v2", &n->by_pci, sizeof n->by_pci) &&
           find(l, "nvmlDeviceGetMemoryInfo", &n->memory, sizeof n->memory) && n->init() == 0;
}

/* CUDA gives the bytes of a UUID only; whether they name a GPU or a part of one is what NVML finds. */
void kern_dev_nvml_read(const char *pci, const char *uuid_hex, kern_dev_nvml *out)
{
    nvml n;
    nvml_device *d = NULL;
    nvml_memory memory;

    out->memory_free = -1;
    out->mig = false;
    (void)snprintf(out->uuid, sizeof out->uuid, "GPU-%s", uuid_hex);
    if (!load(&n))
        return;
    if (n.by_uuid(out->uuid, &d) != 0) {
        char mig[64];

        (void)snprintf(mig, sizeof mig, "MIG-%.59s", uuid_hex);
        if (n.by_uuid(mig, &d) == 0) {
            out->mig = true;
            memcpy(out->uuid, mig, sizeof mig);
        } else if (n.by_pci(pci, &d) != 0) {
            d = NULL;
        }
    }
    if (d != NULL && n.memory(d, &memory) == 0)
        out->memory_free = (int64_t)memory.free;
    (void)n.shutdown();
}
