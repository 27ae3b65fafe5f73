# SPDX-License-Identifier: Apache-2.0
"""The prefix cache behind the OpenAI SDK: what is found and by whom, and that no answer depends on it."""

import random
import threading

import openai
import pytest

from conftest import Server
from test_overlap import answers, mixed

BLOCK = 16
KEYS = ["sk-first", "sk-second"]
OPTIONS = ("--served-model-name", "m", "--api-key", KEYS[0], "--api-key", KEYS[1])


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    s = Server(tmp_path_factory.mktemp("cached") / "log", *OPTIONS)
    yield s
    assert s.stop() == 0, s.text()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    s = Server(tmp_path_factory.mktemp("plain") / "log", *OPTIONS, "--no-enable-prefix-caching")
    yield s
    assert s.stop() == 0, s.text()


def sdk(server, key=KEYS[0]):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0, timeout=120)


def ids(seed, n):
    rng = random.Random(seed)
    return [rng.randrange(300, 3000) for _ in range(n)]


def complete(server, prompt, key=KEYS[0], **args):
    args = {"max_tokens": 24, "temperature": 0, "logprobs": 5, "extra_body": {"ignore_eos": True}} | args
    return sdk(server, key).completions.create(model="m", prompt=prompt, **args)


def found(response):
    return response.usage.prompt_tokens_details.cached_tokens


def said(response):
    """Everything that must not depend on the cache."""
    return [(c.index, c.text, c.finish_reason, c.logprobs) for c in response.choices]


def whole_blocks(n):
    return n // BLOCK * BLOCK


def authorized(server, name):
    _, _, text = server.get("/metrics", headers={"authorization": f"Bearer {KEYS[0]}"})
    return float(next(line for line in text.decode().splitlines() if line.startswith(f"vllm:{name}{{")).rsplit(" ", 1)[1])


def test_shared_prefix(cached, plain):
    prefix = ids(1, 1100)
    queries, hits = (authorized(cached, f"prefix_cache_{n}_total") for n in ("queries", "hits"))
    n_queries = n_hits = 0
    for i, n in enumerate([40, 1, 100, 17, 300]):
        prompt = prefix + ids(100 + i, n)
        got = complete(cached, prompt)
        assert found(got) == (whole_blocks(len(prefix)) if i > 0 else 0)
        assert said(got) == said(complete(plain, prompt))
        n_queries, n_hits = n_queries + len(prompt), n_hits + found(got)
    assert found(complete(plain, prompt)) == 0
    assert authorized(cached, "prefix_cache_queries_total") == queries + n_queries
    assert authorized(cached, "prefix_cache_hits_total") == hits + n_hits
    assert authorized(plain, "prefix_cache_queries_total") == 0


@pytest.mark.parametrize("n", [1, 15, 16, 17, 32, 33, 160])
def test_same_prompt_again(cached, plain, n):
    """The last token is always computed."""
    prompt = ids(1000 + n, n)
    first, second = complete(cached, prompt), complete(cached, prompt)
    assert (found(first), found(second)) == (0, whole_blocks(n - 1))
    assert said(first) == said(second) == said(complete(plain, prompt))


def test_conversation(cached, plain):
    messages, last = [], 0
    for question in ["What is the capital of France?", "Spell the word river.", "What is 12 times 11?",
                     "Which of 17 and 71 is larger?"]:
        messages.append({"role": "user", "content": question})
        args = dict(model="m", messages=messages, temperature=0, logprobs=True, top_logprobs=3)
        got, expected = (sdk(s).chat.completions.create(**args) for s in (cached, plain))
        assert got.choices == expected.choices
        assert found(got) >= whole_blocks(last) - BLOCK  # the template may write the end of an answer in other tokens
        last = got.usage.total_tokens
        messages.append({"role": "assistant", "content": got.choices[0].message.content})
    assert found(got) > 0


@pytest.mark.sanitizer
def test_answer_is_found(cached, plain):
    prompt = ids(5, 50)
    answer = complete(cached, prompt, max_tokens=60, extra_body={"ignore_eos": True, "return_token_ids": True})
    prompt += answer.choices[0].token_ids + ids(6, 5)
    got = complete(cached, prompt)
    assert found(got) == whole_blocks(50 + 59)  # nobody has computed the last token
    assert said(got) == said(complete(plain, prompt))


