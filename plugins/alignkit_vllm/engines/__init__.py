"""What the backend asks of an engine, wherever it runs."""

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
    """The engine went away; another one can be started, or the same may come back."""


class Engine(ABC):
    """A vLLM engine. Methods raise LostError where it went away."""

    peer: str
    """Its name in messages."""

    @abstractmethod
    def start(self, folder: Path, policy: Policy) -> None:
        """Start on the model that ``folder`` describes, with random weights."""

    @abstractmethod
    def load(self, policy: Policy, dtype: torch.dtype, version: str) -> None:
        """Take over the policy's weights as ``dtype``; drop what was cached under other ones."""

    @abstractmethod
    def holds(self) -> str:
        """Return the version of the weights held, "" where no version is held as a whole."""

    @abstractmethod
    def columns(self) -> Mapping[str, Any]:
        """Return some columns of the weights, see ``worker.columns``."""

    @abstractmethod
    def stream(self, requests: Sequence[Request]) -> Generator[tuple[int, list[Answer]]]:
        """Yield each request's place and its answers, as they are finished."""

    @abstractmethod
    def max_len(self) -> int:
        """Return the maximum number of tokens of prompt and response together."""

    @abstractmethod
    def progress(self) -> str:
        """Return a few words on what it is waiting for; called from another thread."""

    @abstractmethod
    def close(self) -> None:
        """End the engine, and whatever process was started for it."""

    def computed(self) -> Mapping[str, str]:
        """Return what a run's manifest records of how it computes; empty before the first load."""
        return {}

    def recover(self, lost: Exception) -> None:
        """Bring a lost engine back; one in this process cannot be."""
        raise lost

    def rest(self) -> None:  # noqa: B027 # nothing to do for most
        """Give memory back until the next :meth:`load`, where it is the policy's too."""

    def kill(self) -> None:  # noqa: B027
        """End the engine's processes at once, where it has any."""

    def log_end(self) -> str:
        """Return the end of the engine's log, where it has one of its own; may end the engine."""
        return ""
