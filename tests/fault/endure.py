#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a job must live through, and how soon it is back: jumps of the clock, weak links, restarts.

    endure.py [--restarts N] [--step-timeout S] [--parts clock,links,restarts]

clock     the wall clock of all ranks jumps an hour ahead and back (libfaketime, where installed): streams go on
links     2 + 2 ranks on two hosts of namespaces (fault_table.py); the link between them becomes narrow, or loses packets:
          the job goes on with the same text, only slower, or clients are told and it ends, by itself or by its mpirun
restarts  a job on one port is killed, any rank of it, and started again at once, N times: seconds until it serves again

Exits with 1 when something else happens.
"""

import argparse
import pathlib
import random
import re
import signal
import statistics
import sys
import tempfile
import time

import hosts
from jobs import Job, Stream, free_port, wait_for

FAKETIME = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
JUMPS = ("+1h", "-1h", "+0")


def tell(ok, what):
    print(f"  {'ok  ' if ok else 'MISS'} {what}", flush=True)
    return not ok


def clock(directory, options):
    if not FAKETIME:
        print("clock: skipped, libfaketime is not installed")
        return 0
    stamp = pathlib.Path(directory) / "stamp"
    stamp.write_text("+0\n")
    ahead = ["env", f"LD_PRELOAD={FAKETIME[0]}", f"FAKETIME_TIMESTAMP_FILE={stamp}", "FAKETIME_NO_CACHE=1",
             "FAKETIME_DONT_FAKE_MONOTONIC=1"]
    job = Job(f"{directory}/clock.log", *options, ranks=2, different={0: (ahead, []), 1: (ahead, [])})
    try:
        job.wait_ready()
        whole, bad = Stream(job, max_tokens=200), 0
        whole.join()
        for jump in JUMPS:
            stream = Stream(job, max_tokens=1500)
            wait_for(lambda s=stream: s.n_tokens > 5, "no tokens")
            stamp.write_text(jump + "\n")
            stream.join()
            time.sleep(2)
            again = Stream(job, max_tokens=200)
            again.join()
            off = round((int(re.search(rb'"created":(\d+)', again.raw)[1]) - time.time()) / 3600)
            bad += tell(stream.done and stream.finish == "length" and again.text == whole.text and job.get("/health")[0] == 200,
                        f"clock {jump}: {stream.n_tokens} events, then the same text as before, created {off} h from now")
            bad += abs(off) != ("h" in jump) and tell(False, "the clock did not jump")
        job.process.send_signal(signal.SIGUSR1)
        code = job.process.wait(60)
        bad += tell(code == 0 and not job.lines(" error ") and not job.lines(" warn "), f"exit code {code}, no line that complains")
        return bad
    finally:
        job.end()


def link(directory, what, weaken, options):
    with hosts.Hosts(directory) as h:
        job = Job(f"{directory}/link.log", *options, ranks=4, launcher=h.launcher(2))
        job.reach = lambda seconds: h.connect(job.port, seconds)
        try:
            job.wait_ready()
            times, texts = [], []
            for i in range(2):
                begin, stream = time.monotonic(), Stream(job, max_tokens=40)
                if i == 1:
                    wait_for(lambda s=stream: s.n_tokens > 2, "no tokens")
                    weaken(h)
                stream.join(300)
                times.append(time.monotonic() - begin)
                texts.append((stream.text, stream.code))
            if stream.code in ("rank_lost", "shutdown") and stream.done:
                code = job.wait(60)
                return tell(code != 0 and not job.leftovers(), f"{what}: clients told {stream.code}, and gone with {code} after "
                            f"{times[1]:.1f} s; {'mpirun' if 'ORTE has lost' in job.text() else 'a rank'} gave up first")
            return tell(texts[0] == texts[1] and not job.lines(" error "),
                        f"{what}: the same text in {times[1]:.1f} s instead of {times[0]:.1f} s")
        finally:
            job.end()


def links(directory, options):
    reason = hosts.available()
    if reason is not None:
        print(f"links: skipped, {reason}")
        return 0
    bad = 0
    for what, weaken in (("1 Mbit/s, up to 0.4 s late", lambda h: h.narrow("1mbit", "400ms")),
                         ("1 % of the packets lost", lambda h: h.lose(0.01)), ("30 % of the packets lost", lambda h: h.lose(0.3))):
        try:
            bad += link(directory, what, weaken, options)
        except hosts.Unavailable as e:
            print(f"  skipped: {what}: {e}")
    return bad


def restarts(directory, n, options):
    port, bad, back = free_port(), 0, []
    for i in range(n):
        begin = time.monotonic()
        job = Job(f"{directory}/restart{i}.log", *options, ranks=4, port=port)
        try:
            job.wait_ready()
            back.append(time.monotonic() - begin)
            streams = [Stream(job) for _ in range(2)]
            wait_for(lambda s=streams: all(x.n_tokens > 0 for x in s), "no tokens")
            job.kill(i % 4, random.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT]))
            if job.wait() == 0 or job.leftovers():
                bad += tell(False, f"restart {i}: code {job.process.returncode}, left {job.leftovers()}")
        finally:
            job.end()
    return bad + tell(len(back) == n, f"{n} times killed and started again on port {port}: serves {statistics.median(back):.2f} s after "
                      f"the start (median), {max(back):.2f} s at most")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--restarts", type=int, default=10)
    p.add_argument("--step-timeout", type=int, default=10)
    p.add_argument("--parts", default="clock,links,restarts")
    a = p.parse_args()
    options, bad = ("--step-timeout", str(a.step_timeout), "--max-model-len", "2048"), 0
    with tempfile.TemporaryDirectory() as d:
        if "clock" in a.parts:
            bad += clock(d, options)
        if "links" in a.parts:
            bad += links(d, options)
        if "restarts" in a.parts:
            bad += restarts(d, a.restarts, options)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
