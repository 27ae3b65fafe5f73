# SPDX-License-Identifier: Apache-2.0
"""1,000 streams at once: the longest silence of any, and how evenly they are served.

Stalls are judged beside the compute: the time between two events of a stream can never be shorter than a step of so
many sequences, which is measured too (wall time over steps).  Fairness: tokens that each stream has got when the first
ones are two thirds through.
"""

import argparse
import selectors
import time

from common import Job, Verdict, connect, endless, post, quantile


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-n", type=int, default=1000, help="streams (default 1000)")
    p.add_argument("--tokens", type=int, default=60, help="tokens of each (default 60)")
    a = p.parse_args()
    v = Verdict(f"{a.n} streams at once")
    with Job("--max-num-seqs", str(a.n), "--max-num-batched-tokens", str(max(2048, 2 * a.n)),
             "--kv-cache-memory-bytes", "512M") as job:
        job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 4})
        sel = selectors.DefaultSelector()
        sockets = [connect(job.port, timeout=120) for _ in range(a.n)]
        data = post(endless(max_tokens=a.tokens))
        began = time.perf_counter()
        for i, s in enumerate(sockets):
            s.sendall(data)
            s.setblocking(False)
            sel.register(s, selectors.EVENT_READ, i)
        got, last, stalls, tail = [0] * a.n, [None] * a.n, [], [b""] * a.n
        done, fair, first, steps0, at0 = 0, None, [], None, None
        while done < a.n and time.perf_counter() - began < 300:
            for key, _ in sel.select(1):
                i, piece = key.data, key.fileobj.recv(65536)
                now = time.perf_counter()
                got[i] += piece.count(b'"text":')
                if last[i] is None:
                    first.append(now - began)
                elif len(first) == a.n:
                    stalls.append(now - last[i])
                last[i], tail[i] = now, (tail[i] + piece)[-40:]
                if b"data: [DONE]" in tail[i] or not piece:
                    done += 1
                    sel.unregister(key.fileobj)
            if len(first) == a.n and steps0 is None:
                m, base = job.metrics(), list(got)
                steps0, at0 = m["iteration_tokens_total_count"], time.perf_counter()
            if fair is None and steps0 is not None and max(got) >= a.tokens - 10:
                fair = [x - y for x, y in zip(got, base)]
                m, at1 = job.metrics(), time.perf_counter()
        wall = time.perf_counter() - began
        m1 = m["iteration_tokens_total_count"]
        step = (at1 - at0) / max(m1 - (steps0 or 0), 1) if steps0 is not None else float("nan")
        print(f"{sum(got)} events of {a.n * a.tokens} tokens in {wall:.1f} s ({a.n * a.tokens / wall:.0f} tokens/s); first event after "
              f"{first[0]:.2f} to {first[-1]:.2f} s; a step took {1e3 * step:.0f} ms in the mean")
        print(f"gaps when all run: p50 {1e3 * quantile(stalls, 0.5):.0f}, p99 {1e3 * quantile(stalls, 0.99):.0f}, "
              f"max {1e3 * max(stalls):.0f} ms")
        v.equal("streams that came to their end", done, a.n)
        v.at_most("longest gap beyond a step", max(stalls) - step, 1, "s")
        v.at_most("tokens of the first over the last", max(fair) / max(min(fair), 1), 1.2)
        for s in sockets:
            s.close()
        job.wait("kv_cache_usage_perc", 0)
    raise SystemExit(v.finish())


if __name__ == "__main__":
    main()
