"""Ordinary calls of a transformers model, and how near two answers to one question are."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from alignkit.engine.forward.trial import compute_dtype
from alignkit.protocols import Policy

_WINDOWS = ("window", "window_size", "attention_chunk_size", "index_topk")
"""How settings end that say how far a layer sees."""


class UnqualifiedError(Exception):
    """The model cannot be decoded in some way; the message says why."""


@contextmanager
def tried(otherwise: str) -> Iterator[None]:
    """Warn of ``otherwise``, and why, if what the block tries does not work for a model.

    A model's own code may raise anything. Only memory that runs out is no reason: whatever comes
    instead would need as much.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001
        kind = "" if isinstance(error, UnqualifiedError) else f"{type(error).__name__}: "
        warnings.warn(f"{otherwise}: {kind}{error}", stacklevel=2)


@contextmanager
def inference(policy: Policy) -> Iterator[None]:
    """Evaluation mode, no gradient, autocast; the model is left as it was found."""
    training = policy.model.training
    policy.model.eval()
    try:
        with torch.no_grad(), policy.autocast():
            yield
    finally:
        policy.model.train(training)


def logits_after(model: Any, ids: Tensor) -> Tensor:
    """Return the logits (B, V) of the token after ``ids`` (B, T), all of them read, no cache."""
    logits: Tensor = model(ids, use_cache=False, **last_only(model)).logits
    return logits[:, -1]


def last_only(model: Any) -> dict[str, int]:
    """Return what makes a call compute the last token's logits only, if the model knows how."""
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}


def windows(model: Any) -> list[int]:
    """Return how far, in tokens, some layers of the model see by its configuration, sorted.

    From there on a token does not see all before it, in each architecture in its own way.
    """
    settings = model.config.get_text_config().to_dict()
    sizes = [value for name, value in settings.items() if name.endswith(_WINDOWS)]
    return sorted(size for size in sizes if isinstance(size, int) and size > 0)


def tolerance(model: Any) -> float:
    """Return what rounding may put two answers of ``model`` apart, as a share; see ``apart``."""
    weight = next(model.parameters())
    if compute_dtype(weight) != torch.float32:
        return 0.1
    return 1e-2 if weight.device.type == "cuda" else 1e-3
