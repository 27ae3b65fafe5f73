# SPDX-License-Identifier: Apache-2.0
"""What the fire programs share: a real server of two ranks, its metrics, its processes in /proc, raw sockets, tables.

Every program prints what it measured beside the bound that it is held to, and exits with 1 when a bound is missed.
"""

import json
import os
import pathlib
import re
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "api"))

from conftest import BIN, Server  # noqa: E402, F401

LONG = " ".join(f"number {i} follows" for i in range(300))


def post(body, path="/v1/completions", headers=()):
    """The bytes of a request."""
    raw = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json",
             f"Content-Length: {len(raw)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def endless(**more):
    return {"prompt": "Once upon a time", "max_tokens": 1500, "ignore_eos": True, "stream": True, "temperature": 0,
            **more}


def connect(port, data=b"", receive_buffer=None, timeout=60, source=None):
    s = socket.socket()
    if receive_buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if source:
        s.bind((source, 0))
    s.settimeout(timeout)
    s.connect(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if data:
        s.sendall(data)
    return s


def drain_ids(s, raw):
    """How many token ids (return_token_ids) have come: in `raw`, which was read, and in what is there to be read."""
    s.setblocking(False)
    try:
        while piece := s.recv(1 << 20):
            raw += piece
    except BlockingIOError:
        pass
    s.setblocking(True)
    return sum(ids.count(b",") + 1 for ids in re.findall(rb'"token_ids":\[([0-9,]+)\]', raw))


def leave(s, how):
    """fin: half-close, then close; rst: SO_LINGER 0."""
    if how == "rst":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        try:
            s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    s.close()


class Job:
    """A server under fire: TPSERVE_BIN, models/demo, two ranks unless told otherwise."""

    def __init__(self, *options, ranks=2, files=None):
        self.folder = tempfile.TemporaryDirectory(prefix="fire-")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if not any(o == "--kv-cache-memory-bytes" for o in options):
            options += ("--kv-cache-memory-bytes", "64M")
        launcher = ["prlimit", f"--nofile={files}:{files}"] if files else []
        if os.environ.get("FIRE_NICE"):  # on a machine that others use too
            launcher += ["nice", "-n", os.environ["FIRE_NICE"]]
        self.server = Server(os.path.join(self.folder.name, "log"), *options, ranks=ranks, launcher=launcher)
        self.port = self.server.port
        self.pids = [int(p) for p in subprocess.run(["pgrep", "-P", str(self.server.process.pid)], capture_output=True,
                                                    text=True, check=False).stdout.split()]
        self.pid = self._rank0()
        self._metrics = None

    def _rank0(self):
        """The process that listens."""
        inode = None
        for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
            f = line.split()
            if f[3] == "0A" and int(f[1].split(":")[1], 16) == self.port:
                inode = f[9]
        for pid in self.pids:
            for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                try:
                    if os.readlink(fd) == f"socket:[{inode}]":
                        return pid
                except OSError:
                    pass
        return self.pids[0]

    def metrics(self):
        """All values of /metrics over one connection that is kept: {name or name{reason}: value}."""
        for attempt in range(2):
            try:
                if self._metrics is None:
                    self._metrics = connect(self.port, timeout=30)
                self._metrics.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return parse_metrics(read_answer(self._metrics)[2])
            except OSError:
                self._metrics = None
                if attempt:
                    raise
        return None

    def wait(self, name, value, seconds=20):
        end = time.monotonic() + seconds
        while (seen := self.metrics()[name]) != value:
            if time.monotonic() > end:
                raise TimeoutError(f"{name} is {seen}, not {value}, after {seconds} s")

    def sample(self):
        """RSS in MB, descriptors and threads of rank 0."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return {"rss": int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024,
                "threads": int(re.search(r"Threads:\s+(\d+)", status)[1]),
                "fds": len(os.listdir(f"/proc/{self.pid}/fd"))}

    def cpu_seconds(self):
        f = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")

    def threads(self):
        """Processor seconds of each thread of rank 0: {id: (name, seconds)}."""
        seen = {}
        for t in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            f = (t / "stat").read_text()
            name, rest = f[f.index("(") + 1:f.rindex(")")], f.rsplit(")", 1)[1].split()
            seen[int(t.name)] = name, (int(rest[11]) + int(rest[12])) / os.sysconf("SC_CLK_TCK")
        return seen

    def log(self):
        return self.server.text()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._metrics is not None:
            self._metrics.close()
        code = self.server.stop()
        if code != 0:
            print(self.log()[-2000:])
            raise SystemExit(f"the server ended with {code}")
        self.folder.cleanup()


def parse_metrics(text):
    values = {}
    for line in text.decode().splitlines():
        if line.startswith("vllm:") and "_bucket" not in line:
            name, value = line[5:].rsplit(" ", 1)
            reason = re.search(r'reason="([^"]*)"', name)
            name = name.split("{")[0] + ("{" + reason[1] + "}" if reason else "")
            values[name] = float(value)
    return values


def read_answer(s):
    """Status, headers, body of an answer with a length."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        piece = s.recv(65536)
        if not piece:
            raise ConnectionError("closed")
        raw += piece
    head, body = raw.split(b"\r\n\r\n", 1)
    lines = head.decode("latin1").split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
    while len(body) < int(headers.get("content-length", "0")):
        piece = s.recv(65536)
        if not piece:
            raise ConnectionError("closed inside a body")
        body += piece
    return int(lines[0].split(" ")[1]), headers, body


def quantile(values, q):
    values = sorted(values)
    return values[min(int(len(values) * q), len(values) - 1)] if values else float("nan")


class Verdict:
    """Collects `what: measured (bound)` and whether the bound holds."""

    def __init__(self, title):
        self.title, self.rows = title, []

    def add(self, what, value, bound="", ok=True):
        self.rows.append((what, value, bound, ok))

    def at_most(self, what, value, bound, unit=""):
        self.add(what, f"{value:.4g} {unit}".strip(), f"<= {bound:g} {unit}".strip(), value <= bound)

    def at_least(self, what, value, bound, unit=""):
        self.add(what, f"{value:.4g} {unit}".strip(), f">= {bound:g} {unit}".strip(), value >= bound)

    def equal(self, what, value, wanted):
        self.add(what, value, f"= {wanted}", value == wanted)

    def finish(self):
        """Prints the table; the exit code of the program."""
        width = max(len(r[0]) for r in self.rows)
        load = os.getloadavg()[0]
        print(f"\n{self.title} (load average {load:.1f} on {os.cpu_count()} cores)")
        for what, value, bound, ok in self.rows:
            print(f"  {'ok  ' if ok else 'MISS'} {what:{width}}  {value!s:>14}  {bound}")
        sys.stdout.flush()
        return 0 if all(r[3] for r in self.rows) else 1
