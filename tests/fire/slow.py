# SPDX-License-Identifier: Apache-2.0
"""Clients that are slow on purpose: readers of a stream, readers of a long answer, senders of headers and of bodies.

In each part slow clients hold on for as long as the server lets them while 20 ordinary streams run; measured are when
the slow ones were cut off, how the gaps between the ordinary streams' events changed, and the server's memory.
"""

import argparse
import select
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


def send_one(s):
    s.send(b"a")


def read_one(s):
    return s.recv(1) != b""


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-n", type=int, default=200, help="slow clients of each kind (default 200)")
    a = p.parse_args()
    v = Verdict(f"{a.n} slow clients of each kind beside {NORMAL} ordinary streams")
    big = endless(max_tokens=1900, logprobs=20)
    with Job("--max-num-seqs", "256", "--kv-cache-memory-bytes", "512M") as job:
        alone(job, 3)
        base, _ = alone(job, 6)
        part(job, v, "slow headers", lambda i: connect(job.port, b"GET /health HTTP/1.1\r\nX-A: "), send_one, a.n, base,
             11.5, 20)
        head = post(endless(prompt="a" * 5000))
        part(job, v, "slow bodies", lambda i: connect(job.port, head[:-4900]), send_one, a.n, base, 12, 70)
        part(job, v, "slow readers of streams", lambda i: connect(job.port, post(big), 4096), read_one, a.n, base, 40, 80)
        whole = {**big, "stream": False, "max_tokens": 400}
        part(job, v, "slow readers of answers", lambda i: connect(job.port, post(whole), 4096), read_one, a.n, base, 60, 80)
        status = job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 1})[0]
        v.equal("a request afterwards", status, 200)
    raise SystemExit(v.finish())


if __name__ == "__main__":
    main()
