# SPDX-License-Identifier: Apache-2.0
"""A real server per test session: mpirun, the built binary, a checkpoint on disk, a free port.

TPSERVE_BIN    the binary (default: build/tpserve)
TPSERVE_TEST_MODEL  a model directory (default: models/demo)
TPSERVE_TEST_RANKS  ranks of the shared server (default: 2)
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "harness"))
from ports import free_port  # noqa: E402

BIN = os.environ.get("TPSERVE_BIN", str(ROOT / "build" / "tpserve"))
MODEL = os.environ.get("TPSERVE_TEST_MODEL", str(ROOT / "models" / "demo"))
RANKS = int(os.environ.get("TPSERVE_TEST_RANKS", "2"))
SANITIZED = "asan" in BIN or "tsan" in BIN
START_SECONDS = 120


def mpi_env():
    env = dict(os.environ)
    if os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    if SANITIZED:
        lsan = ROOT / "tests" / "harness" / "lsan.supp"
        tsan = ROOT / "tests" / "harness" / "tsan.supp"
        env["ASAN_OPTIONS"] = "fast_unwind_on_malloc=0:detect_leaks=1"
        env["LSAN_OPTIONS"] = f"suppressions={lsan}:print_suppressions=0"
        env["TSAN_OPTIONS"] = f"ignore_noninstrumented_modules=1:suppressions={tsan}"
    return env


LONGEST = 240 if SANITIZED else 90  # seconds of a command that must end by itself


def run(*options, ranks=0, env=None):
    """Exit code, stdout and stderr of a command that must end by itself."""
    command = [BIN, *map(str, options)]
    if ranks:
        command = ["mpirun", "--oversubscribe", "-np", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, stdin=subprocess.DEVNULL,
                          env={**mpi_env(), **(env or {})}, check=False)
    assert "Sanitizer" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


MEASURED = []


def report(line):
    """A measured number, printed after the tests."""
    MEASURED.append(line)


def pytest_terminal_summary(terminalreporter):
    for line in MEASURED:
        terminalreporter.write_line(f"measured: {line}")


class Server:
    """One running job; `url` is its API, `log` a file with everything that it wrote."""

    def __init__(self, log, *options, ranks=RANKS, model=MODEL, self_launch=False, wait=True, launcher=()):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        command = [*launcher, BIN, "--model", model, "--port", str(self.port), *options]
        if self_launch:
            command += ["--tensor-parallel-size", str(ranks)]
        else:
            command = ["mpirun", "--oversubscribe", "-np", str(ranks), *command]
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT,
                                            stdin=subprocess.DEVNULL, env=mpi_env())
        if wait:
            self.wait_ready()

    def wait_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {self.text()}")
            try:
                with urllib.request.urlopen(self.url + "/ready", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        self.process.kill()  # mpirun takes its ranks along
        raise RuntimeError(f"not ready after {START_SECONDS} s: {self.text()}")

    def text(self):
        return pathlib.Path(self.log).read_text(errors="replace")

    def wait_text(self, text, seconds=30):
        """Waits for a part of a line of the log, which comes through mpirun's pipes."""
        deadline = time.monotonic() + seconds
        while text not in self.text():
            assert time.monotonic() < deadline, f"no {text!r} in {self.text()}"
            time.sleep(0.02)

    def post(self, path, body, headers=None, timeout=60):
        """Status, headers and parsed JSON (or bytes) of a POST."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method="POST", headers={
            "content-type": "application/json", **(headers or {})})
        return self._open(request, timeout)

    def get(self, path, headers=None, method="GET", timeout=30):
        return self._open(urllib.request.Request(self.url + path, method=method,
                                                 headers=headers or {}), timeout)

    @staticmethod
    def _open(request, timeout):
        try:
            with urllib.request.urlopen(request, timeout=timeout) as r:
                status, headers, raw = r.status, r.headers, r.read()
        except urllib.error.HTTPError as e:
            status, headers, raw = e.code, e.headers, e.read()
        kind = headers.get("content-type", "")
        return status, headers, json.loads(raw) if kind.startswith("application/json") else raw

    def metric(self, name):
        """Value of a metric without further labels than model_name and engine."""
        _, _, text = self.get("/metrics")
        for line in text.decode().splitlines():
            if line.startswith(f"vllm:{name}{{") or line.startswith(f"vllm:{name} "):
                return float(line.rsplit(" ", 1)[1])
        raise KeyError(name)

    def wait_metric(self, name, value, seconds):
        deadline = time.monotonic() + seconds
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name)}, not {value}"
            time.sleep(0.005)

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """Drains through mpirun and returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    s = Server(tmp_path_factory.mktemp("server") / "log", "--served-model-name", "test-model")
    yield s
    assert s.stop() == 0, s.text()


@pytest.fixture
def start(tmp_path):
    """start(*options, ...) runs a further server that is ended after the test."""
    running = []

    def run(*options, **kwargs):
        s = Server(tmp_path / f"log{len(running)}", *options, **kwargs)
        running.append(s)
        return s

    yield run
    for s in running:
        if s.process.poll() is None:
            s.process.send_signal(signal.SIGUSR1)
            try:
                s.process.wait(30)
            except subprocess.TimeoutExpired:
                s.process.kill()
