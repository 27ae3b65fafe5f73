#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""lint.py - the rules of the house that a machine can check.

    lint.py [--root DIR] [--build DIR] [--only RULE[,RULE]] [--notes FILE] [--list]

One function per rule; each yields "place: what is wrong".  The tables banned.txt and headers.txt lie beside this file; the
limits are below.  A limit is raised only by editing the table in the same commit, with the reason.  tests/lint/selftest.sh
breaks every rule once and shows that it is noticed.
"""
import argparse
import concurrent.futures
import fnmatch
import functools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent

# Folder -> prefix of its exported symbols, and the folders to its left that it may include.
LAYERS = {
    "base": ("tp_", []),
    "kernels": ("kern_", ["base"]),
    "comm": ("comm_", ["base"]),
    "runtime": ("rt_", ["base", "kernels", "comm"]),
    "api": ("api_", ["base"]),  # and runtime/engine.h
    "launcher": ("launch_", ["base", "kernels", "comm", "runtime", "api"]),
}
EXTRA_INCLUDES = {"api": ["runtime/engine.h"]}
# Parts of a folder that are built into the modules of kernels/cuda, not into the folder's library: their kernels are in
# the dialect of kernels/cuda and their memory is its devices'.
MODULE_PARTS = {"comm/p2p/": ["kernels"], "comm/nccl/": ["kernels"]}
EXTRA_SYMBOLS = {"launcher": ["main"]}
ONE_FILE_ONLY = ["microhttpd.h"]  # no second file may include these

LINES_MAX = {".c": 1000, ".h": 300, ".cu": 800, ".py": 600, ".sh": 300}
CODE_HEADERS = ("_body.h", "_cases.h")  # code that is included several times: held to the limit of .c
README_LINES_MAX = 120
LINE_WIDTH_MAX = 130  # comments and texts: code is held to 100 by .clang-format; tests hold long samples
FUNCTION_LINES_MAX = 120
PARAMETERS_MAX = 8
COMPLEXITY_MAX = 25

SOURCE_SUFFIXES = (".c", ".h", ".cu", ".cuh", ".py", ".sh")


class Tree:
    """The files of the project: what git knows or would add, else everything below the root."""

    def __init__(self, root, build):
        self.root = pathlib.Path(root).resolve()
        self.build = (self.root / build).resolve() if build else None

    @functools.cached_property
    def files(self):
        listing = ["git", "-C", str(self.root), "ls-files", "-co", "--exclude-standard"]
        run = subprocess.run(listing, capture_output=True, text=True) if (self.root / ".git").exists() else None
        if run and run.returncode == 0:
            names = run.stdout.splitlines()
        else:
            names = [str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file()]
        return sorted(n for n in set(names) if (self.root / n).is_file() and not n.startswith("build"))

    def of(self, *suffixes, under=None):
        return [n for n in self.files if n.endswith(suffixes) and (under is None or n.split("/")[0] in under)]

    @functools.lru_cache(maxsize=None)
    def text(self, name):
        return (self.root / name).read_text(encoding="utf-8", errors="replace")

    @functools.lru_cache(maxsize=None)
    def code(self, name):
        return blank_comments_and_strings(self.text(name))


TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def blank_comments_and_strings(text):
    return TOKEN.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def read_table(name):
    for line in (HERE / name).read_text().splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            yield line


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def rule_layers(tree):
    """a folder includes only what lies to its left"""
    pattern = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
    for name in tree.of(".c", ".h", ".cu", under=LAYERS):
        folder = name.split("/")[0]
        allowed = LAYERS[folder][1] + [folder]
        allowed += [f for part, folders in MODULE_PARTS.items() if name.startswith(part) for f in folders]
        for m in pattern.finditer(tree.text(name)):
            target = m.group(1)
            if target.split("/")[0] in allowed or target in EXTRA_INCLUDES.get(folder, []):
                continue
            why = "may include " + ", ".join(allowed + EXTRA_INCLUDES.get(folder, []))
            if "/" not in target:
                why = "write the path from the root"
            yield f"{name}:{line_of(tree.text(name), m.start())}: includes \"{target}\": {folder} {why}"


def rule_headers(tree):
    """a third-party header is included only where the table says"""
    pattern = re.compile(r"^\s*#\s*include\s+<([^>]+)>", re.M)
    table = [(line.split()[0], line.split()[1:]) for line in read_table("headers.txt")]
    users = {header: [] for header in ONE_FILE_ONLY}
    for name in tree.of(".c", ".h", ".cu", under=LAYERS):
        for m in pattern.finditer(tree.text(name)):
            header = m.group(1)
            if header in users:
                users[header].append(name)
            for glob, places in table:
                if fnmatch.fnmatch(header, glob) and not name.startswith(tuple(places)):
                    yield f"{name}:{line_of(tree.text(name), m.start())}: <{header}> belongs to {' '.join(places)}"
    for header, names in users.items():
        if len(names) > 1:
            yield f"<{header}> is included by {len(names)} files ({', '.join(names)}): one may"


def rule_symbols(tree):
    """exported symbols carry the prefix of their folder; reports libraries that are not built, too"""
    for folder, (prefix, _) in LAYERS.items():
        if not tree.of(".c", under=[folder]):
            continue
        libs = sorted((tree.build / folder).glob("libtp_*.a")) if tree.build else []
        if not libs:
            yield f"{folder}: no library in the build folder: build first"
        for lib in libs:
            yield from check_symbols(lib, folder, prefix)


def check_symbols(lib, folder, prefix):
    run = subprocess.run(["nm", "--defined-only", "--extern-only", "-A", str(lib)], capture_output=True, text=True)
    for line in run.stdout.splitlines():
        place, _, symbol = line.rsplit(" ", 2)
        allowed = symbol.startswith((prefix, "__odr_asan")) or symbol in EXTRA_SYMBOLS.get(folder, [])
        if not allowed:
            yield f"{folder}: {place.split(':')[1]} exports {symbol}: expected the prefix {prefix}"


def rule_banned(tree):
    """banned functions are not called"""
    table = []
    for line in read_table("banned.txt"):
        entry, _, allowed = line.partition("allowed:")
        name, why = entry.split(None, 1)
        pattern = re.escape(name[:-1]) + r"\w*" if name.endswith("*") else re.escape(name)
        table.append((re.compile(r"(?<![\w.>])" + pattern + r"\s*\("), name, why.strip(), tuple(allowed.split())))
    for name in tree.of(".c", ".h", ".cu", under=LAYERS):
        for pattern, function, why, allowed in table:
            if allowed and name.startswith(allowed):
                continue
            for m in pattern.finditer(tree.code(name)):
                yield f"{name}:{line_of(tree.code(name), m.start())}: {m.group().rstrip('( ')}: {why}"


def rule_files(tree):
    """files are short, READMEs too, and comment lines not too wide"""
    for name in tree.of(*LINES_MAX):
        lines = tree.text(name).splitlines()
        is_body = name.endswith(CODE_HEADERS)
        limit = LINES_MAX[".c" if is_body else os.path.splitext(name)[1]]
        if len(lines) > limit:
            yield f"{name}: {len(lines)} lines: at most {limit}"
        for n, line in enumerate(lines, 1):
            if len(line) > LINE_WIDTH_MAX and name.endswith((".c", ".h", ".cu")) and name.split("/")[0] in LAYERS:
                yield f"{name}:{n}: {len(line)} columns: at most {LINE_WIDTH_MAX}"
    for name in tree.of("README.md"):
        count = len(tree.text(name).splitlines())
        if count > README_LINES_MAX:
            yield f"{name}: {count} lines: at most {README_LINES_MAX}"


def rule_readme(tree):
    """every folder of code has a README.md"""
    for folder in LAYERS:
        if tree.of(".c", under=[folder]) and f"{folder}/README.md" not in tree.files:
            yield f"{folder}: no README.md: purpose, map of files, may depend on, invariants, how to test, pitfalls"


def rule_functions(tree):
    """functions are short, simple, and have few parameters"""
    names = tree.of(".c", under=list(LAYERS) + ["tests"])
    if not names:
        return
    run = subprocess.run(["pmccabe", *names], cwd=tree.root, capture_output=True, text=True)
    if run.returncode != 0 and not run.stdout:
        yield "pmccabe failed: " + run.stderr.strip()
    for row in run.stdout.splitlines():
        fields = row.split("\t")
        complexity, first, lines = int(fields[0]), int(fields[3]), int(fields[4])
        place, _, function = fields[5].rpartition(": ")
        name = place.split("(")[0]
        where = f"{name}:{first}: {function}"
        if lines > FUNCTION_LINES_MAX:
            yield f"{where}: {lines} lines: at most {FUNCTION_LINES_MAX}"
        if complexity > COMPLEXITY_MAX:
            yield f"{where}: complexity {complexity}: at most {COMPLEXITY_MAX}"
        count = count_parameters(tree.code(name), first, function)
        if count > PARAMETERS_MAX:
            yield f"{where}: {count} parameters: at most {PARAMETERS_MAX}, then a struct"


def count_parameters(code, first_line, function):
    offset = sum(len(line) + 1 for line in code.split("\n")[: first_line - 1])
    m = re.compile(re.escape(function) + r"\s*\(").search(code, offset)
    if not m:
        return 0
    depth, count, at = 1, 1, m.end()
    while at < len(code) and depth > 0:
        depth += (code[at] in "([{") - (code[at] in ")]}")
        count += code[at] == "," and depth == 1
        at += 1
    return count


def rule_heads(tree):
    """sources begin with the licence line, and C files with a description"""
    for name in tree.of(*SOURCE_SUFFIXES) + [n for n in ("run", "Makefile", ".ci/run") if n in tree.files]:
        lines = tree.text(name).splitlines()
        if not any("SPDX-License-Identifier: Apache-2.0" in line for line in lines[:2]):
            yield f"{name}:1: no SPDX-License-Identifier: Apache-2.0 in the first two lines"
        elif name.endswith((".c", ".h", ".cu")) and not (len(lines) > 1 and lines[1].startswith("/*")):
            yield f"{name}:2: no description after the licence line"


def rule_names(tree):
    """C file names are snake_case and unique in the tree"""
    seen = {}
    for name in tree.of(".c", ".h", ".cu"):
        base = os.path.basename(name)
        if not re.fullmatch(r"[a-z0-9_]+\.(c|h|cu)", base):
            yield f"{name}: not snake_case"
        if base in seen:
            yield f"{name}: {seen[base]} has the same name"
        seen.setdefault(base, name)


def rule_text(tree):
    """no unfinished-work marks, no paths of somebody's machine, no trailing blanks"""
    marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    paths = re.compile(r"(?<![\w.])/(root|home/\w+|work)/")
    for name in tree.of(*SOURCE_SUFFIXES, ".md", "CMakeLists.txt", "Makefile"):
        for n, line in enumerate(tree.text(name).splitlines(), 1):
            if marks.search(line):
                yield f"{name}:{n}: unfinished-work mark: do it, or describe the limit"
            if paths.search(line) and "selftest" not in name and "lint.py" not in name:
                yield f"{name}:{n}: path of one machine: {paths.search(line).group()}"
            if line != line.rstrip() and not name.endswith(".md"):
                yield f"{name}:{n}: blanks at the end of the line"


