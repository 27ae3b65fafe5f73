# SPDX-License-Identifier: Apache-2.0
"""Where the time goes between a client's leaving and the end of its request, and what is computed meanwhile.

Needs root and perf: probes in the running binary (uprobes) give the times of three of its functions, on the clock by which
the client notes when it closes.
  notice     from the close until the watcher calls rt_request_abandon(): its thread gets a core
  take       from there until a round of the scheduler takes the request out (rt_engine_cancelled())
  steps      deliveries of steps (rt_engine_deliver()) after the close, and after the watcher knew; the bound is for these
  backlog    tokens that were computed before the close and that the client had not read: it was behind, nothing was late
"""

import argparse
import bisect
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time

from common import BIN, Job, Verdict, connect, drain_ids, endless, leave, post, quantile
from disconnects import read_tokens, time_to_free

GROUP = "tpserve_fire"
PROBES = {"know": "rt_request_abandon", "out": "rt_engine_cancelled", "step": "rt_engine_deliver"}


def probe(*words):
    return subprocess.run(["perf", "probe", "-q", *words], capture_output=True, text=True, check=False)


def leave_all(job, n, rng):
    """When each of n clients closed, and the tokens that were computed for it beyond those that had come by then."""
    closed, before = [], job.metrics()["generation_tokens_total"]
    for i in range(n):
        s = connect(job.port, post(endless(return_token_ids=True)))
        seen = drain_ids(s, read_tokens(s, rng.randint(1, 50)))
        at = time.monotonic_ns()
        leave(s, ("fin", "rst")[i % 2])
        time_to_free(job, time.perf_counter())
        after = job.metrics()["generation_tokens_total"]
        closed.append((at, after - before - seen))
        before = after
    return closed


def record(n, rng):
    with Job("--max-num-seqs", "4", "--max-num-batched-tokens", "64") as job, tempfile.NamedTemporaryFile() as data:
        job.metrics()
        with subprocess.Popen(["perf", "record", "-q", "-k", "CLOCK_MONOTONIC", "-o", data.name, "-p", str(job.pid), "-e",
                               f"{GROUP}:*"], stderr=subprocess.DEVNULL) as perf:
            time.sleep(1)
            closed = leave_all(job, n, rng)
            perf.send_signal(signal.SIGINT)
        text = subprocess.run(["perf", "script", "-i", data.name, "-F", "time,event", "--ns"], capture_output=True, text=True,
                              check=True).stdout
    times = {name: [] for name in PROBES}
    for second, ns, name in re.findall(rf"(\d+)\.(\d{{9}}): +{GROUP}:(\w+)", text):
        times[name].append(int(second) * 10 ** 9 + int(ns))
    return closed, times


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-n", type=int, default=400, help="clients (default 400)")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    if shutil.which("perf") is None or os.geteuid() != 0:
        print("skipped: needs perf and root")
        return
    v = Verdict(f"{a.n} clients that leave in the middle of a stream")
    try:
        for name, function in PROBES.items():
            done = probe("-x", BIN, "--add", f"{GROUP}:{name}={function}")
            if done.returncode != 0:
                print(f"skipped: no probe at {function}: {done.stderr.strip()}")
                return
        closed, times = record(a.n, random.Random(a.seed))
    finally:
        probe("--del", f"{GROUP}:*")
    rows = {x: [] for x in ("notice, us", "take, us", "steps after the close", "steps after the watcher knew", "backlog, tokens")}
    for at, unread in closed:
        know, out = (times[x][bisect.bisect_left(times[x], at)] for x in ("know", "out"))
        late = [bisect.bisect_left(times["step"], out) - bisect.bisect_left(times["step"], x) for x in (at, know)]
        for row, value in zip(rows, ((know - at) / 1e3, (out - know) / 1e3, *late, max(0, unread - late[0]))):
            rows[row].append(value)
    steps = times["step"]
    v.add("time between steps, p50", f"{quantile([(y - x) / 1e3 for x, y in zip(steps, steps[1:])], 0.5):.0f} us")
    for what, values in rows.items():
        v.add(f"{what}: p50, p90, p99", ", ".join(f"{quantile(values, q):.0f}" for q in (0.5, 0.9, 0.99)))
    v.at_most("steps after the watcher knew, p99", quantile(rows["steps after the watcher knew"], 0.99), 2)
    raise SystemExit(v.finish())


if __name__ == "__main__":
    main()
