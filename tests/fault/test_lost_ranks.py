# SPDX-License-Identifier: Apache-2.0
"""Ranks that die, stop, hang, never come or differ: clients are told, the job ends by itself, nothing is left.

How long it takes is no verdict here: fault_table.py measures that.
"""

import os
import pathlib
import signal
import time

import pytest

from jobs import BIN, PATIENCE, Job, Stream, is_alive, wait_for

HAS_EMU = (pathlib.Path(BIN).parent / "libtpserve_emu.so").exists()


@pytest.fixture
def start(tmp_path):
    """start(*options, ...) is a job that is ended after the test."""
    jobs = []

    def run(*options, **kwargs):
        jobs.append(Job(tmp_path / f"log{len(jobs)}", *options, **kwargs))
        return jobs[-1]

    yield run
    for j in jobs:
        j.end()


def decoding(job, n=2):
    streams = [Stream(job) for _ in range(n)]
    wait_for(lambda: all(s.n_tokens > 2 for s in streams), lambda: f"no tokens: {job.text()}")
    return streams


def health_after(job):
    """Every answer of /health until nobody answers any more."""
    seen = []

    def ask():
        seen.append(job.get("/health"))
        return seen[-1][0] is None

    wait_for(ask, lambda: f"still answers: {seen[-1]}")
    return [answer for answer in seen if answer[0] is not None]


def expect_end(job, streams, lost, by=None):
    """The job ends with an error, on every rank; one line names the rank, its host and the step; nothing is left."""
    code = job.wait()
    assert code != 0
    if job.codes:
        assert 0 not in job.codes_by_rank().values(), job.codes_by_rank()
    for s in streams:
        s.join(PATIENCE)
        assert not s.is_alive()
        if lost == 0:
            assert s.cut or s.code == "rank_lost"
        else:
            assert (s.code, s.done) == ("rank_lost", True)
    lines = job.lines(" error ")
    assert len(lines) == 1, job.text()
    assert f"rank {lost} (pid {job.pids[lost]}) on {os.uname().nodename} is lost" in lines[0] and " step " in lines[0]
    assert by is None or by in lines[0]
    assert job.leftovers() == []
    return code


@pytest.mark.sanitizer
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("phase", ["idle", "decode"])
def test_a_rank_is_killed(start, lost, phase):
    job = start(ranks=2 if phase == "idle" else 3, codes=True).wait_ready()
    streams = decoding(job) if phase == "decode" else []
    job.kill(lost, signal.SIGKILL)
    answers = health_after(job)
    assert lost == 0 or all(a in ((200, b""), (503, b'{"status":"rank_lost"}')) for a in answers), answers
    expect_end(job, streams, lost, "its process has ended")


def test_a_rank_of_a_job_that_started_its_ranks_is_killed(start):
    job = start(ranks=2, self_launch=True).wait_ready()
    streams = decoding(job)
    job.kill(1, signal.SIGKILL)
    expect_end(job, streams, 1)


def test_a_rank_over_mpi_is_killed(start):
    job = start("--comm", "mpi", "--no-async-scheduling", ranks=3).wait_ready()
    streams = decoding(job)
    job.kill(2, signal.SIGKILL)
    expect_end(job, streams, 2)


def test_whole_answers_are_told_as_well(start):
    job = start().wait_ready()
    stream = Stream(job, stream=False)
    time.sleep(0.3)
    job.kill(1, signal.SIGKILL)
    stream.join(PATIENCE)
    assert b" 503 " in stream.head and b"rank_lost" in stream.raw
    job.wait()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_stops(start, lost):
    job = start("--step-timeout", "2", ranks=3 if lost else 2, codes=True).wait_ready()
    streams = decoding(job) if lost else []
    job.kill(lost, signal.SIGSTOP)
    expect_end(job, streams, lost, "nothing was heard of it for")


def test_a_rank_stops_for_a_moment(start):
    """Shorter than the timeout: the same text as without."""
    job = start("--step-timeout", "60").wait_ready()
    whole = Stream(job, max_tokens=300)
    whole.join(PATIENCE)
    again = Stream(job, max_tokens=300)
    wait_for(lambda: again.n_tokens > 20, "no tokens")
    job.kill(1, signal.SIGSTOP)
    time.sleep(1.5)
    job.kill(1, signal.SIGCONT)
    again.join(PATIENCE)
    assert (again.text, again.finish, again.done) == (whole.text, "length", True)
    assert job.get("/health")[0] == 200 and job.lines(" error ") == []


