/* SPDX-License-Identifier: Apache-2.0 */
/* keys.h - the API keys of a server: from options and file, and whether it needs one. */
#ifndef LAUNCH_KEYS_H
#define LAUNCH_KEYS_H

#include "launcher/options.h"

/* Appends the lines of --api-key-file to the list (copies in `arena`; blank lines and # comments are skipped), and
 * refuses an address that is not loopback without a key unless --insecure. INVALID, IO: text kept. */
TP_MUST_USE tp_status launch_settle_keys(launch_list *keys, tp_arena *arena,
                                         const launch_options *opt);

#endif
