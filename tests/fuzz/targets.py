"""What is fuzzed, each as a function of raw input that must end in a result or an AlignkitError.

Everything else that comes out, a traceback of any kind, is a finding.
"""

from __future__ import annotations

import datetime
import random
import re
import shutil
import string
from pathlib import Path

import tomli_w

from alignkit import plan, plugins, recipe
from alignkit.errors import AlignkitError
from alignkit_data import Gsm8k, Jsonl, Math
from alignkit_explain.recipes import explained

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
TEXTS = [p.read_bytes() for p in RECIPES]
WORDS = sorted({w for text in TEXTS for w in re.findall(rb"[\w./-]+", text)})
WHOLE = [t for p, t in zip(RECIPES, TEXTS, strict=True) if p.parent.name == "recipes"]
NAMES = ("use", "path", "every", "x", "", "a b", "é", "n", "data")
VALUES = (
    0, 1, -1, 2, 3, 7, 10**6, 2**63, -(2**70), 0.0, -0.0, 0.5, 1.0, 1e308, float("inf"),
    float("nan"), True, False, "", " ", "hf", "grpo", "grpo_clip", "jsonl", "r1_zero", "none", "\0",
    "\u202e", "../data", ".", "/", "~nobody/x", "/dev/null", "x" * 5000, "losses/grpo_clip", "//",
    "http://a:b@c", datetime.date(1979, 5, 27), datetime.time(7, 32), "a/b/c", "cuda:99", "1e3",
)  # fmt: skip
PIECES = [
    b"=", b"[", b"]", b"[[", b"]]", b'"', b"'", b'"""', b"'''", b"\\", b"\n", b"\r\n", b".", b",",
    b"{", b"}", b"#", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", "é\u202e".encode(),
    b"nan", b"inf", b"-inf", b"-0", b"1e999", b"9" * 400, b"0x10", b"1979-05-27T07:32:00Z", b"=\n",
    b"[" * 2000, b"{a=" * 500, b"\\u0000", b"\\ud800", b"use", b"extends",
    b'extends = "bad.toml"\n',
    b"[a.b.c]\n", b"[eval.sets.x]\n", b"trackers = 3\n", b"[policy]\n", b"loss = []\n", b"~",
    b"../" * 40, b"/dev/null", b"/dev/zero", b"/proc/self/mem", b"data", b"*", b"bundle:",
]  # fmt: skip


def mutate(draw: random.Random, data: bytes) -> bytes:
    """Change a few places of a text: flips, cuts, copies, pieces and words put in, splices."""
    text = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        at = draw.randrange(len(text) + 1)
        end = min(len(text), at + draw.choice((1, 1, 4, 30)))
        match draw.randrange(7):
            case 0:
                text[at:end] = bytes(draw.randrange(256) for _ in range(end - at))
            case 1:
                del text[at:end]
            case 2:
                text[at:at] = text[at:end] * draw.choice((1, 1, 50))
            case 3:
                text[at:at] = draw.choice(PIECES)
            case 4:
                text[at:end] = draw.choice(WORDS)
            case 5:
                other = draw.choice(TEXTS)
                start = draw.randrange(len(other))
                text[at:at] = other[start : start + draw.choice((10, 200))]
            case _:
                value = draw.choice(list(re.finditer(rb"= *([^\n#]+)", text)) or [None])
                if value:
                    text[value.start(1) : value.end(1)] = draw.choice((*PIECES, *WORDS))
    return bytes(text)


def bad_recipe(draw: random.Random) -> bytes:
    """Return a recipe of the house, most often with something wrong."""
    text = draw.choice(WHOLE if draw.random() < 0.9 else TEXTS)
    return set_values(draw, text) if draw.random() < 0.7 else mutate(draw, text)


