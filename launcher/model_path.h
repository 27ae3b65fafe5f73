/* SPDX-License-Identifier: Apache-2.0 */
/* model_path.h - which directory a --model names. */
#ifndef LAUNCH_MODEL_PATH_H
#define LAUNCH_MODEL_PATH_H

#include "launcher/options.h"

#define LAUNCH_PATH_MAX 4096

/* INVALID (text kept) when none was given. */
TP_MUST_USE tp_status launch_need_model(const launch_options *opt);

/* In this order: a directory with a config.json; an alias of a --model-path directory (its aliases.yaml, then a
 * subdirectory of that name); the models beside the program; a Hub id or alias of one in the local Hugging Face cache
 * (HF_HUB_CACHE, HF_HOME, ~/.cache/huggingface).  The network is never asked.
 * NOT_FOUND (text kept) lists every place that was searched. */
TP_MUST_USE tp_status launch_find_model(char out[LAUNCH_PATH_MAX], const launch_options *opt);

#endif
