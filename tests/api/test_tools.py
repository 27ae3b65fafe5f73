# SPDX-License-Identifier: Apache-2.0
"""The commands that serve nothing: plan, doctor, bench --comm."""

import json
import pathlib
import socket

import pytest

from conftest import BIN, MODEL, run

QWEN_72B = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 80, "hidden_size": 8192,
    "intermediate_size": 29568, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 152064,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
    "torch_dtype": "bfloat16"}


@pytest.fixture(name="big")
def big_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN_72B))
    return tmp_path


# ---- plan ----

def plan(model, *options):
    code, out, err = run("plan", model, "--json", *options)
    assert out, err
    return code, json.loads(out)


def test_plan_in_numbers(big):
    # bytes and floors of a 72B model as published: 17.9 GB read per step, 18.2 GB kept, 5.36 and 8.54 ms at batch 1 and 128
    code, answer = plan(big, "--gpu", "h100", "--tensor-parallel-size", "8")
    fit = answer["devices"][0]
    assert code == 0 and fit["fits"] and fit["ranks"] == 8
    assert abs(fit["weight_bytes_streamed"] / 1e9 - 17.9) < 0.1 and abs(fit["weight_bytes_resident"] / 1e9 - 18.2) < 0.1
    assert fit["kv_bytes_per_token"] == 40960
    floors = [row["floor_ms"] for row in fit["decode_predicted"]]
    assert [row["batch"] for row in fit["decode_predicted"]] == [1, 8, 32, 128]
    for found, expected in zip(floors, (5.36, 5.53, 6.14, 8.54)):
        assert abs(found - expected) < 0.01, floors
    assert all(row["ms"] > row["floor_ms"] for row in fit["decode_predicted"])


def test_plan_that_does_not_fit(big):
    code, answer = plan(big, "--gpu", "h100", "--tensor-parallel-size", "1")
    assert code == 1 and not answer["devices"][0]["fits"] and answer["devices"][0]["kv_tokens"] == 0
    code, answer = plan(big, "--gpu", "h100", "--tensor-parallel-size", "1", "--quantization", "int4")
    assert code == 0 and answer["devices"][0]["kv_tokens"] > 0 and answer["weights"] == "int4"


def test_plan_in_words(big):
    code, out, _ = run("plan", big, "--gpu", "h100")
    assert code == 0 and "what this rests on" in out and "predicted" in out and "4 x H100" in out
    code, out, _ = run("plan", big)
    assert code == 0 and "a100-40" in out and "b200" in out


def test_plan_for_a_load(big):
    options = ("--load", "2,1000,200,50", "--quantization", "fp8")
    _, answer = plan(big, *options)
    load = answer["load"]
    assert load["chosen_by"] == "fewest devices" and load["best"]["meets"]
    met = [c for c in load["candidates"] if c["meets"]]
    assert met and load["best"]["devices"] == min(c["devices"] for c in met)
    assert all(c["ms_per_token_predicted"] <= 50 for c in met)
    _, answer = plan(big, *options, "--gpu-price", "h100=2", "--gpu-price", "h200=30")
    assert answer["load"]["best"]["device"] == "h100" and answer["load"]["chosen_by"] == "lowest price"
    assert {c["device"] for c in answer["load"]["candidates"]} == {"h100", "h200"}


def test_plan_of_a_cpu():
    code, answer = plan(MODEL, "--gpu", "cpu", "--memory-gbps", "20", "--device-memory", "8GiB")
    assert code == 0 and answer["devices"][0]["device"] == "cpu" and answer["devices"][0]["bandwidth_tbs"] == 0.02


@pytest.mark.parametrize("options,text", [
    (["--gpu", "abacus"], "known: a10 l4"), (["--batch", "1,x"], "--batch: expected numbers"),
    (["--load", "1,2"], "--load: expected REQUESTS/S"), (["--gpu", "cpu"], "--memory-gbps"),
    (["--load", "1,100000,1"], "longest context"), (["--gpu", "h100", "--tensor-parallel-size", "65"], "64"),
    (["--load", "1,10,10", "--gpu-price", "h100"], "NAME=PRICE")])
