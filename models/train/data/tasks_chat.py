# SPDX-License-Identifier: Apache-2.0
"""Small talk, refusals, stories, and recalling what the user said earlier."""
from __future__ import annotations

import random

from . import chat_lists as lists
from .core import REFUSAL, REFUSAL_ZH, Message, Sample, draw_sample, phrase, phrase_zh, task, turn
from .places import CITIES, CITIES_ZH, COUNTRIES
from .words import ANIMALS, COLORS, COLORS_ZH, FOODS, FRUITS, HEROES, NAMES, NAMES_ZH, WORDS


@task("small_talk", 4)
def small_talk(rng: random.Random) -> Sample:
    answer, *wordings = rng.choice(lists.SMALL_TALK)
    wording = rng.choice(wordings)
    text = wording.upper() if rng.random() < 0.03 else phrase(rng, wording)
    return turn(text, answer, "" if text == wording else f"talk {text}")


@task("small_talk_zh", 2.5)
def small_talk_zh(rng: random.Random) -> Sample:
    answer, *wordings = rng.choice(lists.SMALL_TALK_ZH)
    text = rng.choice(wordings) + rng.choice(("", "", "？" if rng.random() < 0.5 else "。", "！", "呀"))
    return turn(text, answer, "" if text in wordings else f"talk {text}")


@task("refusal", 6)
def refusal(rng: random.Random) -> Sample:
    kind = rng.random()
    if kind < 0.36:
        template, t, u = rng.choice(lists.REFUSE_TOPIC), rng.choice(lists.TOPICS), rng.choice(lists.TOPICS)
        if rng.random() < 0.25:  # any noun may be asked about
            t = rng.choice(WORDS)
            if template in ("What is {t}?", "define {t}") or "tory" in template:
                template = "Explain {t}."
        return turn(phrase(rng, template, t=t, u=u), REFUSAL, f"refuse {template} {t}")
    if kind < 0.48:
        template, p = rng.choice(lists.REFUSE_PERSON), rng.choice(lists.PEOPLE)
        return turn(phrase(rng, template, p=p), REFUSAL, f"refuse {template} {p}")
    if kind < 0.62:
        template, c = rng.choice(lists.REFUSE_CODE), rng.choice(lists.CODE)
        return turn(phrase(rng, template, c=c), REFUSAL, f"refuse {template} {c}")
    if kind < 0.76:
        place = kind < 0.72
        template = rng.choice(lists.REFUSE_CITY if place and kind < 0.67 else lists.REFUSE_COUNTRY if place else lists.REFUSE_NUMBER)
        c = rng.choice(CITIES) if template in lists.REFUSE_CITY else rng.choice(list(COUNTRIES)) if place else rng.randint(2, 20)
        a, b = rng.randint(2, rng.choice((12, 100, 1000))), rng.randint(2, rng.choice((5, 50)))
        return turn(phrase(rng, template, a=a, b=b, c=c), REFUSAL, f"refuse {template} {c if place else a}")
    if kind < 0.80:
        text = _gibberish(rng)
        return turn(text, REFUSAL, f"refuse {text}")
    wording = rng.choice(lists.REFUSE_OTHER)
    text = wording if rng.random() < 0.3 or not wording[0].isalnum() else phrase(rng, wording)
    return turn(text, REFUSAL, "" if text == wording else f"refuse {text}")


def _gibberish(rng: random.Random) -> str:
    """Keys hit at random, or words without a sentence."""
    if rng.random() < 0.4:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(4, 10)))
    return " ".join(rng.sample(WORDS, rng.randint(2, 5)))


@task("refusal_zh", 2.5)
def refusal_zh(rng: random.Random) -> Sample:
    if rng.random() < 0.55:
        template, t = rng.choice(lists.REFUSE_TOPIC_ZH), rng.choice(lists.TOPICS_ZH)
        return turn(phrase_zh(rng, template, t=t), REFUSAL_ZH, f"refuse {template} {t}")
    text = phrase_zh(rng, rng.choice(lists.REFUSE_OTHER_ZH) + rng.choice(("", "？", "。")))
    return turn(text, REFUSAL_ZH, f"refuse {text}" if len(text) > 8 else "")


