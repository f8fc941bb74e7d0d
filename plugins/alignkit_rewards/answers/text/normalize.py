r"""Normalise the many ways to write the same mathematics, before parsing.

LaTeX layout (``\left``, ``\,``, ``\dfrac``), unicode symbols and plain-text operators become a
small LaTeX dialect. Nothing here changes what an expression means.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from alignkit_rewards.answers.text.vocabulary import word_set

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ",
    "⋅": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "∗": "*", "÷": r"\div ", "∕": "/", "⁄": "/",
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "≃": r"\approx ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "º": r"^\circ ", "′": "'",
    "’": "'", "‘": "'", "“": '"', "”": '"', "′′": "''", "⟨": r"\langle ", "⟩": r"\rangle ",
    "∅": r"\emptyset ", "√": r"\sqrt ", "∛": r"\sqrt[3]", "ℝ": r"\mathbb{R}", "…": "...",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "θ": r"\theta ",
    "λ": r"\lambda ", "μ": r"\mu ", "µ": r"\mu ", "ρ": r"\rho ", "σ": r"\sigma ", "φ": r"\phi ",
    "ω": r"\omega ", "τ": r"\tau ", "ε": r"\epsilon ", "Δ": r"\Delta ", "Ω": r"\Omega ",
    "，": ",", "（": "(", "）": ")", "：": ":", "；": ";", "。": ". ", "、": ", ", "％": "%",
    "＝": "=", "＋": "+", "－": "-", "￥": "¥", "\u200b": "", "\u200c": "", "\u200d": "",
    "\ufeff": "", "\u2061": "", "\u2062": "", "\ufe0f": "", "\u20e3": "", "|": "|",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")

_RENAMED = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "nicefrac": "frac", "sfrac": "frac",
    "dbinom": "binom", "tbinom": "binom", "leq": "le", "leqslant": "le", "geq": "ge",
    "geqslant": "ge", "neq": "ne", "lt": "<", "gt": ">", "lbrace": "{", "rbrace": "}",
    "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "lvert": "|", "rvert": "|",
    "vert": "|", "mid": "|", "colon": ":", "degree": "^\\circ", "cosec": "csc",
    "fbox": "boxed", "ast": "*", "to": "rightarrow", "approxeq": "approx", "simeq": "approx",
    "tg": "tan", "ctg": "cot", "arctg": "arctan", "varnothing": "emptyset", "land": "text{ and }",
    "lor": "text{ or }", "wedge": "text{ and }", "vee": "text{ or }",
    "iff": "Rightarrow", "implies": "Rightarrow", "Longrightarrow": "Rightarrow",
    "boldsymbol": "mathbf", "textrm": "text", "textbf": "text", "textit": "text", "mbox": "text",
    "textsf": "text", "hbox": "text", "textnormal": "text", "texttt": "text", "emph": "text",
    "bold": "mathbf", "bf": "", "rm": "", "it": "", "operatorname": "mathrm",
    "smallmatrix": "matrix",
}  # fmt: skip
_SPACING = word_set(
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle "
    "textstyle scriptstyle limits nolimits hfill nonumber smallskip medskip bigskip noindent "
    "phantom thinspace allowbreak strut qquad quad enspace"
)
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?")
_GLUED_QUAD = re.compile(r"\\(q?quad)(?=[A-Za-z])")
_KNOWN_AFTER_DOUBLE = re.compile(
    r"\\\\(?=(?:[dtc]?frac|left|right|boxed|sqrt|text|pi|cdot|times|infty|begin|end|pm|le|ge|"
    r"cup|in|circ|sin|cos|tan|log|ln|quad|theta|alpha|beta|%|\$)(?![a-z]))"
)
_WIDE = re.compile(r"\s\s+|[^\S ]")
_THOUSANDS = re.compile(r"(?<=\d)\s*(?:\{\s*,\s*\}|,\\!)\s*(?=\d{3})")
_PUNCTUATION = re.compile(r"\\[,;:! /]|\\(?=\s)")
_DEGREES = re.compile(r"\^\s*+(?:\{\s*+)?\\circ\s*+\}?")
_UNEQUAL = re.compile(r"(?<![\d)])!=")

ROW = "\x01"
r"""Represents ``\\``, the end of a row."""


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    r"""Rewrite ``text`` in the dialect the parser reads.

    >>> print(canonical(r"\dfrac{1}{2}\,\text{m}"), canonical("5½ − √3"))
    \frac{1}{2} \text{m} 5 1/2 - \sqrt{3}
    """
    text = _spaced(plain_unicode(text.replace(ROW, " ")))
    if "," in text:
        text = _THOUSANDS.sub("", text)
    if "\\" in text:
        text = _with_plain_commands(text)
    text = _spaced(text.replace("~", " "))
    if "\\circ" in text:
        text = _DEGREES.sub(lambda _: r"^\circ ", text)
    if "=" in text:
        text = _UNEQUAL.sub(lambda _: r"\ne ", text)
        text = text.replace("<=", r" \le ").replace(">=", r" \ge ").replace("==", "=")
    return _spaced(text.replace("**", "^").replace("+-", r"\pm ")).strip()


def _spaced(text: str) -> str:
    """Replace each run of white space by one space."""
    return _WIDE.sub(" ", text)


def _with_plain_commands(text: str) -> str:
    """Rename commands, mark the ends of rows, and remove commands that only add space."""
    if "\\\\" in text:
        if "\\begin" not in text.replace("\\\\begin", ""):
            text = _KNOWN_AFTER_DOUBLE.sub(lambda _: "\\", text)
        text = text.replace("\\\\", f" {ROW} ")
    if "quad" in text:
        text = _GLUED_QUAD.sub(lambda found: f"\\{found[1]} ", text)
    return _COMMAND.sub(_renamed, _PUNCTUATION.sub(" ", text))


def _renamed(found: re.Match[str]) -> str:
    name = found[1]
    if name in _SPACING:
        return " "
    new = _RENAMED.get(name)
    if new is None:
        return "\\" + name
    if new in {"{", "}"}:
        return "\\" + new
    return new + " " if not new[:1].isalpha() else "\\" + new


def plain_unicode(text: str) -> str:
    """Return ``text`` with non-ASCII mathematical symbols in LaTeX or ASCII."""
    if text.isascii():
        return text
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+", lambda m: f"^{{{m[0].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉ₙ]+", lambda m: f"_{{{m[0].translate(_SUBSCRIPTS)}}}", text)
    text = re.sub(r"√(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt{\1}", text)
    text = re.sub(r"√\(([^()]*)\)", r"\\sqrt{\1}", text)
    return "".join(_UNICODE.get(c) or _folded(c) for c in text)


def _folded(char: str) -> str:
    """Return the equivalent of one character, such as a vulgar fraction or a full-width form."""
    if char in _UNICODE:
        return ""
    if char.isascii():
        return char
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    if unicodedata.category(char) in {"Cf", "Mn"}:
        return ""
    plain = unicodedata.normalize("NFKC", char)
    if "⁄" in plain:
        top, _, bottom = plain.partition("⁄")
        return f" {top}/{bottom}" if bottom else plain
    return " " if plain.isspace() else plain
