# SPDX-License-Identifier: Apache-2.0
"""The official OpenAI SDK against a running job."""

import math

import openai
import pytest

pytestmark = pytest.mark.sanitizer

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


def test_models(client, model):
    one = client.models.retrieve(model)
    assert one.id == model and one.object == "model" and one.owned_by == "tpserve"
    assert one.max_model_len >= 64
    with pytest.raises(openai.NotFoundError) as e:
        client.models.retrieve("no-such-model")
    assert e.value.code == "model_not_found" and f"`{model}`" in e.value.message


def test_chat(client, model):
    r = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=40)
    c = r.choices[0]
    assert r.object == "chat.completion" and r.id.startswith("chatcmpl-")
    assert c.message.role == "assistant" and c.message.content and c.finish_reason in ("stop", "length")
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens
    assert r.system_fingerprint.startswith("fp_") and r._request_id


def test_chat_stream_equals_whole(client, model):
    args = dict(model=model, messages=QUESTION, temperature=0, max_tokens=40)
    whole = client.chat.completions.create(**args).choices[0]
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True},
                                                 **args))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(c.choices[0].delta.role is None for c in chunks[1:-1])
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.message.content
    assert chunks[-2].choices[0].finish_reason == whole.finish_reason
    assert sum(c.choices[0].finish_reason is not None for c in chunks[:-1]) == 1
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_stream_helper(client, model):
    with client.chat.completions.stream(model=model, messages=QUESTION, temperature=0,
                                        max_tokens=20) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content and final.choices[0].finish_reason


def test_choices_share_a_seed(client, model):
    args = dict(model=model, prompt="Once upon a time", temperature=1.0, max_tokens=12, n=4)
    first = client.completions.create(seed=7, **args)
    again = client.completions.create(seed=7, **args)
    other = client.completions.create(seed=8, **args)
    texts = [c.text for c in first.choices]
    assert [c.index for c in first.choices] == [0, 1, 2, 3]
    assert texts == [c.text for c in again.choices]
    assert texts != [c.text for c in other.choices] and len(set(texts)) > 1


@pytest.mark.parametrize("extra", [{"top_k": 5}, {"min_p": 0.1}, {"top_k": 3, "min_p": 0.05}])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5])
def test_filters_are_reproducible(client, model, extra, top_p):
    args = dict(model=model, prompt="The", temperature=0.9, top_p=top_p, max_tokens=10, seed=3,
                extra_body=extra)
    assert (client.completions.create(**args).choices[0].text
            == client.completions.create(**args).choices[0].text)


def test_top_p_zero_is_greedy(client, model):
    args = dict(model=model, prompt="The capital of", max_tokens=8)
    greedy = client.completions.create(temperature=0, **args).choices[0].text
    assert client.completions.create(temperature=1, top_p=0, **args).choices[0].text == greedy
    assert client.completions.create(temperature=1, extra_body={"top_k": 1}, **args
                                     ).choices[0].text == greedy


def test_chat_logprobs(client, model):
    r = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=6,
                                       logprobs=True, top_logprobs=3)
    entries = r.choices[0].logprobs.content
    assert len(entries) == r.usage.completion_tokens
    for e in entries:
        assert len(e.top_logprobs) == 3 and e.logprob <= 0
        assert e.logprob == max(t.logprob for t in e.top_logprobs)  # greedy: the same number
        assert bytes(e.bytes).decode(errors="replace") == e.token
        assert sum(math.exp(t.logprob) for t in e.top_logprobs) <= 1 + 1e-5
    none = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=2, logprobs=True,
                                          top_logprobs=0)
    assert none.choices[0].logprobs.content[0].top_logprobs == []


def test_loglikelihood_as_lm_eval_asks(client, model, server):
    """Prompt as ids, echo, one more token: entries line up with the ids, and greedy tokens are the maximum."""
    _, _, t = server.post("/tokenize", {"prompt": "The capital of France is Paris."})
    r = client.completions.create(model=model, prompt=[t["tokens"]], max_tokens=1, logprobs=1, echo=True,
                                  temperature=0, seed=1234)
    lp = r.choices[0].logprobs
    assert len(lp.tokens) == len(lp.token_logprobs) == len(t["tokens"]) + 1
    assert lp.token_logprobs[0] is None and lp.top_logprobs[0] is None
    for token, value, top in list(zip(lp.tokens, lp.token_logprobs, lp.top_logprobs))[1:]:
        assert value <= 0 and top[token] == value and max(top.values()) >= value
    assert r.choices[0].text.startswith("The capital of France is Paris.")
    # logprobs of the prompt do not depend on how they are asked for
    body = {"prompt": t["tokens"], "max_tokens": 0, "prompt_logprobs": 1}
    _, _, raw = server.post("/v1/completions", body)
    again = raw["choices"][0]["prompt_logprobs"]
    assert again[0] is None
    for i, entry in enumerate(again[1:], 1):
        assert entry[str(t["tokens"][i])]["logprob"] == lp.token_logprobs[i]


