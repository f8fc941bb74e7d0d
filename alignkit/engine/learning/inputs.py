"""What rows carry, as the (B, T) tensors a loss takes, and such tensors as rows' own again.

B = rows of the micro-batch, T = response tokens of the longest, T_i = those of row i.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from alignkit.engine.tokens import TrainRow, pad_values
from alignkit.protocols import LossInputs


def loss_inputs(rows: Sequence[TrainRow], logprobs: Tensor, mask: Tensor) -> LossInputs:
    """Gather what the rows carry into (B, T) tensors beside their log-probs."""
    current = logprobs.detach()
    return LossInputs(
        logprobs=logprobs,
        mask=mask,
        advantages=current.new_tensor([r.advantage for r in rows])[:, None],  # (B, 1)
        old_logprobs=_stack([r.old_logprobs for r in rows], current, mask),
        ref_logprobs=_all_or_none([r.ref_logprobs for r in rows], current, "ref_logprobs"),
        rollout_logprobs=_all_or_none(
            [r.rollout_logprobs for r in rows], current, "rollout_logprobs"
        ),
    )


def _stack(values: Sequence[Tensor | None], current: Tensor, mask: Tensor) -> Tensor:
    """Pad (T_i,) tensors to (B, T); a row without one gets the current log-probs."""
    if all(value is None for value in values):
        return current
    filled = [
        row[keep].cpu() if value is None else value
        for value, row, keep in zip(values, current, mask, strict=True)
    ]
    return pad_values(filled, current)


def _all_or_none(values: Sequence[Tensor | None], like: Tensor, name: str) -> Tensor | None:
    """Pad (T_i,) tensors to (B, T), or return None if no row has one."""
    given = [value for value in values if value is not None]
    if not given:
        return None
    if len(given) < len(values):
        raise ValueError(f"{name}: {len(given)} of {len(values)} rows have them; all or none must")
    return pad_values(given, like)
