r"""Answers with two readings, between which the gold decides: 5x4, R, 25 and 2/3.

They are a product, the real numbers and a mixed number only if the gold is a number or the real
numbers. Otherwise ``5x4`` is a size or contains an unknown, ``R`` is a letter, and 25 and 2/3 are
two numbers.
"""

from __future__ import annotations

import re

from alignkit_rewards.answers.algebra.trees import names
from alignkit_rewards.answers.shapes.nodes import Group, Node, Scalar

_PRODUCT = re.compile(r"([1-9]\d*+)[xX](\d++)")
_REALS = re.compile(r"(?:[a-z] ?(?:\\in|∈|in) ?)?R")
_PART = r"(\d{1,9}+)/(\d{1,9}+)|\\[dt]?frac\{(\d{1,9}+)\}\{(\d{1,9}+)\}"
_MIXED = re.compile(rf"\$?([1-9]\d{{0,8}}+)\$? and \$?(?:{_PART})\$?(.*+)", re.S)


def other_reading(gold: Node, answer: str) -> str:
    r"""Return the answer in the reading that the gold suggests, ``""`` if there is no second one.

    >>> from alignkit_rewards.answers.shapes.reading import read
    >>> other_reading(read("20"), "5x4"), other_reading(read("20x"), "5x4")
    ('5 * 4', '')
    >>> other_reading(read("77/3"), "25 and 2/3"), other_reading(read("25, 2/3"), "25 and 2/3")
    ('25 2/3', '')
    """
    said = " ".join(answer.split()).strip(" .")
    bare = said.removeprefix("$").removesuffix("$").strip()
    if isinstance(gold, Group):
        return r"\mathbb{R}" if _are_reals(gold) and _REALS.fullmatch(bare) else ""
    if not isinstance(gold, Scalar) or gold.tree is None or names(gold.tree):
        return ""
    if product := _PRODUCT.fullmatch(bare):
        return f"{product[1]} * {product[2]}"
    mixed = _MIXED.fullmatch(said)
    if mixed is None or " and " in mixed[6] or "," in mixed[6]:
        return ""
    top, bottom = mixed[2] or mixed[4], mixed[3] or mixed[5]
    return f"{mixed[1]} {top}/{bottom}{mixed[6]}" if int(top) < int(bottom) else ""


def _are_reals(gold: Group) -> bool:
    ends = tuple(item.tree for item in gold.items if isinstance(item, Scalar))
    return ends == (("neg", ("const", "inf")), ("const", "inf"))
