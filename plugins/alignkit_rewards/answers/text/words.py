r"""Answers in words: names, yes and no, letters of options."""

from __future__ import annotations

import re

from alignkit_rewards.answers.text.normalize import canonical

_COMMAND_GROUP = re.compile(r"\\(?:text|mathrm|mathbf|mathit|mathsf)\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"\(?\s*([A-Z])\s*\)?\.?")
_LETTERED = re.compile(r"(?:\\text ?\{ ?)?\([A-Z]\) ?(?:\} ?| )([^+*/^=-].*)")
_CHOSEN = (
    re.compile(r"^\W*\(([A-Z])\)"),
    re.compile(r"^\W*([A-Z])(?:[.):]|\s*$)"),
    re.compile(
        r"\b(?:option|choice|answer(?: is| would be)?)\s*+(?::\s*+)?\(?([A-Z])\b\)?(?!')", re.I
    ),
    re.compile(r"\(([A-Z])\)\W*$"),
    re.compile(r"(?:\bis|:)\s*+([A-Z])\W*$"),
)
_NO_WORD = re.compile(r"\\[A-Za-z]+|[^\w\s'+\-]|_")
_LAYOUT = re.compile(r"[${}]")
_BOXES = re.compile(r"\\boxed|\\[()]|[$*{}]")
_IN_BRACKETS = re.compile(r"\(([A-Z])\)")


def plain(text: str) -> str:
    r"""Return the words of a text, lower case, without LaTeX and punctuation.

    >>> plain(r"\text{The midpoints, } east.")
    'the midpoints east'
    """
    text = _COMMAND_GROUP.sub(r" \1 ", canonical(text))
    text = _NO_WORD.sub(" ", text)
    return " ".join(text.lower().split())


def choice(text: str) -> str:
    r"""Return the letter of a multiple-choice gold such as ``\text{(C)}`` or ``C``, else ``""``."""
    bare = _LAYOUT.sub("", _COMMAND_GROUP.sub(r"\1", canonical(text))).strip()
    found = _CHOICE.fullmatch(bare)
    return found[1] if found else ""


def choice_value(text: str) -> str:
    r"""Return the value after the letter of a gold such as ``\textbf{(D)}\ 5``, else ``""``.

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
    bare = _BOXES.sub(" ", bare).strip()
    if len(set(_IN_BRACKETS.findall(bare))) > 1 and not _CHOSEN[2].search(bare):
        return ""  # several letters, none of them stated to be the answer
    for pattern in _CHOSEN:
        if found := pattern.findall(bare):
            letter = str(found[-1])
            return letter if letter.isupper() else ""
    return ""
