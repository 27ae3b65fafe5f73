# SPDX-License-Identifier: Apache-2.0
"""Clients that are slow on purpose: readers of a stream, readers of a long answer, senders of headers and of bodies.

In each part slow clients hold on for as long as the server lets them while 20 ordinary streams run; measured are when
the slow ones were cut off, how the gaps between the ordinary streams' events changed, and the server's memory.

Streams that nobody reads must also be computed, which makes gaps longer.  So what slow reading costs the others is judged
against as many readers that are fast: the same streams, the same compute, in turns.  And readers that do read, however
seldom the scheduler lets them, are never cut off: they read beside busy loops.
"""

import argparse
import multiprocessing
import os
import select
import selectors
import statistics
import threading
import time

from common import Job, Verdict, connect, endless, post, quantile

NORMAL = 20


class Normal:
    """Ordinary streams, one after the other, on NORMAL threads; gaps between their reads."""

    def __init__(self, port):
        self.port, self.gaps, self.failed, self.stop = port, [], [], False
        self.threads = [threading.Thread(target=self.run) for _ in range(NORMAL)]
        for t in self.threads:
            t.start()

    def run(self):
        while not self.stop:
            try:
                s = connect(self.port, post(endless(max_tokens=200)))
                raw, last = b"", None
                while b"data: [DONE]" not in raw[-100:]:
                    piece = s.recv(65536)
                    now = time.perf_counter()
                    if not piece:
                        raise ConnectionError("closed")
                    if last is not None:
                        self.gaps.append(now - last)
                    last, raw = now, raw + piece
                s.close()
            except OSError as e:
                self.failed.append(repr(e))
                return

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join()
        return 1e3 * quantile(self.gaps, 0.99), len(self.gaps)


def alone(job, seconds):
    normal = Normal(job.port)
    time.sleep(seconds)
    return normal.end()


def hold(job, sockets, each_second, seconds):
    """Calls each_second for every socket that is still open, until none is left; when each was cut off."""
    began, cut, open_ = time.monotonic(), {}, dict(enumerate(sockets))
    rss, poll = job.sample()["rss"], select.poll()
    for i, s in open_.items():
        poll.register(s, 0)  # errors and hang-ups only
    numbers = {s.fileno(): i for i, s in open_.items()}
    while open_ and time.monotonic() - began < seconds:
        end = time.monotonic() + 1
        for i, s in list(open_.items()):
            try:
                if each_second(s) is False:
                    raise ConnectionError
            except BlockingIOError:
                pass
            except OSError:
                cut.setdefault(i, time.monotonic() - began)
        while (left := end - time.monotonic()) > 0:
            for fd, _ in poll.poll(1e3 * left):
                cut.setdefault(numbers[fd], time.monotonic() - began)
                poll.unregister(fd)
            for i in list(open_):
                if i in cut:
                    try:
                        poll.unregister(open_[i])
                    except (KeyError, ValueError):
                        pass
                    del open_[i]
            if not open_:
                break
        rss = max(rss, job.sample()["rss"])
    for s in sockets:
        s.close()
    return sorted(cut.values()), rss


def part(job, v, name, make, each_second, n, base, bound_s, seconds):
    before = job.sample()["rss"]
    normal = Normal(job.port)
    time.sleep(1)
    sockets = []
    for i in range(n):
        s = make(i)
        s.setblocking(False)
        sockets.append(s)
    cut, rss = hold(job, sockets, each_second, seconds)
    p99, gaps = normal.end()
    print(f"{name}: {len(cut)} of {n} cut off, after {cut[0] if cut else 0:.1f} to {cut[-1] if cut else 0:.1f} s; "
          f"{gaps} gaps of ordinary streams, p99 {p99:.1f} ms (alone {base:.1f}); RSS +{rss - before:.0f} MB")
    v.equal(f"{name}: cut off", len(cut), n)
    v.at_most(f"{name}: the last one after", cut[-1] if cut else float("inf"), bound_s, "s")
    v.at_most(f"{name}: RSS", rss - before, 64, "MB")
    v.equal(f"{name}: ordinary streams that failed", len(normal.failed), 0)
    v.add(f"{name}: gap of ordinary streams, p99 over alone", f"{p99 / base:.2f}")
    job.wait("num_requests_running", 0)
    job.wait("kv_cache_usage_perc", 0)


# ---- the same streams, read slowly and fast ----


def read_all(port, data, n, slowly, started, stop):
    """A process: n streams, each read a byte a second, or as fast as it comes.  How many came to their end."""
    sockets, sel, ended = [connect(port, data, 4096 if slowly else None) for _ in range(n)], selectors.DefaultSelector(), 0
    for s in sockets:
        s.setblocking(False)
        sel.register(s, selectors.EVENT_READ, b"")
    started.set()
    while not stop.is_set() and sel.get_map():
        if slowly:
            for s in sockets:
                try:
                    s.recv(1)
                except OSError:
                    pass
            stop.wait(1)
            continue
        for key, _ in sel.select(0.5):
            piece = key.fileobj.recv(1 << 20)
            tail = (key.data + piece)[-40:]
            if piece and b"data: [DONE]" not in tail:
                sel.modify(key.fileobj, selectors.EVENT_READ, tail)
                continue
            ended += b"data: [DONE]" in tail
            sel.unregister(key.fileobj)
    for s in sockets:
        s.close()
    return ended


