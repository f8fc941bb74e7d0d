"""Token ids of a prompt and its response, kept apart from sampling to the update.

Shapes: B = rows, L = input tokens of the longest row, T_i = trained tokens of row i, T = those of
the row that has most. All tokens of a response are trained unless its row says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from alignkit.protocols import Begins

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignkit.protocols import Completion, Policy


T = TypeVar("T")

_SPACES = ("▁", "Ġ")
"""What a space before a word is written as, in vocabularies of SentencePiece and of bytes."""


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return the ids of ``text`` without any special token added around it."""
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def encode_prompt(policy: Policy, text: str) -> tuple[int, ...]:
    """Return the ids of a prompt as the policy reads it: begun with its own token, if it has one.

    A text that holds that token at its start already, as rendered chats do, gets no second one.
    """
    ids = encode(policy.tokenizer, text)
    begin = policy.bos_ids if isinstance(policy, Begins) else ()
    return ids if ids[: len(begin)] == begin else (*begin, *ids)


def encode_response(
    tokenizer: PreTrainedTokenizerBase, prompt: str, response: str
) -> tuple[int, ...]:
    """Return the ids of a response as they follow its prompt.

    Most tokenizers give a text the same ids wherever it stands, if it is tokenized apart from
    what comes before. SentencePiece puts a space before every text, so a response by itself would
    begin with a token that does not follow the prompt: there the response is tokenized with the
    prompt and cut off at the border, or, where a token reaches over the border, after a line end.
    """
    alone = encode(tokenizer, response)
    if not adds_space(tokenizer):
        return alone
    for before in (prompt, "\n", "."):
        first, both = encode(tokenizer, before), encode(tokenizer, before + response)
        if both[: len(first)] == first and len(both) > len(first):
            return both[len(first) :]
    return alone


def sampled_tokens(completion: Completion) -> int:
    """Return how many of a response's tokens were sampled, and not given by an environment."""
    return len(completion.token_ids) - sum(completion.given or ())


def adds_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a space before a text, as SentencePiece does by default.

    That space is a token of its own or the beginning of the first one: "▁", or "Ġ" in byte-level
    vocabularies.
    """
    first = tokenizer.convert_ids_to_tokens(list(encode(tokenizer, "a"))[:1])
    return bool(first) and first[0].startswith(_SPACES)


def text_after(
    tokenizer: PreTrainedTokenizerBase, before: Sequence[int], ids: Sequence[int]
) -> str:
    """Return what ``ids`` add to the text of ``before``, special tokens included.

    SentencePiece drops the space at the beginning of a text; in the middle it shows.
    """
    earlier = str(tokenizer.decode(list(before)))
    whole = str(tokenizer.decode([*before, *ids]))
    if before and whole.startswith(earlier):
        return whole[len(earlier) :]
    return str(tokenizer.decode(list(ids)))


@dataclass(frozen=True, slots=True, eq=False)
class TrainRow:
    """One prompt and response as the learner takes them."""

    prompt_ids: tuple[int, ...]
    """At least one id: the first response token is predicted from the last of these."""
    response_ids: tuple[int, ...]
    """The ids that follow the prompt, sampled ones as they came from the backend; may be empty."""
    advantage: float | Tensor = 1.0
    """Weight of the response, the same for all its tokens, or (T_i,), one for each. 1 for
    supervised rows."""
    reward: float = 0.0
    """What is maximised of the response: its reward, less a penalty that belongs in it (k1)."""
    weight_version: int | None = None
    """``Policy.version`` of the weights that sampled the response; None if it was given."""
    measured: bool = False
    """Whether the row is computed for the metrics even where its advantage is zero."""
    given: tuple[bool, ...] | None = None
    """For each response id, whether it was given (by a tool, say) and not sampled: it is read by
    the model and trained on in no way. None = all were sampled."""
    old_logprobs: Tensor | None = None
    """(T_i,) under the policy that opened the rollout batch; None = equal to the current ones."""
    ref_logprobs: Tensor | None = None
    """(T_i,) under the frozen reference policy."""
    rollout_logprobs: Tensor | None = None
    """(T_i,) as the rollout backend reported them."""

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError("a training row needs at least one prompt id to predict from")
        if self.given is not None and len(self.given) != len(self.response_ids):
            raise ValueError(
                f"given must name {len(self.response_ids)} tokens, those of the response, "
                f"not {len(self.given)}"
            )
        for name in ("advantage", "old_logprobs", "ref_logprobs", "rollout_logprobs"):
            values: Tensor | float | None = getattr(self, name)
            if isinstance(values, Tensor) and values.shape != (len(self.trained_ids),):
                raise ValueError(
                    f"{name} must have shape ({len(self.trained_ids)},), one value per trained "
                    f"token of the response, not {tuple(values.shape)}"
                )

    @property
    def trained_ids(self) -> tuple[int, ...]:
        """The response ids that are trained, (T_i,)."""
        return tuple(self.trained_of(self.response_ids))  # a tuple is not copied

    def trained_of(self, values: Sequence[T]) -> Sequence[T]:
        """Return those of a response's values, one per id, that belong to trained tokens."""
        return values if self.given is None else [*compress(values, map(not_, self.given))]

    @property
    def pushes(self) -> bool:
        """Whether its advantage is not zero, or that of some token."""
        a = self.advantage
        return bool((a != 0).any()) if isinstance(a, Tensor) else a != 0

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
    """(B, T) int64 trained ids, zeros at padding."""
    positions: Tensor
    """(B, T) int64 place in ``input_ids`` whose hidden state predicts the target."""
    mask: Tensor
    """(B, T) bool, True at trained tokens."""

    @classmethod
    def of(cls, rows: Sequence[TrainRow], pad_id: int) -> Padded:
        """Pad ``rows`` with ``pad_id``, on the CPU."""
        inputs = [(*r.prompt_ids, *r.response_ids[:-1]) for r in rows]
        first = [len(r.prompt_ids) - 1 for r in rows]
        places = [
            r.trained_of(range(at, at + len(r.response_ids)))
            for r, at in zip(rows, first, strict=True)
        ]
        size = torch.tensor([len(p) for p in places])  # (B,)
        parts = (
            _pad(inputs, pad_id),
            _pad([r.trained_ids for r in rows], 0),
            _pad(places, 0),
            torch.arange(int(size.max())) < size[:, None],  # (B, T)
        )
        return cls(*parts)


def _pad(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Return a (B, longest) int64 tensor, padded on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows]).long()


def pad_values(values: Sequence[Tensor], like: Tensor) -> Tensor:
    """Pad one (T_i,) tensor per row with zeros to the shape, dtype and device of ``like``."""
    padded = torch.zeros(like.shape, dtype=like.dtype)  # (B, T), on the CPU
    for row, value in zip(padded, values, strict=True):
        row[: len(value)] = value.detach()
    return onto(like.device, padded)


def onto(device: torch.device | str, values: Tensor) -> Tensor:
    """Copy ``values`` out of the CPU's memory to ``device``, without waiting for a CUDA one.

    Memory is pinned for it: from other memory the copy waits until all work queued is done.
    """
    if torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors of one type and device to the CPU, all at once."""
    if not tensors or tensors[0].device.type == "cpu":
        return list(tensors)
    flat = torch.cat([x.flatten() for x in tensors]).cpu()
    parts = torch.split(flat, [x.numel() for x in tensors])
    return [part.view(x.shape) for part, x in zip(parts, tensors, strict=True)]


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
