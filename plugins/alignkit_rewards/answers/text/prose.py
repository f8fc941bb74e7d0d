r"""The answer inside prose: boxes, ``####``, "the answer is …", the last formula or number."""

from __future__ import annotations

import re

from alignkit.text.boxes import outermost
from alignkit_rewards.answers.text.normalize import plain_unicode
from alignkit_rewards.answers.text.units import is_quantity, known_unit
from alignkit_rewards.answers.text.vocabulary import FUNCTIONS, GREEK, word_set

MAX_TEXT = 20_000

_SPECIAL = re.compile(r"<\|[a-zA-Z_]+\|>|<｜[^｜]{1,40}｜>|</s>")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.S)
_BETWEEN_BOXES = re.compile(
    r"(?:\s|[,;.$&]|\\[()\[\]]|\\q?quad|\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|and|or"
    r"|[a-zA-Z](?:_\{?\w+\}?)?\s*=)*"
)
_PHRASE = re.compile(
    r"\b(?:final\s+answer|answer|result|solution)\**\s*(?:(?:is|are|was|equals|will\s+be)\b|[:=])"
    r"\**\s*:?",
    re.I,
)
_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$((?:[^$\\]|\\.)+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S
)
_SENTENCE_END = re.compile(r"(?<=[^\s.][.!?。])[*\s]+(?=[A-Z\"'(\\$*I]|$)|\n\s*\n")
_ROUGHLY = re.compile(
    r"[\s,;]{0,4}(?:\(|\bor\b|\bwhich is\b|\bi\.e\.,?)\s*"
    r"(?:approximately|approx\.?|about|roughly|around|\$?\\approx)\s|[\s,;]{0,4}\(\s*(?:or|i\.e\.,?|=)\s",
    re.I,
)
_WORKED = re.compile(r"([^()=]*\d[^()=]*)\s\([^()]*=[^()]*\)")
_TEXT_GROUP = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{([^{}]*)\}")
_RATIO = re.compile(r"\d+ to \d+")
_STRONG = word_set("in within after per every each during before")
_WEAK = word_set("for from with at on than among")
_DETERMINERS = word_set("the his her their its all these those a an")
_SUBORDINATE = word_set("if when because since while where given")
_CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]+")
_HOLE = "\x02"


def answer_in(text: str) -> str:
    r"""Return the part of ``text`` that is the answer: the whole of it if there is no prose.

    >>> answer_in("She has 3 + 4 = 7 cups."), answer_in(r"so \boxed{x = 5}, a prime")
    ('3 + 4 = 7 cups', 'x = 5')
    """
    text = plain_unicode(_before_special(text[-MAX_TEXT:]))
    if "<answer>" in text and (tags := _TAG.findall(text)):
        text = str(tags[-1]).rpartition("<answer>")[2]
    if box := _last_boxes(text):
        return answer_in(box) if "boxed" in box else _tail(box)
    if "####" in text and (after := text.rpartition("####")[2].strip()):
        return after.splitlines()[0].strip()
    for found in reversed(list(_PHRASE.finditer(text))):
        after = text[found.end() :].strip()
        if after.strip(" .*$\\)]}"):
            return _tail(_first_paragraph(after))
    return _tail(text)


def _before_special(text: str) -> str:
    """Cut at a chat template's special token, unless nothing stands before it."""
    parts = [p for p in _SPECIAL.split(text) if p.strip()]
    return parts[0] if parts else text


def _first_paragraph(text: str) -> str:
    """Return the first sentence; a display formula may start on the next line."""
    first = re.split(r"\n\s*\n", text, maxsplit=1)[0]
    protected, formulas = _protect(first)
    sentence = _SENTENCE_END.split(protected, maxsplit=1)[0]
    return _restore(sentence, formulas)


def _last_boxes(text: str) -> str:
    """Return the content of the last box, joined with the boxes that list on before it."""
    boxes = outermost(text)
    first = len(boxes) - 1
    while first > 0 and _BETWEEN_BOXES.fullmatch(
        text[boxes[first - 1].end : boxes[first].start][:200]
    ):
        first -= 1
    contents = [box.content.strip() for box in boxes[max(first, 0) :]]
    return contents[0] if len(set(contents)) == 1 else ", ".join(contents)


