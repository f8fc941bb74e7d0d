"""Built-in algorithms: evaluate, sft, expert_iteration, grpo, dpo."""

from __future__ import annotations

from collections.abc import Iterable

from alignkit import Component, hookimpl
from alignkit.protocols import Algorithm
from alignkit_algorithms.dpo_table import Dpo
from alignkit_algorithms.evaluate_table import Evaluate
from alignkit_algorithms.expert_iteration_table import ExpertIteration
from alignkit_algorithms.grpo_table import Grpo
from alignkit_algorithms.sft_table import Sft


@hookimpl
def algorithm() -> Iterable[Component[Algorithm]]:
    yield Component("evaluate", Evaluate)
    yield Component("sft", Sft)
    yield Component("expert_iteration", ExpertIteration)
    yield Component("grpo", Grpo)
    yield Component("dpo", Dpo)
