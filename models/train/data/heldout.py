# SPDX-License-Identifier: Apache-2.0
"""The held-out questions: a fixed draw from the side of the split that training never sees."""
from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from .conversation import assistant_text, with_system
from .core import TASKS, Message, draw_sample

SEED = 2024


def heldout_rows(per_task: int, heldout: bool = True) -> list[dict[str, Any]]:
    """Rows {"task", "messages", "tools"?, "answer"}; the answer is the last assistant message as the model writes it.

    heldout False: the same from the side that training sees.
    """
    rows = []
    for name in TASKS:
        rng = random.Random(f"{SEED} {name}")
        seen: set[str] = set()
        for _ in range(per_task * 30):
            sample = draw_sample(name, rng, heldout=heldout)
            last = max(i for i, m in enumerate(sample.messages) if m["role"] == "assistant")
            question = sample.messages[last - 1]["content"]
            if question in seen:
                continue
            seen.add(question)
            row: dict[str, Any] = {"task": name, "messages": with_system(rng, sample.messages[:last])}
            if sample.tools:
                row["tools"] = sample.tools
            row["answer"] = assistant_text(sample.messages[last])
            rows.append(row)
            if len(seen) == per_task:
                break
    return rows


def answer_message(row: dict[str, Any]) -> Message:
    return {"role": "assistant", "content": row["answer"]}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
