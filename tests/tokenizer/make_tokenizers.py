#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes data/: small tokenizers with the structure of the real ones, trained by Hugging Face `tokenizers`.

    pip install -r ../requirements.txt && python3 make_tokenizers.py

  qwen2   NFC, one regular expression, merges as "a b" strings, special and plain added tokens
  llama3  ignore_merges with tokens that no merge makes, every split of a token as a merge, pairs, BOS
  gpt2    ByteLevel's own expression, no normaliser, one special token
  odd     what the others leave out: every Split behavior, Digits, a space in front, flags of added tokens, unknown bytes
The text is generated, so that nothing of anybody else's lies in the tree.
"""
import json
import pathlib
import random

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

OUT = pathlib.Path(__file__).resolve().parent / "data"
R_LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
            r"|\s+(?!\S)|\s+")
R_QWEN2 = R_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SYLLABLES = "ba be bi ka ke ko la li lo ma me mo na ne ni ra re ri sa se so ta te ti the ing er est ion al and".split()
OTHERS = ("дом вода земля 你好 世界 中文 東京 안녕 café naïve über größe việt người şehir שלום سلام 🙂 🚀 "
          "int return void { } ( ) == != += -> // /* */ # ; 0 1 2 10 100 1999 2024 3.14 0x1F I'm don't it's we'll you're").split()
CHATML = ("{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def corpus(seed, lines=3000):
    r = random.Random(seed)
    words = ["".join(r.choice(SYLLABLES) for _ in range(r.randint(1, 4))) for _ in range(400)] + OTHERS * 4
    for _ in range(lines):
        text = " ".join(r.choice(words) for _ in range(r.randint(3, 12)))
        yield text.capitalize() + r.choice([".", "?", "!", ",", "\n", "\n\n", "    "])


def train(step, size):
    """(vocab, merges as pairs) of byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = step
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  special_tokens=[], show_progress=False)
    tokenizer.train_from_iterator(corpus(size), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [m if isinstance(m, list) else m.split(" ") for m in model["merges"]]


def split(pattern, kind="Regex", behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def byte_level(use_regex=False, add_prefix_space=False):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}


def sequence(key, *steps):
    return {"type": "Sequence", key: list(steps)}


def added(token_id, content, special=True, **flags):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": not special, "special": special, **flags}


def template(before, after=()):
    """Post-processor: (token, id) pairs around the text."""
    def items(pairs):
        return [{"SpecialToken": {"id": t, "type_id": 0}} for t, _ in pairs]
    a, b = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    return {"type": "TemplateProcessing", "single": [*items(before), a, *items(after)], "pair": [*items(before), a, b],
            "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in [*before, *after]}}


def write(name, vocab, merges, extra, config, pre, post=None, normalizer=None, **model):
    doc = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": extra, "normalizer": normalizer,
           "pre_tokenizer": pre, "post_processor": post or byte_level(), "decoder": byte_level(),
           "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                     "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                     "vocab": vocab, "merges": merges, **model}}
    Tokenizer.from_str(json.dumps(doc))  # the reference accepts it
    (OUT / name).mkdir(parents=True, exist_ok=True)
    for file, content in (("tokenizer.json", doc), ("tokenizer_config.json", config)):
        (OUT / name / file).write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def qwen2():
    pre = sequence("pretokenizers", split(R_QWEN2), byte_level())
    vocab, merges = train(pre_tokenizers.ByteLevel(add_prefix_space=False), 1000)
    n = len(vocab)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    extra = [added(n + i, t) for i, t in enumerate(names)]
    extra += [added(n + 3 + i, t, special=False, normalized=False) for i, t in enumerate(["<tool_call>", "</tool_call>", "<think>", "</think>"])]
    write("qwen2", vocab, [" ".join(m) for m in merges], extra,
          {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None, "add_bos_token": False,
           "model_max_length": 32768, "chat_template": CHATML},
          pre, normalizer={"type": "NFC"}, continuing_subword_prefix="", end_of_word_suffix="")


def llama3():
    pre = sequence("pretokenizers", split(R_LLAMA3), byte_level())
    vocab, merges = train(pre_tokenizers.ByteLevel(add_prefix_space=False), 900)
    merges = [[t[:i], t[i:]] for t in sorted(vocab, key=vocab.get) for i in range(1, len(t)) if t[:i] in vocab and t[i:] in vocab]
    for word in ("Ġunreachable", "wordwhole", "Ġbananas", "Äįek"):  # no merge leads here: only ignore_merges finds them
        vocab[word] = len(vocab)
    n = len(vocab)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
             *(f"<|reserved_special_token_{i}|>" for i in range(12))]
    write("llama3", vocab, merges, [added(n + i, t) for i, t in enumerate(names)],
          {"bos_token": {"content": names[0], "lstrip": False}, "eos_token": names[4], "model_max_length": 10 ** 30,
           "chat_template": [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "{{ bos_token }}x"}]},
          pre, post=sequence("processors", byte_level(), template([(names[0], n)])), ignore_merges=True)


def gpt2():
    vocab, merges = train(pre_tokenizers.ByteLevel(add_prefix_space=False), 800)
    end = "<|endoftext|>"
    vocab[end] = len(vocab)
    write("gpt2", vocab, [" ".join(m) for m in merges], [added(vocab[end], end)],
          {"bos_token": end, "eos_token": end, "unk_token": end, "model_max_length": 1024}, byte_level(use_regex=True))


def odd():
    vocab, merges = train(pre_tokenizers.ByteLevel(add_prefix_space=False), 500)
    lost = [c for c in "!\u00a1\u00ff\u0100" if c in vocab]  # bytes 21, A1, FF and 00
    merges = [m for m in merges if not any(c in "".join(m) for c in lost)]
    used = {"<unk>", *(c for c in vocab if len(c) == 1 and c not in lost), *("".join(m) for m in merges)}
    vocab = {t: i for i, t in enumerate(sorted(used))}
    n = len(vocab)
    extra = [added(vocab["<unk>"], "<unk>"), added(n, "<s>", lstrip=True), added(n + 1, "</s>", rstrip=True),
             added(n + 2, "<both>", lstrip=True, rstrip=True), added(n + 3, "word", special=False, single_word=True),
             added(n + 4, "Caf\u00e9 au", special=False), added(n + 5, "<s><s>"), added(n + 6, "<sp ace>", special=False, normalized=False)]
    pre = sequence("pretokenizers",
                   split(r"[\r\n]+", behavior="MergedWithPrevious"), split(" ", kind="String", behavior="MergedWithNext"),
                   split("@", kind="String", behavior="Removed"), split(r"[\u4e00-\u9fa5\u3040-\u30ff]".encode().decode("unicode_escape")),
                   split(r"\p{P}", behavior="Contiguous"), split(r"[a-z]+", invert=True), split(r"x*", behavior="Isolated"),
                   {"type": "Digits", "individual_digits": False}, byte_level(use_regex=True, add_prefix_space=True))
    write("odd", vocab, merges, extra, {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}, pre,
          post=sequence("processors", template([("<s>", n)], [("</s>", n + 1)]), byte_level()),
          normalizer=sequence("normalizers", {"type": "NFC"}), unk_token="<unk>", fuse_unk=True)


for make in (qwen2, llama3, gpt2, odd):
    make()
print(f"{sum(f.stat().st_size for f in OUT.rglob('*') if f.is_file())} bytes in {OUT.name}/")
