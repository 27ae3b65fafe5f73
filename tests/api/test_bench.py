# SPDX-License-Identifier: Apache-2.0
"""tpserve bench: the load generator against a real server, against one that dies, and against one that answers rubbish."""

import csv
import http.server
import json
import os
import signal
import struct
import subprocess
import threading
import time
import xml.etree.ElementTree
import zlib

import pytest

from conftest import BIN, LONGEST, MODEL, mpi_env
from conftest import run as run_program

MEMBERS = {
    "backend", "base_url", "endpoint", "model_id", "num_prompts", "max_concurrency", "request_rate", "burstiness", "seed",
    "duration", "completed", "failed", "disconnected", "total_input_tokens", "total_output_tokens", "request_throughput",
    "output_throughput", "total_token_throughput", "max_concurrent_requests", "errors",
    *(f"{kind}_{what}_ms" for what in ("ttft", "tpot", "itl", "e2el")
      for kind in ("mean", "median", "std", "p50", "p90", "p99"))}


def run(*options, **how):
    return run_program("bench", *options, **how)


def bench(url, *options):
    """Results of the loads."""
    code, out, err = run("--base-url", url, "--json", *options)
    assert code == 0, (out, err)
    return json.loads(out)


SHORT = ("--random-input-len", "24", "--random-output-len", "8")


def test_all_done_and_counted(server):
    before = {n: server.metric(n) for n in ("prompt_tokens_total", "generation_tokens_total")}
    results = bench(server.url, *SHORT, "--num-prompts", "24", "--max-concurrency", "1,8", "--ignore-eos")
    for r, concurrency in zip(results, (1, 8), strict=True):
        assert MEMBERS <= set(r), MEMBERS - set(r)
        assert (r["completed"], r["failed"], r["errors"]) == (24, 0, {})
        assert r["max_concurrency"] == concurrency and r["max_concurrent_requests"] == concurrency
        assert r["model_id"] == "test-model" and r["request_rate"] == "inf"
        assert r["total_input_tokens"] == 24 * 24 and r["total_output_tokens"] == 24 * 8
        assert 0 < r["p50_ttft_ms"] <= r["p90_ttft_ms"] <= r["p99_ttft_ms"] <= r["p99_e2el_ms"]
        assert 0 < r["p50_tpot_ms"] < r["p50_e2el_ms"] and r["p50_itl_ms"] is not None
        assert abs(r["output_throughput"] - 24 * 8 / r["duration"]) < 0.01 * r["output_throughput"]
    assert server.metric("prompt_tokens_total") - before["prompt_tokens_total"] == 2 * 24 * 24
    assert server.metric("generation_tokens_total") - before["generation_tokens_total"] == 2 * 24 * 8


def test_files(server, tmp_path):
    output, table, plot = (tmp_path / name for name in ("r.json", "r.csv", "r.svg"))
    code, out, err = run("--base-url", server.url + "/v1/", *SHORT, "--num-prompts", "6", "--num-warmups", "2",
                         "--max-concurrency", "1,2,3", "--output", output, "--csv", table, "--plot", plot)
    assert code == 0, err
    for word in ("first token (TTFT)", "per token (TPOT)", "between tokens (ITL)", "whole answer (E2EL)", "p90", "p99"):
        assert out.count(word) >= 3, (word, out)
    written = json.loads(output.read_text())
    assert [r["max_concurrency"] for r in written] == [1, 2, 3]
    with open(table, newline="") as f:
        rows = list(csv.DictReader(f))
    assert MEMBERS == set(rows[0]) & MEMBERS and len(rows) == 3
    for row, r in zip(rows, written, strict=True):
        assert int(row["completed"]) == r["completed"] == 6
        assert float(row["p99_e2el_ms"]) == r["p99_e2el_ms"]
    tree = xml.etree.ElementTree.parse(plot).getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert tree.tag == space + "svg" and len(tree.findall(f".//{space}polyline")) == 6
    assert len(tree.findall(f".//{space}circle")) == 6 * 3
    assert "nan" not in plot.read_text()


