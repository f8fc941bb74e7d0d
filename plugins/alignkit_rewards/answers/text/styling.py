r"""Remove styling without meaning: bold, colour and size in LaTeX, HTML or Markdown.

The braces of a styling command do not group: ``\mathbf{4}2`` is shown as 42.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator

_MATH_STYLES = (
    "mathbf|mathit|mathsf|mathtt|mathnormal|boldsymbol|bm|pmb|bold|underline|uline|mathop|mathbin"
    "|mathrel|mathord|mathopen|mathclose|ensuremath|smash"
)
_TEXT_STYLES = "textbf|textit|textsl|textsc|textsf|texttt|textup|textmd|textrm|emph"
_WORDS = "text|mathrm|mbox|hbox|textnormal"
_TINTS = (
    "red|blue|green|gray|grey|orange|purple|pink|teal|brown|black|white|cyan|magenta|yellow|gold"
    "|maroon|mint|violet"
)
_SIZES = (
    "tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|bfseries|itshape"
    "|rmfamily|sffamily|ttfamily|mdseries|upshape|scshape|normalfont|boldmath|bf|it|rm|sf|tt|sc|sl"
    "|displaystyle|textstyle|scriptstyle|scriptscriptstyle|centering"
)
_OPTION = r"\s*+(?:\[[^\[\]{}]*+\]\s*+)?"
_WITH_OPTION = rf"(?:textcolor|colorbox|color|style|class){_OPTION}\{{[^{{}}]*+\}}|bbox{_OPTION}"
_STYLED = re.compile(
    rf"\\(?:(?P<math>{_MATH_STYLES})|(?P<text>{_TEXT_STYLES})|(?P<words>{_WORDS})"
    rf"|(?P<tint>(?:ka)?(?:{_TINTS})[A-E]?)|{_SIZES}|{_WITH_OPTION})\s*+\{{"
    rf"|(?<![\\A-Za-z\]}}^_])\{{\s*+(?=\\(?:{_SIZES}|color)(?![A-Za-z]))"
)
_DECLARED = re.compile(
    rf"\\(?:{_SIZES}|therefore)(?![A-Za-z])"
    r"|\\color\s*+(?:\[[^\[\]{}]*+\]\s*+)?\{[^{}]*+\}"
    r"|\\(?:[hv]?phantom|hspace\*?|vspace\*?|mspace|label|tag\*?)\s*+\{[^{}]*+\}|[\u2234\u200e\u200f]"
)
_LAST_BREAK = re.compile(r"(?:(?<!\\)(?:\\\\)++|\\\s*+$)\s*+(?=(?:\$\$?|\\[)\]])?[\s.]*+$)")
_ATTRIBUTE = r"""(?:\s+[\w-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+))*"""
_TAG = re.compile(
    r"<(?P<close>/?)(?P<name>b|strong|i|em|u|code|pre|span|font|p|div|mark|small|big|tt|kbd|var|samp"
    rf"|center|h[1-6]|sub|sup){_ATTRIBUTE}\s*>",
    re.I,
)
_BREAK = re.compile(r"<br\s*/?>", re.I)
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,9}|#\d{1,6}|#[xX][0-9a-fA-F]{1,5});")
_HEADING = re.compile(r"^(?:#{1,3}|#{5,6})[ \t]+", re.M)
_FENCE = re.compile(r"^```\w*[ \t]*$\n?", re.M)
_MARKED = (
    re.compile(r"(?<![\w*)\]}])(\*{1,3})(?=[^\s*])([^*\n]{1,400}?)(?<=\S)\1(?!\*)"),
    re.compile(r"(?<![\w\\)\]}])(_{1,2})(?=[^\s_{])([^_\n]{1,400}?)(?<=[^\s\\])\1(?![\w{])"),
    re.compile(r"(`{1,3})([^`\n]{1,400})\1"),
)
_PLAIN = re.compile(r"[^\\<&*_`#]*")
_MARK = re.compile("[*_`]")
_ARGUMENT_OF = re.compile(r"[\^_]$|\\(?:[dtc]?frac|sqrt(?:\[\w+\])?|[dt]?binom)(?:\s*\w)?$")
_ENDS_IN_COMMAND = re.compile(r"\\[A-Za-z]+$")
_NAMES_A_VALUE = re.compile("[:=]")
_FORMULA = re.compile(r"\\(?:frac|sqrt|pi)(?![A-Za-z])")
_LETTER = re.compile(r"[^\W\d_]")
_NAME = re.compile(r"[^\W\d_]{2,}|[CNQRZ]")
_WORDS_GROUP = re.compile(rf"\\(?:{_WORDS})\s*\{{[^{{}}]*\}}")
_TWO_LETTERS = re.compile(r"[^\W\d_]{2}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_CHOICE = re.compile(r"\([A-Z]\)")
_BRACE = re.compile(r"\\.|[{}]", re.S)


def unstyled(text: str) -> str:
    r"""Return ``text`` without markup that only changes its appearance.

    >>> unstyled(r"\mathbf{42}"), unstyled("<b>5</b> &times; 10<sup>3</sup>"), unstyled("*x* = 5")
    ('42', '5 × 10^{3}', 'x = 5')
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    elif _PLAIN.fullmatch(text):
        return text
    if "&" in text:
        text = _ENTITY.sub(lambda m: html.unescape(m[0]), text)
    if "<" in text:
        text = _without_tags(_BREAK.sub("\n", text))
    if "#" in text:
        text = _HEADING.sub("", text)
    if "`" in text:
        text = _FENCE.sub("", text)
    if _MARK.search(text):
        for mark in _MARKED:
            text = mark.sub(_bared, text)
    if "\\" in text:
        text = _LAST_BREAK.sub("", _DECLARED.sub(" ", _unwrapped(text)))
    return text


