# SPDX-License-Identifier: Apache-2.0
"""Generated strings for comparing tokenizers: every Unicode block, code, numbers, white space, marks, special tokens."""
import random
import unicodedata

WORDS = (
    "the of and I'll don't WE'RE can't you'd ſ'ſ it'ſ K'k naïve Straße ǅ Ünïcödé İstanbul Москва東京 東京 你好世界 안녕하세요 "
    "שלום مرحبا اردو สวัสดี हिन्दी தமிழ் ქართული Ελληνικά Ωραία ĳ ﬁ ① ½ Ⅻ ٣٤ ๑๒ 一二三 "
    "def return int main void foo_bar() { } == != => -> // # \\n \\ 3.14159 1,000,000 0x1F 1e-5 v2.0 a.b.c "
    "🦙 👩‍👩‍👧‍👦 🇫🇷 👍🏽 ❤️ ☕ e\u0301 a\u0323\u0307 a\u0307\u0323 \u1100\u1161\u11a8 \uac00\u11a8 \u212b \u2126 "
    "\u0915\u093c \u0958 \u0f71\u0f72 \u200b \u200d \ufeff \u2581 \u180e \u061c \u202e \u0000 \u001c \u007f "
    "Việt một rất nhiều değişik kullanılmış všechny характеристика اطلاعات ایران "
    "<|im_start|> <|im_end|> <|endoftext|> <|eot_id|> <think> </think> <s> </s> [INST] <|").split(" ")
SPACES = [" ", "  ", "   ", "        ", "\t", "\t\t", "\n", "\r\n", "\n\n", "\n\n\n", " \n ", " \n", "\n ", "\u00a0", "\u3000",
          "\u2028", "\u0085", "\x0b", "\x0c", "\x1c", "\r", "\u180e", "\u200b", ""]
CODE = "abcdefABCDEF'sStTlLvVeErRmMdD.,;:!?-_/\\\"(){}[]<>|@#$%^&*+=~` \n\t0123456789"
REPEATED = ["a", " ", "\n", "=", "ab", "哈", "1", "🦙", "▁", "-", "e\u0301", "\u0301", "\t", "aA", "0", ". ", "\u0316\u0301", "Z",
            "\r\n", "가", "\u200d", "'s", " 1", "ſ", "}"]
COUNTS = [2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 34, 63, 64, 65, 129, 300, 1000]


def code_points():
    """Every assigned character but private use; of the unassigned those of the first two planes and a sample beyond."""
    def wanted(c):
        category = unicodedata.category(c)
        return category not in ("Cs", "Co") and (category != "Cn" or ord(c) < 0x20000 or ord(c) % 64 == 0)
    return [c for c in map(chr, range(0x110000)) if wanted(c)]


def assigned():
    return [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]


class Generator:
    def __init__(self, seed, specials):
        self.r = random.Random(seed)
        self.specials = specials or ["<|none|>"]
        self.known = assigned()
        self.marks = [c for c in self.known if unicodedata.combining(c)]
        self.blocks = [self.known[i:i + 64] for i in range(0, len(self.known), 64)]
        self.turn = 0
        self.kinds = [self.block, self.words, self.code, self.numbers, self.combining, self.repeated, self.special,
                      self.anything, self.spaces, self.mixed]

    def some(self, pool, low, high):
        return [self.r.choice(pool) for _ in range(self.r.randint(low, high))]

    def block(self):
        """One block after the other, with its neighbours: every block comes up."""
        self.turn += 1
        near = self.blocks[self.turn % len(self.blocks)] + self.blocks[(self.turn + 1) % len(self.blocks)]
        return "".join(self.some(near, 1, 24))

    def words(self):
        return "".join(w + self.r.choice(SPACES) for w in self.some(WORDS, 1, 30))

    def code(self):
        return "".join(self.some(CODE, 1, 100))

    def numbers(self):
        parts = [str(self.r.randrange(10 ** self.r.randint(1, 12))) + self.r.choice([" ", "", ".", ",", "-", "e", "\n"])
                 for _ in range(self.r.randint(1, 12))]
        return self.r.choice(["", " ", "x"]) + "".join(parts)

    def combining(self):
        pool = self.known if self.r.random() < 0.3 else self.known[:3000]
        return "".join(self.r.choice(pool) + "".join(self.some(self.marks, 0, 4)) for _ in range(self.r.randint(1, 16)))

    def repeated(self):
        return self.r.choice(["", "x", " "]) + self.r.choice(REPEATED) * self.r.choice(COUNTS) + self.r.choice(["", "x", " ", "\n"])

    def special(self):
        """Special tokens, whole and cut short, among other things."""
        def part():
            token = self.r.choice(self.specials)
            return self.r.choice([self.r.choice(WORDS), token, self.r.choice(SPACES), token[:-1], token[1:], token + token])
        return "".join(part() for _ in range(self.r.randint(1, 12)))

    def anything(self):
        return "".join(self.some(self.known, 1, 40))

    def spaces(self):
        return "".join(self.some(SPACES, 1, 8) + [self.r.choice(WORDS)] + self.some(SPACES, 0, 6))

    def mixed(self):
        return "".join(self.r.choice(self.kinds[:-1])() for _ in range(self.r.randint(2, 4)))

    def strings(self, count):
        yield ""
        for i in range(count - 1):
            yield self.kinds[i % len(self.kinds)]()

    def broken(self, count):
        """Byte strings, most of them ill-formed UTF-8."""
        for _ in range(count):
            data = bytearray(self.mixed().encode())
            for _ in range(self.r.randint(1, 6)):
                at = self.r.randrange(len(data) + 1)
                how = self.r.randrange(4)
                if how == 0:
                    data[at:at] = bytes(self.some(range(256), 1, 4))
                elif how == 1:
                    del data[at:at + self.r.randint(1, 3)]
                elif how == 2:
                    data[at:at] = self.r.choice([b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f\xa6", b"\xff", b"\xe2\x82"])
                else:
                    data[at:at + 1] = bytes([self.r.randrange(128, 256)])
            yield bytes(data)
