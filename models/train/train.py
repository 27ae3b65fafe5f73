#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model from nothing on two CPU cores.

    python3 models/train/train.py --out /tmp/demo-run          about an hour
    python3 models/train/export.py --checkpoint /tmp/demo-run/checkpoint.pt --out models/demo

The run is a function of the seed and the number of steps.  --minutes is a safety net: when the machine turns
out too slow, the rest of the schedule is compressed so that the learning rate still reaches zero in time.
"""
from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from data.conversation import Mixer
from data.core import TASKS
from data.heldout import answer_message, heldout_rows
from data.packing import LENGTHS, Batch, Encoded, Packer, encode, make_batch
from model.optim import make_optimizers
from model.qwen2 import Qwen2, Qwen2Config
from tokenizer import train_tokenizer

WARM_UP_STEPS = 100
CONSTANT_UNTIL = 0.2  # part of the run with the full learning rate; from there it falls linearly to zero
EARLY_UNTIL = 0.12  # part of the run with single questions and no tools only
# After the run, some steps more in which tasks that are still weak come more often.
POLISH_LR = 0.35  # of the peak, falling to zero
POLISH_BELOW, POLISH_FACTOR, POLISH_SAMPLES = 0.95, 3.0, 40
TOKENIZER_CONVERSATIONS = 25_000


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="folder for the tokenizer and the checkpoint")
    p.add_argument("--steps", type=int, default=6200, help="optimizer steps (default: %(default)s)")
    p.add_argument("--minutes", type=float, default=60.0, help="upper bound of the wall clock (default: %(default)s)")
    p.add_argument("--polish-steps", type=int, default=1800, help="further steps that favour weak tasks (default: %(default)s)")
    p.add_argument("--seed", type=int, default=1, help="seed of data and weights (default: %(default)s)")
    p.add_argument("--lr", type=float, default=4e-3, help="peak learning rate (default: %(default)s)")
    p.add_argument("--tokens-per-step", type=int, default=4096, help="tokens of a step, padding included (default: %(default)s)")
    p.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    p.add_argument("--float32", action="store_true", help="no BF16 autocast: faster on CPUs without AVX512-BF16 and AMX")
    p.add_argument("--eager", action="store_true", help="no torch.compile: slower, but starts at once and needs no C++ compiler")
    p.add_argument("--checkpoint-every", type=int, default=250, help="steps between checkpoints (default: %(default)s)")
    p.add_argument("--eval-every", type=int, default=1000, help="steps between held-out measurements (default: %(default)s)")
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return p.parse_args()


class Schedule:
    """Progress from 0 to 1, by steps; faster than planned only if the time would run out."""

    def __init__(self, steps: int, minutes: float) -> None:
        self.steps, self.seconds = steps, minutes * 60
        self.step, self.progress, self.bounded = 0, 0.0, False

    def advance(self, elapsed: float, seconds_per_step: float) -> None:
        self.step += 1
        planned = self.steps - self.step + 1
        affordable = (self.seconds - elapsed) / seconds_per_step
        self.bounded |= affordable < planned
        self.progress += (1 - self.progress) / max(1.0, min(planned, affordable))

    def learning_rate(self, peak: float) -> float:
        warm = min(1.0, (self.step + 1) / WARM_UP_STEPS)
        return peak * warm * min(1.0, (1 - self.progress) / (1 - CONSTANT_UNTIL))

    @property
    def done(self) -> bool:
        return self.progress >= 1 - 1e-9 or self.step >= self.steps


class Trainer:
    """Model, optimizers, data and schedule of one run, and their checkpoint."""

    def __init__(self, args: argparse.Namespace, tokenizer: Tokenizer) -> None:
        self.args, self.tokenizer = args, tokenizer
        torch.manual_seed(args.seed)
        self.model = Qwen2(Qwen2Config(vocab_size=tokenizer.get_vocab_size()))
        self.trunk = self.model if args.eager else torch.compile(self.model, dynamic=False)
        self.optimizers = make_optimizers(self.model, args.lr, torch.float32 if args.float32 else torch.bfloat16)
        self.packer = Packer(tokenizer, Mixer(args.seed), args.tokens_per_step)
        self.schedule = Schedule(args.steps, args.minutes)
        self.elapsed, self.tokens, self.polished = 0.0, 0, 0

    @property
    def path(self) -> Path:
        return self.args.out / "checkpoint.pt"

    def save(self) -> None:
        """Writes beside and renames: a crash in between leaves the old checkpoint whole."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers],
            "schedule": vars(self.schedule), "elapsed": self.elapsed, "tokens": self.tokens, "polished": self.polished,
            "run": {"steps": self.args.steps, "minutes": self.args.minutes, "seed": self.args.seed, "threads": self.args.threads,
                    "arithmetic": "float32" if self.args.float32 else "bfloat16 autocast"},
            "rng": self.packer.mixer.rng.getstate(), "pool": self.packer.pool, "waiting": self.packer.waiting}
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.path)

    def load(self) -> None:
        state = torch.load(self.path, weights_only=False)  # our own file: it holds plain Python objects too
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        vars(self.schedule).update(state["schedule"])
        self.elapsed, self.tokens = state["elapsed"], state["tokens"]
        self.polished = state.get("polished", 0)
        self.packer.mixer.rng.setstate(state["rng"])
        self.packer.pool, self.packer.waiting = state["pool"], state["waiting"]

    def train_step(self, batch: Batch, lr: float) -> float:
        wanted = batch.labels >= 0
        with torch.autocast("cpu", torch.bfloat16, enabled=not self.args.float32):
            hidden = self.trunk(batch.ids, batch.positions, batch.mask)
            logits = self.model.logits(hidden[wanted])
        loss = F.cross_entropy(logits.float(), batch.labels[wanted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def run(self) -> None:
        args, schedule = self.args, self.schedule
        loss_mean, pace = 0.0, 0.0
        while not schedule.done:
            start = time.monotonic()
            batch = self.packer.next_batch(early=schedule.progress < EARLY_UNTIL)
            loss = self.train_step(batch, schedule.learning_rate(args.lr))
            seconds = time.monotonic() - start
            # The first steps compile; the pace of a short run would be spoilt by them.
            pace = seconds if schedule.step < 12 or pace == 0.0 else 0.98 * pace + 0.02 * min(seconds, 5 * pace)
            loss_mean = loss if schedule.step == 0 else 0.98 * loss_mean + 0.02 * loss
            self.elapsed += seconds
            self.tokens += batch.n_tokens
            schedule.advance(self.elapsed, pace if schedule.step >= 40 else 1e-3)
            if schedule.step % 25 == 0 or schedule.done:
                self._show(loss_mean, pace)
            if schedule.step % args.checkpoint_every == 0 or schedule.done:
                self.save()
            if schedule.step % args.eval_every == 0 or schedule.done:
                start = time.monotonic()
                self._measure()
                self.elapsed += time.monotonic() - start

    def polish(self) -> None:
        """Weak is judged by new samples from the training side: the held-out questions decide nothing."""
        steps = self.args.polish_steps
        if steps == 0:
            return
        scores = teacher_forced(self.model, self.tokenizer, heldout_rows(POLISH_SAMPLES, heldout=False), not self.args.float32)
        weak = {name for name, score in scores.items() if score < POLISH_BELOW}
        print(f"{steps} more steps, {POLISH_FACTOR:g} times as often: {', '.join(sorted(weak))}", flush=True)
        self.packer.mixer.favour(weak, POLISH_FACTOR)
        while self.polished < steps:
            start = time.monotonic()
            batch = self.packer.next_batch(early=False)
            loss = self.train_step(batch, self.args.lr * POLISH_LR * (1 - self.polished / steps))
            self.polished += 1
            self.elapsed += time.monotonic() - start
            self.tokens += batch.n_tokens
            if self.polished % 25 == 0:
                print(f"polish {self.polished}/{steps}  loss {loss:.4f}  {self.tokens / 1e6:.2f} M tokens  {self.elapsed / 60:.1f} min", flush=True)
            if self.polished % self.args.checkpoint_every == 0 or self.polished == steps:
                self.save()
        self._measure()

    def _show(self, loss: float, pace: float) -> None:
        s = self.schedule
        left = min(self.args.steps - s.step, max(0.0, (s.seconds - self.elapsed) / pace)) * pace
        print(f"step {s.step:5d}/{s.steps}  {100 * s.progress:5.1f} %  loss {loss:.4f}  lr {s.learning_rate(self.args.lr):.2e}  "
              f"{self.tokens / 1e6:.2f} M tokens  {self.args.tokens_per_step / pace:.0f} tokens/s  {self.elapsed / 60:.1f} min  "
              f"ETA {left / 60:.0f} min{'  (time bound)' if s.bounded else ''}", flush=True)

    def _measure(self) -> None:
        scores = teacher_forced(self.model, self.tokenizer, heldout_rows(12), not self.args.float32)
        mean = sum(scores.values()) / len(scores)
        print(f"held-out {100 * mean:.1f} %: " + ", ".join(f"{n} {100 * v:.0f}" for n, v in scores.items()), flush=True)


@torch.no_grad()
def teacher_forced(model: Qwen2, tokenizer: Tokenizer, rows: list[dict[str, Any]], autocast: bool) -> dict[str, float]:
    """Share of answers whose every token is the argmax, given the right ones before it.

    This equals exact match of greedy decoding (the first wrong token decides both) at a fraction of its cost.
    """
    groups: dict[int, list[tuple[str, Encoded]]] = {n: [] for n in LENGTHS}
    for row in rows:
        e = encode(tokenizer, [*row["messages"], answer_message(row)], row.get("tools", []))
        last = max(i for i in range(1, len(e.target)) if e.target[i] and not e.target[i - 1])
        e.target[:last] = [False] * last
        length = next((n for n in LENGTHS if n >= len(e.ids)), None)
        if length is not None:
            groups[length].append((row["task"], e))
    right = {name: [] for name in TASKS}
    for length, group in groups.items():
        for at in range(0, len(group), 16):
            part = group[at:at + 16]
            batch = make_batch([[e] for _, e in part], length)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                guess = model.logits(model(batch.ids, batch.positions, batch.mask)).argmax(-1)
            good = ((guess == batch.labels) | (batch.labels < 0)).all(dim=1)
            for (name, _), ok in zip(part, good.tolist()):
                right[name].append(ok)
    return {name: sum(v) / len(v) for name, v in right.items() if v}


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "tokenizer.json"
    if args.resume:
        tokenizer = Tokenizer.from_file(str(path))
    else:
        tokenizer = train_tokenizer(Qwen2Config.vocab_size, TOKENIZER_CONVERSATIONS, args.seed)
        tokenizer.save(str(path))
    trainer = Trainer(args, tokenizer)
    if args.resume:
        trainer.load()
    n = sum(p.numel() for p in trainer.model.parameters())
    print(f"{n / 1e6:.2f} M parameters, {len(TASKS)} tasks, {args.steps} steps of {args.tokens_per_step} tokens, "
          f"{'float32' if args.float32 else 'bfloat16 autocast'}, {args.threads} threads", flush=True)
    trainer.run()
    trainer.polish()
    print(f"done: {trainer.schedule.step} steps, {trainer.tokens / 1e6:.2f} M tokens, {trainer.elapsed / 60:.1f} minutes, "
          f"{'the time bound shortened the schedule' if trainer.schedule.bounded else 'full schedule'}", flush=True)


if __name__ == "__main__":
    main()
