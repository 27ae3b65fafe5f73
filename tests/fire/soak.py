# SPDX-License-Identifier: Apache-2.0
"""Mixed load for half an hour: does anything grow?

Chat and completions, streamed and whole, short and long, n of 1 to 3, prompts that share a beginning; one request in a
hundred is left by its client, one in a hundred is bad (broken JSON, wrong types, ill-formed HTTP).  Every few seconds
memory, descriptors (less the connections that clients hold at the moment), threads and blocks of rank 0 are sampled;
slopes come from least squares over the samples after the warm-up.  A few answers are asked for again and again and must
stay the same.
"""

import argparse
import json
import pathlib
import random
import threading
import time

from common import Job, Verdict, connect, leave, post, read_answer

WORDS = "the river a house of light and water in every small city under snow we have seen before".split()
SYSTEM = "You are a careful helper that answers in few words. " * 8
BAD = [b"{", b"[]", b'{"prompt":5}', b'{"prompt":"x","max_tokens":-1}', b'{"prompt":"x","temperature":"hot"}', b"\xff\xfe",
       b'{"prompt":"x","n":1000}', b'{"messages":{}}', b'{"prompt":"' + b"a" * 200000 + b'"}', b"[" * 10000]


def good(rng):
    """Path and body of an ordinary request."""
    n_words = rng.choice([1, 5, 20, 100, 300])
    text = " ".join(rng.choices(WORDS, k=rng.randint(1, n_words)))
    body = {"max_tokens": rng.choice([1, 8, 32, 64, 200]), "temperature": rng.choice([0, 0.7, 1.0]),
            "stream": rng.random() < 0.7, "n": rng.choice([1, 1, 1, 1, 2, 3])}
    if body["stream"] and rng.random() < 0.3:
        body["stream_options"] = {"include_usage": True}
    if rng.random() < 0.1:
        body["logprobs"] = True
        if rng.random() < 0.5:
            body["top_logprobs"] = 3
    if rng.random() < 0.2:
        body["stop"] = ["the", "\n\n"]
    if rng.random() < 0.6:
        body["messages"] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        return "/v1/chat/completions", body
    body.pop("top_logprobs", None)
    if "logprobs" in body:
        body["logprobs"] = 2
    body["prompt"] = text
    return "/v1/completions", body


class Soak:
    def __init__(self, port):
        self.port, self.stop, self.lock = port, False, threading.Lock()
        self.counts = {k: 0 for k in ("answered", "streamed", "left", "bad", "refused")}
        self.wrong, self.known = [], {}

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def one_bad(self, rng):
        if rng.random() < 0.2:
            with connect(self.port, rng.choice([b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 50 + b"\r\n\r\n",
                                                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                                                b"Transfer-Encoding: chunked\r\n\r\n"])) as s:
                s.settimeout(15)
                s.recv(1000)
            return
        raw = rng.choice(BAD)
        with connect(self.port, b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(raw) + raw) as s:
            status = read_answer(s)[0]
            if not 400 <= status < 500:
                self.wrong.append(f"{raw[:50]!r} -> {status}")

    def one_stream(self, s, body):
        raw = b""
        while b"data: [DONE]" not in raw[-200:]:
            piece = s.recv(65536)
            if not piece:
                self.wrong.append(f"a stream ended early: {raw[-200:]!r}")
                return
            raw += piece
            if raw.startswith(b"HTTP/1.1 429") and raw.endswith(b"}"):
                self.count("refused")
                return
        if b'"error"' in raw or raw.count(b'"finish_reason":"') != body["n"]:
            self.wrong.append(f"{body}: {raw[-300:]!r}")
        self.count("streamed")

    def one_whole(self, s, path, body):
        status, _, raw = read_answer(s)
        if status == 429:
            self.count("refused")
            return
        answer = json.loads(raw)
        if status != 200 or len(answer["choices"]) != body["n"]:
            self.wrong.append(f"{path} {str(body)[:200]} -> {status} {raw[:300]!r}")
        self.count("answered")

    def one_known(self, rng):
        """A greedy request whose answer is known from the first time."""
        prompt = f"Word {rng.randrange(8)} is"
        with connect(self.port, post({"prompt": prompt, "max_tokens": 24, "temperature": 0})) as s:
            status, _, raw = read_answer(s)
        if status == 429:
            return
        text = json.loads(raw)["choices"][0]["text"]
        with self.lock:
            if self.known.setdefault(prompt, text) != text:
                self.wrong.append(f"{prompt}: {text!r} was {self.known[prompt]!r}")

    def one_good(self, rng):
        path, body = good(rng)
        s = connect(self.port, post(body, path))
        try:
            if rng.random() < 0.011:
                time.sleep(rng.random() * 0.05)
                leave(s, rng.choice(["fin", "rst"]))
                self.count("left")
            elif body["stream"]:
                self.one_stream(s, body)
            else:
                self.one_whole(s, path, body)
        finally:
            s.close()

    def run(self, seed, pause):
        rng = random.Random(seed)
        while not self.stop:
            try:
                dice = rng.random()
                if dice < 0.01:
                    self.one_bad(rng)
                    self.count("bad")
                elif dice < 0.06:
                    self.one_known(rng)
                else:
                    self.one_good(rng)
            except (OSError, ValueError) as e:
                self.wrong.append(repr(e))
            time.sleep(rng.expovariate(1 / pause) if pause else 0)


