/* SPDX-License-Identifier: Apache-2.0 */
/* emu_stream.h - how the launch of an emulated kernel gets onto an emulated stream (implemented in dev_emu.cpp).
 *
 * run(closure) is called when the stream gets there, which is when somebody waits: never inside this call, except that
 * the stream NULL has no queue and runs at once.  A closure that was recorded in a graph runs once per launch of the
 * graph.  drop(closure) is called once, after the last run, also when it never ran; it may be NULL.
 * Threads: one at a time per stream; streams of different threads may run at the same time.
 */
#ifndef KERN_EMU_STREAM_H
#define KERN_EMU_STREAM_H

#ifdef __cplusplus
extern "C" {
#endif

/* 0, or an error code of CUDA for TP_LAUNCH_STATUS(); the closure was dropped then. */
int emu_stream_enqueue(void *stream, void (*run)(void *closure), void *closure,
                       void (*drop)(void *closure));

#ifdef __cplusplus
}
#endif

#endif