def test_plan_errors(options, text):
    code, _, err = run("plan", MODEL, *options)
    assert code != 0 and text in err, err


def test_tools_options_are_not_the_servers():
    code, _, err = run("--model", MODEL, "--gpu", "h100")
    assert code == 2 and "--gpu is an option of tpserve plan" in err


# ---- doctor ----

def test_doctor_alone():
    code, out, err = run("doctor", "--model", MODEL, "--device", "cpu", "--port", "0")
    assert code == 0, (out, err)
    for word in ("tpserve ", "MPI ", "processor", "usable; kernels for", "/dev/shm", "GPUs", "page cache", "port         free",
                 "what is wrong"):
        assert word in out, (word, out)


def test_doctor_of_two_ranks():
    code, out, err = run("doctor", "--json", "--device", "cpu", "--port", "0", ranks=2)
    assert code == 0, (out, err)
    answer = json.loads(out)
    assert answer["under_mpi"] and answer["n_ranks"] == 2 and [r["rank"] for r in answer["ranks"]] == [0, 1]
    assert "Open MPI" in answer["mpi"]
    sums = answer["measured"]["sums"]
    assert len(sums) > 5 and all(s["us"] > 0 and s["way"] in ("shm", "mpi") for s in sums)


def test_doctor_finds_what_is_wrong():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        code, out, _ = run("doctor", "--json", "--device", "cpu", "--port", port, "--model", "no-such-model")
    found = [f["what"] for f in json.loads(out)["findings"] if f["serious"]]
    assert code == 1 and any(f"port {port}" in f for f in found) and any("no-such-model" in f for f in found), found


def test_doctor_misses_a_key():
    for options, wrong in ((["--host", "0.0.0.0"], True), (["--host", "0.0.0.0", "--insecure"], False),
                           (["--api-key-file", "/nonexistent/keys"], True)):
        code, out, _ = run("doctor", "--json", "--device", "cpu", "--port", 0, *options)
        found = [f["what"] for f in json.loads(out)["findings"] if f["serious"]]
        assert code == wrong and any("--api-key-file" in f or "/nonexistent/keys" in f for f in found) == wrong, found


# ---- bench --comm ----

def test_bench_comm(tmp_path, start):
    code, out, err = run("bench", "--comm", "--device", "cpu", "--output", tmp_path / "table", ranks=2)
    assert code == 0, err
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert len(rows) > 5 and rows[0][0] == "4096" and all(float(r[2]) > 0 for r in rows), out
    assert "ranks 2" in (tmp_path / "table").read_text()
    s = start("--comm-table", tmp_path / "table", ranks=2)
    assert "is not read: it is for GPUs" in s.text(), s.text()


def test_bench_comm_of_emulated_devices(tmp_path, start):
    if not (pathlib.Path(BIN).parent / "libtpserve_emu.so").exists():
        pytest.skip("no emulated device beside the binary")
    table = tmp_path / "table"
    code, out, err = run("bench", "--comm", "--device", "emu", "--output", table, ranks=2)
    assert code == 0 and "p2p-1" in out and "staged" in out, (out, err)
    assert "device emulated device" in table.read_text()
    s = start("--device", "emu", "--comm-table", table, "--max-num-seqs", "2", "--max-num-batched-tokens", "64", ranks=2)
    assert f"({table})" in s.text(), s.text()


def test_one_process_of_a_job_works_alone():
    code, out, err = run("inspect", MODEL, ranks=2)
    assert code == 0 and out.count("architecture") == 1, (out, err)
    code, out, _ = run("bench", "--base-url", "http://127.0.0.1:1", "--model", "m", "--num-prompts", "2", ranks=2)
    assert code == 1 and out.count("2 requests of") == 1, out


def test_bench_comm_needs_two_ranks():
    code, _, err = run("bench", "--comm", "--device", "cpu")
    assert code != 0 and "mpirun -np 2" in err
