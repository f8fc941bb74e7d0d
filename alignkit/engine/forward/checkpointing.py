"""Gradient checkpointing of a transformers model, under either of its names.

transformers 5.20 and later call it activation checkpointing, and warn where the old name is used.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def is_checkpointed(model: nn.Module) -> bool:
    """Whether a part of the model is computed again in the backward pass, when it trains."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def checkpoint(model: Any, **options: Any) -> None:
    """Compute the layers again in the backward pass.

    ``options`` are those of torch's ``checkpoint``. Raises ValueError for a model that does not
    support it.
    """
    _call(model, "enable", {"use_reentrant": False, **options})


def keep_activations(model: Any) -> None:
    """Undo :func:`checkpoint`."""
    _call(model, "disable")


def _call(model: Any, what: str, *options: dict[str, Any]) -> None:
    new, old = f"activation_checkpointing_{what}", f"gradient_checkpointing_{what}"
    getattr(model, new if hasattr(model, new) else old)(*options)
