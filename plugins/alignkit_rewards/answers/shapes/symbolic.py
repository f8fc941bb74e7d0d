r"""Leave what `algebra` cannot parse, such as sums, integrals and limits, to math-verify and sympy.

If math-verify says "equal", two guards must agree: both sides must be expressions in the same
variables, and their values at random points must not differ.
"""

from __future__ import annotations

import importlib
import random
import signal
from functools import lru_cache
from typing import Any

from alignkit_rewards.answers.text.normalize import ROW
from alignkit_rewards.answers.text.prose import is_prose

MAX_LENGTH = 300
"""Maximum length of an expression that is passed to sympy, in characters."""


def same(gold: str, answer: str) -> bool:
    """Return whether math-verify and the guards agree that two expressions are equal.

    Hostile text can make this run forever: call it only where it can be killed.
    """
    if max(len(gold), len(answer)) > MAX_LENGTH or is_prose(gold) or is_prose(answer):
        return False
    _import_untimed()
    from math_verify import verify  # type: ignore[import-untyped]

    left, right = _parsed(gold), _parsed(answer)
    if left is None or right is None or left.free_symbols != right.free_symbols:
        return False
    return bool(verify([left], [right], timeout_seconds=None)) and not _differ(left, right)


@lru_cache(maxsize=1)
def _import_untimed() -> None:
    """Import sympy, which takes a second, without counting it towards the time of a verdict."""
    left, _ = signal.setitimer(signal.ITIMER_PROF, 0)
    importlib.import_module("math_verify")
    signal.setitimer(signal.ITIMER_PROF, left)


def _parsed(text: str) -> Any:
    """Return a sympy expression or matrix, None if there is none, or for a set or relation."""
    import sympy  # type: ignore[import-untyped]
    from math_verify import LatexExtractionConfig, parse

    spelled = "$" + text.replace(ROW, "\\\\") + "$"
    found = parse(spelled, [LatexExtractionConfig()], parsing_timeout=None, raise_on_error=False)
    kinds = (sympy.Expr, sympy.MatrixBase)
    return next((f for f in found if isinstance(f, kinds)), None)


def _differ(left: Any, right: Any) -> bool:
    """Return whether the values at some random point are numbers and differ."""
    draw = random.Random(len(str(left)))
    for _ in range(4):
        point = {s: draw.uniform(0.2, 2.0) for s in sorted(left.free_symbols, key=str)}
        a, b = _number(left, point), _number(right, point)
        if a is not None and b is not None and abs(a - b) > 1e-9 * max(1e-300, abs(a), abs(b)):
            return True
    return False


def _number(expression: Any, point: dict[Any, float]) -> complex | None:
    try:
        return complex(expression.subs(point).evalf(30))
    except (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
        return None
