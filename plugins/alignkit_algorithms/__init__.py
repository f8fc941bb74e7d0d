"""Built-in algorithms: grpo, evaluate."""

from __future__ import annotations

from collections.abc import Iterable

from alignkit import Component, hookimpl
from alignkit.protocols import Algorithm
from alignkit_algorithms.evaluate_table import Evaluate
from alignkit_algorithms.grpo_table import Grpo


@hookimpl
def algorithm() -> Iterable[Component[Algorithm]]:
    yield Component("evaluate", Evaluate)
    yield Component("grpo", Grpo)
