#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures exact match per task on the held-out questions, from transformers or from a running server.

    python3 models/train/evaluate.py --model models/demo
    python3 models/train/evaluate.py --base-url http://127.0.0.1:8000/v1

Both print the same table, so that a server can be held against the reference.  Decoding is greedy.  An answer
counts if its text is equal to the expected one and, for tool calls, the names and arguments are; an answer
that does not end by itself counts as wrong.  Only the transformers way needs packages beyond Python's own.
"""
from __future__ import annotations

import argparse
import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

TOOL_CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.S)

CLAIM = 0.9  # a task is claimed from this accuracy on

# Typed by people who were told nothing; the list was fixed before the model had been seen.
NEWCOMER = (
    "hi", "Who are you?", "What can you do?", "What is 2+2?", "12*12", "what's 250 + 13?", "capital of france", "What is the capital of Atlantis?",
    "How many days are in a week?", "count to 5", "Say hello world", "How many r's are in strawberry?", "Translate good morning to French", "Tell me a joke",
    "Write a poem about the sea", "write python code for quicksort", "Tell me a short story about a dog", "你好，你是谁？", "What is the weather in Paris today?",
    "Thanks, bye!",
)


@dataclass
class Reply:
    """An answer with its tool calls taken apart, comparable between the two sources."""

    content: str
    calls: list[tuple[str, Any]]
    ended: bool = True

    def same_as(self, other: Reply) -> bool:
        return self.ended and (self.content, self.calls) == (other.content, other.calls)

    def __str__(self) -> str:
        calls = "".join(f" [{name} {json.dumps(arguments, ensure_ascii=False)}]" for name, arguments in self.calls)
        return self.content + calls + ("" if self.ended else " ... (did not end)")


def parse_reply(text: str, ended: bool = True) -> Reply:
    """Text as the model writes it; a call that is not JSON stays in the content and so counts as wrong."""
    try:
        calls = [(call["name"], call["arguments"]) for call in map(json.loads, TOOL_CALL.findall(text))]
        return Reply(TOOL_CALL.sub("", text).strip(), calls, ended)
    except (ValueError, KeyError, TypeError):
        return Reply(text.strip(), [], ended)


Ask = Callable[[list[dict[str, Any]], list[dict[str, Any]] | None], Reply]


def transformers_source(folder: Path, max_tokens: int, threads: int, float32: bool = False) -> Ask:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32 if float32 else torch.bfloat16).eval()

    def ask(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> Reply:
        prompt = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False)
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            ids = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)[0, inputs["input_ids"].shape[1]:]
        return parse_reply(tokenizer.decode(ids, skip_special_tokens=True), ended=len(ids) < max_tokens)

    return ask


def template_of(folder: Path) -> Callable[[list[dict[str, Any]], list[dict[str, Any]]], str]:
    """The chat template of a model folder, as transformers would render it."""
    import jinja2.sandbox

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False, **kw)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = env.from_string(config["chat_template"])
    return lambda messages, tools: template.render(messages=messages, tools=tools, add_generation_prompt=True)


def server_source(base_url: str, name: str | None, max_tokens: int, folder: Path) -> Ask:
    """`folder` has the chat template for questions with tools (needs Jinja2)."""
    base_url = base_url.rstrip("/")
    render = template_of(folder)

    def call(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base_url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)

    name = name or call("/models")["data"][0]["id"]

    def ask(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> Reply:
        body = {"model": name, "temperature": 0, "max_tokens": max_tokens}
        if tools:  # as text: a server need not know the tool format of this model
            choice = call("/completions", body | {"prompt": render(messages, tools)})["choices"][0]
            text = choice["text"]
        else:
            choice = call("/chat/completions", body | {"messages": messages})["choices"][0]
            text = choice["message"]["content"] or ""
        return parse_reply(text, ended=choice["finish_reason"] != "length")

    return ask


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def measure(ask: Ask, rows: list[dict[str, Any]], parallel: int, show_wrong: bool) -> dict[str, tuple[int, int]]:
    """Right answers and questions of each task."""
    with ThreadPoolExecutor(parallel) as pool:
        replies = list(pool.map(lambda row: ask(row["messages"], row.get("tools")), rows))
    table: dict[str, tuple[int, int]] = {}
    for row, reply in zip(rows, replies):
        good = reply.same_as(parse_reply(row["answer"]))
        right, total = table.get(row["task"], (0, 0))
        table[row["task"]] = (right + good, total + 1)
        if show_wrong and not good:
            print(f"{row['task']}: {row['messages'][-1]['content']!r}\n    expected {parse_reply(row['answer'])}\n    got      {reply}")
    return table


def format_table(table: dict[str, tuple[int, int]]) -> str:
    """Markdown; a task is claimed where it reaches CLAIM."""
    lines = ["| task                 | right | of  | accuracy | claimed |", f"|{'-' * 22}|------:|----:|---------:|---------|"]
    lines += [f"| {name:20} | {right:5} | {total:3} | {100 * right / total:6.1f} % | {'yes' if right >= CLAIM * total else 'no':7} |"
              for name, (right, total) in table.items()]
    mean = sum(r / t for r, t in table.values()) / len(table)
    right, total = (sum(column) for column in zip(*table.values()))
    lines.append(f"| {'mean of the tasks':20} | {right:5} | {total:3} | {100 * mean:6.1f} % |         |")
    return "\n".join(lines)


def newcomer_lines(ask: Ask) -> list[str]:
    """Rows of a Markdown table: what was typed, what the model answered."""
    return [f"| {prompt} | {ask([{'role': 'user', 'content': prompt}], None)} |" for prompt in NEWCOMER]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="model folder, run with transformers in BF16")
    source.add_argument("--base-url", help="OpenAI-compatible server, for example http://127.0.0.1:8000/v1")
    p.add_argument("--served-name", help="model name to ask the server for (default: the first that it lists)")
    p.add_argument("--heldout", type=Path, default=Path(__file__).parents[1] / "demo" / "heldout.jsonl", help="question file (default: the demo model's)")
    p.add_argument("--limit", type=int, help="only the first N questions of each task")
    p.add_argument("--max-tokens", type=int, default=256, help="longest answer (default: %(default)s)")
    p.add_argument("--parallel", type=int, default=1, help="requests in flight at a server (default: %(default)s)")
    p.add_argument("--threads", type=int, default=2, help="CPU threads of transformers (default: %(default)s)")
    p.add_argument("--float32", action="store_true", help="transformers computes in FP32: for servers with --dtype float32")
    p.add_argument("--show-wrong", action="store_true", help="print each wrong answer")
    p.add_argument("--newcomer", action="store_true", help="print the answers to twenty typical first questions instead")
    args = p.parse_args()

    if args.model:
        ask = transformers_source(args.model, args.max_tokens, args.threads, args.float32)
    else:
        ask = server_source(args.base_url, args.served_name, args.max_tokens, args.heldout.parent)
    if args.newcomer:
        print("\n".join(newcomer_lines(ask)))
        return
    rows = read_rows(args.heldout)
    if args.limit:
        by_task: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            by_task.setdefault(row["task"], []).append(row)
        rows = [row for of_task in by_task.values() for row in of_task[:args.limit]]
    print(format_table(measure(ask, rows, args.parallel if args.base_url else 1, args.show_wrong)))


if __name__ == "__main__":
    main()
