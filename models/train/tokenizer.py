# SPDX-License-Identifier: Apache-2.0
"""Trains the byte-level BPE tokenizer on generated conversations, with Qwen2's way of cutting text."""
from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from data.conversation import IM_END, IM_START, Mixer, render

END_OF_TEXT = "<|endoftext|>"
SPECIAL = (END_OF_TEXT, IM_START, IM_END)
ADDED = ("<tool_call>", "</tool_call>")  # one token each, but visible text

# The cutting rule of Qwen2: contractions, letters with one leading sign, single digits, signs, line ends, blanks.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_tokenizer(vocab_size: int, n_conversations: int, seed: int) -> Tokenizer:
    """A tokenizer of exactly vocab_size ids; the special ones come last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - len(SPECIAL) - len(ADDED), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(_texts(n_conversations, seed), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ADDED])
    assert tokenizer.get_vocab_size() == vocab_size
    return tokenizer


def _texts(n: int, seed: int):
    """Conversation texts without the control tokens, which must not leak into the merges."""
    mixer = Mixer(seed)
    for i in range(n):
        sample = mixer.draw(early=i % 2 == 0)
        for text, _ in render(sample.messages, sample.tools):
            for control in (*SPECIAL, *ADDED):
                text = text.replace(control, "\n")
            yield text
