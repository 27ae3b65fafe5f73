# SPDX-License-Identifier: Apache-2.0
"""How a job ends: drains by every signal that a person or a platform may send, and what is left behind (nothing)."""

import json
import os
import pathlib
import signal
import socket
import threading
import time

import pytest

from conftest import SANITIZED, report

STREAM = {"prompt": "Once upon a time", "max_tokens": 300, "ignore_eos": True, "stream": True, "temperature": 0}
SOON = 60 if SANITIZED else 20
PATIENT = ("--shutdown-timeout", "120")  # the drain itself is meant, not the speed of a busy machine


class Stream(threading.Thread):
    """A running stream, read to its end in the background."""

    def __init__(self, server, body=None):
        super().__init__()
        raw = json.dumps(body or STREAM).encode()
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self.socket.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                            b"Content-Length: %d\r\n\r\n" % len(raw) + raw)
        self.raw = self.socket.recv(4096)
        self.start()

    def run(self):
        try:
            while piece := self.socket.recv(65536):
                self.raw += piece
                if b"data: [DONE]" in self.raw:
                    break
        except OSError:
            pass
        self.socket.close()

    def result(self):
        """Finish reason, error code, whether [DONE] came."""
        self.join(60)
        assert not self.is_alive()
        reason = code = None
        for line in self.raw.decode(errors="replace").splitlines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                code = code or event.get("error", {}).get("code")
                for c in event.get("choices", []):
                    reason = reason or c["finish_reason"]
        return reason, code, b"data: [DONE]" in self.raw


def processes(port):
    """Ids of our processes with this port on their command line."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if str(port).encode() in words and state != "Z":
                found.append(int(entry.name))
    return found


def shared_memory():
    return {p.name for p in pathlib.Path("/dev/shm").iterdir() if p.name.startswith("tpserve")}


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    before = shared_memory()
    yield
    deadline = time.monotonic() + 10
    while shared_memory() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert shared_memory() - before == set()


def gone(server):
    deadline = time.monotonic() + 10
    while processes(server.port):
        assert time.monotonic() < deadline, f"left: {processes(server.port)}"
        time.sleep(0.05)


def check_drain(server, send, code=0):
    """A running stream ends well, new requests are refused, and the job ends by itself."""
    stream = Stream(server)
    send()
    deadline = time.monotonic() + 10
    while (answer := server.get("/ready"))[0] == 200:
        assert time.monotonic() < deadline
    assert answer[0] == 503 and answer[2] == {"status": "draining"}
    assert server.get("/health")[0] == 200
    status, headers, body = server.post("/v1/completions", {"prompt": "hi", "max_tokens": 1})
    assert status == 503 and body["error"]["code"] == "draining" and 1 <= int(headers["retry-after"]) <= 60
    assert body["error"]["type"] == "service_unavailable"
    assert stream.result() == ("length", None, True)
    assert server.process.wait(SOON) == code, server.text()
    gone(server)


def test_user_signal_to_mpirun(start):
    server = start(*PATIENT)
    check_drain(server, lambda: server.signal(signal.SIGUSR1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_to_a_job_that_started_its_ranks(start, number):
    server = start(*PATIENT, ranks=2, self_launch=True)
    check_drain(server, lambda: server.signal(number))


def test_terminating_the_ranks(start):
    server = start(*PATIENT)
    ranks = [p for p in processes(server.port) if p != server.process.pid]

    def send():
        for p in ranks:
            os.kill(p, signal.SIGTERM)

    check_drain(server, send)


def test_one_process(start):
    server = start(*PATIENT, ranks=1, self_launch=True)
    check_drain(server, lambda: server.signal(signal.SIGTERM))


def test_idle_job_ends_at_once(start):
    server = start(ranks=2, self_launch=True)
    before = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.process.wait(SOON) == 0
    report(f"an idle job of 2 ranks ended {time.monotonic() - before:.2f} s after SIGTERM")
    gone(server)


@pytest.mark.parametrize("self_launch", [False, True])
def test_second_signal_ends_at_once(start, self_launch):
    server = start("--max-model-len", "2048", ranks=2, self_launch=self_launch)
    streams = [Stream(server, {**STREAM, "max_tokens": 2000}) for _ in range(8)]
    number = signal.SIGTERM if self_launch else signal.SIGUSR1
    server.signal(number)
    while server.get("/ready")[0] == 200:
        pass
    before = time.monotonic()
    server.signal(number)
    results = [s.result() for s in streams]
    server.process.wait(SOON)
    took = time.monotonic() - before
    gone(server)
    assert all(r == (None, "shutdown", True) for r in results), results
    assert took < 25  # not the 30 s that running requests may take
    report(f"ended {took:.2f} s after the second signal")


def test_time_is_up(start):
    """What does not finish within --shutdown-timeout is told so; the exit code stays 0."""
    server = start("--shutdown-timeout", "0")
    stream = Stream(server, {**STREAM, "max_tokens": 2000})
    waiting = {}

    def whole():
        waiting["answer"] = server.post("/v1/completions", {**STREAM, "max_tokens": 2000, "stream": False})

    thread = threading.Thread(target=whole)
    thread.start()
    server.wait_metric("num_requests_running", 2, 10)
    server.signal(signal.SIGUSR1)
    assert stream.result() == (None, "shutdown", True) and b"The server is shutting down" in stream.raw
    thread.join(20)
    status, headers, body = waiting["answer"]
    assert "The server is shutting down" in body["error"]["message"]
    assert status == 503 and body["error"]["code"] == "draining" and headers["retry-after"]
    assert server.process.wait(SOON) == 0, server.text()
    gone(server)


def test_hard_stop_of_mpirun(start):
    """SIGTERM to mpirun leaves the ranks about a second: enough to tell the open streams."""
    server = start()
    streams = [Stream(server, {**STREAM, "max_tokens": 2000}) for _ in range(4)]
    before = time.monotonic()
    server.signal(signal.SIGTERM)
    results = [s.result() for s in streams]
    took = time.monotonic() - before
    server.process.wait(SOON)
    assert all(code == "shutdown" and done for _, code, done in results), results
    report(f"SIGTERM to mpirun: open streams were told within {took:.2f} s")
    gone(server)


def test_signal_while_loading(start):
    server = start(wait=False)
    deadline = time.monotonic() + SOON
    while "ranks on" not in server.text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.signal(signal.SIGUSR1)
    server.process.wait(SOON)
    gone(server)


def test_port_is_free_at_once(start):
    server = start(ranks=1, self_launch=True)
    stream = Stream(server)
    server.signal(signal.SIGTERM)
    stream.result()
    server.process.wait(SOON)
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", server.port))
