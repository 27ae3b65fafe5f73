# SPDX-License-Identifier: Apache-2.0
"""Block accounting seen from outside: after 200 requests of every kind, left, refused or finished, all blocks are free.

A block that the prefix cache keeps counts as free, and must be: a request that needs the whole cache is then computed.
"""

import http.client
import json
import random
import threading

import pytest

from conftest import SANITIZED, Server, report

REQUESTS, THREADS = 40 if SANITIZED else 200, 8
BLOCKS, BLOCK, BLOCK_BYTES = 40, 16, 98304  # of the demo model on one rank
CONTEXT = BLOCKS * BLOCK
OPTIONS = ("--max-num-seqs", "12", "--max-model-len", str(CONTEXT), "--max-num-batched-tokens", "128",
           "--kv-cache-memory-bytes", str(BLOCKS * BLOCK_BYTES))
PREFIXES = ["The river and the house. " * 8, "One day she saw a small city under snow. " * 6, ""]


def make(i):
    """Request i: path, body, and how it is treated: read, left after some bytes, refused."""
    rng = random.Random(i)
    chat = rng.random() < 0.4
    text = PREFIXES[rng.randrange(3)] + " ".join(rng.choices("sun moon star tree house river".split(), k=rng.randint(1, 50)))
    body = {"max_tokens": rng.choice([0, 1, 5, 30, 90]), "temperature": rng.choice([0, 0.8]), "seed": i,
            "ignore_eos": rng.random() < 0.5, "stream": rng.random() < 0.6}
    body |= {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}
    if rng.random() < 0.2:
        body["n"] = rng.randint(2, 4)
    if rng.random() < 0.2:
        body["cache_salt"] = rng.choice(["a", "b"])
    if rng.random() < 0.2:
        body["stop"] = ["e", " the"]
    if not chat and not body["stream"] and rng.random() < 0.4:
        body |= {"echo": True, "logprobs": 2} if rng.random() < 0.5 else {"prompt_logprobs": 1}
    how = rng.choices(["read", "leave", "refuse"], [6, 3, 1])[0]
    if how == "refuse":
        body["max_tokens"] = 100 * CONTEXT
    return "/v1/chat/completions" if chat else "/v1/completions", body, how, rng.choice([0, 1, 200, 2000])


def perform(server, i, seen):
    path, body, how, n_bytes = make(i)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    if how == "leave" and n_bytes == 0:
        connection.close()
        seen[i] = "left at once"
        return
    response = connection.getresponse()
    if how == "leave":
        response.read(n_bytes)
        connection.close()
        seen[i] = "left"
        return
    raw = response.read()
    connection.close()
    assert (b"error" in raw) == (how == "refuse"), raw[:300]
    seen[i] = response.status


def crowd(server, first, count):
    seen, todo, lock = {}, list(range(first, first + count)), threading.Lock()

    def work():
        while True:
            with lock:
                if not todo:
                    return
                i = todo.pop()
            perform(server, i, seen)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(300)
    return seen


def idle(server):
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        server.wait_metric(name, 0, 30)


@pytest.mark.parametrize("options", [pytest.param((), marks=pytest.mark.sanitizer), ("--no-async-scheduling",),
                                     ("--no-enable-prefix-caching",)], ids=["default", "in-turn", "uncached"])
def test_all_blocks_come_back(tmp_path, options):
    s = Server(tmp_path / "log", *OPTIONS, *options, ranks=1)
    try:
        idle(s)
        assert f'num_gpu_blocks="{BLOCKS}"' in s.get("/metrics")[2].decode()
        seen = crowd(s, 0, REQUESTS)
        idle(s)
        assert len(seen) == REQUESTS
        n_refused = sum(make(i)[2] == "refuse" for i in range(REQUESTS))
        assert sorted(seen.values(), key=str).count(400) == n_refused
        whole = {"prompt": [300 + i % 2000 for i in range(CONTEXT - 1)], "max_tokens": 1, "temperature": 0}
        status, _, answer = s.post("/v1/completions", whole)
        assert status == 200 and answer["usage"]["completion_tokens"] == 1
        idle(s)
        queries, hits = s.metric("prefix_cache_queries_total"), s.metric("prefix_cache_hits_total")
        assert hits <= queries and (hits > 0) == (options != ("--no-enable-prefix-caching",))
        report(f"{REQUESTS} mixed requests {options}: all blocks free again; {s.metric('num_preemptions_total'):.0f} "
               f"preemptions, {s.metric('requests_cancelled_total'):.0f} cancelled, {hits:.0f} of {queries:.0f} tokens "
               "of prompts found")
        assert s.stop() == 0, s.text()
    finally:
        if s.process.poll() is None:
            s.stop()
