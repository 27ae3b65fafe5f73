# SPDX-License-Identifier: Apache-2.0
"""The whole GPU path, on the emulated device: kernels, graphs, sums over peers' memory, and what happens when it fails."""

import concurrent.futures
import pathlib
import time

import openai
import pytest

from conftest import BIN, report

SMALL = ("--max-num-seqs", "4", "--max-num-batched-tokens", "128", "--kv-cache-memory-bytes", "8M")
# Answers that the model gives by a wide margin: no rounding of another order of additions tips them.
QUESTIONS = ("What is the capital of France?", "What is 2+2?", "How many days are in a week?", "Spell the word tiger.")

pytestmark = pytest.mark.skipif(not (pathlib.Path(BIN).parent / "libtpserve_emu.so").exists(),
                                reason="no emulated device beside the binary")


def ask(server, question, stream):
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0, timeout=120)
    args = dict(model=client.models.list().data[0].id, messages=[{"role": "user", "content": question}],
                temperature=0, max_tokens=40)
    if not stream:
        return client.chat.completions.create(**args).choices[0].message.content
    chunks = client.chat.completions.create(stream=True, **args)
    return "".join(c.choices[0].delta.content or "" for c in chunks)


@pytest.fixture(scope="module")
def answers(server):
    """By CPU ranks."""
    return [ask(server, q, False) for q in QUESTIONS]


@pytest.mark.parametrize("options", [(), ("--enforce-eager",)], ids=["graphs", "eager"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_answers_are_those_of_the_cpu(start, answers, ranks, options):
    s = start("--device", "emu", *SMALL, *options, ranks=ranks)
    begin = time.monotonic()
    assert [ask(s, q, False) for q in QUESTIONS] == answers
    report(f"{len(QUESTIONS)} answers of {ranks} emulated devices {options}: {time.monotonic() - begin:.1f} s")
    assert [ask(s, q, True) for q in QUESTIONS] == answers


OPEN = ({"temperature": 1, "top_p": 0.5, "seed": 5}, {"temperature": 0, "logprobs": 3}, {"temperature": 0.9, "min_p": 0.02, "top_p": 1})


def complete(server, **body):
    status, _, answer = server.post("/v1/completions", {"prompt": "I", "max_tokens": 12, "ignore_eos": True} | body, timeout=240)
    assert status == 200, answer


def leave(server):
    """A reader that goes after the first token."""
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0, timeout=240)
    stream = client.completions.create(model=client.models.list().data[0].id, prompt="I", max_tokens=200, stream=True)
    next(iter(stream))
    stream.close()


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_steps_are_issued_ahead(start, answers, ranks):
    """By count: a step stands in the devices' queues before the last one's tokens are known, unless the host must draw."""
    s = start("--device", "emu", *SMALL, ranks=ranks)
    count = [s.metric("steps_issued_ahead_total")]

    def counted():
        s.wait_metric("generation_tokens_total", 12 * len(count), 60)  # a snapshot with the last step in it
        count.append(s.metric("steps_issued_ahead_total"))
        return count[-1] - count[-2]

    complete(s, temperature=0)
    assert counted() == 11
    complete(s, temperature=1, top_p=1, top_k=0, frequency_penalty=0.5)
    assert 10 <= counted() <= 12  # a step may follow one that only closes a slot
    complete(s, temperature=1, top_p=0.9, top_k=20)
    assert 10 <= counted() <= 12
    complete(s, temperature=1, top_p=0.5, top_k=0)
    assert counted() <= 1
    with concurrent.futures.ThreadPoolExecutor() as pool:  # more than there are places: rows of all kinds in one step
        asked = [pool.submit(ask, s, q, i % 2 == 1) for i, q in enumerate(QUESTIONS)]
        others = [pool.submit(complete, s, **kind) for kind in OPEN] + [pool.submit(leave, s)]
        assert [a.result(300) for a in asked] == answers
        for other in others:
            other.result(300)
    report(f"{ranks} emulated device(s): {s.metric('steps_issued_ahead_total'):.0f} of "
           f"{s.metric('iteration_tokens_total_count'):.0f} steps issued ahead")
    assert s.stop() == 0, s.text()


def test_without_planning_ahead_nothing_is_issued_ahead(start, answers):
    s = start("--device", "emu", *SMALL, "--no-async-scheduling", ranks=2)
    assert [ask(s, q, False) for q in QUESTIONS] == answers
    assert s.metric("steps_issued_ahead_total") == 0


def fails(start, monkeypatch, ranks, fault, *options):
    """The error's code, the exit code and the log of a job whose devices fail while it answers."""
    monkeypatch.setenv("TPSERVE_FAULT", fault)
    s = start("--device", "emu", *SMALL, *options, ranks=ranks)
    with pytest.raises(openai.APIError) as e:
        for _ in range(40):
            ask(s, "Count to 20.", False)
    return e.value.code, s.process.wait(60), s.text()


def test_an_error_of_the_device_ends_the_job(start, monkeypatch):
    # of two ranks the other may be the first to fail, which is told as rank_lost (tests/fault)
    error, code, log = fails(start, monkeypatch, 1, "dev.sticky=2000")
    assert error == "engine_dead" and code != 0
    assert log.count("an illegal memory access") + log.count("cudaErrorIllegalAddress") >= 1


def test_a_kernel_that_hangs_ends_the_job(start, monkeypatch):
    error, code, log = fails(start, monkeypatch, 2, "dev.hang=2000", "--step-timeout", "1")
    assert error == "rank_lost" and code != 0 and "made no progress" in log
