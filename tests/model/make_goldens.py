#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/model/goldens: tiny random-weight checkpoints, one per architecture trait, and what Hugging Face
transformers computes from them in float32 (eager attention).

    make_goldens.py [folder]        needs torch, transformers, safetensors; the tests do not

Per trait: config.json, generation_config.json, weights, and golden.bin:
    int32 magic "TPG1", n_prompt, n_generated, vocab; int32 ids[n_prompt + n_generated];
    float32 logits[n_prompt + n_generated][vocab]: row i is what the model says after ids[0..i]
The ids after the prompt are the greedy choice.  A seed is taken only if every greedy choice wins by a margin that is
far above rounding (in units of the largest logit of its row), so that equal tokens are a fair demand.
"""
import json
import shutil
import struct
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.llama import LlamaConfig
from transformers.models.mistral import MistralConfig
from transformers.models.qwen2 import Qwen2Config
from transformers.models.qwen3 import Qwen3Config

N_GENERATED = 32
MARGIN_MIN = 3e-3
SHAPE = dict(vocab_size=256, hidden_size=64, intermediate_size=104, num_hidden_layers=2,
             num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=256,
             bos_token_id=1, eos_token_id=2)
LLAMA3_ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=64, rope_theta=10000.0)
YARN_ROPE = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32,
                 rope_theta=10000.0)


def shape(**changes):
    return {**SHAPE, **changes}


# name: (config, storage dtype, prompt length, file layout)
# v4: keys as older exporters wrote them; shards: several files and an index.
TRAITS = {
    "llama2": (LlamaConfig(**shape()), torch.float16, 40, "v4"),
    "llama3": (LlamaConfig(**shape(num_key_value_heads=2, vocab_size=600, max_position_embeddings=512,
                                   rope_parameters=LLAMA3_ROPE)), torch.bfloat16, 90, "v4"),
    "llama_bias": (LlamaConfig(**shape(num_key_value_heads=4, attention_bias=True, mlp_bias=True,
                                       tie_word_embeddings=True)), torch.float32, 40, "v5"),
    "llama_linear": (LlamaConfig(**shape(num_attention_heads=6, num_key_value_heads=3, hidden_size=96,
                                         rope_parameters=dict(rope_type="linear", factor=2.0,
                                                              rope_theta=10000.0))),
                     torch.bfloat16, 40, "v4"),
    "mistral": (MistralConfig(**shape(num_key_value_heads=2, sliding_window=24)), torch.bfloat16, 60, "v4"),
    "mistral_head_dim": (MistralConfig(**shape(num_attention_heads=4, num_key_value_heads=2, head_dim=32,
                                               sliding_window=None)), torch.bfloat16, 40, "v5"),
    "qwen2": (Qwen2Config(**shape(hidden_size=56, num_attention_heads=14, num_key_value_heads=2,
                                  intermediate_size=88, tie_word_embeddings=True)), torch.bfloat16, 40, "v4"),
    "qwen2_yarn": (Qwen2Config(**shape(num_key_value_heads=4, max_position_embeddings=32,
                                       rope_parameters=YARN_ROPE)), torch.bfloat16, 70, "v4"),
    "qwen2_sliding": (Qwen2Config(**shape(num_hidden_layers=4, num_key_value_heads=4, use_sliding_window=True,
                                          sliding_window=20, max_window_layers=2)), torch.bfloat16, 50, "v4"),
    "qwen3": (Qwen3Config(**shape(num_attention_heads=4, num_key_value_heads=2, head_dim=128)),
              torch.bfloat16, 40, "v4"),
    "v5_keys": (Qwen3Config(**shape(num_key_value_heads=4, head_dim=16, tie_word_embeddings=True,
                                    num_hidden_layers=3, layer_types=["full_attention", "sliding_attention",
                                                                      "full_attention"],
                                    use_sliding_window=True, sliding_window=18)), torch.float32, 40, "v5"),
    "shards": (Qwen2Config(**shape(num_key_value_heads=1, num_hidden_layers=3)), torch.bfloat16, 40, "shards"),
}


def init_weights(model, generator, dtype):
    """Matrices with a gain that keeps attention selective; norms near 1; biases large enough to matter.  Values are
    rounded to the storage dtype: what is stored is what is judged."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 2:
                gain = 2.0 if "embed" in name or "lm_head" in name else 1.6  # logits with a deviation of about 2
                p.copy_(noise * gain / p.shape[1] ** 0.5)
            elif name.endswith("bias"):
                p.copy_(noise * 0.3)
            else:
                p.copy_(1 + 0.2 * noise)
            p.copy_(p.to(dtype).float())


