#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares base/json.c with Python's json module on generated and damaged texts.

Usage: json_differential.py PATH/TO/json_echo [SEED].  Python is made as strict as RFC 8259 first: no NaN, no
repeated names, no NUL, no lone surrogates, UTF-8 only, 64 levels.  Numbers are compared by their digits.
"""
import json
import random
import struct
import subprocess
import sys

DEPTH_MAX = 64
N_CASES = 20000

HAND_WRITTEN = [
    b"", b" ", b"null", b"nul", b"true ", b"tru", b"-", b"-0", b"0", b"00", b"01", b"1.", b".5", b"1.5e", b"1e+",
    b"1E-2", b"+1", b"1e999", b"-1e999", b"9007199254740993", b"1" * 70, b"[" + b"9" * 200 + b"]",
    b'{"a":' + b"0." + b"1" * 300 + b',"b":"' + b"7" * 100 + b'\\"' + b"8" * 100 + b'"}',
    b'"\\u0000"', b'"\x00"', b'"\\ud800"', b'"\\udc00"', b'"\\ud83d\\ude00"', b'"\\ud83dx"', b'"\\u12"', b'"\\x"',
    b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe4\xbd\xa0"', b'"\xff"', b"\xef\xbb\xbf1",
    b'"\t"', b'"\x7f"', b"[1,]", b"[,1]", b"[1 2]", b"{}", b"[]", b"{,}", b'{"a"}', b'{"a":}', b'{"a":1,}',
    b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b'{"a":{"a":1},"b":{"a":1}}', b'[{"a":1},{"a":1}]', b"{1:2}",
    b"NaN", b"Infinity", b"[NaN]", b"'a'", b"1 2", b"[1]]", b"{}}", b"\x0c1", b"\xc2\xa01", b"[" * 64 + b"]" * 64,
    b"[" * 65 + b"]" * 65, b'{"a":' * 64 + b"1" + b"}" * 64, b'{"a":' * 65 + b"1" + b"}" * 65, b"[" * 100000,
    b'"' + b"\\" * 3 + b'"', b'"abc', b'"abc\\', b'"\\u', b'{"":1}', b'{"":1,"":2}', b"/**/1", b"\x001", b"1\x00",
]


class Refused(Exception):
    pass


class Digits(str):
    """A number, kept as it was written."""


def no_duplicates(pairs):
    names = [k for k, _ in pairs]
    if len(set(names)) != len(names):
        raise Refused("duplicate")
    return dict(pairs)


def refuse_constant(_):
    raise Refused("constant")


def check(value, depth):
    if isinstance(value, (list, dict)):
        if depth == DEPTH_MAX:
            raise Refused("depth")
        for item in value if isinstance(value, list) else list(value) + list(value.values()):
            check(item, depth + 1)
    elif isinstance(value, str) and not isinstance(value, Digits):
        value.encode("utf-8")  # a lone surrogate raises
        if "\0" in value:
            raise Refused("NUL")


def expected(text):
    """The value that a strict parser sees, or None when it must refuse."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=no_duplicates, parse_int=Digits,
                           parse_float=Digits, parse_constant=refuse_constant)
        check(value, 0)
        return (value,)
    except (Refused, ValueError, RecursionError):
        return None


def compact(value):
    if isinstance(value, Digits):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(compact_string(k) + ":" + compact(v) for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(compact(v) for v in value) + "]"
    return compact_string(value) if isinstance(value, str) else json.dumps(value)


def compact_string(s):
    return json.dumps(s, ensure_ascii=False)


def random_string(rng):
    alphabet = ["a", "b", "key", "\u00e9", "\u4f60", "\U0001f600", "\n", '"', "\\", "/", "\u007f", "\u0001", "\u2028"]
    return "".join(rng.choice(alphabet) for _ in range(rng.randrange(6)))


def random_number(rng):
    kinds = [
        lambda: rng.randrange(-1000, 1000),
        lambda: rng.randrange(-2**70, 2**70),
        lambda: rng.uniform(-1e6, 1e6),
        lambda: rng.uniform(-1, 1) * 10 ** rng.randrange(-320, 300),
    ]
    return rng.choice(kinds)()


def random_value(rng, depth):
    kind = rng.randrange(8 if depth < 6 else 5)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind <= 2:
        return random_number(rng)
    if kind <= 4:
        return random_string(rng)
    if kind <= 6:
        return {random_string(rng): random_value(rng, depth + 1) for _ in range(rng.randrange(5))}
    return [random_value(rng, depth + 1) for _ in range(rng.randrange(5))]


def damage(rng, text):
    data = bytearray(text)
    pool = b'{}[],:"\\0123456789.eE+-truefalsn \t\n\x00\x1f\x7f\x80\xc3\xa9\xed\xa0\xf0u'
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        action = rng.randrange(4)
        if action == 0:
            data[at:at] = bytes([rng.choice(pool)])
        elif action == 1 and at < len(data):
            del data[at]
        elif action == 2 and at < len(data):
            data[at] = rng.choice(pool)
        else:
            end = min(len(data), at + rng.randrange(1, 12))
            data[at:at] = data[at:end]
    return bytes(data)


def generate(rng):
    yield from HAND_WRITTEN
    for i in range(N_CASES):
        text = json.dumps(random_value(rng, 0), ensure_ascii=rng.random() < 0.5,
                          indent=rng.choice([None, None, 1])).encode("utf-8")
        yield text if i % 3 == 0 else damage(rng, text)


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 20240229
    cases = list(generate(random.Random(seed)))
    data = b"".join(struct.pack("<I", len(c)) + c for c in cases)
    run = subprocess.run([sys.argv[1]], input=data, stdout=subprocess.PIPE, check=True)
    # A key or message may hold a quoted line separator, but never a raw line feed.
    answers = run.stdout.decode("utf-8").split("\n")[:-1]
    if len(answers) != len(cases):
        sys.exit(f"{len(cases)} texts, but {len(answers)} answers")
    bad = accepted = 0
    for text, answer in zip(cases, answers):
        want = expected(text)
        ok = answer.startswith("ok ")
        accepted += ok
        if (want is not None) != ok:
            bad += 1
            print(f"{'accepted' if ok else 'refused'} against Python: {text[:200]!r}: {answer[:200]}")
        elif ok:
            got = json.loads(answer[3:], parse_int=Digits, parse_float=Digits)
            if compact(got) != compact(want[0]):
                bad += 1
                print(f"different value: {text[:200]!r}: {answer[:200]}")
    print(f"seed {seed}: {len(cases)} texts, {accepted} accepted, {bad} differences")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
