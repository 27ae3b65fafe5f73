#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a Hugging Face directory of a given shape with random weights: for timing and memory, not for talking.

    make_shape.py FOLDER [--shape 0.5b|1.5b|7b] [--layers N] [--shards N] [--seed N]

numpy and the standard library only; about 1 GB/s.  No tokenizer is written.
"""
import argparse
import json
import struct
from pathlib import Path

import numpy as np

# Dimensions of Qwen2.5: hidden, intermediate, layers, heads, KV heads, vocabulary, tied
SHAPES = {
    "0.5b": (896, 4864, 24, 14, 2, 151936, True),
    "1.5b": (1536, 8960, 28, 12, 2, 151936, True),
    "7b": (3584, 18944, 28, 28, 4, 152064, False),
}
NOISE = 1 << 22  # values that all tensors are cut from


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
    """Round to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def fill(f, name, dims, noise, scaled, at):
    """Appends one tensor; matrices are noise of deviation cols^-0.5, taken from a ring."""
    count = int(np.prod(dims))
    if len(dims) == 1:
        f.write(bf16(np.full(count, 0.0 if name.endswith("bias") else 1.0)).tobytes())
        return at
    if dims[1] not in scaled:
        scaled[dims[1]] = bf16(noise * dims[1] ** -0.5)
    ring = scaled[dims[1]]
    while count > 0:
        piece = min(count, NOISE - at)
        f.write(ring[at:at + piece].tobytes())
        count -= piece
        at = (at + piece + 7919) % NOISE
    return at


def write_file(path, entries, noise, scaled):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, dims in entries:
        begin, end = end, end + 2 * int(np.prod(dims))
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    at = 0
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, dims in entries:
            at = fill(f, name, dims, noise, scaled, at)
    return end


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="0.5b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    layers = args.layers or shape[2]
    entries = list(tensors(shape, layers))
    noise = np.random.default_rng(args.seed).standard_normal(NOISE, dtype=np.float32)
    scaled, total, weight_map = {}, 0, {}
    args.folder.mkdir(parents=True, exist_ok=True)
    for n in range(args.shards):
        part = entries[n * len(entries) // args.shards:(n + 1) * len(entries) // args.shards]
        name = "model.safetensors" if args.shards == 1 else f"model-{n + 1:05}-of-{args.shards:05}.safetensors"
        total += write_file(args.folder / name, part, noise, scaled)
        weight_map.update({key: name for key, _ in part})
    if args.shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (args.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    (args.folder / "config.json").write_text(json.dumps(config(shape, layers), indent=1))
    print(f"{args.folder}: {len(entries)} tensors, {total / 1e9:.2f} GB in {args.shards} file(s)")


if __name__ == "__main__":
    main()