def rule_format(tree):
    """.clang-format is satisfied"""
    names = tree.of(".c", ".h", ".cu")
    if not names:
        return
    run = subprocess.run(["clang-format", "--dry-run", "-Werror", *names], cwd=tree.root, capture_output=True, text=True)
    bad = sorted({line.split(":")[0] for line in run.stderr.splitlines() if "clang-format-violations" in line})
    for name in bad:
        yield f"{name}: run clang-format -i {name}"
    if run.returncode != 0 and not bad:
        yield "clang-format failed: " + run.stderr.strip()[:300]


def rule_pedantic(tree):
    """C files pass -Wpedantic; its view of %m is left out, which is why the build does not use it"""
    database = tree.build / "compile_commands.json" if tree.build else None
    if database is None or not database.exists():
        yield "no compile_commands.json in the build folder: build first"
        return
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        entries = [e for e in json.loads(database.read_text()) if e["file"].endswith(".c")]
        for problems in pool.map(compile_pedantic, entries):
            yield from problems


def compile_pedantic(entry):
    words = shlex.split(entry["command"])
    if "-o" in words:
        at = words.index("-o")
        words[at:at + 2] = []
    words = [w for w in words if w not in ("-c", "-Werror") and not w.startswith("-O")]
    words += ["-fsyntax-only", "-Wpedantic", "-U_FORTIFY_SOURCE", "-Wno-format", "-Wno-format-security"]
    run = subprocess.run(words, cwd=entry["directory"], capture_output=True, text=True)
    if not os.path.exists(entry["file"]):
        return []
    return [line for line in run.stderr.splitlines() if re.search(r": (warning|error):", line)]


