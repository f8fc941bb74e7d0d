r"""The shape of an answer: number, tuple, interval, set, list, equation, inequality, words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from alignkit_rewards.brackets import outside, split_top
from alignkit_rewards.exact import choose_signs, contains
from alignkit_rewards.expression import Tree, parse
from alignkit_rewards.matrix import fold
from alignkit_rewards.normalize import ROW, canonical, matching
from alignkit_rewards.tokens import UnreadableError
from alignkit_rewards.units import split_currency, split_percent, split_unit


@dataclass(frozen=True, slots=True)
class Scalar:
    """One expression, with what stood around it."""

    text: str
    tree: Tree | None
    """None: not readable by the own parser."""
    percent: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """A tuple, vector or interval: ordered, in brackets."""

    text: str
    items: tuple[Node, ...]
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Bag:
    """A set in braces, or a list without brackets."""

    text: str
    items: tuple[Node, ...]
    braces: bool = False


@dataclass(frozen=True, slots=True)
class Union:
    """Sets joined by a union sign."""

    text: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Ratio:
    """``3:4:5``, or a time of day."""

    text: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """``x = 2``, ``1 < x \\le 2``, ``x \\in A``."""

    text: str
    sides: tuple[Node, ...]
    signs: tuple[str, ...] = field(default=())


Node = Scalar | Text | Group | Bag | Union | Ratio | Relation

_RELATIONS = {
    "=": "=", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\approx": "~",
    r"\in": "in", r"\equiv": "=", r"\sim": "~", r"\Rightarrow": "=>", r"\rightarrow": "=>",
    r"\subset": "sub", r"\subseteq": "sub",
}  # fmt: skip
_RELATION = re.compile(
    r"\\(?:le|ge|ne|approx|in|equiv|sim|Rightarrow|rightarrow|subset|subseteq)(?![a-zA-Z])|[=<>]"
)
_AND = re.compile(
    r"\\text\s*\{\s*,?\s*(?:and|or|&)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;"
)
_COMMA = re.compile(r",")
_CUP = re.compile(r"\\cup(?![a-zA-Z])|(?<=[\])])\s*[Uu]\s*(?=[\[(])")
_COLON = re.compile(r":")
_GROUPED = re.compile(r"(?<![\d.,\w])\d{1,3}(?:,\d{3})+(?![\d,])")
_SPACED = re.compile(r"(?<![\d.,\w])\d{1,3}(?: \d{3})+(?![\d/])")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALED = re.compile(rf"(?<![\d.])(\d[\d.]*) (?:\\text ?\{{ ?)?({'|'.join(_SCALES)})\b ?\}}?", re.I)
_SENTENCE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,20}\s\d{1,9}$")
"""A word before a number, as in a date: no product of letters."""
_NOON = re.compile(r"\b([ap])\.m(?:\.|\b)", re.I)
_REALS = re.compile(
    r"(?:x ?\\in ?)?\\mathbb ?\{? ?R ?\}?|(?:\\text ?\{ ?)?all real(?:s| numbers)(?: ?\})?", re.I
)
_RATIO_WORDS = re.compile(r"\d+ to \d+")
_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d+),(\d+)(?![\d,.])")


@lru_cache(maxsize=4096)
def read(text: str, *, decimal_comma: bool = False) -> Node:
    r"""Return the shape of an answer that has been cut out of its prose."""
    clean = strip_marks(canonical(text))
    if "," in clean:
        clean = outside(clean, _GROUPED, lambda m: m[0].replace(",", ""))
        if decimal_comma:
            clean = outside(clean, _DECIMAL_COMMA, lambda m: f"{m[1]}.{m[2]}")
    clean = _NOON.sub(r"\1m", clean)
    clean = _SCALED.sub(lambda m: f"({m[1]}*10^{_SCALES[m[2].lower()]})", clean)
    clean = _SPACED.sub(lambda m: m[0].replace(" ", ""), clean)
    return _read(clean, 0)


def strip_marks(text: str) -> str:
    r"""Drop math delimiters, a surrounding box and closing punctuation.

    >>> strip_marks(r"$\boxed{5}$."), strip_marks(r"\(x\)"), strip_marks(r"\$5")
    ('5', 'x', '\\$5')
    """
    text = re.sub(r"(?<!\\)\$|\\[()\[\]]", " ", text)
    text = text.strip().lstrip(",;: ").rstrip(f",;:. {ROW}")
    while (box := re.match(r"\\boxed ?\{", text)) and matching(text, box.end() - 1) == len(
        text
    ) - 1:
        text = text[box.end() : -1].strip()
    return text


def _read(text: str, depth: int) -> Node:
    text = text.strip()
    if depth > 12:
        return Scalar(text, None)
    if _REALS.fullmatch(text):
        return _all_reals(text)
    if words := _only_text(text):
        return _read(words, depth + 1) if re.match(r"[-+$\\]*\d", words) else Text(words)
    for reader in (_listed, _related, _united, _bracketed, _proportion):
        if (node := reader(text, depth)) is not None:
            return node
    return _scalar(text)


def _all_reals(text: str) -> Group:
    infinity: Tree = ("const", "inf")
    ends = (Scalar("-\\infty", ("neg", infinity)), Scalar("\\infty", infinity))
    return Group(text, ends, "(", ")")


def _only_text(text: str) -> str:
    r"""Return the words of an answer that is all ``\text{…}``."""
    found = re.fullmatch(r"\(?\s*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*\)?\.?", text)
    return found[1].strip() if found else ""


def _listed(text: str, depth: int) -> Node | None:
    parts = [p for _, p in split_top(text, _AND) if p.strip(" ,")]
    if len(parts) == 1:
        parts = [p for _, p in split_top(parts[0].strip(" ,"), _COMMA) if p.strip()]
        if len(parts) == 1:
            return None if parts[0].strip() == text else _read(parts[0], depth + 1)
    return Bag(text, _flat([_read(p.strip(" ,"), depth + 1) for p in parts]))


def _flat(items: Sequence[Node]) -> tuple[Node, ...]:
    """Open lists within lists, and let ``n = 2, 3`` or ``(x, y) = (1, 2), (3, 4)`` share a name."""
    flat: list[Node] = []
    for item in items:
        flat += item.items if isinstance(item, Bag) and not item.braces else (item,)
    first = flat[0] if flat else None
    if (
        len(flat) > 1
        and isinstance(first, Relation)
        and set(first.signs) <= {"=", "in"}
        and not any(isinstance(i, Relation) for i in flat[1:])
    ):
        flat[0] = first.sides[-1]
    return tuple(flat)


def _related(text: str, depth: int) -> Node | None:
    parts = split_top(text, _RELATION)
    if len(parts) == 1:
        return None
    if any(sign in {r"\Rightarrow", r"\rightarrow"} for sign, _ in parts):
        return _read(parts[-1][1], depth + 1)
    parts = [p for p in parts if p[1].strip()]
    if len(parts) < 2:
        return _read(parts[0][1], depth + 1) if parts else Scalar(text, None)
    signs = tuple(_RELATIONS[sign] for sign, _ in parts[1:])
    sides = tuple(_read(side, depth + 1) for _, side in parts)
    last = sides[-1]
    if isinstance(last, Bag) and not last.braces and set(signs) <= {"=", "~"}:
        # x = 1 +- 2: the values are a list, the name is shared
        return Relation(text, (*sides[:-1], Bag(last.text, last.items)), signs)
    return Relation(text, sides, signs)


def _united(text: str, depth: int) -> Node | None:
    parts = split_top(text, _CUP)
    if len(parts) == 1:
        return None
    return Union(text, tuple(_read(p, depth + 1) for _, p in parts))


def _bracketed(text: str, depth: int) -> Node | None:
    if text.startswith(("\\langle", "<")) and text.endswith(("\\rangle", ">")):
        text = "(" + text.removeprefix("\\langle").removesuffix("\\rangle").strip("<>") + ")"
    left = "{" if text.startswith("\\{") else text[:1]
    right = "}" if text.endswith("\\}") else text[-1:]
    if left not in "([{" or right not in ")]}" or len(text) < 2:
        return None
    start, end = (2, -2) if text.startswith("\\{") else (1, -1)
    if (start == 2) != text.endswith("\\}") or _closes_early(text):
        return None
    parts = [p for _, p in split_top(text[start:end], _COMMA)]
    if left == "{":
        semicolons = [p for _, p in split_top(text[start:end], re.compile("[,;]"))]
        if start == 2 or len(semicolons) > 1:
            items = [_read(p, depth + 1) for p in semicolons if p.strip()]
            return Bag(text, _flat(items), braces=True)
        return _read(text[1:-1], depth + 1)
    if len(parts) == 1:
        inner = _read(parts[0], depth + 1) if left == "(" and right == ")" else None
        return inner if isinstance(inner, Text | Relation | Group | Bag | Ratio) else None
    return Group(text, tuple(_read(p, depth + 1) for p in parts), left, right)


def _closes_early(text: str) -> bool:
    """Return whether the first bracket closes before the end, as in ``(1,2)+(3,4)``."""
    start = 1 if text.startswith("\\{") else 0
    return matching(text, start) != len(text) - 1


def _proportion(text: str, depth: int) -> Node | None:
    if _RATIO_WORDS.fullmatch(text):
        text = text.replace(" to ", ":")
    parts = [p for _, p in split_top(text, _COLON)]
    if len(parts) == 1 or not all(p.strip() for p in parts):
        return None
    return Ratio(text.replace(" ", ""), tuple(_read(p, depth + 1) for p in parts))


def _scalar(text: str) -> Node:
    core, money = split_currency(text)
    core, percent = split_percent(core)
    core, words = split_unit(core)
    core, again = split_percent(core)
    core, also = split_currency(core)
    tree = _tree(core)
    if tree is None:
        return Scalar(text, _tree(text))
    percent, unit = percent or again, words or money or also
    if contains(tree, "pm") or contains(tree, "mp"):
        both = [
            Scalar(f"{text} ({sign})", choose_signs(tree, sign == "upper"), percent, unit)
            for sign in ("upper", "lower")
        ]
        return Bag(text, tuple(both))
    return Scalar(core, tree, percent, unit)


def _tree(text: str) -> Tree | None:
    if _SENTENCE.search(text):
        return None
    try:
        return fold(parse(text))
    except (UnreadableError, RecursionError):
        return None
