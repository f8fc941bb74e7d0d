"""Direct preference optimisation, one pair at a time (arXiv:2305.18290)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from alignkit.engine.forward.logprobs import token_logprobs
from alignkit_cs336.batches import alpaca_document, with_eos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def compute_per_instance_dpo_loss(
    lm: nn.Module,
    lm_ref: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    beta: float,
    prompt: str,
    response_chosen: str,
    response_rejected: str,
) -> Tensor:
    """Return -log σ(β (Δ chosen - Δ rejected)), a scalar on ``lm``'s device (eq. 7).

    Δ is log p under ``lm`` minus log p under ``lm_ref`` of the whole sequence: the Alpaca
    template around prompt and response, and the end-of-sequence id. The prompt's share is the
    same in both and cancels. ``lm_ref`` gets no gradient and may be on another device.
    """
    pair = [
        with_eos(tokenizer, alpaca_document(prompt, response))
        for response in (response_chosen, response_rejected)
    ]
    chosen, rejected = (_sequence_logprob(lm, ids) for ids in pair)
    with torch.no_grad():
        ref_chosen, ref_rejected = (
            _sequence_logprob(lm_ref, ids).to(chosen.device) for ids in pair
        )
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    return -nn.functional.logsigmoid(beta * margin)


def _sequence_logprob(model: nn.Module, ids: list[int]) -> Tensor:
    """Return the summed log-probability of all ids but the first, a scalar."""
    device = next(model.parameters()).device
    sequence = torch.tensor([ids], device=device)  # (1, n)
    place = torch.arange(len(ids) - 1, device=device)  # (n - 1,)
    at = (torch.zeros_like(place), place)
    logprobs, _ = token_logprobs(model, sequence[:, :-1], at, sequence[0, 1:], with_entropy=False)
    return logprobs.sum()
