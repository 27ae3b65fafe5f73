# SPDX-License-Identifier: Apache-2.0
"""Planning a step while the one before runs changes no text; what fails under way is told to whoever waits."""

import random
import threading

import pytest

from conftest import SANITIZED, Server, report
from test_shutdown import Stream

WORDS = "the river a house of light and water in every small city under snow one day she saw".split()
REQUESTS = 16 if SANITIZED else 48
SMALL = ("--max-num-seqs", "24", "--max-model-len", "256", "--kv-cache-memory-bytes")
CACHE = {1: "2M", 2: "1M"}  # by ranks: the same few blocks


def mixed(count):
    """Request i with something of everything that decides how a sequence runs and ends."""
    rng, bodies = random.Random(11), []
    for i in range(count):
        body = {"prompt": " ".join(rng.choices(WORDS, k=rng.randint(1, 60))), "max_tokens": rng.randint(1, 90),
                "temperature": 0, "return_token_ids": True}
        if i % 2:
            body |= {"temperature": rng.choice([0.7, 1.0, 1.3]), "seed": i, "top_p": rng.choice([1, 0.9])}
        if i % 3 == 0:
            body["stop"] = rng.sample([" the", "e", ".", "ing", "\n", " a "], 2)
        if i % 4 == 1:
            body |= {"ignore_eos": True, "frequency_penalty": 0.4}
        if i % 5 == 2:
            body |= {"n": 2, "temperature": 0.9, "seed": 100 + i}
        if i % 6 == 4:
            body |= {"logprobs": i % 7, "echo": i % 4 == 0}
        if i % 8 == 3:
            body |= {"min_tokens": min(5, body["max_tokens"]), "repetition_penalty": 1.2}
        if i % 16 == 7:
            body["prompt"] = [body["prompt"], "Once upon a time"]
        if i % 16 == 15:
            body |= {"max_tokens": 0, "prompt_logprobs": 2}
        bodies.append(body)
    return bodies


def answers(server, bodies):
    """All at once; what the client sees of each, but for ids and times."""
    got = [None] * len(bodies)

    def run(i):
        status, _, body = server.post("/v1/completions", bodies[i], timeout=300)
        got[i] = (status, body.get("choices"), body.get("usage"), body.get("error"))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(bodies))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(300)
    return got


@pytest.mark.parametrize("ranks", [1, 2])
def test_same_answers_with_and_without(tmp_path, ranks):
    bodies, seen, preempted = mixed(REQUESTS), {}, {}
    for option in ("--async-scheduling", "--no-async-scheduling"):
        s = Server(tmp_path / option, *SMALL, CACHE[ranks], option, ranks=ranks)
        try:
            seen[option] = answers(s, bodies)
            preempted[option] = s.metric("num_preemptions_total")
            s.wait_metric("kv_cache_usage_perc", 0, 10)
            assert s.stop() == 0, s.text()
        finally:
            if s.process.poll() is None:
                s.stop()
    a, b = seen.values()
    assert all(x[0] == 200 for x in a), [x for x in a if x[0] != 200][:2]
    for i, body in enumerate(bodies):
        assert a[i] == b[i], (i, body, a[i], b[i])
    assert all(n > 0 for n in preempted.values()), preempted
    reasons = {c["finish_reason"] for x in a for c in x[1]}
    assert reasons == {"stop", "length"}
    report(f"{REQUESTS} mixed requests on {ranks} rank(s): the same answers with planning ahead and without; "
           f"preemptions {[int(n) for n in preempted.values()]}")


@pytest.mark.parametrize("option", ["--async-scheduling", "--no-async-scheduling"])
def test_streams_learn_of_a_failure(start, monkeypatch, option):
    """A step that cannot be executed: open streams get an error event, and the job ends with a code."""
    monkeypatch.setenv("TPSERVE_FAULT", "comm.ctl_send=40")
    server = start(option)
    streams = [Stream(server) for _ in range(3)]
    assert server.process.wait(60) != 0
    assert [s.result()[1] for s in streams] == ["rank_lost"] * 3, server.text()
