/* SPDX-License-Identifier: Apache-2.0 */
/* boot.h - inside comm: the end of the process, which boot.c knows how to bring about. */
#ifndef COMM_BOOT_H
#define COMM_BOOT_H

#include "base/status.h"

/* Ends every rank of the job: MPI_Abort when MPI runs, else _exit.  Any thread. */
TP_NORETURN void comm_boot_abort(int exit_code);

#endif
