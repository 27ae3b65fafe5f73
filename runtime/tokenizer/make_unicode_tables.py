#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes unicode_tables.c: where Hugging Face `tokenizers` and our libraries know different versions of Unicode.

    pip install tokenizers unicodedata2
    python3.11 make_unicode_tables.py > unicode_tables.c

Lists made by asking `tokenizers` itself:
  nfc_joins  characters that its NFC (Unicode 9 tables) may change or attach to the character before them; every other
             character starts a stretch of text that normalises by itself;
  nfc_inert  characters that a younger NFC reorders or composes and that one leaves alone;
  class      characters whose general category in its regular expressions (Oniguruma) is not the one of Unicode 14,
             which PCRE2 10.42 has, and U+180E, white space for PCRE2 only.  Each range names a stand-in, shown to PCRE2
             in its place: the nearest character of the right category and the same length in UTF-8.  Nearest, because
             patterns also name ranges of code points.
A fourth is the pattern of its Digits step, which has tables of its own (Rust's).
Python 3.11 is needed for its Unicode 14 tables; unicodedata2 lists the marks of the newest Unicode.
"""
import unicodedata
from itertools import groupby

import tokenizers
import unicodedata2 as newest
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Cf".split()
# Cased letters stand in from afar: DeepSeek's pattern lists the cased letters of an old Unicode, and these are not among them.
CASED = {("Lu", 3): 0xA7B3, ("Lu", 4): 0x1D400, ("Ll", 3): 0xA7B5, ("Ll", 4): 0x1D41A}
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
NFC, NFD = normalizers.NFC(), normalizers.NFD()


def members(category):
    """Code points that the regular expressions of `tokenizers` count to a category."""
    split = pre_tokenizers.Split(Regex(r"\p{%s}+" % category), "removed", invert=True)
    return {ord(c) for piece, _ in split.pre_tokenize_str("".join(map(chr, POINTS))) for c in piece}


def digits():
    """Code points that its Digits step isolates."""
    pieces = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str("aa".join(map(chr, POINTS)))
    return {ord(piece) for piece, _ in pieces if len(piece) == 1}


def reorders(c):
    """Whether `tokenizers` knows c as a combining mark: it then changes places with one of another class."""
    return any(NFD.normalize_str(text) != text for m in "\u0316\u0301\u0345\u05b0\u302a"
               for text in ("a" + chr(c) + m, "a" + m + chr(c)) if newest.combining(m) != newest.combining(chr(c)))


def nfc_lists():
    joins = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}
    inert = set()
    for c in POINTS:
        text = chr(c)
        if newest.combining(text):
            (joins if reorders(c) else inert).add(c)
        elif NFC.normalize_str(text) != text:
            joins.add(c)
        parts = newest.decomposition(text)
        if parts and not parts.startswith("<") and len(parts.split()) == 2:
            a, b = (chr(int(p, 16)) for p in parts.split())
            if NFC.normalize_str(a + b) == text:
                joins.add(ord(b))
            elif newest.normalize("NFC", a + b) == text:
                inert |= {c, ord(a), ord(b)}
    return sorted(joins), sorted(inert - joins)


def class_list():
    """(first, last, stand-in) for every run of characters that changed to one category."""
    rows = [(0x180E, 0x180E, 0x200B)]
    for category in CATEGORIES:
        found = members(category)
        known = sorted(c for c in found if unicodedata.category(chr(c)) == category)
        for first, last in ranges(sorted(found - set(known))):
            size = len(chr(first).encode())
            assert size == len(chr(last).encode())
            near = min((c for c in known if len(chr(c).encode()) == size), key=lambda c: abs(c - first))
            rows.append((first, last, CASED.get((category, size), near)))
    return sorted(rows)


def ranges(points):
    for _, run in groupby(enumerate(points), lambda p: p[1] - p[0]):
        run = [c for _, c in run]
        yield run[0], run[-1]


def table(name, kind, rows, width=100):
    print(f"const {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        cell = " {" + ", ".join(f"0x{c:x}" for c in row) + "},"
        if len(line) + len(cell) > width:
            print(line)
            line = "   "
        line += cell
    print(line + f"\n}};\nconst size_t {name}_n = TP_ARRAY_LEN({name});")


def main():
    assert unicodedata.unidata_version == "14.0.0", "run with Python 3.11: PCRE2 10.42 has the tables of Unicode 14"
    joins, inert = nfc_lists()
    classes = class_list()
    print("/* SPDX-License-Identifier: Apache-2.0 */\n/* unicode_tables.c - made by make_unicode_tables.py; do not edit.\n *\n"
          f" * Differences between tokenizers {tokenizers.__version__} and Unicode {unicodedata.unidata_version} (PCRE2) or"
          f" {newest.unidata_version} (marks): {len(joins)} code points that NFC joins\n"
          f" * or changes, {len(inert)} that it leaves alone though newer tables do not, {sum(b - a + 1 for a, b, _ in classes)} of another category.\n"
          " */\n#include \"runtime/tokenizer/unicode.h\"\n\n/* clang-format off */")
    table("rt_unicode_nfc_joins", "rt_unicode_range", ranges(joins))
    print()
    table("rt_unicode_nfc_inert", "rt_unicode_range", ranges(inert))
    print()
    table("rt_unicode_class", "rt_unicode_stand_in", classes)
    more = "".join(f"\\\\x{{{a:x}}}-\\\\x{{{b:x}}}" for a, b in ranges(sorted(digits() - members("N"))))
    print(f'\nconst char rt_unicode_digit_pattern[] = "[\\\\p{{N}}{more}]";')


main()
