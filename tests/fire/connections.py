# SPDX-License-Identifier: Apache-2.0
"""10,000 connections that say nothing and as many that have asked once and stay: memory, and how fast /health answers.
Then, three times, 3,000 streams that nobody reads: memory that is left when all have gone.

Where the limit of open files is lower, there are as many as it allows, half of each.
"""

import argparse
import resource
import time

from common import GET_HEALTH, Job, Verdict, connect, endless, post, quantile, read_answer


def floods(job, v, n, base):
    """Each stream waits, runs and stands still before it is cut off or left; base: RSS when nobody was there."""
    most = 0
    for _ in range(3):
        streams = [connect(job.port, post(endless(max_tokens=50, logprobs=20)), 4096, source=f"127.0.0.{2 + i % 8}")
                   for i in range(n)]
        job.wait("num_requests_waiting", 0, 300)
        most = max(most, job.sample()["rss"])
        for s in streams:
            s.close()
        job.wait("num_requests_running", 0)
    v.add(f"RSS under {n} streams that nobody reads, over before", f"{most - base:.0f} MB")
    v.at_most("RSS left when they have gone", settled(job) - base, 40, "MB")


def settled(job):
    """RSS when it has stopped falling."""
    seen = [job.sample()["rss"]]
    while len(seen) < 4 or seen[-1] < seen[-4] - 1:
        time.sleep(1)
        seen.append(job.sample()["rss"])
    return seen[-1]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-n", type=int, default=10000, help="connections of each kind (default 10000)")
    a = p.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    n = min(a.n, (hard - 500) // 2)
    v = Verdict(f"{n} idle and {n} kept connections")
    with Job("--max-connections", str(2 * n + 100), "--max-num-queued-reqs", "4000", "--kv-cache-memory-bytes", "32M") as job:
        job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 4})
        base, sockets, failed = job.sample(), [], 0
        # a kilobyte of headers, as browsers and gateways send them
        ask = GET_HEALTH[:-2] + b"X-Padding: " + b"a" * 900 + b"\r\n\r\n"
        began = time.monotonic()
        for kept in (False, True):
            for i in range(n):
                try:
                    s = connect(job.port, ask if kept else b"", source=f"127.0.0.{2 + i % 8}")
                    if kept and read_answer(s)[0] != 200:
                        failed += 1
                    sockets.append(s)
                except OSError:
                    failed += 1
            print(f"{len(sockets)} connections after {time.monotonic() - began:.1f} s: RSS {job.sample()['rss']:.0f} MB "
                  f"(before: {base['rss']:.0f})")
        times = []
        with connect(job.port) as probe:
            for i in range(2000):
                at = time.perf_counter()
                probe.sendall(GET_HEALTH)
                read_answer(probe)
                times.append(1e3 * (time.perf_counter() - at))
        fresh = []
        for i in range(200):
            at = time.perf_counter()
            with connect(job.port, GET_HEALTH) as probe:
                read_answer(probe)
            fresh.append(1e3 * (time.perf_counter() - at))
        cpu = job.cpu_seconds()
        time.sleep(5)
        cpu = (job.cpu_seconds() - cpu) / 5
        v.equal("connections refused or failed", failed, 0)
        v.at_most("RSS of rank 0", job.sample()["rss"], 350, "MB")
        v.add("bytes of a connection (mean)", f"{(job.sample()['rss'] - base['rss']) * 2 ** 20 / len(sockets):.0f}")
        v.at_most("/health on a kept connection, p99", quantile(times, 0.99), 20, "ms")
        v.at_most("/health on a new connection, p99", quantile(fresh, 0.99), 20, "ms")
        v.at_most("CPU while all are silent", 100 * cpu, 5, "% of a core")
        began = time.monotonic()
        with connect(job.port, post({"prompt": "hi", "max_tokens": 4})) as s:
            v.equal("a completion beside them", read_answer(s)[0], 200)
        for s in sockets:
            s.close()
        while job.sample()["fds"] > base["fds"] + 2 and time.monotonic() - began < 20:
            time.sleep(0.1)
        v.at_most("descriptors left afterwards", job.sample()["fds"] - base["fds"], 2)
        v.at_most("RSS left afterwards", settled(job) - base["rss"], 40, "MB")
        floods(job, v, min(3000, n), base["rss"])
    raise SystemExit(v.finish())


if __name__ == "__main__":
    main()
