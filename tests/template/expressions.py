# SPDX-License-Identifier: Apache-2.0
"""Random template snippets, and the fixed ones of snippets.txt.

Expressions are made by kind (text, number, list, ...) so that most of them mean something; now and then a kind is
swapped to see that both sides refuse.  What has no defined text in Python (addresses of objects) is never printed.
"""
import pathlib
import random

CONTEXT = {
    "s": "Hello, World", "t": "  straße ÀÉ\u00a0\n", "e": "", "w": "one two  three\ttwo", "h": "<b>&\"x\"</b>",
    "i": 7, "z": 0, "n": -3, "f": 2.5, "g": 1e16, "yes": True, "no": False, "nil": None,
    "xs": [3, 1, 2], "ys": ["b", "A", "c", "a"], "em": [], "mix": [1, "a", None, 2.0, [1], {"k": 1}],
    "d": {"b": 1, "A": "x", "items": [1, 2], "c": {"k": ["v"]}}, "ed": {},
    "rows": [{"name": "bo", "age": 3, "tag": {"x": 1}}, {"name": "Al", "age": 1}, {"name": "cy", "age": 2, "tag": {"x": 0}}],
}

TEXTS = ["s", "t", "e", "w", "h", "'a'", "\"q'\"", "'%s|%5d|%-4s|'", "'\\u00e9\\n'", "d.A", "rows[0].name", "ys[-1]"]
INTS = ["i", "z", "n", "0", "1", "2", "-1", "13", "loop_free", "rows[1]['age']"]
FLOATS = ["f", "g", "1.5", "0.1", "1e-7", "3.0"]
LISTS = ["xs", "ys", "em", "mix", "[1, 2, 3]", "(1, 'b')", "range(4)", "d['items']", "rows", "[]", "()", "[[1, 'z'], [0]]"]
DICTS = ["d", "ed", "rows[0]", "{'k': 1, 2: 'v'}", "d.c"]
OTHERS = ["nil", "yes", "no", "missing", "d.zz", "xs[9]", "none", "true", "false", "nil.x"]


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, *options):
        return self.random.choice(options)

    def any(self, depth):
        if self.random.random() < 0.1:
            return self.pick(*OTHERS)
        return self.pick(self.text, self.number, self.list, self.dict, self.truth)(depth - 1)

    def swap(self, kind, depth):
        """The wanted kind nearly always."""
        return (self.any if self.random.random() < 0.04 else kind)(depth)

    def text(self, depth):
        if depth <= 0:
            return self.pick(*TEXTS)
        s, d = (lambda: self.swap(self.text, depth - 1)), depth - 1
        return self.pick(
            lambda: f"({s()} + {s()})", lambda: f"({s()} ~ {self.any(d)})", lambda: f"({s()} * {self.pick('0', '2', '3', 'n')})",
            lambda: f"{s()}|{self.pick('upper', 'lower', 'trim', 'title', 'capitalize', 'string', 'safe', 'e', 'reverse', 'first', 'last')}",
            lambda: f"{s()}.{self.pick('strip()', 'lstrip()', 'rstrip()', 'upper()', 'title()', 'capitalize()', 'swapcase()', 'lower()')}",
            lambda: f"{s()}.{self.pick('strip', 'lstrip', 'rstrip')}({self.pick(*TEXTS)})",
            lambda: f"{s()}.replace({self.pick(*TEXTS)}, {s()})", lambda: f"{s()}|replace({self.pick(*TEXTS)}, {s()})",
            lambda: f"{s()}.replace('', '.', {self.number(0)})",
            lambda: f"{s()}[{self.int(d)}]", lambda: f"{s()}[{self.bound()}:{self.bound()}]", lambda: f"{s()}[{self.bound()}:{self.bound()}:{self.pick('1', '2', '-1', '-2', 'i')}]",
            lambda: f"{s()}.split({self.pick('', repr(' '), repr('l'), 'none, 1', repr('o') + ', 1')})[{self.pick('0', '-1')}]",
            lambda: f"{s()}|indent({self.pick('2', '2, true', repr('> '), '1, first=true, blank=true')})",
            lambda: f"{s()}.{self.pick('ljust', 'rjust', 'center')}({self.pick('3', '20')}{self.pick('', ', ' + repr('*'))})",
            lambda: f"{s()}.zfill({self.pick('3', '20')})", lambda: f"{s()}|truncate({self.pick('5', '12, true', '9, false, ' + repr('…') + ', 0')})",
            lambda: f"{s()}|center({self.pick('4', '31')})", lambda: f"{s()}.remove{self.pick('prefix', 'suffix')}({self.pick(*TEXTS)})",
            lambda: f"{self.list(d)}|join({self.pick('', s())})", lambda: f"{s()}.join({self.pick('ys', 'em', s(), 'xs')})",
            lambda: f"{self.any(d)}|tojson{self.pick('', '(indent=2)', '(ensure_ascii=true)', '(separators=(' + repr(',') + ', ' + repr(':') + '))', '(sort_keys=true)', '(indent=0)')}",
            lambda: f"{self.any(d)}|string", lambda: f"('%s' % {self.pick(s(), 'i', 'xs|list', '(i,)')})",
            lambda: f"('%{self.pick('5', '-5', '05', '+', ' ', '.2', '8.3')}{self.pick('d', 'f', 's', 'x', 'e', 'g', 'r')}' % {self.pick('i', 'n', 'f', 's', 'yes')})",
            lambda: f"'%s-%s'|format({self.any(d)}, {s()})",
            lambda: f"'{self.pick('{}', '{0}{0}', '{:>6}', '{:*^7}', '{!r}', '{:05}', '{:.2}', '{:,}')}'.format({self.pick(s(), 'i', 'n', 'f', 'g', 'yes', 'nil')})",
            lambda: f"({s()} if {self.truth(d)} else {s()})", lambda: f"({s()} or {s()})",
            lambda: f"{self.any(d)}|default({s()}{self.pick('', ', true')})",
        )()

    def bound(self):
        return self.pick("", "1", "2", "-1", "-2", "i", "0", "99", "none")

    def int(self, depth):
        if depth <= 0:
            return self.pick(*INTS[:-2])
        a, b, d = (lambda: self.swap(self.int, depth - 1)), self.int(0), depth - 1
        return self.pick(
            lambda: f"({a()} {self.pick('+', '-', '*', '//', '%')} {b})", lambda: f"(-{a()})", lambda: f"{a()}|abs",
            lambda: f"{self.pick(self.list, self.text, self.dict)(d)}|length", lambda: f"{self.text(d)}|int",
            lambda: f"{self.text(d)}.{self.pick('find', 'rfind', 'count', 'index')}({self.pick(*TEXTS)}{self.pick('', ', 1', ', 0, -1')})",
            lambda: f"{self.float(d)}|int", lambda: f"{self.list(d)}|{self.pick('min', 'max', 'sum', 'first', 'last')}",
            lambda: f"xs.{self.pick('index', 'count')}({self.pick('1', '2', '1.0', 'yes')})", lambda: f"(2 ** {self.pick('3', '0', '-1', 'f')})",
        )()

    def float(self, depth):
        if depth <= 0:
            return self.pick(*FLOATS)
        a, d = (lambda: self.swap(self.number, depth - 1)), depth - 1
        return self.pick(
            lambda: f"({a()} / {self.pick('2', '3', 'f', '7')})", lambda: f"({self.float(d)} {self.pick('+', '-', '*', '%', '//')} {self.number(0)})",
            lambda: f"{a()}|float", lambda: f"{a()}|round{self.pick('', '(1)', '(2, ' + repr('floor') + ')', '(0, ' + repr('ceil') + ')')}",
            lambda: f"{self.text(d)}|float({self.float(0)})",
        )()

    def number(self, depth):
        return self.pick(self.int, self.float)(depth)

    def list(self, depth):
        if depth <= 0:
            return self.pick(*LISTS)
        a, d = (lambda: self.swap(self.list, depth - 1)), depth - 1
        return self.pick(
            lambda: f"({a()} + {a()})", lambda: f"{a()}[{self.bound()}:{self.bound()}]", lambda: f"{a()}[::{self.pick('-1', '2', '-2')}]",
            lambda: f"{a()}|sort{self.pick('', '(reverse=true)', '(case_sensitive=true)')}", lambda: f"rows|sort(attribute={self.pick(repr('name'), repr('age'), repr('name,age'))})",
            lambda: f"{a()}|{self.pick('reverse', 'unique')}|list", lambda: f"{a()}|{self.pick('select', 'reject')}{self.test_args()}|list",
            lambda: f"rows|{self.pick('selectattr', 'rejectattr')}({self.pick(repr('tag'), repr('tag.x'), repr('age') + ', ' + repr('gt') + ', 1', repr('tag') + ', ' + repr('defined'))})|list",
            lambda: f"{a()}|map({self.pick(repr('string'), repr('upper'), repr('tojson'), repr('default') + ', 1, true')})|list",
            lambda: f"rows|map(attribute={self.pick(repr('name'), repr('tag.x'), repr('zz') + ', default=0')})|list",
            lambda: f"{self.text(d)}.split({self.pick('', repr(','), 'none, 1', repr('l') + ', 1')})", lambda: f"{self.text(d)}.rsplit({self.pick('', 'none, 1', repr('o') + ', 1')})",
            lambda: f"{self.text(d)}.splitlines()", lambda: f"{self.text(d)}.{self.pick('partition', 'rpartition')}({self.pick(*TEXTS)})",
            lambda: f"{self.text(d)}|list", lambda: f"{self.dict(d)}|{self.pick('list', 'items|list', 'dictsort', 'dictsort(reverse=true)')}",
            lambda: f"{self.dict(d)}.{self.pick('keys', 'values', 'items')}()|list", lambda: f"[{self.any(d)}, {self.any(d)}]", lambda: f"({self.any(d)},)",
            lambda: f"range({self.pick('3', '1, 5', '5, 0, -2', '0')})|list", lambda: f"({a()} * {self.pick('0', '2')})", lambda: f"{a()}|batch({self.pick('2', '3, 0')})|list",
        )()

    def dict(self, depth):
        if depth <= 0:
            return self.pick(*DICTS)
        return self.pick(lambda: f"{{{self.pick(repr('k'), '1', 's')}: {self.any(depth - 1)}, 'z': {self.any(depth - 1)}}}",
                         lambda: f"dict(a={self.any(depth - 1)})", lambda: f"dict(d, b={self.any(depth - 1)})", lambda: self.dict(0))()

    def test_args(self):
        return self.pick("", "('string')", "('number')", "('eq', 1)", "('in', xs)", "('odd')", "('none')", "('mapping')")

    def truth(self, depth):
        if depth <= 0:
            return self.pick("yes", "no", "s", "e", "em", "ed", "z", "nil", "missing")
        a, d = (lambda: self.any(depth - 1)), depth - 1
        return self.pick(
            lambda: f"({a()} {self.pick('==', '!=')} {a()})", lambda: f"({self.number(d)} {self.pick('<', '>', '<=', '>=')} {self.number(d)})",
            lambda: f"({self.text(d)} {self.pick('<', '>=')} {self.text(d)})", lambda: f"({self.list(0)} < {self.list(0)})",
            lambda: f"({a()} {self.pick('in', 'not in')} {self.pick(self.list, self.dict)(d)})", lambda: f"({self.pick(*TEXTS)} in {self.text(d)})",
            lambda: f"({self.truth(d)} {self.pick('and', 'or')} {self.truth(d)})", lambda: f"(not {a()})",
            lambda: f"({a()} is {self.pick('', 'not ')}{self.pick('defined', 'undefined', 'none', 'string', 'number', 'integer', 'float', 'boolean', 'mapping', 'sequence', 'iterable', 'true', 'false', 'callable', 'escaped')})",
            lambda: f"({self.int(d)} is {self.pick('odd', 'even', 'divisibleby 3', 'divisibleby(2)', 'eq 7', 'lt(3)', 'ge 0')})",
            lambda: f"({a()} is {self.pick('eq', 'ne', 'sameas none and not', 'in')} {self.list(0)})",
            lambda: f"{self.text(d)}.{self.pick('startswith', 'endswith')}({self.pick(*TEXTS)})",
            lambda: f"{self.text(d)}.is{self.pick('alpha', 'digit', 'alnum', 'space', 'upper', 'lower', 'ascii', 'decimal', 'numeric')}()",
            lambda: f"(1 < {self.int(d)} <= {self.int(d)})", lambda: f"({self.text(d)} is {self.pick('lower', 'upper')})",
        )()

    def statement(self, depth):
        e = lambda: self.any(2)
        inner = (lambda: self.statement(depth - 1)) if depth > 0 else (lambda: self.pick("x", " y\n", "{{ i }}", ""))
        dash = lambda: self.pick("", "", "-", "+")
        tag = lambda body: f"{{%{dash()} {body} {self.pick('', '', '-')}%}}"
        space = lambda: self.pick("", " ", "\n", "\n  ", "\t\n\n ")
        return self.pick(
            lambda: f"{space()}{{{{{self.pick('', '-')} {e()} {self.pick('', '-')}}}}}{space()}",
            lambda: f"{space()}{tag('if ' + self.truth(2))}{inner()}{space()}{tag('elif ' + self.truth(1))}{inner()}{tag('else')}{inner()}{tag('endif')}",
            lambda: f"{tag('for v in ' + self.list(2))}{space()}{{{{ loop.{self.pick('index', 'index0', 'revindex', 'first', 'last', 'length', 'previtem', 'nextitem')} }}}}{inner()}{tag('else')}none{tag('endfor')}",
            lambda: f"{tag('for v in ' + self.list(1) + ' if v')}{inner()}{{{{ v }}}}{tag('if loop.index > 1')}{tag(self.pick('break', 'continue'))}{tag('endif')}.{tag('endfor')}",
            lambda: f"{tag('for k, v in ' + self.dict(1) + '.items()')}{{{{ k }}}}={{{{ v }}}};{tag('endfor')}",
            lambda: f"{tag('set i = ' + self.int(2))}{inner()}{{{{ i }}}}", lambda: f"{tag('set s')}{space()}{inner()}{tag('endset')}[{{{{ s }}}}]",
            lambda: f"{tag('set q = namespace(a=1)')}{tag('for v in xs')}{tag('set q.a = q.a + v')}{tag('set i = v')}{tag('endfor')}{{{{ q.a }}}}{{{{ i }}}}",
            lambda: f"{tag('macro m(a, b=' + self.any(1) + ', c=a)')}{inner()}{{{{ a }}}}/{{{{ b }}}}/{{{{ c }}}}{tag('endmacro')}{{{{ m({self.pick('', '1', '1, 2', 'b=2', 'a=3, c=1', '1, 2, 3, 4', 'zz=1')}) }}}}",
            lambda: f"{space()}{{#{dash()} a comment {self.pick('', '-')}#}}{space()}{inner()}", lambda: f"{tag('filter upper')}{inner()}{tag('endfilter')}",
            lambda: f"{tag('with q = i')}{inner()}{{{{ q }}}}{tag('endwith')}{{{{ q is defined }}}}", lambda: f"{tag('generation')}{inner()}{tag('endgeneration')}",
            lambda: f"{{%{dash()} raw {self.pick('', '-')}%}}{space()}{{{{ x }}}}{space()}{{%{dash()} endraw {self.pick('', '-', '+')}%}}{space()}",
        )()


def random_templates(count, seed):
    make = Maker(seed)
    for n in range(count):
        yield f"{{{{ {make.any(3)} }}}}" if n % 2 == 0 else "".join(make.statement(2) for _ in range(2))


def snippets():
    """Snippets of snippets.txt: one per line, \\n for a newline; # begins a comment."""
    for line in pathlib.Path(__file__).with_name("snippets.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("# "):
            yield line.replace("\\n", "\n")
