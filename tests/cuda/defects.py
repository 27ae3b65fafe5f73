#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""defects.py - every planted defect of defects.cu must be reported, and its sound twin must pass.

    defects.py plain=PROGRAM asan=PROGRAM tsan=PROGRAM

A build that is left out skips its cases, which are counted.  Prints one line per case and a summary.
"""
import os
import pathlib
import re
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parent / "defects.cu"

# Case, build, what the report must say.  The line marked DEFECT must be named too, unless the case has no mark.
CASES = [
    ("barrier_left_out", "tsan", "data race"),
    ("syncwarp_left_out", "tsan", "data race"),
    ("fence_left_out", "tsan", "data race"),
    ("last_block_without_fence", "tsan", "data race"),
    ("wait_one_group_short", "plain", "NaN reached the result"),
    ("wait_one_group_short", "asan", "use-after-poison"),
    ("wait_one_group_short", "tsan", "data race"),
    ("dynamic_memory_short", "asan", "use-after-poison"),
    ("beyond_shared_array", "asan", "index 32 out of bounds"),
    ("beyond_pointer", "asan", "use-after-poison"),
    ("grid_too_large", "asan", "heap-buffer-overflow"),
    ("shared_memory_not_filled", "plain", "NaN reached the result"),
    ("misaligned_vector", "asan", "misaligned address"),
    ("misaligned_load", "plain", "16-byte load: misaligned address"),
    ("misaligned_ldmatrix", "plain", "ldmatrix: misaligned address"),
    ("aligned_by_luck", "asan", "misaligned address"),
    ("copy_to_global", "plain", "not shared memory"),
    ("divergent_shuffle", "plain", "divergent collective"),
    ("shuffle_of_half_a_warp", "plain", "no thread of the block can go on"),
    ("mask_without_source", "plain", "reads from lane 16, which takes no part"),
    ("mask_without_self", "plain", "is not in its own mask"),
    ("barrier_in_branch", "plain", "barrier in divergent code"),
    ("barrier_after_return", "plain", "barrier in divergent code"),
    ("product_of_short_warp", "plain", "needs all 32 lanes"),
    ("epoch_compared_for_equality", "plain", "hang: for 1.0 s"),
    ("block_left_early", "plain", "left without tp_grid_wait()"),
]
ENVIRONMENT = {
    "EMU_HANG_S": "1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "ASAN_OPTIONS": "detect_leaks=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


# Races between blocks are sought on request only: it makes every block slow.
FRESH = {"last_block_without_fence"}


def marked_lines():
    marks = {}
    for number, line in enumerate(SOURCE.read_text().splitlines(), 1):
        mark = re.search(r"/\* DEFECT (\w+) \*/", line)
        if mark:
            marks[mark.group(1)] = number
    return marks


def run(program, case, kind):
    env = {k: v for k, v in os.environ.items() if not k.startswith("EMU_")} | ENVIRONMENT
    if case in FRESH:
        env["EMU_FRESH"] = "1"
    done = subprocess.run([program, case, kind], env=env, capture_output=True, text=True, errors="replace", timeout=120)
    return done.returncode, done.stdout + done.stderr


def judge(program, case, text, line):
    code, output = run(program, case, "broken")
    if code == 0:
        return "not noticed", output
    if text not in output:
        return f"no \"{text}\" in the report", output
    named = text == "NaN reached the result" or line is None or f"defects.cu:{line}" in output
    if not named:
        return f"the report does not name defects.cu:{line}", output
    code, output = run(program, case, "sound")
    if code != 0:
        return f"the sound twin ended with {code}", output
    return None, output


def main():
    programs = dict(arg.split("=", 1) for arg in sys.argv[1:])
    marks = marked_lines()
    caught, missed, skipped = 0, 0, 0
    for case, build, text in CASES:
        if build not in programs:
            print(f"skipped  {case:30} no {build} build")
            skipped += 1
            continue
        wrong, output = judge(programs[build], case, text, marks.get(case))
        if wrong:
            print(f"MISSED   {case:30} {build}: {wrong}\n{output}")
            missed += 1
        else:
            print(f"caught   {case:30} {build}: {text}")
            caught += 1
    print(f"{caught} caught, {missed} missed, {skipped} skipped")
    return 1 if missed else 77 if skipped and not caught else 0


if __name__ == "__main__":
    sys.exit(main())
