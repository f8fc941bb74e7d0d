r"""Find the answer in prose: boxes, ``####``, "the answer is …", the last formula or number."""

from __future__ import annotations

import re

from alignkit.text.boxes import outermost
from alignkit_rewards.answers.text.beside import after_number, before_number, is_denied
from alignkit_rewards.answers.text.normalize import plain_unicode
from alignkit_rewards.answers.text.quantities import is_quantity
from alignkit_rewards.answers.text.runs import HOLE, UNREAD, last_run
from alignkit_rewards.answers.text.spoken import arithmetic
from alignkit_rewards.answers.text.vocabulary import FUNCTIONS, GREEK, word_set
from alignkit_rewards.answers.verdict import Conventions, SeveralBoxes

MAX_TEXT = 20_000

_SPECIAL = re.compile(r"<\|[a-zA-Z_]+\|>|<｜[^｜]{1,40}｜>|</s>")
_BETWEEN_BOXES = re.compile(
    r"(?:\s|[,;.$&]|\\[()\[\]]|\\q?quad|\\text\s*+\{\s*+(?:,\s*+)?(?:and|or)\s*+(?:,\s*+)?\}|and|or"
    r"|[a-zA-Z](?:_\{?\w++\}?)?\s*+=)*+"
)
_PHRASE = re.compile(
    r"\b(?:final\s+answer|answer|result|solution)\**\s*(?:(?:is|are|was|equals|will\s+be)\b|[:=])"
    r"\**\s*:?",
    re.I,
)
_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$((?:[^$\\]|\\.)+?)(?<!\\)\$|\\\(((?:[^\\]|\\[^()])++)\\\)"
    r"|\\\[((?:[^\\]|\\[^\[\]])++)\\\]",
    re.S,
)
_SENTENCE_END = re.compile(r"(?<=[^\s.][.!?。])[*\s]+(?=[A-Z\"'(\\$*I]|$)|\n\s*\n")
_ROUGHLY = re.compile(
    r"[\s,;]{0,4}(?:\(|\bor\b|\bwhich is\b|\bi\.e\.,?)\s*"
    r"(?:approximately|approx\.?|about|roughly|around|\$?\\approx)\s|[\s,;]{0,4}\(\s*(?:i\.e\.,?|=)\s",
    re.I,
)
_ASIDE = re.compile(r" ?\(\s?or\s([^()]{1,80})\)")
_WORKED = re.compile(r"([^()=\d]*+\d[^()=]*)\s\([^()=]*+=[^()]*+\)")
_TEXT_GROUP = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{([^{}]*)\}")
_ABOUT = re.compile(r"\s*\$?(?:\\approx|\\sim|~)\s*(?=[-\d\\$])")
_RATIO = re.compile(r"\d+ to \d+")
_DASH = re.compile(r"(?<=\S)\s+[—–]\s+(?=[A-Za-z]{2})|(?<=[A-Za-z]{2})\s+[—–]\s+(?=[\d$])")
_CORRECTION = re.compile(
    r"\b(?:no,? wait|wait,? no|wait,? actually|oops|scratch that|correction|i mean|i meant"
    r"|or rather|make that|on second thoughts?|just kidding"
    r"|let me correct(?: that| myself)?)\b[\s,.:!-]*"
    r"|(?<=\d), no,? (?=[-$\\]*\d)|(?<=[\d$.!]) ?(?:wait|sorry|actually|no),\s",
    re.I,
)
_LOWER_WORD = re.compile("[a-z]+")
_TAKEN_BACK = word_set(
    "wait oops scratch correction mean meant rather make thought thoughts kidding correct no sorry"
    " actually"
)
"""Words of which each correction contains one."""
_STARRED = re.compile(r"(^|[A-Za-z:.,] |:)\*(?=[^\s*])([^*\n]{1,80}?)(?<=\S)\*(?=[\s.,;!?]|$)")
_ARROW = re.compile(r"\s*[=-]+>\s*")
_UNDERLINED = re.compile(r"_{1,2}([^_]+)_{1,2}")
_SIGNS = (
    r"[\u2022\u2023\u2043\u2190-\u21ff\u25a0-\u25ff\u2600-\u2716\u2719-\u274b\u274d"
    r"\u274f-\u27bf\u2b00-\u2bff\ufe0f\u200d\U0001f300-\U0001f44d\U0001f44f-\U0001f6aa"
    r"\U0001f6ac-\U0001faff]"
)
_ORNAMENT = re.compile(rf"(?:^|(?<=[:\n])|(?<=[:\n] ))(?:{_SIGNS}\s?)+|(?<!{_SIGNS}){_SIGNS}+$")
"""Bullets, arrows, ticks and emoji at the edge of a line, but not crosses, which deny."""
_GAP = re.compile(r"\s{3,}")
_CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]+")


