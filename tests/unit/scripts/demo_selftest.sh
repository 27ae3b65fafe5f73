#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# demo_selftest.sh PYTHON - scripts/demo.sh with a stand-in server: start, refusals, orderly end.
set -u

python=$1
root=$(cd "$(dirname "$0")/../../.." && pwd)
command -v curl >/dev/null || { echo "no curl: skipped"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
mkdir -p build model
echo '{}' >model/config.json
cat >build/tpserve <<PYTHON
#!$python
import http.server, os, signal, sys, time
def end(*_):
    print("rank", os.environ["OMPI_COMM_WORLD_RANK"], "drained", flush=True)
    os._exit(0)
signal.signal(signal.SIGUSR1, end)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
if "--fail" in sys.argv:
    sys.exit("cannot load")
if os.environ["OMPI_COMM_WORLD_RANK"] == "0":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
time.sleep(600)
PYTHON
chmod +x build/tpserve
PORT=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export PORT MODEL=model DETACH=1
demo="sh $root/scripts/demo.sh"

# check WHAT CODE TEXT: the last command's exit code was $code and its output is in $output.
check() {
    if [ "$code" -ne "$2" ] || ! printf '%s\n' "$output" | grep -qF "$3"; then
        echo "$1: exit code $code, expected $2; expected \"$3\" in:"
        printf '%s\n' "$output"
        $demo stop
        exit 1
    fi
    echo "$1: ok"
}

output=$(MODEL=nowhere $demo start build/tpserve 2>&1); code=$?
check "no model" 1 "no model at nowhere"
output=$(DEMO_ARGS=--fail $demo start build/tpserve 2>&1); code=$?
check "server that does not start" 1 "ended before it was ready"
output=$($demo start build/tpserve 2>&1); code=$?
check "start" 0 "curl -s http://127.0.0.1:$PORT/v1/chat/completions"
output=$($demo start build/tpserve 2>&1); code=$?
check "second start" 1 "runs already"
mv build/demo.pid build/kept.pid
output=$($demo start build/tpserve 2>&1); code=$?
check "port in use" 1 "port $PORT is in use"
mv build/kept.pid build/demo.pid
output=$($demo stop 2>&1; cat build/demo.log); code=$?
check "stop" 0 "rank 1 drained"
output=$($demo stop 2>&1); code=$?
check "second stop" 0 "not running"
