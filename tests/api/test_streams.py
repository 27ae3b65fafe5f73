# SPDX-License-Identifier: Apache-2.0
"""Streams that are left, streams that are many, readers that are slow."""

import json
import random
import socket
import struct
import threading
import time

import pytest

from conftest import SANITIZED, Server, report

LONG = " ".join(f"number {i} follows" for i in range(300))


def connect(server, body, path="/v1/completions", receive_buffer=None):
    s = socket.socket()
    if receive_buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    s.settimeout(60)
    s.connect(("127.0.0.1", server.port))
    raw = json.dumps(body).encode()
    s.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
              f"Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
    return s


def leave(s, how):
    """FIN: an orderly close with nothing unread is not promised; RST: SO_LINGER 0."""
    if how == "rst":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        s.shutdown(socket.SHUT_WR)
    s.close()


def endless(**more):
    return {"prompt": "Once upon a time", "max_tokens": 1500, "ignore_eos": True, "stream": True, "temperature": 0,
            **more}


def text_of(server, body):
    """The text of a streamed completion, by choice."""
    s = connect(server, body)
    raw = b""
    while b"data: [DONE]" not in raw:
        piece = s.recv(65536)
        assert piece, raw[-300:]
        raw += piece
    s.close()
    return join(raw)


def join(raw):
    texts, reasons = {}, {}
    for line in raw.decode(errors="replace").splitlines():
        if line.startswith("data: {"):
            event = json.loads(line[6:])
            assert "error" not in event, event
            for c in event["choices"]:
                texts[c["index"]] = texts.get(c["index"], "") + c["text"]
                if c["finish_reason"]:
                    reasons[c["index"]] = c["finish_reason"]
    assert sorted(texts) == sorted(reasons)
    return [texts[i] for i in sorted(texts)], [reasons[i] for i in sorted(reasons)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Few sequences at a time, so that requests do queue."""
    s = Server(tmp_path_factory.mktemp("small") / "log", "--max-num-seqs", "4", "--max-num-batched-tokens", "64")
    yield s
    assert s.stop() == 0, s.text()


def free_again(server, seconds=10):
    before = time.perf_counter()
    deadline = before + seconds
    while server.metric("kv_cache_usage_perc") != 0 or server.metric("num_requests_waiting") != 0:
        assert time.perf_counter() < deadline, server.metric("kv_cache_usage_perc")
    return time.perf_counter() - before


def test_leaving_frees_the_cache(small):
    """FIN and RST while a request waits, while its prompt is computed, and between its tokens."""
    times, gone = {"fin": [], "rst": []}, small.metric("requests_cancelled_total")
    rounds = 3 if SANITIZED else 12
    for i in range(rounds):
        for how in ("fin", "rst"):
            for phase in ("queue", "prefill", "decode"):
                prompt = f"{i} {how} {LONG}" if phase == "prefill" else "Once upon a time"  # none in the prefix cache
                body = endless(prompt=prompt, max_tokens=500)
                others = [connect(small, endless()) for _ in range(4)] if phase == "queue" else []
                if phase == "queue":
                    for s in others:
                        s.recv(100)
                s = connect(small, body)
                if phase == "decode":
                    for _ in range(3):
                        s.recv(4096)
                elif phase == "prefill":
                    time.sleep(0.01 * (i % 3))
                else:
                    small.wait_metric("num_requests_waiting", 1, 10)
                    leave(s, how)
                    small.wait_metric("num_requests_waiting", 0, 10)
                for o in others:
                    leave(o, how)
                if phase != "queue":
                    leave(s, how)
                times[how].append(free_again(small))
                left = 5 if phase == "queue" else 1
                gone += left
                deadline = time.monotonic() + 5
                while small.metric("requests_cancelled_total") != gone:
                    # a prefill that was left before the request was read never became a request
                    if phase == "prefill" and time.monotonic() > deadline - 4:
                        gone = small.metric("requests_cancelled_total")
                    assert time.monotonic() < deadline
    for how, seen in times.items():
        seen.sort()
        report(f"{len(seen)} streams left by {how.upper()}: blocks free after p50 {1e3 * seen[len(seen) // 2]:.1f} ms, "
               f"p99 {1e3 * seen[int(len(seen) * 0.99)]:.1f} ms (with two reads of /metrics)")
    assert small.post("/v1/completions", {"prompt": "hi", "max_tokens": 1})[0] == 200


def test_leaving_a_whole_answer(small):
    s = connect(small, {**endless(), "stream": False})
    small.wait_metric("num_requests_running", 1, 10)
    leave(s, "fin")
    free_again(small)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_leaving_several_choices(small, how):
    s = connect(small, endless(n=4, temperature=1.0, seed=1))
    small.wait_metric("num_requests_running", 4, 20)
    s.recv(4096)
    leave(s, how)
    free_again(small)
    s = connect(small, endless(prompt=["a", "b", "c"], n=2, temperature=1.0))
    s.recv(4096)
    leave(s, how)
    free_again(small)


def test_slow_reader_stalls_nobody(server):
    slow = connect(server, endless(logprobs=20, max_tokens=1500), receive_buffer=2048)
    slow.recv(100)
    before = time.monotonic()
    status, _, answer = server.post("/v1/completions", {"prompt": "hi", "max_tokens": 100, "ignore_eos": True})
    took = time.monotonic() - before
    assert status == 200 and answer["usage"]["completion_tokens"] == 100
    assert took < 60
    report(f"100 tokens beside a reader that does not read: {took:.2f} s")
    leave(slow, "rst")
    free_again(server)


def test_many_streams_in_a_small_cache(tmp_path_factory):
    """64 streams at once in a cache for a few: some give their blocks back, all say what they would say alone."""
    s = Server(tmp_path_factory.mktemp("tiny") / "log", "--max-num-seqs", "64", "--max-model-len", "256",
               "--kv-cache-memory-bytes", "1M" if SANITIZED else "3M")
    rng = random.Random(5)
    words = "the river a house of light and water in every small city under snow".split()
    n = 16 if SANITIZED else 64
    bodies = [{"prompt": " ".join(rng.choices(words, k=rng.randint(1, 60))), "max_tokens": rng.randint(1, 120),
               "ignore_eos": True, "stream": True, "temperature": 0} for _ in range(n)]
    try:
        alone = [text_of(s, b) for b in bodies]
        assert s.metric("num_preemptions_total") == 0
        together = [None] * n

        def run(i):
            together[i] = text_of(s, bodies[i])

        threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
        before = time.monotonic()
        for t in threads:
            t.start()
        for t in threads:
            t.join(180)
        took = time.monotonic() - before
        preempted = s.metric("num_preemptions_total")
        assert together == alone
        assert preempted > 0
        free_again(s)
        report(f"{n} streams in a small cache: {took:.1f} s, {preempted:.0f} preemptions, every text as alone")
        assert s.stop() == 0, s.text()
    finally:
        if s.process.poll() is None:
            s.stop()


def test_hammer(server):
    """Short requests over many connections, streamed and not, some of them left at random: nothing hangs or mixes."""
    rounds, width = (2, 8) if SANITIZED else (8, 25)
    seeds = range(width)
    wrong, left = [], [0]

    def body(i, stream):
        return {"prompt": f"Word {i} is", "max_tokens": 1 + i % 7, "temperature": 0, "ignore_eos": True, "stream": stream}

    want = {i: server.post("/v1/completions", body(i, False))[2]["choices"][0]["text"] for i in range(20)}

    def run(seed):
        rng = random.Random(seed)
        for _ in range(rounds):
            i, stream, go = rng.randrange(20), rng.random() < 0.5, rng.random()
            try:
                if go < 0.3:
                    s = connect(server, body(i, stream))
                    time.sleep(rng.random() * 0.02)
                    leave(s, rng.choice(["fin", "rst"]))
                    left[0] += 1
                elif stream:
                    got, reasons = text_of(server, body(i, True))
                    if got != [want[i]] or reasons != ["length"]:
                        wrong.append((i, got, want[i]))
                else:
                    got = server.post("/v1/completions", body(i, False))[2]["choices"][0]["text"]
                    if got != want[i]:
                        wrong.append((i, got, want[i]))
            except Exception as e:  # noqa: BLE001 - a thread's failure belongs to the test
                wrong.append((i, repr(e)))

    before = time.monotonic()
    threads = [threading.Thread(target=run, args=(s,)) for s in seeds]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not any(t.is_alive() for t in threads) and not wrong, wrong[:3]
    free_again(server)
    report(f"{rounds * width} short requests over {width} clients, {left[0]} left: {time.monotonic() - before:.1f} s")
