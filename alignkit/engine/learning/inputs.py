"""What rows carry, as the (B, T) tensors a loss takes, and such tensors as rows' own again.

B = rows of the micro-batch, T = response tokens of the longest, T_i = those of row i.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alignkit.engine.tokens import TrainRow, onto, pad_values
from alignkit.protocols import LossInputs


def loss_inputs(rows: Sequence[TrainRow], logprobs: Tensor, mask: Tensor) -> LossInputs:
    """Gather what the rows carry into (B, T) tensors beside their log-probs."""
    current = logprobs.detach()
    return LossInputs(
        logprobs=logprobs,
        mask=mask,
        advantages=_advantages(rows, current),
        old_logprobs=_stack([r.old_logprobs for r in rows], current, mask),
        ref_logprobs=_all_or_none([r.ref_logprobs for r in rows], current, "ref_logprobs"),
        rollout_logprobs=_all_or_none(
            [r.rollout_logprobs for r in rows], current, "rollout_logprobs"
        ),
    )


def _advantages(rows: Sequence[TrainRow], like: Tensor) -> Tensor:
    """Return (B, 1), or (B, T) with zeros at padding if a row has one per token."""
    given = [row.advantage for row in rows]
    if not any(isinstance(a, Tensor) for a in given):
        return onto(like.device, torch.tensor(given, dtype=like.dtype))[:, None]
    counts = [len(row.trained_ids) for row in rows]
    return pad_values(
        [torch.as_tensor(a).expand(n) for a, n in zip(given, counts, strict=True)], like
    )


def _stack(values: Sequence[Tensor | None], current: Tensor, mask: Tensor) -> Tensor:
    """Pad (T_i,) tensors to (B, T); a row without one gets the current log-probs."""
    if all(value is None for value in values):
        return current
    given = pad_values([torch.zeros(0) if value is None else value for value in values], current)
    if all(value is not None for value in values):
        return given
    lacking = onto(current.device, torch.tensor([value is None for value in values]))[:, None]
    return torch.where(lacking & mask, current, given)


def _all_or_none(values: Sequence[Tensor | None], like: Tensor, name: str) -> Tensor | None:
    """Pad (T_i,) tensors to (B, T), or return None if no row has one."""
    given = [value for value in values if value is not None]
    if not given:
        return None
    if len(given) < len(values):
        raise ValueError(f"{name}: {len(given)} of {len(values)} rows have them; all or none must")
    return pad_values(given, like)
