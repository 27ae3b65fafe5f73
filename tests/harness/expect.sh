#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# expect.sh MODE PROGRAM - runs the program on two ranks and checks that mpirun's exit code tells what went wrong.
mode=$1
program=$2
TPSERVE_TEST_DEADLINE_S=4
export TPSERVE_TEST_DEADLINE_S
mpirun --oversubscribe --bind-to none -np 2 "$program" "$mode"
code=$?
case $mode in
skip) [ "$code" -eq 77 ] ;;
*) [ "$code" -ne 0 ] && [ "$code" -ne 77 ] ;;
esac || { echo "mode $mode: unexpected exit code $code"; exit 1; }
echo "mode $mode: exit code $code as expected"
