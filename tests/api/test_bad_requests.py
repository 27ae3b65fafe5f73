# SPDX-License-Identifier: Apache-2.0
"""Requests that must be refused: generated from a table of the contract, and JSON that is damaged by hand.

Each one gets its 4xx with the code and the parameter that the contract names, soon, and leaves the server in order.
"""

import http.client
import json
import re
import time

import pytest

from conftest import report

pytestmark = pytest.mark.sanitizer

CHAT, TEXT, TOKENIZE, DETOKENIZE = ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize")
BASE = {
    CHAT: '"messages":[{"role":"user","content":"hi"}],"max_tokens":1',
    TEXT: '"prompt":"hi","max_tokens":1',
    TOKENIZE: '"prompt":"hi"',
    DETOKENIZE: '"tokens":[65,66]',
}
BOTH = (CHAT, TEXT)
FIXED = (CHAT, TEXT, TOKENIZE, DETOKENIZE)
HUGE = ["1e999", "-1e999", "9223372036854775808", "-9223372036854775809", "1" + "0" * 400]

# name: (kind, endpoints, lowest, highest); None = no limit of its own
NUMBERS = {
    "n": ("int", BOTH, 1, 128),
    "max_tokens": ("int", BOTH, 0, None),
    "max_completion_tokens": ("int", (CHAT,), 0, None),
    "min_tokens": ("int", BOTH, 0, 2 ** 31 - 1),
    "top_k": ("int", BOTH, -1, None),
    "top_logprobs": ("int", (CHAT,), 0, 20),
    "logprobs": ("int", (TEXT,), 0, 20),
    "prompt_logprobs": ("int", BOTH, 0, 20),
    "truncate_prompt_tokens": ("int", BOTH, 1, 2 ** 31 - 1),
    "seed": ("int", BOTH, None, None),
    "temperature": ("real", BOTH, 0, 2),
    "top_p": ("real", BOTH, 0, 1),
    "min_p": ("real", BOTH, 0, 1),
    "frequency_penalty": ("real", BOTH, -2, 2),
    "presence_penalty": ("real", BOTH, -2, 2),
    "repetition_penalty": ("real", BOTH, 1e-3, 10),
}
BOOLEANS = {
    "stream": BOTH, "ignore_eos": BOTH, "include_stop_str_in_output": BOTH, "skip_special_tokens": BOTH,
    "return_token_ids": BOTH, "add_special_tokens": BOTH, "store": BOTH, "echo": (TEXT,), "logprobs": (CHAT,),
    "add_generation_prompt": (CHAT,), "continue_final_message": (CHAT,), "parallel_tool_calls": (CHAT,),
}
STRINGS = {
    "user": BOTH, "cache_salt": BOTH, "safety_identifier": BOTH, "prompt_cache_key": BOTH, "service_tier": BOTH,
    "reasoning_effort": (CHAT,), "verbosity": (CHAT,), "model": BOTH,
}
OBJECTS = {"metadata": BOTH, "stream_options": BOTH, "logit_bias": BOTH, "response_format": BOTH,
           "chat_template_kwargs": (CHAT,)}
ID_LISTS = {"stop_token_ids": (BOTH, 128), "allowed_token_ids": (BOTH, 1024)}
UNSUPPORTED = {
    "tools": ((CHAT,), '[{"type":"function","function":{"name":"f"}}]'),
    "functions": ((CHAT,), '[{"name":"f"}]'),
    "function_call": ((CHAT,), '"auto"'),
    "audio": ((CHAT,), '{"voice":"alloy"}'),
    "web_search_options": ((CHAT,), "{}"),
    "moderation": ((CHAT,), "true"),
    "documents": ((CHAT,), "[]"),
    "chat_template": ((CHAT,), '"{{ messages }}"'),
    "suffix": ((TEXT,), '"end"'),
    "guided_json": (BOTH, "{}"),
    "guided_regex": (BOTH, '"(a+)+$"'),
    "guided_choice": (BOTH, '["a"]'),
    "guided_grammar": (BOTH, '"root ::= root"'),
    "grammar": (BOTH, '"x"'),
    "regex": (BOTH, '"x"'),
    "structured_outputs": (BOTH, '{"choice":["a"]}'),
    "bad_words": (BOTH, '["a"]'),
    "best_of": ((TEXT,), "2"),
    "use_beam_search": (BOTH, "true"),
    "priority": (BOTH, "1"),
}

