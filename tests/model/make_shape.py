#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a Hugging Face directory of a given shape with random weights: for timing and memory, not for talking.

    make_shape.py FOLDER [--shape 0.5b|1.5b|7b] [--layers N] [--shards N] [--seed N] [--script]

The standard library only; about 1 GB/s.  The tokenizer has bytes and made-up words for all other ids, and no merges: every
id has text, so a server of this model streams as one of a real model does.

--script: a model that computes as much and always says the same after the same token.  What its layers add is nothing
(o_proj and down_proj are zeros), and its head is the embedding moved down by a row.
"""
import argparse
import array
import json
import math
import random
import struct
from pathlib import Path

# Dimensions of Qwen2.5: hidden, intermediate, layers, heads, KV heads, vocabulary, tied
SHAPES = {
    "0.5b": (896, 4864, 24, 14, 2, 151936, True),
    "1.5b": (1536, 8960, 28, 12, 2, 151936, True),
    "7b": (3584, 18944, 28, 28, 4, 152064, False),
}
NOISE = 1 << 20  # values that all tensors are cut from
SPECIAL = {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"}


def config(shape, layers):
    hidden, inter, _, heads, kv, vocab, tied = shape
    return dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=hidden,
                intermediate_size=inter, num_hidden_layers=layers, num_attention_heads=heads,
                num_key_value_heads=kv, vocab_size=vocab, tie_word_embeddings=tied, hidden_act="silu",
                max_position_embeddings=32768, rms_norm_eps=1e-6, rope_theta=1000000.0, torch_dtype="bfloat16",
                use_sliding_window=False, bos_token_id=151643, eos_token_id=151645)


def tensors(shape, layers):
    hidden, inter, _, heads, kv, vocab, tied = shape
    kv_rows = hidden // heads * kv
    yield "model.embed_tokens.weight", (vocab, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (hidden,)
        yield p + "mlp.down_proj.weight", (hidden, inter)
        yield p + "mlp.gate_proj.weight", (inter, hidden)
        yield p + "mlp.up_proj.weight", (inter, hidden)
        yield p + "post_attention_layernorm.weight", (hidden,)
        for name, rows in (("k", kv_rows), ("q", hidden), ("v", kv_rows)):
            yield p + f"self_attn.{name}_proj.bias", (rows,)
            yield p + f"self_attn.{name}_proj.weight", (rows, hidden)
        yield p + "self_attn.o_proj.weight", (hidden, hidden)
    yield "model.norm.weight", (hidden,)
    if not tied:
        yield "lm_head.weight", (vocab, hidden)


def bf16(values):
    """The upper halves of FP32 numbers."""
    halves = array.array("H", array.array("f", values).tobytes())
    return halves[1::2]


def fill(f, name, dims, noise, scaled, at, script):
    """Appends one tensor; matrices are noise of deviation cols^-0.5, taken from a ring."""
    count = math.prod(dims)
    if len(dims) == 1:
        f.write(bf16([0.0 if name.endswith("bias") else 1.0]).tobytes() * count)
        return at
    if script and name.endswith(("o_proj.weight", "down_proj.weight")):
        f.write(bytes(2 * count))
        return at
    if script and name == "lm_head.weight":
        f.write(bytes(2 * dims[1]))
        count, at = count - dims[1], 0  # as the embedding, which comes first
    if dims[1] not in scaled:
        scaled[dims[1]] = bf16(v * dims[1] ** -0.5 for v in noise).tobytes()
    ring = scaled[dims[1]]
    while count > 0:
        piece = min(count, NOISE - at)
        f.write(memoryview(ring)[2 * at:2 * (at + piece)])
        count -= piece
        at = (at + piece + 7919) % NOISE
    return at


def byte_letters():
    """The letters that byte-level vocabularies use for bytes, in their order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def write_tokenizer(folder, n_vocab):
    letters = byte_letters()
    words = [f"\u0120w{i}" for i in range(n_vocab)]  # U+0120 is the space
    words[:len(letters)] = letters
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": level,
        "post_processor": None, "decoder": level,
        "added_tokens": [{"id": i, "content": t, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False} for i, t in SPECIAL.items()],
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "merges": [],
                  "vocab": {w: i for i, w in enumerate(words) if i not in SPECIAL}}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "Qwen2Tokenizer", "eos_token": SPECIAL[151645], "add_bos_token": False}))


def write_file(path, entries, noise, scaled, script):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, dims in entries:
        begin, end = end, end + 2 * math.prod(dims)
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    at = 0
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, dims in entries:
            at = fill(f, name, dims, noise, scaled, at, script)
    return end


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="0.5b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--script", action="store_true")
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    if args.script:
        shape = (*shape[:6], False)
    layers = args.layers or shape[2]
    entries = list(tensors(shape, layers))
    generator = random.Random(args.seed)
    noise = [generator.gauss(0, 1) for _ in range(NOISE)]
    scaled, total, weight_map = {}, 0, {}
    args.folder.mkdir(parents=True, exist_ok=True)
    for n in range(args.shards):
        part = entries[n * len(entries) // args.shards:(n + 1) * len(entries) // args.shards]
        name = "model.safetensors" if args.shards == 1 else f"model-{n + 1:05}-of-{args.shards:05}.safetensors"
        total += write_file(args.folder / name, part, noise, scaled, args.script)
        weight_map.update({key: name for key, _ in part})
    if args.shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (args.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    (args.folder / "config.json").write_text(json.dumps(config(shape, layers), indent=1))
    write_tokenizer(args.folder, shape[5])
    print(f"{args.folder}: {len(entries)} tensors, {total / 1e9:.2f} GB in {args.shards} file(s)")


if __name__ == "__main__":
    main()
