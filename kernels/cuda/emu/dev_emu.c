/* SPDX-License-Identifier: Apache-2.0 */
/* dev_emu.c - opening emulated devices, what they say about themselves, and their errors.
 *
 * Fault points (base/fault.h): "dev.open" no such device, "dev.sticky" the next work that runs hits an illegal
 * address, "dev.hang" it never ends.
 */
#include "kernels/cuda/emu/dev_emu.h"

#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/mem.h"
#include "kernels/cuda/emu/emu_control.h"
#include "kernels/module.h"

#define CUDA_VERSION_PLAYED 13000
#define SMEM_OPTIN_BYTES    (227 * 1024)
#define L2_BYTES            (50 << 20)

static const emu_machine DEFAULT_MACHINE = {.n_devices = 8,
                                            .cc = 90,
                                            .n_sm = 132,
                                            .memory_bytes = INT64_C(4) << 30};
static emu_machine g_machine = {.n_devices = 8,
                                .cc = 90,
                                .n_sm = 132,
                                .memory_bytes = INT64_C(4) << 30};

void emu_set_machine(const emu_machine *m)
{
    g_machine = m != NULL ? *m : DEFAULT_MACHINE;
}

const emu_machine *emu_get_machine(void)
{
    return &g_machine;
}

tp_status emu_fail(const kern_dev *d, const char *cuda_name, const char *what)
{
    return TP_FAIL(TP_ERR_DEVICE, "device %d: %s: %s", d->props.ordinal, cuda_name, what);
}

void emu_fail_for_good(kern_dev *d, const char *cuda_name, const char *what)
{
    if (atomic_load_explicit(&d->failed, memory_order_relaxed))
        return;
    (void)snprintf(d->error_text, sizeof d->error_text, "device %d: %s: %s", d->props.ordinal,
                   cuda_name, what);
    (void)TP_FAIL(TP_ERR_DEVICE, "%s", d->error_text);
    atomic_store_explicit(&d->failed, true, memory_order_release); /* the text is there before */
}

tp_status emu_usable(kern_dev *d)
{
    if (TP_UNLIKELY(atomic_load_explicit(&d->failed, memory_order_acquire)))
        return TP_REJECT(TP_ERR_DEVICE, "%s", d->error_text);
    return TP_OK;
}

tp_status kern_dev_query_error(kern_dev *d)
{
    return emu_usable(d);
}

tp_status kern_dev_count(int *n)
{
    *n = g_machine.n_devices;
    return TP_OK;
}

static void describe(kern_dev_props *p, int ordinal)
{
    *p = (kern_dev_props){.ordinal = ordinal,
                          .cc = g_machine.cc,
                          .n_sm = g_machine.n_sm,
                          .max_smem_per_block = SMEM_OPTIN_BYTES,
                          .driver = CUDA_VERSION_PLAYED,
                          .runtime = CUDA_VERSION_PLAYED,
                          .l2_bytes = L2_BYTES,
                          .memory_bytes = g_machine.memory_bytes};
    (void)snprintf(p->name, sizeof p->name, "emulated device (sm_%d)", g_machine.cc);
    (void)snprintf(p->pci, sizeof p->pci, "0000:%02x:00.0", ordinal);
    (void)snprintf(p->uuid, sizeof p->uuid, "EMU-%d", ordinal);
}

tp_status kern_dev_open(kern_dev **out, int ordinal)
{
    kern_dev *d;

    if (ordinal < 0 || ordinal >= g_machine.n_devices || tp_fault_hit("dev.open"))
        return TP_FAIL(TP_ERR_DEVICE,
                       "cudaErrorInvalidDevice: there is no emulated device %d, only 0 to %d",
                       ordinal, g_machine.n_devices - 1);
    d = tp_calloc(1, sizeof *d);
    if (d == NULL)
        return TP_FAIL(TP_ERR_NOMEM, "device %d: no host memory to open it", ordinal);
    describe(&d->props, ordinal);
    emu_require_grid_wait(true); /* the kernels of this device may be launched programmatically */
    *out = d;
    return TP_OK;
}

void kern_dev_close(kern_dev *d)
{
    if (d == NULL)
        return;
    emu_streams_destroy(d);
    tp_free(d);
}

const kern_dev_props *kern_dev_get_props(const kern_dev *d)
{
    return &d->props;
}

void kern_dev_enter(const kern_dev *d)
{
    (void)d;
}

tp_status kern_module_list(kern_device_info *out, int cap, int *n)
{
    for (int i = 0; i < g_machine.n_devices && i < cap; i++) {
        kern_dev_props p;

        describe(&p, i);
        out[i] = (kern_device_info){.ordinal = i,
                                    .cc = p.cc,
                                    .n_sm = p.n_sm,
                                    .driver = p.driver,
                                    .runtime = p.runtime,
                                    .memory_total = p.memory_bytes,
                                    .memory_free = p.memory_bytes,
                                    .peers = (UINT64_C(1) << g_machine.n_devices) - 1};
        memcpy(out[i].name, p.name, sizeof out[i].name);
        memcpy(out[i].pci, p.pci, sizeof out[i].pci);
        memcpy(out[i].uuid, p.uuid, sizeof out[i].uuid);
    }
    *n = g_machine.n_devices < cap ? g_machine.n_devices : cap;
    return TP_OK;
}