CASES = []


def add(name, path, body, code, param=None, status=400, **headers):
    raw = body if isinstance(body, bytes) else body.encode()
    CASES.append(pytest.param(path, raw, status, code, param, headers, id=name))


def with_value(path, name, value):
    """A good body with one member replaced or added, as text: Python's json would not write 1e999."""
    members = [m for m in re.findall(r'"\w+":(?:\[.*\]|"[^"]*"|\d+)', BASE[path])
               if not m.startswith(f'"{name}":')]
    if name == "top_logprobs":
        members.append('"logprobs":true')
    return "{" + ",".join([*members, f'"{name}":{value}']) + "}"


def add_value(path, name, value, code, param=None, what="", status=400):
    add(f"{path}-{name}-{(what or value)[:40]}", path, with_value(path, name, value), code, param or name, status)


for key, (kind, paths, lo, hi) in NUMBERS.items():
    for where in paths:
        for wrong in ['"5"', "true", "false", "[5]", "{}", '""', '"nan"']:
            add_value(where, key, wrong, "invalid_type")
        for wrong in HUGE:
            add_value(where, key, wrong, "invalid_value")
        if kind == "int":
            for wrong in ["1.5", "0.1", "1e-400"]:
                add_value(where, key, wrong, "invalid_type")
        if lo is not None:
            for wrong in [lo - 1, lo - 2 ** 31, lo - 2 ** 53]:
                add_value(where, key, str(wrong), "invalid_value")
        if hi is not None:
            for wrong in [hi + 1, hi + 2 ** 31, hi + 2 ** 53]:
                add_value(where, key, str(wrong), "invalid_value")
for key, paths in BOOLEANS.items():
    for where in paths:
        for wrong in ["1", "0", '"true"', "[]", "{}", '""', "1e999"]:
            add_value(where, key, wrong, "invalid_type")
for key, paths in STRINGS.items():
    for where in paths:
        for wrong in ["5", "true", "[]", "{}", '["x"]']:
            add_value(where, key, wrong, "invalid_type")
for where in BOTH:
    add_value(where, "cache_salt", '""', "invalid_value")
    add_value(where, "cache_salt", '"%s"' % ("x" * 257), "invalid_value")
for key, paths in OBJECTS.items():
    for where in paths:
        for wrong in ["5", "true", '"x"', "[]", "[{}]"]:
            add_value(where, key, wrong, "invalid_type")
for key, (paths, most) in ID_LISTS.items():
    for where in paths:
        for wrong in ["5", '"5"', "{}", "true"]:
            add_value(where, key, wrong, "invalid_type")
        for wrong in ['["5"]', "[1.5]", "[null]", "[[1]]", "[true]", "[1e999]", "[9223372036854775808]"]:
            add_value(where, key, wrong, "invalid_type", f"{key}[0]")
        for wrong in ["[-1]", "[100000000]", "[2147483648]"]:
            add_value(where, key, wrong, "invalid_value", f"{key}[0]")
        add_value(where, key, json.dumps([1] * (most + 1)), "invalid_value", what="too-many")
for key, (paths, value) in UNSUPPORTED.items():
    for where in paths:
        add_value(where, key, value, "unsupported_parameter")

