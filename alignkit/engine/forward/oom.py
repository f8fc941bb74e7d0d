"""Memory that ran out in a forward or backward pass: which key to turn, and to what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from alignkit.engine.forward.packable import can_pack
from alignkit.errors import AlignkitError

if TYPE_CHECKING:
    from alignkit.engine.tokens import TrainRow
    from alignkit.protocols import Policy


@contextmanager
def advice_on_oom(policy: Policy, rows: Sequence[TrainRow]) -> Iterator[None]:
    """Turn running out of memory over the micro-batch ``rows`` into an AlignkitError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).partition(". ")[0]
        raise AlignkitError(f"{first}, with {advice(policy, rows)}") from error


def advice(policy: Policy, rows: Sequence[TrainRow]) -> str:
    """Say what the micro-batch held and what makes it smaller."""
    longest = max(row.length for row in rows)
    tokens = _computed(policy, rows)
    held = f"{tokens} tokens in the micro-batch"
    if longest < tokens:
        budget = max(longest, tokens // 2)
        return f"{held}: set token_budget = {budget}, which changes no result"
    return (
        f"{held}, one response: no token_budget makes that smaller. Set gradient_checkpointing = "
        "true in [policy] if it is not; a smaller max_tokens in [rollout]; or, where an engine "
        "shares the GPU, a smaller gpu_memory_utilization"
    )


def _computed(policy: Policy, rows: Sequence[TrainRow]) -> int:
    """Return the tokens that ``token_budget`` counts: padding, or shared prompts once."""
    try:
        with policy.autocast():
            packs = can_pack(policy.model)
    except torch.OutOfMemoryError:  # nor could it be tried out
        packs = False
    if not packs:
        return len(rows) * max(row.length for row in rows)
    prompts = {tuple(row.prompt_ids) for row in rows}
    return sum(map(len, prompts)) + sum(len(row.response_ids) for row in rows)
