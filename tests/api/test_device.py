# SPDX-License-Identifier: Apache-2.0
"""The whole GPU path, on the emulated device: kernels, graphs, sums over peers' memory, and what happens when it fails."""

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


def fails(start, monkeypatch, fault, *options):
    """The error's code, the exit code and the log of a job whose device fails while it answers."""
    monkeypatch.setenv("TPSERVE_FAULT", fault)
    s = start("--device", "emu", *SMALL, *options, ranks=2)
    with pytest.raises(openai.APIError) as e:
        for _ in range(40):
            ask(s, "Count to 20.", False)
    return e.value.code, s.process.wait(60), s.text()


def test_an_error_of_the_device_ends_the_job(start, monkeypatch):
    error, code, log = fails(start, monkeypatch, "dev.sticky=2000")
    assert error == "engine_dead" and code != 0
    assert log.count("an illegal memory access") + log.count("cudaErrorIllegalAddress") >= 1


def test_a_kernel_that_hangs_ends_the_job(start, monkeypatch):
    error, code, log = fails(start, monkeypatch, "dev.hang=2000", "--step-timeout", "1")
    assert error == "rank_lost" and code != 0 and "made no progress" in log
