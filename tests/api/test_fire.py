# SPDX-License-Identifier: Apache-2.0
"""Clients that are slow or too many: they are cut off, told to come back, or wait; the others notice nothing.

What happens is asserted here; how fast it happens is measured by tests/fire (make fire)."""

import http.client
import json
import os
import pathlib
import re
import select
import socket
import subprocess
import threading
import time

import openai
import pytest

from conftest import SANITIZED, Server, report
from test_streams import connect, endless, free_again, join, leave

GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def cuts(server, reason):
    _, _, text = server.get("/metrics")
    for line in text.decode().splitlines():
        if line.startswith("vllm:connections_cut_total{") and f'reason="{reason}"' in line:
            return float(line.rsplit(" ", 1)[1])
    raise KeyError(reason)


def wait_cut(sockets, seconds=60):
    """Until the server has ended every one of these connections."""
    poll, left = select.poll(), {s.fileno() for s in sockets}
    for s in sockets:
        poll.register(s, select.POLLRDHUP)
    end = time.monotonic() + seconds
    while left and time.monotonic() < end:
        for fd, _ in poll.poll(1000):
            left.discard(fd)
            poll.unregister(fd)
    for s in sockets:
        s.close()
    assert not left, f"{len(left)} are still connected after {seconds} s"


def asks(server, timeout=5):
    """Status of /health on a connection of its own; None: no answer."""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as s:
            s.sendall(GET_HEALTH)
            return int(s.recv(1000).split(b" ")[1])
    except (OSError, IndexError):
        return None


def test_slow_ones_are_cut(server):
    """Headers, bodies and readers that dawdle, all at once, beside a request that does not."""
    before = {r: cuts(server, r) for r in ("slow_header", "slow_body", "slow_reader")}
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    slow = []
    for data in (b"GET /health HTTP/1.1\r\nX-A: ", head + b"Content-Length: 5000\r\n\r\n{"):
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(data)
        slow.append(s)
    slow += [connect(server, endless(logprobs=20, max_tokens=1900, stream=stream), receive_buffer=2048)
             for stream in (True, False)]
    assert server.post("/v1/completions", {"prompt": "hi", "max_tokens": 20})[0] == 200
    wait_cut(slow, 240 if SANITIZED else 90)
    free_again(server, 30)
    assert cuts(server, "slow_header") == before["slow_header"] + 1
    assert cuts(server, "slow_body") == before["slow_body"] + 1
    assert cuts(server, "slow_reader") == before["slow_reader"] + 2
    assert "cut off as too slow" in server.text()


