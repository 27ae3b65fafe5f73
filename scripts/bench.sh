#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bench.sh BUILD - runs every benchmark program and prints the machine first: numbers mean nothing without it.
set -eu

build=$1
lscpu | grep -E '^(Model name|CPU\(s\)|Thread|Core|NUMA node\(s\)|L3)' || true
found=0
for program in "$build"/tests/bench/bench_* "$build"/tests/kernels/bench_*; do
    [ -f "$program" ] && [ -x "$program" ] || continue
    found=1
    echo
    echo "== $(basename "$program")"
    case $program in
    # any checkpoint: the larger, the truer
    */bench_load | */bench_engine | */bench_prefix | */bench_model) "$program" "${BENCH_MODEL:-models/demo}" ;;
    *) "$program" ;;
    esac
done
[ "$found" -eq 1 ] || echo "no benchmark programs in $build"
