# SPDX-License-Identifier: Apache-2.0
"""Speculative decoding changes no answer: greedy, sampled, penalised, with logprobs, stopped, preempted, on one and two ranks."""

import json
import re

import pytest

from conftest import Server, report
from test_overlap import CACHE, REQUESTS, SMALL, answers, mixed

SPECULATE = ("--speculative-config", json.dumps({"method": "ngram"}))


def repetitive(count):
    """Requests whose answers repeat something: a word forced upon them, a list to go on with, a text to say again."""
    bodies = []
    for i in range(count):
        body = {"prompt": f"{i}: " + "one two three four five six seven eight nine ten " * (1 + i % 3), "max_tokens": 40 + i,
                "temperature": 0, "ignore_eos": True, "return_token_ids": True, "logprobs": i % 3}
        if i % 2:
            body["logit_bias"] = {str(400 + k): 100 for k in range(1 + i % 4)}
        if i % 4 >= 2:
            body |= {"temperature": 0.8, "seed": i, "n": 1 + i % 3}
        bodies.append(body)
    return bodies


def drafts(server):
    return [server.metric(f"spec_decode_num_{name}_total") for name in ("drafts", "draft_tokens", "accepted_tokens")]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.sanitizer)])
def test_same_answers_with_and_without(tmp_path, ranks):
    bodies, seen, counts = mixed(REQUESTS) + repetitive(REQUESTS // 2), [], None
    for name, options in (("plain", ()), ("guessing", SPECULATE)):
        s = Server(tmp_path / name, *SMALL, CACHE[ranks], *options, ranks=ranks)
        try:
            seen.append(answers(s, bodies))
            s.wait_metric("kv_cache_usage_perc", 0, 10)
            if options:
                counts = drafts(s)
                lines = re.findall(r"spec_decode_num_accepted_tokens_per_pos_total{.*} (\d+)", s.get("/metrics")[2].decode())
                by_place = [int(n) for n in lines]
            else:
                assert "spec_decode" not in s.get("/metrics")[2].decode()
            assert s.stop() == 0, s.text()
        finally:
            if s.process.poll() is None:
                s.stop()
    plain, guessing = seen
    assert all(x[0] == 200 for x in plain), [x for x in plain if x[0] != 200][:2]
    for i, body in enumerate(bodies):
        assert plain[i] == guessing[i], (i, body, plain[i], guessing[i])
    n, tokens, accepted = counts
    assert 0 < n <= tokens and 0 < accepted < tokens, counts
    assert len(by_place) == 8 and sum(by_place) == accepted and by_place == sorted(by_place, reverse=True)
    report(f"{len(bodies)} requests on {ranks} rank(s): the same answers with and without speculation; {n:.0f} drafts, "
           f"{accepted:.0f} of {tokens:.0f} tokens came true, by place {by_place}")


def test_streams_are_whole(tmp_path):
    """Several tokens of a step reach the client in order, each with its own logprobs."""
    s = Server(tmp_path / "log", *SPECULATE)
    body = {"prompt": "one two three one two three", "max_tokens": 60, "temperature": 0, "ignore_eos": True, "logprobs": 1,
            "logit_bias": {"401": 100}}
    try:
        _, _, whole = s.post("/v1/completions", body)
        _, _, raw = s.post("/v1/completions", body | {"stream": True})
        chunks = [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith("data: {")]
        choices = [c["choices"][0] for c in chunks if c["choices"]]
        assert "".join(c["text"] for c in choices) == whole["choices"][0]["text"]
        streamed = [x for c in choices if c["logprobs"] for x in c["logprobs"]["token_logprobs"]]
        assert streamed == whole["choices"][0]["logprobs"]["token_logprobs"] and len(streamed) == 60
        assert drafts(s)[2] > 0
        assert s.stop() == 0, s.text()
    finally:
        if s.process.poll() is None:
            s.stop()
