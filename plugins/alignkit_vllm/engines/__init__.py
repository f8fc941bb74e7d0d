"""The interface between the rollout backend and an engine, wherever the engine runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignkit.errors import AlignkitError
from alignkit_vllm.requests import Answer, Request

if TYPE_CHECKING:
    from alignkit.protocols import Policy


class LostError(AlignkitError):
    """The engine is lost; another one can be started, or the same one may return."""


class Engine(ABC):
    """A vLLM engine. Its methods raise LostError when it is lost."""

    peer: str
    """Its name in messages."""

    @abstractmethod
    def start(self, folder: Path, policy: Policy) -> None:
        """Start on the model that ``folder`` describes, with random weights."""

    @abstractmethod
    def load(self, policy: Policy, dtype: torch.dtype, version: str) -> None:
        """Load the policy's weights as ``dtype``, and drop what was cached for the former ones."""

    @abstractmethod
    def holds(self) -> str:
        """Return the version of the weights held, "" if no version is held completely."""

    @abstractmethod
    def columns(self) -> Mapping[str, Any]:
        """Return some columns of the weights, see ``worker.columns``."""

    @abstractmethod
    def stream(self, requests: Sequence[Request]) -> Generator[tuple[int, list[Answer]]]:
        """Yield each request's index and its answers, in the order in which they finish."""

    @abstractmethod
    def max_len(self) -> int:
        """Return the maximum number of tokens of prompt and response together."""

    @abstractmethod
    def progress(self) -> str:
        """Describe in a few words what it is waiting for; called from another thread."""

    @abstractmethod
    def close(self) -> None:
        """End the engine and the processes that were started for it."""

    def computed(self) -> Mapping[str, str]:
        """Return how it computes, for the run's manifest; empty before the first load."""
        return {}

    def recover(self, lost: Exception) -> None:
        """Bring a lost engine back. One in this process cannot be brought back."""
        raise lost

    def rest(self) -> None:  # noqa: B027 # nothing to do for most
        """Free memory until the next :meth:`load`, if the policy uses the same device."""

    def kill(self) -> None:  # noqa: B027
        """End the engine's processes at once, if it has any."""

    def log_end(self) -> str:
        """Return the end of the engine's own log, "" if it has none; may end the engine."""
        return ""
