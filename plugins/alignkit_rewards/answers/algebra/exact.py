"""Exact values of expression trees: rationals, and residues modulo a prime.

Sizes are checked before the operation that would make them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import mpmath  # type: ignore[import-untyped]

from alignkit_rewards.expression import Tree

MAX_BITS = 200_000
"""Exact numbers larger than this are left to floating point."""

PRIME = 2**61 - 31
"""A prime that is 1 modulo 4, so that -1 has a square root."""

_I = pow(7, (PRIME - 1) // 4, PRIME)
"""That square root: 7 is not a square modulo PRIME."""


class NotExactError(ValueError):
    """The value is not a rational number that fits the caps."""


class NoValueError(ValueError):
    """The expression has no finite value here: a pole, an overflow, an unknown function."""


def names(tree: Tree) -> frozenset[str]:
    """Return the variables of a tree."""
    if tree[0] == "var":
        return frozenset({tree[1]})
    return frozenset().union(*(names(t) for t in tree[1:] if isinstance(t, tuple)))


def contains(tree: Tree, *marks: str) -> bool:
    """Return whether a node kind, function or constant of these names is in the tree."""
    return tree[0] in marks or any(
        contains(t, *marks) if isinstance(t, tuple) else t in marks for t in tree[1:]
    )


def choose_signs(tree: Tree, upper: bool) -> Tree:
    r"""Replace every ``\pm`` by + and ``\mp`` by -, or the other way round."""
    if tree[0] in {"pm", "mp"}:
        a, b = (choose_signs(t, upper) for t in tree[1:])
        return ("add", a, b if (tree[0] == "pm") is upper else ("neg", b))
    return tuple(choose_signs(t, upper) if isinstance(t, tuple) else t for t in tree)


# ---------------------------------------------------------------- exact


@lru_cache(maxsize=8192)
def exact_value(tree: Tree) -> Fraction:
    """Return the value of a rational constant; NotExactError if it is none, or too large."""
    kind = tree[0]
    if kind == "num":
        return Fraction(tree[1])
    if kind not in _EXACT:
        raise NotExactError(kind)
    if kind == "fn":
        return _exact_function(tree[1], [exact_value(t) for t in tree[2:]])
    value = _EXACT[kind](*(exact_value(t) for t in tree[1:]))
    if _bits(value) > MAX_BITS:
        raise NotExactError("too large")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        return _exact_root(base, exponent)
    if base in {0, 1, -1}:
        if base == 0 and exponent <= 0:
            raise NotExactError("0^0")
        return Fraction(1) if exponent.numerator % 2 == 0 else base
    if _bits(base) * abs(exponent) > MAX_BITS:
        raise NotExactError("too large")
    return Fraction(base**exponent.numerator)


def _exact_root(base: Fraction, exponent: Fraction) -> Fraction:
    degree = exponent.denominator
    if base < 0 or degree > 64 or _bits(base) * abs(exponent.numerator) > MAX_BITS:
        raise NotExactError("root")
    powered = Fraction(base ** abs(exponent.numerator))
    top = _integer_root(powered.numerator, degree)
    root = Fraction(top, _integer_root(powered.denominator, degree))
    return root if exponent > 0 or not root else 1 / root


def _integer_root(value: int, degree: int) -> int:
    root = math.isqrt(value) if degree == 2 else _nearest_root(value, degree)
    if root**degree != value:
        raise NotExactError("irrational")
    return root


def _nearest_root(value: int, degree: int) -> int:
    with mpmath.workprec(value.bit_length() // degree + 20):
        return int(mpmath.nint(mpmath.root(value, degree)))


def _exact_divide(a: Fraction, b: Fraction) -> Fraction:
    if not b:
        raise NoValueError("division by zero")
    return a / b


def _exact_function(name: str, arguments: list[Fraction]) -> Fraction:
    if name == "sqrt":
        return _exact_root(arguments[0], Fraction(1, 2))
    if name in {"abs", "floor", "ceil"} and len(arguments) == 1:
        return _rounded(name, arguments[0])
    if name in {"max", "min"} and arguments:
        return max(arguments) if name == "max" else min(arguments)
    if name == "mod" and arguments[1]:
        return arguments[0] % arguments[1]
    return _integer_function(name, arguments)


def _rounded(name: str, number: Fraction) -> Fraction:
    if name == "abs":
        return abs(number)
    return Fraction(math.floor(number) if name == "floor" else math.ceil(number))


def _integer_function(name: str, arguments: list[Fraction]) -> Fraction:
    if any(a.denominator != 1 or not 0 <= a <= 5000 for a in arguments):
        raise NotExactError(name)
    integers = [a.numerator for a in arguments]
    if name == "factorial" and len(integers) == 1:
        return Fraction(math.factorial(integers[0]))
    if name == "binomial" and len(integers) == 2:
        return Fraction(math.comb(*integers))
    if name in {"gcd", "lcm"}:
        return Fraction(math.gcd(*integers) if name == "gcd" else math.lcm(*integers))
    raise NotExactError(name)


_EXACT: dict[str, Callable[..., Fraction]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": _exact_divide,
    "neg": lambda a: -a,
    "pow": _exact_power,
    "fn": _exact_function,
}


# ---------------------------------------------------------------- modulo a prime


def residue(tree: Tree) -> int:
    """Return the value modulo a prime with random residues for variables, pi and e.

    Two rational expressions of total degree d with equal residues are equal but for a
    chance of d / 2**61 (Schwartz 1980); unequal residues prove them unequal. NotExactError
    for anything but rational operations.
    """
    kind = tree[0]
    if kind == "num":
        return _modular_divide(tree[1].numerator, tree[1].denominator)
    if kind in {"var", "const"}:
        return _I if tree[1] == "i" else _random_residue(tree[1])
    if kind == "pow":
        return _modular_power(residue(tree[1]), tree[2])
    if kind in {"add", "mul", "div", "neg"}:
        values = [residue(t) for t in tree[1:]]
        return int(_MODULAR[kind](*values)) % PRIME
    value = exact_value(tree)  # a function of constants, such as 5!
    return _modular_divide(value.numerator, value.denominator)


def _modular_power(base: int, exponent: Tree) -> int:
    power = exact_value(exponent)
    if power.denominator != 1 or (not base and power <= 0):
        raise NotExactError("power")
    return pow(base, power.numerator % (PRIME - 1), PRIME)


def _modular_divide(a: int, b: int) -> int:
    if b % PRIME == 0:
        raise NotExactError("division by zero")
    return a * pow(b, -1, PRIME) % PRIME


@lru_cache(maxsize=1024)
def _random_residue(name: str) -> int:
    if name == "inf":
        raise NotExactError("infinity")
    return random.Random("residue of " + name).randrange(1, PRIME)


_MODULAR: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": _modular_divide,
    "neg": lambda a: -a,
}
