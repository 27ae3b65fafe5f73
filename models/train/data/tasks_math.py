# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, counting, number order and unit conversion.

Everything longer than one digit is written in steps (47 + 38 = 47 + 30 + 8 = 77 + 8 = 85): each step is a
lookup that a small model can do, while the whole in one leap is not.
"""
from __future__ import annotations

import random

from .core import Sample, phrase, phrase_zh, task, turn
from .words import NUMBER_WORDS, number_word

ADD_MAX, MUL_MAX, DIV_MAX, DIVISOR_MAX, COUNT_MAX = 999, 99, 199, 12, 30

TOO_LARGE = {
    "+": "Sorry, I can only add whole numbers up to 999.",
    "-": "Sorry, I can only subtract whole numbers up to 999.",
    "×": "Sorry, I can only multiply whole numbers up to 99.",
    "/": "Sorry, I can only divide whole numbers up to 199 by 1 to 12.",
}
TOO_LARGE_ZH = {
    "+": "抱歉，我只会做999以内的整数加法。",
    "-": "抱歉，我只会做999以内的整数减法。",
    "×": "抱歉，我只会做99以内的整数乘法。",
    "/": "抱歉，我只会用1到12去除199以内的整数。",
}

INFIX = {"+": ("+", "+", "plus"), "-": ("-", "-", "minus", "-"), "×": ("*", "x", "×", "times", "multiplied by", "*"),
         "/": ("/", "/", "divided by", "÷")}
INFIX_ZH = {"+": ("+", "加", "加上"), "-": ("-", "减", "减去"), "×": ("*", "乘以", "乘", "×"), "/": ("/", "除以", "÷")}
VERBAL = {
    "+": ("Add {a} and {b}.", "What is the sum of {a} and {b}?", "sum of {a} and {b}", "add {a} to {b}", "{a} and {b} together?",
          "What do you get if you add {a} and {b}?", "I have {a} apples and get {b} more. How many apples do I have?"),
    "-": ("Subtract {b} from {a}.", "What is {a} take away {b}?", "take {b} away from {a}", "What is the difference between {a} and {b}?",
          "I have {a} apples and give away {b}. How many are left?", "subtract {b} from {a}"),
    "×": ("Multiply {a} by {b}.", "What is the product of {a} and {b}?", "multiply {a} and {b}", "product of {a} and {b}"),
    "/": ("Divide {a} by {b}.", "divide {a} by {b}", "Share {a} sweets among {b} children. How many does each get?"),
}
VERBAL_ZH = {"+": ("{a}和{b}的和是多少？", "求{a}与{b}的和"), "-": ("{a}比{b}多多少？", "{a}和{b}的差是多少？"),
             "×": ("{a}和{b}的积是多少？", "{b}个{a}是多少？"), "/": ("把{a}平均分成{b}份，每份是多少？",)}
ASK = ("What is {e}?", "What's {e}?", "whats {e}", "What is {e}", "Calculate {e}.", "Compute {e}", "How much is {e}?", "{e}",
       "{e} = ?", "{e} =", "{e}=", "{e}?", "Tell me {e}.", "What does {e} equal?", "what is {e} equal to?", "Solve {e}",
       "Can you calculate {e}?", "What is the result of {e}?", "Please work out {e}.", "do you know what {e} is?", "{e}=?",
       "I need to know {e}", "math: {e}", "how much is {e}", "{e} is?", "Evaluate {e}", "give me {e}", "can you do {e}?")
ASK_ZH = ("{e}等于多少？", "{e}等于几？", "{e}是多少？", "计算{e}", "请计算{e}。", "算一下{e}", "{e}得多少？", "{e}等于？",
          "请问{e}等于多少？", "帮我算一下{e}。")


# ---------------------------------------------------------------- worked answers

def _places(n: int) -> list[int]:
    """257 -> [200, 50, 7]; zeros left out, 0 -> [0]."""
    text = str(n)
    parts = [int(d) * 10 ** (len(text) - 1 - i) for i, d in enumerate(text) if d != "0"]
    return parts or [0]


def _fold(first: int, parts: list[int], sign: str) -> list[str]:
    """The lines of `first ± p0 ± p1 ...`, one place done per line."""
    lines = []
    while True:
        lines.append(f" {sign} ".join(str(x) for x in [first, *parts]))
        if not parts:
            return lines
        first = first + parts[0] if sign == "+" else first - parts[0]
        parts = parts[1:]


def work_add(a: int, b: int) -> str:
    lines = _fold(a, _places(b), "+")
    return " = ".join(([f"{a} + {b}"] if lines[0] != f"{a} + {b}" else []) + lines)


def work_sub(a: int, b: int) -> str:
    if b > a:
        inner = work_sub(b, a).split(" = ")
        return f"{a} - {b} = " + " = ".join(f"-({x})" for x in inner[:-1]) + f" = -{inner[-1]}"
    lines = _fold(a, _places(b), "-")
    return " = ".join(([f"{a} - {b}"] if lines[0] != f"{a} - {b}" else []) + lines)


def work_mul(a: int, b: int) -> str:
    """Partial products of the places, then their sum; the tables up to 10 × 10 at once."""
    head = f"{a} × {b}"
    products = [(x, y) for y in _places(b) for x in _places(a)]
    if len(products) == 1:
        return f"{head} = {a * b}"
    split = " + ".join(f"{x} × {y}" for x, y in products)
    values = [x * y for x, y in products]
    return " = ".join([head, split, *_fold(values[0], values[1:], "+")])


def work_div(a: int, b: int) -> str:
    """Tens of the quotient first; a remainder is named."""
    if b == 0:
        return "Sorry, nobody can divide by zero."
    q, r = divmod(a, b)
    tail = f" remainder {r}" if r else ""
    if b == 1 or q < 10:
        return f"{a} / {b} = {q}{tail}"
    tens = q // 10 * 10
    rest = a - tens * b
    if rest == 0:
        return f"{a} / {b} = {q}"
    return f"{a} / {b} = {tens * b} / {b} + {rest} / {b} = {tens} + {q - tens}{tail} = {q}{tail}"


WORK = {"+": work_add, "-": work_sub, "×": work_mul, "/": work_div}


def pair_key(op: str, a: int, b: int) -> str:
    """Held-out key of an operand pair, shared by every task; small pairs are always trained."""
    if max(a, b) <= 12 or (op == "/" and a <= 12 * b and a % b == 0):
        return ""
    x, y = (max(a, b), min(a, b)) if op in "+×" else (a, b)
    return f"pair {op} {x} {y}"


# ---------------------------------------------------------------- questions

def _number(rng: random.Random, top: int) -> int:
    """Sizes evenly mixed: one digit, two digits, up to top."""
    return rng.randint(0, rng.choice([x for x in (9, 20, 99, 99, 100, top) if x <= top]))


def _operands(rng: random.Random, op: str) -> tuple[int, int]:
    """The plain tasks: sums up to 100 + 100, one factor up to 12."""
    if op == "+":
        return _number(rng, 100), _number(rng, 100)
    if op == "-":
        return _in_order(rng, _number(rng, 100), _number(rng, 100))
    if op == "×":
        a, b = _number(rng, MUL_MAX), _number(rng, 12)
        return (a, b) if rng.random() < 0.7 else (b, a)
    b = rng.randint(1, DIVISOR_MAX)
    if rng.random() < 0.5:
        return b * rng.randint(0, min(DIV_MAX // b, 20)), b
    return rng.randint(0, DIV_MAX), b


def _in_order(rng: random.Random, a: int, b: int) -> tuple[int, int]:
    """Mostly the larger number first: few people ask for negative results."""
    return (a, b) if a >= b or rng.random() < 0.15 else (b, a)


def _large_operands(rng: random.Random, op: str) -> tuple[int, int]:
    """Beyond the plain tasks, but within the limits."""
    if op == "×":
        return rng.randint(13, MUL_MAX), rng.randint(13, MUL_MAX)
    a, b = rng.randint(101, ADD_MAX), _number(rng, ADD_MAX)
    if op == "-":
        return _in_order(rng, a, b)
    return (a, b) if rng.random() < 0.6 else (b, a)


def question(rng: random.Random, op: str, a: object, b: object, zh: bool) -> str:
    """One of many wordings of an operation on two operands."""
    table = VERBAL_ZH if zh else VERBAL
    if rng.random() < 0.22:
        return (phrase_zh if zh else phrase)(rng, rng.choice(table[op]), a=a, b=b)
    sign = rng.choice((INFIX_ZH if zh else INFIX)[op])
    tight = (zh and rng.random() < 0.7) or (not sign.isalpha() and rng.random() < 0.45)
    gap = "" if tight and " " not in sign and (zh or not sign.isalpha() or sign == "x") else " "
    expression = f"{a}{gap}{sign}{gap}{b}"
    if zh:
        return phrase_zh(rng, rng.choice(ASK_ZH), e=expression)
    return expression if rng.random() < 0.2 else phrase(rng, rng.choice(ASK), e=expression)


def _arithmetic(rng: random.Random, op: str, zh: bool = False, large: bool = False) -> Sample:
    a, b = (_large_operands if large else _operands)(rng, op)
    if op == "/" and rng.random() < 0.01:
        b = 0
    key = pair_key(op, a, b) if b else ""
    x, y = str(a), str(b)
    if not zh and max(a, b) <= 20 and rng.random() < 0.12:
        x, y = NUMBER_WORDS[a], NUMBER_WORDS[b]
    return turn(question(rng, op, x, y, zh), WORK[op](a, b), key)


@task("add", 7)
def add(rng: random.Random) -> Sample:
    return _arithmetic(rng, "+")


@task("subtract", 7)
def subtract(rng: random.Random) -> Sample:
    return _arithmetic(rng, "-")


@task("multiply", 7)
def multiply(rng: random.Random) -> Sample:
    return _arithmetic(rng, "×")


@task("divide", 7)
def divide(rng: random.Random) -> Sample:
    return _arithmetic(rng, "/")


@task("add_large", 4)
def add_large(rng: random.Random) -> Sample:
    return _arithmetic(rng, "+", large=True)


@task("subtract_large", 4)
def subtract_large(rng: random.Random) -> Sample:
    return _arithmetic(rng, "-", large=True)


@task("multiply_large", 4)
def multiply_large(rng: random.Random) -> Sample:
    return _arithmetic(rng, "×", large=True)


@task("arithmetic_zh", 7)
def arithmetic_zh(rng: random.Random) -> Sample:
    return _arithmetic(rng, rng.choice("++--××/"), zh=True)


@task("add_three", 2)
def add_three(rng: random.Random) -> Sample:
    a, b, c = (rng.randint(0, 20) for _ in range(3))
    if rng.random() < 0.2:
        ask = rng.choice(("sum of {a}, {b} and {c}", "What is the sum of {a}, {b} and {c}?", "Add {a}, {b} and {c}.", "add {a}, {b}, {c}"))
        return turn(phrase(rng, ask, a=a, b=b, c=c), f"{a} + {b} + {c} = {a + b} + {c} = {a + b + c}", f"triple {a} {b} {c}")
    sign = rng.choice((" + ", "+", " plus "))
    answer = f"{a} + {b} + {c} = {a + b} + {c} = {a + b + c}"
    return turn(phrase(rng, rng.choice(ASK), e=sign.join((str(a), str(b), str(c)))), answer, f"triple {a} {b} {c}")


@task("too_large", 2.5)
def too_large(rng: random.Random) -> Sample:
    """Operands beyond the limits, and fractions."""
    op = rng.choice("+-×/")
    limit = {"+": 1000, "-": 1000, "×": 100, "/": 200}[op]
    a, b = _operands(rng, op)
    if op != "/" and rng.random() < 0.2:
        x = f"{a}.{rng.randint(1, 9)}"
    else:
        x = str(rng.randint(limit, limit * 10 ** rng.randint(1, 4)))
    y = str(rng.randint(limit, 99999)) if rng.random() < 0.35 else str(b)
    x, y = (y, x) if op in "+×" and rng.random() < 0.4 else (x, y)
    if op == "/" and rng.random() < 0.4:
        x, y = str(a), str(rng.randint(DIVISOR_MAX + 1, 500))
    zh = rng.random() < 0.3
    return turn(question(rng, op, x, y, zh), (TOO_LARGE_ZH if zh else TOO_LARGE)[op], f"large {op} {x} {y}")


# ---------------------------------------------------------------- counting and order

COUNT_UP = ("Count to {n}.", "count to {n}", "Count up to {n}", "Count from 1 to {n}.", "Can you count to {n}?", "count till {n}",
            "Please count from one to {n}.", "List the numbers from 1 to {n}.", "numbers from 1 to {n}", "write the numbers 1 to {n}",
            "say the numbers from 1 to {n}", "print 1 to {n}")
COUNT_UP_ZH = ("从1数到{n}", "数到{n}", "请从1数到{n}。", "列出1到{n}的数字", "从一数到{n}", "你能数到{n}吗？")
COUNT_RANGE = ("Count from {m} to {n}.", "count from {m} to {n}", "List the numbers from {m} to {n}.", "numbers from {m} to {n}",
               "Write all numbers from {m} to {n}.", "Count up from {m} to {n}")
COUNT_DOWN = ("Count down from {n}.", "count backwards from {n}", "Count from {n} down to 1.", "countdown from {n}", "Count down from {n} to 1",
              "count backward from {n} to 1")
COUNT_STEP = ("Count to {n} by {s}.", "Count by {s}s to {n}.", "count in steps of {s} to {n}", "Count in {s}s up to {n}.", "skip count by {s} to {n}")


@task("count", 6)
def count(rng: random.Random) -> Sample:
    kind = rng.randrange(8)
    n = rng.randint(2, COUNT_MAX)
    shown = number_word(n) if rng.random() < 0.15 else str(n)
    if kind <= 2:
        return turn(phrase(rng, rng.choice(COUNT_UP), n=shown), _listed(range(1, n + 1)))
    if kind == 3:
        return turn(phrase_zh(rng, rng.choice(COUNT_UP_ZH), n=n), _listed(range(1, n + 1)))
    if kind == 4:
        n = rng.randint(2, 20)
        return turn(phrase(rng, rng.choice(COUNT_DOWN), n=n), _listed(range(n, 0, -1)))  # a table of 19
    if kind == 5:
        s, k = rng.choice((2, 3, 5, 10)), rng.randint(2, 10)
        shown = rng.choice((str(s), {2: "two", 3: "three", 5: "five", 10: "ten"}[s]))
        return turn(phrase(rng, rng.choice(COUNT_STEP), n=s * k, s=shown), _listed(range(s, s * k + 1, s)))  # a table of 36
    if kind == 6:
        top = rng.choice((rng.randint(COUNT_MAX + 1, 100), rng.randint(101, 1000000)))
        if rng.random() < 0.3:
            return turn(phrase_zh(rng, rng.choice(COUNT_UP_ZH), n=top), "抱歉，我最多只能数到30。", f"count {top}")
        return turn(phrase(rng, rng.choice(COUNT_UP), n=top), "Sorry, I can only count up to 30.", f"count {top}")
    m = rng.randint(0, COUNT_MAX - 2)
    n = rng.randint(m + 1, min(m + 15, COUNT_MAX))
    return turn(phrase(rng, rng.choice(COUNT_RANGE), m=m, n=n), _listed(range(m, n + 1)), f"range {m} {n}")


def _listed(numbers) -> str:
    return ", ".join(str(x) for x in numbers)


SORT_UP = ("Sort these numbers: {l}", "Sort {l}", "sort {l}", "Put these numbers in order: {l}", "sort the numbers {l}", "order {l}",
           "Sort {l} from smallest to largest.", "Arrange {l} in ascending order.", "Sort the list {l}")
SORT_DOWN = ("Sort {l} from largest to smallest.", "Sort {l} in descending order.", "Arrange {l} in descending order.")
SORT_ZH = ("把{l}从小到大排序", "排序：{l}", "请把{l}按从小到大的顺序排列。")
LARGEST = ("What is the largest of {l}?", "largest number: {l}", "Which number is the biggest: {l}?", "max of {l}", "find the maximum of {l}")
SMALLEST = ("What is the smallest of {l}?", "smallest number: {l}", "Which number is the smallest: {l}?", "min of {l}", "find the minimum of {l}")


@task("sort_numbers", 10)
def sort_numbers(rng: random.Random) -> Sample:
    small = rng.random() < 0.5  # more than three numbers of two digits are beyond so small a model
    numbers = rng.sample(range(10), rng.choice((3, 3, 4, 5))) if small else rng.sample(range(100), rng.choice((2, 3)))
    shown = rng.choice((", ", ", ", " ", ",")).join(map(str, numbers))
    shown = f"[{shown}]" if "," in shown and rng.random() < 0.15 else shown
    key = f"list {sorted(numbers)[:3]}"
    kind = rng.randrange(10)
    if kind < 5:
        return turn(phrase(rng, rng.choice(SORT_UP), l=shown), _listed(sorted(numbers)), key)
    if kind == 5:
        return turn(phrase(rng, rng.choice(SORT_DOWN), l=shown), _listed(sorted(numbers, reverse=True)), key)
    if kind == 6:
        return turn(phrase_zh(rng, rng.choice(SORT_ZH), l=shown), _listed(sorted(numbers)), key)
    if kind == 7:
        return turn(phrase(rng, rng.choice(SMALLEST), l=shown), str(min(numbers)), key)
    return turn(phrase(rng, rng.choice(LARGEST), l=shown), str(max(numbers)), key)


COMPARE = ("Which is larger, {a} or {b}?", "which is bigger {a} or {b}", "What is greater: {a} or {b}?", "Is {a} or {b} larger?",
           "which number is larger, {a} or {b}?", "{a} or {b}, which is bigger?")
COMPARE_ZH = ("{a}和{b}哪个大？", "{a}和{b}哪个更大？", "{a}大还是{b}大？")
PARITY = ("Is {a} even or odd?", "is {a} odd or even", "Is {a} an even number?", "Is the number {a} even or odd?", "{a} even or odd?")
PRIME = ("Is {a} prime?", "is {a} a prime number", "Is {a} a prime?", "is {a} prime or not", "Is the number {a} prime?")
IN_WORDS = ("Write {a} in words.", "What is {a} in words?", "{a} in words", "write the number {a} as a word", "How do you write {a} in words?")


@task("compare_numbers", 2.5)
def compare_numbers(rng: random.Random) -> Sample:
    a, b = rng.sample(range(rng.choice((10, 100, 1000))), 2)
    kind = rng.randrange(7)
    if kind == 6:
        a = a % 100 + 1
        prime = a > 1 and all(a % d for d in range(2, a))
        return turn(phrase(rng, rng.choice(PRIME), a=a), f"{a} is {'prime' if prime else 'not prime'}.")
    if kind <= 1:
        return turn(phrase(rng, rng.choice(COMPARE), a=a, b=b), f"{max(a, b)} is larger than {min(a, b)}.", f"cmp {a} {b}")
    if kind == 2:
        return turn(phrase_zh(rng, rng.choice(COMPARE_ZH), a=a, b=b), f"{max(a, b)}比{min(a, b)}大。", f"cmp {a} {b}")
    if kind == 3:
        a %= 100
        return turn(phrase(rng, rng.choice(IN_WORDS), a=a), number_word(a), f"words {a}" if a > 20 else "")
    return turn(phrase(rng, rng.choice(PARITY), a=a), f"{a} is {'odd' if a % 2 else 'even'}.", f"parity {a}" if a > 20 else "")


# ---------------------------------------------------------------- units

# (plural, singular, other spellings, smaller unit, factor)
UNITS = (
    ("kilometers", "kilometer", "km", "meters", 1000), ("meters", "meter", "m", "centimeters", 100),
    ("centimeters", "centimeter", "cm", "millimeters", 10), ("kilograms", "kilogram", "kg", "grams", 1000),
    ("tons", "ton", "t", "kilograms", 1000), ("liters", "liter", "l", "milliliters", 1000),
    ("hours", "hour", "h", "minutes", 60), ("minutes", "minute", "min", "seconds", 60), ("days", "day", "days", "hours", 24),
    ("weeks", "week", "weeks", "days", 7), ("years", "year", "years", "months", 12), ("feet", "foot", "ft", "inches", 12),
)
SHORT = {"meters": "m", "centimeters": "cm", "millimeters": "mm", "grams": "g", "kilograms": "kg", "milliliters": "ml",
         "minutes": "min", "seconds": "sec"}
CONVERT = ("How many {v} are in {n} {u}?", "how many {v} in {n} {u}", "Convert {n} {u} to {v}.", "convert {n} {u} into {v}",
           "{n} {u} in {v}", "{n} {u} to {v}", "What is {n} {u} in {v}?", "How many {v} are {n} {u}?", "How many {v} are there in {n} {u}?",
           "{n} {u} = ? {v}", "How many {v} does {n} {u} have?", "what are {n} {u} in {v}?")
UNITS_ZH = (("公里", "米", 1000), ("米", "厘米", 100), ("厘米", "毫米", 10), ("公斤", "克", 1000), ("吨", "公斤", 1000), ("升", "毫升", 1000),
            ("小时", "分钟", 60), ("分钟", "秒", 60), ("天", "小时", 24), ("周", "天", 7), ("年", "个月", 12))
CONVERT_ZH = ("{n}{u}等于多少{v}？", "{n}{u}是多少{v}？", "{n}{u}有多少{v}？", "把{n}{u}换算成{v}")
NO_UNIT = ("miles", "pounds", "gallons", "yards", "ounces", "acres", "light years", "watts", "volts", "bytes", "parsecs", "knots")


@task("convert", 5)
def convert(rng: random.Random) -> Sample:
    if rng.random() < 0.25:
        return _celsius(rng) if rng.random() < 0.5 else _convert_zh(rng)
    plural, singular, short, small, factor = rng.choice(UNITS)
    n = rng.randint(1, 20 if factor in (60, 24, 7, 12) else 99)
    unit = rng.choice((singular if n == 1 else plural, singular if n == 1 else plural, short))
    shown = "a" if n == 1 and unit == singular and factor % 100 == 0 and rng.random() < 0.5 else n
    target = SHORT.get(small, small) if rng.random() < 0.25 else small
    text = phrase(rng, rng.choice(CONVERT), n=shown, u=unit, v=target)
    if rng.random() < 0.06:
        text = phrase(rng, rng.choice(CONVERT), n=n, u=rng.choice((plural, *NO_UNIT)), v=rng.choice(NO_UNIT))
        return turn(text, "Sorry, I do not know that conversion.")
    name = singular if n == 1 else plural
    if factor % 10 == 0 and factor != 60:
        return turn(text, f"{n} {name} = {n * factor} {small}", f"unit {n} {plural} {small}" if n > 3 else "")
    return turn(text, f"{n} {name} = {_steps(n, factor)} {small}", f"unit {n} {plural} {small}" if n > 3 else "")


def _steps(n: int, factor: int) -> str:
    """3 × 60 = 180, with the partial products of multiply() where there are some."""
    return work_mul(n, factor) if n > 1 else str(factor)


def _convert_zh(rng: random.Random) -> Sample:
    unit, small, factor = rng.choice(UNITS_ZH)
    n = rng.randint(1, 20 if factor in (60, 24, 7, 12) else 99)
    text = phrase_zh(rng, rng.choice(CONVERT_ZH), n=n, u=unit, v=small)
    value = str(n * factor) if factor % 10 == 0 and factor != 60 else _steps(n, factor)
    return turn(text, f"{n}{unit} = {value}{small}", f"unit {n} {unit} {small}" if n > 3 else "")


def _celsius(rng: random.Random) -> Sample:
    c = rng.randrange(0, 101, 5)
    text = phrase(rng, rng.choice(("Convert {c} degrees Celsius to Fahrenheit.", "{c} C in F", "What is {c} celsius in fahrenheit?",
                                   "{c} degrees celsius to fahrenheit", "how much is {c} °C in °F?")), c=c)
    return turn(text, f"{c} °C = {c * 9 // 5 + 32} °F")