def count_ends(out, *args):
    out.put(read_all(*args))


def beside(job, n, slowly, seconds):
    """p50 and p99 of the ordinary streams' gaps in ms, and steps per second, while n others run."""
    out, started, stop = multiprocessing.Queue(), multiprocessing.Event(), multiprocessing.Event()
    others = multiprocessing.Process(target=count_ends, args=(out, job.port, post(endless(max_tokens=1900)), n, slowly, started,
                                                             stop))
    others.start()
    started.wait()
    job.wait("num_requests_running", n)
    normal = Normal(job.port)
    time.sleep(1)
    normal.gaps.clear()
    before, at = job.metrics(), time.monotonic()
    time.sleep(seconds)
    gaps, after, took = list(normal.gaps), job.metrics(), time.monotonic() - at
    running = after["num_requests_running"]
    stop.set()
    out.get()
    others.join()
    normal.end()
    job.wait("num_requests_running", 0)
    if running < n:
        print(f"  only {running:.0f} ran at the end: the window is too long for this machine")
    steps = (after["iteration_tokens_total_count"] - before["iteration_tokens_total_count"]) / took
    return 1e3 * quantile(gaps, 0.5), 1e3 * quantile(gaps, 0.99), steps


def compare(job, v, n, rounds, seconds=5):
    """Slow before they are cut off (10 s) against fast, in turns."""
    seen = {True: [], False: []}
    for i in range(2 * rounds):
        slowly = i % 2 == 0
        seen[slowly].append(beside(job, n, slowly, seconds))
        p50, p99, steps = seen[slowly][-1]
        print(f"beside {n} {'slow' if slowly else 'fast'} readers: gaps p50 {p50:.1f}, p99 {p99:.1f} ms, {steps:.0f} steps/s", flush=True)
    ratio = [statistics.median(x[i] for x in seen[True]) / statistics.median(x[i] for x in seen[False]) for i in range(3)]
    v.at_most("gap of ordinary streams beside slow readers over beside fast ones, p50", ratio[0], 1.1)
    v.at_most("gap of ordinary streams beside slow readers over beside fast ones, p99", ratio[1], 1.1)
    v.add("steps a second beside slow readers over beside fast ones", f"{ratio[2]:.2f}")


def busy_loop():
    while True:
        pass


def steady(job, v, n, loops):
    """n streams with much text in each event, read as well as the scheduler lets the reader."""
    cut = job.metrics()["connections_cut_total{slow_reader}"]
    hogs = [multiprocessing.Process(target=busy_loop, daemon=True) for _ in range(loops)]
    for h in hogs:
        h.start()
    began, wait = time.monotonic(), threading.Event()
    ended = read_all(job.port, post(endless(max_tokens=1000, logprobs=20)), n, False, threading.Event(), wait)
    print(f"{n} readers beside {loops} busy loops: {time.monotonic() - began:.0f} s")
    for h in hogs:
        h.terminate()
        h.join()
    cut = job.metrics()["connections_cut_total{slow_reader}"] - cut
    v.equal(f"{n} readers that read beside {loops} busy loops: came to their end", ended, n)
    v.equal(f"{n} readers that read beside {loops} busy loops: cut off", cut, 0)


# ---- the parts ----


def send_one(s):
    s.send(b"a")


def read_one(s):
    return s.recv(1) != b""


def cut_all(job, v, n):
    big = endless(max_tokens=1900, logprobs=20)
    alone(job, 3)
    base, _ = alone(job, 6)
    part(job, v, "slow headers", lambda i: connect(job.port, b"GET /health HTTP/1.1\r\nX-A: "), send_one, n, base, 11.5, 20)
    head = post(endless(prompt="a" * 5000))
    part(job, v, "slow bodies", lambda i: connect(job.port, head[:-4900]), send_one, n, base, 12, 70)
    part(job, v, "slow readers of streams", lambda i: connect(job.port, post(big), 4096), read_one, n, base, 40, 80)
    whole = {**big, "stream": False, "max_tokens": 400}
    part(job, v, "slow readers of answers", lambda i: connect(job.port, post(whole), 4096), read_one, n, base, 60, 80)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-n", type=int, default=200, help="slow clients of each kind (default 200)")
    p.add_argument("--rounds", type=int, default=3, help="of slow and fast readers in turns (default 3)")
    p.add_argument("--loops", type=int, default=8 * os.cpu_count(), help="busy loops beside steady readers (default 8 a core)")
    p.add_argument("--parts", default="cut,compare,steady", help="which (default cut,compare,steady)")
    a = p.parse_args()
    v = Verdict(f"{a.n} slow clients of each kind beside {NORMAL} ordinary streams")
    with Job("--max-num-seqs", "256", "--kv-cache-memory-bytes", "512M") as job:
        if "cut" in a.parts:
            cut_all(job, v, a.n)
        if "compare" in a.parts:
            compare(job, v, a.n, a.rounds)
        if "steady" in a.parts:
            steady(job, v, 50, a.loops)
        status = job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 1})[0]
        v.equal("a request afterwards", status, 200)
    raise SystemExit(v.finish())


if __name__ == "__main__":
    main()
