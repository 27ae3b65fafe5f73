# SPDX-License-Identifier: Apache-2.0
"""Letters and words: spelling, reversing, sorting, counting letters, echoing, JSON.

A word is always written out letter by letter before anything is done with its letters: the tokenizer hides
them, and the written letters are what the model can then move and count.
"""
from __future__ import annotations

import json
import random

from .core import Sample, phrase, phrase_zh, task, turn
from .places import COUNTRIES
from .words import (ANIMALS, COLORS, COLORS_ZH, FOODS, FRUITS, NAMES, NAMES_ZH, WORDS, ZH_WORDS)

LONG_WORD = 10

SPELL = ("Spell {w}.", "spell {w}", "How do you spell {w}?", "How is {w} spelled?", "Spell the word {w}.", "Can you spell {w}?",
         "Spell out {w}", "Please spell the word {w} for me.", "how to spell {w}", "What are the letters of {w}?", "spelling of {w}",
         "write {w} letter by letter")
REVERSE = ("Reverse {w}.", "reverse {w}", "Reverse the word {w}.", "What is {w} backwards?", "Write {w} backwards.", "Spell {w} backwards.",
           "{w} backwards", "{w} in reverse", "Can you reverse the word {w}?", "Say {w} backwards", "reverse the letters of {w}",
           "reverse the string {w}", "turn {w} around")
SORT = ("Sort the letters of {w}.", "sort the letters in {w}", "Put the letters of {w} in alphabetical order.", "alphabetize the letters of {w}",
        "Sort the letters of the word {w} alphabetically.", "order the letters of {w}")
LENGTH = ("How many letters are in {w}?", "how many letters does {w} have", "How long is the word {w}?", "Count the letters in {w}.",
          "number of letters in {w}", "How many letters are there in the word {w}?", "length of {w}", "count letters in {w}",
          "How many characters are in {w}?")
OCCUR = ("How many {c}'s are in {w}?", "how many {c} in {w}", "How many times does {c} appear in {w}?", "Count the letter {c} in {w}.",
         "how many {c}s are in {w}", "How many {c} are there in the word {w}?", "how often does the letter {c} occur in {w}?",
         "How many letters {c} are in {w}?", "How many {c}'s are in the word {w}?")
FIRST = ("What is the first letter of {w}?", "first letter of {w}", "Which letter does {w} start with?", "{w} starts with which letter?")
LAST = ("What is the last letter of {w}?", "last letter of {w}", "Which letter does {w} end with?", "{w} ends with which letter?")


def _quoted(rng: random.Random, word: str) -> str:
    """The word bare, or in one kind of quotes; the kinds are few because each gives other tokens."""
    return rng.choice((word, word, word, word, f'"{word}"', f"'{word}'", word.capitalize()))


def _letters(word: str) -> str:
    return "-".join(word)


def _made_up(rng: random.Random) -> str:
    """A pronounceable word that no list holds: it teaches the letters inside the tokens."""
    syllables = ("".join((rng.choice("bcdfghjklmnprstvwz"), rng.choice("aeiou"), rng.choice(("", "", "n", "r", "s", "l", "t", "m"))))
                 for _ in range(rng.choice((1, 2, 2, 3))))
    return "".join(syllables)


def _word(rng: random.Random) -> str:
    while True:
        if rng.random() < 0.02:
            return "strawberry"
        word = rng.choice(WORDS) if rng.random() < 0.8 else _made_up(rng)
        if len(word) <= LONG_WORD or rng.random() < 0.2:
            return word


def _key(name: str, word: str) -> str:
    return "" if word in ("hello", "strawberry") else f"{name} {word}"


@task("spell", 5)
def spell(rng: random.Random) -> Sample:
    w = _word(rng)
    return turn(phrase(rng, rng.choice(SPELL), keep_case=True, w=_quoted(rng, w)), _letters(w), _key("spell", w))


@task("reverse", 9)
def reverse(rng: random.Random) -> Sample:
    w = _word(rng)
    return turn(phrase(rng, rng.choice(REVERSE), keep_case=True, w=_quoted(rng, w)), f"{_letters(w)} -> {_letters(w[::-1])}", _key("reverse", w))


@task("sort_letters", 6)
def sort_letters(rng: random.Random) -> Sample:
    w = _word(rng)
    return turn(phrase(rng, rng.choice(SORT), keep_case=True, w=_quoted(rng, w)), f"{_letters(w)} -> {_letters(''.join(sorted(w)))}",
                _key("sort", w))


