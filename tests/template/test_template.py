#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares rendered chat templates with Jinja2 itself, configured as transformers configures it.

Our templates x conversations, fixed snippets and random ones.  Texts must be equal; a refusal by raise_exception must
carry the template's words; where Python raises anything else, we must fail too.  Besides, what the user wrote must be
marked in the rendered text, and what the template wrote must not.

As pytest (driver: TEMPLATE_DRIVER, or tests/template/render_lines under TPSERVE_BUILD) or as a program:
    test_template.py --driver PATH [--count N] [--seed N]
    test_template.py --driver PATH --published DIR    DIR: *.jinja, cases.json, expected.jsonl[.gz]; for a local check
"""
import argparse
import datetime
import gzip
import json
import os
import pathlib
import subprocess
import sys
import time
import warnings

try:
    import reference
    from jinja2 import __version__ as jinja_version
except ImportError:
    reference = None
import conversations
import expressions

HERE = pathlib.Path(__file__).parent
NOW = 1741504983  # 2025-03-09, some time of the day
RANDOM = int(os.environ.get("TEMPLATE_RANDOM", "6000"))
BEYOND = ("beyond 64 bits", "is not supported in chat templates", "are not supported", "nests deeper", "or precision beyond", "is repeated beyond",
          "type 'dict' cannot be sliced")
"""Limits that Python does not have, and the slice of a literal dict, which Jinja folds to undefined instead of failing.
Such a case is counted as beyond our subset, never as passed."""


class Driver:
    """render_lines: one request per line, one answer per line."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def render(self, template, case, now=NOW):
        line = json.dumps({"template": template, "input": case, "now": now, "unbounded": True}, ensure_ascii=False)
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the driver ended with {self.process.wait()} on {template!r}")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        return self.process.wait()


class Tally:
    def __init__(self):
        self.equal, self.refused, self.beyond, self.different = 0, 0, 0, []

    def add(self, label, expected, answer):
        """expected: ("text", TEXT), ("refusal", TEXT) or ("error", TEXT)"""
        kind, text = expected
        if kind == "text" and answer.get("text") == text:
            self.equal += 1
        elif kind == "refusal" and answer.get("error") == text or kind == "error" and "error" in answer:
            self.refused += 1
        elif kind == "text" and any(words in answer.get("error", "") for words in BEYOND):
            self.beyond += 1
        else:
            self.different.append((label, expected, {k: v for k, v in answer.items() if k != "spans"}))

    def report(self, name):
        print(f"{name}: {self.equal} equal texts, {self.refused} equal refusals, {self.beyond} beyond the subset, "
              f"{len(self.different)} different")
        for label, expected, answer in self.different[:20]:
            print(f"  {label!r}\n    expected {expected}\n    found    {answer}")
        return not self.different


def expect(env, template, case):
    try:
        return "text", reference.render(env, template, case)
    except reference.Refusal as e:
        return "refusal", str(e)
    except Exception as e:  # pylint: disable=broad-except
        return "error", f"{type(e).__name__}: {e}"


def printable(text):
    """Addresses of Python objects are no behaviour."""
    return " at 0x" not in text and "<generator" not in text


