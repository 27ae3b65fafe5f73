#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""compile_table.py - what nvcc made of every kernel, held against a table of what it should be.

    compile_table.py --objects DIR --table FILE [--table FILE...]

DIR holds, for every .cu file, the object and the report of ptxas (-Xptxas -v) that the build left beside it.  Printed: per
kernel and architecture the registers, stack frame, spilled bytes, static shared memory, bytes of code and the counts of the
instructions that tell how it works, read from the machine code itself (no disassembler is needed: the low 12 bits of each
128-bit instruction are its opcode).

Fails on a stack frame or a spill (unless "cold"), more registers than allowed, an instruction count that breaks an
expectation, a kernel that no line describes, and a line that describes no kernel.  Exit 77: there is nothing to look at,
because CUDA was not built.
"""
import argparse
import collections
import fnmatch
import pathlib
import re
import struct
import subprocess
import sys

SKIPPED = 77

# SASS since Volta; the same numbers from sm_80 to sm_100 for these.
OPCODES = {
    "HMMA": [0x23C], "LDSM": [0x83B], "LDGSTS": [0xFAE], "LDG": [0x981], "STG": [0x986], "LDS": [0x984], "STS": [0x988],
    "LDL": [0x983], "STL": [0x387], "SHFL": [0xF89, 0x589, 0x389, 0x989], "BAR": [0xB1D], "MUFU": [0x308],
}
EM_CUDA = 190

Kernel = collections.namedtuple("Kernel", "file name arch registers stack spills smem code counts")
Rule = collections.namedtuple("Rule", "place pattern registers cold expected")

REPORT = re.compile(
    r"Compiling entry function '(?P<name>\S+)' for 'sm_(?P<arch>\w+)'\n.*\n"
    r"\s+(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r".*Used (?P<registers>\d+) registers(?P<rest>.*)")


def demangle(names):
    """mangled -> 'attn_decode<__half, 128>': no result, no arguments; as it is where there is no c++filt."""
    try:
        run = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {n: n for n in names}
    return {n: short_name(text) for n, text in zip(names, run.stdout.splitlines())}


def short_name(text):
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            text = text[:i]
            break
    return re.sub(r"^void ", "", text).replace("__nv_bfloat16", "bf16").replace("__half", "f16")


def device_images(data):
    """(architecture number, sections) of every ELF file for a GPU inside an object."""
    at = data.find(b"\x7fELF", 1)
    while at >= 0:
        if struct.unpack_from("<H", data, at + 18)[0] == EM_CUDA:
            flags = struct.unpack_from("<I", data, at + 48)[0]
            yield (flags >> 8) & 0xFF, sections(data, at)
        at = data.find(b"\x7fELF", at + 4)


def sections(data, at):
    offset, = struct.unpack_from("<Q", data, at + 40)
    size, count, names_index = struct.unpack_from("<HHH", data, at + 58)
    heads = [struct.unpack_from("<IIQQQQ", data, at + offset + i * size) for i in range(count)]
    names = at + heads[names_index][4]
    found = {}
    for name, _, _, _, start, length in heads:
        end = data.index(b"\0", names + name)
        found[data[names + name:end].decode()] = data[at + start:at + start + length]
    return found


def histogram(code):
    return collections.Counter(struct.unpack_from("<H", code, i)[0] & 0xFFF for i in range(0, len(code) - 15, 16))


def read_objects(folder):
    raw, codes = [], {}
    for report in sorted(folder.glob("*.ptxas")):
        source = report.name[:-len(".o.ptxas")]
        for m in REPORT.finditer(report.read_text()):
            raw.append((source, m))
        for arch, found in device_images(report.with_suffix("").read_bytes()):
            for name, code in found.items():
                if name.startswith(".text."):
                    codes[source, name[len(".text."):], arch] = code
    names = demangle(sorted({m["name"] for _, m in raw}))
    kernels = []
    for source, m in raw:
        code = codes.get((source, m["name"], int(re.sub(r"\D", "", m["arch"]))), b"")
        counts = histogram(code)
        smem = re.search(r"(\d+) bytes smem", m["rest"])
        kernels.append(Kernel(source, names[m["name"]], m["arch"], int(m["registers"]), int(m["stack"]),
                              int(m["stores"]) + int(m["loads"]), int(smem[1]) if smem else 0, len(code),
                              {op: sum(counts[c] for c in numbers) for op, numbers in OPCODES.items()}))
    return kernels


def read_rules(path):
    """PATTERN | REGISTERS | words: "cold", and OP>=N, OP=N, OP<=N.  REGISTERS: N, or N ARCH:N where one differs."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        place = f"{path.name}:{number}"
        parts = [p.strip() for p in line.split("|")]
        if len(parts) != 3 or not re.fullmatch(r"\d+( \w+:\d+)*", parts[1]):
            sys.exit(f"{place}: expected PATTERN | REGISTERS | EXPECTATIONS")
        registers = dict(w.split(":") if ":" in w else ("", w) for w in parts[1].split())
        expected = []
        for word in parts[2].split():
            m = re.fullmatch(r"([A-Z]+)(>=|<=|=)(\d+)", word)
            if word != "cold" and (not m or m[1] not in OPCODES):
                sys.exit(f"{place}: unknown word {word}")
            if m:
                expected.append((m[1], m[2], int(m[3])))
        yield Rule(place, parts[0], registers, "cold" in parts[2].split(), expected)


