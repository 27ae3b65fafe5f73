#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares our tokenizer with Hugging Face `tokenizers` on generated strings.

    pytest test_tokenizer.py                        the small committed tokenizers of data/
    python3 test_tokenizer.py [--real DIR]          the same, or every tokenizer directory below DIR, with figures
    python3 test_tokenizer.py --time FILE --real DIR   speed on a text, beside `tokenizers`

The C program that answers is TOKENIZER_DRIVER, --driver, or tests/tokenizer/tokenizer_driver below TPSERVE_BUILD.  For every string: the ids are
equal, with and without special tokens and with added tokens read as text; the decoded text is equal, with and without
skipping special tokens; the streamed text equals the decoded; and where the tokenizer loses nothing, decoding gives back
the string (its NFC).  Byte strings that are no UTF-8 must be read as U+FFFD for every maximal ill-formed part.
"""
import argparse
import json
import os
import pathlib
import struct
import subprocess
import sys
import time

from strings import Generator, code_points

try:
    from tokenizers import Tokenizer
except ImportError:
    Tokenizer = None

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE / "data"
ADD_SPECIAL, PARSE_SPECIAL, SKIP_SPECIAL, DECODE_ONLY = 1, 2, 4, 8
STRINGS = int(os.environ.get("TOKENIZER_STRINGS", "20000"))
SHOWN = 3
GROUP = 256  # code points per string
SECONDS_PER_MB = 1.0
SANITIZED = 20.0  # how much slower an instrumented build may be


def find_driver():
    build = pathlib.Path(os.environ.get("TPSERVE_BUILD", HERE.parents[1] / "build"))
    return os.environ.get("TOKENIZER_DRIVER", str(build / "tests" / "tokenizer" / "tokenizer_driver"))


def instrumented(program):
    return b"__asan_init" in pathlib.Path(program).read_bytes()


class Driver:
    """The C tokenizer of one model directory behind a pipe."""

    def __init__(self, directory, program=None):
        self.program = program or find_driver()
        self.process = subprocess.Popen([self.program, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, flags, data):
        """(ids, decoded, streamed); None when the tokenizer refused."""
        self.process.stdin.write(struct.pack("<II", flags, len(data)) + data)
        self.process.stdin.flush()
        if self.number("<i") != 0:
            return None
        ids = list(struct.unpack(f"<{(n := self.number('<I'))}i", self.read(4 * n)))
        decoded = self.read(self.number("<I"))
        return ids, decoded, self.read(self.number("<I"))

    def read(self, n):
        data = self.process.stdout.read(n)
        if len(data) != n:
            raise RuntimeError(f"the driver ended with {self.process.wait()}")
        return data

    def number(self, kind):
        return struct.unpack(kind, self.read(4))[0]

    def encode(self, text, flags=PARSE_SPECIAL):
        return self.ask(flags, text.encode())[0]

    def cpu_seconds(self):
        """Processor time so far: what a busy machine cannot stretch."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.process.stdin.close()
        return self.process.wait()


class Family:
    """One tokenizer directory: the reference, the same without added tokens, and what it may lose."""

    def __init__(self, directory):
        path = pathlib.Path(directory) / "tokenizer.json"
        self.directory, self.name = directory, pathlib.Path(directory).name
        self.reference = Tokenizer.from_file(str(path))
        self.doc = json.loads(path.read_text(encoding="utf-8"))
        plain = {**self.doc, "added_tokens": [], "post_processor": None}
        self.plain = Tokenizer.from_str(json.dumps(plain))
        self.bos = self.bos_of_config()
        self.added = [t["content"] for t in self.doc["added_tokens"]]
        self.strips = any(t["lstrip"] or t["rstrip"] or t["single_word"] for t in self.doc["added_tokens"])
        self.odd = any(not t["content"].isascii() for t in self.doc["added_tokens"])
        step = self.doc["pre_tokenizer"]
        steps = step.get("pretokenizers", [step])
        self.prefix_space = any(s.get("add_prefix_space") for s in steps)
        self.lossless = len([t for t in self.doc["model"]["vocab"] if len(t) == 1]) >= 243

    def bos_of_config(self):
        """The id that add_bos_token puts in front where the post-processor adds none; `tokenizers` does not know it."""
        config = json.loads((pathlib.Path(self.directory) / "tokenizer_config.json").read_text(encoding="utf-8"))
        bos = config.get("bos_token") or ""
        bos = self.reference.token_to_id(bos if isinstance(bos, str) else bos["content"])
        return bos if config.get("add_bos_token") and bos not in self.reference.encode("").ids else None

    def ids_with_special(self, text):
        ids = self.reference.encode(text).ids
        return ids if self.bos is None or ids[:1] == [self.bos] else [self.bos, *ids]

    def expected_text(self, text):
        """What decode(encode(text)) must be; None where the tokenizer does not promise it."""
        if self.strips or self.prefix_space or self.odd or not self.lossless:
            return None
        return self.reference.normalizer.normalize_str(text) if self.reference.normalizer else text


