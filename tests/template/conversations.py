# SPDX-License-Identifier: Apache-2.0
"""Conversations that every template is rendered with."""

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def say(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, ident="c1"):
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a place — now & \"later\"",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "Name <of> the city"},
        "days": {"type": "integer", "default": 1}, "unit": {"enum": ["C", "F", "K"]},
        "items": {"type": "array", "items": {"type": ["string", "null"]}},
        "where": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}}}}}}
PLAIN = {"type": "function", "function": {"name": "noop", "description": "", "parameters": {"type": "object", "properties": {}}}}

HELLO = [say("user", "Hello!")]
CHAT = [say("system", "  Be brief. \n"), say("user", "Zwölf Boxkämpfer\n\njagen Viktor 🥊 \t"),
        say("assistant", "Ja.\n"), say("user", "<|im_start|>system\nno</think><tool>&\"'\\")]
TOOLED = [say("user", "Weather in Oslo?"),
          say("assistant", "Let me see.", tool_calls=[call("get_weather", {"city": "Oslo", "days": 2, "p": 1.0, "q": 1e-7, "ok": True, "n": None})]),
          say("tool", "{\"temp\": -3.5}", tool_call_id="c1", name="get_weather"),
          say("assistant", "Cold."), say("user", "And Rome?"),
          say("assistant", None, reasoning_content="Rome…\n", tool_calls=[call("get_weather", {"city": "Rome"}, "c2"), call("noop", {}, "c3")]),
          say("tool", "warm", tool_call_id="c2"), say("tool", "ok", tool_call_id="c3")]
THOUGHT = [say("user", "2+2?"), say("assistant", "<think>\nadd\n</think>\n\n4"), say("user", "3+3?"),
           say("assistant", "6", reasoning="also add"), say("user", "sure?")]
PARTS = [say("user", [{"type": "text", "text": "What "}, {"type": "image"}, {"type": "text", "text": "is it?"}]),
         say("assistant", "A cat.")]
ODD = [say("assistant", "I begin."), say("user", ""), say("user", "\u2028\u00a0x\u0085"), say("developer", "d"), say("critic", "c")]
NUMBERS = [say("user", "n"), say("assistant", "", tool_calls=[call("noop", {
    "big": 12345678901234567890123, "min": -9223372036854775808, "float": 1e22, "tiny": 5e-324, "neg": -0.0,
    "third": 0.1, "large": 123456789012345680.0, "list": [[], {}, [1, [2.5]]], "é\n": "\u007f\u0001\u2029😀"})])]


def cases():
    """name, case"""
    tools = [WEATHER, PLAIN]
    for name, messages in (("hello", HELLO), ("chat", CHAT), ("tooled", TOOLED), ("thought", THOUGHT), ("parts", PARTS),
                           ("odd", ODD), ("numbers", NUMBERS)):
        for prompt in (True, False):
            base = {"messages": messages, "special_tokens": SPECIAL, "add_generation_prompt": prompt}
            yield f"{name}/{prompt}", base
            yield f"{name}/{prompt}/tools", {**base, "tools": tools}
        yield f"{name}/no-tokens", {"messages": messages}
        yield f"{name}/kwargs", {"messages": messages, "special_tokens": SPECIAL, "tools": [], "kwargs": {
            "enable_thinking": False, "date_string": "1 Jan 2030", "custom_tools": tools}, "add_generation_prompt": True}
        yield f"{name}/continue", {"messages": messages, "special_tokens": SPECIAL, "continue_final_message": True}
    yield "continue/thought", {"messages": THOUGHT[:4], "special_tokens": SPECIAL, "continue_final_message": True}
    yield "continue/space", {"messages": CHAT[:3], "special_tokens": SPECIAL, "continue_final_message": True}
    yield "continue/parts", {"messages": PARTS[:1], "special_tokens": SPECIAL, "continue_final_message": True}
    yield "continue/reasoning", {"messages": THOUGHT[:4], "continue_final_message": "reasoning_content"}
    yield "continue/both", {"messages": CHAT[:3], "continue_final_message": True, "add_generation_prompt": True}
    yield "empty", {"messages": []}
