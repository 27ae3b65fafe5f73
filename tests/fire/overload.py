# SPDX-License-Identifier: Apache-2.0
"""Ten times more than the server can do: the excess is refused at once, the rest is served as fast as before.

First the saturation: as many clients as run and half the queue, each asking again when answered.  Then requests at ten
times that rate, whether or not earlier ones were answered, from clients that do not come back when refused; beside them
OpenAI SDK clients with their default two retries, and a prober that times refusals one by one.  Then saturation again.
"""

import argparse
import asyncio
import multiprocessing
import random
import time

from common import Job, Verdict, connect, endless, post, quantile, read_answer


class Client(asyncio.Protocol):
    """One connection: a request, the answer, and what `done` makes of it."""

    def __init__(self, run):
        self.run, self.transport, self.raw = run, None, b""
        self.at = self.first = None

    def connection_made(self, transport):
        self.transport = transport

    def ask(self):
        self.raw, self.at, self.first = b"", time.perf_counter(), None
        self.transport.write(self.run.data)

    def data_received(self, data):
        if self.first is None and b"data: " in data:
            self.first = time.perf_counter() - self.at
        self.raw = (self.raw + data)[-4096:] if self.first else self.raw + data
        if self.first is None and b"\r\n\r\n" in self.raw and not self.raw.startswith(b"HTTP/1.1 200"):
            if self.raw.endswith(b"}"):
                self.run.refused(self)
        elif b"data: [DONE]" in self.raw and self.raw.endswith(b"0\r\n\r\n"):
            self.run.answered(self)

    def connection_lost(self, exc):
        self.run.lost(self)


class Load:
    """Requests over connections that are kept; answers counted while `counting`."""

    def __init__(self, port, tokens, seed=1):
        self.port, self.rng = port, random.Random(seed)
        self.data = post(endless(max_tokens=tokens))
        self.free, self.n_refused, self.n_answered, self.n_lost = [], 0, 0, 0
        self.first, self.without_retry_after, self.again = [], 0, False

    def answered(self, c):
        c.at = None  # a connection that waits may be closed
        self.n_answered += 1
        self.first.append(c.first)
        self.next(c)

    def refused(self, c):
        c.at = None
        self.n_refused += 1
        head = c.raw.lower()
        self.without_retry_after += b"\r\nretry-after: " not in head or not c.raw.startswith(b"HTTP/1.1 429")
        self.next(c)

    def next(self, c):
        if self.again:
            c.ask()
        else:
            self.free.append(c)

    def lost(self, c):
        if c.at is not None and self.data:
            self.n_lost += 1

    async def connection(self):
        while self.free:
            c = self.free.pop()
            if not c.transport.is_closing():
                return c
        _, c = await asyncio.get_running_loop().create_connection(lambda: Client(self), "127.0.0.1", self.port)
        return c

    async def closed(self, width, seconds):
        """`width` clients that ask again when answered."""
        self.again = True
        clients = [await self.connection() for _ in range(width)]
        for c in clients:
            c.ask()
        await asyncio.sleep(seconds)
        self.again = False

    async def open(self, rate, seconds):
        """Poisson arrivals."""
        due, end = time.perf_counter(), time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            if due > now:
                await asyncio.sleep(due - now)
            due += self.rng.expovariate(rate)
            (await self.connection()).ask()


def probe(port, seconds, out):
    """Times refusals, one after the other; what is accepted by chance is left at once."""
    times, end, data = [], time.monotonic() + seconds, post({"prompt": "hi", "max_tokens": 1})
    s = connect(port)
    while time.monotonic() < end:
        time.sleep(0.02)
        at = time.perf_counter()
        s.sendall(data)
        status, headers, _ = read_answer(s)
        if status == 429:
            times.append((1e3 * (time.perf_counter() - at), int(headers["retry-after-ms"])))
    out.put(times)


