"""Tokens, masks, log-probabilities and entropies, in the assignment's shapes.

Shapes: B = prompts, S = tokens of the longest prompt and output together, minus one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from alignkit.engine.forward.head import entropy_from_logits
from alignkit.engine.forward.logprobs import token_logprobs
from alignkit.engine.tokens import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenize_prompt_and_output(
    prompt_strs: Sequence[str], output_strs: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``labels`` (B, S) int64, and ``response_mask`` (B, S) bool.

    Prompt and output are tokenized separately, without special tokens, joined, padded on the right
    with the pad id (the end-of-sequence id where the tokenizer has none), and then shifted:
    ``input_ids`` lacks the last column, ``labels`` the first. The mask is True where the label
    is a token of the output.
    """
    prompts = [encode(tokenizer, text) for text in prompt_strs]
    outputs = [encode(tokenizer, text) for text in output_strs]
    rows = [(*p, *o) for p, o in zip(prompts, outputs, strict=True)]
    lengths = torch.tensor([len(row) for row in rows])
    starts = torch.tensor([len(p) for p in prompts])
    column = torch.arange(int(lengths.max()))  # (S + 1,)
    mask = (column >= starts[:, None]) & (column < lengths[:, None])  # (B, S + 1)
    ids = torch.full(mask.shape, _pad_id(tokenizer))
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return {"input_ids": ids[:, :-1], "labels": ids[:, 1:], "response_mask": mask[:, 1:]}


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(found, int):
            return found
    raise ValueError("the tokenizer has neither a pad token nor an end-of-sequence token")


def compute_entropy(logits: Tensor) -> Tensor:
    """Return the entropy in nats of softmax(logits): (B, S, V) to (B, S)."""
    return entropy_from_logits(logits)


def get_response_log_probs(
    model: nn.Module, input_ids: Tensor, labels: Tensor, return_token_entropy: bool = False
) -> dict[str, Tensor]:
    """Return ``log_probs`` (B, S) of the labels, and ``token_entropy`` (B, S) if asked for.

    Every position is scored, those of prompt and padding too; the training step masks them.
    The log-probs carry the gradient, the entropies do not.
    """
    rows, columns = (torch.arange(n, device=input_ids.device) for n in labels.shape)
    at = torch.cartesian_prod(rows, columns)  # (B * S, 2)
    log_probs, entropy = token_logprobs(
        model,
        input_ids,
        (at[:, 0], at[:, 1]),
        labels.flatten(),
        with_entropy=return_token_entropy,
    )
    found = {"log_probs": log_probs.view(labels.shape)}
    if return_token_entropy:
        found["token_entropy"] = entropy.view(labels.shape)
    return found