def rule_libstdcxx(tree):
    """the binary does not need libstdc++"""
    binary = tree.build / "tpserve" if tree.build else None
    if binary is None or not binary.exists():
        yield "no tpserve in the build folder: build first"
        return
    run = subprocess.run(["readelf", "-d", str(binary)], capture_output=True, text=True)
    if run.returncode != 0 or "NEEDED" not in run.stdout:
        yield "readelf cannot read the binary: " + run.stderr.strip()
    for line in run.stdout.splitlines():
        if "NEEDED" in line and "libstdc++" in line:
            yield "tpserve needs libstdc++: " + line.strip()


RULES = {name[5:]: rule for name, rule in sorted(globals().items()) if name.startswith("rule_")}


def main():
    parser = argparse.ArgumentParser(description="checks the rules of the house")
    parser.add_argument("--root", default=HERE.parent.parent)
    parser.add_argument("--build", default="build")
    parser.add_argument("--only", default="")
    parser.add_argument("--notes", help="append \"lint-RULE passed|failed 1\" lines here")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:10} {rule.__doc__}" for name, rule in RULES.items()))
        return
    tree = Tree(options.root, options.build)
    failed = 0
    for name in options.only.split(",") if options.only else RULES:
        problems = list(RULES[name](tree))
        for problem in problems:
            print(f"lint {name}: {problem}")
        print(f"lint {name}: {'FAILED, ' + str(len(problems)) + ' problems' if problems else 'ok'}")
        failed += bool(problems)
        if options.notes:
            with open(options.notes, "a", encoding="utf-8") as notes:
                notes.write(f"lint-{name} {'failed' if problems else 'passed'} 1\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
