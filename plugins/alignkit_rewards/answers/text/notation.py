r"""Rewrite numbers and sets in other notations into the one that is parsed.

``1.5 x 10^6``, ``0.333...``, ``+/-``, ``1011 base 2``, ``0b1011``, ``25 $\frac{2}{3}$``,
``]2, 3[``, ``R \ {1}``, "all real numbers except 1".
"""

from __future__ import annotations

import re
from collections.abc import Callable

from alignkit_rewards.answers.text.numerals import CARDINALS

MAX_LENGTH = 20_000

_FRACTION = r"\\[dtc]?frac\s*(?:\{\s*\d+\s*\}\s*\{\s*\d+\s*\}|\d\s*\d(?!\d))"
_BASE_NAMES = "|".join(w for w in CARDINALS if w not in {"zero", "one"})
_BASE = [rf"(?P<base{i}>\d{{1,2}}|{_BASE_NAMES})" for i in range(3)]
_DOTS = r"(?:\.\.\.+|…|\\(?:[lc]?dots|dotsc?)(?![A-Za-z]))"

_Rewrite = Callable[[re.Match[str]], str]


def expanded(template: str | _Rewrite) -> _Rewrite:
    """Return a function that expands a template only where its pattern matches, which is faster."""
    return template if callable(template) else lambda found: found.expand(template)


