"""A frozen reference policy, and the penalties that hold a policy to it.

Shapes: B = responses, T = tokens of the longest. d = log πθ - log πref at the sampled token.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alignkit.engine.logprobs import cut, response_logprobs
from alignkit.engine.reference_table import Estimator, Reference
from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError
from alignkit.protocols import LossInputs, LossOutput, LossType, Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(slots=True)
class FrozenPolicy:
    """A policy whose weights no longer change; everything but the model is the original's."""

    original: Policy
    model: nn.Module
    version: int
    offloaded: Mapping[nn.Parameter, Tensor] = field(default_factory=dict)
    """The weights in the CPU's memory, if that is where they wait to be used."""
    device: torch.device | None = None
    """Where they are used; None if they are there."""

    @classmethod
    def of(cls, policy: Policy, *, copied: bool, offload: bool = False) -> FrozenPolicy:
        """Freeze ``policy`` itself, or a copy of its present weights that it may move away from.

        Of a policy that trains an adapter, the model without it is such a copy; it takes no
        memory, so it is not offloaded.
        """
        base = getattr(policy, "base", None) if copied else policy.model
        model = copy.deepcopy(policy.model) if base is None else base
        frozen = cls(policy, model.requires_grad_(False).eval(), policy.version)
        if offload and (base is None or not copied):
            frozen.offload()
        return frozen

    def offload(self) -> None:
        """Let the weights wait in the CPU's memory; ``resident`` brings them to their device."""
        self.device = next(self.model.parameters()).device
        self.offloaded = {p: _on_host(p) for p in self.model.parameters()}
        for parameter, values in self.offloaded.items():
            parameter.data = values

    @contextmanager
    def resident(self) -> Iterator[None]:
        """Have the weights on the device they are used on while the block runs."""
        for parameter, values in self.offloaded.items():
            parameter.data = values.to(self.device, non_blocking=True)
        try:
            yield
        finally:
            for parameter, values in self.offloaded.items():
                parameter.data = values  # nothing is copied back: they do not change

    @property
    def name(self) -> str:
        return self.original.name

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.original.tokenizer

    @property
    def eos_ids(self) -> frozenset[int]:
        return self.original.eos_ids

    @property
    def pad_id(self) -> int:
        return self.original.pad_id

    @property
    def max_length(self) -> int:
        return self.original.max_length

    def autocast(self) -> Any:
        return self.original.autocast()

    def save(self, folder: Path) -> None:
        """Refuse: what a run saves is what it trained."""
        raise NotImplementedError("a frozen reference policy is not saved")


def freeze(reference: Reference, policy: Policy) -> FrozenPolicy:
    """Return the reference policy; AlignkitError if it does not share the policy's tokens."""
    if reference.policy is None:
        return FrozenPolicy.of(policy, copied=True, offload=reference.offload)
    check_vocabularies(reference.policy, policy)
    return FrozenPolicy.of(reference.policy, copied=False, offload=reference.offload)


def check_vocabularies(reference: Policy, policy: Policy) -> None:
    """Raise AlignkitError unless both policies read text as the same token ids."""
    if reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise AlignkitError(
            f"the reference {reference.name} and the policy {policy.name} have different "
            f"vocabularies, so their log-probs cannot be compared; take a reference of the same "
            f"model family"
        )


@torch.no_grad()
def detached_logprobs(
    policy: Policy, rows: Sequence[TrainRow], *, token_budget: int, temperature: float
) -> list[Tensor]:
    """Return the log-probs of each row's response tokens, (T_i,) on the CPU."""
    if isinstance(policy, FrozenPolicy) and policy.offloaded:
        with policy.resident():
            there = replace(policy, offloaded={})
            return detached_logprobs(
                there, rows, token_budget=token_budget, temperature=temperature
            )
    found = [torch.zeros(0)] * len(rows)
    at = [i for i, row in enumerate(rows) if row.response_ids]
    for batch in cut(policy, [rows[i] for i in at], token_budget):
        chosen = [rows[at[j]] for j in batch]
        logprobs, _, mask = response_logprobs(
            policy, chosen, temperature=temperature, with_entropy=False
        )
        for j, values, keep in zip(batch, logprobs.cpu(), mask.cpu(), strict=True):
            found[at[j]] = values[keep].clone()
    return found


def _on_host(parameter: Tensor) -> Tensor:
    """Return the values in CPU memory, pinned where that speeds up copies."""
    values = parameter.detach().to("cpu")
    return values.pin_memory() if parameter.device.type == "cuda" else values


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: Estimator) -> Tensor:
    """Return the per-token estimate of KL(πθ ‖ πref), of the inputs' shape.

    k1 = d, k2 = d²/2, k3 = exp(-d) - 1 + d; Schulman, http://joschu.net/blog/kl-approx.html.
    """
    d = logprobs - ref_logprobs
    if estimator == "k1":
        return d
    return d.square() / 2 if estimator == "k2" else torch.expm1(-d) + d


def penalised(loss: LossType, beta: float, estimator: Estimator) -> LossType:
    """Return ``loss`` plus ``beta`` times the k2 or k3 estimate per token, logged as ``kl``.

    With k1 the loss is left as it is, since its penalty belongs in the reward; the divergence
    is logged all the same.
    """

    def with_kl(x: LossInputs) -> LossOutput:
        if x.ref_logprobs is None:
            raise ValueError("the KL penalty needs ref_logprobs")
        output = loss(x)
        kl = kl_estimate(x.logprobs, x.ref_logprobs, estimator)  # (B, T)
        per_token = output.per_token if estimator == "k1" else output.per_token + beta * kl
        return LossOutput(per_token=per_token, metrics={**output.metrics, "kl": kl.detach()})

    return with_kl
