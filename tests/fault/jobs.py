# SPDX-License-Identifier: Apache-2.0
"""Jobs to be hurt: a server under mpirun, clients that note when they were told, and what is left afterwards.

TPSERVE_BIN    the binary (default: build/tpserve)
"""

import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "harness"))
from ports import free_port  # noqa: E402, F401

BIN = os.environ.get("TPSERVE_BIN", str(ROOT / "build" / "tpserve"))
MODEL = str(ROOT / "models" / "demo")
SANITIZED = "asan" in BIN or "tsan" in BIN
PATIENCE = 120  # seconds that an event may take on a loaded machine before a test gives up
SMALL = ("--max-num-seqs", "8", "--kv-cache-memory-bytes", "16M", "--threads", "1")


def mpi_env():
    env = dict(os.environ)
    if os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return env


def is_alive(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition, what, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(what() if callable(what) else what)
        time.sleep(0.005)
    return value


def shared_memory(space=""):
    """Names in /dev/shm of Open MPI's job `space` (hexadecimal), and ours, which are removed at start already."""
    names = ("vader_segment", "sm_segment")
    return {p.name for p in pathlib.Path("/dev/shm").iterdir()
            if p.name.startswith("tpserve") or (space and p.name.startswith(names) and space in p.name)}


def connect(host, port, seconds):
    return socket.create_connection((host, port), timeout=seconds)


class Stream(threading.Thread):
    """A stream that is read in the background; told_at is when it heard of an error, token_at when it got the
    last token, over_at when it ended."""

    def __init__(self, job, **body):
        super().__init__(daemon=True)
        raw = json.dumps({"prompt": "Once upon a time", "max_tokens": 1900, "ignore_eos": True, "stream": True,
                          "temperature": 0, **body}).encode()
        self.text, self.code, self.done, self.cut = "", None, False, False
        self.told_at = self.over_at = self.token_at = None
        self.raw = self.head = b""
        self.n_tokens = 0
        self.finish = None
        self.socket = job.connect()
        self.socket.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                            b"Content-Length: %d\r\n\r\n" % len(raw) + raw)
        self.start()

    def take(self, line):
        if line == b"data: [DONE]":
            self.done = True
        elif line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if "error" in event:
                self.code, self.told_at = event["error"]["code"], time.monotonic()
            for c in event.get("choices", []):
                self.n_tokens, self.token_at = self.n_tokens + 1, time.monotonic()
                self.text += c.get("text") or ""
                self.finish = self.finish or c.get("finish_reason")

    def run(self):
        rest = b""
        try:
            while not self.done and (piece := self.socket.recv(65536)):
                self.raw += piece
                self.head = self.raw.partition(b"\r\n")[0]
                rest += piece
                lines = rest.split(b"\n")
                rest = lines.pop()
                for line in lines:
                    self.take(line.strip())
        except OSError:
            pass
        self.cut = not self.done
        self.over_at = time.monotonic()
        self.socket.close()