def test_a_body_that_comes_steadily_may_take_its_time(server):
    """More than ten seconds, at more than a kilobyte a second."""
    raw = json.dumps({"prompt": "a" * 40000, "max_tokens": 1, "truncate_prompt_tokens": 10}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(raw))
        for i in range(12):
            s.sendall(raw[i * len(raw) // 12:(i + 1) * len(raw) // 12])
            time.sleep(1)
        assert s.recv(100).startswith(b"HTTP/1.1 200"), "cut off although it was not slow"


def test_a_reader_that_pauses_gets_everything(server):
    """Some seconds without reading are forgiven, and nothing is lost or doubled."""
    body = endless(max_tokens=300 if SANITIZED else 1500)
    wanted = server.post("/v1/completions", {**body, "stream": False}, timeout=300)[2]["choices"][0]["text"]
    s = connect(server, body, receive_buffer=4096)
    time.sleep(4)
    answer = http.client.HTTPResponse(s)
    answer.begin()
    assert join(answer.read()) == ([wanted], ["length"])
    s.close()


# ---- more than the queue takes ----

@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    s = Server(tmp_path_factory.mktemp("narrow") / "log", "--max-num-seqs", "2", "--max-num-queued-reqs", "4",
               "--max-num-queued-tokens", "600", "--served-model-name", "test-model")
    yield s
    assert s.stop() == 0, s.text()


def fill(server, n, **more):
    """n streams that are accepted and go on: their headers come before their first token."""
    streams = [connect(server, endless(**more)) for _ in range(n)]
    for s in streams:
        assert s.recv(15) == b"HTTP/1.1 200 OK"
    return streams


def assert_refused(server, body, **headers):
    status, answer, error = server.post("/v1/completions", body, headers=headers)
    assert status == 429 and error["error"]["code"] == "queue_full" and error["error"]["type"] == "rate_limit_error"
    assert 1 <= int(answer["retry-after"]) <= 60 and 0 < int(answer["retry-after-ms"]) <= 60000
    assert (int(answer["retry-after-ms"]) + 999) // 1000 == int(answer["retry-after"])


def test_full_queue(narrow):
    refused = narrow.metric("requests_refused_total")
    streams = fill(narrow, 6)
    for _ in range(3):
        assert_refused(narrow, {"prompt": "hi"})
    assert_refused(narrow, b"{not even JSON")  # nothing is parsed for those who cannot be served
    assert narrow.metric("requests_refused_total") == refused + 4
    assert narrow.get("/health")[0] == 200
    for s in streams:
        leave(s, "rst")
    free_again(narrow)
    assert narrow.post("/v1/completions", {"prompt": "hi", "max_tokens": 1})[0] == 200


def test_full_queue_of_tokens(narrow):
    words = " ".join(["word"] * 250)
    streams = fill(narrow, 2, prompt=words)
    assert_refused(narrow, {"prompt": words})
    for s in streams:
        leave(s, "fin")
    free_again(narrow)
    assert narrow.post("/v1/completions", {"prompt": words, "max_tokens": 1})[0] == 200


def test_what_never_fits_is_not_told_to_come_back(narrow):
    for body, words in (({"prompt": ["a"] * 7}, "7 prompts are more than the 6 requests"),
                        ({"prompt": " ".join(["word"] * 700)}, "tokens are more than the 600"),
                        ({"prompt": [" ".join(["word"] * 250)] * 3}, "tokens are more than the 600")):
        status, headers, answer = narrow.post("/v1/completions", {**body, "max_tokens": 1})
        assert status == 400 and "retry-after" not in headers, answer
        assert answer["error"]["param"] == "prompt" and words in answer["error"]["message"], answer
    assert narrow.post("/v1/completions", {"prompt": ["a"] * 6, "max_tokens": 1})[0] == 200


def test_places_for_those_who_come_back(narrow):
    """When an SDK client was refused, the last place of the queue is not a newcomer's."""
    streams = fill(narrow, 6)
    assert_refused(narrow, {"prompt": "hi"}, **{"x-stainless-retry-count": "0"})
    leave(streams.pop(), "rst")
    narrow.wait_metric("num_requests_waiting", 3, 20)
    assert_refused(narrow, {"prompt": "hi"})
    retried = []

    def again():
        retried.append(narrow.post("/v1/completions", {"prompt": "hi", "max_tokens": 1},
                                   headers={"x-stainless-retry-count": "1"})[0])

    t = threading.Thread(target=again)
    t.start()
    narrow.wait_metric("num_requests_waiting", 4, 20)
    for s in streams:
        leave(s, "rst")
    t.join(60)
    assert retried == [200]
    free_again(narrow)


def test_sdk_clients_get_through(narrow):
    """Twice as many clients as there are places, as the official SDK comes out of its box."""
    failed, answered = [], []

    def run():
        client = openai.OpenAI(base_url=narrow.url + "/v1", api_key="none")
        for _ in range(2):
            try:
                answered.append(client.completions.create(model="test-model", prompt="hi", max_tokens=100))
            except openai.OpenAIError as e:
                failed.append(e)

    threads = [threading.Thread(target=run) for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(240)
    assert not failed and len(answered) == 24, failed[:1]
    report(f"24 SDK requests of 12 clients for 6 places: {narrow.metric('requests_refused_total'):.0f} refusals so far")


# ---- memory after a flood ----

def resident(server):
    """MB that rank 0 has: it holds the largest number of open files."""
    ranks = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True).stdout
    rank0 = max(ranks.split(), key=lambda pid: len(os.listdir(f"/proc/{pid}/fd")))
    status = pathlib.Path(f"/proc/{rank0}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's heap keeps what is freed")
def test_memory_after_a_flood(start):
    """What many connections took is given back when they have gone: those in between leave no holes behind."""
    s = start("--max-num-queued-reqs", "2000", "--kv-cache-memory-bytes", "16M")
    streams = [connect(s, endless(max_tokens=4)) for _ in range(4)]
    before, most = resident(s), 0
    for _ in range(2):
        flood = [connect(s, endless(max_tokens=16)) for _ in range(500)]
        s.wait_metric("num_requests_waiting", 0, 300)
        most = max(most, resident(s))
        for peer in flood:
            peer.close()
    deadline = time.monotonic() + 60
    while resident(s) > before + 24:
        assert time.monotonic() < deadline, f"{before:.0f} MB before, {most:.0f} in it, {resident(s):.0f} afterwards"
        time.sleep(0.5)
    report(f"memory: {before:.0f} MB, under 500 streams that nobody reads {most:.0f} MB, afterwards {resident(s):.0f} MB")
    for peer in streams:
        peer.close()


# ---- more than there are descriptors ----

@pytest.mark.skipif(SANITIZED, reason="a sanitizer's runtime opens files of its own")
def test_few_descriptors(start):
    """ulimit -n 64: accepting pauses, says so, and goes on; idle connections make room for others."""
    s = start(launcher=("prlimit", "--nofile=64:64"))
    lines = len(s.text().splitlines())
    idle = [connect_idle(s) for _ in range(100)]
    deadline = time.monotonic() + 30
    while "no more are accepted until some have gone" not in s.text():
        assert time.monotonic() < deadline, s.text()
        time.sleep(0.1)
    while asks(s) != 200:  # those that say nothing are closed one after the other
        assert time.monotonic() < deadline + 60, s.text()
    for peer in idle:
        peer.close()
    while asks(s) != 200:
        assert time.monotonic() < deadline + 90, s.text()
    assert s.post("/v1/completions", {"prompt": "hi", "max_tokens": 1})[0] == 200
    assert len(s.text().splitlines()) - lines < 60


def connect_idle(server):
    s = socket.create_connection(("127.0.0.1", server.port))
    s.sendall(GET_HEALTH)
    return s