@task("count_letters", 8)
def count_letters(rng: random.Random) -> Sample:
    w = _word(rng)
    kind = rng.randrange(8)
    if kind == 0:
        return turn(phrase(rng, rng.choice(FIRST), keep_case=True, w=_quoted(rng, w)), w[0], _key("first", w))
    if kind == 1:
        return turn(phrase(rng, rng.choice(LAST), keep_case=True, w=_quoted(rng, w)), f"{_letters(w)}: {w[-1]}", _key("last", w))
    if kind <= 4:
        numbered = " ".join(f"{c}{i}" for i, c in enumerate(w, 1))
        noun = "letter" if len(w) == 1 else "letters"
        return turn(phrase(rng, rng.choice(LENGTH), keep_case=True, w=_quoted(rng, w)), f"{numbered}: {len(w)} {noun}", _key("length", w))
    c = rng.choice(w) if rng.random() < 0.85 else rng.choice("aeinorst")
    seen, marks = 0, []
    for letter in w:
        seen += letter == c
        marks.append(f"{letter}({seen})" if letter == c else letter)
    shown = rng.choice((c, c, f"'{c}'", f'"{c}"', c.upper()))
    text = phrase(rng, rng.choice(OCCUR), keep_case=True, w=_quoted(rng, w), c=shown)
    return turn(text, f"{'-'.join(marks)}: {seen}", _key("occur" + c, w))


SPELL_ZH = ("把{w}逐字写出来", "{w}有哪些字？", "逐字写出{w}")
REVERSE_ZH = ("把{w}倒过来写", "把{w}反过来", "{w}倒过来怎么写？", "倒着写{w}", "请把{w}倒过来。", "反转{w}")
LENGTH_ZH = ("{w}有几个字？", "“{w}”有几个字？", "{w}一共几个字", "{w}是几个字？")


@task("text_zh", 3)
def text_zh(rng: random.Random) -> Sample:
    w = rng.choice(ZH_WORDS) if rng.random() < 0.6 else rng.choice(ZH_WORDS) + rng.choice(ZH_WORDS)
    kind = rng.randrange(3)
    chars = "-".join(w)
    if kind == 0:
        return turn(phrase_zh(rng, rng.choice(SPELL_ZH), w=w), chars, f"spellzh {w}")
    if kind == 1:
        return turn(phrase_zh(rng, rng.choice(REVERSE_ZH), w=w), f"{chars} -> {'-'.join(w[::-1])}", f"reversezh {w}")
    return turn(phrase_zh(rng, rng.choice(LENGTH_ZH), w=w), f"{chars}：{len(w)}个字", f"lengthzh {w}")


# ---------------------------------------------------------------- echo, words in order

ECHO = ("Say {s}", "say {s}", "Repeat {s}", "Repeat after me: {s}", "repeat: {s}", "Please say {s}", "Say: {s}", "echo {s}", "Echo: {s}",
        "Print {s}", "Repeat the following: {s}", "Can you say {s}", "just say {s}", "Say the words {s}", "output {s}",
        "Say exactly: {s}", "Reply with {s}", "Answer only with: {s}")
ECHO_ZH = ("说{s}", "请说：{s}", "重复：{s}", "跟我说：{s}", "请重复{s}")
ECHO_EXTRA = ("hello", "world", "yes", "no", "ok", "test", "the", "is", "my", "good", "morning", "and", "hi", "I", "you", "we",
              "am", "are", "love", "like", "this", "that", "a", "to", "for", "of", "on", "in", "it", "not", "very", "nice", "day", "cat", "dog", "friend")


@task("echo", 7)
def echo(rng: random.Random) -> Sample:
    if rng.random() < 0.15:
        s = "".join(rng.sample(ZH_WORDS, rng.randint(1, 2)))
        return turn(phrase_zh(rng, rng.choice(ECHO_ZH), s=s).rstrip(), s, f"echozh {s}")
    pool = WORDS if rng.random() < 0.75 else ECHO_EXTRA
    words = rng.sample(pool, rng.choice((1, 2, 2, 3, 4)))
    s = "hello world" if rng.random() < 0.1 else " ".join(words)
    if rng.random() < 0.2:
        s = s[:1].upper() + s[1:]
    template = rng.choice(ECHO)
    template = template.lower() if rng.random() < 0.3 else template
    end = rng.choice(("", "", "", ".", "!"))
    if rng.random() < 0.15:
        return turn(template.format(s=f'"{s}"') + end, s, f"echo {s.lower()}")
    return turn(template.format(s=s) + end, s + end, "" if s.lower() == "hello world" else f"echo {s.lower()}")


SORT_WORDS = ("Sort these words: {l}", "Sort the words {l} alphabetically.", "Put {l} in alphabetical order.", "sort alphabetically: {l}",
              "alphabetical order: {l}", "sort {l}", "Arrange the words {l} in alphabetical order.")


@task("sort_words", 5)
def sort_words(rng: random.Random) -> Sample:
    words: dict[str, str] = {}
    pool = FRUITS + ANIMALS + COLORS + FOODS
    size = rng.choice((3, 3, 4))
    while len(words) < size:
        w = rng.choice(pool)
        words.setdefault(w[0], w)
    given = list(words.values())
    return turn(phrase(rng, rng.choice(SORT_WORDS), l=", ".join(given)), ", ".join(sorted(given)), f"words {sorted(given)}")


# ---------------------------------------------------------------- JSON

PERSON = ("Give me a JSON object with name {n} and age {a}.", "json with name {n} and age {a}", "JSON: name {n}, age {a}",
          "Write {n}, {a} years old, as JSON.", "{n} is {a} years old. Answer in JSON.", "Make a JSON object for {n}, age {a}.",
          "Return JSON for a person named {n} who is {a}.", "convert to json: name {n}, age {a}", "create json for {n} aged {a}",
          "{n} is {a} years old. Give me that as JSON with the keys name and age.")