# ---------------------------------------------------------------- prose


def is_prose(text: str) -> bool:
    """Return whether words stand around the mathematics.

    >>> is_prose("2 sin x + pi"), is_prose("the sum is 5"), is_prose(r"5 \\text{ cm}")
    (False, True, False)
    """
    bare = re.sub(r"\\(?:text|mathrm|mbox|textbf|operatorname)\s*\{[^{}]*\}", " ", text)
    bare = re.sub(r"\\[A-Za-z]+", " ", bare)
    words = re.findall(r"(?<![\w^_{])[^\W\d_]{2,}(?![\w(^_])", bare)
    return any(w not in FUNCTIONS and w not in GREEK and not _joins(w) for w in words)


def _joins(word: str) -> bool:
    return word in {"and", "or", "pi", "infty", "infinity", "oo", "mod", "cup"}


def _tail(text: str) -> str:
    """Return the last formula, number or list of a text that may be prose."""
    text = re.sub(r"(?<![\w)])\*\*(?=\S)|(?<=\S)\*\*(?![\w(-])", "", text).strip()
    text = _CJK.sub(r" \g<0> ", text) if not text.isascii() else text
    text = text.replace("`", "")
    if text.startswith("\\text") and re.search(r"\d", _TEXT_GROUP.sub("", text)):
        text = _TEXT_GROUP.sub(r" \1 ", text).strip()
    text = text.removesuffix(".").strip() if not text.endswith("..") else text
    if (aside := _ROUGHLY.search(text)) and re.search(r"\d", text[: aside.start()]):
        text = text[: aside.start()].strip(" ,;($")
    if len(text) < 300 and (worked := _WORKED.fullmatch(text)):
        return worked[1].strip()
    if not is_prose(text) or _quantity_first(text) or is_quantity(text):
        return text
    if _RATIO.fullmatch(text):
        return text
    protected, formulas = _protect(text)
    for sentence in reversed([s for s in _SENTENCE_END.split(protected) if s.strip()]):
        if found := _last_run(sentence, formulas):
            return _restore(found, formulas)
    return text


def _quantity_first(text: str) -> bool:
    """Return whether the text is a number followed by words without another number."""
    found = re.match(r"[-+]?(?:\\?\$|€|£)?\s*[\d.,/ ]*\d%?\s*(?=[A-Za-z])", text)
    rest = text[found.end() :] if found else ""
    return bool(found) and not re.search(r"[\d$\\=]", rest) and len(rest.split()) <= 6


def _protect(text: str) -> tuple[str, list[str]]:
    """Replace formulas by placeholders that hold no white space."""
    formulas: list[str] = []

    def keep(found: re.Match[str]) -> str:
        body = next(g for g in found.groups() if g is not None)
        if found[0][:1] == "$" and found[0][:2] != "$$" and re.match(r"\d", body) and _wordy(body):
            return found[0].replace("$", " \\$", 1)  # two prices, not a formula
        formulas.append(body)
        stop = "." if body.rstrip().endswith(".") else ""
        return f"{_HOLE}{len(formulas) - 1}{_HOLE}{stop}"

    # a second pass finds the formula that a price's dollar sign had hidden
    return _FORMULA.sub(keep, text.replace(_HOLE, " ")), formulas


def _wordy(text: str) -> bool:
    return bool(re.search(r"(?<![\\A-Za-z])[A-Za-z]{3,}\s+[A-Za-z]{2,}", text))


def _restore(text: str, formulas: list[str]) -> str:
    return re.sub(f"{_HOLE}(\\d+){_HOLE}", lambda m: f" {formulas[int(m[1])]} ", text).strip()


