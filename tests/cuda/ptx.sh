#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ptx.sh PROGRAM DIR GOLDEN - runs test_ptx in two orders of its threads, compares both with each other, and with what a
# real GPU said (the file GOLDEN), where that has been recorded.
program=$1 dir=$2 golden=$3
EMU_SCHED=forward "$program" write "$dir/ptx_forward.bin" || exit 1
EMU_SCHED=random EMU_SEED=3 "$program" write "$dir/ptx_random.bin" || exit 1
cmp "$dir/ptx_forward.bin" "$dir/ptx_random.bin" || exit 1
if [ -e "$golden" ]; then
    "$program" compare "$dir/ptx_forward.bin" "$golden" || exit 1
    echo "ptx: as on the GPU"
else
    "$program" compare "$dir/ptx_forward.bin" "$dir/ptx_random.bin" || exit 1
    echo "ptx: 1 comparison skipped: no $(basename "$golden"), the results of a real GPU"
fi
