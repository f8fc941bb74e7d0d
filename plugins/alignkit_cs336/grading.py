"""Rewards and answer parsers, one response at a time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from alignkit.protocols import Example, RewardFn
from alignkit.text.said import chosen_option, last_number
from alignkit_cs336.components import make


def r1_zero_reward_fn(response: str, ground_truth: Any) -> dict[str, float]:
    """Judge a response that should end in ``</think> <answer> … </answer>``.

    Returns ``format_reward``, ``answer_reward`` and ``reward``, each 0 or 1. A list of ground
    truths accepts any of them.
    """
    return _judge("rewards/r1_zero", response, ground_truth)


def question_only_reward_fn(response: str, ground_truth: Any) -> dict[str, float]:
    r"""Judge a response that should have its answer in ``\boxed{}``; as r1_zero_reward_fn."""
    return _judge("rewards/question_only", response, ground_truth)


@cache
def _reward(name: str) -> RewardFn:
    reward: RewardFn = make("reward_fn", name)
    return reward


def _judge(name: str, response: str, ground_truth: Any) -> dict[str, float]:
    truths = ground_truth if isinstance(ground_truth, list | tuple) else [ground_truth]
    examples = [Example(str(i), "", str(truth)) for i, truth in enumerate(truths)]
    found = _reward(name)([response] * len(examples), examples)
    best = max(found, key=lambda reward: reward.total)
    return {
        "format_reward": best.parts["format"],
        "answer_reward": best.parts["answer"],
        "reward": best.total,
    }


def parse_mmlu_response(mmlu_example: Mapping[str, Any], model_output: str) -> str | None:
    """Return the letter of the option the output chooses, or None; see ``chosen_option``.

    The example's ``options`` (``choices`` in the published files) are texts in order.
    """
    texts = mmlu_example["options" if "options" in mmlu_example else "choices"]
    return chosen_option(texts, model_output)


def parse_gsm8k_response(model_output: str) -> str | None:
    """Return the last number of the output, without thousands commas, or None.

    >>> parse_gsm8k_response("She sold 48 + 24 = 72 clips, or $1,234.50 in all.")
    '1234.50'
    """
    return last_number(model_output)
