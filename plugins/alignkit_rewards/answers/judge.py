"""Is an answer right? Runs inside the grading workers; see :mod:`alignkit_rewards.pool`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from alignkit_rewards import words
from alignkit_rewards.equality import Comparer
from alignkit_rewards.extract import answer_in
from alignkit_rewards.structure import Bag, Group, Node, Relation, Scalar, Text, Union, read
from alignkit_rewards.verdict import Conventions, Verdict

MAX_LENGTH = 4000
"""Characters of an answer, once its prose is cut off, that are read as mathematics."""


def judge(golds: Sequence[str], answer: str, rules: Conventions) -> Verdict:
    """Return the verdict on ``answer`` against the accepted ``golds``."""
    verdicts = [_against(gold, answer, rules) for gold in golds]
    right = [v for v in verdicts if v.correct]
    return (right or verdicts or [Verdict(False, "no gold")])[0]


def _against(gold: str, answer: str, rules: Conventions) -> Verdict:
    wanted = gold_answer(gold)
    if value := words.choice_value(wanted):  # "(D) 5": the letter or the value will do
        either = [f"({wanted.partition('(')[2][:1]})", value]
        return judge(either, answer, rules)
    said = (answer, answer_in(answer))
    if (letter := words.choice(wanted)) and letter in map(words.chosen, said):
        return Verdict(True, "choice")
    target = _read(wanted, rules)
    if _is_words(target) and any(words.same_words(wanted, s) for s in said):
        return Verdict(True, "text")
    found = words.number_word(said[1])
    if len(found) > MAX_LENGTH:
        return Verdict(False, "too long")
    node = _read(found, rules)
    if Comparer(rules).same(target, node):
        return Verdict(True, "expression")
    return Verdict(False, "unparsed" if unread(node) else "different")


@lru_cache(maxsize=4096)
def gold_answer(gold: str) -> str:
    """Return the answer inside a gold, which may be a whole solution."""
    return words.number_word(answer_in(gold))


def _read(text: str, rules: Conventions) -> Node:
    return read(text, decimal_comma=rules.decimal_comma)


def _is_words(node: Node) -> bool:
    """Return whether a gold is made of words, or of what can only be compared as words."""
    if isinstance(node, Text):
        return True
    return isinstance(node, Scalar) and (node.tree is None or node.text.isalpha())


def unread(node: Node) -> bool:
    """Return whether some part of an answer could not be read as mathematics."""
    if isinstance(node, Scalar):
        return node.tree is None
    if isinstance(node, Bag | Group | Union):
        return any(unread(item) for item in node.items)
    return isinstance(node, Relation) and all(unread(side) for side in node.sides)
