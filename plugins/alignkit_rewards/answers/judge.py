"""Decide whether an answer is right, from the texts of the gold answers and the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from alignkit.text.boxes import outermost
from alignkit_rewards.answers.algebra.literals import exact, same_number
from alignkit_rewards.answers.shapes.ambiguous import other_reading
from alignkit_rewards.answers.shapes.equality import Comparer
from alignkit_rewards.answers.shapes.nodes import Node, Scalar, Text, unread
from alignkit_rewards.answers.shapes.reading import read
from alignkit_rewards.answers.text import words
from alignkit_rewards.answers.text.languages import in_english
from alignkit_rewards.answers.text.named import same_words
from alignkit_rewards.answers.text.notation import plain_notation
from alignkit_rewards.answers.text.numerals import digits
from alignkit_rewards.answers.text.opposites import contradicts
from alignkit_rewards.answers.text.prose import answer_in
from alignkit_rewards.answers.text.styling import unstyled
from alignkit_rewards.answers.verdict import Conventions, Verdict

_COMMAND = re.compile(r"\\[A-Za-z]+ ?\{([^{}]*)\}")
_FORMAL = re.compile(r"[\[\](){}<>|^_=]")
"""Symbols that comparing words ignores: an unreadable formula with them is not compared so."""

MAX_ANSWER = 20_000
"""Maximum length of an answer; a longer one is right only if it equals the gold character by
character."""

BETWEEN = 300
"""Maximum distance, in characters, between two boxes that are parts of one answer."""

MAX_LENGTH = 4000
"""Maximum length of an answer without its prose that is parsed as mathematics."""


def quick(golds: Sequence[str], answer: str, rules: Conventions) -> Verdict | None:
    """Decide simple cases at once: equal text, plain numbers, empty or too long; None otherwise.

    >>> quick(["0.5"], "1/2", Conventions())
    Verdict(correct=True, why='number')
    """
    text = answer.strip()
    if not text:
        return Verdict(False, "no answer")
    if any(text == gold.strip() for gold in golds):
        return Verdict(True, "exact")
    if len(text) > MAX_ANSWER:
        return Verdict(False, "too long")
    if (number := exact(text)) is None:
        return None
    against = [exact(gold) for gold in golds]
    if any(g is not None and same_number(g, number, rounding=rules.rounding) for g in against):
        return Verdict(True, "number")
    return None if None in against else Verdict(False, "different")


def judge(golds: Sequence[str], answer: str, rules: Conventions) -> Verdict:
    r"""Return the verdict on ``answer`` against the accepted ``golds``.

    sympy may not return on hostile text: call this where it can be killed.

    >>> judge([r"\frac{1}{2}"], "so the answer is $0.5$.", Conventions())
    Verdict(correct=True, why='expression')
    """
    verdicts = [_against(gold, answer, rules) for gold in golds]
    right = [v for v in verdicts if v.correct]
    return (right or verdicts or [Verdict(False, "no gold")])[0]


def _against(gold: str, answer: str, rules: Conventions) -> Verdict:
    if contradicts(gold, answer):
        return Verdict(False, "different")
    return _compared(gold, answer, rules)


def _compared(gold: str, answer: str, rules: Conventions) -> Verdict:
    wanted, letter, value = _gold_answer(gold)
    if value:  # "(D) 5": the letter or the value will do
        return judge([f"({wanted.partition('(')[2][:1]})", value], answer, rules)
    end = answer if rules.several_boxes == "agree" else _ending(answer)
    spelled = _spelled(end)
    said = (spelled if end is answer else answer, answer_in(spelled, rules))
    if letter and letter in map(words.chosen, said):
        return Verdict(True, "choice")
    target = read(wanted, decimal_comma=rules.decimal_comma)
    if _is_words(target) and any(same_words(wanted, s) for s in said):
        return Verdict(True, "text")
    found = digits(said[1])
    if len(found) > MAX_LENGTH:
        return Verdict(False, "too long")
    return _by_shape(target, found, rules)


def _by_shape(gold: Node, found: str, rules: Conventions) -> Verdict:
    """Compare an answer without its prose with a gold, in a second reading if the first differs."""
    node = read(found, decimal_comma=rules.decimal_comma)
    same = _comparer(rules).same
    other = "" if (right := same(gold, node)) else other_reading(gold, found)
    if right or (other and same(gold, read(other, decimal_comma=rules.decimal_comma))):
        return Verdict(True, "expression")
    return Verdict(False, "unparsed" if unread(node) else "different")


_comparer = lru_cache(maxsize=16)(Comparer)


def _ending(text: str) -> str:
    r"""Return the part of a solution with its last boxes, or the part after ``####``.

    >>> print(_ending(r"We add 2 and 3, so it is $\boxed{5}$, as was to be shown."))
    \boxed{5}
    """
    at = last = text.rfind("\\boxed")
    while at > 0 and (before := text.rfind("\\boxed", 0, at)) >= max(
        0, at - BETWEEN, last - MAX_LENGTH
    ):
        at = before
    if at >= 0:
        return _to_the_last_box(text[at:])
    mark = -1 if "\\fbox" in text else text.rfind("####")
    return text[mark:] if mark >= 0 and text[mark:].strip("# \n") else text


def _to_the_last_box(text: str) -> str:
    """Cut the text after the last box, unless a tag in it may contain the answer."""
    boxes = outermost(text)
    return text[: boxes[-1].end] if boxes and "<" not in text[boxes[-1].end :] else text


@lru_cache(maxsize=4096)
def _spelled(text: str) -> str:
    return plain_notation(in_english(unstyled(text)))


@lru_cache(maxsize=4096)
def _gold_answer(gold: str) -> tuple[str, str, str]:
    """Return the answer in a gold, which may be a whole solution, with its letter and value."""
    wanted = digits(answer_in(_spelled(_ending(gold))))
    return wanted, words.choice(wanted), words.choice_value(wanted)


def _is_words(node: Node) -> bool:
    """Return whether a gold is made of words, or can only be compared as words."""
    if isinstance(node, Scalar):
        bare = _COMMAND.sub(r"\1", node.text)
        return node.text.isalpha() or (node.tree is None and not _FORMAL.search(bare))
    return isinstance(node, Text)