for where in BOTH:
    add_value(where, "allowed_token_ids", "[]", "invalid_value")
    for wrong in ["[]", '""', '["a","b","c","d","e"]', json.dumps("x" * 257)]:
        add_value(where, "stop", wrong, "invalid_value")
    for wrong in ['["a",""]', '[""]', json.dumps(["x" * 300])]:
        add_value(where, "stop", wrong, "invalid_value", "stop[1]" if '"a"' in wrong else "stop[0]")
    for wrong in ["5", "true", "{}"]:
        add_value(where, "stop", wrong, "invalid_type")
    for wrong in ["[5]", "[null]", '[["a"]]']:
        add_value(where, "stop", wrong, "invalid_type", "stop[0]")
    for member in ["x", "1.5", "", "1x", "+1", " 1", "-", "1-2", "0x10", "99999999999999999999", "-1", "100000000"]:
        add_value(where, "logit_bias", json.dumps({member: 1}), "invalid_value", f"logit_bias.{member}")
    for wrong in ["101", "-101", "1e999"]:
        add_value(where, "logit_bias", '{"5":%s}' % wrong, "invalid_value", "logit_bias.5")
    for wrong in ['"1"', "true", "[]", "null"]:
        add_value(where, "logit_bias", '{"5":%s}' % wrong, "invalid_type", "logit_bias.5")
    add_value(where, "logit_bias", json.dumps({str(i): 1 for i in range(1025)}), "invalid_value", what="too-many")
    for wrong in ['{"include_usage":1}', '{"include_usage":"yes"}']:
        add(f"{where}-stream_options-{wrong}", where,
            '{%s,"stream":true,"stream_options":%s}' % (BASE[where], wrong), "invalid_type",
            "stream_options.include_usage")
    add_value(where, "stream_options", "{}", "invalid_value", what="without-stream")
    add(f"{where}-stream-options-false", where,
        '{%s,"stream":false,"stream_options":{"include_usage":true}}' % BASE[where], "invalid_value", "stream_options")
    add(f"{where}-prompt-logprobs-stream", where, '{%s,"stream":true,"prompt_logprobs":1}' % BASE[where],
        "invalid_value", "prompt_logprobs")
    add_value(where, "response_format", "{}", "invalid_value", "response_format.type")
    add_value(where, "response_format", '{"type":5}', "invalid_value", "response_format.type")
    add_value(where, "response_format", '{"type":"xml"}', "invalid_value", "response_format.type")
    add_value(where, "response_format", '{"type":"json_object"}', "unsupported_parameter")
    add_value(where, "response_format", '{"type":"json_schema","json_schema":{"name":"x","schema":{}}}',
              "unsupported_parameter")
    add_value(where, "min_tokens", "2", "invalid_value", what="beyond-max_tokens")
    add_value(where, "max_tokens", "1000000", "context_length_exceeded")
    add_value(where, "max_tokens", str(2 ** 63 - 1), "context_length_exceeded")
    add(f"{where}-unknown-model", where, '{%s,"model":"no-such"}' % BASE[where], "model_not_found", "model", 404)
    add(f"{where}-form", where, "prompt=hi", "unsupported_media_type", status=415,
        **{"content-type": "application/x-www-form-urlencoded"})
    add(f"{where}-plain", where, "{%s}" % BASE[where], "unsupported_media_type", status=415,
        **{"content-type": "text/plain"})
    add(f"{where}-no-type", where, "{%s}" % BASE[where], "unsupported_media_type", status=415, **{"content-type": ""})
    add(f"{where}-gzip", where, "{%s}" % BASE[where], "unsupported_media_type", status=415,
        **{"content-type": "application/json", "content-encoding": "gzip"})
add_value(CHAT, "top_logprobs", "21", "invalid_value")
add("top_logprobs-alone", CHAT, '{%s,"top_logprobs":2}' % BASE[CHAT], "invalid_value", "top_logprobs")
add_value(CHAT, "max_completion_tokens", "1000000", "context_length_exceeded")
add_value(CHAT, "tool_choice", '"auto"', "unsupported_parameter")
add_value(CHAT, "tool_choice", "5", "invalid_type")
add_value(CHAT, "modalities", '["text","audio"]', "unsupported_parameter")
add_value(CHAT, "modalities", '"text"', "invalid_type")
add_value(CHAT, "chat_template_kwargs", '{"tokenize":true}', "invalid_value", "chat_template_kwargs.tokenize")
add_value(CHAT, "chat_template_kwargs", '{"messages":[]}', "invalid_value", "chat_template_kwargs.messages")
add_value(CHAT, "chat_template_kwargs", '{"x":[1]}', "invalid_type", "chat_template_kwargs.x")
add("both-prompts", CHAT, '{%s,"continue_final_message":true,"add_generation_prompt":true}' % BASE[CHAT],
    "invalid_value", "continue_final_message")

