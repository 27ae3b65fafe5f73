#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long it takes until a lost rank is noticed, clients are told, and the job is gone: docs/faults.md's bounds, measured.

    fault_table.py [--runs N] [--step-timeout S] [--signals KILL,STOP,HANG,ERROR] [--ranks 0,2]
                   [--phases idle,prefill,decode] [--device cpu,emu] [--jobs J] [--no-cut] [--csv FILE]

Every run is a job of 4 ranks of its own, and a rank of it is hurt in the phase.  Then the link between two hosts of
namespaces with 2 ranks each is cut (skipped, with the reason, where there can be none).  Jobs of 2 ranks on the emulated
device are hurt likewise; there a kernel hangs and a device fails, too, at a random launch: the blow is then taken to be
the last token that a client has got.  Per case, over the runs:

    noticed   from the blow to the log line that names the rank (an error of a device: to the line that tells it)
    told      from the blow to the last stream's error event; of a job whose rank 0 is hurt: to the end of its connection
    gone      from the notice to the end of the last rank
    job       from the blow to the end of mpirun
    left      processes, shared memory and ports a moment later
    codes     how often the ranks that were not hurt by a signal ended with which exit code: 70 left by itself, 143 and 137
              are the launcher's SIGTERM and SIGKILL; a 0 is a miss (of the link cut they are not noted)

