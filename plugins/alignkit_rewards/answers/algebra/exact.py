"""Exact values of expression trees: rationals, and residues modulo a prime.

The size of a result is checked before it is computed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from alignkit_rewards.answers.algebra.trees import NoValueError, Tree

MAX_BITS = 200_000
"""Larger exact numbers are left to floating point."""

PRIME = 2**61 - 31
"""A prime that is 1 modulo 4, so that -1 has a square root modulo it."""

_I = pow(7, (PRIME - 1) // 4, PRIME)
"""That square root: 7 is not a square modulo PRIME."""


@lru_cache(maxsize=8192)
def exact_value(tree: Tree) -> Fraction:
    """Return the value of a rational constant; NoValueError if it is not one, or is too large."""
    kind = tree[0]
    if kind == "num":
        return Fraction(tree[1])
    if kind == "fn":
        return _function(tree[1], [exact_value(t) for t in tree[2:]])
    if kind not in _OPERATIONS:
        raise NoValueError(kind)
    value = _OPERATIONS[kind](*(exact_value(t) for t in tree[1:]))
    if _bits(value) > MAX_BITS:
        raise NoValueError("too large")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise NoValueError("root")
    if base == 0 and exponent <= 0:
        raise NoValueError("0^0")
    if abs(base) in {0, 1}:
        return Fraction(1) if exponent.numerator % 2 == 0 and base else base
    if _bits(base) * abs(exponent) > MAX_BITS:
        raise NoValueError("too large")
    return Fraction(base**exponent.numerator)


def _divide(a: Fraction, b: Fraction) -> Fraction:
    if not b:
        raise NoValueError("division by zero")
    return a / b


def _function(name: str, arguments: list[Fraction]) -> Fraction:
    if name in {"max", "min"}:
        return max(arguments) if name == "max" else min(arguments)
    if name == "mod" and arguments[1]:
        return arguments[0] % arguments[1]
    if name in _ROUNDED and len(arguments) == 1:
        return Fraction(_ROUNDED[name](arguments[0]))
    if name not in _OF_INTEGERS or any(a.denominator != 1 or not 0 <= a <= 5000 for a in arguments):
        raise NoValueError(name)
    try:
        return Fraction(_OF_INTEGERS[name](*(a.numerator for a in arguments)))
    except TypeError as error:  # the wrong number of arguments
        raise NoValueError(name) from error


_ROUNDED: dict[str, Callable[[Fraction], Fraction | int]] = {
    "abs": abs, "floor": math.floor, "ceil": math.ceil,
}  # fmt: skip
_OF_INTEGERS: dict[str, Callable[..., int]] = {
    "factorial": math.factorial, "binomial": math.comb, "gcd": math.gcd, "lcm": math.lcm,
}  # fmt: skip
_OPERATIONS: dict[str, Callable[..., Fraction]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": _divide,
    "neg": lambda a: -a,
    "pow": _power,
}


# ---------------------------------------------------------------- modulo a prime


def residue(tree: Tree) -> int:
    """Return the value modulo a prime with random residues for variables, pi and e.

    Two rational expressions of total degree d with equal residues are equal but for a
    chance of d / 2**61 (Schwartz 1980); unequal residues prove them unequal. NoValueError
    for anything but rational operations.
    """
    kind = tree[0]
    if kind in {"var", "const"}:
        return _I if tree[1] == "i" else _random_residue(tree[1])
    if kind == "pow":
        return _modular_power(residue(tree[1]), exact_value(tree[2]))
    if kind in _MODULAR:
        return int(_MODULAR[kind](*(residue(t) for t in tree[1:]))) % PRIME
    value = exact_value(tree)  # a number, or a function of constants, such as 5!
    return _modular_divide(value.numerator, value.denominator)


def _modular_power(base: int, power: Fraction) -> int:
    if power.denominator != 1 or (not base and power <= 0):
        raise NoValueError("power")
    return pow(base, power.numerator % (PRIME - 1), PRIME)


def _modular_divide(a: int, b: int) -> int:
    if b % PRIME == 0:
        raise NoValueError("division by zero")
    return a * pow(b, -1, PRIME) % PRIME


@lru_cache(maxsize=1024)
def _random_residue(name: str) -> int:
    if name == "inf":
        raise NoValueError("infinity")
    return random.Random("residue of " + name).randrange(1, PRIME)


_MODULAR: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": _modular_divide,
    "neg": lambda a: -a,
}