def set_values(draw: random.Random, text: bytes) -> bytes:
    """Give some keys other values of any type, so that the text stays TOML."""
    lines = text.split(b"\n")
    for _ in range(draw.choice((1, 1, 2, 4))):
        usual = [i for i, line in enumerate(lines) if b"=" in line and b"use " not in line]
        every = [i for i, line in enumerate(lines) if b"=" in line]
        at = draw.choice((usual if draw.random() < 0.9 else every) or [0])
        key = lines[at].partition(b"=")[0].strip() or b"n_steps"
        if draw.random() < 0.3:
            key = draw.choice(WORDS).replace(b"/", b"-").replace(b".", b"_")
        line = tomli_w.dumps({"k": value(draw, 2)}).encode("utf-8", "replace")
        if line.startswith(b"k = "):
            lines[at] = key + line[1:].rstrip()
    return b"\n".join(lines)


def value(draw: random.Random, depth: int) -> object:
    """Return a TOML value of any type."""
    if depth and draw.random() < 0.2:
        inner = [value(draw, depth - 1) for _ in range(draw.randrange(4))]
        return inner if draw.random() < 0.5 else {draw.choice(NAMES): i for i in inner}
    return draw.choice(VALUES)


def bad_override(draw: random.Random) -> str:
    """Return what might stand after ``-s``."""
    keys = ["loss.cliprange", "n_steps", "eval.sets.x.n", "trackers.0.use", "policy", "", "a..b"]
    key = draw.choice(
        [*keys, draw.choice(WORDS).decode(), "".join(draw.choices(string.printable, k=5))]
    )
    value = draw.choice([*PIECES, *WORDS]).decode("utf-8", "surrogateescape")
    return draw.choice(
        (f"{key}={value}", f"{key} = [{value}", key, f"={value}", f"{key}={{a={value}}}")
    )


class Recipes:
    """Loads, explains and writes out recipes in one folder."""

    def __init__(self, folder: Path) -> None:
        self.registry, self.refused = plugins.load(), 0
        self.folder = folder / "recipes"
        shutil.copytree(ROOT / "recipes", self.folder)
        (folder / "data").symlink_to(ROOT / "data")

    def __call__(self, text: bytes, overlay: bytes | None, overrides: list[str]) -> bool:
        """Return whether the recipe is a good one."""
        file, top = self.folder / "bad.toml", self.folder / "top.toml"
        file.write_bytes(text)
        overlays = []
        if overlay is not None:
            top.write_bytes(overlay)
            overlays = [top]
        try:
            node = recipe.load(file, self.registry, overlays, overrides)
        except AlignkitError as error:
            assert str(error).strip(), "an error without a message"  # noqa: PT017
            self.refused += 1
            return False
        tomli_w.dumps(node.dump())
        plan.text(node, file)
        explained(node)
        return True


ROW = (
    b'{"question": "1+1?", "answer": "2", "id": "a", "problem": "p", "solution": "\\\\boxed{2}"}\n'
)


def bad_rows(draw: random.Random) -> bytes:
    """Return a small JSONL, JSON or broken file."""
    rows = [ROW, b'{"question": "2", "answer": "#### 4"}\n', b'{"question": 3, "answer": 1.5}\n']
    text = b"".join(draw.choice(rows) for _ in range(draw.randrange(1, 5)))
    if draw.random() < 0.2:
        text = b"[" + text.strip().replace(b"\n", b",\n") + b"]"
    return mutate(draw, text)


class Rows:
    """Reads data files by each of the built-in data sets."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.refused = folder, 0

    def __call__(self, data: bytes, name: str = "rows.jsonl") -> bool:
        file = self.folder / name
        file.write_bytes(data)
        good = False
        for use in (Jsonl, Gsm8k, Math):
            table = use(path=file if use is Jsonl else str(file))
            problems = [f"{key}: {message}" for key, message in table.check({})]
            try:
                rows = table.build()
            except AlignkitError as error:
                assert problems, "check() let through what build() refuses"
                assert str(error).strip()  # noqa: PT017
                continue
            assert not problems
            assert len(rows) > 0
            assert all(r.question.strip() and r.answer.strip() for r in rows)
            " ".join(r.question + r.answer + r.id for r in rows).encode()  # can be written down
            good = True
        self.refused += not good
        return good
