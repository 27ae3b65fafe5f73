#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fuzz.sh - builds the fuzz targets with clang (libFuzzer, ASan, UBSan), runs each for a while, and prints a table.
#
# usage: fuzz.sh [run|merge|coverage] [TARGET...]     all targets without a name
#   run       FUZZ_SECONDS (60) of processor time per target.  New inputs go to build-fuzz/grown/TARGET, what failed to build-fuzz/found/TARGET;
#             the exit status is 1 when something failed, took more than a second or more than 512 MB.
#   merge     adds to the corpora of the tree the short inputs of build-fuzz/grown that reach code which they do not
#   coverage  lines of the code under test that the corpora reach (a build of its own, build-cov)
# Environment: JOBS, FUZZ_SECONDS.
set -eu

cd "$(dirname "$0")/../.."
mode=run
case ${1:-} in run | merge | coverage) mode=$1; shift ;; esac
targets=$*
for source in tests/fuzz/fuzz_*.c; do
    [ $# -gt 0 ] && break
    name=${source##*/fuzz_}
    targets="$targets ${name%.c}"
done
seconds=${FUZZ_SECONDS:-60}

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
export ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export LSAN_OPTIONS=print_suppressions=0:suppressions=$PWD/tests/harness/lsan.supp

# configure DIR CMAKE-ARG...  The compiler is not the project's: its own warnings are not for here.
configure() {
    dir=$1
    shift
    cmake -G Ninja -S . -B "$dir" --log-level=WARNING -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14 \
        -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-w -DTPSERVE_TESTS=ON -DTPSERVE_CUDA=off ${CMAKE_ARGS:-} "$@" >/dev/null
}

# field NAME FILE: the number behind "stat::NAME:" of libFuzzer's report.
field() {
    sed -n "s/^stat::$1: *//p" "$2" | tail -1
}

# run_for SECONDS COMMAND...: asks a fuzzer to end when it has had so much processor time, or ten times as much of the wall's.
run_for() {
    cpu=$1
    shift
    "$@" -max_total_time=$((10 * cpu)) &
    fuzzer=$!
    tick=$(getconf CLK_TCK)
    while used=$(awk '{ sub(/.*\) /, ""); if ($1 != "Z") print $12 + $13 }' "/proc/$fuzzer/stat" 2>/dev/null) &&
        [ "${used:-$((cpu * tick))}" -lt $((cpu * tick)) ]; do
        cpu_used=$((used / tick))
        sleep 1
    done
    [ -n "$used" ] && kill -USR1 "$fuzzer" && cpu_used=$cpu
    wait "$fuzzer"
}

existing() {
    for dir in "$@"; do
        [ -d "$dir" ] && echo "$dir"
    done
}

run_one() {
    name=$1
    log=build-fuzz/logs/$name
    mkdir -p "build-fuzz/grown/$name" "build-fuzz/found/$name" build-fuzz/logs
    dict=tests/fuzz/dict/$name.dict
    status=0
    cpu_used=0
    # shellcheck disable=SC2046
    run_for "$seconds" build-fuzz/tests/fuzz/fuzz_"$name" -timeout=30 -report_slow_units=1 -rss_limit_mb=512 \
        -malloc_limit_mb=400 -max_len=4096 -print_final_stats=1 -verbosity=1 -artifact_prefix="build-fuzz/found/$name/" \
        $([ -f "$dict" ] && echo "-dict=$dict") "build-fuzz/grown/$name" \
        $(existing "tests/fuzz/corpus/$name" "tests/fuzz/regression/$name") >"$log" 2>&1 || status=1
    # On a busy machine an input may seem slow: one that takes no two seconds of processor time, start included, is none.
    for slow in build-fuzz/found/"$name"/slow-unit-* build-fuzz/found/"$name"/timeout-*; do
        [ -f "$slow" ] || continue
        if (ulimit -t 2 && build-fuzz/tests/fuzz/fuzz_"$name" "$slow" >/dev/null 2>&1); then
            rm "$slow"
        fi
    done
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    found=$(find "build-fuzz/found/$name" -type f | wc -l)
    printf '%-16s %12s %9s %8s %8s %8s %6s\n' "$name" "$(field number_of_executed_units "$log")" \
        "$cpu_used" "${edges:-?}" "$(field new_units_added "$log")" \
        "$(field peak_rss_mb "$log")" "$found"
    if [ "$status" -ne 0 ] && [ -z "$edges" ]; then
        tail -3 "$log" >&2 # it did not even start
        return 1
    fi
    [ "$found" -eq 0 ]
}

run_all() {
    failed=
    printf '%-16s %12s %9s %8s %8s %8s %6s\n' target executions 'cpu s' edges new 'rss MB' found
    for name in $targets; do
        run_one "$name" || failed="$failed $name"
    done
    [ -z "$failed" ] && return 0
    echo "failed:$failed; see build-fuzz/logs and build-fuzz/found" >&2
    return 1
}

merge_all() {
    for name in $targets; do
        mkdir -p "tests/fuzz/corpus/$name" "build-fuzz/grown/$name"
        before=$(find "tests/fuzz/corpus/$name" -type f | wc -l)
        build-fuzz/tests/fuzz/fuzz_"$name" -merge=1 -use_counters=0 -max_len=2048 -rss_limit_mb=2048 \
            "tests/fuzz/corpus/$name" "build-fuzz/grown/$name" >build-fuzz/logs/"$name".merge 2>&1
        after=$(find "tests/fuzz/corpus/$name" -type f | wc -l)
        echo "$name: $before inputs, now $after of $(du -sb "tests/fuzz/corpus/$name" | cut -f1) bytes"
    done
}

# Line coverage of the files that the targets are for.
coverage() {
    configure build-cov -DCMAKE_EXE_LINKER_FLAGS=-fprofile-instr-generate \
        "-DCMAKE_C_FLAGS=-w -fprofile-instr-generate -fcoverage-mapping"
    ninja -C build-cov ${JOBS:+-j$JOBS} replays >/dev/null
    rm -f build-cov/*.profraw
    objects=
    for name in $targets; do
        # shellcheck disable=SC2046
        LLVM_PROFILE_FILE=build-cov/$name.profraw build-cov/tests/fuzz/replay_"$name" \
            $(existing "tests/fuzz/corpus/$name" "tests/fuzz/regression/$name") >/dev/null 2>&1
        objects="$objects -object build-cov/tests/fuzz/replay_$name"
    done
    llvm-profdata-14 merge -o build-cov/all.profdata build-cov/*.profraw
    # shellcheck disable=SC2086
    llvm-cov-14 report -instr-profile=build-cov/all.profdata ${objects# -object } -show-branch-summary=false \
        -show-region-summary=false | awk '
            NR == FNR { wanted[++n] = $1; next }
            { for (i = 1; i <= n; i++)
                  if (index($1, wanted[i]) == 1 && $1 ~ /\.c$/ && $5 > 0) {
                      printf "%-40s %6d lines %7.2f %%\n", $1, $5, 100 * ($5 - $6) / $5
                      lines += $5; missed += $6
                  } }
            END { printf "%-40s %6d lines %7.2f %%\n", "all", lines, 100 * (lines - missed) / lines }
        ' tests/fuzz/covered.txt -
}

case $mode in
coverage) coverage; exit ;;
esac
configure build-fuzz -DTPSERVE_SANITIZE=fuzzer-no-link,address,undefined -DTPSERVE_FUZZ=ON
ninja -C build-fuzz ${JOBS:+-j$JOBS} fuzzers >build-fuzz/build.log || { tail -40 build-fuzz/build.log; exit 1; }
mkdir -p build-fuzz/logs
case $mode in
run) run_all ;;
merge) merge_all ;;
esac