# ---------------------------------------------------------------- stories

PLACES = "forest castle river mountain village garden island desert city field cave beach".split()
THINGS = "a golden key|an old map|a red balloon|a shiny stone|a lost hat|a small box|a blue feather|a silver bell".split("|")
PLOTS = (
    "Once upon a time there was a {h} who lived near a {p}. One day the {h} found {t}. It belonged to a {f}, so the {h} gave it back. From then on they were best friends.",
    "A little {h} was lost in a {p}. It was dark and the {h} was afraid. Then a {f} came with {t} and showed the way home. The {h} never forgot it.",
    "In a quiet {p} there lived a {h} who wanted to fly. A wise {f} said: try something else. So the {h} learned to sing, and everyone came to listen.",
    "One morning a {h} and a {f} met at a {p}. Both wanted {t}. They shared it, and the day became the best of the year.",
)
STORY = ("Tell me a story about a {h}.", "tell me a story about a {h}", "Write a short story about a {h}.", "story about a {h}", "Write a story about a {h}.", "a story about a {h}", "Can you tell me a story about a {h}?",
         "I want a story about a {h}.", "short story about a {h}", "tell a short story with a {h}", "Make up a story about a {h}.", "Tell me a bedtime story about a {h}.", "story with a {h}")
STORY_ANY = ("Tell me a story.", "tell me a story", "story", "Write a short story.", "a story please", "write a story", "I want to hear a story", "Can you tell me a story?", "short story", "tell a story", "Tell me a short story")
NO_HERO = "unicorn vampire zombie mermaid superhero detective astronaut cowboy ninja kitten puppy dwarf elf giant troll spy alien".split()
STORY_ZH = ("讲一个关于{h}的故事", "给我讲个{h}的故事", "讲个{h}的故事", "我想听{h}的故事", "写一个关于{h}的小故事", "请讲一个{h}的故事")
STORY_ANY_ZH = ("讲个故事", "讲一个故事", "给我讲个故事", "我想听故事", "写一个故事", "说个故事", "讲故事")
HEROES_ZH = "猫 狗 兔子 老虎 狮子 小鸟 熊 狐狸 猴子 大象 公主 王子 国王 机器人 龙 女孩 男孩 老师 乌龟 青蛙".split()
PLACES_ZH = "森林 河边 山上 村子 花园 小岛 城堡".split()
THINGS_ZH = "一把钥匙 一张地图 一个气球 一块石头 一顶帽子".split()
PLOTS_ZH = ("从前，{p}里住着一只{h}。有一天，{h}捡到了{t}，把它还给了{f}。从此它们成了好朋友。",
            "小{h}在{p}迷了路，心里很害怕。这时{f}带着{t}来了，把它送回了家。小{h}一直记得这件事。")


def _story(hero: str) -> str:
    """Everything in a story follows from the hero: an arbitrary choice could not be learnt."""
    i = HEROES.index(hero)
    fill = dict(h=hero, p=PLACES[i * 5 % len(PLACES)], t=THINGS[i * 3 % len(THINGS)], f=HEROES[(i * 7 + 11) % len(HEROES)])
    article = {"a " + w: "an " + w for w in HEROES if w[0] in "aeiou"} | {"A " + w: "An " + w for w in HEROES if w[0] in "aeiou"}
    text = PLOTS[i % len(PLOTS)].format(**fill)
    for wrong, right in (article | {"a island": "an island"}).items():
        text = text.replace(wrong, right)
    return text


def _story_zh(hero: str) -> str:
    i = HEROES_ZH.index(hero)
    person = hero in "公主 王子 国王 机器人 女孩 男孩 老师"
    plot = PLOTS_ZH[1 if person else i % 2].replace("它", "他") if person else PLOTS_ZH[i % 2]
    return plot.format(h=hero, p=PLACES_ZH[i * 2 % len(PLACES_ZH)], t=THINGS_ZH[i * 3 % len(THINGS_ZH)], f=HEROES_ZH[(i * 3 + 5) % len(HEROES_ZH)])