def _bared(found: re.Match[str]) -> str:
    """Separate a word from the emphasis right before it: ``**5**cm``."""
    return found[2] + (" " if re.match(r"\w", found.string[found.end() :][:1]) else "")


# ---------------------------------------------------------------- HTML


def _without_tags(text: str) -> str:
    """Remove only tags that are closed, so that ``a<b>c`` stays an inequality."""
    closed = {m["name"].lower() for m in _TAG.finditer(text) if m["close"]}

    def new(found: re.Match[str]) -> str:
        name = found["name"].lower()
        if name not in closed:
            return found[0]
        if name in {"sub", "sup"}:
            return "}" if found["close"] else ("_{" if name == "sub" else "^{")
        return "\n" if name in {"p", "div"} else ""

    return _TAG.sub(new, text)


# ---------------------------------------------------------------- LaTeX


def _unwrapped(text: str) -> str:
    """Remove styling commands together with the braces of their argument."""
    styled = list(_STYLED.finditer(text))
    if not styled:
        return text
    pairs = _closings(text)
    edits: list[tuple[int, int, str]] = []
    for found in styled:
        start = found.end()
        end = pairs.get(start - 1)
        if end is not None and _only_looks(found, text[start : min(end, start + 400)]):
            edits += _edits(text, found.start(), start, end)
    parts, at = [], 0
    for first, last, new in sorted(edits):
        parts += [text[at:first], new]
        at = last
    return "".join([*parts, text[at:]])


def _edits(text: str, first: int, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    """Yield the text to cut at both ends of a styled argument, with its replacements."""
    before = text[max(0, first - 20) : first].rstrip()
    if _ARGUMENT_OF.search(before):
        yield first, start, "{"
        yield end, end + 1, "}"
        return
    yield first, start, " " if _ENDS_IN_COMMAND.search(before) else ""
    yield end, end + 1, " " if _ENDS_IN_COMMAND.search(text[max(start, end - 20) : end]) else ""


def _only_looks(found: re.Match[str], content: str) -> bool:
    """Return whether a command shows its argument unchanged, as mathematics or words."""
    words = _bare_words(content)
    if found["words"] or found["text"]:
        if _is_choice(content.strip()) or (words and not _NAMES_A_VALUE.search(content)):
            return False
        formula = _FORMULA.search(content)
        return bool(found["text"] or formula or not _LETTER.search(content))
    named = _NAME.fullmatch(content.strip())
    return not (found["math"] and (named or _is_choice(content.strip())))


def _bare_words(content: str) -> bool:
    """Return whether a text has words outside commands and their ``\\text{}``."""
    content = _WORDS_GROUP.sub(" ", content)
    return bool(_TWO_LETTERS.search(_COMMAND.sub(" ", content)))


def _is_choice(text: str) -> bool:
    return bool(_CHOICE.match(text))


def _closings(text: str) -> dict[int, int]:
    """Return the index of the closing brace for each opening one."""
    pairs, stack = {}, []
    for found in _BRACE.finditer(text):
        if found[0] == "{":
            stack.append(found.start())
        elif found[0] == "}" and stack:
            pairs[stack.pop()] = found.start()
    return pairs
