"""Policies whose weights no longer change, and log-probs without gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alignkit.engine.forward.checkpointing import is_checkpointed, keep_activations
from alignkit.engine.forward.logprobs import cut, detached
from alignkit.engine.forward.remote import Scores, remote_logprobs
from alignkit.engine.ranks.shards import whole_of
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import Adapted, Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(slots=True)
class PolicyView:
    """A policy with a model and version of its own; everything else is the original's."""

    original: Policy
    model: nn.Module
    version: int

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
        """Save the original."""
        self.original.save(folder)


@dataclass(slots=True)
class FrozenPolicy(PolicyView):
    """A policy whose weights no longer change."""

    offloaded: Mapping[nn.Parameter, Tensor] = field(default_factory=dict)
    """The weights in CPU memory, if they are offloaded while not in use."""
    device: torch.device | None = None
    """The device they are used on; None if they are not offloaded."""

    @classmethod
    def of(cls, policy: Policy, *, copied: bool, offload: bool = False) -> FrozenPolicy:
        """Freeze ``policy`` itself, or, with ``copied``, a copy of its current weights.

        A policy that is trained further needs a copy. If it trains an adapter, the model without
        the adapter is that copy; it takes no memory of its own, so it is not offloaded.
        """
        base = _adapterless(policy) if copied else policy.model
        model = (
            frozen_copy(whole_of(policy.model))
            if base is None
            else base.requires_grad_(False).eval()
        )
        frozen = cls(policy, model, policy.version)
        if offload and (base is None or not copied):
            frozen.offload()
        return frozen

    def offload(self) -> None:
        """Move the weights to CPU memory; ``resident`` brings them back to their device."""
        self.device = next(self.model.parameters()).device
        self.offloaded = {p: _on_host(p) for p in self.model.parameters()}
        for parameter, values in self.offloaded.items():
            parameter.data = values

    @contextmanager
    def resident(self) -> Iterator[None]:
        """Keep the weights on the device they are used on while the block runs."""
        for parameter, values in self.offloaded.items():
            parameter.data = values.to(self.device, non_blocking=True)
        try:
            yield
        finally:
            for parameter, values in self.offloaded.items():
                parameter.data = values  # nothing is copied back: they do not change

    def save(self, folder: Path) -> None:
        """Refuse: a run saves the policy that it trained."""
        raise NotImplementedError("a frozen reference policy is not saved")


def frozen_copy(model: nn.Module, *, shared: bool = False) -> nn.Module:
    """Return a copy with weights of its own, which takes no gradients.

    With ``shared`` the copy uses the memory of the model's weights, for a model that is given other
    weights next. Tensors that a model keeps from its last call may belong to an autograd graph,
    which cannot be copied, and are detached.
    """
    known = {id(x): x.detach().clone() for m in model.modules() for x in vars(m).values()
             if isinstance(x, Tensor) and not x.is_leaf}  # fmt: skip
    if shared:
        own = {id(w): nn.Parameter(w.detach(), requires_grad=False) for w in model.parameters()}
        known |= own
    made = copy.deepcopy(model, known).requires_grad_(False).eval()
    if is_checkpointed(made):
        keep_activations(made)  # it has no backward pass
    return made


def detached_logprobs(
    policy: Policy | Scores, rows: Sequence[TrainRow], *, token_budget: int, temperature: float
) -> list[Tensor]:
    """Return the log-probs of each row's response tokens, (T_i,) on the CPU."""
    if isinstance(policy, Scores):
        return remote_logprobs(policy, rows)
    if isinstance(policy, FrozenPolicy) and policy.offloaded:
        with policy.resident():
            there = replace(policy, offloaded={})
            return detached_logprobs(
                there, rows, token_budget=token_budget, temperature=temperature
            )
    return detached(
        policy, rows, partial(cut, policy, token_budget=token_budget), temperature=temperature
    )


def _adapterless(policy: Policy) -> nn.Module | None:
    return policy.base if isinstance(policy, Adapted) else None


def _on_host(parameter: Tensor) -> Tensor:
    """Return the values in CPU memory, pinned if that speeds up copies."""
    values = parameter.detach().to("cpu")
    return values.pin_memory() if parameter.device.type == "cuda" else values
