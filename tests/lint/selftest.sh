#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# selftest.sh - breaks every rule of lint.py once, on a copy of the tree, and shows that it is noticed.
#
# For each case: the message must be absent before the damage and present after it, and lint must then fail.
set -u

cd "$(dirname "$0")/../.." || exit 1
copy=$(mktemp -d)
git ls-files -co --exclude-standard | grep -Ev '\.safetensors$' | while read -r file; do
    [ -f "$file" ] && printf '%s\n' "$file"
done | tar -cf - -T - | tar -xf - -C "$copy"
cd "$copy" || exit 1
head='/* SPDX-License-Identifier: Apache-2.0 */'
about='/* broken.c - breaks a rule on purpose. */'
tally=$(mktemp) # cases run at the end of a pipe: a variable would be lost there
trap 'rm -rf "$copy" "$tally"' EXIT

lint() {
    python3 "$copy/tests/lint/lint.py" --root "$copy" --build build --only "$1" 2>&1
}

# expect RULE MESSAGE FILE: stdin becomes FILE; MESSAGE must appear because of it.
expect() {
    rule=$1
    message=$2
    file=$3
    echo case >>"$tally"
    if lint "$rule" | grep -qF "$message"; then
        echo "selftest $rule: \"$message\" is there before the damage"
        echo failure >>"$tally"
        return
    fi
    kept=
    if [ -f "$file" ]; then
        kept=$copy/kept
        cp "$file" "$kept"
    fi
    mkdir -p "$(dirname "$file")"
    cat >"$file"
    output=$(lint "$rule")
    code=$?
    if [ "$code" -ne 0 ] && printf '%s\n' "$output" | grep -qF "$message"; then
        echo "selftest $rule: noticed: $(printf '%s\n' "$output" | grep -F "$message" | head -n 1)"
    else
        echo "selftest $rule: NOT noticed (exit code $code): $message"
        echo failure >>"$tally"
    fi
    if [ -n "$kept" ]; then mv "$kept" "$file"; else rm -f "$file"; fi
}

c_file() {
    printf '%s\n%s\n' "$head" "$about"
    cat
}

lines() {
    awk -v n="$1" -v text="$2" 'BEGIN { for (i = 0; i < n; i++) print text }'
}

echo '#include "runtime/engine.h"' | c_file | expect layers 'base/broken.c:3: includes "runtime/engine.h"' base/broken.c
echo '#include "kernels/kern.h"' | c_file | expect layers 'comm/broken.c:3: includes "kernels/kern.h"' comm/broken.c # comm/p2p may
echo '#include "runtime/sched/sched.h"' | c_file | expect layers 'api/broken.c:3: includes "runtime/sched/sched.h"' api/broken.c
echo '#include <mpi.h>' | c_file | expect headers 'runtime/broken.c:3: <mpi.h> belongs to comm/mpi/' runtime/broken.c
echo '#include <cJSON.h>' | c_file | expect headers 'api/broken.c:3: <cJSON.h>' api/broken.c
echo 'void f(char *d) { strcpy(d, "x"); }' | c_file | expect banned 'runtime/broken.c:3: strcpy' runtime/broken.c
echo 'void *f(void) { return malloc(1); }' | c_file | expect banned 'api/broken.c:3: malloc' api/broken.c
echo 'char *f(void) { return getenv("X"); }' | c_file | expect banned 'runtime/broken.c:3: getenv' runtime/broken.c
lines 1000 '/* long */' | c_file | expect files 'comm/broken.c: 1002 lines' comm/broken.c
lines 300 '/* long */' | c_file | expect files 'api/broken.h: 302 lines' api/broken.h
lines 121 'text' | expect files 'base/README.md: 121 lines' base/README.md
{ echo 'int f(int x)'; echo '{'; lines 120 '    x++;'; echo '    return x;'; echo '}'; } | c_file |
    expect functions 'f: 124 lines: at most 120' base/broken.c
{ echo 'int f(int x)'; echo '{'; lines 25 '    if (x > 3) x++;'; echo '    return x;'; echo '}'; } | c_file |
    expect functions 'f: complexity 26: at most 25' base/broken.c
echo 'int f(int a, int b, int c, int d, int e, int g, int h, int i, int (*j)(int, int)) { return a; }' | c_file |
    expect functions 'f: 9 parameters: at most 8' base/broken.c
echo 'int x;' | expect heads 'base/broken.c:1: no SPDX' base/broken.c
printf '%s\nint x;\n' "$head" | expect heads 'base/broken.c:2: no description' base/broken.c
echo 'int x;' | c_file | expect names 'base/BrokenName.c: not snake_case' base/BrokenName.c
echo 'int x;' | c_file | expect names 'base/json.c has the same name' comm/json.c
echo '/* TO''DO: later */' | c_file | expect text 'base/broken.c:3: unfinished-work mark' base/broken.c
echo 'see /home/someone/x' | expect text 'docs/broken.md:1: path of one machine' docs/broken.md
echo 'int x; ' | c_file | expect text 'base/broken.c:3: blanks at the end' base/broken.c
echo 'int  x ;' | c_file | expect format 'run clang-format -i base/broken.c' base/broken.c

# The README of a new folder is missing: shown on base, whose own is moved away for a moment.
[ -f base/README.md ] && mv base/README.md base/README.away
echo case >>"$tally"
if lint readme | grep 'base: no README.md' | sed 's/^/selftest readme: noticed: /' | grep .; then :; else
    echo "selftest readme: NOT noticed"
    echo failure >>"$tally"
fi
[ -f base/README.away ] && mv base/README.away base/README.md

# Rules that look at built files get a build folder with one broken thing in it.
mkdir -p build/base
printf 'int stray_symbol(void);\nint stray_symbol(void)\n{\n    return 1;\n}\n' >build/stray.c
cc -c build/stray.c -o build/stray.o
ar rc build/libstray.a build/stray.o
expect symbols 'exports stray_symbol: expected the prefix tp_' build/base/libtp_base.a <build/libstray.a
printf 'int zero[0];\n' >build/pedantic.c
printf '[{"directory":"%s","file":"%s/build/pedantic.c","command":"cc -c build/pedantic.c -o x.o"}]\n' "$copy" "$copy" |
    expect pedantic 'zero-size array' build/compile_commands.json
printf 'int main(void)\n{\n    return 0;\n}\n' >build/main.c
if cc build/main.c -o build/linked -Wl,--no-as-needed -l:libstdc++.so.6; then
    expect libstdcxx 'tpserve needs libstdc++' build/tpserve <build/linked
else
    echo "selftest libstdcxx: skipped: no libstdc++.so.6 to link with"
fi

for rule in $(python3 "$copy/tests/lint/lint.py" --list | cut -d' ' -f1); do
    grep -qE "(expect|lint) $rule " "$copy/tests/lint/selftest.sh" || {
        echo "selftest: no case for rule $rule"
        echo failure >>"$tally"
    }
done
failures=$(grep -c failure "$tally")
echo "selftest: $(grep -c case "$tally") cases, $failures failures"
[ "$failures" -eq 0 ]