def sdk(port, seconds, width, tokens, out):
    """Threads of the official client, as it comes out of its box."""
    import threading

    import openai

    ok, failed = [], []

    def run():
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            at = time.monotonic()
            try:
                client.completions.create(model="demo", prompt="hi", max_tokens=tokens)
                ok.append(time.monotonic() - at)
            except openai.OpenAIError as e:
                failed.append(repr(e)[:200])

    threads = [threading.Thread(target=run) for _ in range(width)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    out.put((ok, failed))


async def watch(job, seen, stop):
    while not stop.is_set():
        seen.append((await asyncio.to_thread(job.metrics))["num_requests_waiting"])
        await asyncio.sleep(0.1)


async def measured(job, what, work):
    """Runs `work`; tokens and requests that the server finished per second meanwhile."""
    a, at, cpu, mine = job.metrics(), time.perf_counter(), job.threads(), time.process_time()
    await work
    b, took, mine = job.metrics(), time.perf_counter() - at, time.process_time() - mine
    used = sorted(((s - cpu.get(t, ("", 0))[1], n) for t, (n, s) in job.threads().items()), reverse=True)
    print(f"{what}: threads of rank 0 in % of a core: " +
          ", ".join(f"{n} {100 * u / took:.1f}" for u, n in used if u > 0.005 * took) +
          f"; the load generator {100 * mine / took:.1f}")
    tokens = b["generation_tokens_total"] - a["generation_tokens_total"]
    return (tokens / took, (b["request_success_total{length}"] - a["request_success_total{length}"]) / took,
            tokens / max(sum(u for u, _ in used), 0.01))


async def run(job, a, v):
    width = a.seqs + a.queue // 2
    calm = Load(job.port, a.tokens)
    await calm.closed(width, 2)
    before = await measured(job, "saturation", calm.closed(width, a.calm))
    await asyncio.sleep(1)
    rate = a.factor * before[1]
    flood, seen, stop = Load(job.port, a.tokens, 2), [], asyncio.Event()
    out = multiprocessing.Queue(), multiprocessing.Queue()
    helpers = [multiprocessing.Process(target=probe, args=(job.port, a.seconds, out[0])),
               multiprocessing.Process(target=sdk, args=(job.port, a.seconds - 5, a.sdk, a.tokens, out[1]))]
    watcher = asyncio.create_task(watch(job, seen, stop))
    for h in helpers:
        h.start()
    during = await measured(job, "overload", flood.open(rate, a.seconds))
    refusals = await asyncio.to_thread(out[0].get)
    pause = asyncio.create_task(flood.open(rate, 1e9))  # the flood goes on until the last SDK client is served
    ok, failed = await asyncio.to_thread(out[1].get)
    pause.cancel()
    stop.set()
    await watcher
    await asyncio.sleep(2)
    after = await measured(job, "saturation", calm.closed(width, a.calm))
    await asyncio.sleep(1)
    for h in helpers:
        h.join()
    saturation = (before[0] + after[0]) / 2
    offered = flood.n_answered + flood.n_refused
    print(f"saturation {before[0]:.0f} and {after[0]:.0f} tokens/s ({before[1]:.1f}, {after[1]:.1f} requests/s); offered "
          f"{rate:.0f} requests/s for {a.seconds} s: {flood.n_answered} answered, {flood.n_refused} refused, {during[0]:.0f} tokens/s")
    print(f"first token of accepted requests: p50 {1e3 * quantile(flood.first, 0.5):.0f}, p99 "
          f"{1e3 * quantile(flood.first, 0.99):.0f} ms (at saturation {1e3 * quantile(calm.first, 0.5):.0f}, "
          f"{1e3 * quantile(calm.first, 0.99):.0f})")
    print(f"SDK: {len(ok)} requests of {a.sdk} clients, p50 {quantile(ok, 0.5):.1f}, max {max(ok, default=0):.1f} s; "
          f"{len(failed)} failed {failed[:1]}")
    print(f"Retry-After: p50 {quantile([r[1] for r in refusals], 0.5)}, max {max(r[1] for r in refusals)} ms")
    v.at_least("goodput over saturation", during[0] / saturation, 0.95)
    v.add("  the same per processor second of rank 0", f"{2 * during[2] / (before[2] + after[2]):.4g}")
    v.at_most("time to refuse, p50", quantile([r[0] for r in refusals], 0.5), 50, "ms")
    v.at_most("time to refuse, p99", quantile([r[0] for r in refusals], 0.99), 50, "ms")
    v.equal("refusals without 429 or Retry-After", flood.without_retry_after, 0)
    v.at_most("sequences that waited, at most", max(seen), a.queue)
    v.at_most("first token of accepted requests, p99, over saturation",
              quantile(flood.first, 0.99) / quantile(calm.first, 0.99), 3)
    v.equal("requests lost", flood.n_lost, 0)
    v.at_least("SDK requests that were answered, of 100", 100 * len(ok) / max(len(ok) + len(failed), 1), 100)
    v.at_least("share refused", flood.n_refused / max(offered, 1), 0.5)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--seconds", type=int, default=60, help="of overload (default 60)")
    p.add_argument("--calm", type=int, default=10, help="seconds of saturation before and after (default 10)")
    p.add_argument("--factor", type=float, default=10, help="offered over saturation (default 10)")
    p.add_argument("--tokens", type=int, default=256, help="of each answer (default 256)")
    p.add_argument("--seqs", type=int, default=8, help="--max-num-seqs (default 8)")
    p.add_argument("--queue", type=int, default=16, help="--max-num-queued-reqs (default 16)")
    p.add_argument("--sdk", type=int, default=4, help="SDK clients (default 4)")
    a = p.parse_args()
    v = Verdict(f"overload: {a.factor:g} times capacity for {a.seconds} s")
    with Job("--max-num-seqs", str(a.seqs), "--max-num-queued-reqs", str(a.queue), "--served-model-name", "demo") as job:
        job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 4})
        asyncio.run(run(job, a, v))
        job.wait("num_requests_running", 0)
        job.wait("kv_cache_usage_perc", 0)
        v.equal("a request afterwards", job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 1})[0], 200)
    raise SystemExit(v.finish())


if __name__ == "__main__":
    main()