class Tally:
    """Counts comparisons and keeps the first few that failed."""

    def __init__(self):
        self.done, self.failed, self.lines = {}, {}, []

    def check(self, kind, want, got, text):
        self.done[kind] = self.done.get(kind, 0) + 1
        if want != got:
            self.failed[kind] = self.failed.get(kind, 0) + 1
            if self.failed[kind] <= SHOWN:
                self.lines.append(f"{kind} of {text[:200]!r}: want {str(want)[:300]} got {str(got)[:300]}")

    def __str__(self):
        return "  ".join(f"{k} {self.failed.get(k, 0)}/{n}" for k, n in self.done.items())


def compare_text(family, driver, tally, text):
    data = text.encode()
    ids, decoded, streamed = driver.ask(PARSE_SPECIAL, data)
    want = family.reference.encode(text, add_special_tokens=False).ids
    tally.check("ids", want, ids, text)
    tally.check("decoded", family.reference.decode(want, skip_special_tokens=False).encode(), decoded, text)
    tally.check("streamed", decoded, streamed, text)
    expected = family.expected_text(text)
    if expected is not None:
        tally.check("round trip", expected.encode(), decoded, text)
    ids, decoded, streamed = driver.ask(ADD_SPECIAL | PARSE_SPECIAL | SKIP_SPECIAL, data)
    want = family.ids_with_special(text)
    tally.check("ids with special", want, ids, text)
    tally.check("decoded without special", family.reference.decode(want).encode(), decoded, text)
    tally.check("streamed without special", decoded, streamed, text)
    if any(t in text for t in family.added):
        tally.check("ids of plain text", family.plain.encode(text, add_special_tokens=False).ids, driver.ask(0, data)[0], text)


