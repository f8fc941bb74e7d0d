r"""Find numbers and formulas in a sentence, and choose the one that is the answer."""

from __future__ import annotations

import re

from alignkit_rewards.answers.text.beside import beside
from alignkit_rewards.answers.text.unit_names import known_unit
from alignkit_rewards.answers.text.vocabulary import FUNCTIONS, GREEK, word_set
from alignkit_rewards.answers.verdict import Rough

HOLE = "\x02"
"""Encloses the number of a formula in the placeholder for it."""

UNREAD = "\x03"
"""Precedes an answer that contains a number but is not just that number: "at least 5"."""

_STRONG = word_set("in within after per every each during before")
_WEAK = word_set("for from with at on than among over")
_DETERMINERS = word_set("the his her their its all these those a an")
_SUBORDINATE = word_set("if when because since while where given")
_RELATING = {
    "to", "through", "thru", "by", "vs", "vs.", "versus", "choose", "over", "per", "of", "into",
    "less", "under", "against", "mod", "modulo", "followed by", "out of", "out of every", "point",
}  # fmt: skip
_TOGETHER = re.compile(r"\b(?:as well as|but also|along with|together with|and also)$")
_PLURAL = re.compile(
    r"(?!(?:equals|always|plus|less|minus|thus|does|goes|yes|times|means|gives|makes|works|becomes"
    r"|perhaps|is|was|has)\b)[a-z]{2,}s[.,;!]?"
)
"""A plural noun after a number: what is counted. Verbs are excluded."""
_TIMES = word_set("second minute hour day night week weekend month quarter year decade century")
_JOINERS = word_set("and or maybe possibly perhaps & plus nor")

Run = tuple[int, int]
"""A number or formula in a sentence: its first token, and the one after its last."""
_DECIMAL = re.compile(r"\d\.\d")
_PLACE = re.compile(f"{HOLE}(\\d+){HOLE}")
_NAME = re.compile(r"\s*+[A-Za-z]*+\s*+")
_NUMERIC = re.compile(r"\d|\\(?:frac|sqrt|pi|infty)")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")
_SIGN = re.compile(r"[\d\\+*/^=<>≤≥√π∞%]|^[-−]$|^[A-Za-z]$|^[-(\[].*[)\],]$")
_DIGIT_OR_FORMULA = re.compile(rf"\d|{HOLE}")
_LONG_WORD = re.compile(r"[A-Za-z]{3}")
_SPACE = re.compile(r"\s+")


def last_run(sentence: str, formulas: list[str], rough: Rough) -> str:
    """Return the last run of mathematical tokens that states a number or a formula.

    It is ``UNREAD`` alone if all are denied, and ``UNREAD`` followed by the sentence if words
    change the number.
    """
    tokens = _spaced_tuples(sentence).split()
    runs: list[tuple[int, int]] = []
    at = 0
    while at < len(tokens):
        if not is_math(tokens[at]):
            at += 1
            continue
        start = at
        while at < len(tokens) and (is_math(tokens[at]) or _connects(tokens, at)):
            at += 1
        while at - 1 > start and _connects(tokens, at - 1):
            at -= 1
        if any(_counts(t, formulas) for t in tokens[start:at]):
            runs.append((start, at))
    if not runs:
        return _last_name(tokens, formulas)
    floors = [0, *(end for _, end in runs)]
    said = [beside(tokens, *run, floor) for run, floor in zip(runs, floors, strict=False)]
    kept = [i for i, what in enumerate(said) if what != "denied"]
    if not kept:
        return UNREAD
    index = kept[_preferred(tokens, [runs[i] for i in kept])]
    if several := joined(tokens, runs, index):
        return several
    found = _run_text(tokens, index, runs)
    changed = said[index] == "changed" or related(tokens, runs, index)
    if changed or (said[index] == "rough" and _vague(found, rough)):
        return UNREAD + sentence
    return found


def _vague(found: str, rough: Rough) -> bool:
    """Return whether a number is excluded because it is said to be approximate."""
    return rough == "refused" or (rough == "decimals" and not _DECIMAL.search(found))


def _preferred(tokens: list[str], runs: list[tuple[int, int]]) -> int:
    """Return the last run that is not just a circumstance: "in 12 months", "for the 16 glasses"."""
    clause = next(
        (i for i, t in enumerate(tokens) if i >= runs[0][1] and t.lower() in _SUBORDINATE),
        len(tokens),
    )
    weights = [_circumstance(tokens, start, clause, runs[0][0]) for start, _ in runs]
    return max(i for i, weight in enumerate(weights) if weight == min(weights))