PERSON_CITY = ("JSON: name {n}, age {a}, city {c}", "{n} is {a} years old and lives in {c}. Answer in JSON.",
               "Give me a JSON object with name {n}, age {a} and city {c}.", "Write as JSON: {n}, {a}, lives in {c}")
ARRAY = ("Give me a JSON array with {l}.", "JSON list of {l}", "Write {l} as a JSON array.", "json array: {l}", "Make a JSON list: {l}",
         "Turn {l} into a JSON array.", "put {l} into a json list")
CAPITAL = ("What is the capital of {c}? Answer in JSON.", "Capital of {c} as JSON", "capital of {c} in json", "Give me the capital of {c} as JSON.",
           "Answer in JSON: what is the capital of {c}?", "JSON with the country {c} and its capital")
SUM = ("What is {a} + {b}? Answer in JSON.", "{a} + {b} as JSON", "Answer in JSON: what is {a} + {b}?", "{a}+{b} in json", "json: {a} + {b}")
KEY_VALUE = ("JSON with {k} {v}", "Give me a JSON object with {k} = {v}.", "Make JSON: {k} is {v}", "json object {k}: {v}")
PERSON_ZH = ("用JSON表示：{n}，{a}岁", "{n}今年{a}岁，用JSON回答。", "请用JSON写出姓名{n}，年龄{a}。", "JSON：姓名{n}，年龄{a}")
CAPITAL_ZH = ("{c}的首都是哪里？用JSON回答。", "用JSON回答：{c}的首都是哪里？", "请用JSON写出{c}和它的首都。")
KEYS = {"color": COLORS, "fruit": FRUITS, "animal": ANIMALS, "food": FOODS}
SIMPLE_CAPITALS = [(c, v[0]) for c, v in COUNTRIES.items()]
ZH_CAPITALS = [(v[2], v[3]) for v in COUNTRIES.values() if v[2]]


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@task("json", 5)
def make_json(rng: random.Random) -> Sample:
    kind = rng.randrange(8)
    n, a = rng.choice(NAMES), rng.randint(1, 99)
    if kind <= 1:
        return turn(phrase(rng, rng.choice(PERSON), keep_case=True, n=n, a=a), _dump({"name": n, "age": a}), f"json {n} {a}")
    if kind == 2:
        c = rng.choice(SIMPLE_CAPITALS)[1]
        return turn(phrase(rng, rng.choice(PERSON_CITY), keep_case=True, n=n, a=a, c=c), _dump({"name": n, "age": a, "city": c}),
                    f"json {n} {a}")
    if kind <= 4:
        items = rng.sample(rng.choice((COLORS, FRUITS, ANIMALS, FOODS)), rng.randint(2, 4))
        if rng.random() < 0.25:
            items = rng.sample(range(100), rng.randint(2, 4))
        shown = ", ".join(map(str, items[:-1])) + rng.choice((" and ", ", ")) + str(items[-1])
        return turn(phrase(rng, rng.choice(ARRAY), l=shown), _dump(items), f"json {items}")
    if kind == 5:
        c, capital = rng.choice(SIMPLE_CAPITALS)
        i = rng.randrange(len(CAPITAL))
        return turn(phrase(rng, CAPITAL[i], c=c), _dump({"country": c.removeprefix("the "), "capital": capital}), f"jsoncap {c} {i}")
    if kind == 6:
        x, y = rng.randint(0, 12), rng.randint(0, 12)
        return turn(phrase(rng, rng.choice(SUM), a=x, b=y), _dump({"question": f"{x} + {y}", "answer": x + y}))
    k = rng.choice(list(KEYS))
    v = rng.choice(KEYS[k])
    i = rng.randrange(len(KEY_VALUE))
    return turn(phrase(rng, KEY_VALUE[i], k=k, v=v), _dump({k: v}), f"jsonkv {k} {v} {i}")


@task("json_zh", 2)
def make_json_zh(rng: random.Random) -> Sample:
    kind = rng.randrange(3)
    if kind == 0:
        n, a = rng.choice(NAMES_ZH), rng.randint(1, 99)
        return turn(phrase_zh(rng, rng.choice(PERSON_ZH), n=n, a=a), _dump({"姓名": n, "年龄": a}), f"json {n} {a}")
    if kind == 1:
        c, capital = rng.choice(ZH_CAPITALS)
        i = rng.randrange(len(CAPITAL_ZH))
        return turn(phrase_zh(rng, CAPITAL_ZH[i], c=c), _dump({"国家": c, "首都": capital}), f"jsoncapzh {c} {i}")
    items = rng.sample(COLORS_ZH, rng.randint(2, 4))
    return turn(phrase_zh(rng, rng.choice(("把{l}写成JSON数组", "JSON数组：{l}", "用JSON列表表示{l}")), l="、".join(items)), _dump(items),
                f"json {items}")
