"""The interface of Stanford CS336's assignment 5, by its own names and keywords.

Import these and a test adapter is one line each. The numbers come from the same engine and the
same components as the recipes. The top level is ``spring2025``; ``spring2026`` holds that edition's
functions. ``alignkit init --cs336 2025 DIR`` writes a folder that uses them. In the terms of
recipes, the 2026 edition's choices are:

- baseline mean / none, normalizer std / none / mean: advantages ``group_std``, ``group_mean``
  or ``none``, ``maxrl``, the scaled ones with ``baseline = "none"`` where asked;
- reweighting none / noclip / grpo / gspo: losses ``reinforce``, ``no_clip``, ``grpo_clip``,
  ``gspo``;
- loss normalization sequence / constant: normalizers ``masked_mean``, ``masked_normalize``;
- rejection fine-tuning: rewards of 0 and 1, advantage ``none``, loss ``reinforce``.

The functions are imported at their first use: plugins are loaded whenever a command runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit import Component, Params, hookimpl
from alignkit.commands import FILE
from alignkit.errors import in_shell
from alignkit.security.text import say

if TYPE_CHECKING:
    from alignkit_cs336.batches import get_packed_sft_dataset, iterate_batches
    from alignkit_cs336.grading import (
        parse_gsm8k_response,
        parse_mmlu_response,
        question_only_reward_fn,
        r1_zero_reward_fn,
    )
    from alignkit_cs336.preference import compute_per_instance_dpo_loss
    from alignkit_cs336.scoring import (
        compute_entropy,
        get_response_log_probs,
        tokenize_prompt_and_output,
    )
    from alignkit_cs336.steps import (
        compute_group_normalized_rewards,
        compute_grpo_clip_loss,
        compute_naive_policy_gradient_loss,
        compute_policy_gradient_loss,
        grpo_microbatch_train_step,
        masked_mean,
        masked_normalize,
        sft_microbatch_train_step,
    )
    from alignkit_cs336.vllm_helpers import (
        evaluate_vllm,
        init_vllm,
        load_policy_into_vllm_instance,
        log_generations,
    )

__all__ = [
    "compute_entropy",
    "compute_group_normalized_rewards",
    "compute_grpo_clip_loss",
    "compute_naive_policy_gradient_loss",
    "compute_per_instance_dpo_loss",
    "compute_policy_gradient_loss",
    "evaluate_vllm",
    "get_packed_sft_dataset",
    "get_response_log_probs",
    "grpo_microbatch_train_step",
    "init_vllm",
    "iterate_batches",
    "load_policy_into_vllm_instance",
    "log_generations",
    "masked_mean",
    "masked_normalize",
    "parse_gsm8k_response",
    "parse_mmlu_response",
    "question_only_reward_fn",
    "r1_zero_reward_fn",
    "sft_microbatch_train_step",
    "tokenize_prompt_and_output",
]


EDITIONS = ("2025", "2026")


class Cs336(Params[click.Command]):
    """Add adapters and a guide of CS336's assignment 5 to DIR, which holds the recipes.

    EDITION is 2025 or 2026. The guide maps every problem of the assignment to its command.
    `alignkit init --cs336 EDITION DIR` writes such a folder, recipes and all.
    """

    def build(self) -> click.Command:
        @click.command()
        @click.argument("edition", metavar="EDITION", type=click.Choice(EDITIONS))
        @click.argument("folder", metavar="DIR", type=FILE)
        def cs336(edition: str, folder: Path) -> None:
            from alignkit_cs336.folder import add_course

            for path in add_course(edition, folder.absolute()):
                say(f"{folder}/{path.relative_to(folder.absolute())}")
            say(f"next: cd {in_shell(folder)}, and see README.md")

        return cs336


@hookimpl
def command() -> Iterator[Component[click.Command]]:
    """Offer ``cs336``, which ``alignkit init --cs336`` calls."""
    yield Component("cs336", Cs336)


_MODULES = frozenset(
    {"batches", "components", "grading", "preference", "scoring", "steps", "vllm_helpers"}
)


def __getattr__(name: str) -> Any:
    """Import what defines a function, or a module of ours, when it is asked for."""
    if name in __all__:
        return getattr(import_module("alignkit_cs336.spring2025"), name)
    if name in _MODULES:
        return import_module(f"alignkit_cs336.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
