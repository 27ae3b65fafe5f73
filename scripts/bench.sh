#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bench.sh BUILD - the machine and its limits first, as numbers mean nothing without them; then every benchmark program,
# the null model, the engine, and a server under load.
#
#   BENCH_MODEL  a checkpoint (default: models/demo): the larger, the truer
#   BENCH_SHAPE  0.5b, 1.5b or 7b: a checkpoint of that shape with random weights instead, written into BUILD
set -eu

if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# One program that fails does not keep the others from being run; the exit code remembers.
status=0
try() {
    "$@" || { status=1; echo "bench.sh: $1 ended with an error" >&2; }
}

build=$1
model=${BENCH_MODEL:-models/demo}
if [ -n "${BENCH_SHAPE:-}" ]; then
    model=$build/bench-$BENCH_SHAPE
    [ -f "$model/config.json" ] || python3 tests/model/make_shape.py "$model" --shape "$BENCH_SHAPE"
fi

lscpu | grep -E '^(Model name|CPU\(s\)|Thread|Core|NUMA node\(s\)|L3)' || true
echo
echo "== limits of this machine"
try "$build/tests/bench/bench_machine"
for program in "$build"/tests/bench/bench_* "$build"/tests/kernels/bench_*; do
    [ -f "$program" ] && [ -x "$program" ] || continue
    echo
    case $(basename "$program") in
    bench_machine) ;;
    bench_load | bench_engine | bench_model | bench_prefix)
        echo "== $(basename "$program") $model"
        try "$program" "$model"
        ;;
    bench_comm)
        echo "== bench_comm, 2 ranks"
        try mpirun --oversubscribe -np 2 "$program"
        ;;
    *)
        echo "== $(basename "$program")"
        try "$program"
        ;;
    esac
done

echo
echo "== tpserve bench --host"
try "$build/tpserve" bench --model "$model" --host --log-level warn
echo
echo "== tpserve bench --engine"
try "$build/tpserve" bench --model "$model" --engine --num-prompts 32 --random-input-len 128 --random-output-len 64 \
    --max-concurrency 1,4,16 --log-level warn
echo
echo "== tpserve bench, a server on this machine"
log=$build/bench-server.log
"$build/tpserve" --model "$model" --port 0 >"$log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 600); do
    url=$(sed -n 's/.*ready: \(http[^ ]*\)\/v1$/\1/p' "$log")
    [ -z "$url" ] || break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.2
done
if [ -z "$url" ]; then
    echo "the server did not become ready: see $log" >&2
    exit 1
fi
try "$build/tpserve" bench --base-url "$url" --num-prompts 32 --num-warmups 2 --random-input-len 128 --random-output-len 64 \
    --max-concurrency 1,8,16 --ignore-eos --plot "$build/bench.svg"
echo "latency against load: $build/bench.svg"
exit "$status"
