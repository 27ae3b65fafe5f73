#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that the generators never give one question two answers, which no model could learn.

    python3 models/train/check_data.py        10 seconds; prints each contradiction, exit status 1 if there is one
"""
from __future__ import annotations

import random
import sys
from collections import defaultdict

from data import conversation  # noqa: F401  (registers the tasks)
from data.core import TASKS

DRAWS_PER_TASK = 12_000


def main() -> int:
    rng = random.Random(5)
    answers: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for task in TASKS.values():
        for _ in range(DRAWS_PER_TASK):
            sample = task.draw(rng)
            if len(sample.messages) == 2 and not sample.tools:
                question, answer = (m["content"] for m in sample.messages)
                answers[question.strip()].add((answer, task.name))
    bad = {q: found for q, found in answers.items() if len({answer for answer, _ in found}) > 1}
    for question, found in bad.items():
        print(f"{question!r}:", *(f"\n    {name}: {answer}" for answer, name in sorted(found)))
    print(f"{len(answers)} questions of {len(TASKS)} tasks, {len(bad)} with more than one answer")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
