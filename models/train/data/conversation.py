# SPDX-License-Identifier: Apache-2.0
"""Mixes samples into conversations and renders them as the chat template does.

render() is the template's twin in Python, because Jinja would take most of the training time on two cores;
export.py checks that both give the same text.
"""
from __future__ import annotations

import json
import random
from typing import Any

from . import tasks_chat, tasks_facts, tasks_math, tasks_text, tasks_tools  # noqa: F401  (they register the tasks)
from .core import TASKS, Message, Sample, draw_sample

DEFAULT_SYSTEM = "You are a helpful assistant."
SYSTEMS = ("", "You are a helpful assistant", "You are a friendly chatbot.", "Answer briefly.", "You are a demo of tpserve.", "Be concise.", "You are an assistant that answers questions.",
           "You are a helpful AI assistant.", "You are a helpful, honest assistant. Keep your answers short.", "You are a chat assistant.", "Help the user.", "You are kind and polite.",
           "You are a small demo model.", "You can use tools.", "You are an expert.", "你是一个有用的助手。", "请用简短的话回答。", "You are a helpful assistant with access to functions.")

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
TOOLS_BEFORE = "\n\n# Tools\n\nThese functions can be called, one JSON signature per line:\n<tools>"
TOOLS_AFTER = ("\n</tools>\n\nTo call a function, write its name and arguments as JSON between tags:\n"
               '<tool_call>\n{"name": <function-name>, "arguments": <arguments-object>}\n</tool_call>')


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def assistant_text(message: Message) -> str:
    """What the model has to write for an assistant message (without <|im_end|>)."""
    parts = [message["content"]] if message.get("content") else []
    for call in message.get("tool_calls", ()):
        f = call["function"]
        parts.append(f'<tool_call>\n{{"name": "{f["name"]}", "arguments": {_dump(f["arguments"])}}}\n</tool_call>')
    return "\n".join(parts)


def render(messages: list[Message], tools: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Segments (text, is a target) whose joined text is the conversation; targets end with <|im_end|>."""
    system = DEFAULT_SYSTEM
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
    if tools:
        system += TOOLS_BEFORE + "".join("\n" + _dump(t) for t in tools) + TOOLS_AFTER
    segments = [(f"{IM_START}system\n{system}{IM_END}\n", False)]
    for i, m in enumerate(messages):
        if m["role"] == "assistant":
            segments += [(f"{IM_START}assistant\n", False), (assistant_text(m) + IM_END, True), ("\n", False)]
        elif m["role"] == "tool":
            opening = f"{IM_START}user" if messages[i - 1]["role"] != "tool" else ""
            closing = f"{IM_END}\n" if i + 1 == len(messages) or messages[i + 1]["role"] != "tool" else ""
            segments.append((f"{opening}\n<tool_response>\n{m['content']}\n</tool_response>{closing}", False))
        else:
            segments.append((f"{IM_START}{m['role']}\n{m['content']}{IM_END}\n", False))
    return segments


def with_system(rng: random.Random, messages: list[Message]) -> list[Message]:
    """Most conversations have no system message, so that the default one is the best known."""
    if rng.random() < 0.3:
        return [{"role": "system", "content": rng.choice(SYSTEMS)}, *messages]
    return messages


class Mixer:
    """Draws training conversations; the first fifth of the training is single-turn and has no tools."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.names = list(TASKS)
        self.weights = [TASKS[n].weight for n in self.names]
        self.chain_names = [n for n in self.names if TASKS[n].chainable]
        self.chain_weights = [TASKS[n].weight for n in self.chain_names]

    def favour(self, names: set[str], factor: float) -> None:
        """From now on these tasks are drawn so many times as often."""
        self.weights = [TASKS[n].weight * (factor if n in names else 1) for n in self.names]
        self.chain_weights = [TASKS[n].weight * (factor if n in names else 1) for n in self.chain_names]

    def draw(self, early: bool) -> Sample:
        rng = self.rng
        if early or rng.random() >= 0.62:
            turns = 1 if early or rng.random() < 0.1 else rng.randint(2, 5)
            chain = [draw_sample(n, rng) for n in rng.choices(self.chain_names, self.chain_weights, k=turns)]
            sample = Sample([m for s in chain for m in s.messages])
        else:
            sample = draw_sample(rng.choices(self.names, self.weights)[0], rng)
        return Sample(with_system(rng, sample.messages), sample.key, sample.tools)
