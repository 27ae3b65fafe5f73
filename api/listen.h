/* SPDX-License-Identifier: Apache-2.0 */
/* listen.h - the listening socket, and how many connections the limit of open files leaves room for. */
#ifndef API_LISTEN_H
#define API_LISTEN_H

#include "base/status.h"

/* Binds and listens; what is set on the socket holds for every connection that it accepts.  IO, logged with what to
 * change, when the address cannot be had. */
TP_MUST_USE tp_status api_listen_open(const char *host, int port, int *out_fd, int *out_port);
/* Raises the limit of open files as far as the system lets us; returns how many connections fit, at least a few. */
int api_listen_files_left(void);

#endif
