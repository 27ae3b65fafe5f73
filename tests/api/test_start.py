# SPDX-License-Identifier: Apache-2.0
"""Starts that succeed or fail: options from every source, where models are looked for, damaged checkpoints."""

import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import time

import pytest

from conftest import BIN, LONGEST, MODEL, ROOT, SANITIZED, free_port, mpi_env, report, run

# ---- options ----

@pytest.mark.parametrize("options,text", [
    (["--bogus"], "unknown option --bogus"), (["--port", "70000"], "--port: expected 0 to 65535"),
    (["--port", "x"], "--port: expected a whole number"), (["--port"], "--port needs a value"),
    (["--dtype", "int3"], "--dtype: expected auto|float32"), (["--max-body", "-1"], "--max-body: expected"),
    (["--block-size", "17"], "--block-size: expected a multiple of 16"), (["a", "b"], 'unexpected argument "b"'),
    (["--config", "/nonexistent.yaml"], "/nonexistent.yaml"), (["--pipeline-parallel-size", "2"], "expected 1 to 1"),
    (["--watermark", "nan"], "--watermark"), (["--max-model-len", "1e400"], "--max-model-len"),
    (["--api-key", ""], "--api-key")])
def test_option_errors(options, text):
    code, out, err = run(*options)
    assert code == 2 and text in err and err.count("\n") == 1 and out == "", (code, err)


@pytest.mark.parametrize("options,text", [
    (["--bogus"], "unknown option --bogus"), ([], "no model given"), (["bench", "--engine"], "no model given"),
    (["--model", MODEL, "--tensor-parallel-size", "2"], "but mpirun started 4 ranks")])
def test_usage_errors_once_per_job(options, text):
    """Said once, by itself, before MPI starts."""
    code, out, err = run(*options, ranks=4, env={"TPSERVE_MODEL": ""})
    assert code == 2 and err.count(text) == 1 and out == "", (code, err)
    assert "launcher:" not in err, "something was started first"