_IN_BASE = r"(?:in\s++)?base[\s-]*+{}(?![\w.]\w)"
_BASED = re.compile(
    rf"(?<![\w.])(?P<digits>[0-9A-F]++)\s*+(?:\\text\s*+\{{\s*+(?:\(\s*+)?"
    rf"{_IN_BASE.format(_BASE[0])}\s*+(?:\)\s*+)?\}}"
    rf"|\(\s*+{_IN_BASE.format(_BASE[1])}\s*+\)|{_IN_BASE.format(_BASE[2])})",
    re.I,
)
_SUBSCRIPT = re.compile(
    rf"(?:(?P<digits>\b[0-9A-F]++)|\(\s*+(?P<inner>[0-9A-F]++)\s*+\))\s*+_\s*+"
    rf"(?:\{{\s*+\\(?:text|mathrm)\s*+\{{\s*+(?:\(\s*+)?{_BASE[0]}\s*+(?:\)\s*+)?\}}\s*+\}}"
    rf"|\{{\s*+(?:\(\s*+)?{_BASE[1]}\s*+(?:\)\s*+)?\}}|{_BASE[2]}(?![A-Za-z]))",
    re.I,
)
_REPEATED = re.compile(rf"(?<![\d.])(?P<whole>\d*)\.(?P<digits>\d{{2,60}})\s*{_DOTS}")
_BARRED = re.compile("(?:\\d[\u0304\u0305\u0307])+")
_EXCEPT = re.compile(
    r"(?:\\text\s*+\{\s*+)?\ball\s++(?:the\s++)?real(?:s|\s++numbers?)?(?:\s++\$?x\$?)?(?:\s*+,)?\s++"
    r"(?:except|but(?:\s++not)?|other\s++than|excluding)(?:\s++(?:for|when|where))?\s*+(?:\}\s*+)?"
    r"(?:\$\s*+)?(?:x\s*+=\s*+)?(?P<points>[-\d./,{}\s\\a-z]{1,60}?)\$?\s*+\}?[.\s]*+$",
    re.I,
)
_REALS = r"(\bR|ℝ|\\mathbb\s*+(?:\{\s*+)?R(?:\s*+\})?|[)\]])\s*+"
_BESIDE_A_NUMBER = rf"(?<![\w.$])(\d+)\s*(?:\$\s*({_FRACTION})\s*\$|\\\(\s*({_FRACTION})\s*\\\))"
_WITHOUT = _REALS + r"\\\s*+\\?\{([^{}\\]*+)\\?\}"
_SIMPLE: tuple[tuple[str, str, str | _Rewrite], ...] = (
    # a lower-case string without which the pattern is not tried; the pattern; its replacement
    ("10", r"(?<=[\d)])\s*[xX]\s*(?=10\s*(?:\^|\*\*|[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]))", r" \\times "),
    (" x ", r"(?<=\d) [xX] (?=\d)", r" \\times "),
    ("+", r"(?<![\w\\])\\?\+\s?(?:/|or)\s?-", r"\\pm "),
    ("minus", r"(?i)\bplus\s*(?:or|/|-)\s*minus\b", r"\\pm "),
    ("+/-", r"(?<=[\d)}A-Za-z])\s*\+/-\s*", r" \\pm "),
    ("inf", r"(?i)(?<![A-Za-z\\])(?:negative|minus)\s+(?=infinity\b|inf\b|\\infty)", "-"),
    ("inf", r"(?i)(?<![A-Za-z\\])(?:positive|plus)\s+(?=infinity\b|inf\b|\\infty)", ""),
    ("inf", r"(?i)(?<![A-Za-z\\])(?:inf|infinity)(?![A-Za-z])(?!\s+[a-z]{2})", r"\\infty "),
    ("frac", _BESIDE_A_NUMBER, lambda m: f"${m[1]} {m[2] or m[3]}$"),
    ("frac", rf"\$\s*(-?\d+)\s*\$\s*\$\s*({_FRACTION})\s*\$", r"$\1 \2$"),
    ("\\over", r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
    ("\\choose", r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
    ("\\bar", r"(?<=[.\d])\\bar\s*+(?:\{\s*+)?(\d++)\s*+\}?", r"\\overline{\1}"),
    (
        "\\dot",
        r"(?<=[.\d])\\dot\s*+(?:\{\s*+)?(\d)\s*+\}?(?:(\d*+)\\dot\s*+(?:\{\s*+)?(\d)\s*+\}?)?",
        lambda m: rf"\overline{{{m[1]}{m[2] or ''}{m[3] or ''}}}",
    ),
    ("repeating", r"(?<=\d)\.(\d)\s+repeating\b", r".\\overline{\1}"),
    ("recurring", r"(?<=\d)\.(\d)\s+recurring\b", r".\\overline{\1}"),
    (".(", r"(?<![\d.])(\d*)\.\((\d{1,50})\)(?![\d^(])", r"\1.\\overline{\2}"),
    ("setminus", r"\\(?:small)?setminus(?![A-Za-z])\s*", r"\\setminus "),
    ("\\backslash", r"\\backslash(?![A-Za-z])\s*", r"\\setminus "),
    ("\\{", _REALS + r"(?:\\|-|−)\s*+(?=\\\{)", r"\1\\setminus "),
    *((gap, _WITHOUT, r"\1\\setminus \\{\2\\}") for gap in ("\\{", "\\ ", "\\\n", "\\\t")),
    ("0b", r"(?<![\w.])0[bB]([01]+)(?![\w.])", lambda m: f"{m[1]}_{{2}}"),
    ("0o", r"(?<![\w.])0[oO]([0-7]+)(?![\w.])", lambda m: f"{m[1]}_{{8}}"),
    ("0x", r"(?<![\w.])0[xX]([0-9a-fA-F]+)(?![\w.])", lambda m: f"{m[1].upper()}_{{16}}"),
)
_COMPILED = tuple((needle, re.compile(pattern), expanded(new)) for needle, pattern, new in _SIMPLE)
_WHOLE: tuple[tuple[str, re.Pattern[str], str], ...] = (
    (".", re.compile(r"(?<![\d.])([-+]?\d*+\.\d*+)\((\d{1,50}+)\)"), r"\1\\overline{\2}"),
    ("negative", re.compile(r"negative\s+(?=[\d.\\$])(.*)", re.I | re.S), r"-\1"),
    ("minus", re.compile(r"minus\s+(?=[\d.\\$])(.*)", re.I | re.S), r"-\1"),
    ("over", re.compile(r"(?<!\d)(-?\d++)\s++over\s+(\d+)"), r"\1/\2"),
)
_NO_DIGIT = re.compile("[^0-9]")
_CONJUNCTION = re.compile(r"\b(?:and|or)\b")
_DIGIT = re.compile(r"\d")
_SIDE_BY_SIDE = re.compile(r"\)\s*+(?:&\s*+)?\(")


def plain_notation(text: str) -> str:
    r"""Return a text with its numbers and sets in the notation that is parsed.

    >>> print(plain_notation("1.5 x 10^6"), plain_notation("0.1666..."), plain_notation("+/-3"))
    1.5 \times 10^6 0.1\overline{6} \pm 3
    """
    if len(text) > MAX_LENGTH:
        return text
    if not text.isascii():
        text = _BARRED.sub(lambda m: rf"\overline{{{_NO_DIGIT.sub('', m[0])}}}", text)
    lower = text.lower()
    for needle, pattern, new in _COMPILED:
        if needle in lower:
            text = pattern.sub(new, text)
    if ".." in text or "…" in text or "dots" in text:
        text = _REPEATED.sub(_with_overline, text)
    if "all" in lower:
        text = _EXCEPT.sub(_without_points, text)
    if "_" in text or "base" in lower:
        text = _SUBSCRIPT.sub(_in_base, _BASED.sub(_in_base, text))
    bare = text.strip().rstrip(".")
    for needle, pattern, whole in _WHOLE:
        if needle in lower and (found := pattern.fullmatch(bare)):
            return found.expand(whole)
    return text


def _with_overline(found: re.Match[str]) -> str:
    """Mark the repeating digits of ``0.1666...``: they must occur twice, a single digit three times
    unless it starts right after the point."""
    digits = found["digits"]
    for size in range(1, len(digits) // 2 + 1):
        block = digits[-size:]
        count = 1
        while digits.endswith(block * (count + 1)):
            count += 1
        head = digits[: len(digits) - size * count]
        if count >= (3 if size == 1 and head else 2):
            return rf"{found['whole']}.{head}\overline{{{block}}}"
    return found[0]


def _without_points(found: re.Match[str]) -> str:
    points = _CONJUNCTION.sub(",", found["points"].strip())
    return rf"\mathbb{{R}} \setminus \{{{points}\}}" if _DIGIT.search(points) else found[0]


def _in_base(found: re.Match[str]) -> str:
    """Write a numeral with its base as a subscript, unless it has a digit beyond the base."""
    parts = found.groupdict()
    word = parts["base0"] or parts["base1"] or parts["base2"] or ""
    base = int(word) if word.isdigit() else CARDINALS[word.lower()]
    numeral = str(parts["digits"] or parts.get("inner"))
    if not 2 <= base <= 16 or any(int(d, 16) >= base for d in numeral):
        return found[0]
    return f"{numeral.upper()}_{{{base}}}"


_PAIR = re.compile(
    r"(?P<left>[\[\](])(?P<low>[^\[\](),;\w}]*+[\w}][^\[\](),;]*+)[,;]"
    r"(?P<high>[^\[\](),;\w}]*+[\w}][^\[\](),;]*+)(?P<right>[\[\])])"
)
_TUPLES = re.compile(r"(?:\([^()][^(),;]{0,80}+[,;][^()]{1,160}+\)\s*+(?:&\s*+)?){2,40}+")


def plain_brackets(text: str) -> str:
    """Write ``]a, b[`` as ``(a, b)``, and put commas between tuples side by side.

    >>> plain_brackets("]2, 3]"), plain_brackets("[1,2],[3,4]"), plain_brackets("(1,2) (3,4)")
    ('(2, 3]', '[1,2],[3,4]', '(1,2),(3,4)')
    """
    if "]" in text or "[" in text:
        text = _PAIR.sub(_turned, text)
    if ")" in text and _TUPLES.fullmatch(text):
        text = _SIDE_BY_SIDE.sub("),(", text)
    return text


def _turned(found: re.Match[str]) -> str:
    left, right = found["left"], found["right"]
    if left != "]" and right != "[":
        return found[0]
    inner = found[0][1:-1].replace(";", ",")
    return ("[" if left == "[" else "(") + inner + ("]" if right == "]" else ")")
