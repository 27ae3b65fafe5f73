#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""summary_selftest.py - scripts/summary.py must count what ctest and pytest write, and fail when nothing passed."""
import pathlib
import subprocess
import sys
import tempfile

SUMMARY = pathlib.Path(__file__).resolve().parents[3] / "scripts" / "summary.py"

CTEST = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="Linux" tests="4" failures="1" disabled="0" skipped="1">
<testcase name="a" classname="a" status="run"><system-out>[  PASSED  ] 3 test(s).
[  SKIPPED ] 2 test(s), listed below:
</system-out></testcase>
<testcase name="b" classname="b" status="fail"><failure message="Failed"/><system-out/></testcase>
<testcase name="c" classname="c" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/></testcase>
<testcase name="d" classname="d" status="run"><system-out/></testcase>
</testsuite>"""
PYTEST = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4">
<testcase classname="t" name="ok"/><testcase classname="t" name="bad"><failure message="x"/></testcase>
<testcase classname="t" name="broken"><error message="x"/></testcase>
<testcase classname="t" name="later"><skipped message="no such machine"/></testcase>
</testsuite></testsuites>"""
NOTES = "lint-files passed 1\nlint-names failed 1\n"


def run(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (pathlib.Path(folder) / name).write_text(text)
        done = subprocess.run([sys.executable, str(SUMMARY), folder], capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines()[-1]


def expect(files, want):
    got = run(files)
    if got != want:
        sys.exit(f"{sorted(files)}: expected {want}, got {got}")


expect({"ctest-x.xml": CTEST}, (1, "2 passed, 1 failed, 3 skipped"))
expect({"pytest-x.xml": PYTEST}, (1, "1 passed, 2 failed, 1 skipped"))
expect({"ctest-x.xml": CTEST, "pytest-x.xml": PYTEST, "notes.txt": NOTES}, (1, "4 passed, 4 failed, 4 skipped"))
expect({"notes.txt": "lint-files passed 1\n"}, (0, "1 passed, 0 failed, 0 skipped"))
expect({"notes.txt": "x skipped 1\n"}, (1, "0 passed, 0 failed, 1 skipped"))
print("summary.py: 5 cases")
