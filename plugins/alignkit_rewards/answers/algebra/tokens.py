"""Tokens of mathematical text: numbers, commands, known names, single letters, symbols."""

from __future__ import annotations

import re
from collections.abc import Callable

from alignkit_rewards.answers.text.normalize import ROW
from alignkit_rewards.answers.text.vocabulary import FUNCTIONS, GREEK, word_set

ALIASES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh",
    "acosh": "arccosh", "atanh": "arctanh", "cosec": "csc", "sgn": "sign",
}  # fmt: skip
_WORDS = sorted([*GREEK, *FUNCTIONS, "pi", "infty", "infinity", "oo", "pm"], key=len, reverse=True)
_TOKEN = re.compile(
    rf"\s*(?:(?P<num>\d+(?:\.\d+)?[eE][+-]?\d{{1,4}}(?![\d.])|\d+\.?\d*|\.\d+)|\\(?P<cmd>[A-Za-z]+)"
    rf"|(?P<word>[A-Za-z]+)|(?P<sym>\\[{{}}|]|[-+*/^_!|(){{}}\[\],&%'{ROW}]))"
)
PLAIN_SUBSCRIPT = re.compile(r"_([A-Za-z]{2,})")
DECORATION = word_set(
    "mathrm mathbf mathit mathsf mathcal mathbb vec hat bar tilde overline underline widehat "
    "overrightarrow text"
)
NO_FACTOR = word_set("pm mp cdot times div bmod mod end rfloor rceil rangle")
MATRICES = word_set("matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix array")
_GLUED_MIXED = re.compile(r"(?<![\w.^_)}/])(\d+) ?\\frac ?(\d) ?(\d)(?!\d)")


class UnreadableError(ValueError):
    """The text is not an expression that this parser supports."""


def mixed_numbers(text: str) -> str:
    r"""Write mixed numbers as sums.

    >>> mixed_numbers("-1 9/20"), mixed_numbers(r"2\frac12"), mixed_numbers("11/20")
    ('-(1+9/20)', '(2+1/2)', '11/20')
    """
    text = _GLUED_MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = re.sub(
        r"(?<![\w.^_)}/])(\d+) ?\\frac ?\{ ?(\d+) ?\} ?\{ ?(\d+) ?\}", _mixed(r"\frac"), text
    )
    return re.sub(r"(?<![\w.^_)}/])(\d+) (\d+)/(\d+)(?![\w.])", _mixed(""), text)


def _mixed(kind: str) -> Callable[[re.Match[str]], str]:
    def rewrite(found: re.Match[str]) -> str:
        whole, top, bottom = found.groups()
        if len(bottom) > 9 or int(top) >= int(bottom):
            return found[0]
        return f"({whole}+{top}/{bottom})"

    return rewrite


def tokens(text: str) -> list[tuple[str, str]]:
    r"""Return (kind, text) pairs; kinds are num, cmd, var and sym.

    >>> tokens(r"2xpi\cdot 7")
    [('num', '2'), ('var', 'x'), ('cmd', 'pi'), ('cmd', 'cdot'), ('num', '7')]
    """
    found: list[tuple[str, str]] = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise UnreadableError(f"unexpected {text[at : at + 10]!r}")
        kind = str(match.lastgroup)
        at = match.end()
        if kind == "word":
            found += _split_word(match[kind])
        else:
            found.append((kind, match[kind]))
    return found


def _split_word(word: str) -> list[tuple[str, str]]:
    """Split adjacent letters into known names and single-letter variables."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(word):
        name = next((w for w in _WORDS if word.startswith(w, at)), None)
        found.append(("cmd", name) if name else ("var", word[at]))
        at += len(name) if name else 1
    return found
