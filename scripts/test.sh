#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# test.sh - builds and runs everything that needs no GPU; the last line is "N passed, N failed, N skipped".
#
# Stages: C tests in a Release build and in an ASan+UBSan build (ctest), the engine's threads under TSan, end-to-end tests
# (pytest) against the first two, lint.  A stage that fails does not stop the others.  Environment: JOBS, CMAKE_ARGS,
# TESTS (a ctest -R pattern), STAGES (default "release asan tsan e2e e2e-asan lint").
set -u

stages=${STAGES:-release asan tsan e2e e2e-asan lint}
results=build/results
venv=.venv
mkdir -p build
rm -rf "$results"
mkdir -p "$results"

if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

export OMP_WAIT_POLICY=passive # ranks and tests share cores: threads that spin would slow each other down

# note STAGE passed|failed|skipped COUNT: counted by summary.py together with the XML reports.
note() {
    echo "$1 $2 $3" >>"$results/notes.txt"
}

wants() {
    case " $stages " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

banner() {
    echo
    echo "== $*"
}

make_venv() {
    stamp=$venv/requirements.stamp
    if cmp -s tests/requirements.txt "$stamp"; then
        return 0
    fi
    banner "Python packages of tests/requirements.txt"
    python3 -m venv "$venv" &&
        "$venv/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt &&
        cp tests/requirements.txt "$stamp"
}

# $targets: the programs to build, all when empty.
configure_and_build() {
    dir=$1
    shift
    # shellcheck disable=SC2086
    cmake -G Ninja -S . -B "$dir" --log-level=WARNING -DTPSERVE_TESTS=ON -DTPSERVE_WERROR=ON ${CMAKE_ARGS:-} "$@" &&
        ninja -C "$dir" -k 0 ${JOBS:+-j$JOBS} ${targets:-}
}

c_tests() {
    name=$1
    dir=$2
    shift 2
    banner "C tests, $name"
    if ! configure_and_build "$dir" "$@"; then
        echo "the $name build failed"
        note "build-$name" failed 1 # what was built is tested all the same
    fi
    ctest --test-dir "$dir" -j "$(nproc)" --output-on-failure --test-output-size-passed 100000 \
        --output-junit "$PWD/$results/ctest-$name.xml" ${TESTS:+-R "$TESTS"} |
        grep -v '^ *Start '
}

e2e_dirs() {
    for dir in tests/api tests/fault tests/model; do
        for file in "$dir"/test_*.py; do
            [ -f "$file" ] && echo "$dir" && break
        done
    done
}

e2e() {
    name=$1
    dir=$2
    shift 2
    found=$(e2e_dirs)
    [ -n "$found" ] || return 0
    banner "end-to-end tests, $name"
    if [ ! -x "$dir/tpserve" ]; then
        echo "$dir/tpserve was not built"
        note "e2e-$name" failed 1
        return
    fi
    # shellcheck disable=SC2086
    TPSERVE_BIN=$PWD/$dir/tpserve TPSERVE_BUILD=$PWD/$dir "$venv/bin/python" -m pytest -q -rfEs -p no:cacheprovider \
        --junitxml="$results/pytest-$name.xml" "$@" $found
    case $? in
    0 | 1 | 5) ;; # 1: counted in the report; 5: nothing matched
    *) note "e2e-$name" failed 1 ;;
    esac
}

make_venv || {
    echo "the Python packages could not be installed: the tests that need them fail or are skipped"
    note venv failed 1
}
wants release && c_tests release build -DCMAKE_BUILD_TYPE=Release
wants asan && c_tests asan build-asan -DCMAKE_BUILD_TYPE=Debug -DTPSERVE_SANITIZE=address,undefined
# What several threads share: API threads with the engine's (submit, cancel, events), its scheduler with its executor.
if wants tsan; then
    targets="test_engine test_request engine_storm"
    TESTS=${TESTS:-'^(test_(engine|request)|engine_storm)$'} c_tests tsan build-tsan -DCMAKE_BUILD_TYPE=Debug -DTPSERVE_SANITIZE=thread
    targets=
fi

wants e2e && e2e release build
if wants e2e-asan; then
    export ASAN_OPTIONS=allocator_may_return_null=1:fast_unwind_on_malloc=0
    export LSAN_OPTIONS=print_suppressions=0:suppressions=$PWD/tests/harness/lsan.supp
    export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
    e2e asan build-asan -m sanitizer
fi

if wants lint; then
    banner "lint"
    python3 tests/lint/lint.py --build build --notes "$results/notes.txt"
    sh tests/lint/selftest.sh build >"$results/selftest.log" 2>&1
    if [ $? -eq 0 ]; then
        note lint-selftest passed 1
    else
        cat "$results/selftest.log"
        note lint-selftest failed 1
    fi
fi

banner "result"
exec python3 scripts/summary.py "$results"
