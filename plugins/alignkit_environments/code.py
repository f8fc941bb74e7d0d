"""Responses that hold code, judged by unit tests."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from alignkit import AlignkitError
from alignkit.protocols import Example, Reward
from alignkit_environments.sandbox import Bounds, run

_BLOCK = re.compile(r"^```[^\n`]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Code:
    """Judges the last fenced block of each response, several at a time."""

    def __init__(self, column: str, bounds: Bounds) -> None:
        self._column, self._bounds = column, bounds

    def __call__(
        self, responses: Sequence[str], examples: Sequence[Example], /
    ) -> Sequence[Reward]:
        """Return 1 where code and tests ran to their end; AlignkitError for examples without."""
        asked = [(r, self._tests(e)) for r, e in zip(responses, examples, strict=True)]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return list(pool.map(self._judge, asked))

    def _judge(self, asked: tuple[str, list[str]]) -> Reward:
        response, tests = asked
        blocks = _BLOCK.findall(response)
        if not blocks:
            return Reward(0.0, {"format": 0.0, "answer": 0.0, "timed_out": 0.0})
        outcome = run([blocks[-1], *tests], self._bounds)
        right, late = float(outcome.how == "done"), float(outcome.how == "time")
        return Reward(right, {"format": 1.0, "answer": right, "timed_out": late})

    def _tests(self, example: Example) -> list[str]:
        found = example.extra.get(self._column)
        tests = [found] if isinstance(found, str) else found
        whole = isinstance(tests, list) and all(isinstance(t, str) and t.strip() for t in tests)
        if not (whole and tests):
            raise AlignkitError(
                f"example {example.id!r}: column {self._column!r} must hold tests, a text or list "
                f"of texts, got {found!r:.60}; columns: {', '.join(example.extra) or 'none'}"
            )
        return tests
