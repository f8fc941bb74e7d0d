"""Token ids of a prompt and its response, kept apart from sampling to the update.

Shapes: B = rows, L = input tokens of the longest row, T = response tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return the ids of ``text`` without any special token added around it."""
    return tuple(tokenizer.encode(text, add_special_tokens=False))


@dataclass(frozen=True, slots=True, eq=False)
class TrainRow:
    """One prompt and response as the learner takes them."""

    prompt_ids: tuple[int, ...]
    """At least one id: the first response token is predicted from the last of these."""
    response_ids: tuple[int, ...]
    """The sampled ids as they came from the backend; may be empty."""
    advantage: float = 1.0
    """Weight of the response, the same for all its tokens. 1 for supervised rows."""
    reward: float = 0.0
    """What is maximised of the response: its reward, less a penalty that belongs in it (k1)."""
    weight_version: int | None = None
    """``Policy.version`` of the weights that sampled the response; None if it was given."""
    old_logprobs: Tensor | None = None
    """(T_i,) under the policy that opened the rollout batch; None = equal to the current ones."""
    ref_logprobs: Tensor | None = None
    """(T_i,) under the frozen reference policy."""
    rollout_logprobs: Tensor | None = None
    """(T_i,) as the rollout backend reported them."""

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError("a training row needs at least one prompt id to predict from")
        for name in ("old_logprobs", "ref_logprobs", "rollout_logprobs"):
            given: Tensor | None = getattr(self, name)
            if given is not None and given.shape != (len(self.response_ids),):
                raise ValueError(
                    f"{name} must have shape ({len(self.response_ids)},), one value per response "
                    f"token, not {tuple(given.shape)}"
                )

    @property
    def length(self) -> int:
        """Prompt and response tokens together."""
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    """Rows padded on the right into one batch.

    There is no attention mask because none is needed: in a causal model a token sees only
    what stands to its left, and the padding stands to the right of everything that counts.
    """

    input_ids: Tensor
    """(B, L) int64; each row is the prompt and all but the last response token, then padding."""
    targets: Tensor
    """(B, T) int64 response ids, zeros at padding."""
    positions: Tensor
    """(B, T) int64 place in ``input_ids`` whose hidden state predicts the target."""
    mask: Tensor
    """(B, T) bool, True at response tokens."""

    @classmethod
    def of(
        cls, rows: Sequence[TrainRow], pad_id: int, device: torch.device | str = "cpu"
    ) -> Padded:
        """Pad ``rows`` with ``pad_id`` and move them to ``device``."""
        inputs = [(*r.prompt_ids, *r.response_ids[:-1]) for r in rows]
        size = torch.tensor([len(r.response_ids) for r in rows])  # (B,)
        start = torch.tensor([len(r.prompt_ids) - 1 for r in rows])  # (B,)
        token = torch.arange(max(int(size.max()), 0))  # (T,)
        mask = token < size[:, None]  # (B, T)
        positions = torch.where(mask, start[:, None] + token, 0)  # (B, T)
        parts = (
            _pad(inputs, pad_id),
            _pad([r.response_ids for r in rows], 0),
            positions,
            mask,
        )
        return cls(*(part.to(device, non_blocking=True) for part in parts))


def _pad(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Return a (B, longest) int64 tensor, padded on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows]).long()


def pad_values(values: Sequence[Tensor], like: Tensor) -> Tensor:
    """Pad one (T_i,) tensor per row with zeros to the shape, dtype and device of ``like``."""
    padded = torch.zeros(like.shape, dtype=like.dtype)  # (B, T), on the CPU
    for row, value in zip(padded, values, strict=True):
        row[: len(value)] = value.detach()
    return padded.to(like.device)


def micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Cut rows into batches of similar length: rows x longest <= ``token_budget``.

    Every index is in exactly one batch; a row longer than the budget goes alone. The longest
    come first, so what does not fit in memory fails at once.

    >>> micro_batches([3, 9, 4, 8], token_budget=18)
    [[1, 3], [2, 0]]
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
