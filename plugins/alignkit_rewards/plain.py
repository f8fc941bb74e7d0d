"""The rewards as functions of one response, in the shape the R1-Zero assignment grades with."""

from __future__ import annotations

from collections.abc import Sequence

from alignkit.protocols import Example, Reward, RewardFn
from alignkit_rewards import QuestionOnly, R1Zero
from alignkit_rewards.graded import accepted

Gold = str | int | float | Sequence[str | int | float]


def r1_zero_reward_fn(response: str, ground_truth: Gold) -> dict[str, float]:
    """Judge ``… </think> <answer>…</answer>``; keys format_reward, answer_reward and reward.

    >>> r1_zero_reward_fn("9 times 8 </think> <answer>72</answer>", 72)
    {'format_reward': 1.0, 'answer_reward': 1.0, 'reward': 1.0}
    """
    return _named(R1Zero(also_accepted="also").build(), response, ground_truth)


def question_only_reward_fn(response: str, ground_truth: Gold) -> dict[str, float]:
    r"""Judge the last ``\boxed{}``; keys as in :func:`r1_zero_reward_fn`.

    >>> question_only_reward_fn(r"so it is \boxed{71}.", ["72", "73"])
    {'format_reward': 1.0, 'answer_reward': 0.0, 'reward': 0.0}
    """
    return _named(QuestionOnly(also_accepted="also").build(), response, ground_truth)


def _named(judge: RewardFn, response: str, gold: Gold) -> dict[str, float]:
    first, *others = accepted(gold)
    example = Example("", "", first, {"also": others})
    reward: Reward = judge([response], [example])[0]
    return {
        "format_reward": reward.parts["format"],
        "answer_reward": reward.parts["answer"],
        "reward": reward.total,
    }