# ---- prompts ----
for value, code, at in [
        ('""', "invalid_value", "prompt"), ("[]", "invalid_value", "prompt"), ("[[]]", "invalid_value", "prompt"),
        ('[""]', "invalid_value", "prompt"), ('["a",""]', "invalid_value", "prompt"),
        ("null", "missing_required_parameter", "prompt"), ("5", "invalid_type", "prompt"),
        ("true", "invalid_type", "prompt"), ("{}", "invalid_type", "prompt"), ("[{}]", "invalid_type", "prompt[0]"),
        ("[true]", "invalid_type", "prompt[0]"), ("[null]", "invalid_type", "prompt[0]"),
        ('["a",5]', "invalid_type", "prompt[1]"), ('[5,"a"]', "invalid_type", "prompt[1]"),
        ("[1.5]", "invalid_type", "prompt[0]"), ("[1e999]", "invalid_type", "prompt[0]"),
        ("[-1]", "invalid_value", "prompt[0]"), ("[5,100000000]", "invalid_value", "prompt[1]"),
        ("[[5],[-1]]", "invalid_value", "prompt[1][0]"), ('[[5],["a"]]', "invalid_type", "prompt[1][0]"),
        ("[[[5]]]", "invalid_type", "prompt[0][0]"), ("[2147483648]", "invalid_value", "prompt[0]"),
        ("[9223372036854775808]", "invalid_type", "prompt[0]")]:
    add_value(TEXT, "prompt", value, code, at)
add_value(TEXT, "prompt", json.dumps(["a"] * 129), "invalid_value", what="129-prompts")
add("n-times-prompts", TEXT, json.dumps({"prompt": ["a"] * 10, "n": 100, "max_tokens": 1}), "invalid_value", "n")
add_value(TEXT, "prompt", json.dumps("word " * 30000), "context_length_exceeded", what="long-text")
add_value(TEXT, "prompt", json.dumps([65] * 5000), "context_length_exceeded", what="long-ids")
add_value(TEXT, "prompt", json.dumps([65] * 200000), "context_length_exceeded", what="very-long-ids")
add("million-values", TEXT, '{"prompt":[%s]}' % ",".join(["1"] * 1000001), "invalid_json")
add("no-prompt", TEXT, "{}", "missing_required_parameter", "prompt")

