"""The time of every regular expression of the rewards grows with a text, not with its square.

The patterns are collected from the modules, and the texts that may be slow are made from each
pattern: its repeats, often, behind what leads up to them.
"""

import importlib
import inspect
import pkgutil
import re
import time
from itertools import product
from re import _constants as codes
from re import _parser as parser

import pytest

import alignkit_rewards

SIZES, TIMES = (100, 400, 1_600, 6_400), 4
QUICK = 0.006
"""Seconds for the longer text that are no concern, whatever the ratio of such small times."""


def modules():
    yield alignkit_rewards
    for found in pkgutil.walk_packages(alignkit_rewards.__path__, "alignkit_rewards."):
        yield importlib.import_module(found.name)


def patterns(value):
    """Yield the compiled patterns in a value of a module, however deep in collections."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from patterns(item)
    elif isinstance(value, dict):
        for pair in value.items():
            yield from patterns(pair)


def methods(name, source):
    """Return how a module calls a pattern: at one place of a text, or at each."""
    called = set(re.findall(rf"\b{name}\.(\w+)\(", source))
    anchored = called & {"match", "fullmatch"}
    return anchored | ({"finditer"} if called - anchored or not called else set())


def collected():
    found = {}
    for module in modules():
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            for pattern in patterns(value):
                for method in methods(name, source):
                    label = f"{module.__name__.partition('.')[2] or 'rewards'}.{name}"
                    found.setdefault((pattern, method), label)
    return [(label, pattern, method) for (pattern, method), label in found.items()]


COLLECTED = collected()


# ---------------------------------------------------------------- texts from patterns


def members(items):
    """Return a few characters that a class of a pattern holds."""
    tried = "a1 \n({.,\\$-[<|*_'\"+)]}>=é5Z;:/^&%~"
    return [c for c in tried if _matches(items, c)][:6] or [_first(items)]


def _matches(items, char):
    negated = items[0][0] is codes.NEGATE
    kinds = {
        codes.CATEGORY_DIGIT: str.isdecimal, codes.CATEGORY_SPACE: str.isspace,
        codes.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
    }  # fmt: skip
    opposite = {
        codes.CATEGORY_NOT_DIGIT: codes.CATEGORY_DIGIT, codes.CATEGORY_NOT_SPACE:
        codes.CATEGORY_SPACE, codes.CATEGORY_NOT_WORD: codes.CATEGORY_WORD,
    }  # fmt: skip
    for code, value in items[negated:]:
        if code is codes.LITERAL:
            hit = value == ord(char)
        elif code is codes.RANGE:
            hit = value[0] <= ord(char) <= value[1]
        elif value in kinds:
            hit = kinds[value](char)
        else:
            hit = not kinds[opposite[value]](char)
        if hit:
            return not negated
    return negated


def _first(items):
    code, value = items[items[0][0] is codes.NEGATE]
    return chr(value[0] if code is codes.RANGE else value) if code is not codes.CATEGORY else "a"


def sample(tree, groups):
    """Return a text that a parsed pattern matches, but for what it asserts."""
    return "".join(_sampled(code, value, groups) for code, value in tree)


def _sampled(code, value, groups):
    if code is codes.SUBPATTERN:
        groups[value[0]] = sample(value[3], groups)
        return groups[value[0]]
    if code in REPEATS:
        low, high, inner = value
        return sample(inner, groups) * max(low, min(1, int(high)))
    simple = {
        codes.LITERAL: lambda: chr(value), codes.NOT_LITERAL: lambda: "a", codes.ANY: lambda: "a",
        codes.IN: lambda: members(value)[0], codes.BRANCH: lambda: sample(value[1][0], groups),
        codes.ATOMIC_GROUP: lambda: sample(value, groups),
        codes.GROUPREF: lambda: groups.get(value, ""),
    }  # fmt: skip
    return simple.get(code, str)()


REPEATS = {codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT}


def repeats(tree, before, groups):
    """Yield what leads up to each repeat of a parsed pattern, and texts that it repeats."""
    for code, value in tree:
        if code in REPEATS:
            inner = value[2]
            if int(value[1]) > 20:
                yield from ((before, body) for body in bodies(inner, groups))
            yield from repeats(inner, before, groups)
        elif code is codes.SUBPATTERN:
            yield from repeats(value[3], before, groups)
        elif code is codes.ATOMIC_GROUP:
            yield from repeats(value, before, groups)
        elif code is codes.BRANCH:
            for branch in value[1]:
                yield from repeats(branch, before, groups)
        before += _sampled(code, value, groups)


def bodies(tree, groups):
    if len(tree) == 1 and tree[0][0] is codes.IN:
        return members(tree[0][1])
    if len(tree) == 1 and tree[0][0] in {codes.ANY, codes.NOT_LITERAL}:
        return ["a", " ", "1"]
    if len(tree) == 1 and tree[0][0] is codes.SUBPATTERN:
        return bodies(tree[0][1][3], groups)
    if len(tree) == 1 and tree[0][0] is codes.BRANCH:
        return [body for branch in tree[0][1][1] for body in bodies(branch, groups)]
    return [sample(tree, groups)]


def attacks(pattern):
    """Return (start, repeated) pairs for the texts on which a pattern may be slow."""
    tree = parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
    found = {("", body or "a") for before, body in repeats(tree, "", {})}
    for before, body in repeats(tree, "", {}):
        found |= {(before, body or "a"), ("", before + body or "a"), ("", before or "a")}
    return sorted(found)


def seconds(pattern, method, text):
    call = getattr(pattern, method)
    began = time.process_time()
    found = call(text)
    if method == "finditer":
        for _ in found:
            pass
    return time.process_time() - began


def slow(pattern, method):
    """Return a text whose time grows faster than it does, with the seconds and the growth."""
    for (start, body), end in product(attacks(pattern), ("", "\x00")):
        before = None
        for size in SIZES:
            text = start + (body * size)[:size] + end
            taken = seconds(pattern, method, text)
            if taken > QUICK and before is not None:
                taken = min(taken, seconds(pattern, method, text))
                if taken > QUICK and taken / before > 2.2 * TIMES:  # the square would be TIMES²
                    return start, body, end, size, round(taken, 3), round(taken / before, 1)
            before = min(seconds(pattern, method, text), taken)
    return None


def test_the_patterns_are_found():
    labels = {label for label, _, _ in COLLECTED}
    assert len(COLLECTED) > 100
    assert {"answers.text.prose._PHRASE", "answers.text.notation._COMPILED"} <= labels


def test_a_pattern_that_grows_as_the_square_is_noticed():
    assert slow(re.compile(r"\s+$"), "finditer")
    assert slow(re.compile(r"\{[^}]*!"), "finditer")
    assert not slow(re.compile(r"\s+$"), "match")


@pytest.mark.parametrize("label", sorted({label for label, _, _ in COLLECTED}))
def test_four_times_the_text_takes_about_four_times_as_long(label):
    found = {
        (pattern.pattern, method): text
        for name, pattern, method in COLLECTED
        if name == label and (text := slow(pattern, method))
    }
    assert not found
