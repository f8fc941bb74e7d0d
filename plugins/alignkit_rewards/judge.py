"""Is an answer right? Runs inside the grading workers; see :mod:`alignkit_rewards.pool`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache

from alignkit_rewards import words
from alignkit_rewards.equality import Comparer
from alignkit_rewards.extract import answer_in
from alignkit_rewards.structure import Bag, Group, Node, Relation, Scalar, Text, Union, read
from alignkit_rewards.verdict import Conventions, Verdict


def warm_up() -> None:
    """Import the symbolic library before the first verdict is timed."""
    importlib.import_module("math_verify")


def judge(golds: Sequence[str], answer: str, rules: Conventions) -> Verdict:
    """Return the verdict on ``answer`` against the accepted ``golds``."""
    verdicts = [_against(gold, answer, rules) for gold in golds]
    right = [v for v in verdicts if v.correct]
    return (right or verdicts or [Verdict(False, "no gold")])[0]


def _against(gold: str, answer: str, rules: Conventions) -> Verdict:
    wanted = gold_answer(gold)
    if letter := words.choice(wanted):
        if words.chosen(answer) == letter or words.chosen(answer_in(answer)) == letter:
            return Verdict(True, "choice")
    target = _read(wanted, rules)
    if isinstance(target, Text) or _is_words(target):
        if words.same_words(wanted, answer) or words.same_words(wanted, answer_in(answer)):
            return Verdict(True, "text")
    found = words.number_word(answer_in(answer))
    said = _read(found, rules)
    if Comparer(rules).same(target, said):
        return Verdict(True, "expression")
    return Verdict(False, "unparsed" if unread(said) else "different")


@lru_cache(maxsize=4096)
def gold_answer(gold: str) -> str:
    """Return the answer inside a gold, which may be a whole solution."""
    return words.number_word(answer_in(gold))


def _read(text: str, rules: Conventions) -> Node:
    return read(text, decimal_comma=rules.decimal_comma)


def _is_words(node: Node) -> bool:
    """Return whether a gold that did not parse is made of words."""
    return isinstance(node, Scalar) and (node.tree is None or node.text.isalpha())


def unread(node: Node) -> bool:
    """Return whether some part of an answer could not be read as mathematics."""
    if isinstance(node, Scalar):
        return node.tree is None
    if isinstance(node, Bag | Group | Union):
        return any(unread(item) for item in node.items)
    return isinstance(node, Relation) and all(unread(side) for side in node.sides)
