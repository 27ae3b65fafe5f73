# SPDX-License-Identifier: Apache-2.0
"""Streamed tokens per second through HTTP with a model that computes nothing (--device null), and what they cost.

Clients read as fast as they can; a client that is behind gets several tokens in one event, which is counted, too.  The
processor time of the server is given per token and thread, from /proc.
"""

import argparse
import selectors
import time

from common import Job, Verdict, connect, endless, post


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-n", type=int, default=64, help="streams at once (default 64)")
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--chat", action="store_true", help="chat instead of completions")
    p.add_argument("--device", default="null")
    a = p.parse_args()
    v = Verdict(f"{a.n} streams of a model that computes nothing")
    body = endless(max_tokens=1000)
    path, mark = "/v1/completions", b'"text":'
    if a.chat:
        body["messages"], path, mark = [{"role": "user", "content": body.pop("prompt")}], "/v1/chat/completions", b'"content":'
    data = post(body, path)
    with Job("--device", a.device, "--max-num-seqs", str(a.n), "--kv-cache-memory-bytes", "512M", ranks=1) as job:
        sel, tails, n_bytes, n_events = selectors.DefaultSelector(), {}, 0, 0
        for _ in range(a.n):
            s = connect(job.port, data)
            s.setblocking(False)
            sel.register(s, selectors.EVENT_READ)
        time.sleep(0.5)
        start, at, cpu = job.metrics(), time.perf_counter(), job.threads()
        while time.perf_counter() - at < a.seconds:
            for key, _ in sel.select(1):
                s = key.fileobj
                piece = s.recv(1 << 20)
                n_bytes, n_events = n_bytes + len(piece), n_events + piece.count(mark)
                tail = (tails.get(s, b"") + piece)[-40:]
                if tail.endswith(b"0\r\n\r\n"):
                    tail = b""
                    s.sendall(data)
                tails[s] = tail
        end, took = job.metrics(), time.perf_counter() - at
        n = end["generation_tokens_total"] - start["generation_tokens_total"]
        after = job.threads()
        print(f"{n / took:.0f} tokens/s in {n_events / took:.0f} events/s, {n_bytes / took / 1e6:.1f} MB/s")
        for t, (name, seconds) in sorted(after.items(), key=lambda x: -x[1][1]):
            used = seconds - cpu.get(t, ("", 0))[1]
            if used > 0.02 * took:
                print(f"  thread {t - job.pid:3} {name:16} {100 * used / took:5.1f} % of a core, {1e6 * used / n:.2f} us per token")
        v.at_least("streamed tokens per second", n / took, 100000)
        for key in list(sel.get_map().values()):
            key.fileobj.close()
        job.wait("num_requests_running", 0)
    raise SystemExit(v.finish())


if __name__ == "__main__":
    main()
