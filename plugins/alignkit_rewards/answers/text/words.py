r"""Answers that are words: names, yes and no, choice letters."""

from __future__ import annotations

import re

from alignkit_rewards.answers.text.normalize import canonical
from alignkit_rewards.answers.text.vocabulary import word_set

_COMMAND_GROUP = re.compile(r"\\(?:text|mathrm|mathbf|mathit|mathsf)\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"\(?\s*([A-Z])\s*\)?\.?")
_LETTERED = re.compile(r"(?:\\text ?\{ ?)?\([A-Z]\) ?(?:\} ?| )([^+*/^=-].*)")
_CHOSEN = (
    re.compile(r"^\W*\(([A-Z])\)"),
    re.compile(r"^\W*([A-Z])(?:[.):]|\s*$)"),
    re.compile(r"\b(?:option|choice|answer(?: is| would be)?)\s*:?\s*\(?([A-Z])\b\)?(?!')", re.I),
    re.compile(r"\(([A-Z])\)\W*$"),
    re.compile(r"(?:\bis|:)\s*([A-Z])\W*$"),
)
_DENIED = re.compile(r"\b(?:not|no|never|neither|nor|or|isn't|cannot|n't|either)\b|n't\b|/", re.I)
_FILLER = word_set("a an the is are it he she they was be so therefore thus hence answer")
_SAME = {"true": "yes", "false": "no", "y": "yes", "n": "no", "dne": "does not exist"}

MAX_SENTENCE = 40
"""Words of a sentence in which an answer may stand at the start or the end."""


def plain(text: str) -> str:
    r"""Return the words of a text, lower case, without LaTeX and punctuation.

    >>> plain(r"\text{The midpoints, } east.")
    'the midpoints east'
    """
    text = _COMMAND_GROUP.sub(r" \1 ", canonical(text))
    text = re.sub(r"\\[A-Za-z]+|[^\w\s'+\-]|_", " ", text)
    return " ".join(text.lower().split())


def choice(text: str) -> str:
    r"""Return the letter of a multiple-choice gold such as ``\text{(C)}`` or ``C``, else ``""``."""
    bare = re.sub(r"[${}]", "", _COMMAND_GROUP.sub(r"\1", canonical(text))).strip()
    found = _CHOICE.fullmatch(bare)
    return found[1] if found else ""


def choice_value(text: str) -> str:
    r"""Return what stands behind the letter of a gold such as ``\textbf{(D)}\ 5``, else ``""``.

    >>> choice_value(r"\textbf{(D)}\ 5"), choice_value(r"\text{(D)}"), choice_value("(D) + 5")
    ('5', '', '')
    """
    found = _LETTERED.fullmatch(canonical(text))
    return found[1] if found else ""


def chosen(text: str) -> str:
    """Return the letter an answer chooses, ``""`` if it names none.

    >>> [chosen(t) for t in ("C", "(C) 12", "C. 12", "the answer is C", "$\\\\text{(C)}$", "Cats")]
    ['C', 'C', 'C', 'C', 'C', '']
    """
    bare = _COMMAND_GROUP.sub(r" \1 ", canonical(text))
    bare = re.sub(r"\\boxed|\\[()]|[$*{}]", " ", bare).strip()
    if len(set(re.findall(r"\(([A-Z])\)", bare))) > 1 and not _CHOSEN[2].search(bare):
        return ""  # several letters, none of them named as the answer
    for pattern in _CHOSEN:
        if found := pattern.findall(bare):
            letter = str(found[-1])
            return letter if letter.isupper() else ""
    return ""


def same_words(gold: str, answer: str) -> bool:
    """Return whether an answer says the words of the gold.

    In a short sentence the gold may stand at either end, unless the sentence denies or offers
    alternatives.

    >>> same_words("Evelyn", "Evelyn was the fastest."), same_words("Evelyn", "not Evelyn")
    (True, False)
    """
    wanted, said = plain(gold), plain(answer)
    if not wanted:
        return False
    if _SAME.get(wanted, wanted) == _SAME.get(said, said):
        return True
    kept = (
        [w for w in wanted.split() if w not in _FILLER],
        [w for w in said.split() if w not in _FILLER],
    )
    if kept[0] and kept[0] == kept[1]:
        return True
    if not 0 < len(said.split()) <= MAX_SENTENCE or (
        _DENIED.search(answer) and not _DENIED.search(gold)
    ):
        return False
    words, target = said.split(), wanted.split()
    if len(wanted) < 2 or len(target) >= len(words):
        return False
    return words[: len(target)] == target or words[-len(target) :] == target
