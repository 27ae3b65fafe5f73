# SPDX-License-Identifier: Apache-2.0
"""Runs the fire programs one after the other and prints all verdicts again at the end (make fire).

FIRE      which: default "disconnects notice slow slowhttp proxy connections fds streams overload tokens"; soak takes half an hour
FIRE_NICE niceness of the servers, where others use the machine too
"""

import os
import pathlib
import subprocess
import sys

PROGRAMS = "disconnects notice slow slowhttp proxy connections fds streams overload tokens"


def main():
    here, verdicts, missed = pathlib.Path(__file__).parent, [], 0
    for name in os.environ.get("FIRE", PROGRAMS).split():
        print(f"\n== {name}", flush=True)
        with subprocess.Popen([sys.executable, "-u", str(here / f"{name}.py")], stdout=subprocess.PIPE, text=True) as p:
            lines = []
            for line in p.stdout:
                print(line, end="", flush=True)
                lines.append(line.rstrip())
        missed += p.returncode != 0
        verdicts += [f"{name:12} {x[2:]}" for x in lines if x.startswith(("  ok ", "  MISS "))]
        if p.returncode not in (0, 1):
            verdicts.append(f"{name:12} MISS ended with {p.returncode}")
    print("\n== summary")
    print("\n".join(verdicts))
    print(f"{sum(' MISS ' in v for v in verdicts)} of {len(verdicts)} bounds missed")
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
