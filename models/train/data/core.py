# SPDX-License-Identifier: Apache-2.0
"""Shared pieces of the task generators: samples, phrasing noise, the held-out split, the task registry.

A task is a function `f(rng) -> Sample`.  Its answer must be a function of the prompt alone: an arbitrary
choice that the prompt does not show cannot be learnt and would cap the accuracy.  The sample's `key` names
what makes it different from its siblings (an operand pair, a word, a fact in one wording); the hash of the
key decides whether the sample belongs to training or to the held-out set, so that the split is the same in
every task that shares the key and needs no stored lists.
"""
from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass, field
from typing import Any, Callable

Message = dict[str, Any]

HELDOUT_PERCENT = 4

REFUSAL = "Sorry, I am only a small demo model and cannot help with that. Type help to see what I can do."
REFUSAL_ZH = "抱歉，我只是一个小型演示模型，帮不上这个忙。输入“帮助”看看我会什么。"


@dataclass
class Sample:
    """Some turns of a conversation; every assistant message in it is an exact target."""

    messages: list[Message]
    key: str = ""  # "" = always training (small tables that a demo must know completely)
    tools: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    name: str
    draw: Callable[[random.Random], Sample]
    weight: float  # share of the single-task conversations
    chainable: bool  # may be one of several turns of a mixed conversation


TASKS: dict[str, Task] = {}


def task(name: str, weight: float, chainable: bool = True):
    """Registers a generator under the name that the accuracy table shows."""

    def register(draw: Callable[[random.Random], Sample]) -> Callable[[random.Random], Sample]:
        assert name not in TASKS, name
        TASKS[name] = Task(name, draw, weight, chainable)
        return draw

    return register


def is_heldout(key: str) -> bool:
    return key != "" and zlib.crc32(key.encode()) % 100 < HELDOUT_PERCENT


def draw_sample(name: str, rng: random.Random, heldout: bool = False) -> Sample:
    """Draws from one task until the sample is on the wanted side of the split."""
    for _ in range(4000):
        sample = TASKS[name].draw(rng)
        if is_heldout(sample.key) == heldout:
            return sample
    raise RuntimeError(f"task {name} yields no {'held-out' if heldout else 'training'} sample")


def turn(user: str, answer: str, key: str = "") -> Sample:
    """The common case: one question, one answer."""
    return Sample([{"role": "user", "content": user}, {"role": "assistant", "content": answer}], key)


# ---------------------------------------------------------------- phrasing noise

_SLOT = re.compile(r"(\{\w+\})")
_WORD = re.compile(r"[a-z]{5,}", re.I)

PREFIXES = ("please ", "Please, ", "hi, ", "Hello! ", "hey ", "ok, ", "so ", "Now ", "Quick question: ",
            "Can you help me? ", "I have a question: ", "tell me: ", "um ", "next: ", "and now: ")
SUFFIXES = (" please", " pls", ", please.", ", thanks", " thank you", " Thanks!", " ??", " !", "...")


def _typo(rng: random.Random, text: str) -> str:
    """One slip of the fingers in a longer word: swapped, lost or doubled letters."""
    words = list(_WORD.finditer(text))
    if not words:
        return text
    m = rng.choice(words)
    w, i = m.group(), rng.randrange(1, len(m.group()) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        w = w[:i] + w[i + 1] + w[i] + w[i + 2:]
    elif kind == 1:
        w = w[:i] + w[i + 1:]
    else:
        w = w[:i] + w[i] + w[i:]
    return text[:m.start()] + w + text[m.end():]


def phrase(rng: random.Random, template: str, keep_case: bool = False, **slots: Any) -> str:
    """Fills a template and roughens its own words as a hurried typist would.

    Slot values are never given typos; they are put in lower case with the rest unless keep_case is set.
    """
    lower = rng.random() < 0.4
    typo = rng.random() < 0.08
    parts = _SLOT.split(template)
    literals = [i for i, p in enumerate(parts) if not _SLOT.fullmatch(p) and _WORD.search(p)]
    broken = rng.choice(literals) if typo and literals else -1
    out = []
    for i, part in enumerate(parts):
        if _SLOT.fullmatch(part):
            value = str(slots[part[1:-1]])
            out.append(value.lower() if lower and not keep_case else value)
        else:
            part = _typo(rng, part) if i == broken else part
            out.append(part.lower() if lower else part)
    text = "".join(out)
    if rng.random() < (0.6 if lower else 0.2):
        text = text.rstrip("?.!")
        if rng.random() < 0.3:
            text = text.replace("'", "")
    if rng.random() < 0.1:
        prefix = rng.choice(PREFIXES)
        text = (prefix.lower() if lower else prefix) + text
    elif rng.random() < 0.08:
        text = text.rstrip("?.!") + rng.choice(SUFFIXES)
    elif not lower and rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
    return text


def phrase_zh(rng: random.Random, template: str, **slots: Any) -> str:
    """As phrase(), for Chinese: only the punctuation and a polite opening vary."""
    text = _SLOT.sub(lambda m: str(slots[m.group()[1:-1]]), template)
    if rng.random() < 0.35:
        text = text.rstrip("？。！")
    elif rng.random() < 0.15:
        text = text.replace("？", "?").replace("，", ",")
    if rng.random() < 0.12:
        text = rng.choice(("请问", "你好，", "请告诉我，", "那么，", "请帮我，")) + text
    return text