@pytest.mark.sanitizer
def test_stream_and_choices(cached, plain):
    prompt = ids(7, 200)
    args = dict(n=3, temperature=0.9, seed=5, logprobs=2)
    first = complete(cached, prompt, **args)
    again = complete(cached, prompt, **args)
    assert (found(first), found(again)) == (0, 192)
    assert said(first) == said(again) == said(complete(plain, prompt, **args))
    chunks = list(sdk(cached).completions.create(model="m", prompt=prompt, max_tokens=5, stream=True,
                                                 stream_options={"include_usage": True}))
    assert found(chunks[-1]) == 192
    two = complete(cached, [prompt, ids(8, 40)])
    assert found(two) == 192


def test_prompt_logprobs_are_whole(cached, plain):
    prompt = ids(9, 100)
    complete(cached, prompt)
    args = dict(echo=True, logprobs=3)
    got = complete(cached, prompt, **args)
    assert found(got) == 0
    assert said(got) == said(complete(plain, prompt, **args))
    assert found(complete(cached, prompt)) == 96


def test_strangers_share_nothing(cached):
    prompt = ids(10, 100)
    salted = {"ignore_eos": True, "cache_salt": "a"}
    other = {"ignore_eos": True, "cache_salt": "b"}
    cases = [(KEYS[0], {"ignore_eos": True}), (KEYS[1], {"ignore_eos": True}), (KEYS[0], salted), (KEYS[0], other),
             (KEYS[1], salted)]
    for expected in (0, 96):
        texts = set()
        for key, extra in cases:
            got = complete(cached, prompt, key, extra_body=extra)
            assert found(got) == expected, (key, extra)
            texts.add(got.choices[0].text)
        assert len(texts) == 1
    messages = [{"role": "user", "content": "Please count from one to twenty, and then tell me a story."}]
    for salt, expected in (("x", False), ("x", True), ("y", False)):
        got = sdk(cached).chat.completions.create(model="m", messages=messages, max_tokens=4,
                                                  extra_body={"cache_salt": salt})
        assert (found(got) > 0) == expected


def test_cancelled_prompts_leave_sound_blocks(cached, plain):
    prompts = [ids(20 + i, 1500) for i in range(4)]

    def leave(prompt, after):
        stream = sdk(cached).completions.create(model="m", prompt=prompt, max_tokens=400, stream=True,
                                                extra_body={"ignore_eos": True})
        for i, _ in enumerate(stream):
            if i == after:
                break
        stream.close()

    threads = [threading.Thread(target=leave, args=(p, 3 * i)) for i, p in enumerate(prompts)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    for prompt in prompts:
        prompt = prompt + ids(30, 9)
        got = complete(cached, prompt)
        assert found(got) >= whole_blocks(1500)
        assert said(got) == said(complete(plain, prompt))


SMALL = ("--max-num-seqs", "24", "--max-model-len", "256", "--kv-cache-memory-bytes", "1M")


def test_full_cache(tmp_path):
    """Preemption, eviction and sharing at once, on a few blocks: the same answers with the cache and without."""
    prefixes = ["The river and the house. " * 6, "One day she saw a small city under snow. " * 4]
    bodies, seen = mixed(36), []
    for i, body in enumerate(bodies):
        if isinstance(body["prompt"], str):
            body["prompt"] = (prefixes[i % 2] + body["prompt"])[:400]
        body["max_tokens"] = min(body["max_tokens"], 60)
    for option in ("--enable-prefix-caching", "--no-enable-prefix-caching"):
        s = Server(tmp_path / option, *SMALL, option)
        try:
            seen.append(answers(s, bodies))
            assert s.metric("num_preemptions_total") > 0
            assert (s.metric("prefix_cache_hits_total") > 0) == (option == "--enable-prefix-caching")
            s.wait_metric("kv_cache_usage_perc", 0, 10)
            assert s.stop() == 0, s.text()
        finally:
            if s.process.poll() is None:
                s.stop()
    for body, a, b in zip(bodies, *seen):
        for usage in (a[2], b[2]):
            del usage["prompt_tokens_details"]
        assert a[0] == 200 and a == b, body


def test_least_recently_used_goes_first(start):
    s = start(*SMALL, "--served-model-name", "m")  # fewer blocks than six of these prompts fill
    prompts = [ids(40 + i, 200) for i in range(6)]
    texts = [complete(s, p).choices[0].text for p in prompts]
    assert found(complete(s, prompts[5])) == 192
    again = complete(s, prompts[0])
    assert found(again) == 0 and again.choices[0].text == texts[0]
    assert s.metric("kv_cache_usage_perc") == 0
