"""Is an answer right? Runs inside the grading workers; see :mod:`alignkit_rewards.pool`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from alignkit_rewards.verdict import Conventions, Verdict


def warm_up() -> None:
    """Import the symbolic library before the first verdict is timed."""
    importlib.import_module("math_verify")


def judge(golds: Sequence[str], answer: str, rules: Conventions) -> Verdict:
    """Return the verdict on ``answer`` against the accepted ``golds``."""
    from math_verify import parse, verify  # type: ignore[import-untyped]

    for gold in golds:
        g = parse(gold if "$" in gold or "boxed" in gold else f"${gold}$", parsing_timeout=None)
        p = parse(
            answer if "$" in answer or "boxed" in answer else f"${answer}$", parsing_timeout=None
        )
        if g and p and verify(g, p, timeout_seconds=None):
            return Verdict(True, "symbolic")
    return Verdict(False, "different")
