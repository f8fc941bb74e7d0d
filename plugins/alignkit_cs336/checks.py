"""What the functions are given, checked first: one ValueError that says what to change."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

RewardFunction = Callable[[str, str], Mapping[str, float]]


def judged(
    reward_fn: RewardFunction, responses: Sequence[str], truths: Sequence[str]
) -> list[dict[str, float]]:
    """Return what the reward function says of every response, as floats.

    ValueError if there are no responses or not as many ground truths, or for a judgement without
    a finite ``reward``: one NaN would reach every weight of the model.
    """
    same_length(rollout_responses=responses, repeated_ground_truths=truths)
    if not responses:
        raise ValueError("rollout_responses is empty: there is nothing to judge")
    pairs = zip(responses, truths, strict=True)
    return [judgement(i, reward_fn(*pair)) for i, pair in enumerate(pairs)]


def judgement(index: int, said: Mapping[str, float]) -> dict[str, float]:
    """Return one answer of a reward function as floats; ValueError without a finite ``reward``."""
    if "reward" not in said:
        known = sorted(said)
        raise ValueError(f"reward_fn returned no 'reward' for response {index}, only {known}")
    try:
        parts = {name: float(value) for name, value in said.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"reward_fn must return numbers; for response {index} it returned {dict(said)}"
        ) from error
    if not math.isfinite(parts["reward"]):
        raise ValueError(
            f"reward_fn must return a finite 'reward'; for response {index} it is {parts['reward']}"
        )
    return parts


def same_length(**columns: Sequence[str]) -> None:
    """Refuse sequences that should have one entry for each response and differ in length."""
    if len({len(column) for column in columns.values()}) > 1:
        sizes = ", ".join(f"{len(column)} {name}" for name, column in columns.items())
        raise ValueError(f"each response needs one of each, got {sizes}")


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is none of those known."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")


def positive(name: str, value: float) -> None:
    """Refuse anything but a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a finite number above 0, got {value}")


def rewards_in_groups(raw: Tensor, group_size: int) -> Tensor:
    """Return rewards (N,) in floating point; ValueError unless they are finite whole groups."""
    if raw.ndim != 1 or not len(raw):
        raise ValueError(f"raw_rewards must be (N,) with N above 0, got shape {tuple(raw.shape)}")
    if group_size < 1 or len(raw) % group_size:
        raise ValueError(f"{len(raw)} rewards do not divide into groups of {group_size}")
    values = raw if raw.is_floating_point() else raw.float()
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"raw_rewards must be finite, got {values.tolist()}")
    return values


def mask_like(mask: Tensor, log_probs: Tensor) -> Tensor:
    """Return the mask as bool; ValueError unless it has the shape of the log-probs."""
    if mask.shape != log_probs.shape:
        raise ValueError(
            f"response_mask must have the shape of the log-probs, {tuple(log_probs.shape)}, "
            f"got {tuple(mask.shape)}"
        )
    return mask.bool()
