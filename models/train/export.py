#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a checkpoint of train.py as a Hugging Face model folder, and the held-out questions beside it.

The folder is then loaded with transformers as a check: the chat template must render what the training saw.
With --accuracy the held-out table and the newcomer's answers are measured too and written to ACCURACY.md.
"""
from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from data.conversation import IM_END, IM_START, render, with_system
from data.core import TASKS, Message, draw_sample
from data.heldout import heldout_rows, write_rows
from model.qwen2 import Qwen2, Qwen2Config
from tokenizer import END_OF_TEXT

TEMPLATE = Path(__file__).with_name("chat_template.jinja")
HELDOUT_PER_TASK = 15


def model_config(cfg: Qwen2Config, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16",
        "vocab_size": cfg.vocab_size, "hidden_size": cfg.hidden_size, "intermediate_size": cfg.intermediate_size,
        "num_hidden_layers": cfg.num_hidden_layers, "num_attention_heads": cfg.num_attention_heads,
        "num_key_value_heads": cfg.num_attention_heads, "hidden_act": "silu", "rms_norm_eps": cfg.rms_norm_eps,
        "rope_theta": cfg.rope_theta, "max_position_embeddings": cfg.max_position_embeddings, "tie_word_embeddings": True,
        "use_sliding_window": False, "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
        "bos_token_id": tokenizer.token_to_id(END_OF_TEXT), "eos_token_id": tokenizer.token_to_id(IM_END),
    }


def tokenizer_config(cfg: Qwen2Config, tokenizer: Tokenizer) -> dict[str, Any]:
    added = {str(i): {"content": t.content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": t.special}
             for i, t in sorted(tokenizer.get_added_tokens_decoder().items())}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": added, "additional_special_tokens": [IM_START, IM_END],
        "bos_token": None, "eos_token": IM_END, "pad_token": END_OF_TEXT, "unk_token": None, "clean_up_tokenization_spaces": False,
        "model_max_length": cfg.max_position_embeddings, "chat_template": TEMPLATE.read_text(encoding="utf-8"),
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Close to greedy: the answers of this model are right or wrong, and sampling only adds wrong ones."""
    end, pad = tokenizer.token_to_id(IM_END), tokenizer.token_to_id(END_OF_TEXT)
    return {"bos_token_id": pad, "eos_token_id": [end, pad], "pad_token_id": pad,
            "do_sample": True, "temperature": 0.2, "top_p": 0.9}


def openai_messages(messages: list[Message]) -> list[Message]:
    """The generators' messages as the OpenAI API wants them: arguments as a string, calls and results tied by ids."""
    out, ids = [], []
    for message in messages:
        message = dict(message)
        if "tool_calls" in message:
            ids = [f"call_{len(out)}_{i}" for i in range(len(message["tool_calls"]))]
            message["tool_calls"] = [
                {"id": i, "type": "function", "function": {**c["function"], "arguments": json.dumps(c["function"]["arguments"], ensure_ascii=False)}}
                for i, c in zip(ids, message["tool_calls"])]
        elif message["role"] == "tool":
            message["tool_call_id"] = ids.pop(0)
        out.append(message)
    return out


def check_folder(out: Path) -> None:
    """transformers must load the folder and render every task as the training did."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(out)
    rng = random.Random(0)
    for name in TASKS:
        sample = draw_sample(name, rng)
        messages = with_system(rng, sample.messages)
        ours = "".join(text for text, _ in render(messages, sample.tools))
        for form in (messages, openai_messages(messages)):
            theirs = tokenizer.apply_chat_template(form, tools=sample.tools or None, tokenize=False)
            assert ours == theirs, f"{name}: the template renders\n{theirs}\nbut the training saw\n{ours}"
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    assert model.config.model_type == "qwen2" and model.lm_head.weight is model.model.embed_tokens.weight


def accuracy_page(out: Path, state: dict[str, Any]) -> str:
    """How the run went, what the model gets right, and what it says to a newcomer."""
    import transformers

    from evaluate import format_table, measure, newcomer_lines, read_rows, transformers_source

    run, schedule = state["run"], state["schedule"]
    bound = "the time bound shortened the schedule" if schedule["bounded"] else "the time bound was not reached"
    ask = transformers_source(out, max_tokens=256, threads=run["threads"])
    table = format_table(measure(ask, read_rows(out / "heldout.jsonl"), parallel=1, show_wrong=False))
    return "\n".join((
        "# Accuracy of the demo model\n",
        f"Trained for {state['elapsed'] / 60:.0f} minutes on {run['threads']} CPU threads ({run['arithmetic']}, PyTorch {torch.__version__.split('+')[0]}): "
        f"{schedule['step']} + {state['polished']} steps, {state['tokens'] / 1e6:.1f} M tokens, {state['tokens'] / state['elapsed']:.0f} tokens/s, seed {run['seed']}; "
        f"`--steps {run['steps']} --minutes {run['minutes']:g} --polish-steps {state['polished']}`, {bound}.\n",
        f"Exact match on `heldout.jsonl`, greedy, BF16 weights, transformers {transformers.__version__} "
        f"(`python3 models/train/evaluate.py --model models/demo`):\n",
        table,
        "\nA row of few questions is coarse: one wrong answer of fifteen is 7 %. Tasks below 90 % are not claimed.\n",
        "## Twenty things that a newcomer types\n",
        "The list was fixed before the model had been seen; the answers are as they came (greedy, no system message).\n",
        "| typed | answered |", "|---|---|", *newcomer_lines(ask))) + "\n"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.pt of train.py; tokenizer.json is taken from its folder")
    p.add_argument("--out", type=Path, required=True, help="folder to write")
    p.add_argument("--accuracy", action="store_true", help="measure with transformers and write ACCURACY.md (a few minutes)")
    args = p.parse_args()

    tokenizer = Tokenizer.from_file(str(args.checkpoint.with_name("tokenizer.json")))
    cfg = Qwen2Config(vocab_size=tokenizer.get_vocab_size())
    model = Qwen2(cfg)
    state = torch.load(args.checkpoint, weights_only=False)  # our own file: it holds plain Python objects too
    model.load_state_dict(state["model"])
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(model.checkpoint(), args.out / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(args.out / "tokenizer.json"))
    for name, value in (("config.json", model_config(cfg, tokenizer)), ("tokenizer_config.json", tokenizer_config(cfg, tokenizer)),
                        ("generation_config.json", generation_config(tokenizer))):
        (args.out / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = [row | {"messages": openai_messages(row["messages"])} for row in heldout_rows(HELDOUT_PER_TASK)]
    write_rows(args.out / "heldout.jsonl", rows)
    check_folder(args.out)
    (args.out / "model.safetensors").chmod(0o644)
    if args.accuracy:
        (args.out / "ACCURACY.md").write_text(accuracy_page(args.out, state), encoding="utf-8")
    print(f"{args.out}: {sum(f.stat().st_size for f in args.out.iterdir()) / 1e6:.1f} MB, loads in transformers")


if __name__ == "__main__":
    main()