class Job:
    """`mpirun -np ranks tpserve ...`.

    launcher   words instead of "mpirun --oversubscribe --bind-to none -np N"
    different  {rank: (words before the program, words after it)}
    reach      how to connect to it, given seconds
    port       0: any
    codes      true: note the exit code of every rank (codes_by_rank)
    """

    def __init__(self, log, *options, ranks=2, launcher=None, different=None, self_launch=False, reach=None,
                 codes=False, port=0):
        self.port, self.ranks, self.log = None, ranks, pathlib.Path(log)
        self.mark = f"job-{random.getrandbits(64):016x}"  # by which its processes are found
        self.reach = reach or (lambda seconds: connect("127.0.0.1", self.port, seconds))
        self.before = shared_memory()
        program = [BIN, "--model", MODEL, "--port", str(port), "--served-model-name", self.mark, *SMALL, *options]
        self.notes = self.log.with_suffix(".codes")
        if codes:
            program = [sys.executable, str(pathlib.Path(__file__).with_name("note_code.py")), str(self.notes), *program]
        if self_launch:
            command = [*program, "--tensor-parallel-size", str(ranks)]
        elif different is not None:
            command = ["mpirun", "--oversubscribe", "--bind-to", "none"]
            for rank in range(ranks):
                ahead, behind = different.get(rank, ([], []))
                command += ["-np", "1", *ahead, *program, *behind, ":"]
            command.pop()
        else:
            command = [*(launcher or ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)]), *program]
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            env=mpi_env(), start_new_session=True)
        self.pids, self.space, self.codes = {}, "", codes

    def connect(self, seconds=PATIENCE):
        return self.reach(seconds)

    def text(self):
        return self.log.read_text(errors="replace")

    def find_pids(self):
        """Ids of the ranks, by rank."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if self.mark.encode() not in words or words[0] != BIN.encode():
                    continue
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            rank = re.search(rb"(?:^|\0)OMPI_COMM_WORLD_RANK=(\d+)", environ)
            space = re.search(rb"(?:^|\0)PMIX_NAMESPACE=(\d+)", environ)
            if space:
                self.space = f"{int(space[1]):x}"
            if rank and is_alive(entry.name):
                found[int(rank[1])] = int(entry.name)
        return found

    def get(self, path, seconds=2):
        """Status and body."""
        try:
            with self.connect(seconds) as s:
                s.settimeout(seconds)
                s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while piece := s.recv(65536):
                    answer += piece
            head, _, body = answer.partition(b"\r\n\r\n")
            return int(head.split()[1]), body
        except (OSError, IndexError, ValueError):
            return None, b""

    def wait_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"the job ended: {self.text()}")
            told = re.search(r"ready: http://127.0.0.1:(\d+)/", self.text())
            self.port = told and int(told[1])
            return told and self.get("/ready")[0] == 200

        wait_for(ready, lambda: f"not ready: {self.text()}")
        self.pids = self.find_pids()
        assert sorted(self.pids) == list(range(self.ranks)), self.pids
        return self

    def kill(self, rank, number):
        os.kill(self.pids[rank], number)
        return time.monotonic()

    def wait(self, seconds=PATIENCE):
        """mpirun's exit code; gone_at is when the last rank was gone."""
        wait_for(lambda: not any(map(is_alive, self.pids.values())), lambda: f"ranks are left: {self.text()}", seconds)
        self.gone_at = time.monotonic()
        code = self.process.wait(seconds)
        self.over_at = time.monotonic()
        return code

    def codes_by_rank(self):
        """{rank: exit code}, 128 + signal of one that was killed; whose codes=True job has ended."""
        def noted():
            return [line.split() for line in self.notes.read_text().splitlines()] if self.notes.exists() else []

        wait_for(lambda: len(noted()) == self.ranks, lambda: f"codes of {noted()} of {self.ranks} ranks")
        return {int(rank): int(code) for rank, code in noted()}

    def leftovers(self):
        """What should not be there any more, a moment after the end."""
        def look():
            left = [f"process {p}" for p in self.pids.values() if is_alive(p)]
            left += [f"process {p}" for p in self.find_pids().values()]
            left += sorted(shared_memory(self.space) - self.before)
            try:
                with socket.socket() as s:
                    if self.port is None:
                        return left
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("127.0.0.1", self.port))
            except OSError as e:
                left.append(f"port {self.port}: {e}")
            return left

        deadline = time.monotonic() + 10
        while (left := look()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def lines(self, word):
        return [line for line in self.text().splitlines() if word in line and re.match(r"\d{4}-\d\d-\d\dT", line)]

    def end(self):
        """Whatever state it is in."""
        if self.process.poll() is None:
            for p in self.find_pids().values():
                os.kill(p, signal.SIGCONT)
            self.process.send_signal(signal.SIGUSR1)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                pass
        for p in self.find_pids().values():
            os.kill(p, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
