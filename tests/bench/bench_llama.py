#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Speed on this CPU against its limits and against llama.cpp, on the same weights in the same run; one table.

    bench_llama.py [--build DIR] [--cache DIR] [--shape 0.5b|1.5b] [--rounds N] [--only NAME,...] [--json FILE]

Everything is measured once per round, ours and theirs in turn, and the table has the medians over the rounds: other work
on the machine disturbs both alike.  Of the limits the best of all rounds counts: they are what the machine can do.
Where a program gives several samples, the round counts their median; only the matrix products count in the fastest
sample, because their limit, the peak, is the fastest of a few short loops.

    limits   memory bandwidth and peaks                    (bench_machine)
    model    prefill of 512, decode of 1 and of 16         (bench_model; llama-bench, llama-batched-bench)
    start    exec to the first streamed token over HTTP    (tpserve; llama-server)
    ranks    2 ranks x 1 thread, 4 ranks on these cores    (bench_model)
    context  attention's part of a decode step             (bench_model)
    comm     all-reduce over shared memory                 (bench_comm; MPI_Allreduce)

llama.cpp comes from PyPI as source and is built for this machine; that and the checkpoints stay in the cache folder.
"""
import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import llama_peer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "harness"))
from ports import free_port  # noqa: E402

CONTEXT, TOKENS, PREFILL, BATCH = 128, 32, 512, 16
CONTEXTS = [512, 1024, 2048, 4096, 8192, 16384]
PROMPT = [1000 + 37 * i % 5000 for i in range(32)]
LIMITS = ("read_gbps", "fp32_gflops", "bf16_gflops", "int8_gops", "amx_bf16_gflops")
LLAMA_CONTEXT = CONTEXT - TOKENS // 2  # the middle of what it generates is at our context


def environment():
    env = dict(os.environ)
    if os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return env


def output(*command):
    done = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env=environment(), text=True)
    return done.stdout


class Bench:
    def __init__(self, args):
        self.bin = args.build / "tests" / "bench"
        self.tpserve = args.build / "tpserve"
        self.llama, self.model, self.gguf = llama_peer.prepare(args.cache, args.shape, os.cpu_count())
        self.weights = (self.model / "model.safetensors").stat().st_size
        self.threads = len(os.sched_getaffinity(0))
        self.values = {}  # name -> one value per round

    def put(self, name, value):
        self.values.setdefault(name, []).append(value)

    def get(self, name):
        if name not in self.values:
            return None
        limit = name.startswith(LIMITS)
        return max(self.values[name]) if limit else statistics.median(self.values[name])

    # ---- what is measured ----
    def ours(self, *options, ranks=1, threads=None):
        start = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", ranks] if ranks > 1 else []
        return json.loads(output(*start, self.bin / "bench_model", self.model, "--json", "--threads",
                                 threads or self.threads, *options))

    def limits(self):
        m = json.loads(output(self.bin / "bench_machine"))
        for name in LIMITS:
            self.put(f"{name} 1", m[name][0])
            self.put(name, m[name][1])

    def model_ours(self):
        prefill, one, many = self.ours("--profile", "--ms", 2000, "--steps", TOKENS, "--prefill", PREFILL,
                                       "--batches", f"1,{BATCH}", "--contexts", CONTEXT)
        self.put("prefill", prefill["median_tokens_per_s"])
        self.put("decode 1", one["median_tokens_per_s"])
        self.put("decode 16", many["median_tokens_per_s"])
        flops = us = 0
        for name, part in prefill["parts"].items():
            if name.startswith("gemm") and part["calls"] > 1:  # not the head, which has one row
                n, k = map(int, name.split()[1].split("x"))
                flops += 2 * PREFILL * n * k * part["calls"]
                us += part["us"]
        mean_ms = prefill["total_ms"] / prefill["steps"]
        self.put("gemm gflops", flops / us * 1e-3 * mean_ms / prefill["best_ms"])

    def model_theirs(self):
        for line in output(self.llama / "llama-bench", "-m", self.gguf, "-t", self.threads, "-p", PREFILL, "-n", 0,
                           "-r", 3, "-o", "jsonl").splitlines():
            self.put("llama prefill", statistics.median(json.loads(line)["samples_ts"]))
        for line in output(self.llama / "llama-bench", "-m", self.gguf, "-t", self.threads, "-p", 0, "-n", TOKENS,
                           "-d", LLAMA_CONTEXT, "-r", 3, "-o", "jsonl").splitlines():
            self.put("llama decode 1", statistics.median(json.loads(line)["samples_ts"]))
        for line in output(self.llama / "llama-batched-bench", "-m", self.gguf, "-t", self.threads, "-c", 4096,
                           "-npp", LLAMA_CONTEXT, "-ntg", TOKENS, "-npl", BATCH, "--output-format",
                           "jsonl").splitlines():
            if line.startswith("{"):
                self.put("llama decode 16", json.loads(line)["speed_tg"])

    def start_seconds(self, command, port, path, body):
        """From exec to the first line of the streamed answer that has data."""
        begin = time.monotonic()
        server = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, env=environment())
        try:
            while server.poll() is None and time.monotonic() - begin < 120:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
                    answer = connection.getresponse()
                    if answer.status not in (200, 503):
                        sys.exit(f"{command[0]}: status {answer.status}: {answer.read()[:200]}")
                    if answer.status == 200:
                        while not answer.readline().startswith(b"data:"):
                            pass
                        return time.monotonic() - begin
                except (OSError, http.client.HTTPException):
                    pass
                finally:
                    connection.close()
                time.sleep(0.005)
            sys.exit(f"no answer from {command[0]}")
        finally:
            server.terminate()
            server.wait(30)

    def start(self):
        """Three starts of each: the first ones find memory and page cache cold."""
        ours, theirs = [], []
        for _ in range(3):
            port = free_port()
            ours.append(self.start_seconds(
                [self.tpserve, "--model", self.model, "--port", port, "--threads", self.threads, "--max-model-len", 4096],
                port, "/v1/completions",
                {"model": str(self.model), "prompt": PROMPT, "max_tokens": 4, "stream": True, "temperature": 0}))
            port = free_port()
            theirs.append(self.start_seconds(
                [self.llama / "llama-server", "-m", self.gguf, "-t", self.threads, "-c", 4096, "--port", port],
                port, "/completion", {"prompt": PROMPT, "n_predict": 4, "stream": True, "temperature": 0}))
        self.put("start", statistics.median(ours))
        self.put("llama start", statistics.median(theirs))

    def ranks(self):
        for name, ranks, threads in (("1x2", 1, self.threads), ("2x1", 2, 1), ("4x1", 4, 1)):
            for case in self.ours("--ms", 1200, "--steps", 8, "--prefill", 0, "--batches", f"1,{BATCH}", "--contexts",
                                  CONTEXT, ranks=ranks, threads=threads):
                self.put(f"ranks {name} {case['batch']}", case["median_tokens_per_s"])

    def context(self):
        for case in self.ours("--profile", "--ms", 400, "--prefill", 0, "--batches", 1, "--contexts",
                              ",".join(map(str, CONTEXTS))):
            step, attn = case["median_ms"] * 1e3, case["parts"]["attn"]["us"]
            self.put(f"attn us {case['context']}", attn)
            self.put(f"step us {case['context']}", step)

    def comm(self):
        for ranks in (2, 4):
            for line in output("mpirun", "--oversubscribe", "--bind-to", "none", "-np", ranks,
                               self.bin / "bench_comm", 0.05).splitlines()[1:]:
                cells = line.split(",")
                size, shm, mpi = int(cells[1]), float(cells[2]), float(cells[5])
                if 4096 <= size <= 1 << 20:
                    self.put(f"shm us {ranks} {size}", shm)
                    self.put(f"mpi us {ranks} {size}", mpi)

    def round(self, only):
        for name in ("limits", "model_ours", "model_theirs", "start", "ranks", "context", "comm"):
            if not only or name.split("_")[0] in only:
                getattr(self, name)()

    # ---- the table ----
    def line(self, what, ours, other, wanted, ratio, more_is_better=True):
        if ratio is None:
            return
        kept = ratio >= wanted if more_is_better else ratio <= wanted
        print(f"{what:46} {ours:>18} {other:>24} {ratio:8.2f} {'>=' if more_is_better else '<='}{wanted:5.2f}  "
              f"{'yes' if kept else 'NO'}")

    def against(self, what, ours, other, wanted, unit="tok/s", low=False):
        a, b = self.get(ours), self.get(other)
        if a is not None and b is not None:
            self.line(what, f"{a:.2f} {unit}", f"{b:.2f}", wanted, a / b, not low)

    def report(self, rounds):
        v = self.get
        if v("read_gbps"):
            print(f"limits, 1 / {self.threads} threads: memory {v('read_gbps 1'):.1f} / {v('read_gbps'):.1f} GB/s, FP32 "
                  f"{v('fp32_gflops 1'):.0f} / {v('fp32_gflops'):.0f}, BF16 {v('bf16_gflops 1'):.0f} / "
                  f"{v('bf16_gflops'):.0f} GFLOP/s, INT8 {v('int8_gops 1'):.0f} / {v('int8_gops'):.0f} GOP/s, AMX BF16 "
                  f"{v('amx_bf16_gflops 1'):.0f} / {v('amx_bf16_gflops'):.0f} GFLOP/s")
        print(f"{self.weights / 1e6:.0f} MB of BF16 weights, {self.threads} threads, medians of {rounds} rounds\n")
        print(f"{'':46} {'ours':>18} {'beside':>24} {'ratio':>8}  wanted kept")
        if v("decode 1") and v("read_gbps"):
            floor = v("read_gbps") * 1e9 / self.weights
            self.line("decode, batch 1 : bandwidth floor", f"{v('decode 1'):.1f} tok/s", f"{floor:.1f}", 0.85,
                      v("decode 1") / floor)
        self.against("decode, batch 1 : llama.cpp", "decode 1", "llama decode 1", 1.2)
        self.against("decode, batch 16 : llama.cpp", "decode 16", "llama decode 16", 2)
        self.against("prefill of 512 : llama.cpp", "prefill", "llama prefill", 1.5)
        self.against("matrix products of prefill : BF16 peak", "gemm gflops", "bf16_gflops", 0.85, "GFLOP/s")
        self.against("exec to first token : llama-server", "start", "llama start", 0.5, "s", low=True)
        for batch in (1, BATCH):
            self.against(f"2 ranks x 1 thread : 1 x 2, batch {batch}", f"ranks 2x1 {batch}", f"ranks 1x2 {batch}", 0.95)
            self.against(f"4 ranks on {self.threads} cores : 2, batch {batch}", f"ranks 4x1 {batch}",
                         f"ranks 2x1 {batch}", 0.8)
        for ranks in (2, 4):
            for size in (4096, 16384, 65536, 262144, 1048576):
                shm, mpi = v(f"shm us {ranks} {size}"), v(f"mpi us {ranks} {size}")
                if shm:
                    self.line(f"MPI_Allreduce : shm, {ranks} ranks, {size >> 10} KiB", f"{shm:.2f} us", f"{mpi:.2f}", 2,
                              mpi / shm)
        if v("attn us 512"):
            print(f"\n{'context':>8} {'attention us':>14} {'us per 1000':>12} {'step us':>12} {'share':>8}")
            for c in CONTEXTS:
                attn, step = v(f"attn us {c}"), v(f"step us {c}")
                print(f"{c:8} {attn:14.0f} {attn / c * 1e3:12.1f} {step:12.0f} {100 * attn / step:7.1f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "llama")
    parser.add_argument("--shape", choices=("0.5b", "1.5b"), default="0.5b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="limits,model,start,ranks,context,comm")
    parser.add_argument("--json", type=Path, help="every round's values go there")
    args = parser.parse_args()
    bench = Bench(args)
    for i in range(args.rounds):
        bench.round([name for name in args.only.split(",") if name])
        print(f"round {i + 1} of {args.rounds} done", file=sys.stderr)
    bench.report(args.rounds)
    if args.json:
        args.json.write_text(json.dumps(bench.values, indent=1))


if __name__ == "__main__":
    main()