# ---- messages ----
M = "messages[0]"
for value, code, at in [
        ("[]", "invalid_value", "messages"), ("null", "missing_required_parameter", "messages"),
        ("5", "invalid_type", "messages"), ('"hi"', "invalid_type", "messages"), ("{}", "invalid_type", "messages"),
        ("[5]", "invalid_type", M), ('["hi"]', "invalid_type", M), ("[null]", "invalid_type", M),
        ("[[]]", "invalid_type", M), ("[{}]", "missing_required_parameter", M + ".role"),
        ('[{"content":"hi"}]', "missing_required_parameter", M + ".role"),
        ('[{"role":123,"content":"hi"}]', "invalid_type", M + ".role"),
        ('[{"role":"","content":"hi"}]', "invalid_value", M + ".role"),
        ('[{"role":"<|im_start|>","content":"hi"}]', "invalid_value", M + ".role"),
        ('[{"role":"a b","content":"hi"}]', "invalid_value", M + ".role"),
        ('[{"role":"%s","content":"hi"}]' % ("r" * 65), "invalid_value", M + ".role"),
        ('[{"role":"user"}]', "missing_required_parameter", M + ".content"),
        ('[{"role":"user","content":null}]', "missing_required_parameter", M + ".content"),
        ('[{"role":"user","content":123}]', "invalid_type", M + ".content"),
        ('[{"role":"user","content":true}]', "invalid_type", M + ".content"),
        ('[{"role":"user","content":{}}]', "invalid_type", M + ".content"),
        ('[{"role":"user","content":[123]}]', "invalid_type", M + ".content[0]"),
        ('[{"role":"user","content":["hi"]}]', "invalid_type", M + ".content[0]"),
        ('[{"role":"user","content":[{}]}]', "invalid_value", M + ".content[0]"),
        ('[{"role":"user","content":[{"type":5}]}]', "invalid_value", M + ".content[0]"),
        ('[{"role":"user","content":[{"type":"text"}]}]', "invalid_type", M + ".content[0]"),
        ('[{"role":"user","content":[{"type":"text","text":5}]}]', "invalid_type", M + ".content[0]"),
        ('[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]', "unsupported_parameter",
         M + ".content[0]"),
        ('[{"role":"user","content":[{"type":"input_audio"}]}]', "unsupported_parameter", M + ".content[0]"),
        ('[{"role":"user","content":"a"},{"role":"user"}]', "missing_required_parameter", "messages[1].content"),
        ('[{"role":"tool","content":"x"}]', "missing_required_parameter", M + ".tool_call_id"),
        ('[{"role":"tool","content":"x","tool_call_id":5}]', "invalid_type", M + ".tool_call_id"),
        ('[{"role":"user","content":"x","name":5}]', "invalid_type", M + ".name"),
        ('[{"role":"assistant","tool_calls":5}]', "invalid_type", M + ".tool_calls"),
        ('[{"role":"assistant","tool_calls":[]}]', "missing_required_parameter", M + ".content"),
        ('[{"role":"assistant","tool_calls":[5]}]', "invalid_value", M + ".tool_calls[0]"),
        ('[{"role":"assistant","tool_calls":[{}]}]', "invalid_value", M + ".tool_calls[0]"),
        ('[{"role":"assistant","tool_calls":[{"function":5}]}]', "invalid_value", M + ".tool_calls[0]"),
        ('[{"role":"assistant","tool_calls":[{"function":{}}]}]', "invalid_value", M + ".tool_calls[0]"),
        ('[{"role":"assistant","tool_calls":[{"type":"x","function":{"name":"f"}}]}]', "invalid_value",
         M + ".tool_calls[0]"),
        ('[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":5}}]}]', "invalid_value",
         M + ".tool_calls[0]"),
        ('[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{"}}]}]', "invalid_value",
         M + ".tool_calls[0]"),
        ('[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"[]"}}]}]', "invalid_value",
         M + ".tool_calls[0]"),
        ('[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"%s"}}]}]'
         % (r"[" * 2000), "invalid_value", M + ".tool_calls[0]")]:
    add_value(CHAT, "messages", value, code, at)
add_value(CHAT, "messages", json.dumps([{"role": "user", "content": "a"}] * 4097), "invalid_value", what="4097")
add_value(CHAT, "messages", json.dumps([{"role": "user", "content": "word " * 30000}]), "context_length_exceeded",
          what="long")

# ---- JSON itself ----
for where in FIXED:
    good = "{%s}" % BASE[where]
    for name, raw in {
            "empty": "", "space": "  ", "truncated": good[:-1], "truncated-string": good[:5], "trailing": good + "x",
            "two": good + good, "trailing-comma": good[:-1] + ",}", "single-quotes": "{'prompt':'hi'}",
            "comment": good[:-1] + "/*x*/}", "nan": good[:-1] + ',"top_p":NaN}', "inf": good[:-1] + ',"top_p":-Infinity}',
            "leading-zero": good[:-1] + ',"seed":01}', "plus": good[:-1] + ',"seed":+1}', "dot": good[:-1] + ',"top_p":1.}',
            "hex": good[:-1] + ',"seed":0x10}', "nul-escape": good[:-1] + ',"user":"a\\u0000b"}',
            "lone-high": good[:-1] + ',"user":"\\ud800"}', "lone-low": good[:-1] + ',"user":"\\udc00x"}',
            "bad-escape": good[:-1] + ',"user":"\\x41"}', "control": good[:-1] + ',"user":"a\nb"}',
            "depth": good[:-1] + ',"x":' + "[" * 64 + "]" * 64 + "}", "depth-10k": good[:-1] + ',"x":' + "[" * 10000,
            "object-bomb": good[:-1] + ',"x":' + '{"a":' * 100000, "array": "[%s]" % good, "number": "5", "string": '"hi"',
            "null": "null", "true": "true"}.items():
        add(f"{where}-{name}", where, raw, "invalid_json")
    for name, raw in {
            "bom": b"\xef\xbb\xbf" + good.encode(), "nul": good[:-1].encode() + b"\x00}",
            "nul-in-string": good[:-1].encode() + b',"user":"a\x00"}', "latin1": good[:-1].encode() + b',"user":"\xe9"}',
            "overlong": good[:-1].encode() + b',"user":"\xc0\x80"}', "cesu": good[:-1].encode() + b',"user":"\xed\xa0\x80"}',
            "cut-utf8": good[:-1].encode() + b',"user":"\xe2\x82"}', "utf16": good.encode("utf-16"),
            "beyond": good[:-1].encode() + b',"user":"\xf4\x90\x80\x80"}', "binary": bytes(range(256))}.items():
        add(f"{where}-{name}", where, raw, "invalid_json")
    add(f"{where}-duplicate", where, good[:-1] + "," + BASE[where] + "}", "duplicate_key")
    add(f"{where}-duplicate-unknown", where, good[:-1] + ',"zz":1,"zz":2}', "duplicate_key")
    add(f"{where}-duplicate-escaped", where, good[:-1] + ',"zz":1,"\\u007az":2}', "duplicate_key")
