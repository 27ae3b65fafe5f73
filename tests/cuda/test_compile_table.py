#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""test_compile_table.py - compile_table.py notices what it is there for, on objects made up here; needs no CUDA."""
import pathlib
import struct
import subprocess
import sys
import tempfile

SCRIPT = pathlib.Path(__file__).with_name("compile_table.py")
HMMA, LDL, NOTHING = 0x23C, 0x983, 0x918


def elf(name, opcodes, arch):
    """A device image with one function."""
    code = b"".join(struct.pack("<QQ", 0xABCD000 << 12 | op, 1) for op in opcodes)
    strings = b"\0.text." + name.encode() + b"\0.shstrtab\0"
    head = 64
    table = head + len(code) + len(strings)
    sections = [(0, 0, 0, 0, 0, 0), (1, 1, 6, 0, head, len(code)),
                (len(name) + 8, 3, 0, 0, head + len(code), len(strings))]
    out = b"\x7fELF\x02\x01\x01" + bytes(9)
    out += struct.pack("<HHIQQQIHHHHHH", 2, 190, 1, 0, 0, table, arch << 8 | 0xA000004, 64, 0, 0, 64, 3, 2)
    out += code + strings
    for s in sections:
        out += struct.pack("<IIQQQQIIQQ", *s, 0, 0, 1, 0)
    return out


def report(name, arch, registers, stack, spills):
    return (f"ptxas info    : Compiling entry function '{name}' for 'sm_{arch}'\n"
            f"ptxas info    : Function properties for {name}\n"
            f"    {stack} bytes stack frame, {spills} bytes spill stores, 0 bytes spill loads\n"
            f"ptxas info    : Used {registers} registers, used 1 barriers, 128 bytes smem\n")


def run(table, registers=40, stack=0, spills=0, opcodes=(HMMA, HMMA, NOTHING)):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "x.cu.o.ptxas").write_text(report("sum", "80", registers, stack, spills)
                                             + report("sum", "90a", registers - 1, 0, 0))
        (folder / "x.cu.o").write_bytes(b"\x7fELF" + bytes(60) + elf("sum", opcodes, 80) + elf("sum", [HMMA, HMMA], 90))
        (folder / "table.txt").write_text(table)
        done = subprocess.run([sys.executable, SCRIPT, "--objects", folder, "--table", folder / "table.txt"],
                              capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


def check(what, found, code, *texts):
    if found[0] != code or not all(t in found[1] for t in texts):
        sys.exit(f"{what}: exit {found[0]}, expected {code} and {texts}\n{found[1]}")
    print("ok", what)


def main():
    check("as it should be", run("sum | 40 | HMMA>=2"), 0, "40/39", "1 kernels, 2 architectures, 0 problems")
    check("registers", run("sum | 39 | HMMA>=2"), 1, "sum sm_80", "40 registers, 39 allowed", "1 problems")
    check("registers of one", run("sum | 30 80:40 90a:38 |"), 1, "sum sm_90a", "39 registers, 38 allowed", "1 problems")
    check("stack frame", run("sum | 40 |", stack=16), 1, "a stack frame of 16 bytes")
    check("spill", run("sum | 40 |", spills=8), 1, "8 bytes are spilled")
    check("local memory", run("sum | 40 |", opcodes=[HMMA, LDL]), 1, "1 LDL, expected = 0")
    check("cold", run("sum | 40 | cold", stack=16, spills=8, opcodes=[LDL]), 0)
    check("instructions", run("sum | 40 | HMMA>=3"), 1, "2 HMMA, expected >= 3", "2 problems")
    check("undescribed", run("other* | 40 |"), 1, "no line of the table describes it", "no kernel is called other*")
    check("bad table", run("sum | many |"), 1, "expected PATTERN")
    done = subprocess.run([sys.executable, SCRIPT, "--objects", "/nonexistent", "--table", "/nonexistent"],
                          capture_output=True, text=True)
    check("no CUDA", (done.returncode, done.stdout), 77, "SKIPPED")


if __name__ == "__main__":
    main()
