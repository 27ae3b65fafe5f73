#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""summary.py DIR - adds up the reports of one test run and prints "N passed, N failed, N skipped".

DIR holds JUnit files of ctest (one case per program) and pytest (one per test), and notes.txt with lines
"NAME passed|failed|skipped COUNT".  Single cmocka tests that a passing program skipped count as skipped, too.
"""
import pathlib
import re
import sys
import xml.etree.ElementTree as ET

CMOCKA_SKIPPED = re.compile(r"^\[  SKIPPED \] (\d+) test\(s\)", re.M)


def read_junit(path):
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failed = []
    for case in ET.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            counts["failed"] += 1
            failed.append(f"{case.get('classname', '')} {case.get('name', '')}".strip())
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            counts["skipped"] += 1
        else:
            counts["passed"] += 1
            out = case.findtext("system-out") or ""
            counts["skipped"] += sum(int(n) for n in CMOCKA_SKIPPED.findall(out))
    return counts, failed


def read_notes(path):
    for line in path.read_text().splitlines():
        name, verdict, count = line.rsplit(" ", 2)
        counts = {"passed": 0, "failed": 0, "skipped": 0}
        counts[verdict] = int(count)
        yield counts, [name] if verdict == "failed" and int(count) else []


def main():
    results = pathlib.Path(sys.argv[1])
    total = {"passed": 0, "failed": 0, "skipped": 0}
    parts = [(p.stem, *read_junit(p)) for p in sorted(results.glob("*.xml"))]
    if (results / "notes.txt").exists():
        parts += [("checks", *part) for part in read_notes(results / "notes.txt")]
    for name, counts, failed in parts:
        if name != "checks":
            print(f"{name}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
        for what in failed:
            print(f"FAILED {name}: {what}")
        for verdict, count in counts.items():
            total[verdict] += count
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    sys.exit(1 if total["failed"] or not total["passed"] else 0)


if __name__ == "__main__":
    main()
