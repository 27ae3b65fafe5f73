#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh [--quick] [--bench-only | --test-only] - everything that needs a real GPU, the most valuable first.
#
# Each stage has its own time limit, and what it found is kept when a later one is cut off: JSON lines in
# $OUT/results.jsonl (default build/gpu), one log per stage, and a table at the end (summary.py).
# Environment: BUILD (a build folder with the CUDA module, default build), OUT, SMOKE=1 (the emulated device stands in:
# shows that this script works; its figures mean nothing).
set -u

build=${BUILD:-build}
out=${OUT:-build/gpu}
here=$(dirname "$0")
quick=0 tests=1 benches=1
for arg in "$@"; do
    case $arg in
    --quick) quick=1 ;;
    --bench-only) tests=0 ;;
    --test-only) benches=0 ;;
    *) echo "run.sh: unknown argument \"$arg\"" >&2; exit 2 ;;
    esac
done
mkdir -p "$out"
results=$out/results.jsonl
: >"$results"

if [ -n "${SMOKE:-}" ]; then
    bench="$build/tests/gpu/bench_gpu_emu --smoke"
    device=emu
else
    bench=$build/tests/gpu/bench_gpu
    device=cuda
fi

# stage NAME SECONDS COMMAND...: JSON lines of its output are results, all of it is a log.
stage() {
    name=$1 limit=$2
    shift 2
    start=$(date +%s)
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1
    rc=$?
    took=$(($(date +%s) - start))
    grep '^{' "$out/$name.log" | sed "s/^{/{\"stage\": \"$name\", /" >>"$results"
    echo "{\"stage\": \"$name\", \"op\": \"stage\", \"rc\": $rc, \"seconds\": $took}" >>"$results"
    echo "== $name: $([ $rc -eq 0 ] && echo ok || echo "FAILED ($rc)"), $took s"
    [ $rc -eq 0 ] || tail -3 "$out/$name.log"
}

tests_of() {
    stage "$1" "$2" ctest --test-dir "$build" -L "$3" --output-on-failure
}

command -v nvidia-smi >/dev/null 2>&1 &&
    stage driver 20 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem --format=csv
[ $benches -eq 1 ] && stage limits 60 sh -c "$bench limits"
if [ $tests -eq 1 ]; then
    # what the hardware answers to every wrapper of ptx.cuh: kept, the emulator is held to it from then on
    [ -x "$build/tests/cuda/test_ptx_cuda" ] && stage ptx 60 "$build/tests/cuda/test_ptx_cuda" write "$out/ptx.bin"
    [ -z "${SMOKE:-}" ] && tests_of kernels-on-gpu 240 gpu
fi
if [ $benches -eq 1 ]; then
    stage gemm 150 sh -c "$bench gemm"
    stage decode 90 sh -c "$bench decode"
    stage prefill 60 sh -c "$bench prefill"
    stage step 60 sh -c "$bench step"
    [ $quick -eq 1 ] || stage small 30 sh -c "$bench small"
    [ $quick -eq 1 ] || stage sample 30 sh -c "$bench sample"
fi
if [ $tests -eq 1 ] && [ -x "$build/tpserve" ]; then
    stage doctor 60 "$build/tpserve" doctor --device "$device"
fi
if [ $tests -eq 1 ] && [ $quick -eq 0 ] && command -v compute-sanitizer >/dev/null 2>&1; then
    stage memcheck 120 compute-sanitizer --error-exitcode 1 sh -c "$bench --smoke"
    stage racecheck 120 compute-sanitizer --tool racecheck --error-exitcode 1 sh -c "$bench --smoke"
fi
python3 "$here/summary.py" "$results" | tee "$out/summary.md"
! grep -q '"op": "stage", "rc": [1-9]' "$results"