_OF_GOLDS = Conventions(rough="accepted")
_DIGIT = re.compile(r"\d")
_PARAGRAPH = re.compile(r"\n\s*\n")
_GROUP = re.compile(r"\\(?:text|mathrm|mbox|textbf|operatorname)\s*\{[^{}]*\}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"(?<![\w^_{])[^\W\d_]{2,}(?![\w(^_])")
_STARS = re.compile(r"(?<![\w)])\*\*(?=\S)|(?<=\S)\*\*(?![\w(-])")
_QUANTITY = re.compile(r"[-+]?(?:\\?\$|€|£)?\s*+[\d.,/ ]*\d%?\s*+(?=[A-Za-z])")
_MATHS = re.compile(r"[\d$\\=]")
_TWO_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}\s+[A-Za-z]{2,}")
_PLACE = re.compile(f"{HOLE}(\\d+){HOLE}")


def answer_in(text: str, rules: Conventions | None = None) -> str:
    r"""Return the part of ``text`` that is the answer; all of it if there is no prose.

    ``rules`` determine whether "about 5" is 5, and how several boxes are combined.

    >>> answer_in("She has 3 + 4 = 7 cups."), answer_in(r"so \boxed{x = 5}, a prime")
    ('3 + 4 = 7 cups', 'x = 5')
    """
    rules = rules or _OF_GOLDS
    text = _before_special(_GAP.sub(_narrow, text[-MAX_TEXT:])).strip()
    if not text.isascii():
        text = plain_unicode(_DASH.sub(", ", _ORNAMENT.sub(" ", text)))
    if (tagged := last_tagged(text)) is not None:
        text = tagged
    if "box" in text and (box := last_boxes(text, rules.several_boxes)):
        if box.startswith(UNREAD):
            return box
        return answer_in(box, rules) if "boxed" in box else _tail(box, rules)
    if "####" in text and (after := text.rpartition("####")[2].strip()):
        return after.splitlines()[0].strip()
    text = _corrected(text)
    for found in reversed(list(_PHRASE.finditer(text))):
        after = text[found.end() :].strip()
        if after.strip(" .*$\\)]}") and not is_denied(text[: found.start()]):
            return _tail(_first_paragraph(after), rules)
    return _tail(text, rules)


def last_tagged(text: str) -> str | None:
    """Return the text between the last pair of answer tags, None if there is no pair.

    >>> last_tagged("<answer>4</answer>, or <answer> 5 </answer> <answer>6")
    ' 5 '
    """
    end = text.rfind("</answer>")
    _, tag, after = text[:end].rpartition("<answer>") if end >= 0 else ("", "", "")
    return after.partition("</answer>")[0] if tag else None


def _narrow(gap: re.Match[str]) -> str:
    """Return the meaning of a long gap: a new paragraph, a new line or a space."""
    return "\n\n"[: gap[0].count("\n")] or " "


def _corrected(text: str) -> str:
    """Remove what a writer corrects, as in "5, no wait, 6", if an answer follows."""
    if _TAKEN_BACK.isdisjoint(_LOWER_WORD.findall(text.lower())):
        return text
    for found in reversed(list(_CORRECTION.finditer(text))):
        if _DIGIT.search(text[found.end() :]):
            return text[found.end() :].strip()
    return text


def _before_special(text: str) -> str:
    """Cut at a special token of a chat template, unless there is nothing before it."""
    if "<" not in text:
        return text
    parts = [p for p in _SPECIAL.split(text) if p.strip()]
    return parts[0] if parts else text


def _first_paragraph(text: str) -> str:
    """Return the first sentence; a display formula may start on the next line."""
    first = _PARAGRAPH.split(text, maxsplit=1)[0]
    protected, formulas = _protect(first)
    sentence = _SENTENCE_END.split(protected, maxsplit=1)[0]
    return _restore(sentence, formulas)


def last_boxes(text: str, rule: SeveralBoxes) -> str:
    r"""Return the content of the last box, joined with preceding boxes of the same list.

    ``rule`` is the convention ``several_boxes``; boxes that disagree are ``UNREAD`` under
    ``"agree"``.

    >>> [last_boxes(r"\boxed{1} or \boxed{2}", rule) for rule in ("listed", "last")]
    ['1, 2', '2']
    """
    boxes = outermost(text)
    if rule == "last":
        return boxes[-1].content.strip() if boxes else ""
    if rule == "agree" and len({" ".join(box.content.split()) for box in boxes}) > 1:
        return UNREAD + text
    first = len(boxes) - 1
    while first > 0 and _BETWEEN_BOXES.fullmatch(
        text[boxes[first - 1].end : boxes[first].start][:200]
    ):
        first -= 1
    contents = [box.content.strip() for box in boxes[max(first, 0) :]]
    return contents[0] if len(set(contents)) == 1 else ", ".join(contents)


# ---------------------------------------------------------------- prose


def is_prose(text: str) -> bool:
    """Return whether there are words around the mathematics.

    >>> is_prose("2 sin x + pi"), is_prose("the sum is 5"), is_prose(r"5 \\text{ cm}")
    (False, True, False)
    """
    bare = _GROUP.sub(" ", text)
    bare = _COMMAND.sub(" ", bare)
    words = _WORD.findall(bare)
    return any(w not in FUNCTIONS and w not in GREEK and not _joins(w) for w in words)


def _joins(word: str) -> bool:
    return word in {"and", "or", "pi", "infty", "infinity", "oo", "mod", "cup"}


def _tail(text: str, rules: Conventions) -> str:
    """Return the last formula, number or list of a text that may be prose."""
    text = _bare(text)
    if "(" in text:
        text = _ASIDE.sub(lambda m: f" or {m[1]}", text)
    if (
        _may_be_aside(text)
        and (aside := _ROUGHLY.search(text))
        and _DIGIT.search(text[: aside.start()])
    ):
        text = text[: aside.start()].strip(" ,;($")
    if "=" in text and len(text) < 300 and (worked := _WORKED.fullmatch(text)):
        return worked[1].strip()
    if (about := _ABOUT.match(text)) is not None:
        exact = rules.rough == "accepted" or (rules.rough == "decimals" and "." in text)
        return _tail(text[about.end() :], rules) if exact else UNREAD + text
    if not is_prose(text) or _quantity_first(text) or is_quantity(text) or _RATIO.fullmatch(text):
        return text
    return _stated(text, rules)


def _may_be_aside(text: str) -> bool:
    lower = text.lower()
    return (
        "approx" in lower
        or "about" in lower
        or "round" in lower
        or "roughly" in lower
        or ("(" in text and ("=" in text or "i.e." in lower))
    )


def _bare(text: str) -> str:
    """Remove layout marks, and rewrite arithmetic in words in digits."""
    text = _unmarked(text.replace("`", "")).strip()
    text = _CJK.sub(r" \g<0> ", text) if not text.isascii() else text
    text = arithmetic(text)
    if "\\text" in text and (whole := _TEXT_GROUP.fullmatch(text)) and _DIGIT.search(text):
        text = arithmetic(whole[1])
    if "\\text" in text and _DIGIT.search(_TEXT_GROUP.sub("", text)) and _worded(text):
        text = _TEXT_GROUP.sub(lambda m: f" {m[1]} ", text).strip()
    return text.removesuffix(".").strip() if not text.endswith("..") else text


def _unmarked(text: str) -> str:
    """Remove asterisks and underscores of Markdown, and a leading arrow."""
    if "*" in text:
        text = _STARS.sub("", text).strip()
        text = _STARRED.sub(r"\1\2", text)
    if text[:1] == "_" and (found := _UNDERLINED.fullmatch(text)):
        text = found[1]
    return text[found.end() :] if (found := _ARROW.match(text)) else text


def _worded(text: str) -> bool:
    """Return whether a text begins with words in LaTeX, or has some that change a number."""
    groups = [g.strip() for g in _TEXT_GROUP.findall(text)]
    return text.startswith("\\text") or any(before_number(g) or after_number(g) for g in groups)


def _stated(text: str, rules: Conventions) -> str:
    """Return the number or formula of the last sentence that states one; unread if all deny it."""
    protected, formulas = _protect(text)
    denied = False
    for sentence in reversed([s for s in _SENTENCE_END.split(protected) if s.strip()]):
        found = last_run(sentence, formulas, rules.rough)
        if found and found != UNREAD:
            return _restore(found, formulas)
        denied |= bool(found)
    return UNREAD + text if denied else text


def _quantity_first(text: str) -> bool:
    """Return whether the text is a number followed by words, with no other number."""
    found = _QUANTITY.match(text)
    rest = text[found.end() :] if found else ""
    if after_number(rest):
        return False
    return bool(found) and not _MATHS.search(rest) and len(rest.split()) <= 6


def _protect(text: str) -> tuple[str, list[str]]:
    """Replace formulas by placeholders without white space."""
    formulas: list[str] = []

    def keep(found: re.Match[str]) -> str:
        body = next(g for g in found.groups() if g is not None)
        if found[0][:1] == "$" and found[0][:2] != "$$" and _DIGIT.match(body) and _wordy(body):
            return found[0].replace("$", " \\$", 1)  # two prices, not a formula
        formulas.append(body)
        stop = "." if body.rstrip().endswith(".") else ""
        return f"{HOLE}{len(formulas) - 1}{HOLE}{stop}"

    # a second pass finds the formula that a price's dollar sign had hidden
    return _FORMULA.sub(keep, text.replace(HOLE, " ")), formulas


def _wordy(text: str) -> bool:
    return bool(_TWO_WORDS.search(text))


def _restore(text: str, formulas: list[str]) -> str:
    return _PLACE.sub(lambda m: f" {formulas[int(m[1])]} ", text).strip()