def compare(family, driver, count, seed=1):
    """Runs all comparisons of one tokenizer; returns the tally."""
    tally = Tally()
    generator = Generator(seed, family.added[:40])
    for text in generator.strings(count):
        compare_text(family, driver, tally, text)
    for data in generator.broken(max(count // 20, 100)):
        text = data.decode(errors="replace")
        ids = driver.ask(PARSE_SPECIAL, data)[0]
        tally.check("broken UTF-8", family.reference.encode(text, add_special_tokens=False).ids, ids, text)
    points = code_points()
    for form in ("%s", "a%sb", " %s1", "\u0301%s\u0316"):
        for i in range(0, len(points), GROUP):
            text = " ".join(form % c for c in points[i:i + GROUP])
            tally.check("every code point", family.reference.encode(text, add_special_tokens=False).ids, driver.encode(text), text)
    r, size = generator.r, family.reference.get_vocab_size()
    for _ in range(max(count // 20, 100)):
        ids = [r.randrange(size) for _ in range(r.randint(1, 40))]
        text, streamed = driver.ask(DECODE_ONLY, struct.pack(f"<{len(ids)}i", *ids))[1:]
        tally.check("random ids", family.reference.decode(ids, skip_special_tokens=False).encode(), text, str(ids))
        tally.check("random ids streamed", text, streamed, str(ids))
    return tally


HARD = {
    "one letter": lambda f: "a" * 1_000_000,
    "one space": lambda f: " " * 1_000_000,
    "spaces before a letter": lambda f: " " * 1_000_000 + "a",
    "no spaces": lambda f: "abcdefghij" * 100_000,
    "one mark": lambda f: "a" + "\u0301" * 500_000,
    "marks in falling order": lambda f: "a" + "\u0301\u0316" * 250_000,
    "line ends": lambda f: "\n" * 1_000_000,
    "digits": lambda f: "1234567890" * 100_000,
    "special tokens": lambda f: ((f.added or ["x"])[0] * 100_000)[:1_000_000],
    "cut special tokens": lambda f: ((f.added or ["xy"])[0][:-1] * 100_000)[:1_000_000],
    "apostrophes": lambda f: "'" * 1_000_000,
    "capitals": lambda f: "A" * 1_000_000,
    "Hangul jamo": lambda f: "\u1100\u1161\u11a8" * 110_000,
    "not UTF-8": lambda f: b"\xff" * 333_000,
}


def time_hard(family, driver):
    """Seconds of processor time for each megabyte that is made to be slow; decoding it twice is included."""
    out = {}
    for name, make in HARD.items():
        text = make(family)
        data = text if isinstance(text, bytes) else text.encode()
        start = driver.cpu_seconds()
        assert driver.ask(PARSE_SPECIAL, data) is not None, name
        out[name] = driver.cpu_seconds() - start
    return out


def directories(root):
    return sorted(p.parent for p in pathlib.Path(root).glob("*/tokenizer.json"))


def time_text(family, program, path):
    """(load s, MB/s of ours, MB/s of the reference on one thread)."""
    text = pathlib.Path(path).read_text(encoding="utf-8")
    runs = [subprocess.run([program, str(family.directory), "--time", path], check=True, capture_output=True, text=True)
            .stdout.split() for _ in range(3)]
    size = len(text.encode()) / 1e6
    reference = []
    for _ in range(3):
        start = time.monotonic()
        family.reference.encode(text, add_special_tokens=False)
        reference.append(time.monotonic() - start)
    return min(float(r[0]) for r in runs), size / min(float(r[1]) for r in runs), size / min(reference)


def slow_megabytes(family, driver):
    """Those of HARD that take too long; an instrumented build only has to end them."""
    limit = SECONDS_PER_MB * (SANITIZED if instrumented(driver.program) else 1)
    return {name: s for name, s in time_hard(family, driver).items() if s > limit}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--real", type=pathlib.Path, default=DATA, help="directory of tokenizer directories (default: data/)")
    p.add_argument("--driver", default=find_driver())
    p.add_argument("--strings", type=int, default=STRINGS)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--time", metavar="FILE", help="only measure: load, and MB/s on this text")
    p.add_argument("--hard", action="store_true", help="only measure the megabytes that are made to be slow")
    p.add_argument("--megabytes", action="store_true", help="after the comparison, also demand their speed")
    p.add_argument("names", nargs="*", help="directories below --real (default: all)")
    a = p.parse_args()
    if Tokenizer is None:
        print("skipped: the Python package tokenizers is not installed")
        sys.exit(77)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    failed = 0
    for directory in directories(a.real):
        if a.names and directory.name not in a.names:
            continue
        driver = Driver(directory, a.driver)
        try:
            driver.encode("x")
        except (RuntimeError, BrokenPipeError) as e:
            print(f"{directory.name:18} refused: {e}", flush=True)
            continue
        family = Family(directory)
        if a.time:
            print("{:18} load {:.3f} s  ours {:6.1f} MB/s  reference {:6.1f} MB/s".format(
                family.name, *time_text(family, a.driver, a.time)), flush=True)
        elif a.hard:
            print(f"{family.name:18}", "  ".join(f"{k} {s:.2f}" for k, s in time_hard(family, driver).items()), flush=True)
        else:
            start = time.monotonic()
            tally = compare(family, driver, a.strings, a.seed)
            print(f"{family.name:18} {tally}  {time.monotonic() - start:.0f} s", *tally.lines, sep="\n    ", flush=True)
            failed += sum(tally.failed.values())
            if a.megabytes and (slow := slow_megabytes(family, driver)):
                print(f"{family.name:18} too slow: {slow}", flush=True)
                failed += len(slow)
        driver.close()
    sys.exit(1 if failed else 0)


if "pytest" in sys.modules:
    import pytest

    @pytest.fixture(scope="module", params=directories(DATA), ids=lambda p: p.name)
    def pair(request):
        if Tokenizer is None:
            pytest.skip("the Python package tokenizers is not installed")
        driver = Driver(request.param)
        yield Family(request.param), driver
        assert driver.close() == 0

    def test_equals_reference(pair):
        tally = compare(*pair, STRINGS)
        assert not tally.failed, "\n".join([str(tally), *tally.lines])

    def test_a_megabyte_takes_a_second(pair):
        assert not slow_megabytes(*pair)


if __name__ == "__main__":
    main()