def downgrade_config(path):
    """The keys that transformers 4 wrote."""
    config = json.loads(path.read_text())
    config["torch_dtype"] = config.pop("dtype")
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] != "default":
        if rope["rope_type"] == "yarn":
            rope["type"] = rope.pop("rope_type")  # as Qwen2.5 documents it
        config["rope_scaling"] = rope
    config.pop("layer_types", None)
    config["transformers_version"] = "4.44.0"
    path.write_text(json.dumps(config, indent=2) + "\n")


@torch.no_grad()
def greedy(model, prompt):
    ids = list(prompt)
    for _ in range(N_GENERATED):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    logits = model(torch.tensor([ids]), use_cache=False).logits[0].float()
    return ids, logits


def margin(logits, ids, n_prompt):
    rows = logits[n_prompt - 1:-1]
    top = rows.topk(2, dim=-1).values
    assert rows.argmax(-1).tolist() == ids[n_prompt:], "greedy choice depends on the length of the input"
    return float(((top[:, 0] - top[:, 1]) / rows.abs().amax(-1)).min())


@torch.no_grad()
def bf16_kl(folder, ids, logits):
    """How far transformers itself is from float32 when it computes in bfloat16: what the limit of the test means."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager").eval()
    theirs = model(torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)
    reference = logits.log_softmax(-1)
    return float((reference.exp() * (reference - theirs)).sum(-1).mean())


def save(folder, model, layout, dtype):
    model.to(dtype).save_pretrained(folder, max_shard_size="60KB" if layout == "shards" else "1GB")
    if layout != "v5":
        downgrade_config(folder / "config.json")


def make(folder, name, config, dtype, n_prompt, layout):
    for seed in range(1, 200):
        generator = torch.Generator().manual_seed(seed * 1000 + len(name))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        init_weights(model.eval(), generator, dtype)
        prompt = torch.randint(3, config.vocab_size, (n_prompt,), generator=generator).tolist()
        ids, logits = greedy(model, prompt)
        won = margin(logits, ids, n_prompt)
        if won >= MARGIN_MIN and len(set(ids[n_prompt:])) >= 8:
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear greedy choices")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save(folder, model, layout, dtype)
    check = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids2, logits2 = greedy(check, prompt)
    assert ids2 == ids and torch.equal(logits2, logits), f"{name}: the saved checkpoint computes something else"
    with open(folder / "golden.bin", "wb") as f:
        f.write(b"TPG1" + struct.pack("<3i", n_prompt, N_GENERATED, config.vocab_size))
        f.write(struct.pack(f"<{len(ids)}i", *ids))
        f.write(logits.numpy().astype("<f4").tobytes())
    print(f"{name:18} seed {seed:3} margin {won:.4f} logits std {logits.std():.2f}"
          f" {len(set(ids[n_prompt:])):2} different tokens, KL of transformers in BF16 {bf16_kl(folder, ids, logits):.1e}")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "goldens"
    print("transformers", transformers.__version__, "torch", torch.__version__)
    for name, (config, dtype, n_prompt, layout) in TRAITS.items():
        make(folder / name, name, config, dtype, n_prompt, layout)


if __name__ == "__main__":
    main()