Exits with 1 when a bound is missed.  Times on a busy machine say little about tpserve.
"""

import argparse
import collections
import concurrent.futures
import csv
import datetime
import pathlib
import random
import signal
import statistics
import sys
import tempfile
import time

import hosts
from jobs import BIN, Job, Stream, shared_memory, wait_for

TOLD_KILL, TOLD_MORE, GONE = 1.0, 2.0, 5.0  # docs/faults.md
LONG = ("--max-model-len", "2048")
EMU = ("--device", "emu", "--max-num-batched-tokens", "64")
FAULTS = {"HANG": "dev.hang", "ERROR": "dev.sticky"}


def streams_in(phase, job):
    if phase == "idle":
        return []
    if phase == "decode":
        streams = [Stream(job) for _ in range(3)]
        wait_for(lambda: all(s.n_tokens > 3 for s in streams), lambda: f"no tokens: {job.text()}")
        return streams
    streams = [Stream(job, prompt=[random.randrange(10, 1000) for _ in range(1900)], max_tokens=100) for _ in range(8)]
    time.sleep(0.05)
    return streams


def noticed_after(job, wall):
    for line in job.lines(" error "):
        if "is lost" in line or "hangs" in line or "illegal memory access" in line:
            at = datetime.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00"))
            return at.timestamp() - wall
    return None


def measure(job, streams, blow, lost, noting=True):
    begin = time.monotonic()
    if blow is not None:
        blow()
    job.wait(90)
    for s in streams:
        s.join(30)
    if blow is None:
        begin = max((s.token_at for s in streams if s.token_at is not None), default=begin)
    noticed = noticed_after(job, time.time() - time.monotonic() + begin)
    told = [s.told_at if s.told_at is not None and s.done else s.over_at if lost == 0 else None for s in streams]
    codes = job.codes_by_rank() if noting else {}
    return {"noticed": noticed,
            "told": None if not streams else max(t - begin for t in told) if None not in told else float("inf"),
            "gone": job.gone_at - begin - (noticed or 0), "job": job.over_at - begin, "code": job.process.returncode,
            "left": job.leftovers(), "codes": [c for r, c in codes.items() if r != lost or blow is None]}


def run_signal(directory, name, phase, lost, ranks, options):
    """One job; None when the prompts were computed before the blow fell."""
    job = Job(f"{directory}/{random.getrandbits(64):016x}.log", *LONG, *options, ranks=ranks, codes=True)
    try:
        job.wait_ready()
        streams = streams_in(phase, job)
        if phase == "prefill" and all(s.n_tokens > 0 for s in streams):
            return None
        result = measure(job, streams, lambda: job.kill(lost, getattr(signal, "SIG" + name)), lost)
        if result["noticed"] is None:
            print(job.text(), file=sys.stderr)
        return result
    finally:
        job.end()


def run_fault(directory, name, lost, ranks, options):
    """One job whose device fails at some launch, while streams run."""
    fault = f"TPSERVE_FAULT={FAULTS[name]}={random.randrange(1500, 4000)}"
    job = Job(f"{directory}/{random.getrandbits(64):016x}.log", *LONG, *options, ranks=ranks, codes=True,
              different={lost: (["env", fault], [])})
    try:
        job.wait_ready()
        return measure(job, [Stream(job) for _ in range(3)], None, lost)
    finally:
        job.end()


def run_cut(directory, options, timeout):
    """Two ranks on either side; rank 0 is on the side of the clients.  mpirun notices a moment after the ranks do."""
    keepalive = (5, 2, 3) if timeout >= 10 else (1, 1, 2)
    with hosts.Hosts(directory) as h:
        job = Job(f"{directory}/cut.log", *LONG, *options, ranks=4, launcher=h.launcher(2, keepalive))
        job.reach = lambda seconds: h.connect(job.port, seconds)
        try:
            job.wait_ready()
            return measure(job, streams_in("decode", job), h.cut, 2, False)
        finally:
            job.end()


def is_within(result, limit):
    return (result["noticed"] is not None and (result["told"] is None or result["told"] <= limit) and
            result["noticed"] <= limit and result["gone"] <= GONE and result["code"] != 0 and not result["left"] and
            0 not in result["codes"])


def column(results, key):
    values = [r[key] for r in results if r[key] is not None]
    if not values:
        return f"{'-':>15}"
    return f"{statistics.median(values):7.3f} {max(values):7.3f}"


def show(case, results, limit):
    bad = sum(not is_within(r, limit) for r in results)
    left = sum(len(r["left"]) for r in results)
    codes = collections.Counter(c for r in results for c in r["codes"])
    print(f"{case:28} {len(results):4} " + " ".join(column(results, k) for k in ("noticed", "told", "gone", "job")) +
          f" {left:5}  {'all within' if not bad else f'{bad} MISSED'} {limit:.0f} s / {GONE:.0f} s; codes " +
          (", ".join(f"{c}: {n}" for c, n in sorted(codes.items())) or "not noted"), flush=True)
    for r in results:
        if not is_within(r, limit):
            print(f"    missed: {r}", flush=True)
    return bad


def in_words(values):
    return [v for v in values.split(",") if v]


def hurt(directory, a, device, name, lost, phase):
    """Prints a case and returns its results and how many were bad."""
    options, ranks = ("--step-timeout", str(a.step_timeout)), 4
    if device == "emu":
        options, ranks, lost = options + EMU, 2, min(lost, 1)

    def one(_):
        if name in FAULTS:
            return run_fault(directory, name, lost, ranks, options)
        return run_signal(directory, name, phase, lost, ranks, options)

    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        done = list(pool.map(one, range(a.runs)))
    results = [r for r in done if r is not None]
    limit = TOLD_KILL if name in ("KILL", "ERROR") else a.step_timeout + TOLD_MORE
    case = f"{name if name in FAULTS else 'SIG' + name} rank {lost}, {phase}" + (f", {device}" if device != "cpu" else "")
    bad = show(case, results, limit)
    if len(results) < len(done):
        print(f"    {len(done) - len(results)} not counted: the phase was over before the blow")
    return [{"case": case, "timeout": a.step_timeout, **r} for r in results], bad


def cases(a):
    """Device, blow, rank, phase."""
    for device in a.device:
        if device == "emu" and not (pathlib.Path(BIN).parent / "libtpserve_emu.so").exists():
            print("the emulated device: skipped, there is none beside the binary")
            continue
        for name in a.signals:
            if name in FAULTS and device == "cpu":
                continue
            for lost in map(int, a.ranks):
                for phase in ["decode"] if name in FAULTS else a.phases:
                    yield device, name, lost, phase


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--step-timeout", type=int, default=10)
    p.add_argument("--signals", type=in_words, default=["KILL", "STOP", "HANG", "ERROR"])
    p.add_argument("--phases", type=in_words, default=["idle", "prefill", "decode"])
    p.add_argument("--ranks", type=in_words, default=["0", "2"])
    p.add_argument("--device", type=in_words, default=["cpu", "emu"])
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--no-cut", action="store_true")
    p.add_argument("--csv")
    a = p.parse_args()
    before, rows, bad = shared_memory(), [], 0
    print(f"4 ranks, on emulated devices 2, --step-timeout {a.step_timeout}, {a.runs} runs per case; seconds, median and maximum")
    print(f"{'case':28} {'runs':>4} " + " ".join(f"{k:>15}" for k in ("noticed", "told", "gone", "job")) + "  left  bounds")
    with tempfile.TemporaryDirectory() as d:
        for case in cases(a):
            more, missed = hurt(d, a, *case)
            rows += more
            bad += missed
        reason = "not asked for" if a.no_cut else hosts.available()
        if reason is not None:
            print(f"link cut between two hosts: skipped, {reason}")
        else:
            results = [run_cut(d, ("--step-timeout", str(a.step_timeout)), a.step_timeout) for _ in range(a.runs)]
            bad += show("link cut, 2 + 2 ranks, decode", results, a.step_timeout + TOLD_MORE)
            rows += [{"case": "cut", "timeout": a.step_timeout, **r} for r in results]
    left = sorted(shared_memory() - before)
    print(f"shared memory left at the end: {left or 'none'}")
    if a.csv:
        with open(a.csv, "w", newline="", encoding="utf-8") as f:
            out = csv.DictWriter(f, ["case", "timeout", "noticed", "told", "gone", "job", "code", "left", "codes"])
            out.writeheader()
            out.writerows(rows)
    return 1 if bad or left else 0


if __name__ == "__main__":
    sys.exit(main())
