"""Extract the option that a response chooses, or the last number that it names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from alignkit.text.boxes import outermost

_NUMBER = re.compile(
    r"""(?:(?<![\w.)\]%])[-−])?   # a sign, unless it subtracts
    (?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?   # 1,234,567.8
    |\d+(?:\.\d+)?   # 1234.5
    |\.\d+)""",  # .5
    re.VERBOSE,
)
_STATED = re.compile(r"\b(?:answer|option|choice)\b\s*(?:is|:)?\s*:?\s*", re.IGNORECASE)
_LETTER = re.compile(r"[\s*_`\"'(\[]*([A-Z])(?![A-Za-z0-9'’])")
_STYLED = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|boldsymbol)\s*\{([^{}]*)\}"
    r"|\$\s*(\(?[A-Z]\)?)\s*\$|</?(?:b|strong|i|em)>"
)
_ANOTHER = re.compile(r"[)\]*_\s,.]*(?:\b(?:and|or)\b|[/,&])[\s*_(\[]*([A-Z])(?![A-Za-z0-9'’])")


def chosen_option(texts: Sequence[str], output: str) -> str | None:
    r"""Return the letter of the option the output chooses, or None.

    ``texts`` are the options in order, A first. If boxes (``\boxed{}``) name options, these decide:
    the option if all name the same one, None otherwise. Without them, the text of an option or else
    its letter is looked for after each "answer is", "answer:" or "option", or at the beginning of
    the output if there is no such phrase. The first one found is returned.
    """
    options = {chr(ord("A") + i): text for i, text in enumerate(texts)}
    boxed = {_option_in_box(box.content, options) for box in outermost(output)} - {None}
    if boxed:
        return boxed.pop() if len(boxed) == 1 else None
    shown = _shown(output)
    places = [match.end() for match in _STATED.finditer(shown)] or [0]
    for place in places:
        found = _option_at(shown[place:].lstrip(), options)
        if found:
            return found
    return None


def _shown(text: str) -> str:
    """Return ``text`` without markup that only makes a letter bold or a formula."""

    def bare(found: re.Match[str]) -> str:
        inner = found[1] or found[2] or ""
        return inner if re.fullmatch(r"\s*\(?[A-Z]\)?[.:]?\s*|", inner) else found[0]

    return _STYLED.sub(bare, text)


def _option_in_box(content: str, options: Mapping[str, str]) -> str | None:
    """Return the option that the content of a box names: ``B``, ``(B)`` or its text."""
    shown = _STYLED.sub(lambda m: m[1] or m[2] or "", content).strip(" *$\n")
    letter = re.fullmatch(r"\(?\s*([A-Z])\s*\)?(?:$|(?<=\)).*|\s*[.:)].*)", shown, re.S)
    if letter and letter[1] in options and not _ANOTHER.match(shown[letter.end(1) :]):
        return letter[1]
    said = {side.strip(" .").casefold() for side in (content, shown)}
    named = [name for name, text in options.items() if text.strip(" .").casefold() in said]
    return named[0] if len(named) == 1 else None


def _option_at(text: str, options: Mapping[str, str]) -> str | None:
    """Return the option that ``text`` begins with, given by its text or its letter.

    Option texts of two or more characters are tried first, longest first: "B-cells" may be the
    text of option C.
    """
    for name, wording in sorted(options.items(), key=lambda item: -len(item[1])):
        pattern = rf"{re.escape(wording.strip())}(?!\w|[.,]\d)"
        if len(wording.strip()) > 1 and re.match(pattern, text, re.IGNORECASE):
            return name
    letter = _LETTER.match(text)
    if letter and (other := _ANOTHER.match(text, letter.end())) and other[1] != letter[1]:
        return None
    if letter and letter[1] in options and not _is_article(text, letter.end()):
        return letter[1]
    short = (n for n, w in options.items() if re.match(rf"{re.escape(w)}(?!\w|[.,]\d)", text))
    return next(short, None)


def _is_article(text: str, end: int) -> bool:
    """Whether a leading "A" is the article, as in "A cell divides", not in "A." or "A) cell"."""
    return text.startswith("A") and re.match(r"\s+[a-z]", text[end:]) is not None


def last_number(output: str) -> str | None:
    """Return the last number in the output, without thousands separators, or None.

    >>> last_number("She sold 48 + 24 = 72 clips, or $1,234.50 in all.")
    '1234.50'
    """
    found = _NUMBER.findall(output)
    return found[-1].replace(",", "").replace("−", "-") if found else None
