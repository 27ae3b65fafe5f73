#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Damaged checkpoints: each must end the load with exit code 1 and one clear message, and on several ranks with an
error on every rank, without a hang.

    test_damaged.py LOAD_MODEL GOLDENS [RANKS...]       standard library only
"""
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS_MAX = 20  # of one load, starting mpirun included
SINGLE, SHARDS = "qwen2", "shards"
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


class Checkpoint:
    """A copy of a golden to be damaged."""

    def __init__(self, folder, source, name):
        shutil.copytree(source, folder)
        self.dir = folder
        self.name = name
        self.file = folder / "model.safetensors"

    def header(self):
        raw = self.file.read_bytes()
        (n,) = struct.unpack("<Q", raw[:8])
        return json.loads(raw[8:8 + n]), raw[8 + n:]

    def write(self, header, data, n=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        self.file.write_bytes(struct.pack("<Q", len(text) if n is None else n) + text + data)

    def edit(self, change):
        header, data = self.header()
        self.write(change(header) or header, data)

    def config(self, **changes):
        path = self.dir / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def index(self, change):
        path = self.dir / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index["weight_map"])
        path.write_text(json.dumps(index))


def shift(header, name, by):
    begin, end = header[name]["data_offsets"]
    header[name]["data_offsets"] = [begin + by, end + by]


def last(header):
    return max((k for k in header if k != "__metadata__"), key=lambda k: header[k]["data_offsets"][1])


def truncate(c, n):
    c.file.write_bytes(c.file.read_bytes()[:n])


def header_with(key, value):
    return lambda c: c.edit(lambda h: h[Q_PROJ].update({key: value}))


def hole(c):
    header, data = c.header()
    shift(header, last(header), 64)
    c.write(header, data + bytes(64))


def overlap(c):
    header, data = c.header()
    shift(header, last(header), -64)
    c.write(header, data[:-64])


def duplicate(c):
    header, data = c.header()
    text = json.dumps(header)
    entry = json.dumps({Q_PROJ: header[Q_PROJ]})[1:-1]
    c.write((text[:-1] + ", " + entry + "}").encode(), data)


def duplicate_empty(c):
    """Tiles well, so only the names tell."""
    header, data = c.header()
    entry = '"twin": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}'
    c.write((json.dumps(header)[:-1] + f", {entry}, {entry}" + "}").encode(), data)


def rename(c):
    c.edit(lambda h: {k.replace("layers.1.mlp.up_proj", "layers.1.mlp.upproj"): v for k, v in h.items()})


def transpose(c):
    c.edit(lambda h: h["model.layers.0.mlp.down_proj.weight"]["shape"].reverse())


def lose_shard(c):
    sorted(c.dir.glob("model-0000*.safetensors"))[1].unlink()


def truncate_shard(c):
    path = sorted(c.dir.glob("model-0000*.safetensors"))[-1]
    path.write_bytes(path.read_bytes()[:-1])


def move_in_index(c):
    files = sorted(p.name for p in c.dir.glob("model-0000*.safetensors"))
    c.index(lambda m: m.update({Q_PROJ: next(f for f in files if f != m[Q_PROJ])}))


def raw(data):
    return lambda c: c.file.write_bytes(data)


def config_text(text):
    return lambda c: (c.dir / "config.json").write_text(text)


# name: (golden, damage, part of the message)
CASES = {
    "truncated by one byte": (SINGLE, lambda c: truncate(c, -1), "download complete"),
    "truncated in the header": (SINGLE, lambda c: truncate(c, 100), "header length is"),
    "zero-size file": (SINGLE, raw(b""), "0 bytes are too few"),
    "seven bytes": (SINGLE, raw(b"1234567"), "7 bytes are too few"),
    "header length 0": (SINGLE, raw(bytes(8)), "not a JSON object"),
    "header length 2^63": (SINGLE, raw(struct.pack("<Q", 1 << 63) + b"{}"), "header length is 9223372036854775808"),
    "header over 100 MB": (SINGLE, raw(struct.pack("<Q", 100_000_001) + b"{}"), "header length is 100000001"),
    "header not JSON": (SINGLE, raw(struct.pack("<Q", 8) + b"{\"a\": b}"), "header cannot be read"),
    "header not an object": (SINGLE, raw(struct.pack("<Q", 2) + b"[]"), "not a JSON object"),
    "header not UTF-8": (SINGLE, raw(struct.pack("<Q", 8) + b"{\"\xff\": 1}"), "header cannot be read"),
    "header nested deeply": (SINGLE, raw(struct.pack("<Q", 20000) + b"{\"a\":" + b"[" * 19995), "header cannot be read"),
    "bytes after the end": (SINGLE, lambda c: c.file.write_bytes(c.file.read_bytes() + b"x"), "1 bytes follow"),
    "hole": (SINGLE, hole, "a hole"),
    "overlap": (SINGLE, overlap, "an overlap"),
    "end before begin": (SINGLE, header_with("data_offsets", [8, 0]), "not [begin, end]"),
    "negative offset": (SINGLE, header_with("data_offsets", [-8, 0]), "not [begin, end]"),
    "offset beyond the end": (SINGLE, header_with("data_offsets", [0, 1 << 60]), "is the download complete"),
    "three offsets": (SINGLE, header_with("data_offsets", [0, 8, 16]), "not [begin, end]"),
    "shape overflows": (SINGLE, header_with("shape", [1 << 32, 1 << 32]), "overflows"),
    "negative dimension": (SINGLE, header_with("shape", [-56, 56]), "not a whole number"),
    "shape and bytes disagree": (SINGLE, header_with("shape", [56, 55]), "dtype and shape need 6160"),
    "dtype unknown": (SINGLE, header_with("dtype", "BF17"), "unknown dtype \"BF17\""),
    "dtype missing": (SINGLE, header_with("dtype", None), "has no dtype"),
    "stored as integers": (SINGLE, header_with("dtype", "I16"), "stored as I16; supported: F32, BF16, F16"),
    "entry is no object": (SINGLE, lambda c: c.edit(lambda h: h.update({Q_PROJ: 5})), "is number, expected an object"),
    "metadata not text": (SINGLE, lambda c: c.edit(lambda h: h.update(__metadata__={"a": 1})), "is not a string"),
    "duplicate name": (SINGLE, duplicate, "an overlap"),
    "duplicate empty name": (SINGLE, duplicate_empty, "tensor twin appears twice"),
    "tensor missing": (SINGLE, rename, "model.layers.1.mlp.up_proj.weight is missing"),
    "tensor of wrong shape": (SINGLE, transpose, "has shape [88, 56], config.json asks for [56, 88]"),
    "other hidden size": (SINGLE, lambda c: c.config(hidden_size=112), "config.json asks for [256, 112]"),
    "more layers than stored": (SINGLE, lambda c: c.config(num_hidden_layers=3), "model.layers.2."),
    "no weights": (SINGLE, lambda c: c.file.unlink(), "neither model.safetensors nor"),
    "weights are a directory": (SINGLE, lambda c: (c.file.unlink(), c.file.mkdir()), "not a regular file"),
    "shard missing": (SHARDS, lose_shard, "No such file"),
    "shard truncated": (SHARDS, truncate_shard, "is the download complete"),
    "index points outside": (SHARDS, lambda c: c.index(lambda m: m.update({Q_PROJ: "../x.safetensors"})),
                             "not a plain name"),
    "index points to the wrong file": (SHARDS, move_in_index, Q_PROJ + " is missing"),
    "index names too much": (SHARDS, lambda c: c.index(lambda m: m.update({"extra": m[Q_PROJ]})),
                             "tensor extra is missing"),
    "index is damaged": (SHARDS, lambda c: (c.dir / "model.safetensors.index.json").write_text("{"), "damaged"),
    "index without a map": (SHARDS, lambda c: (c.dir / "model.safetensors.index.json").write_text("{}"),
                            "weight_map"),
    "index entry is no text": (SHARDS, lambda c: c.index(lambda m: m.update({Q_PROJ: 7})), "has no file name"),
    "no config.json": (SINGLE, lambda c: (c.dir / "config.json").unlink(), "config.json: No such file"),
    "config.json not JSON": (SINGLE, config_text("{\"hidden_size\": "), "JSON ends at byte"),
    "config.json empty": (SINGLE, config_text(""), "JSON ends at byte 0"),
    "unknown architecture": (SINGLE, lambda c: c.config(architectures=["FalconForCausalLM"]), "FalconForCausalLM"),
    "negative dimension in config": (SINGLE, lambda c: c.config(hidden_size=-56), "\"hidden_size\" is -56"),
    "huge dimension in config": (SINGLE, lambda c: c.config(vocab_size=10**18), "\"vocab_size\" is"),
    "heads do not divide": (SINGLE, lambda c: c.config(num_key_value_heads=5), "expected a multiple"),
    "quantised": (SINGLE, lambda c: c.config(quantization_config={"quant_method": "gptq"}), "gptq"),
}


ERROR_LINE = re.compile(r"^\S+Z error (?:\[[^\]]*\] )?(.*)$", re.M)


def run(command, ranks, env, seconds=SECONDS_MAX):
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)] + command
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=env, check=False)


def wrong_message(errors, part):
    if len(set(errors)) != 1:
        return f"{len(errors)} different messages: {errors}"
    return None if part in errors[0] else f"message is: {errors[0]}"


def judge_alone(program, checkpoint, part, env):
    """None, or what is wrong with one load in a process of its own."""
    try:
        done = run([program, str(checkpoint.dir)], 1, env)
    except subprocess.TimeoutExpired:
        return f"no end within {SECONDS_MAX} s"
    if done.returncode == 0:
        return "exit code 0"
    if done.returncode != 1 or "Sanitizer" in done.stderr:
        return f"exit code {done.returncode}: {done.stderr[-600:]}"
    return wrong_message(ERROR_LINE.findall(done.stderr), part)


def judge_together(program, checkpoints, ranks, env):
    """All loads one after the other in one job: every rank must come back from each with an error."""
    command = [program, "--each"] + [str(c.dir) for c in checkpoints]
    try:
        done = run(command, ranks, env, SECONDS_MAX + 2 * len(checkpoints))
        text, crashed = done.stdout, "Sanitizer" in done.stderr or "signal" in done.stderr.lower()
        errors = ERROR_LINE.findall(done.stderr)
    except subprocess.TimeoutExpired as expired:
        text, crashed, errors = (expired.stdout or b"").decode(), False, []
    told = {(int(r), int(n)): status for r, n, status in re.findall(r"^(\d+) (\d+) (.+)$", text, re.M)}
    for number, checkpoint in enumerate(checkpoints):
        for rank in range(ranks):
            status = told.get((rank, number), "nothing: a hang or a crash")
            if status == "ok" or status.startswith("nothing"):
                yield f"{checkpoint.name}, {ranks} ranks: rank {rank} says {status}"
    if crashed:
        yield f"{ranks} ranks: crashed: {done.stderr[-600:]}"
    for name, (_, _, part) in CASES.items():
        if not any(part in e for e in errors):
            yield f"{name}, {ranks} ranks: no message says \"{part}\""


def main():
    program, goldens = sys.argv[1], Path(sys.argv[2])
    ranks = [int(n) for n in sys.argv[3:]] or [2, 4]
    env = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    failures = []
    for trait in (SINGLE, SHARDS):
        done = run([program, str(goldens / trait)], ranks[0], env)
        if done.returncode != 0 or ERROR_LINE.search(done.stderr):
            sys.exit(f"the undamaged {trait} does not load: {done.stderr[-500:]}")
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints = []
        for number, (name, (trait, damage, part)) in enumerate(CASES.items()):
            checkpoints.append(Checkpoint(Path(scratch) / str(number), goldens / trait, name))
            damage(checkpoints[-1])
            wrong = judge_alone(program, checkpoints[-1], part, env)
            if wrong:
                failures.append(f"{name}, alone: {wrong}")
        for n in ranks:
            failures += judge_together(program, checkpoints, n, env)
    for line in failures:
        print("FAILED", line)
    print(f"{len(CASES)} kinds of damage, alone and on {ranks} ranks: {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