def chunks_of_png(data):
    """Type and content of each, after their checksums have been compared."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, found = 8, []
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        content, (crc,) = data[at + 8:at + 8 + size], struct.unpack(">I", data[at + 8 + size:at + 12 + size])
        assert crc == zlib.crc32(kind + content)
        found.append((kind, content))
        at += 12 + size
    return found


def test_picture_of_pixels(server, tmp_path):
    plot = tmp_path / "r.PNG"
    code, _, err = run("--base-url", server.url, *SHORT, "--num-prompts", "4", "--max-concurrency", "1,2", "--plot", plot)
    assert code == 0, err
    chunks = chunks_of_png(plot.read_bytes())
    assert [kind for kind, _ in chunks] == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, depth, colours = struct.unpack(">IIBB", chunks[0][1][:10])
    assert (depth, colours) == (4, 3) and len(chunks[1][1]) % 3 == 0
    rows = zlib.decompress(chunks[2][1])
    assert len(rows) == height * (1 + width // 2) and not any(rows[::1 + width // 2])
    seen = {nibble for byte in set(rows) for nibble in (byte >> 4, byte & 15)}
    assert seen == set(range(len(chunks[1][1]) // 3))  # paper, text, grid and six curves


def test_chat_words_and_rate(server):
    r, = bench(server.url, "--endpoint", "/v1/chat/completions", *SHORT, "--num-prompts", "10", "--request-rate", "50",
               "--burstiness", "0.5", "--random-range-ratio", "0.5")
    assert r["completed"] == 10 and r["request_rate"] == 50 and r["total_input_tokens"] > 10 * 12
    again, = bench(server.url, "--endpoint", "/v1/chat/completions", *SHORT, "--num-prompts", "10",
                   "--random-range-ratio", "0.5")
    assert again["total_input_tokens"] == r["total_input_tokens"]  # the same seed, the same prompts


def test_whole_answers(server):
    r, = bench(server.url, "--no-stream", *SHORT, "--num-prompts", "5", "--ignore-eos", "--prompt-format", "words")
    assert r["completed"] == 5 and r["total_output_tokens"] == 40 and r["p50_e2el_ms"] > 0 and r["p50_ttft_ms"] is None


def test_clients_that_leave(server):
    r, = bench(server.url, "--random-input-len", "24", "--random-output-len", "200", "--ignore-eos", "--num-prompts", "30",
               "--max-concurrency", "6", "--disconnect-rate", "0.6")
    assert r["disconnected"] > 5 and r["completed"] + r["disconnected"] == 30 and r["failed"] == 0
    server.wait_metric("num_requests_running", 0, 20)
    server.wait_metric("kv_cache_usage_perc", 0, 20)


def test_interrupted(server):
    """Ctrl-C ends the load, and what was measured by then is told."""
    with subprocess.Popen([BIN, "bench", "--base-url", server.url, "--json", *SHORT, "--num-prompts", "1000000",
                           "--max-concurrency", "2,4", "--num-warmups", "0"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=mpi_env()) as p:
        before = server.metric("generation_tokens_total")
        deadline = time.monotonic() + LONGEST
        while server.metric("generation_tokens_total") < before + 100 and time.monotonic() < deadline:
            time.sleep(0.05)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=LONGEST)
    results = json.loads(out)
    assert p.returncode == 130 and "interrupted" in err, err
    assert len(results) == 1 and 0 < results[0]["completed"] < 1000000 and results[0]["failed"] == 0


def test_server_that_dies(start, tmp_path):
    s = start("--device", "null", ranks=1)
    output = tmp_path / "r.json"
    command = [BIN, "bench", "--base-url", s.url, "--num-prompts", "200", "--random-input-len", "8", "--random-output-len",
               "2000", "--max-concurrency", "4", "--request-rate", "80", "--ignore-eos", "--output", output]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=mpi_env()) as load:
        deadline = time.monotonic() + 30
        while s.metric("generation_tokens_total") == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(s.process.pid, signal.SIGKILL)  # mpirun: its rank goes with it
        assert load.wait(LONGEST) in (0, 1)
    r, = json.loads(output.read_text())
    assert r["completed"] + r["failed"] == 200 and r["failed"] > 0
    assert r["errors"].get("connection refused", 0) > 0, r["errors"]
    assert sum(r["errors"].values()) == r["failed"]


# ---- a server that answers what a test wants ----

def event(text):
    return b"data: " + json.dumps({"choices": [{"text": text, "finish_reason": None}]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
ANSWERS = {
    "good": (200, {}, event("a") + event("b") + DONE),
    "full": (429, {"Retry-After": "1"}, b'{"error":{"message":"come\\nlater"}}'),
    "broken": (500, {}, b"<b>bro\xffken\xc3\xa9"),
    "cut": (200, {}, event("a")),
    "rubbish": (200, {}, b"data: {\"choi\n\n" + DONE),
    "error": (200, {}, event("a") + b'data: {"error":{"code":"rank_lost"}}\n\n' + DONE),
    "closed": None,
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers = []
    lock = threading.Lock()

    def do_GET(self):
        self.answer(200, {}, b'{"data":[{"id":"m"}]}')

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] == "m" and body["stream"] and self.headers["Authorization"] == "Bearer k"
        with self.lock:
            answer = ANSWERS[self.answers.pop(0)]
        if answer is None:
            self.close_connection = True
        else:
            self.answer(*answer)

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.sanitizer
def test_failures_by_kind():
    Handler.answers = ["good", "full", "good", "broken", "cut", "rubbish", "full", "error", "closed", "good"]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        code, out, err = run("--base-url", f"http://127.0.0.1:{server.server_address[1]}", "--json", "--num-prompts", "10",
                             "--max-concurrency", "1", *SHORT, env={"OPENAI_API_KEY": "k", "http_proxy": "http://127.0.0.1:1"})
        server.shutdown()
        thread.join()
    assert code == 0, err
    r, = json.loads(out)
    assert r["completed"] == 3 and r["failed"] == 7
    assert r["errors"] == {"http 429 with Retry-After": 2, "http 500": 1, "stream without an end": 1,
                           "event that is no JSON object": 1, "error event: rank_lost": 1, "connection lost": 1}
    assert r["error_messages"] == {"http 429 with Retry-After": "come later", "http 500": "<b>bro ken\u00e9"}
    assert r["total_output_tokens"] == 6  # pieces of text, as this server does not count


@pytest.mark.parametrize("options,text", [
    (["--max-concurrency", "1,x"], "--max-concurrency: expected numbers"), (["--request-rate", "0"], "--request-rate"),
    (["--plot", "a.jpg"], "--plot: expected a file that ends in .svg or .png"), (["--burstiness", "0"], "--burstiness"),
    (["--disconnect-rate", "0.1", "--no-stream"], "--disconnect-rate needs streams"),
    (["--seed", "-1"], "expected 0 to 9007199254740992,"),
    (["--csv", "/nonexistent/a.csv"], "--csv: cannot write /nonexistent/a.csv"),
    (["--output", "/nonexistent/a.json"], "--output: cannot write"),
    ([MODEL, "--host", "--max-concurrency", "0"], "expected 1 to 4096 sequences"),
    (["--base-url", "http://127.0.0.1:1"], "--base-url says which server"), (["--num-prompts", "0"], "--num-prompts")])
def test_refused(options, text):
    code, _, err = run(*options)
    assert code != 0 and text in err, err


def test_server_that_is_not_there():
    code, out, _ = run("--base-url", "http://127.0.0.1:1", "--model", "m", "--num-prompts", "5", "--json")
    assert code == 1 and json.loads(out)[0]["errors"] == {"connection refused": 5}


# ---- without HTTP, without a model ----

def test_engine():
    options = (MODEL, "--engine", "--json", *SHORT, "--num-prompts", "8", "--max-concurrency", "1,4", "--device", "cpu",
               "--log-level", "warn")
    code, out, err = run(*options, ranks=2)
    assert code == 0, err
    results = json.loads(out)
    assert [(r["label"], r["max_concurrency"]) for r in results] == [
        ("overlapped", 1), ("overlapped", 4), ("in turn", 1), ("in turn", 4)]
    for r in results:
        assert (r["completed"], r["failed"]) == (8, 0) and r["backend"] == "engine"
        assert (r["total_input_tokens"], r["total_output_tokens"]) == (8 * 24, 8 * 8)
        assert 0 < r["p50_ttft_ms"] <= r["p99_e2el_ms"] and r["p50_tpot_ms"] > 0
    code, out, _ = run(*[o for o in options if o != "--json"], "--disconnect-rate", "0.5")
    assert code == 0 and "overlap   in turn  ratio" in out and "left by their client" in out


def test_host():
    code, out, err = run(MODEL, "--host", "--json", "--log-level", "warn", "--max-concurrency", "1,12")
    assert code == 0, err
    answer = json.loads(out)
    assert [s["max_concurrency"] for s in answer["streams"]] == [1, 12]
    assert all(s["completed"] == s["num_prompts"] and s["output_throughput"] > 0 for s in answer["streams"])
    assert [(s["sequences"], s["target_us"]) for s in answer["steps"]] == [(1, 50.5), (12, 56)]
    assert all(min(s["plan_and_deliver_us"], s["step_us"], s["step_overlapped_us"]) > 0 for s in answer["steps"])


def test_no_model():
    for how in ("--engine", "--host"):
        code, _, err = run("no-such-model", how, "--device", "cpu")
        assert code == 1 and "no-such-model" in err, err
