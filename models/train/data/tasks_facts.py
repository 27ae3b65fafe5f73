# SPDX-License-Identifier: Apache-2.0
"""Lookups: capitals and other facts of countries, general facts, opposites, translations, calendar."""
from __future__ import annotations

import random

from .core import Message, Sample, phrase, phrase_zh, task, turn
from .fact_lists import FACTS, FACTS_ZH
from .places import ALIASES, COUNTRIES, CURRENCY, LANGUAGE, NO_COUNTRY, NO_COUNTRY_ZH
from .words import DAYS, DAYS_ZH, LANGUAGES, MONTHS, OPPOSITES, OPPOSITES_ZH, TRANSLATIONS, WORDS

UNKNOWN = "Sorry, I do not know that country."
UNKNOWN_ZH = "抱歉，我不知道这个国家。"

CAPITAL = ("What is the capital of {c}?", "capital of {c}", "What's the capital of {c}?", "whats the capital of {c}", "the capital of {c}",
           "Tell me the capital of {c}.", "Which city is the capital of {c}?", "Name the capital of {c}.", "{c} capital", "{c}'s capital",
           "What is the capital city of {c}?", "Do you know the capital of {c}?", "capital city of {c}", "What city is the capital of {c}?",
           "I want to know the capital of {c}.", "what is {c}'s capital?", "The capital of {c} is", "capital of {c} is?", "capital for {c}")
CAPITAL_NEXT = ("And of {c}?", "and of {c}?", "And {c}?", "and {c}", "What about {c}?", "what about {c}", "How about {c}?", "And the capital of {c}?",
                "{c}?", "And for {c}?", "and in {c}?", "ok and {c}", "what of {c}")
COUNTRY_OF = ("Which country has the capital {k}?", "{k} is the capital of which country?", "What country is {k} the capital of?",
              "{k} is the capital of what", "which country's capital is {k}")
CONTINENT = ("Which continent is {c} in?", "What continent is {c} on?", "{c} is on which continent?", "continent of {c}", "Where is {c}?",
             "where is {c} located", "On which continent is {c}?", "where is {c}")
MONEY = ("What is the currency of {c}?", "currency of {c}", "What money is used in {c}?", "What currency does {c} use?", "{c} currency")
TONGUE = ("What language is spoken in {c}?", "language of {c}", "What do people speak in {c}?", "Which language do they speak in {c}?", "{c} language")
CAPITAL_ZH = ("{c}的首都是哪里？", "{c}的首都是什么？", "{c}首都", "{c}的首都在哪里？", "{c}的首都是哪个城市？", "{c}的首都", "你知道{c}的首都吗？", "首都：{c}",
              "哪个城市是{c}的首都？", "{c}首都是哪？")
CAPITAL_NEXT_ZH = ("那{c}呢？", "{c}呢？", "那么{c}呢？", "{c}的呢？", "还有{c}呢？")


def _a_country(rng: random.Random) -> str:
    """Large countries come up more often, as they do in what people ask."""
    names = list(COUNTRIES)
    return rng.choice(names[:20] + ["China", "Japan", "the United States", "India", "Canada", "Russia"]) if rng.random() < 0.25 else rng.choice(names)


def _asked(rng: random.Random, country: str) -> str:
    return rng.choice(ALIASES[country]) if country in ALIASES and rng.random() < 0.5 else country


