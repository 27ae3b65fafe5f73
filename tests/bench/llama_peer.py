# SPDX-License-Identifier: Apache-2.0
"""llama.cpp as a yardstick: fetched as source from PyPI, built for this machine, fed the same weights.

The source is the one that the package llama-cpp-python carries.  Everything lands in one folder outside git, and what is
there already is not made again.  A checkpoint becomes a GGUF file of the same BF16 numbers: matrices byte for byte,
vectors as FP32, which is what the loader wants.
"""
import hashlib
import json
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
OPTIONS = ["GGML_NATIVE=ON", "LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_APP=OFF",
           "LLAMA_BUILD_UI=OFF", "LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_OPENSSL=OFF", "BUILD_SHARED_LIBS=OFF"]
PROGRAMS = ["llama-bench", "llama-batched-bench", "llama-server"]


def run(*command, **more):
    subprocess.run([str(c) for c in command], check=True, stdout=sys.stderr, **more)


def venv_python(cache):
    """A Python that has pip."""
    python = cache / "venv" / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", cache / "venv")
    return python


def fetch(cache):
    """The folder of llama.cpp's source."""
    source = cache / f"llama_cpp_python-{VERSION}" / "vendor" / "llama.cpp"
    if (cache / "source-ready").exists():
        return source
    archive = cache / f"llama_cpp_python-{VERSION}.tar.gz"
    if not archive.exists():
        run(venv_python(cache), "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
            "--no-binary", PACKAGE, "-d", cache, f"{PACKAGE}=={VERSION}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{archive}: sha256 is {found}, expected {SHA256}")
    with tarfile.open(archive) as tar:
        tar.extractall(cache, filter="data")
    (cache / "source-ready").touch()
    return source


def build(cache, jobs):
    """The folder of llama.cpp's programs."""
    folder = cache / "build"
    if not all((folder / "bin" / p).exists() for p in PROGRAMS):
        run("cmake", "-G", "Ninja", "-S", fetch(cache), "-B", folder, "-DCMAKE_BUILD_TYPE=Release",
            *[f"-D{option}" for option in OPTIONS])
        run("ninja", "-C", folder, f"-j{jobs}", *PROGRAMS)
    return folder / "bin"


# ---- GGUF: magic, version 3, counts, key-value pairs, tensor table, data aligned to 32 bytes ----
U32, I32, F32, STRING, ARRAY = 4, 5, 6, 8, 9
TENSOR_F32, TENSOR_BF16, ALIGN = 0, 30, 32


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key, kind, value):
    head = string(key) + struct.pack("<I", kind)
    if kind == STRING:
        return head + string(value)
    if kind == ARRAY:
        inner, items = value
        body = b"".join(map(string, items)) if inner == STRING else struct.pack(f"<{len(items)}i", *items)
        return head + struct.pack("<IQ", inner, len(items)) + body
    return head + struct.pack({U32: "<I", I32: "<i", F32: "<f"}[kind], value)


def byte_characters():
    """GPT-2's printable stand-ins for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def metadata(c):
    """Keys of a Qwen2; the tokens beyond the bytes are made up, because prompts are given as numbers."""
    tokens = byte_characters()
    tokens += [f"<t{i}>" for i in range(len(tokens), c["vocab_size"])]
    kinds = [1] * len(tokens)  # normal
    kinds[c["eos_token_id"]] = 3  # control
    a = "qwen2"
    return [
        pair("general.architecture", STRING, a), pair("general.name", STRING, "shape"),
        pair("general.file_type", U32, 32), pair("general.alignment", U32, ALIGN),
        pair(f"{a}.block_count", U32, c["num_hidden_layers"]),
        pair(f"{a}.context_length", U32, c["max_position_embeddings"]),
        pair(f"{a}.embedding_length", U32, c["hidden_size"]),
        pair(f"{a}.feed_forward_length", U32, c["intermediate_size"]),
        pair(f"{a}.attention.head_count", U32, c["num_attention_heads"]),
        pair(f"{a}.attention.head_count_kv", U32, c["num_key_value_heads"]),
        pair(f"{a}.attention.layer_norm_rms_epsilon", F32, c["rms_norm_eps"]),
        pair(f"{a}.rope.freq_base", F32, c["rope_theta"]),
        pair("tokenizer.ggml.model", STRING, "gpt2"), pair("tokenizer.ggml.pre", STRING, "qwen2"),
        pair("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        pair("tokenizer.ggml.token_type", ARRAY, (I32, kinds)),
        pair("tokenizer.ggml.merges", ARRAY, (STRING, ["a b"])),
        pair("tokenizer.ggml.eos_token_id", U32, c["eos_token_id"]),
    ]


NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, stem = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[stem]}.{kind}"
    return f"{NAMES[stem]}.{kind}"


def widen(raw):
    """BF16 to FP32."""
    return b"".join(b"\0\0" + raw[i:i + 2] for i in range(0, len(raw), 2))


def convert(folder, path):
    """Writes `path` from a Qwen2 directory with one BF16 file."""
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "qwen2":
        sys.exit(f"{folder}: model_type is {config['model_type']}, only qwen2 is converted")
    with open(folder / "model.safetensors", "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data_at = f.tell()
        header.pop("__metadata__", None)
        table, at = [], 0
        for name, t in header.items():
            if t["dtype"] != "BF16":
                sys.exit(f"{folder}: {name} is {t['dtype']}, expected BF16")
            vector = len(t["shape"]) == 1
            size = (t["data_offsets"][1] - t["data_offsets"][0]) * (2 if vector else 1)
            table.append((name, t, vector, at))
            at += (size + ALIGN - 1) // ALIGN * ALIGN
        keys = metadata(config)
        with open(path, "wb") as out:
            out.write(b"GGUF" + struct.pack("<IQQ", 3, len(table), len(keys)) + b"".join(keys))
            for name, t, vector, offset in table:
                dims = t["shape"][::-1]
                out.write(string(gguf_name(name)) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims,
                                                                TENSOR_F32 if vector else TENSOR_BF16, offset))
            out.write(b"\0" * (-out.tell() % ALIGN))
            start = out.tell()
            for name, t, vector, offset in table:
                begin, end = t["data_offsets"]
                f.seek(data_at + begin)
                raw = f.read(end - begin)
                out.seek(start + offset)
                out.write(widen(raw) if vector else raw)


def prepare(cache, shape, jobs):
    """(folder of programs, checkpoint directory, GGUF file) of a shape of make_shape.py; makes what is missing."""
    cache.mkdir(parents=True, exist_ok=True)
    programs = build(cache, jobs)
    folder, path = cache / f"shape-{shape}", cache / f"shape-{shape}.gguf"
    if not (folder / "ready").exists():
        make_shape = Path(__file__).resolve().parents[1] / "model" / "make_shape.py"
        run(sys.executable, make_shape, folder, "--shape", shape)
        convert(folder, path)
        (folder / "ready").touch()
    return programs, folder, path