def slope(points):
    """Least squares: units per hour."""
    if len(points) < 3:
        return float("nan")
    n = len(points)
    mx, my = sum(p[0] for p in points) / n, sum(p[1] for p in points) / n
    return 3600 * sum((x - mx) * (y - my) for x, y in points) / sum((x - mx) ** 2 for x, _ in points)


def connected(port):
    """Connections of clients that the server holds and that nobody has closed."""
    rows = (line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(f[3] == "01" and int(f[1].split(":")[1], 16) == port for f in rows)


def sample(job, began):
    m, s = job.metrics(), job.sample()
    return {"t": time.monotonic() - began, **s, "own_fds": s["fds"] - connected(job.port), "running": m["num_requests_running"], "waiting": m["num_requests_waiting"],
            "cache": m["kv_cache_usage_perc"], "tokens": m["generation_tokens_total"]}


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--seconds", type=float, default=1800, help="default 1800")
    p.add_argument("--warm-up", type=float, default=600,
                   help="seconds left out of the slopes, while cache blocks are touched for the first time (default 600)")
    p.add_argument("--width", type=int, default=8, help="clients at once (default 8)")
    p.add_argument("--pause", type=float, default=0.0, help="mean seconds between two requests of a client")
    p.add_argument("--every", type=float, default=5, help="seconds between samples (default 5)")
    p.add_argument("--csv", help="file for the samples")
    a = p.parse_args()
    v = Verdict(f"{a.seconds:g} s of mixed load, {a.width} clients")
    with Job("--max-num-seqs", "32", "--max-num-queued-reqs", "64", "--kv-cache-memory-bytes", "32M") as job:
        soak, samples = Soak(job.port), []
        job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 4})
        start, began = job.metrics(), time.monotonic()
        threads = [threading.Thread(target=soak.run, args=(i, a.pause)) for i in range(a.width)]
        for t in threads:
            t.start()
        while (now := time.monotonic() - began) < a.seconds:
            samples.append(sample(job, began))
            if len(samples) % max(int(60 / a.every), 1) == 0:
                x = samples[-1]
                print(f"{now:6.0f} s  RSS {x['rss']:.1f} MB  fds {x['fds']}  threads {x['threads']}  running {x['running']:.0f}  "
                      f"cache {100 * x['cache']:.0f} %  {soak.counts}  wrong {len(soak.wrong)}", flush=True)
            time.sleep(a.every)
        soak.stop = True
        for t in threads:
            t.join(60)
        job.wait("num_requests_running", 0)
        job.wait("num_requests_waiting", 0)
        time.sleep(1)
        end, last = job.metrics(), sample(job, began)
        late = [x for x in samples if x["t"] >= a.warm_up] or samples
        half = [x for x in late if x["t"] >= (late[0]["t"] + late[-1]["t"]) / 2]
        if a.csv:
            with open(a.csv, "w", encoding="ascii") as f:
                f.write(",".join(samples[0]) + "\n")
                f.writelines(",".join(f"{x:.6g}" for x in row.values()) + "\n" for row in samples)
        total = sum(soak.counts.values())
        print(f"{total} requests: {soak.counts}; {end['generation_tokens_total'] - start['generation_tokens_total']:.0f} tokens, "
              f"{end['num_preemptions_total']:.0f} preemptions, {end['requests_cancelled_total']:.0f} cancelled")
        print(f"RSS {late[0]['rss']:.1f} to {late[-1]['rss']:.1f} MB after the warm-up (second half: "
              f"{slope([(x['t'], x['rss']) for x in half]):+.2f} MB/h)")
        v.at_most("RSS, slope", slope([(x["t"], x["rss"]) for x in late]), 1, "MB/h")
        v.at_most("descriptors beside clients' connections, slope", abs(slope([(x["t"], x["own_fds"]) for x in late])), 1, "/h")
        v.equal("threads, fewest and most", (min(x["threads"] for x in late), max(x["threads"] for x in late)),
                (late[0]["threads"],) * 2)
        v.equal("blocks in use at the end", end["kv_cache_usage_perc"], 0)
        v.equal("descriptors at the end beyond the start", last["fds"] - samples[0]["fds"] > a.width, False)
        v.add("share left, share bad (%)", f"{100 * soak.counts['left'] / total:.2f}, {100 * soak.counts['bad'] / total:.2f}")
        v.equal("answers that were wrong", len(soak.wrong), 0)
        for w in soak.wrong[:5]:
            print("  wrong:", w)
        v.equal("errors in the log", job.log().count(" error "), 0)
    raise SystemExit(v.finish())


if __name__ == "__main__":
    main()
