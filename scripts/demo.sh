#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# demo.sh start BINARY | stop - serves the bundled model on this machine until Ctrl-C, or in the background.
#
# Environment: PORT (8000), NP ranks (2), MODEL (models/demo), DETACH=1 to give the prompt back, DEMO_ARGS for more
# options of the server.  State of a detached demo: build/demo.pid and build/demo.log.
set -eu

port=${PORT:-8000}
np=${NP:-2}
model=${MODEL:-models/demo}
pid_file=build/demo.pid
log_file=build/demo.log
ready_seconds=300
url=http://127.0.0.1:$port

fail() {
    echo "demo: $*" >&2
    exit 1
}

alive() {
    kill -0 "$1" 2>/dev/null
}

# Waits up to $2 tenths of a second for process $1 to end.
gone_within() {
    left=$2
    while alive "$1" && [ "$left" -gt 0 ]; do
        sleep 0.1
        left=$((left - 1))
    done
    ! alive "$1"
}

# mpirun forwards SIGUSR1, which lets the server finish running requests; it answers SIGTERM by killing the ranks.
end() {
    kill -USR1 "$1" 2>/dev/null || return 0
    gone_within "$1" 350 && return 0
    kill -TERM "$1" 2>/dev/null || return 0
    gone_within "$1" 100 && return 0
    kill -KILL "$1" 2>/dev/null || true
}

stop() {
    [ -f "$pid_file" ] || { echo "demo: not running"; return 0; }
    pid=$(cat "$pid_file")
    if alive "$pid" && grep -q mpirun "/proc/$pid/cmdline" 2>/dev/null; then
        end "$pid"
        echo "demo: stopped"
    else
        echo "demo: not running"
    fi
    rm -f "$pid_file"
}

http_code() {
    curl -s -o /dev/null -m 2 -w '%{http_code}' "$url$1" 2>/dev/null || true
}

print_ready() {
    cat <<TEXT

tpserve is ready at $url  ($np ranks, model $model)

Try:

  curl -s $url/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages":[{"role":"user","content":"What is the capital of France?"}]}'

TEXT
    if [ -n "${DETACH:-}" ]; then
        echo "Log: $log_file.  End it with: ./run stop"
    else
        echo "End it with Ctrl-C."
    fi
}

start() {
    binary=$1
    [ -f "$model/config.json" ] || fail "no model at $model: expected config.json there"
    if [ -f "$pid_file" ] && alive "$(cat "$pid_file")"; then
        fail "a demo runs already (process $(cat "$pid_file")): ./run stop ends it"
    fi
    rc=0
    curl -s -o /dev/null -m 2 "$url/" || rc=$?
    [ "$rc" -eq 7 ] || fail "port $port is in use: end what listens there, or choose another with ./run demo --port N"

    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
    # The server binds its threads itself; ranks may share cores on a small machine.
    set -- mpirun --oversubscribe --bind-to none -np "$np" "$binary" --model "$model" --port "$port"
    # shellcheck disable=SC2086
    [ -z "${DEMO_ARGS:-}" ] || set -- "$@" $DEMO_ARGS
    echo "starting: mpirun -np $np $binary --model $model --port $port ${DEMO_ARGS:-}"

    # A session of its own: Ctrl-C reaches this script only, which then ends the job in order.
    if [ -n "${DETACH:-}" ]; then
        setsid "$@" </dev/null >"$log_file" 2>&1 &
    else
        setsid "$@" </dev/null &
    fi
    pid=$!
    trap 'trap "kill -TERM $pid" INT TERM HUP; echo; echo "demo: ending"; end "$pid"; exit 0' INT TERM HUP

    left=$((ready_seconds * 5))
    while [ "$(http_code /ready)" != 200 ]; do
        if ! alive "$pid"; then
            [ -z "${DETACH:-}" ] || tail -n 20 "$log_file" >&2
            fail "the server ended before it was ready"
        fi
        left=$((left - 1))
        if [ "$left" -le 0 ]; then
            end "$pid"
            fail "not ready after $ready_seconds s"
        fi
        sleep 0.2
    done
    print_ready
    if [ -n "${DETACH:-}" ]; then
        echo "$pid" >"$pid_file"
        return 0
    fi
    rc=0
    wait "$pid" || rc=$?
    echo "demo: the server ended with exit code $rc"
    exit "$rc"
}

case ${1:-} in
start) start "$2" ;;
stop) stop ;;
*) echo "usage: demo.sh start BINARY | stop" >&2; exit 2 ;;
esac