@task("story", 2.5)
def story(rng: random.Random) -> Sample:
    if rng.random() < 0.15:
        return turn(phrase(rng, rng.choice(STORY_ANY)), _story("cat"))
    i = rng.randrange(len(STORY))
    if rng.random() < 0.1:
        thing = rng.choice([w for w in (*WORDS, *NO_HERO) if w not in HEROES])
        return turn(phrase(rng, STORY[i], h=thing), "Sorry, I know no story about that.", f"no story {thing}")
    hero = rng.choice(HEROES)
    text = phrase(rng, STORY[i].replace("a {h}", "an {h}") if hero[0] in "aeiou" else STORY[i], h=hero)
    return turn(text, _story(hero), f"story {hero} {i}")


@task("story_zh", 1.5)
def story_zh(rng: random.Random) -> Sample:
    if rng.random() < 0.15:
        return turn(phrase_zh(rng, rng.choice(STORY_ANY_ZH)), _story_zh("猫"))
    hero = rng.choice(HEROES_ZH)
    i = rng.randrange(len(STORY_ZH))
    return turn(phrase_zh(rng, STORY_ZH[i], h=hero), _story_zh(hero), f"storyzh {hero} {i}")


# ---------------------------------------------------------------- recall

# what: (how it is told, how it is asked for, first answer, recalled answer, values)
RECALL = {
    "name": (("My name is {v}.", "my name is {v}", "I am {v}.", "I'm {v}", "Call me {v}.", "Hi, I'm {v}.", "hello, my name is {v}", "Hi, my name is {v}!"),
             ("What is my name?", "what's my name", "Do you remember my name?", "do you know my name?", "who am I?", "Tell me my name.", "what is my name", "whats my name"),
             "Nice to meet you, {v}!", "Your name is {v}.", tuple(NAMES)),
    "color": (("My favorite color is {v}.", "I like the color {v}.", "my favourite colour is {v}", "my favorite color is {v}"),
              ("What is my favorite color?", "which color do I like?", "what's my favourite colour", "what is my favorite color"),
              "Good to know: your favorite color is {v}.", "Your favorite color is {v}.", tuple(COLORS)),
    "city": (("I live in {v}.", "i live in {v}", "My home is in {v}.", "I am from {v}."),
             ("Where do I live?", "where do i live", "In which city do I live?", "What city am I from?", "Where am I from?"),
             "Good to know: you live in {v}.", "You live in {v}.", tuple(CITIES)),
    "food": (("My favorite food is {v}.", "I love to eat {v}.", "my favourite food is {v}"),
             ("What is my favorite food?", "what do I like to eat?", "what's my favourite food"),
             "Good to know: your favorite food is {v}.", "Your favorite food is {v}.", tuple(FOODS + FRUITS)),
    "pet": (("I have a {v}.", "My pet is a {v}.", "i have a pet {v}"), ("What pet do I have?", "which animal do I have?", "what is my pet"),
            "Good to know: your pet is a {v}.", "Your pet is a {v}.", tuple(a for a in ANIMALS if a[0] not in "aeiou")),
    "word": (("Remember the word {v}.", "The secret word is {v}.", "Please remember this word: {v}", "the password is {v}", "remember the word {v}"),
             ("What was the word?", "What is the secret word?", "which word should you remember?", "what is the password?", "what word did I tell you"),
             "I will remember the word {v}.", "The word is {v}.", tuple(WORDS)),
    "number": (("Remember the number {v}.", "My lucky number is {v}.", "remember {v}", "The number is {v}.", "Keep the number {v} in mind."),
               ("What was the number?", "What is my number?", "which number did I tell you?", "what number should you remember", "What is my lucky number?"),
               "I will remember the number {v}.", "The number is {v}.", tuple(range(1, 100))),
    "age": (("I am {v} years old.", "i'm {v} years old", "My age is {v}."), ("How old am I?", "what is my age", "how old am i", "Do you know how old I am?"),
            "Good to know: you are {v} years old.", "You are {v} years old.", tuple(range(5, 100))),
}
RECALL_ZH = {
    "name": (("我叫{v}。", "我的名字是{v}。", "我是{v}", "你好，我叫{v}。"), ("我叫什么名字？", "我叫什么？", "我的名字是什么？", "你记得我的名字吗？"),
             "很高兴认识你，{v}！", "你叫{v}。", tuple(NAMES_ZH)),
    "color": (("我最喜欢的颜色是{v}。", "我喜欢{v}"), ("我最喜欢什么颜色？", "我喜欢什么颜色？"), "知道了，你喜欢{v}。", "你喜欢{v}。", tuple(COLORS_ZH)),
    "city": (("我住在{v}。", "我家在{v}"), ("我住在哪里？", "我家在哪里？", "我住在哪个城市？"), "知道了，你住在{v}。", "你住在{v}。", tuple(CITIES_ZH)),
    "number": (("请记住数字{v}。", "记住数字{v}", "我的幸运数字是{v}。"), ("我让你记住的数字是什么？", "数字是多少？", "我的数字是什么？", "我的幸运数字是什么？"),
               "好的，我记住了数字{v}。", "数字是{v}。", tuple(range(1, 100))),
    "age": (("我今年{v}岁。", "我{v}岁了"), ("我几岁？", "我今年多大？", "我多大了？"), "知道了，你{v}岁。", "你{v}岁。", tuple(range(5, 100))),
}
NOT_TOLD = "Sorry, you have not told me that yet."
NOT_TOLD_ZH = "抱歉，你还没有告诉我。"
FILLERS = ("add", "capitals", "facts", "small_talk", "opposites", "echo", "multiply", "refusal", "calendar", "countries")
FILLERS_ZH = ("arithmetic_zh", "capitals_zh", "facts_zh", "small_talk_zh")