def test_usage_errors_of_another_host():
    """Its environment may be another one, so the first rank there speaks, and no other."""
    for local, said in (("0", 1), ("1", 0)):
        code, _, err = run(env={"TPSERVE_MODEL": "", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": local})
        assert code == 2 and err.count("no model given") == said and err.count("tpserve: rank 3 on ") == said, err


def test_help_names_every_option():
    code, out, _ = run("--help")
    rows = re.findall(r'^    (?:STR|LIST|BOOL|INT|BYTES|REAL|WORD)\(\s*(?:NULL|"[^"]*"), "([a-z-]+)"',
                      (ROOT / "launcher" / "options_table.c").read_text(), re.M)
    assert code == 0 and len(rows) > 30
    for name in rows:
        assert f"--{name}" in out, name
    assert "trust-remote-code" not in out


def test_help_of_one_command():
    _, whole, _ = run("--help")
    for command in ("serve", "inspect", "plan", "doctor", "bench"):
        code, out, _ = run(command, "--help")
        assert code == 0 and len(out) < len(whole)
        others = [x for x in ("--base-url", "--gpu-price", "--max-connections") if f"\n  {x}" in out]
        assert others == {"bench": ["--base-url"], "plan": ["--gpu-price"], "serve": ["--max-connections"]}.get(command, [])
        assert all(f" {command}" in x or command == "serve" for x in re.findall(r"tpserve [a-z]+", out.split("\n\n")[0]))


def test_completion_knows_the_command():
    """What bash offers, as bash sees it."""
    _, script, _ = run("--generate-completion", "bash")
    for words, wanted, unwanted in ((["bench", "--"], "--base-url", "--max-connections"), (["--"], "--max-connections", "--base-url"),
                                    (["--dtype", ""], "bfloat16", "--model"), ([""], "doctor", "--base-url")):
        line = " ".join(f"'{w}'" for w in ["tpserve", *words])
        done = subprocess.run(["bash", "-c", f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _tpserve; "
                               'printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True, check=True)
        offered = done.stdout.split()
        assert wanted in offered and unwanted not in offered, (words, offered, done.stderr)


def test_version():
    for word in (["version"], ["--version"]):
        code, out, _ = run(*word)
        assert code == 0 and re.fullmatch(r"tpserve \d+\.\d+\.\d+\n", out)


def test_sources_and_their_order(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("model: from-file\nmax_model_len: 100\nport: 1001\nserved-model-name: [a, b]\nlog-level: warn\n")
    env = {"TPSERVE_PORT": "1002", "TPSERVE_MAX_NUM_SEQS": "7"}
    code, out, err = run("--config", config, "--print-config", "--max-model-len", "8K", "--tp=1", env=env)
    assert code == 0, err
    for line in ["model: from-file  # file", "port: 1002  # environment", "max-num-seqs: 7  # environment",
                 "max-model-len: 8192  # command line", 'served-model-name: ["a", "b"]  # file', "block-size: 16  # default",
                 "tensor-parallel-size: 1  # command line"]:
        key, rest = line.split(": ", 1)
        got = [row for row in out.splitlines() if row.startswith(key + ":")]
        assert len(got) == 1 and got[0].replace('"', "") == line.replace('"', ""), (got, line)


@pytest.mark.parametrize("text", ["no-such-option: 1\n", "port: [\n", "port: x\n", "- port\n"])
def test_bad_config_files(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    code, _, err = run("--config", tmp_path / "c.yaml")
    assert code == 2 and err.count("\n") == 1 and "c.yaml" in err, err


def test_keys_are_never_shown(tmp_path):
    code, out, err = run("--api-key", "sk-secret", "--print-config", env={"TPSERVE_API_KEY": "sk-other"})
    assert code == 0 and "sk-" not in out + err


# ---- models ----

def test_unknown_model_lists_the_search(tmp_path):
    code, _, err = run("--model", "no-such/model", "--model-path", tmp_path, env={"HF_HOME": str(tmp_path)})
    assert code != 0
    for place in ["no-such/model/config.json", f"{tmp_path}/aliases.yaml", "hub/models--no-such--model/refs/main",
                  "--model-path"]:
        assert place in err, err


def test_no_model():
    for command in ([], ["inspect"], ["plan"], ["bench", "--engine"], ["bench", "--host"], ["--tensor-parallel-size", "2"]):
        code, out, err = run(*command, env={"TPSERVE_MODEL": ""})
        assert code == 2 and err.startswith("tpserve: no model given") and err.count("\n") == 1 and out == "", (command, err)


@pytest.mark.skipif(SANITIZED, reason="is not what people install")
def test_installed_program_has_the_demo(tmp_path):
    build = pathlib.Path(BIN).resolve().parent
    if not (build / "cmake_install.cmake").exists():
        pytest.skip("the program was not built here")
    subprocess.run(["cmake", "--install", build, "--prefix", tmp_path], check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run([tmp_path / "bin" / "tpserve", "inspect", "demo"], cwd=tmp_path, capture_output=True, text=True,
                          timeout=LONGEST, check=False, env={**mpi_env(), "HF_HOME": str(tmp_path)})
    assert done.returncode == 0 and "share/tpserve/models/demo" in done.stdout, done.stderr


def test_aliases_and_cache(tmp_path, start):
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / "abc123"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(MODEL)
    refs = tmp_path / "hub" / "models--org--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc123\n")
    (tmp_path / "aliases.yaml").write_text("small: org/tiny\nsmaller: small\n")
    env = {"HF_HOME": str(tmp_path), "TPSERVE_MODELS": str(tmp_path)}
    for name in ("org/tiny", "small", "smaller"):
        code, out, err = run("inspect", name, "--tp", "2", env=env)
        assert code == 0 and "snapshots/abc123" in out and "architecture" in out, (name, err)


def test_inspect():
    code, out, _ = run("inspect", MODEL, "--tensor-parallel-size", "2")
    config = json.loads((pathlib.Path(MODEL) / "config.json").read_text())
    assert code == 0 and f"layers         {config['num_hidden_layers']}" in out
    assert len(re.findall(r"^ +[01] +\d+\.\.", out, re.M)) == 2


# ---- listening ----

def test_port_in_use():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        code, _, err = run("--model", MODEL, "--port", port, ranks=2)
    assert code not in (0, 2) and err.count(f"cannot listen on 127.0.0.1 port {port}") == 1


def test_open_host_needs_a_key(tmp_path):
    code, _, err = run("--model", MODEL, "--host", "0.0.0.0", "--port", free_port())
    assert code != 0 and "--api-key-file" in err and "--insecure" in err
    (tmp_path / "empty").write_text("# none\n")
    code, _, err = run("--model", MODEL, "--host", "0.0.0.0", "--port", free_port(), "--api-key-file", tmp_path / "empty")
    assert code != 0 and "holds no key" in err
    code, _, err = run("--model", MODEL, "--port", free_port(), "--api-key-file", tmp_path / "missing")
    assert code != 0 and "missing" in err


def test_key_from_the_environment(start, monkeypatch):
    monkeypatch.setenv("TPSERVE_API_KEY", "sk-env")
    s = start(ranks=1)
    assert s.get("/version")[0] == 401
    assert s.get("/version", {"authorization": "Bearer sk-env"})[0] == 200


def test_open_host_with_a_key(start):
    s = start("--host", "0.0.0.0", "--api-key", "sk-arg", ranks=1)
    assert s.get("/version", {"authorization": "Bearer sk-arg"})[0] == 200
    assert s.get("/version", {"authorization": "Bearer sk-arg", "host": "any.example"})[0] == 200
    assert b"sk-arg" not in pathlib.Path(f"/proc/{s.process.pid}/cmdline").read_bytes() or s.process.args[0] == "mpirun"


# ---- damaged checkpoints ----

def drop(path, name):
    (path / name).unlink()


def patch_json(path, name, **members):
    value = json.loads((path / name).read_text())
    value.update(members)
    (path / name).write_text(json.dumps(value))


def patch_weights(path, change):
    """Rewrites the header of model.safetensors."""
    raw = (path / "model.safetensors").read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    header = change(json.loads(raw[8:8 + n]))
    text = json.dumps(header).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + n:])


def without(header, part):
    return {k: v for k, v in header.items() if part not in k}


DAMAGE = {
    "no-config": lambda p: drop(p, "config.json"),
    "config-is-text": lambda p: (p / "config.json").write_text("hello"),
    "unknown-architecture": lambda p: patch_json(p, "config.json", architectures=["XForCausalLM"], model_type="x"),
    "no-layers": lambda p: patch_json(p, "config.json", num_hidden_layers=0),
    "wrong-size": lambda p: patch_json(p, "config.json", intermediate_size=640),
    "no-tokenizer": lambda p: drop(p, "tokenizer.json"),
    "cut-tokenizer": lambda p: (p / "tokenizer.json").write_bytes((p / "tokenizer.json").read_bytes()[:-100]),
    "no-weights": lambda p: drop(p, "model.safetensors"),
    "cut-weights": lambda p: os.truncate(p / "model.safetensors", (p / "model.safetensors").stat().st_size - 1),
    "empty-weights": lambda p: (p / "model.safetensors").write_bytes(b""),
    "huge-header": lambda p: (p / "model.safetensors").write_bytes(struct.pack("<Q", 2 ** 63) + b"{}"),
    "tensor-missing": lambda p: patch_weights(p, lambda h: without(h, "layers.0.self_attn.q_proj.weight")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoints(tmp_path, damage):
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    DAMAGE[damage](model)
    begin = time.monotonic()
    code, _, err = run("--model", model, "--port", free_port(), ranks=2)
    took = time.monotonic() - begin
    assert code not in (0, 2), err
    errors = [line for line in err.splitlines() if " error " in line and "[0/2" in line]
    assert errors and any("model" in line for line in errors), err
    report(f"damaged checkpoint {damage}: the job ended after {took:.1f} s")