add("duplicate-role", CHAT, '{"messages":[{"role":"user","role":"system","content":"x"}]}', "duplicate_key")
add("duplicate-stream-option", CHAT, '{%s,"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}'
    % BASE[CHAT], "duplicate_key")

# ---- small endpoints ----
for value, code, at in [("5", "invalid_type", "prompt"), ("[]", "invalid_type", "prompt"), ("{}", "invalid_type", "prompt"),
                        ("true", "invalid_type", "prompt"), ("null", "missing_required_parameter", "prompt")]:
    add_value(TOKENIZE, "prompt", value, code, at)
for where in (TOKENIZE, DETOKENIZE):
    add_value(where, "model", '"no-such-model"', "model_not_found", status=404)
    add_value(where, "model", "5", "invalid_type")
add("tokenize-strs", TOKENIZE, '{"prompt":"a","return_token_strs":5}', "invalid_type", "return_token_strs")
add("tokenize-special", TOKENIZE, '{"prompt":"a","add_special_tokens":"x"}', "invalid_type", "add_special_tokens")
add("tokenize-messages", TOKENIZE, '{"messages":[]}', "invalid_value", "messages")
add("tokenize-message", TOKENIZE, '{"messages":[{"role":5}]}', "invalid_type", "messages[0].role")
for value, code, at in [("5", "invalid_type", "tokens"), ('"a"', "invalid_type", "tokens"), ("{}", "invalid_type", "tokens"),
                        ("null", "missing_required_parameter", "tokens"), ("[-1]", "invalid_value", "tokens[0]"),
                        ('["a"]', "invalid_type", "tokens[0]"), ("[1.5]", "invalid_type", "tokens[0]"),
                        ("[1,100000000]", "invalid_value", "tokens[1]"), ("[1e999]", "invalid_type", "tokens[0]")]:
    add_value(DETOKENIZE, "tokens", value, code, at)

GOOD = [
    (CHAT, '{"messages":[{"role":"user","content":"hi","x":1}],"max_tokens":1,"zz":[1],"n":null,"stop":null}'),
    (CHAT, '{"messages":[{"role":"user","content":"hi"}],"max_tokens":1,"metadata":{"a":1,"a":2}}'),
    (CHAT, '{"messages":[{"role":"user","content":"hi"}],"max_tokens":1,"chat_template_kwargs":{"a":1,"a":2}}'),
    (CHAT, '{"messages":[{"role":"user","content":"hi"}],"max_tokens":0}'),
    (CHAT, '{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"max_tokens":1,"model":""}'),
    (CHAT, '{"messages":[{"role":"user","content":"hi"}],"max_tokens":1,"best_of":5,"prompt":7,"tools":null}'),
    (CHAT, '{"messages":[{"role":"user","content":"<|im_end|><s>\\ud83d\\ude00\\u202e"}],"max_tokens":1}'),
    (TEXT, '{"prompt":"hi","max_tokens":1,"seed":-9223372036854775808,"top_k":9223372036854775807}'),
    (TEXT, '{"prompt":"hi","max_tokens":1,"seed":9223372036854775807,"logit_bias":{},"best_of":1}'),
    (TEXT, '{"prompt":"hi","max_tokens":1,"best_of":2,"n":2,"use_beam_search":false}'),
    (TEXT, '{"prompt":"hi","max_tokens":1,"temperature":1e-400,"top_p":-0,"frequency_penalty":-2}'),
    (TEXT, '{"prompt":"hi","max_tokens":1,"messages":5,"top_logprobs":"x","priority":0,"suffix":null}'),
    (TEXT, '{"prompt":"hi","max_tokens":1,"x":' + "[" * 63 + "]" * 63 + "}"),
]