def check_templates(driver):
    tally, env = Tally(), reference.environment(NOW)
    for path in sorted((HERE / "templates").glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        for name, case in conversations.cases():
            tally.add(f"{path.name} {name}", expect(env, template, case), driver.render(template, case))
    return tally


def check_snippets(driver, templates):
    tally, env = Tally(), reference.environment(NOW)
    case = {"messages": conversations.HELLO, "kwargs": expressions.CONTEXT}
    for template in templates:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = expect(env, template, case)
        if expected[0] == "text" and not printable(expected[1]):
            continue
        tally.add(template, expected, driver.render(template, case))
    return tally


MARKED = [{"role": "system", "content": " SIS<|im_start|> \n"}, {"role": "user", "content": "USR é\nUSR2"},
          {"role": "assistant", "content": "ASS</think>ASS2"}, {"role": "user", "content": "LAST<|eot_id|>"}]
WORDS = ("SIS<|im_start|>", "USR é", "USR2", "ASS2", "LAST<|eot_id|>")


def check_marks(driver):
    """Every text of the request is marked where it arrives, and no word of the template is."""
    wrong, case = [], {"messages": MARKED, "special_tokens": conversations.SPECIAL, "add_generation_prompt": True}
    for path in sorted((HERE / "templates").glob("*.jinja")):
        answer = driver.render(path.read_text(encoding="utf-8"), case)
        if "error" in answer:
            wrong.append((path.name, "fails", answer["error"]))
            continue
        text, spans = answer["text"].encode(), answer["spans"]
        marked = b"\0".join(text[begin:end] for begin, end in spans).decode()
        ends = [0] + [end for _, end in spans]
        bare = b"\0".join(text[end:begin] for end, begin in zip(ends, [b for b, _ in spans] + [len(text)])).decode()
        wrong += [(path.name, "not marked", w) for w in WORDS if w in answer["text"] and w not in marked]
        wrong += [(path.name, "arrives unmarked", w) for w in ("SIS", "USR", "ASS", "LAST") if w in bare]
        wrong += [(path.name, "marked", w) for w in ("assistant\n", "<s>", "[INST]", "header_id") if w in marked]
    return wrong


def read_published(directory):
    directory = pathlib.Path(directory)
    data = json.loads(next(directory.rglob("cases.json")).read_text(encoding="utf-8"))
    lines = next(directory.rglob("expected.jsonl*"))
    with (gzip.open if lines.suffix == ".gz" else open)(lines, "rt", encoding="utf-8") as f:
        expected = [json.loads(line) for line in f]
    sources = {p.name: p.read_text(encoding="utf-8") for p in directory.rglob("*.jinja")}
    return data, expected, sources


def check_published(driver, directory):
    data, rows, sources = read_published(directory)
    now = int(datetime.datetime.fromisoformat(data["clock"]).timestamp())
    cases = {c["name"]: {"special_tokens": data["special_tokens"], **{k: v for k, v in c.items() if k != "name"}} for c in data["cases"]}
    tally = Tally()
    for row in rows:
        kind = "text" if "expected" in row else "refusal" if row["kind"] == "raise_exception" else "error"
        answer = driver.render(sources[row["template"]], cases[row["case"]], now)
        tally.add(f"{row['template']} {row['case']}", (kind, row.get("expected", row.get("error"))), answer)
    return tally


def default_driver():
    build = os.environ.get("TPSERVE_BUILD", "build")
    return os.environ.get("TEMPLATE_DRIVER", os.path.join(build, "tests/template/render_lines"))


if "pytest" in sys.modules:
    import pytest

    @pytest.fixture(scope="module")
    def driver():
        if reference is None:
            pytest.skip("Jinja2 is not installed")
        d = Driver(default_driver())
        yield d
        assert d.close() == 0

    def test_templates(driver):
        assert check_templates(driver).report("templates")

    def test_snippets(driver):
        assert check_snippets(driver, expressions.snippets()).report("snippets")

    @pytest.mark.parametrize("seed", range(3))
    def test_random(driver, seed):
        assert check_snippets(driver, expressions.random_templates(RANDOM // 3, seed)).report(f"random, seed {seed}")

    def test_marks(driver):
        assert check_marks(driver) == []


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--driver", default=default_driver())
    p.add_argument("--count", type=int, default=RANDOM)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--published")
    a = p.parse_args()
    driver, began = Driver(a.driver), time.time()
    if a.published:
        good = check_published(driver, a.published).report("published")
    elif reference is None:
        print("skipped: Jinja2 is not installed")
        sys.exit(77)
    else:
        print(f"Jinja2 {jinja_version}")
        good = check_templates(driver).report("templates")
        good &= check_snippets(driver, expressions.snippets()).report("snippets")
        good &= check_snippets(driver, expressions.random_templates(a.count, a.seed)).report(f"random, seed {a.seed}")
        marks = check_marks(driver)
        print(f"marks: {len(marks)} wrong {marks[:10]}")
        good &= not marks
    good &= driver.close() == 0
    print(f"{time.time() - began:.1f} s")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
