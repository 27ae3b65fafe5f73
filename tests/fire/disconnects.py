# SPDX-License-Identifier: Apache-2.0
"""1,000 clients that leave, FIN and RST half each, at every phase of a request.

First one at a time, which gives a time per phase: from the close until /metrics shows no running or waiting sequence
and no block in use (the reads of /metrics included).  Then in waves of 20 at once.  Tokens wasted: what the engine
generated in all less what had come to the client when it left: also those that were on their way to a client that was
behind (notice.py tells them apart).  Last, 200 clients give up all at once.
"""

import argparse
import random
import re
import threading
import time

from common import LONG, Job, Verdict, connect, drain_ids, endless, leave, post, quantile

PHASES = ["headers", "body", "queued", "prefill", "decode", "n=4", "last token"]


def read_tokens(s, n, raw=b""):
    """Reads until n events with text have come."""
    while raw.count(b'"text":') < n:
        piece = s.recv(65536)
        if not piece:
            break
        raw += piece
    return raw


def reach(port, phase, rng):
    """A connection in the middle of its phase, and the tokens that it has read."""
    if phase == "headers":
        return connect(port, b"POST /v1/completions HTTP/1.1\r\nHost: loc"[:rng.randint(1, 40)]), 0
    if phase == "body":
        data = post(endless())
        return connect(port, data[:rng.randint(data.index(b"\r\n\r\n") + 5, len(data) - 1)]), 0
    if phase == "prefill":
        s = connect(port, post(endless(prompt=LONG, max_tokens=64)))
        time.sleep(rng.random() * 0.02)
        return s, 0
    if phase == "decode":
        s = connect(port, post(endless(return_token_ids=True)))
        return s, drain_ids(s, read_tokens(s, rng.randint(1, 50)))
    if phase == "n=4":
        s = connect(port, post(endless(n=4, temperature=1.0, seed=rng.randrange(1 << 30))))
        return s, read_tokens(s, rng.randint(1, 50)).count(b'"text":')
    if phase == "last token":
        n = rng.randint(2, 30)
        s = connect(port, post(endless(max_tokens=n)))
        return s, read_tokens(s, n - 1).count(b'"text":')
    return connect(port, post(endless())), 0  # queued


def idle(m):
    return m["num_requests_running"] == 0 and m["num_requests_waiting"] == 0 and m["kv_cache_usage_perc"] == 0


def time_to_free(job, since, seconds=20):
    while not idle(job.metrics()):
        if time.perf_counter() - since > seconds:
            raise TimeoutError("blocks are still in use after 20 s")
    return time.perf_counter() - since


def one_by_one(job, n, rng, v):
    times, wasted = {p: [] for p in PHASES}, []
    job.wait("num_requests_running", 0)
    for i in range(n):
        phase, how = PHASES[i % len(PHASES)], ("fin", "rst")[i // len(PHASES) % 2]
        before = job.metrics()["generation_tokens_total"]
        others = [connect(job.port, post(endless())) for _ in range(4)] if phase == "queued" else []
        for o in others:
            o.recv(100)
        s, seen = reach(job.port, phase, rng)
        if phase == "queued":
            job.wait("num_requests_waiting", 1)
            at = time.perf_counter()
            leave(s, how)
            while job.metrics()["num_requests_waiting"] != 0:
                pass
            times[phase].append(time.perf_counter() - at)
            for o in others:
                leave(o, how)
            time_to_free(job, time.perf_counter())
            continue
        at = time.perf_counter()
        leave(s, how)
        if phase == "prefill":
            time.sleep(0.002)  # what was sent may still be on its way to the engine
        times[phase].append(time_to_free(job, at))
        if phase == "decode":
            wasted.append(job.metrics()["generation_tokens_total"] - before - seen)
    print(f"{'phase':12}{'n':>6}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'max ms':>9}")
    for p in PHASES:
        t = [1e3 * x for x in times[p]]
        print(f"{p:12}{len(t):6}" + "".join(f"{quantile(t, q):9.2f}" for q in (0.5, 0.9, 0.99, 1)))
        v.at_most(f"{p}: time to free, p99", quantile(t, 0.99), 100, "ms")
    v.add("tokens beyond those that had come (p50, p99)", f"{quantile(wasted, 0.5):.0f}, {quantile(wasted, 0.99):.0f}")


def waves(job, n, rng, v):
    """Twenty at once, each leaving when it likes."""
    times, failed = [], []

    def run(phase, how, seed):
        try:
            mine = random.Random(seed)
            s, _ = reach(job.port, phase, mine)
            time.sleep(mine.random() * 0.05)
            leave(s, how)
        except OSError as e:
            failed.append(repr(e))

    for wave in range(n // 20):
        threads = [threading.Thread(target=run, args=(rng.choice(PHASES), ("fin", "rst")[i % 2], rng.randrange(1 << 30)))
                   for i in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        times.append(1e3 * time_to_free(job, time.perf_counter()))
        if failed:
            raise SystemExit(failed[0])
    print(f"{n // 20} waves of 20: the last one gone to everything free: p50 {quantile(times, 0.5):.2f}, "
          f"p99 {quantile(times, 0.99):.2f}, max {max(times):.2f} ms")
    v.at_most("20 at once: time to free, p99", quantile(times, 0.99), 100, "ms")


def give_up(job, n, rng, v):
    """All at once, for long answers, streamed or whole, and gone half a second later; then somebody asks for a token."""
    sockets = [connect(job.port, post(endless(stream=rng.random() < 0.5, prompt=f"{i} times")), timeout=60) for i in range(n)]
    time.sleep(0.5)
    for s in sockets:
        s.close()
    at = time.perf_counter()
    status = job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 1})[0]
    v.equal(f"{n} that give up after 0.5 s: the next request", status, 200)
    v.at_most(f"{n} that give up after 0.5 s: the next request's answer", time.perf_counter() - at, 5, "s")
    time_to_free(job, at)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-n", type=int, default=1000, help="disconnects (default 1000)")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    rng, v = random.Random(a.seed), Verdict(f"{a.n} disconnects")
    with Job("--max-num-seqs", "4", "--max-num-batched-tokens", "64") as job:
        start = job.metrics()
        one_by_one(job, a.n // 2, rng, v)
        waves(job, a.n - a.n // 2, rng, v)
        give_up(job, 200, rng, v)
        end = job.metrics()
        v.equal("blocks in use at the end", end["kv_cache_usage_perc"], 0)
        v.equal("sequences running or waiting at the end", end["num_requests_running"] + end["num_requests_waiting"], 0)
        v.add("requests cancelled", int(end["requests_cancelled_total"] - start["requests_cancelled_total"]))
        status = job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 1})[0]
        v.equal("a request afterwards", status, 200)
        v.equal("errors in the log", len(re.findall(r" error ", job.log())), 0)
    raise SystemExit(v.finish())


if __name__ == "__main__":
    main()