def _last_run(sentence: str, formulas: list[str]) -> str:
    """Return the last run of mathematical tokens that holds a number or a formula."""
    tokens = _spaced_tuples(sentence).split()
    runs: list[tuple[int, int]] = []
    at = 0
    while at < len(tokens):
        if not _is_math(tokens[at]):
            at += 1
            continue
        start = at
        while at < len(tokens) and (_is_math(tokens[at]) or _connects(tokens, at)):
            at += 1
        while at - 1 > start and _connects(tokens, at - 1):
            at -= 1
        if any(_counts(t, formulas) for t in tokens[start:at]):
            runs.append((start, at))
    if not runs:
        return _last_name(tokens, formulas)
    return _run_text(tokens, _preferred(tokens, runs), runs)


def _preferred(tokens: list[str], runs: list[tuple[int, int]]) -> int:
    """Return the last run that is not a mere circumstance: "in 12 months", "for the 16 glasses"."""
    clause = next(
        (i for i, t in enumerate(tokens) if i >= runs[0][1] and t.lower() in _SUBORDINATE),
        len(tokens),
    )
    weights = [_circumstance(tokens, start, clause, runs[0][0]) for start, _ in runs]
    return max(i for i, weight in enumerate(weights) if weight == min(weights))


def _circumstance(tokens: list[str], start: int, clause: int, first: int) -> int:
    """Return 0 for a number that may be the answer, more the less likely it is."""
    if start >= clause:
        return 2
    before = [t.lower().strip(",") for t in tokens[max(0, start - 3) : start]]
    if before[-2:] == ["out", "of"]:
        return 2
    if before and before[-1] in _DETERMINERS:
        before.pop()
    last = before[-1] if before else ""
    if last in _STRONG:
        return 2
    to_do = before[-2:-1] == ["to"] and last not in {"be", "equal"}
    return int(last in _WEAK or (to_do and start > first))


def _run_text(tokens: list[str], index: int, runs: list[tuple[int, int]]) -> str:
    start, end = runs[index]
    while start < end - 1 and tokens[start] in {"a", "A", "I", ":"}:
        start += 1
    if end < len(tokens) and known_unit(tokens[end]):
        end += 2 if tokens[end] in {"square", "cubic"} else 1
    return " ".join(tokens[start:end]).strip(" ,;.!?") if end > start else ""


def _last_name(tokens: list[str], formulas: list[str]) -> str:
    """Return the last formula even if it is a mere name, as in "the point is $E$"."""
    named = [t for t in tokens if _HOLE in t]
    return named[-1].strip(",.;") if named else ""


def _counts(token: str, formulas: list[str]) -> bool:
    if _HOLE in token:
        found = re.findall(f"{_HOLE}(\\d+){_HOLE}", token)
        return any(not re.fullmatch(r"\s*[A-Za-z]*\s*", formulas[int(i)]) for i in found)
    return bool(re.search(r"\d|\\(?:frac|sqrt|pi|infty)", token))


def _is_math(token: str) -> bool:
    if _HOLE in token:
        return True
    bare = re.sub(r"\\[A-Za-z]+", " ", token.strip(".,;:!?\"'"))
    words = re.findall(r"[^\W\d_]{2,}", bare)
    if any(w not in FUNCTIONS and w not in GREEK and w != "pi" for w in words):
        return False
    return bool(re.search(r"[\d\\+*/^=<>≤≥√π∞%]|^[-−]$|^[A-Za-z]$|^[-(\[].*[)\],]$", token))


def _connects(tokens: list[str], at: int) -> bool:
    return (
        tokens[at].lower().strip(",") in {"and", "or", "", "&"}
        and at + 1 < len(tokens)
        and _is_math(tokens[at + 1])
        and bool(re.search(rf"\d|{_HOLE}", tokens[at + 1]))
    )


def _spaced_tuples(text: str) -> str:
    """Close the gaps inside bracketed tuples so that they stay one token."""
    return re.sub(
        r"[(\[][^()\[\]]{1,80},[^()\[\]]{1,80}[)\]]",
        lambda m: m[0] if re.search(r"[A-Za-z]{3,}", m[0]) else re.sub(r"\s+", "", m[0]),
        text,
    )