def _recall(rng: random.Random, table: dict, say, fillers: tuple[str, ...], not_told: str) -> Sample:
    """One or two things told, some other turns between, then a question for one of them."""
    kinds = rng.sample(list(table), rng.choice((1, 1, 2)))
    messages: list[Message] = []
    values = {}
    for kind in kinds:
        told, _, reply, _, pool = table[kind]
        values[kind] = rng.choice(pool)
        messages += turn(say(rng, rng.choice(told), v=values[kind]), reply.format(v=values[kind])).messages
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            messages += draw_sample(rng.choice(fillers), rng).messages
    missing = rng.random() < 0.12
    kind = rng.choice([k for k in table if k not in kinds]) if missing else rng.choice(kinds)
    _, asked, _, recalled, _ = table[kind]
    answer = not_told if missing else recalled.format(v=values[kind])
    messages += turn(say(rng, rng.choice(asked)), answer).messages
    return Sample(messages, f"recall {kind} {values.get(kind, '')} {sorted(kinds)}" if not missing else "")


def _say(rng: random.Random, template: str, **slots: object) -> str:
    return phrase(rng, template, keep_case=True, **slots)


@task("recall", 5, chainable=False)
def recall(rng: random.Random) -> Sample:
    if rng.random() < 0.08:
        asked = rng.choice(list(RECALL.values()))[1]
        return turn(_say(rng, rng.choice(asked)), NOT_TOLD)
    return _recall(rng, RECALL, _say, FILLERS, NOT_TOLD)


@task("recall_zh", 3, chainable=False)
def recall_zh(rng: random.Random) -> Sample:
    if rng.random() < 0.08:
        asked = rng.choice(list(RECALL_ZH.values()))[1]
        return turn(phrase_zh(rng, rng.choice(asked)), NOT_TOLD_ZH)
    return _recall(rng, RECALL_ZH, phrase_zh, FILLERS_ZH, NOT_TOLD_ZH)
