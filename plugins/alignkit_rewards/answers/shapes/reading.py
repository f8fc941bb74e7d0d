r"""Parse an answer into its shape: number, tuple, interval, set, list, relation or words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from alignkit.text.boxes import outermost
from alignkit_rewards.answers.algebra.commands import tree_of
from alignkit_rewards.answers.algebra.trees import Tree, choose_signs, contains
from alignkit_rewards.answers.shapes.intervals import as_intervals
from alignkit_rewards.answers.shapes.nodes import (
    Bag,
    Group,
    Node,
    Ratio,
    Relation,
    Scalar,
    Text,
    Union,
)
from alignkit_rewards.answers.shapes.sets import condition, is_empty, points_of, without
from alignkit_rewards.answers.text.brackets import matching, outside, pieces, split_top
from alignkit_rewards.answers.text.normalize import ROW, canonical
from alignkit_rewards.answers.text.notation import plain_brackets
from alignkit_rewards.answers.text.quantities import several_units
from alignkit_rewards.answers.text.runs import UNREAD
from alignkit_rewards.answers.text.units import (
    marked_price,
    split_currency,
    split_percent,
    split_unit,
)

_RELATIONS = {
    "=": "=", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\approx": "~",
    r"\in": "in", r"\equiv": "=", r"\sim": "~", r"\Rightarrow": "=>", r"\rightarrow": "=>",
    r"\subset": "sub", r"\subseteq": "sub",
}  # fmt: skip
_NAMED = "|".join(sign[1:] for sign in _RELATIONS if sign.startswith("\\"))
_RELATION = re.compile(rf"\\(?:{_NAMED})(?![a-zA-Z])|[=<>]")
_AND = re.compile(
    r"\\text\s*\{\s*+(?:,\s*+)?(?:and|or|&)\s*+(?:,\s*+)?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;"
)
_MAY_LIST = re.compile("[,;&]|and|or")
_UNMARKED = re.compile(r"[\d+\-*/^(){}.,!|=' ]+")
"""Shapes that cannot have a unit, currency or percent sign."""
_COMMA, _SEPARATOR, _COLON = re.compile(","), re.compile("[,;]"), re.compile(":")
_SEMICOLON = re.compile(";")
_CUP = re.compile(r"\\cup(?![a-zA-Z])|(?<=[\])])\s*[Uu]\s*(?=[\[(])")
_SETMINUS = re.compile(r"\\setminus(?![a-zA-Z])")
_GROUPED = re.compile(r"(?<![\d.,\w])\d{1,3}(?:,\d{3})+(?![\d,])")
_SPACED = re.compile(r"(?<![\d.,\w])\d{1,3}(?: \d{3})+(?![\d/])")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALED = re.compile(rf"(?<![\d.])(\d[\d.]*) (?:\\text ?\{{ ?)?({'|'.join(_SCALES)})\b ?\}}?", re.I)
_NOON = re.compile(r"\b([ap])\.m(?:\.|\b)", re.I)
_REALS = re.compile(
    r"(?:x ?\\in ?)?\\math(?:bb|bf) ?\{? ?R ?\}?|(?:\\text ?\{ ?)?all real(?:s| numbers)(?: ?\})?",
    re.I,
)
_RATIO_WORDS = re.compile(r"\d+ to \d+")
_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d+),(\d+)(?![\d,.])")
_DELIMITERS = re.compile(r"(?<!\\)\$|\\[()\[\]]")
_NUMBERED = re.compile(r"[-+$\\]*\d")
_ONLY_TEXT = re.compile(r"\(?\s*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*\)?\.?")


@lru_cache(maxsize=4096)
def read(text: str, *, decimal_comma: bool = False) -> Node:
    r"""Return the shape of an answer whose prose has been removed."""
    if text.startswith(UNREAD):
        return Scalar(text, None)
    clean = plain_brackets(strip_marks(canonical(marked_price(text))))
    if "," in clean:
        clean = outside(clean, _GROUPED, lambda m: m[0].replace(",", ""))
        if decimal_comma:
            clean = outside(clean, _DECIMAL_COMMA, lambda m: f"{m[1]}.{m[2]}")
    return _shape(clean)


@lru_cache(maxsize=4096)
def _shape(clean: str) -> Node:
    """Return the shape of an answer without layout, which may still be phrased in many ways."""
    if "." in clean:
        clean = _NOON.sub(lambda m: f"{m[1]}m", clean)
    if " " in clean:
        clean = _SCALED.sub(lambda m: f"({m[1]}*10^{_SCALES[m[2].lower()]})", clean)
        clean = _SPACED.sub(lambda m: m[0].replace(" ", ""), clean)
    return _read(clean, 0)


def strip_marks(text: str) -> str:
    r"""Drop math delimiters, a surrounding box and closing punctuation.

    >>> strip_marks(r"$\boxed{5}$."), strip_marks(r"\(x\)"), strip_marks(r"\$5")
    ('5', 'x', '\\$5')
    """
    if "$" in text or "\\" in text:
        text = _DELIMITERS.sub(" ", text)
    text = text.strip().lstrip(",;: ").rstrip(f",;:. {ROW}")
    while "box" in text and (box := outermost(text)) and box[0][:2] == (0, len(text)):
        text = box[0].content.strip()
    return text


def _read(text: str, depth: int) -> Node:
    text = text.strip()
    if depth > 12:
        return Scalar(text, None)
    if _REALS.fullmatch(text):
        return _all_reals(text)
    if is_empty(text):
        return Bag(text, (), braces=True)
    if words := _only_text(text):
        return _read(words, depth + 1) if _NUMBERED.match(words) else Text(words)
    for reader in (_mixed, _listed, _related, _united, _difference, _bracketed, _proportion):
        if (node := reader(text, depth)) is not None:
            return node
    return _scalar(text)


def _all_reals(text: str) -> Group:
    infinity: Tree = ("const", "inf")
    ends = (Scalar("-\\infty", ("neg", infinity)), Scalar("\\infty", infinity))
    return Group(text, ends, "(", ")")


def _only_text(text: str) -> str:
    r"""Return the words of an answer that is all ``\text{…}``."""
    found = _ONLY_TEXT.fullmatch(text)
    return found[1].strip() if found else ""


def _mixed(text: str, depth: int) -> Node | None:
    """Read ``1 hour 30 minutes`` as 90 minutes."""
    found = several_units(text)
    return Scalar(text, ("num", found[0], 0), unit=found[1]) if found else None


def _listed(text: str, depth: int) -> Node | None:
    if text and not _MAY_LIST.search(text):
        return None
    marked = [(mark, p) for mark, p in split_top(text, _AND) if p.strip(" ,")]
    parts = [p for _, p in marked]
    if len(parts) == 1:
        parts = [p for p in pieces(parts[0].strip(" ,"), _COMMA) if p.strip()]
        if len(parts) == 1:
            return None if parts[0].strip() == text else _read(parts[0], depth + 1)
    items = _flat([_read(p.strip(" ,"), depth + 1) for p in parts])
    joint = any("and" in mark for mark, _ in marked) and all(map(_is_inequality, items))
    return Bag(text, items, joint=joint)


def _is_inequality(node: Node) -> bool:
    return isinstance(node, Relation) and set(node.signs) <= {"<", "<=", ">", ">=", "!="}


def _flat(items: Sequence[Node]) -> tuple[Node, ...]:
    """Flatten nested lists."""
    inner = (i.items if isinstance(i, Bag) and not i.braces else (i,) for i in items)
    return tuple(node for nodes in inner for node in nodes)


def _related(text: str, depth: int) -> Node | None:
    parts = split_top(text, _RELATION)
    if len(parts) == 1:
        return None
    if any(sign in {r"\Rightarrow", r"\rightarrow"} for sign, _ in parts):
        return _read(parts[-1][1], depth + 1)
    parts = [p for p in parts if p[1].strip()]
    if len(parts) < 2:
        named = parts and parts[0][0] in {"", "=", r"\equiv"}
        return _read(parts[0][1], depth + 1) if named else Scalar(text, None)
    signs = tuple(_RELATIONS[sign] for sign, _ in parts[1:])
    return Relation(text, tuple(_read(side, depth + 1) for _, side in parts), signs)


def _united(text: str, depth: int) -> Node | None:
    if "u" not in text and "U" not in text:
        return None
    parts = pieces(text, _CUP)
    return Union(text, tuple(_read(p, depth + 1) for p in parts)) if len(parts) > 1 else None


def _difference(text: str, depth: int) -> Node | None:
    """Read a set of reals without some points as a union of intervals."""
    if "setminus" not in text:
        return None
    parts = pieces(text, _SETMINUS)
    if len(parts) != 2:
        return None
    whole = _all_reals(text) if parts[0].strip() == "R" else _read(parts[0], depth + 1)
    base, points = as_intervals(whole), points_of(_read(parts[1], depth + 1))
    left = without(base, points) if base and points else None
    return Union(text, tuple(left)) if left else None


def _bracketed(text: str, depth: int) -> Node | None:
    if text.startswith(("\\langle", "<")) and text.endswith(("\\rangle", ">")):
        text = "(" + text.removeprefix("\\langle").removesuffix("\\rangle").strip("<>") + ")"
    escaped = text.startswith("\\{")
    left, right = text[escaped : escaped + 1], text[-1:]
    if left not in "([{" or right not in ")]}" or escaped != text.endswith("\\}"):
        return None
    if len(text) < 2 or matching(text, int(escaped)) != len(text) - 1:
        return None  # also where the first bracket closes early, as in (1,2)+(3,4)
    inner = text[2:-2] if escaped else text[1:-1]
    if left == "{":
        return _braced(text, inner, escaped, depth)
    parts = pieces(inner, _COMMA)
    if len(parts) == 1:
        parts = pieces(inner, _SEMICOLON)
    if len(parts) == 1:
        node = _read(inner, depth + 1) if left + right == "()" else None
        return node if isinstance(node, Text | Relation | Group | Bag | Ratio) else None
    return Group(text, tuple(_read(p, depth + 1) for p in parts), left, right)


def _braced(text: str, inner: str, escaped: bool, depth: int) -> Node:
    if (described := condition(inner)) and isinstance(
        node := _read(described, depth + 1), Relation | Bag
    ):
        return node
    parts = pieces(inner, _SEPARATOR)
    if escaped or len(parts) > 1:
        return Bag(text, _flat([_read(p, depth + 1) for p in parts if p.strip()]), braces=True)
    return _read(inner, depth + 1)


def _proportion(text: str, depth: int) -> Node | None:
    if ":" not in text and " to " not in text:
        return None
    if _RATIO_WORDS.fullmatch(text):
        text = text.replace(" to ", ":")
    parts = pieces(text, _COLON)
    if len(parts) == 1 or not all(p.strip() for p in parts):
        return None
    return Ratio(text.replace(" ", ""), tuple(_read(p, depth + 1) for p in parts))


def _scalar(text: str) -> Node:
    if _UNMARKED.fullmatch(text):
        return Scalar(text, tree_of(text))
    core, money = split_currency(text)
    core, percent = split_percent(core)
    core, words = split_unit(core)
    core, again = split_percent(core)
    core, also = split_currency(core)
    tree = tree_of(core) if not (percent and again) else None
    if tree is None:
        return Scalar(text, tree_of(text) if not again else None)
    percent, unit = percent or again, words or money or also
    if ("pm" in core or "mp" in core) and contains(tree, "pm", "mp"):
        both = [
            Scalar(f"{text} ({sign})", choose_signs(tree, sign == "upper"), percent, unit)
            for sign in ("upper", "lower")
        ]
        return Bag(text, tuple(both))
    return Scalar(core, tree, percent, unit)
