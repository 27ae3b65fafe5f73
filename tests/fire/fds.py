# SPDX-License-Identifier: Apache-2.0
"""A server that may open few files (ulimit -n 64) and 200 clients that all want in.

Accepting pauses while there are too many, without using up a core or filling the log, and goes on when some have gone.
"""

import argparse
import time

from common import GET_HEALTH, Job, Verdict, connect, read_answer


def asks(port, timeout):
    """Status of /health on a new connection, None when there is no answer in time."""
    try:
        with connect(port, GET_HEALTH, timeout=timeout) as s:
            return read_answer(s)[0]
    except OSError:
        return None


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--files", type=int, default=64, help="limit of open files (default 64)")
    p.add_argument("-n", type=int, default=200, help="clients (default 200)")
    a = p.parse_args()
    v = Verdict(f"{a.files} files, {a.n} clients")
    with Job(files=a.files) as job:
        lines = len(job.log().splitlines())
        base = job.sample()
        sockets = [connect(job.port, GET_HEALTH) for _ in range(a.n)]
        time.sleep(2)
        full = job.sample()
        cpu, began = job.cpu_seconds(), time.monotonic()
        time.sleep(5)
        seconds = time.monotonic() - began
        cpu = (job.cpu_seconds() - cpu) / seconds
        added = len(job.log().splitlines()) - lines
        print(f"descriptors: {base['fds']} before, {full['fds']} with {a.n} clients; {added} lines in the log in 7 s")
        for line in job.log().splitlines()[lines:][:3]:
            print(" ", line)
        v.at_most("CPU while accepting pauses", 100 * cpu, 5, "% of a core")
        v.at_most("lines in the log in 7 s", added, 8)
        v.at_least("lines in the log that say so", added, 1)
        answered = 0
        for s in sockets:
            s.settimeout(0.01)
            try:
                answered += s.recv(1) != b""
            except OSError:
                pass
        v.at_least("clients that were answered at once", answered, 4)
        for s in sockets:
            s.close()
        began = time.monotonic()
        while asks(job.port, 1) != 200 and time.monotonic() - began < 20:
            pass
        v.at_most("recovered after", time.monotonic() - began, 2, "s")
        v.equal("a completion afterwards", job.server.post("/v1/completions", {"prompt": "hi", "max_tokens": 1})[0], 200)
        time.sleep(0.5)
        v.at_most("descriptors left afterwards", job.sample()["fds"] - base["fds"], 2)
    raise SystemExit(v.finish())


if __name__ == "__main__":
    main()
