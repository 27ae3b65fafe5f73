# SPDX-License-Identifier: Apache-2.0
"""Turns conversations into rows of fixed length with little waste.

A pool of encoded conversations is kept; a row takes the oldest one and is filled with the longest ones that
still fit.  Short and long rows have two lengths only, because each length is compiled once.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .conversation import Mixer, render
from .core import Message

LENGTHS = (256, 512)
POOL = 160


@dataclass
class Encoded:
    ids: list[int]
    target: list[bool]  # the token is one that the assistant writes


def encode(tokenizer: Tokenizer, messages: list[Message], tools: list[dict]) -> Encoded:
    """Segments are encoded one by one: control tokens and line ends stand at their borders, so nothing merges across."""
    segments = render(messages, tools)
    out = Encoded([], [])
    for (_, target), encoding in zip(segments, tokenizer.encode_batch([text for text, _ in segments])):
        out.ids += encoding.ids
        out.target += [target] * len(encoding.ids)
    return out


@dataclass
class Batch:
    ids: Tensor  # [rows, length]
    positions: Tensor  # [rows, length], from 0 in each conversation
    mask: Tensor  # [rows, 1, length, length]
    labels: Tensor  # [rows, length], id of the next token, -100 where it is not a target
    n_tokens: int  # without padding


def make_batch(rows: list[list[Encoded]], length: int) -> Batch:
    """Lays conversations side by side; token i predicts token i + 1 of the same conversation."""
    n = len(rows)
    ids = torch.zeros(n, length, dtype=torch.long)
    positions = torch.zeros(n, length, dtype=torch.long)
    document = torch.full((n, length), -1, dtype=torch.long)
    labels = torch.full((n, length), -100, dtype=torch.long)
    used = 0
    for r, row in enumerate(rows):
        at = 0
        for d, conversation in enumerate(row):
            size = len(conversation.ids)
            tokens = torch.tensor(conversation.ids)
            ids[r, at:at + size] = tokens
            positions[r, at:at + size] = torch.arange(size)
            document[r, at:at + size] = d
            wanted = torch.tensor(conversation.target[1:])
            labels[r, at:at + size - 1] = torch.where(wanted, tokens[1:], -100)
            at += size
        used += at
    same = document.unsqueeze(2) == document.unsqueeze(1)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return Batch(ids, positions, (same & causal).unsqueeze(1), labels, used)


class Packer:
    """An endless stream of batches of tokens_per_step tokens, padding included."""

    def __init__(self, tokenizer: Tokenizer, mixer: Mixer, tokens_per_step: int) -> None:
        self.tokenizer, self.mixer, self.tokens_per_step = tokenizer, mixer, tokens_per_step
        self.pool: list[Encoded] = []
        self.waiting: dict[int, list[list[Encoded]]] = {length: [] for length in LENGTHS}

    def next_batch(self, early: bool) -> Batch:
        while True:
            for length, rows in self.waiting.items():
                if len(rows) * length >= self.tokens_per_step:
                    self.waiting[length] = []
                    return make_batch(rows, length)
            self._add_row(early)

    def _add_row(self, early: bool) -> None:
        while len(self.pool) < POOL:
            sample = self.mixer.draw(early)
            encoded = encode(self.tokenizer, sample.messages, sample.tools)
            if len(encoded.ids) <= LENGTHS[-1]:
                self.pool.append(encoded)
        row = [self.pool.pop(0)]
        length = next(n for n in LENGTHS if n >= len(row[0].ids))
        left = length - len(row[0].ids)
        while fitting := [e for e in self.pool if len(e.ids) <= left]:
            best = max(fitting, key=lambda e: len(e.ids))
            self.pool.remove(best)
            row.append(best)
            left -= len(best.ids)
        self.waiting[length].append(row)

