# SPDX-License-Identifier: Apache-2.0
"""A second opinion on slow clients: slowhttptest's slow headers, slow bodies, slow reading and ranges.

4,000 connections of each kind, opened at 500 a second, against a server with default limits, while ordinary clients ask
for short streams one after the other.  slowhttptest probes on its own whether the service is available.  Its processor
time and that of the ordinary clients come out of the same cores as the server's.
"""

import argparse
import csv
import os
import shutil
import subprocess
import tempfile
import threading
import time

from common import Job, Verdict, connect, endless, post, quantile

CLIENTS = 4


def modes(url):
    """Name, slowhttptest's options, the cuts of /metrics that count these."""
    body = ["-f", "application/json", "-s", "8192", "-x", "10", "-u", url + "/v1/completions"]
    read = ["-k", "3", "-n", "1", "-w", "10", "-y", "20", "-z", "5", "-u", url + "/metrics"]
    return [("slow headers", ["-H", "-i", "5", "-t", "GET", "-u", url + "/health"], "slow_header"),
            ("slow bodies", ["-B", "-i", "5", *body], "slow_body"),
            ("slow reading", ["-X", *read], "slow_reader"),
            ("ranges", ["-R", "-t", "GET", "-a", "5", "-b", "3000", "-u", url + "/metrics"], None)]


class Ordinary:
    """Short streams, one after the other: times to the first token."""

    def __init__(self, port):
        self.port, self.first, self.failed, self.stop = port, [], [], False
        self.threads = [threading.Thread(target=self.run) for _ in range(CLIENTS)]
        for t in self.threads:
            t.start()

    def run(self):
        data = post(endless(max_tokens=8))
        while not self.stop:
            try:
                at, first, raw = time.perf_counter(), None, b""
                with connect(self.port, data) as s:
                    while b"data: [DONE]" not in raw:
                        piece = s.recv(65536)
                        if not piece:
                            raise ConnectionError(f"closed after {raw[-100:]!r}")
                        raw += piece
                        if first is None and b"data: " in raw:
                            first = time.perf_counter() - at
                self.first.append(1e3 * first)
            except OSError as e:
                self.failed.append(repr(e))
            time.sleep(0.02)

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join()
        return self.first


def attack(options, a, folder):
    """slowhttptest's rows by second: connected, available; how it says that it ended."""
    command = ["slowhttptest", *options, "-c", str(a.n), "-r", str(a.rate), "-l", str(a.seconds), "-p", "5", "-g", "-o", "out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=a.seconds + 120, check=False)
    with open(os.path.join(folder, "out.csv"), encoding="ascii") as f:
        rows = [(int(r["Connected"]), int(r["Service Available"]) > 0) for r in csv.DictReader(f)]
    ended = [x for x in done.stdout.splitlines() if "Exit status" in x]
    return rows, ended[0].rsplit("m ", 1)[-1].strip() if ended else done.stderr[-100:]


def part(job, v, name, options, kind, base, a):
    before, rss = job.metrics(), job.sample()
    ordinary = Ordinary(job.port)
    with tempfile.TemporaryDirectory() as folder:
        rows, ended = attack(options, a, folder)
    first = ordinary.end()
    after, now = job.metrics(), job.sample()
    cut = after["connections_cut_total{%s}" % kind] - before["connections_cut_total{%s}" % kind] if kind else 0
    print(f"{name}: at most {max(r[0] for r in rows)} connected, after {len(rows) - 1} s: {ended}; {cut:.0f} cut off; {len(first)} "
          f"ordinary streams, first token p50 {quantile(first, 0.5):.1f}, p99 {quantile(first, 0.99):.1f} ms (alone "
          f"{quantile(base, 0.5):.1f}, {quantile(base, 0.99):.1f}); RSS {rss['rss']:.0f} to {now['rss']:.0f} MB")
    v.equal(f"{name}: seconds in which it was not available", sum(not r[1] for r in rows), 0)
    v.equal(f"{name}: ordinary streams that failed", len(ordinary.failed), 0)
    for f in ordinary.failed[:2]:
        print("  failed:", f)
    if kind:
        v.at_least(f"{name}: cut off", cut, a.n)
    v.at_most(f"{name}: first token, p99 over alone", quantile(first, 0.99) / quantile(base, 0.99), 1.2)
    end = time.monotonic() + 30
    while job.sample()["fds"] > rss["fds"] + 2 and time.monotonic() < end:
        time.sleep(0.1)
    v.at_most(f"{name}: descriptors left", job.sample()["fds"] - rss["fds"], 2)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-n", type=int, default=4000, help="connections of each kind (default 4000)")
    p.add_argument("--rate", type=int, default=500, help="of them a second (default 500)")
    p.add_argument("--seconds", type=int, default=60, help="of each kind (default 60; slowhttptest's own default is 240)")
    a = p.parse_args()
    if shutil.which("slowhttptest") is None:
        print("slowhttptest is not installed: skipped")
        return 0
    v = Verdict(f"slowhttptest, {a.n} connections of each kind")
    with Job() as job:
        job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 4})
        calm = Ordinary(job.port)
        time.sleep(10)
        base = calm.end()
        for name, options, kind in modes(f"http://127.0.0.1:{job.port}"):
            part(job, v, name, options, kind, base, a)
        v.equal("a request afterwards", job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 1})[0], 200)
        v.equal("errors in the log", job.log().count(" error "), 0)
    return v.finish()


if __name__ == "__main__":
    raise SystemExit(main())