def test_mpirun_is_killed(start):
    job = start(ranks=3).wait_ready()
    streams = decoding(job)
    job.process.kill()
    wait_for(lambda: not any(map(is_alive, job.pids.values())), "ranks are left")
    for s in streams:
        s.join(PATIENCE)
        assert not s.is_alive()
    assert job.leftovers() == []


# ---- at start ----


def test_a_rank_does_not_arrive(start):
    job = start("--startup-timeout", "3", ranks=3, different={1: (["sh", "-c", "exec sleep 1000"], [])})
    assert job.process.wait(PATIENCE) != 0
    lines = job.lines(" error ")
    assert len(lines) == 1 and "rank 1 of 3 did not arrive within 3 s (--startup-timeout)" in lines[0], job.text()
    assert job.leftovers() == []


def test_a_rank_hangs_at_start(start):
    job = start("--startup-timeout", "3", ranks=3, different={2: (["env", "TPSERVE_FAULT=comm.join=1"], [])})
    assert job.process.wait(PATIENCE) != 0
    lines = job.lines(" error ")
    assert len(lines) == 1 and "rank 2 of 3 did not join within the --startup-timeout" in lines[0], job.text()
    assert job.leftovers() == []


def test_a_rank_is_killed_while_loading(start):
    job = start(ranks=3, different={1: (["env", "TPSERVE_FAULT=load.stall=1"], [])})
    wait_for(lambda: len(job.find_pids()) == 3 and "3 ranks on 1 host" in job.text(), "not loading")
    job.pids = job.find_pids()
    job.kill(1, signal.SIGKILL)
    assert job.wait() != 0
    assert [line for line in job.lines(" error ") if "rank 1" in line and "is lost" in line], job.text()
    assert job.leftovers() == []


@pytest.mark.parametrize("different, words", [
    ((["env", "TPSERVE_FAULT=launch.version=1"], []), ("is tpserve", "rank 0 is")),
    (([], ["--max-num-seqs", "4", "--dtype", "float32"]),
     ("--dtype is float32 there and auto on rank 0", "--max-num-seqs is 4 there and 8 on rank 0")),
    ((["env", "TPSERVE_FAULT=load.identity=1"], []), ("finds another model in",)),
], ids=["version", "options", "model"])
def test_ranks_differ(start, different, words):
    """One line per rank that differs from rank 0."""
    job = start(ranks=3, different={1: different, 2: different})
    assert job.process.wait(PATIENCE) != 0
    lines = job.lines(" error ")
    assert len(lines) == 2, job.text()
    for rank, line in zip((1, 2), lines):
        assert f"rank {rank} on {os.uname().nodename}" in line and all(w in line for w in words), line
    assert job.leftovers() == []


def test_threads_and_port_may_differ(start):
    start(ranks=2, different={1: ([], ["--threads", "2", "--port", "0", "--log-level", "error"])}).wait_ready()


# ---- on the emulated device ----


@pytest.mark.skipif(not HAS_EMU, reason="no emulated device beside the binary")
@pytest.mark.parametrize("fault, word", [("dev.hang", "hangs"), ("dev.sticky", "an illegal memory access")])
def test_a_device_fails_on_one_rank(start, fault, word):
    job = start("--device", "emu", "--step-timeout", "5", "--max-num-batched-tokens", "64", ranks=2,
                different={1: (["env", f"TPSERVE_FAULT={fault}=1500"], [])}).wait_ready()
    stream = Stream(job, max_tokens=500)
    assert job.wait() != 0
    stream.join(PATIENCE)
    assert (stream.code, stream.done) == ("rank_lost", True)
    assert word in job.text()
    if fault == "dev.hang":
        assert f"rank 1 (pid {job.pids[1]}) on {os.uname().nodename} hangs" in job.text()
    assert job.leftovers() == []


@pytest.mark.skipif(not HAS_EMU, reason="no emulated device beside the binary")
def test_a_rank_with_a_device_is_killed(start):
    job = start("--device", "emu", ranks=2, codes=True).wait_ready()
    streams = decoding(job, 1)
    job.kill(1, signal.SIGKILL)
    expect_end(job, streams, 1)
