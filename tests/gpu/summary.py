#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""summary.py RESULTS.jsonl - the figures of tests/gpu/run.sh as Markdown tables: measured, of its limit, predicted."""
import json
import pathlib
import sys

HIDDEN = {"stage", "op", "us", "gbps", "tflops", "bound", "percent", "predicted_us"}
# What the project promises on an H100 or H200: operation, condition on a row, least percentage of the limit.
TARGETS = [
    ("decode products, at most 32 rows", lambda r: r["op"] == "gemm" and r["m"] <= 32 and r["bound"] == "memory", 85),
    ("decode attention, 8k context", lambda r: r["op"] == "decode_attention" and r["ctx"] == 8192 and r["seqs"] >= 8, 80),
    ("prefill attention", lambda r: r["op"] == "prefill_attention" and r["rows"] >= 2048, 60),
]


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


def of_operation(op, rows):
    """One table per operation: its sizes, then the figures."""
    sizes = [key for key in rows[0] if key not in HIDDEN]
    head = sizes + ["us", "predicted us", "GB/s", "TFLOP/s", "bound by", "% of limit"]
    cells = ([r[s] for s in sizes] + [r["us"], r["predicted_us"], r["gbps"], r["tflops"], r["bound"], r["percent"]] for r in rows)
    yield f"\n### {op}\n"
    yield from table(head, cells)


def targets(rows):
    yield "\n### Targets\n"
    cells = []
    for name, applies, least in TARGETS:
        found = sorted(r["percent"] for r in rows if "percent" in r and applies(r))
        if found:
            reached = sum(p >= least for p in found)
            cells.append((name, f"{least} %", f"{found[0]} %", f"{found[len(found) // 2]} %", f"{reached} of {len(found)}"))
        else:
            cells.append((name, f"{least} %", "not measured", "", ""))
    yield from table(("what", "target", "worst", "median", "shapes that reach it"), cells)


def steps(rows):
    """Layers of a decode step as one graph, beside the sum of their kernels alone."""
    yield "\n### Between the kernels (target: 5 %)\n"
    head = ("model", "tp", "m", "ctx", "programmatic", "layer_us", "sum_us", "overhead_percent")
    yield from table(head, ([r[key] for key in head] for r in rows) if rows else [("not measured", *[""] * (len(head) - 1))])


def main():
    rows = [json.loads(line) for line in pathlib.Path(sys.argv[1]).read_text().splitlines()]
    for r in rows:
        if r["op"] == "limits":
            print(f"{r['device']} (sm_{r['cc']}, {r['sms']} SMs, driver {r['driver']}): copy {r['copy_gbps']} GB/s"
                  f" (datasheet {r['datasheet_gbps']}), BF16 product {r['bf16_tflops']} TFLOP/s\n")
            break
    stages = [(r["stage"], "ok" if r["rc"] == 0 else f"failed ({r['rc']})", r["seconds"]) for r in rows if r["op"] == "stage"]
    print("\n".join(table(("stage", "result", "s"), stages)))
    timed = [r for r in rows if "percent" in r]
    print("\n".join(steps([r for r in rows if r["op"] == "layer"])))
    print("\n".join(targets(timed)))
    for op in dict.fromkeys(r["op"] for r in timed):
        print("\n".join(of_operation(op, [r for r in timed if r["op"] == op])))


if __name__ == "__main__":
    main()