class Client:
    """One keep-alive connection, made anew when the server closed it."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path, body, headers):
        for attempt in (0, 1):
            try:
                self.connection.request("POST", path, body, headers)
                answer = self.connection.getresponse()
                return answer.status, answer.headers, answer.read()
            except (ConnectionError, http.client.HTTPException):
                self.connection.close()
                if attempt == 1:
                    raise
        return None


@pytest.fixture(scope="module")
def client(server):
    return Client(server.port)


@pytest.fixture(scope="module")
def times():
    seen = []
    yield seen
    seen.sort()
    if seen:
        report(f"{len(seen)} bad requests: median {1e3 * seen[len(seen) // 2][0]:.1f} ms, slowest "
               f"{1e3 * seen[-1][0]:.1f} ms ({seen[-1][1]})")


LEAKS = re.compile(rb"0x[0-9a-f]{6,}|/(?:home|root|work|usr|tmp)/|\.c:\d+")


@pytest.mark.parametrize("path,body,status,code,param,headers", CASES)
def test_refused(client, times, request, path, body, status, code, param, headers):
    sent = {"content-type": "application/json", **headers}
    sent = {k: v for k, v in sent.items() if v}
    before = time.perf_counter()
    got, answer_headers, raw = client.post(path, body, sent)
    took = time.perf_counter() - before
    times.append((took, request.node.callspec.id))
    error = json.loads(raw)["error"]
    assert (got, error["code"], error["param"]) == (status, code, param), error
    assert sorted(error) == ["code", "message", "param", "type"]
    assert error["type"] == "invalid_request_error" and error["message"]
    assert answer_headers["content-type"] == "application/json" and answer_headers["x-request-id"]
    assert not LEAKS.search(raw), raw
    assert took < 30
    got, _, raw = client.post(TEXT, b'{"prompt":"hi","max_tokens":1}', {"content-type": "application/json"})
    assert got == 200, raw


def test_there_are_enough():
    assert len(CASES) >= 300


@pytest.mark.parametrize("path,body", GOOD)
def test_accepted(client, path, body):
    got, _, raw = client.post(path, body.encode(), {"content-type": "application/json"})
    assert got == 200, raw


def test_context_limit_is_exact(client, server):
    limit = server.get("/v1/models")[2]["data"][0]["max_model_len"]
    asked = {"content-type": "application/json"}
    for n_prompt, max_tokens, param, why in [
            (limit - 1, 1, None, ""), (limit - 1, 2, "max_tokens", "max_tokens is too large; it can be 1 at most"),
            (limit, 0, None, ""), (limit, 1, "prompt", "no room for an answer"),
            (limit + 1, 0, "prompt", "longer than the model's context length by 1)"),
            (limit - 5, 100, "max_tokens", "asks for 100 (max_tokens is too large; it can be 5 at most)")]:
        body = json.dumps({"prompt": [65] * n_prompt, "max_tokens": max_tokens}).encode()
        got, _, raw = client.post(TEXT, body, asked)
        assert got == (400 if why else 200), (n_prompt, max_tokens, raw)
        if why:
            error = json.loads(raw)["error"]
            assert (error["code"], error["param"]) == ("context_length_exceeded", param), error
            assert error["message"].startswith(f"This model's maximum context length is {limit} tokens."), error
            assert f"has {n_prompt} tokens in the prompt" in error["message"] and why in error["message"], error
