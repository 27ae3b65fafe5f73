#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What speculative decoding is worth: the same requests to two servers of one model in turn, with it and without.

    bench_speculation.py [--tpserve FILE] [--cache DIR] [--shape 0.5b|1.5b] [--rounds N]

Copying: a checkpoint of a real shape that computes all it should and says one long text (make_shape.py --script) gets that
text in its prompt, with every n-th token changed, so it is known how much of a guess can come true.  JSON and the rest: the
demo model's own answers to questions of its held-out set, of which each conversation has several.  Prints tokens/s of
decoding (from the first token of an answer to its last), and tokens per step; exits with 1 when an answer differs.
"""
import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT, ANSWER = 600, 256


class Server:
    def __init__(self, program, model, options):
        env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        sizes = ["--max-model-len", "2048", "--kv-cache-memory-bytes", "512M"]
        self.process = subprocess.Popen([program, "--model", model, "--served-model-name", "m", "--port", "0", *sizes,
                                         *options], stderr=subprocess.PIPE, env=env, text=True)
        for line in self.process.stderr:
            found = re.search(r"http://[\d.]+:(\d+)", line)
            if found:
                self.url = f"http://127.0.0.1:{found.group(1)}"
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        while self.ask("/health", None) is None:
            time.sleep(0.05)

    def ask(self, path, body):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data=data, headers={"content-type": "application/json"})
        try:
            return urllib.request.urlopen(request, timeout=600)
        except OSError:
            return None

    def run(self, path, body):
        """(answer, tokens, seconds from the first event to the last)"""
        begin = last = None
        said = ""
        for line in self.ask(path, body | {"model": "m", "stream": True, "stream_options": {"include_usage": True}}):
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event["choices"]:
                choice = event["choices"][0]
                said += choice.get("text") or choice.get("delta", {}).get("content") or ""
                last = time.perf_counter()
                begin = begin or last
            else:
                tokens = event["usage"]["completion_tokens"]
        return said, tokens, last - begin

    def counts(self):
        """Steps, and tokens guessed and accepted."""
        text = self.ask("/metrics", None).read().decode()
        names = ("iteration_tokens_total_count", "spec_decode_num_draft_tokens_total",
                 "spec_decode_num_accepted_tokens_total")
        return [float((re.findall(rf"{name}{{.*}} (.*)", text) or ["0"])[0]) for name in names]

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Pair:
    def __init__(self, args, model):
        self.rounds, self.failed = args.rounds, False
        speculate = ["--speculative-config", json.dumps(args.config)]
        self.servers = [Server(args.tpserve, model, options) for options in ([], speculate)]

    def speed(self, server, path, bodies, at_once):
        """Tokens per second of one sequence; answers."""
        seen = [None] * len(bodies)

        def work(first):
            for i in range(first, len(bodies), at_once):
                seen[i] = server.run(path, bodies[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(at_once)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return sum(s[1] - 1 for s in seen) / sum(s[2] for s in seen), [s[0] for s in seen], sum(s[1] for s in seen)

    def compare(self, what, path, bodies, at_once=1):
        for server in self.servers:  # prompts are then in the prefix cache
            self.speed(server, path, bodies, at_once)
        speeds, before = [], [s.counts() for s in self.servers]
        for _ in range(self.rounds):
            (plain, a, _), (guessing, b, n) = (self.speed(s, path, bodies, at_once) for s in self.servers)
            speeds.append((plain, guessing))
            self.failed |= a != b
        plain, guessing = (statistics.median(s[k] for s in speeds) for k in (0, 1))
        ratio = statistics.median(g / p for p, g in speeds)
        counts = [[y - x for x, y in zip(old, s.counts())] for old, s in zip(before, self.servers)]
        per_step = [n * self.rounds / c[0] for c in counts]
        print(f"    {what:36} {plain:8.1f} {guessing:8.1f} {ratio:6.2f}   {per_step[0]:6.2f} {per_step[1]:6.2f}   "
              f"{counts[1][2]:6.0f} of {counts[1][1]:.0f}{'' if a == b else '   ANSWERS DIFFER'}", flush=True)

    def stop(self):
        for server in self.servers:
            server.stop()


def copying(args):
    model = args.cache / f"script-{args.shape}"
    if not (model / "config.json").exists():
        args.cache.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, ROOT / "tests" / "model" / "make_shape.py", model, "--shape", args.shape, "--script"],
                       check=True, stdout=subprocess.DEVNULL)
    pair, rng = Pair(args, model), random.Random(1)
    first = 1000
    with pair.servers[0].ask("/v1/completions", {"model": "m", "prompt": [first], "max_tokens": TEXT, "temperature": 0,
                                                 "ignore_eos": True, "return_token_ids": True}) as reply:
        text = [first, *json.load(reply)["choices"][0]["token_ids"]]

    def body(every, at=0):
        prompt = [rng.randrange(300, 100000) if every and i % every == 0 else t for i, t in enumerate(text)]
        return {"prompt": [*prompt, text[at]], "max_tokens": ANSWER, "temperature": 0, "ignore_eos": True}

    for every, what in ((0, "copying a text"), (32, "every 32nd token changed"), (8, "every 8th token changed"),
                        (1, "a text of its own")):
        pair.compare(f"{what}, alone", "/v1/completions", [body(every)])
    for every, what in ((0, "copying a text"), (8, "every 8th token changed"), (1, "a text of its own")):
        pair.compare(f"{what}, 16 at once", "/v1/completions", [body(every, at) for at in range(16)], 16)
    pair.stop()
    return pair.failed


def answers(args):
    questions = [json.loads(line) for line in open(ROOT / "models" / "demo" / "heldout.jsonl", encoding="utf-8")]
    pair = Pair(args, ROOT / "models" / "demo")
    for what, tasks in (("JSON objects", ("json", "json_zh")), ("repeating a text", ("echo", "recall")),
                        ("long division, counting", ("multiply_large", "count")), ("stories", ("story", "story_zh"))):
        chosen = [q for q in questions if q["task"] in tasks]
        turns, bodies = [], []
        for q in chosen:  # one conversation: earlier answers are what a later one may repeat
            turns = [*turns[-8:], *q["messages"]]
            bodies.append({"messages": turns, "temperature": 0, "max_tokens": 100})
            turns = [*turns, {"role": "assistant", "content": str(q["answer"])}]
        pair.compare(what, "/v1/chat/completions", bodies)
    pair.stop()
    return pair.failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tpserve", type=Path, default=ROOT / "build" / "tpserve")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "speculation")
    parser.add_argument("--shape", default="0.5b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", type=json.loads, default={"method": "ngram"}, help="of --speculative-config")
    parser.add_argument("--only", choices=("copying", "answers"))
    args = parser.parse_args()
    print(f"{'':40} {'tokens/s of a sequence':>24}   {'tokens per step':>13}   tokens that")
    print(f"{'':40} {'without':>8} {'with':>8} {'ratio':>6}   {'w/o':>6} {'with':>6}   came true")
    failed = False
    if args.only != "answers":
        print(f"  a checkpoint of shape {args.shape}")
        failed |= copying(args)
    if args.only != "copying":
        print("  the demo model")
        failed |= answers(args)
    sys.exit(failed)


if __name__ == "__main__":
    main()