def test_prompt_forms_and_order(client, model, server):
    _, _, t = server.post("/tokenize", {"prompt": "Hello there"})
    args = dict(model=model, temperature=0, max_tokens=6)
    one = client.completions.create(prompt="Hello there", **args).choices[0].text
    assert client.completions.create(prompt=t["tokens"], **args).choices[0].text == one
    many = client.completions.create(prompt=["Hello there", "What is 2 + 2?"], n=2, **args)
    assert [c.index for c in many.choices] == [0, 1, 2, 3]
    assert many.choices[0].text == many.choices[1].text == one
    assert many.choices[2].text == many.choices[3].text


def test_stop_strings_cross_tokens(client, model):
    args = dict(model=model, messages=QUESTION, temperature=0, max_tokens=40)
    text = client.chat.completions.create(**args).choices[0].message.content
    stop = text[len(text) // 2 - 2: len(text) // 2 + 2]
    for stream in (False, True):
        r = client.chat.completions.create(stop=["@@never@@", stop], stream=stream, **args)
        if stream:
            chunks = list(r)
            got = "".join(c.choices[0].delta.content or "" for c in chunks)
            last = chunks[-1].choices[0]
        else:
            got, last = r.choices[0].message.content, r.choices[0]
        assert got == text[: text.index(stop)]
        assert last.finish_reason == "stop" and last.stop_reason == stop
    kept = client.chat.completions.create(stop=stop, extra_body={"include_stop_str_in_output": True}, **args)
    assert kept.choices[0].message.content == text[: text.index(stop) + len(stop)]


def test_lengths(client, model):
    args = dict(model=model, prompt="Count:", temperature=0)
    r = client.completions.create(max_tokens=7, extra_body={"ignore_eos": True}, **args)
    assert r.usage.completion_tokens == 7 and r.choices[0].finish_reason == "length"
    r = client.completions.create(max_tokens=9, extra_body={"min_tokens": 9}, **args)
    assert r.usage.completion_tokens == 9
    r = client.completions.create(max_tokens=0, echo=True, **args)
    assert r.choices[0].text == "Count:" and r.usage.completion_tokens == 0
    chat = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=0)
    assert chat.choices[0].message.content == "" and chat.choices[0].finish_reason == "length"


def test_bias_and_allowed_tokens(client, model, server):
    _, _, t = server.post("/tokenize", {"prompt": " yes no"})
    a, b = t["tokens"][:2]
    args = dict(model=model, prompt="Answer:", temperature=0, max_tokens=3)
    r = client.completions.create(logit_bias={str(a): 100}, extra_body={"return_token_ids": True}, **args)
    assert set(r.choices[0].token_ids) == {a}
    r = client.completions.create(extra_body={"allowed_token_ids": [a, b], "return_token_ids": True}, **args)
    assert set(r.choices[0].token_ids) <= {a, b}
    r = client.completions.create(logit_bias={str(a): -100}, temperature=1, prompt="x", model=model,
                                  max_tokens=20, extra_body={"return_token_ids": True})
    assert a not in r.choices[0].token_ids


def test_repetition_is_penalised(client, model):
    args = dict(model=model, prompt="la la la la la la", temperature=0, max_tokens=16,
                extra_body={"ignore_eos": True, "return_token_ids": True})
    plain = client.completions.create(**args).choices[0].token_ids
    strong = client.completions.create(frequency_penalty=2, presence_penalty=2, **args).choices[0].token_ids
    assert len(set(strong)) > len(set(plain)) or len(set(strong)) == len(strong)


def test_history_with_tools_is_legal(client, model):
    r = client.chat.completions.create(model=model, max_tokens=8, temperature=0, messages=[
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather"}, {"type": "text", "text": "in Rome?"}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Rome\"}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}])
    assert r.usage.prompt_tokens > 10


def test_control_tokens_in_user_text_stay_text(server):
    """A user who writes <|im_end|> gets characters, not the control token."""
    _, _, plain = server.post("/tokenize", {"messages": [{"role": "user", "content": "x"}]})
    _, _, tricky = server.post("/tokenize", {"messages": [{"role": "user", "content": "x<|im_end|>"}]})
    _, _, raw = server.post("/tokenize", {"prompt": "<|im_end|>"})
    control = raw["tokens"][-1]
    assert tricky["tokens"].count(control) == plain["tokens"].count(control)
    assert tricky["count"] > plain["count"] + 1


def test_tokenize_round_trip(server):
    text = "Hello, 世界! 12345 \n\t é"
    _, _, t = server.post("/tokenize", {"prompt": text, "return_token_strs": True})
    assert t["count"] == len(t["tokens"]) == len(t["token_strs"]) and t["max_model_len"] > 0
    _, _, d = server.post("/detokenize", {"tokens": t["tokens"]})
    assert d["prompt"] == text
    status, _, info = server.get("/tokenizer_info")
    assert status == 200 and "chat_template" in info and "eos_token" in info


def test_errors_as_the_sdk_sees_them(client, model):
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=model, messages=QUESTION, temperature=3)
    assert e.value.param == "temperature" and e.value.code == "invalid_value"
    with pytest.raises(openai.NotFoundError) as e:
        client.chat.completions.create(model="other", messages=QUESTION)
    assert e.value.param == "model"
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=model, messages=QUESTION, max_tokens=10**7)
    assert e.value.code == "context_length_exceeded" and "maximum context length" in str(e.value)
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=model, messages=QUESTION,
                                       tools=[{"type": "function", "function": {"name": "f"}}])
    assert e.value.code == "unsupported_parameter" and e.value.param == "tools"
