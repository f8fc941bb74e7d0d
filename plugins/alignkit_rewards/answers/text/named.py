"""Decide whether an answer gives a gold in words: a name, a kind, yes or no."""

from __future__ import annotations

import re

from alignkit_rewards.answers.text.beside import is_denied
from alignkit_rewards.answers.text.vocabulary import word_set
from alignkit_rewards.answers.text.words import plain

_LINKS = word_set(
    "is are was were be been being it's that's he's she's who's becomes equals answer answered"
    " name named called has have had choose chose pick picked say therefore thus so hence forms"
    " form makes make remains stays likely"
)
"""Words before a name which indicate that it is the answer."""
_ADVERBS = word_set("a an the indeed clearly definitely just simply always only also then both")
_VERBS = word_set(
    "is are was were will would has had have wins won beats beat can should must does did gets got"
    " runs ran finishes finished scores scored"
)
"""Words after a name at the start of a sentence that say something about it."""
_REASONS = word_set(
    "because since as for who which with so it he she they the this that by being having i we"
    " therefore thus hence whose where"
)
_CONTRAST = re.compile(
    r"(?:,\s*+(?:and\s++)?not|\(not|(?<=\s)(?:rather than|instead of|as opposed to))"
    r"\s++([^,.;]{0,200}+)\.?\s*+$",
    re.I,
)
_BREAK = re.compile(r"[,;:.!?(–—-]")
_CLAUSE = re.compile(r"[,;.!?]\s|\b(?:so|therefore|thus|hence|because|since)\b", re.I)
_DENIED = re.compile(r"\b(?:not|no|never|neither|nor|or|isn't|cannot|either)\b|n't\b|/", re.I)
_FILLER = word_set("a an the is are it he she they was be so therefore thus hence answer")
_SAME = {"true": "yes", "false": "no", "y": "yes", "n": "no", "dne": "does not exist"}
_YES_NO = {"yes": "yes", "no": "no", "true": "yes", "false": "no"}
_SUBJECTS = word_set("it they he she there this that we i you because since the a an as not these")

MAX_LENGTH = 1000
"""Maximum length of an answer that may contrast its name with another, in characters."""
MAX_SENTENCE = 40
"""Maximum number of words in a sentence that may give the answer at its start or end."""
_LISTING = re.compile(r",|;|&|\band\b")


def same_words(gold: str, answer: str) -> bool:
    """Return whether an answer has the words of the gold, without others that change the meaning.

    In a short sentence, the gold may be at either end, unless the sentence denies it or offers
    alternatives.

    >>> same_words("Evelyn", "Evelyn was the fastest."), same_words("Evelyn", "not Evelyn")
    (True, False)
    """
    wanted, said = plain(gold), plain(answer)
    if not wanted:
        return False
    if _SAME.get(wanted, wanted) == _SAME.get(said, said):
        return True
    if wanted in _YES_NO:
        return yes_or_no(answer) == _YES_NO[wanted]
    kept = [[w for w in text.split() if w not in _FILLER] for text in (wanted, said)]
    if kept[0] and kept[0] == kept[1]:
        return True
    answer = without_contrast(gold, answer)
    if _DENIED.search(answer) and not _DENIED.search(gold):
        return False
    return names(gold, answer) or same_list(gold, answer) or plain(answer) == wanted


def without_contrast(gold: str, answer: str) -> str:
    """Remove "not Bob" from "Alice, not Bob", unless the gold is what is denied.

    >>> without_contrast("Alice", "Alice, not Bob"), without_contrast("Bob", "Alice, not Bob")
    ('Alice', 'Alice, not Bob')
    """
    found = _CONTRAST.search(answer) if len(answer) < MAX_LENGTH else None
    if not found or plain(gold) in plain(found[1]):
        return answer
    return answer[: found.start()].rstrip().removesuffix(",")


def yes_or_no(text: str) -> str:
    """Return ``yes`` or ``no`` if a text means that, else ``""``.

    >>> [yes_or_no(t) for t in ("Yes, it is.", "It is not true", "no solution", "yes and no")]
    ['yes', 'no', '', '']
    """
    words = plain(text).split()
    places = [i for i, word in enumerate(words) if word in _YES_NO]
    if not places or len(words) > MAX_SENTENCE:
        return ""
    values = {_value(words, i) for i in places}
    if len(values) != 1:
        return ""
    first = places[0]
    if first == 0:
        return values.pop() if _answers(words, text) else ""
    linked = words[first - 1] in _LINKS | _ADVERBS | {"not"}
    return values.pop() if linked and places[-1] == len(words) - 1 else ""


def _value(words: list[str], at: int) -> str:
    """Return the meaning of one of the words in its context; "not yes" has none."""
    value = _YES_NO[words[at]]
    denied = bool({"not", "isn't", "never"} & set(words[max(0, at - 2) : at]))
    if not denied:
        return value
    return {"true": "no", "false": "yes"}.get(words[at], "")


def _answers(words: list[str], text: str) -> bool:
    """Return whether the first word answers a question; "no" in "no solution" does not."""
    if len(words) == 1 or words[1] in _SUBJECTS:
        return True
    marked = re.match(rf"\W*{words[0]}\W*[,.;:!(–—-]", text, re.I)
    return bool(marked) and words[1] not in {"and", "or"}


def names(gold: str, answer: str) -> bool:
    """Return whether a short sentence gives the whole gold as its answer.

    >>> names("Evelyn", "Evelyn was the fastest."), names("Evelyn", "Bob beats Evelyn")
    (True, False)
    """
    words, target = plain(answer).split(), plain(gold).split()
    if not len(target) < len(words) <= MAX_SENTENCE or len("".join(target)) < 2:
        return False
    return _at_end(words, target, answer) or _at_start(words, target, answer)


def _at_end(words: list[str], target: list[str], answer: str) -> bool:
    before = words[: -len(target)]
    if words[-len(target) :] != target:
        return False
    while before and before[-1] in _ADVERBS:
        before.pop()
    last_clause = _CLAUSE.split(answer.rstrip(" .!"))[-1]
    several = " and " in f" {plain(last_clause)} " and "and" not in target
    colon = bool(re.search(r":\W*" + re.escape(target[0]), answer, re.I))
    return not before or ((before[-1] in _LINKS or colon) and not several)


def _at_start(words: list[str], target: list[str], answer: str) -> bool:
    if words[: len(target)] != target:
        return False
    following = words[len(target)]
    if following in _VERBS:
        return not is_denied(" ".join(words[len(target) : len(target) + 3]))
    end = re.search(re.escape(target[-1]), answer, re.I)
    rest = answer[end.end() :].lstrip(" }$*\"'") if end else ""
    return bool(_BREAK.match(rest)) and following in _REASONS


def same_list(gold: str, answer: str) -> bool:
    """Return whether both list the same names, in any order.

    >>> same_list("Al and Bo", "Bo, Al"), same_list("Al", "Al and Bo")
    (True, False)
    """
    lists = [_LISTING.split(text) for text in (gold, answer)]
    left, right = (sorted(filter(None, map(plain, names))) for names in lists)
    return len(left) > 1 and left == right
