#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# leftovers.sh MODE PROGRAM - runs comm_end on 4 ranks, lets it end as MODE says, and checks the exit code, that no
# rank is left running and that nothing of the job is left in /dev/shm.  MODE sweep: what earlier jobs left is taken
# away at start, what may belong to a starting job is not.
mode=$1
program=$2
out=$(mktemp)
trap 'rm -f "$out"' EXIT
fail() { echo "mode $mode: $*"; cat "$out"; exit 1; }

if [ "$mode" = sweep ]; then
    old=/dev/shm/tpserve.0.old$$
    old_mpi=/dev/shm/vader_segment.test.old$$
    young=/dev/shm/tpserve.0.young$$
    : >"$young"
    : >"$old"
    : >"$old_mpi"
    touch -d '10 minutes ago' "$old" "$old_mpi"
    "$program" normal >"$out" 2>&1 || fail "exit code $?"
    [ ! -e "$old" ] || fail "an old file of ours is still there"
    [ ! -e "$old_mpi" ] || fail "an old file of MPI is still there"
    [ -e "$young" ] || fail "a young file was taken away"
    rm -f "$young"
    echo "mode sweep: old files are gone, a young one stayed"
    exit 0
fi

case $mode in
orphan)
    mpirun --oversubscribe --bind-to none -np 4 "$program" wait >"$out" 2>&1 &
    mpirun_pid=$!
    n=0
    until [ "$(grep -c '^pid' "$out")" -eq 4 ]; do
        n=$((n + 1))
        [ $n -lt 200 ] || fail "the ranks did not start"
        sleep 0.1
    done
    kill -KILL $mpirun_pid
    wait $mpirun_pid
    code=$?
    ;;
*)
    mpirun --oversubscribe --bind-to none -np 4 "$program" "$mode" >"$out" 2>&1
    code=$?
    ;;
esac

case $mode in
normal)
    [ $code -eq 0 ] || fail "exit code $code"
    ! grep -qv -e '^pid ' -e '^job ' "$out" || fail "unexpected words"
    ;;
abort)
    [ $code -eq 71 ] || fail "exit code $code, not 71"
    [ "$(grep -c 'ending all ranks' "$out")" -eq 1 ] || fail "the reason must be said once"
    ;;
*) [ $code -ne 0 ] || fail "exit code 0" ;;
esac

sleep 1
pids=$(sed -n 's/^pid //p' "$out")
[ "$(echo "$pids" | wc -l)" -eq 4 ] || fail "not all ranks said their pid"
for pid in $pids; do
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null)
    case $state in '' | Z) ;; *) fail "rank with pid $pid is still there ($state)" ;; esac
done
job=$(sed -n 's/^job //p' "$out")
[ -n "$job" ] || fail "no job id"
for file in /dev/shm/*"$job"* /dev/shm/tpserve.*.????????????????; do
    [ ! -e "$file" ] || fail "$file is left behind"
done
echo "mode $mode: exit code $code, nothing left"