def _circumstance(tokens: list[str], start: int, clause: int, first: int) -> int:
    """Return 0 for a number that may be the answer, larger values for less likely ones."""
    if start >= clause:
        return 2
    before = [t.lower() for t in tokens[max(0, start - 3) : start]]
    if before and before[-1] in _DETERMINERS:
        before.pop()
    last = before[-1] if before else ""
    if before[-2:] == ["out", "of"] or last in _STRONG:
        return 2
    if last == "of" and len(before) > 1 and is_math(before[-2]):
        return 2 * ("=" not in tokens[start : start + 2])
    to_do = before[-2:-1] == ["to"] and last not in {"be", "equal"}
    return int(last in _WEAK or (to_do and start > first))


def _run_text(tokens: list[str], index: int, runs: list[tuple[int, int]]) -> str:
    start, end = runs[index]
    while start < end - 1 and tokens[start] in {"a", "A", "I", ":"}:
        start += 1
    counts = tokens[end - 1][-1:].isdigit()
    if end < len(tokens) and (
        known_unit(tokens[end]) or (counts and _PLURAL.fullmatch(tokens[end]))
    ):
        end += 2 if tokens[end] in {"square", "cubic"} else 1
    return " ".join(tokens[start : _unit_end(tokens, end)]).strip(" ,;.!?") if end > start else ""


def _unit_end(tokens: list[str], at: int) -> int:
    """Return where a unit that begins before ``at`` ends: "degrees Celsius", "miles per hour"."""
    while at < len(tokens) and tokens[at - 1][-1:].isalpha():
        joins = tokens[at] in {"per", "a", "an"} and at + 1 < len(tokens)
        if not known_unit(tokens[at + joins]):
            break
        at += 1 + joins
    return at


def _last_name(tokens: list[str], formulas: list[str]) -> str:
    """Return the last formula even if it is only a name, as in "the point is $E$"."""
    named = [t for t in tokens if HOLE in t]
    return named[-1].strip(",.;") if named else ""


def _counts(token: str, formulas: list[str]) -> bool:
    if HOLE in token:
        found = _PLACE.findall(token)
        return any(not _NAME.fullmatch(formulas[int(i)]) for i in found)
    return bool(_NUMERIC.search(token))


def is_math(token: str) -> bool:
    """Return whether a token is a number, a formula or a sign, not a word."""
    if HOLE in token:
        return True
    bare = _COMMAND.sub(" ", token.strip(".,;:!?\"'"))
    words = _WORD.findall(bare)
    if any(w not in FUNCTIONS and w not in GREEK and w != "pi" for w in words):
        return False
    return bool(_SIGN.search(token))


def _connects(tokens: list[str], at: int) -> bool:
    return (
        tokens[at].lower().strip(",") in {"and", "or", "", "&"}
        and at + 1 < len(tokens)
        and is_math(tokens[at + 1])
        and bool(_DIGIT_OR_FORMULA.search(tokens[at + 1]))
    )


def _spaced_tuples(text: str) -> str:
    """Remove spaces inside bracketed tuples, so that each is one token."""
    return re.sub(
        r"[(\[][^()\[\]]{1,80},[^()\[\]]{1,80}[)\]]",
        lambda m: m[0] if _LONG_WORD.search(m[0]) else _SPACE.sub("", m[0]),
        text,
    )


def related(tokens: list[str], runs: list[Run], index: int) -> bool:
    """Return whether a single word relates a number to the next: "5 to 6", "5 of 10", "5 by 6"."""
    near = [(i, i + 1) for i in (index - 1, index) if 0 <= i < len(runs) - 1]
    return any(
        (said := " ".join(tokens[runs[i][1] : runs[j][0]]).lower()) in _RELATING
        and not (said == "over" and _is_span(tokens, runs[j]))
        and "=" not in tokens[slice(*runs[j])]
        for i, j in near
    )


def _is_span(tokens: list[str], run: Run) -> bool:
    """Return whether a number measures time, as in "60 over 5 days"."""
    after = tokens[run[1]].strip(".,;:!?").lower() if run[1] < len(tokens) else ""
    return after.removesuffix("s") in _TIMES


def joined(tokens: list[str], runs: list[Run], index: int) -> str:
    """Return two numbers that belong together, "2 feet 3 inches", "5 apples and 6 pears", else "".

    A quantity in two units is kept whole; other numbers become a list.
    """
    if not index or any("=" in tokens[slice(*run)] for run in runs[index - 1 : index + 1]):
        return ""
    (first, end), (start, last) = runs[index - 1], runs[index]
    between = [t.lower().strip(",") for t in tokens[end:start]]
    between = _TOGETHER.sub("and", " ".join(between)).split()
    units = [t for t in between if known_unit(t)]
    words = [t for t in between if t not in _JOINERS]
    measured = last < len(tokens) and known_unit(tokens[last])
    if len(units) == len(words) == 1 and measured:
        return " ".join(tokens[first : last + 1]).strip(" ,;.!?")
    if len(words) == len(between) or len(words) > 2 or between[-1] not in _JOINERS:
        return ""
    return f"{_run_text(tokens, index - 1, runs)} and {_run_text(tokens, index, runs)}"
