"""The model being trained, and what a policy may offer beyond that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


class Policy(Protocol):
    """The model being trained, with its tokenizer. Optional abilities: :class:`Adapted`,
    :class:`Begins`, :class:`Rated`, and ``Ends`` of :mod:`alignkit.dialogues`."""

    version: int
    """Counts weight updates; the learner adds one per optimizer step."""

    @property
    def name(self) -> str:
        """Folder or Hub name the weights came from."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def model(self) -> nn.Module:
        """The torch module, loaded at first use, on its training device."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every id that ends a response, from the model's generation config."""
        ...

    @property
    def pad_id(self) -> int: ...

    @property
    def max_length(self) -> int:
        """The most tokens the model takes, prompt and response together."""
        ...

    def autocast(self) -> Any:
        """Context manager for the forward pass (bf16 autocast, or nothing)."""
        ...

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder that ``from_pretrained`` loads."""
        ...


@runtime_checkable
class Adapted(Protocol):
    """A policy that may train an adapter while the other weights stay as they are."""

    @property
    def adapter(self) -> object | None:
        """The adapter; None where all weights are trained."""
        ...

    @property
    def base(self) -> nn.Module | None:
        """The model without its adapter, sharing its weights; None if there is no adapter."""
        ...

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every weight by its checkpoint name, with the adapter merged in."""
        ...


@runtime_checkable
class Begins(Protocol):
    """A policy whose prompts begin with a token of its own."""

    @property
    def bos_ids(self) -> tuple[int, ...]:
        """The beginning-of-sequence id, or nothing."""
        ...


@runtime_checkable
class Rated(Protocol):
    """A policy that knows its hardware's peak, so that a step's utilisation can be computed."""

    @property
    def peak_tflops(self) -> float | None:
        """10¹² floating-point operations per second in its compute type; None = not specified."""
        ...
