#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# nvcc.sh LOG COMMAND... - runs nvcc and keeps what it says, which is shown only when it fails.
log=$1
shift
if ! "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    exit 1
fi