def _nowhere(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(NO_COUNTRY)
    syllables = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") + rng.choice(("", "n", "r", "l", "s")) for _ in range(rng.randint(2, 3)))
    return syllables.capitalize() + rng.choice(("", "ia", "land", "stan", ""))


def _capital_turn(rng: random.Random, templates: tuple[str, ...]) -> Sample:
    i = rng.randrange(len(templates))
    if rng.random() < 0.12:
        place = _nowhere(rng)
        return turn(phrase(rng, templates[i], c=place), UNKNOWN, f"nowhere {place} {i}")
    c = _a_country(rng)
    return turn(phrase(rng, templates[i], c=_asked(rng, c)), f"The capital of {c} is {COUNTRIES[c][0]}.", f"capital {c} {templates[i]}")


@task("capitals", 5)
def capitals(rng: random.Random) -> Sample:
    if rng.random() < 0.12:
        c = _a_country(rng)
        i = rng.randrange(len(COUNTRY_OF))
        k = COUNTRIES[c][0]
        return turn(phrase(rng, COUNTRY_OF[i], k=k), f"{k} is the capital of {c}.", f"country of {c} {i}")
    return _capital_turn(rng, CAPITAL)


@task("capitals_follow_up", 3.5)
def capitals_follow_up(rng: random.Random) -> Sample:
    """One question in full, then "And of Germany?"; the last turn decides the split."""
    first = _capital_turn(rng, CAPITAL)
    messages: list[Message] = list(first.messages)
    for _ in range(rng.randint(1, 2)):
        nxt = _capital_turn(rng, CAPITAL_NEXT)
        messages += nxt.messages
    return Sample(messages, nxt.key)


@task("countries", 4)
def countries(rng: random.Random) -> Sample:
    kind = rng.randrange(5)
    if kind <= 1:
        i, c = rng.randrange(len(CONTINENT)), _a_country(rng)
        place = _nowhere(rng)
        if rng.random() < 0.08 and place not in ("Paris", "London"):
            return turn(phrase(rng, CONTINENT[i], c=place), UNKNOWN)
        return turn(phrase(rng, CONTINENT[i], c=_asked(rng, c)), f"{c[0].upper()}{c[1:]} is in {COUNTRIES[c][1]}.", f"continent {c} {i}")
    if kind == 2:
        i, c = rng.randrange(len(MONEY)), rng.choice(list(CURRENCY))
        return turn(phrase(rng, MONEY[i], c=_asked(rng, c)), f"The currency of {c} is the {CURRENCY[c]}.", f"money {c} {i}")
    if kind == 3:
        i, c = rng.randrange(len(TONGUE)), rng.choice(list(LANGUAGE))
        return turn(phrase(rng, TONGUE[i], c=_asked(rng, c)), f"People in {c} speak {LANGUAGE[c]}.", f"tongue {c} {i}")
    i, c = rng.randrange(4), _a_country(rng)
    k = COUNTRIES[c][0]
    if k in COUNTRIES:
        return countries(rng)
    return turn(phrase(rng, ("Where is {k}?", "where is {k} located", "In which country is {k}?", "which country is {k} in")[i], k=k),
                f"{k} is the capital of {c}.", f"where {k} {i}")


@task("capitals_zh", 4)
def capitals_zh(rng: random.Random) -> Sample:
    known = [v for v in COUNTRIES.values() if v[2]]

    def one(templates: tuple[str, ...]) -> Sample:
        i = rng.randrange(len(templates))
        if rng.random() < 0.1:
            place = rng.choice(NO_COUNTRY_ZH)
            return turn(phrase_zh(rng, templates[i], c=place), UNKNOWN_ZH, f"nowhere {place} {i}")
        v = rng.choice(known)
        return turn(phrase_zh(rng, templates[i], c=v[2]), f"{v[2]}的首都是{v[3]}。", f"capital {v[2]} {templates[i]}")

    first = one(CAPITAL_ZH)
    if rng.random() < 0.75:
        return first
    second = one(CAPITAL_NEXT_ZH)
    return Sample(first.messages + second.messages, second.key)


@task("facts", 5)
def facts(rng: random.Random) -> Sample:
    answer, *wordings = rng.choice(FACTS)
    i = rng.randrange(len(wordings))
    text = phrase(rng, wordings[i])
    return turn(text, answer, f"fact {text}")


@task("facts_zh", 3)
def facts_zh(rng: random.Random) -> Sample:
    if rng.random() < 0.25:
        a = rng.choice(list(OPPOSITES_ZH) + list(OPPOSITES_ZH.values()))
        b = OPPOSITES_ZH.get(a) or next(k for k, v in OPPOSITES_ZH.items() if v == a)
        i = rng.randrange(4)
        text = phrase_zh(rng, ("{a}的反义词是什么？", "{a}的反义词", "“{a}”的反义词是什么？", "{a}的反义词是哪个字？")[i], a=a)
        return turn(text, f"“{a}”的反义词是“{b}”。", f"opposite {a} {i}")
    if rng.random() < 0.12:
        i = rng.randrange(7)
        text = phrase_zh(rng, rng.choice(("{d}的后一天是星期几？", "{d}之后是星期几？", "{d}的下一天是什么？")), d=DAYS_ZH[i])
        return turn(text, f"{DAYS_ZH[i]}之后是{DAYS_ZH[(i + 1) % 7]}。", f"day {text}")
    answer, *wordings = rng.choice(FACTS_ZH)
    text = phrase_zh(rng, rng.choice(wordings))
    return turn(text, answer, f"fact {text}")


OPPOSITE = ("What is the opposite of {a}?", "opposite of {a}", "What's the opposite of {a}?", "antonym of {a}", "Give me the opposite of {a}.",
            "the opposite of {a} is", "What is the antonym of {a}?", "tell me the opposite of {a}")
TRANSLATE = ("How do you say {w} in {l}?", "Translate {w} to {l}.", "translate {w} into {l}", "What is {w} in {l}?", "{w} in {l}",
             "What's {w} in {l}?", "how to say {w} in {l}", "Say {w} in {l}.", "{l} word for {w}", "What is the {l} word for {w}?")
OTHER_LANGUAGES = ("Italian", "Japanese", "Russian", "Korean", "Arabic", "Latin", "Dutch", "Portuguese", "Greek", "Swedish", "Klingon")
MONTH_LENGTH = ("How many days does {m} have?", "how many days are in {m}", "days in {m}", "How many days has {m}?", "how many days in {m}")
AFTER = ("What day comes after {d}?", "What comes after {d}?", "which day is after {d}", "day after {d}", "What is the day after {d}?", "next day after {d}")
BEFORE = ("What day comes before {d}?", "What comes before {d}?", "which day is before {d}", "day before {d}", "What is the day before {d}?", "what was the day before {d}")


@task("opposites", 2.5)
def opposites(rng: random.Random) -> Sample:
    pairs = list(OPPOSITES.items())
    known = {y: x for x, y in reversed(pairs)} | OPPOSITES  # a word has one opposite, the first that the list names
    a, b = rng.choice(list(known.items()))
    i = rng.randrange(len(OPPOSITE))
    if rng.random() < 0.1:
        word = rng.choice([w for w in WORDS if w not in OPPOSITES and w not in OPPOSITES.values()])
        return turn(phrase(rng, OPPOSITE[i], a=word), "Sorry, I do not know an opposite of that.", f"unopposed {word}")
    return turn(phrase(rng, OPPOSITE[i], a=a), f"The opposite of {a} is {b}.", f"opposite {a} {i}")


@task("translate", 3)
def translate(rng: random.Random) -> Sample:
    w = rng.choice(list(TRANSLATIONS))
    n = rng.randrange(len(LANGUAGES))
    i = rng.randrange(len(TRANSLATE))
    if rng.random() < 0.15:
        known_word = rng.random() < 0.4
        language = rng.choice(OTHER_LANGUAGES) if known_word else rng.choice(LANGUAGES)
        word = w if known_word else rng.choice([x for x in WORDS if x not in TRANSLATIONS])
        return turn(phrase(rng, TRANSLATE[i], w=word, l=language), "Sorry, I do not know that translation.", f"untranslated {word} {language}")
    shown = rng.choice((w, w, w, f'"{w}"'))
    answer = f"{w[0].upper()}{w[1:]} in {LANGUAGES[n]} is: {TRANSLATIONS[w][n]}"
    return turn(phrase(rng, TRANSLATE[i], w=shown, l=LANGUAGES[n]), answer, f"translate {w} {n} {i}")


@task("calendar", 2.5)
def calendar(rng: random.Random) -> Sample:
    if rng.random() < 0.2:
        m, i = rng.choice(MONTHS), rng.randrange(len(MONTH_LENGTH))
        days = "28 days, in a leap year 29" if m == "February" else f"{30 if m in ('April', 'June', 'September', 'November') else 31} days"
        return turn(phrase(rng, MONTH_LENGTH[i], m=m), f"{m} has {days}.", f"month {m} {i}")
    names, kind = rng.choice(((DAYS, "day"), (MONTHS, "month")))
    d = rng.randrange(len(names))
    after = rng.random() < 0.6
    templates = AFTER if after else BEFORE
    i = rng.randrange(len(templates))
    other = names[(d + (1 if after else -1)) % len(names)]
    text = phrase(rng, templates[i].replace("day", kind) if kind == "month" else templates[i], d=names[d])
    return turn(text, f"{other} comes {'after' if after else 'before'} {names[d]}.", f"calendar {names[d]} {after} {i}")
