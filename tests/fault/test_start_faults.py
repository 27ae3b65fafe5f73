# SPDX-License-Identifier: Apache-2.0
"""One rank that cannot start ends the whole job: every rank exits, non-zero, with one line of ours that says why.

TPSERVE_BIN    the binary (default: build/tpserve)
"""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = os.environ.get("TPSERVE_BIN", str(ROOT / "build" / "tpserve"))
GOLDEN = ROOT / "tests" / "model" / "goldens" / "llama3"
TOKENIZER = ROOT / "tests" / "tokenizer" / "data" / "llama3" / "tokenizer.json"
SECONDS = 60


@pytest.fixture
def model(tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name, tmp_path / name)
    shutil.copy(TOKENIZER, tmp_path / "tokenizer.json")
    return tmp_path


def start(model, faults=(None, None)):
    """Exit code and our error lines of a job with one rank per entry of faults."""
    command = ["mpirun", "--oversubscribe"]
    for rank, fault in enumerate(faults):
        command += [":"] if rank else []
        command += ["-np", "1", "env", f"TPSERVE_FAULT={fault or ''}", BIN, "--model", str(model), "--port", "0",
                    "--threads", "1", "--max-num-seqs", "4"]
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL, env=env,
                          check=False)
    return done.returncode, [line for line in done.stderr.splitlines() if " error " in line or "tpserve: " in line]


def expect(result, word):
    code, lines = result
    assert code not in (0, None)
    assert len(lines) == 1, lines
    assert word in lines[0], lines


def test_rank_0_without_config(model):
    (model / "config.json").write_text("{")
    expect(start(model), "config.json")


def test_rank_0_without_tokenizer(model):
    (model / "tokenizer.json").unlink()
    expect(start(model), "tokenizer")


@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_cannot_read_weights(model, rank):
    faults = [None, None, None]
    faults[rank] = "load.read=2"
    expect(start(model, faults), "model.safetensors")


def test_no_model(tmp_path):
    code, lines = start(tmp_path / "nowhere")
    assert code not in (0, None)
    assert len(lines) == 1 and "no model" in lines[0]