def broken(kernel, rule):
    allowed = int(rule.registers.get(kernel.arch, rule.registers[""]))
    if kernel.registers > allowed:
        yield f"{kernel.registers} registers, {allowed} allowed"
    if not rule.cold and kernel.stack:
        yield f"a stack frame of {kernel.stack} bytes"
    if not rule.cold and kernel.spills:
        yield f"{kernel.spills} bytes are spilled"
    if not kernel.code:
        yield "its machine code was not found"
        return
    local = [] if rule.cold else [("LDL", "=", 0), ("STL", "=", 0)]
    for op, relation, wanted in rule.expected + local:
        n = kernel.counts[op]
        if not {">=": n >= wanted, "<=": n <= wanted, "=": n == wanted}[relation]:
            yield f"{n} {op}, expected {relation} {wanted}"


def print_table(kernels):
    """One line per kernel; equal instances of a template are joined, figures are the largest of all architectures."""
    archs = sorted({k.arch for k in kernels}, key=lambda a: int(re.sub(r"\D", "", a)))
    shown = ["HMMA", "LDSM", "LDGSTS", "LDG", "STG", "SHFL", "BAR"]
    print(f"{'kernel':44} {'registers sm_' + '/'.join(archs):>24} {'stack':>5} {'spill':>5} {'smem':>6} {'code':>6} "
          + " ".join(f"{op:>6}" for op in shown))
    for name in sorted({k.name for k in kernels}):
        mine = {k.arch: k for k in kernels if k.name == name}
        registers = "/".join(str(mine[a].registers) if a in mine else "-" for a in archs)
        most = lambda field: max(getattr(k, field) for k in mine.values())
        print(f"{name:44} {registers:>24} {most('stack'):>5} {most('spills'):>5} {most('smem'):>6} {most('code'):>6} "
              + " ".join(f"{max(k.counts[op] for k in mine.values()):>6}" for op in shown))


def main():
    parser = argparse.ArgumentParser(description="holds what nvcc made against a table")
    parser.add_argument("--objects", type=pathlib.Path, required=True)
    parser.add_argument("--table", type=pathlib.Path, action="append", required=True)
    options = parser.parse_args()
    if not list(options.objects.glob("*.ptxas")):
        print(f"SKIPPED: {options.objects} holds no kernels: CUDA was not built")
        sys.exit(SKIPPED)
    rules = [rule for table in options.table for rule in read_rules(table)]
    kernels = read_objects(options.objects)
    print_table(kernels)
    problems, used = [], set()
    for kernel in kernels:
        rule = next((r for r in rules if fnmatch.fnmatchcase(kernel.name, r.pattern)), None)
        if rule is None:
            problems.append(f"{kernel.name} ({kernel.file}): no line of the table describes it")
            continue
        used.add(rule.place)
        problems += [f"{kernel.name} sm_{kernel.arch} ({rule.place}): {what}" for what in broken(kernel, rule)]
    problems += [f"{r.place}: no kernel is called {r.pattern}" for r in rules if r.place not in used]
    for problem in sorted(set(problems)):
        print("compile table: " + problem)
    n = len({k.name for k in kernels})
    print(f"{n} kernels, {len({k.arch for k in kernels})} architectures, {len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
