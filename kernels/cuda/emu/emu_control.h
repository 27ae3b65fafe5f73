/* SPDX-License-Identifier: Apache-2.0 */
/* emu_control.h - the emulator seen from outside of kernels: schedule, limits, reports, counters.
 *
 * The environment sets the defaults, read once:
 *   EMU_SCHED   forward (default), reverse or random: the order of blocks, threads and wake-ups
 *   EMU_SEED    seed of the random order (default 1)
 *   EMU_FRESH   1: every block has new threads, so that TSan finds races between blocks; slow
 *   EMU_GRID_WAIT  1: a thread that leaves a kernel without tp_grid_wait() is a defect (programmatic launches)
 *   EMU_HANG_S  seconds after which a kernel whose threads only spin is reported (default 120; 0 = never)
 * Threads: the settings are global; set them while no kernel runs.
 */
#ifndef KERN_EMU_CONTROL_H
#define KERN_EMU_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Error codes of CUDA that a launch can get here; emu_error_name() knows them. */
enum {
    EMU_OK = 0,
    EMU_ERROR_INVALID_VALUE = 1,
    EMU_ERROR_MEMORY = 2,
    EMU_ERROR_INVALID_CONFIGURATION = 9,
    EMU_ERROR_RESOURCES = 701, /* more threads than the kernel was compiled for */
};
const char *emu_error_name(int error);

typedef enum emu_schedule {
    EMU_SCHED_FORWARD,
    EMU_SCHED_REVERSE,
    EMU_SCHED_RANDOM,
} emu_schedule;

void emu_set_schedule(emu_schedule schedule, uint64_t seed);
void emu_set_hang_seconds(double seconds);
/* As EMU_GRID_WAIT; opening an emulated device sets it. */
void emu_require_grid_wait(bool on);
/* What a block may have on the emulated architecture (default 227 KiB, as sm_90). */
void emu_set_smem_limit(size_t bytes);

/* A defect in a kernel: `text` says what, where and in which threads.  The process ends when the handler returns;
 * NULL: the text goes to stderr. */
typedef void (*emu_report_handler)(const char *text);
void emu_set_report_handler(emu_report_handler handler);

typedef struct emu_counters {
    int64_t launches, blocks, switches;
    int64_t ldmatrix,
        ldmatrix_wavefronts; /* instructions; passes over the banks that they need (4 per x4 at best) */
    int64_t mma;
} emu_counters;

/* Those of this OS thread since the last call. */
void emu_take_counters(emu_counters *out);

#ifdef __cplusplus
}
#endif

#endif
