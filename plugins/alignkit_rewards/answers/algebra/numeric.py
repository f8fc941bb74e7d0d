"""High-precision values of expression trees at random points.

Cost is bounded: the precision is limited, and results beyond 2**±1,000,000 are refused before they
are computed.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import mpmath  # type: ignore[import-untyped]
from mpmath import mp

from alignkit_rewards.answers.algebra.exact import exact_value
from alignkit_rewards.answers.algebra.trees import NoValueError, Tree, contains, names
from alignkit_rewards.answers.text.vocabulary import word_set

DIGITS = 60
"""Working precision in decimal digits; more where the literals of an expression have more."""

TOLERANCE_DIGITS = 15
"""Digits that may be lost to rounding: values agree if all other digits do."""

MAX_EXPONENT = 1_000_000
"""Binary exponents beyond this are out of range."""

_SCALES = ((0.05, 0.95), (0.05, 0.95), (0.3, 3.0), (0.3, 3.0), (1.0, 12.0))

Point = Mapping[str, Any]
"""A value for each variable."""


def value(tree: Tree, point: Point) -> Any:
    """Return the value at ``point``; NoValueError if it is not defined there."""
    try:
        return _value(tree, point)
    except (ZeroDivisionError, OverflowError, ValueError, TypeError, RecursionError) as error:
        raise NoValueError(str(error)) from error


def _value(tree: Tree, point: Point) -> Any:
    kind = tree[0]
    if kind == "num":
        return mp.mpf(tree[1].numerator) / tree[1].denominator
    if kind == "var":
        return point[tree[1]]
    if kind == "const":
        return _constant(tree[1])
    name, arguments = (tree[1], tree[2:]) if kind == "fn" else (kind, tree[1:])
    if name not in _FUNCTIONS:
        raise NoValueError(name)
    number = _FUNCTIONS[name](*(_value(t, point) for t in arguments))
    if not mp.isfinite(number) or (number and abs(mpmath.mag(number)) > MAX_EXPONENT):
        raise NoValueError("out of range")
    return number


def _constant(name: str) -> Any:
    if name == "inf":
        raise NoValueError("infinity")
    return {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1)}[name] * mp.one


def _power(base: Any, exponent: Any) -> Any:
    if not base:
        if mp.re(exponent) > 0:
            return mp.zero
        raise NoValueError("0 to a power that is not positive")
    if abs(exponent) * abs(mp.log(base)) > MAX_EXPONENT:
        raise NoValueError("out of range")
    return mp.power(base, exponent)


def _real(function: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*arguments: Any) -> Any:
        if any(mp.im(a) for a in arguments):
            raise NoValueError("complex argument")
        return function(*arguments)

    return checked


def _bounded(function: Callable[..., Any], limit: int = MAX_EXPONENT) -> Callable[..., Any]:
    """Refuse arguments whose exponential, or whose remainder modulo pi, costs too much."""

    def checked(*arguments: Any) -> Any:
        if any(abs(a) > limit for a in arguments):
            raise NoValueError("out of range")
        return function(*arguments)

    return checked


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "mul": operator.mul, "div": operator.truediv, "neg": operator.neg,
    "pow": _power,
    **{f: _bounded(getattr(mp, f)) for f in word_set("sin cos tan sec csc cot")},
    **{f: _bounded(getattr(mp, f)) for f in word_set("sinh cosh tanh sech csch coth")},
    **{f"arc{f}": getattr(mp, f"a{f}") for f in word_set("sin cos tan sec csc cot sinh cosh tanh")},
    "ln": mp.log, "log": mp.log, "sqrt": mp.sqrt, "cbrt": mp.cbrt, "abs": abs,
    "floor": _real(mp.floor), "ceil": _real(mp.ceil), "sign": _real(mp.sign),
    "max": _real(max), "min": _real(min), "mod": _real(lambda a, b: a - b * mp.floor(a / b)),
    "factorial": _bounded(mp.factorial, 20_000), "binomial": _bounded(mp.binomial, 20_000),
}  # fmt: skip


# ---------------------------------------------------------------- comparison


@lru_cache(maxsize=4096)
def _working_digits(tree: Tree) -> int:
    """Return how many digits the literals and constant exponents of a tree require."""
    if tree[0] == "num":
        return len(str(tree[1].numerator)) + len(str(tree[1].denominator)) - 2
    inner = sum(_working_digits(t) for t in tree[1:] if isinstance(t, tuple))
    if tree[0] == "pow":
        with suppress(NoValueError):
            inner += min(300, int(abs(exact_value(tree[2])) * max(1, _working_digits(tree[1]))))
    return inner


def precision(*trees: Tree) -> int:
    """Return the decimal digits to compare these trees with."""
    return min(400, DIGITS + sum(_working_digits(t) for t in trees))


def points(variables: frozenset[str], *, signed: bool = False) -> list[dict[str, Any]]:
    """Return fixed pseudo-random points: positive reals of several scales, or of both signs."""
    draw = random.Random(f"points {signed}")
    found: list[dict[str, Any]] = []
    for i in range(20):
        low, high = _SCALES[i % len(_SCALES)]
        point = {}
        for j, v in enumerate(sorted(variables)):
            sign = -1 if signed and (i % 4 == 0 or (i + j) % 2) else 1
            point[v] = (mp.mpf(draw.randrange(10**15)) / 10**15 * (high - low) + low) * sign
        found.append(point)
    return found


def agree(a: Tree, b: Tree) -> bool | None:
    """Compare two trees numerically; None if there are too few points at which they have values.

    Variables stand for positive numbers, except that ``|x|`` also has to hold at negative ones.
    Points where only one side is real are skipped, as branches of logarithms and roots may differ.
    """
    with mp.workdps(precision(a, b)):
        variables = names(a) | names(b)
        if not variables:
            return _agree_at(a, b, {})
        verdict = _agree_on(a, b, points(variables))
        if verdict and (contains(a, "abs") or contains(b, "abs")):
            return _agree_on(a, b, points(variables, signed=True)) is not False
        return verdict


def _agree_on(a: Tree, b: Tree, where: Sequence[Point]) -> bool | None:
    good = bad = 0
    for point in where:
        found = _agree_at(a, b, point)
        if found is False:
            return False
        good, bad = good + (found is True), bad + (found is None)
        if good >= 5:
            return True
    return True if good > bad or good >= 3 else None


def _agree_at(a: Tree, b: Tree, point: Point) -> bool | None:
    x, y = _maybe(a, point), _maybe(b, point)
    if x is None and y is None:
        return None
    if x is None or y is None:
        return None if point else False
    if _close(x, y):
        return True
    if point and (_is_complex(x) or _is_complex(y)) and not (contains(a, "i") or contains(b, "i")):
        return None
    return False


def _close(a: Any, b: Any) -> bool:
    """Return whether two numbers agree to the working precision, less a margin."""
    return bool(abs(a - b) <= max(abs(a), abs(b)) * _margin())


def _is_complex(number: Any) -> bool:
    return bool(abs(mp.im(number)) > abs(number) * _margin())


def _margin() -> Any:
    return mp.mpf(10) ** (TOLERANCE_DIGITS - mp.dps)


def _maybe(tree: Tree, point: Point) -> Any:
    try:
        return value(tree, point)
    except NoValueError:
        return None
