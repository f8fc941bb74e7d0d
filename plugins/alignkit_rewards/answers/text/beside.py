r"""Words beside a number that change its meaning: not 5, at least 5, 5 or more.

A denied number is not an answer. A number that is compared, doubled or bounded is a different
answer from the number alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Beside = Literal["", "denied", "changed", "rough"]

MAX_BEFORE, MAX_AFTER = 12, 6
"""How many words before and after a number are examined."""


def _any(text: str) -> str:
    """Return a pattern for any of the phrases, which semicolons separate."""
    return "(?:" + "|".join(phrase.strip() for phrase in text.split(";")) + ")"


_SIZED = _any(
    "more;less;fewer;greater;larger;smaller;higher;lower;bigger;better;worse;longer;shorter;older;"
    "younger;heavier;lighter;taller;faster;slower;earlier;later;cheaper;farther;further"
)
_SPELLED = (
    "one;two;three;four;five;six;seven;eight;nine;ten;eleven;twelve;\\w+teen;twenty;thirty;forty;"
    "fifty;sixty;seventy;eighty;ninety;hundred;thousand;million"
)
SPELLED = _any(_SPELLED)
"""Numbers in words, as a pattern."""

_CLAUSE = re.compile(
    r".*(?:[,;.!?]\s|\b"
    + _any("so;thus;therefore;hence;but;because;since;then;which;and;giving;leaving;instead(?! of)")
    + r"\s)",
    re.I | re.S,
)
_DENIAL = re.compile(
    r"\b"
    + _any(
        "not;never;neither;nor;cannot;hardly;scarcely;unlikely;impossible;doubt;doubts;doubtful;"
        "wrong;wrongly;incorrect;incorrectly;false;falsely;mistakenly;isnt;arent;wasnt;cant;dont;"
        r"doesnt;ruled out;rules out;reject;rejected;no(?!\s+(?:doubt|matter))"
    )
    + r"\b|n't\b|[❌✗✘🚫]",
    re.I,
)
_SURE = re.compile(r"\b(?:no|without(?: a)?) doubts?\b|\bnot only\b", re.I)
_EXCLUDED = re.compile(
    r"\b"
    + _any(
        "instead of;rather than;other than;except;except for;excluding;excludes;besides;unlike;"
        r"apart from;aside from;as opposed to;anything but;everything but;all but;without;versus;"
        r"vs\.?"
    )
    + r"(?: (?:the|a|an|just|only))*$",
    re.I,
)
_COMPARED = re.compile(
    r"\b"
    + _any(
        rf"at (?:the (?:very )?)?(?:least|most|minimum|maximum);{_SIZED}(?: \w+)? than;over;under;"
        "above;below;beneath;beyond;exceed;exceeds;exceeding;exceeded;surpass(?:es|ing)?;up to;"
        "upto;upwards? of;in excess of;nearly;almost;barely;not quite;just (?:over|above|shy of);"
        "close to;closer to;near;nowhere near;short of;north of;south of;a? ?limit of;capped at;"
        "minimum of;maximum of;between;anywhere from;differs? from;different from;unequal to;"
        "larger;smaller;bigger;within;off by;away from;bounded by;starting (?:at|from);"
        "as (?:much|many|few|little|high|low|long|short|far|big|small|large) as"
    )
    + r"(?: (?:the|a|an|about|equal to|or equal to))*$",
    re.I,
)
_COMPUTED = re.compile(
    r"(?:\b|(?=%))"
    + _any(
        "half;half of;thirds? of;quarters? of;fourths? of;fifths? of;tenths? of;twice;thrice;"
        "double;triple;quadruple;times;root of;cube of;square of;power of;factorial of;log of;"
        "logarithm of;reciprocal of;inverse of;opposite of;negation of;percent of;per cent of;% of;"
        "percentage of;multiples? of;divisible by;factors? of;divisors? of;modulo;mod;base;per;ln;"
        f"sqrt;absolute value of;complement of;couple of;pair of;dozens? of;hundreds of;{_SPELLED}"
    )
    + r"(?: (?:in|of|out of)(?: every)?)?(?: (?:the|a|an))*$",
    re.I,
)
_ROUGH = re.compile(
    r"\b"
    + _any(r"about;approximately;approx\.?;roughly;around;circa;ca\.?;some;estimated(?: at)?")
    + r"(?: (?:the|a|an))*$",
    re.I,
)
_BOUNDED = re.compile(
    _any(
        r"(?:or|and|&) (?:\w+ )?(?:more|less|fewer|greater|higher|lower|larger|smaller|bigger|above"
        r"|over|below|under|up|upwards?|beyond|so|counting|older|younger|longer|later|earlier)\b;"
        r"at (?:the )?(?:least|most|minimum|maximum)\b;plus\b;minimum\b;min\b;maximum\b;max\b;"
        r"tops\b;ish\b;odd\b;or thereabouts\b;more or less\b;give or take\b;if not more\b;"
        r"and change\b;(?:is|are) (?:too|at least|at most)\b;"
        rf"(?:is|are) {_SIZED} than(?! [-$\\\x02\d]);{_SIZED} than [-$\\\x02\d];"
        r"(?:below|under) (?:zero|0|freezing)\b;short of\b;shy of\b"
    ),
    re.I,
)
_MULTIPLIED = re.compile(
    _any(
        r"fold\b;squared\b;cubed\b;factorial\b;dozens?\b;pairs?\b;hundreds?\b;thousands?\b;"
        r"millions?\b;billions?\b;trillions?\b;halves\b;thirds\b;tenths\b;hundredths\b;gross\b;"
        r"ths?\b;zeroe?s\b;ones\b;twos\b;threes\b;fours\b;fives\b;sixes\b;sevens\b;eights\b;nines\b;"
        r"tens\b;mod\b;modulo\b;(?:in )?base\b;per (?:hundred|thousand|mille|million)\b;point\b;"
        r"to the (?:\d|second|third|nth|power);(?:to )?the power\b;power\b;unless\b;except\b;"
        r"excluding\b;times (?:the|that|this|his|her|its|their|my|our|x|n)\b"
    ),
    re.I,
)
_REFUSED = re.compile(
    _any(
        r"(?:is|was|would be|seems|looks|sounds)(?: \w+ly| just| also)? (?:not|never|wrong"
        r"|incorrect|false|impossible|invalid|ruled out|n't)\b;isn't\b;"
        r"wasn't\b;isnt\b;cannot\b;can't\b;can not\b;couldn't\b;won't\b;wouldn't\b;doesn't\b;"
        r"does not\b;wrong\b;incorrect\b;not$;[❌✗✘🚫]"
    ),
    re.I,
)
_RESTATED = re.compile(rf"\b{SPELLED}$", re.I)
_EDGES = "()[]*_\"'“”"


def beside(tokens: Sequence[str], start: int, end: int, floor: int = 0) -> Beside:
    """Return how words around ``tokens[start:end]``, from ``floor`` on, change the number there.

    >>> words = "it is not 5".split(), "at least 5".split(), "about 5".split(), "it is 5".split()
    >>> [beside(w, len(w) - 1, len(w)) for w in words]
    ['denied', 'changed', 'rough', '']
    """
    before = _spoken(tokens[max(floor, start - MAX_BEFORE) : start])
    if tokens[start][0] == "(":
        before = _RESTATED.sub("", before)  # five (5)
    after = _spoken(tokens[end : end + MAX_AFTER])
    stopped = tokens[end - 1].rstrip(_EDGES)[-1:] in set(",;:.!?")
    return before_number(before) or ("" if stopped and not _adds(after) else after_number(after))


def _spoken(tokens: Sequence[str]) -> str:
    return " ".join(t.strip(_EDGES) for t in tokens)


def _adds(after: str) -> bool:
    return bool(_BOUNDED.match(after))


def before_number(words: str) -> Beside:
    """Return how words change a number after them."""
    if not words:
        return ""
    clause = _last_clause(words)
    changed = _COMPARED.search(clause) or _COMPUTED.search(clause)
    if _EXCLUDED.search(words) or _DENIAL.search(_SURE.sub("", clause)):
        return "changed" if changed else "denied"
    if changed:
        return "changed"
    return "rough" if _ROUGH.search(clause) else ""


def after_number(words: str) -> Beside:
    """Return how words change a number before them."""
    if _REFUSED.match(words):
        return "denied"
    words = words.lstrip(" -+,;")
    return "changed" if _BOUNDED.match(words) or _MULTIPLIED.match(words) else ""


def is_denied(clause: str) -> bool:
    """Return whether the last clause of a text denies what follows it."""
    return bool(_DENIAL.search(_SURE.sub("", _last_clause(clause[-200:]))))


def _last_clause(words: str) -> str:
    found = _CLAUSE.match(words + " ")
    return words[found.end() :].strip() if found else words.strip()
