# SPDX-License-Identifier: Apache-2.0
"""What transformers' apply_chat_template does, on Jinja2 itself: the reference that test_template.py compares with."""
import copy
import datetime
import json

import jinja2
from jinja2 import ext, nodes, sandbox
from jinja2.exceptions import SecurityError

REASONING = ("reasoning_content", "thinking", "reasoning")
MARK = "CONTINUE_FINAL_MESSAGE_TAG "


class Refusal(Exception):
    """raise_exception() was called: its words must arrive unchanged."""


class GenerationTag(ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    @staticmethod
    def _render(caller):
        return caller()


class SafeNamespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):  # pylint: disable=no-method-argument
        self, values = args[0], dict(*args[1:], **kwargs)
        if any(isinstance(name, str) and name.startswith("_") for name in values):
            raise SecurityError("underscore in a namespace")
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name, value):
        if name.startswith("_"):
            raise SecurityError("underscore in a namespace")
        super().__setitem__(name, value)


def environment(now):
    def raise_exception(message):
        raise Refusal(str(message))

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["namespace"] = SafeNamespace
    env.globals["strftime_now"] = lambda form: datetime.datetime.fromtimestamp(now).strftime(form)
    return env


def prepare(messages):
    """Nulls vanish; a reasoning text goes by every name that templates know."""
    chat = []
    for message in messages:
        message = {k: copy.deepcopy(v) for k, v in message.items() if v is not None}
        text = next((message[k] for k in REASONING if k in message), None)
        if text is not None:
            message = {"thinking": text, **message, "reasoning_content": text}
        chat.append(message)
    return chat


def mark_final(template, message, field):
    text = message.get(field)
    if text is None:
        raise ValueError("nothing to continue")
    names = [k for k in REASONING if message.get(k) == text] if field in REASONING else [field]
    if not any(name in template for name in names):
        raise ValueError("the template does not read the field")
    if not isinstance(text, list):
        for name in names:
            message[name] = text + MARK
        return text
    part = next((p for p in reversed(text) if "text" in p), None)
    if part is None:
        raise ValueError("no text to continue")
    text = part["text"]
    part["text"] += MARK
    return text


def cut(text, final):
    if final.strip() not in text or MARK.strip() not in text:
        raise ValueError("the final message was not rendered")
    at = text.rindex(MARK.strip())
    return text[:at] if text.startswith(MARK, at) else text[:at].rstrip()


def render(env, template, case):
    """The text; raises Refusal or any other exception."""
    chat = prepare(case["messages"])
    field, final = case.get("continue_final_message", False), None
    if not chat:
        raise ValueError("no messages")
    if field:
        if case.get("add_generation_prompt"):
            raise ValueError("two flags that exclude each other")
        final = mark_final(template, chat[-1], field if isinstance(field, str) else "content")
    text = env.from_string(template).render(
        **{**case.get("special_tokens", {}), **case.get("kwargs", {})},
        messages=chat, tools=case.get("tools"), documents=case.get("documents"),
        add_generation_prompt=case.get("add_generation_prompt", False))
    return cut(text, final) if field else text
