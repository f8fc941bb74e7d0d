"""Ordinary calls of a transformers model, and how much two results may differ by rounding."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from alignkit.engine.forward.trial import compute_dtype, evaluating
from alignkit.protocols import Policy


class UnqualifiedError(Exception):
    """The model cannot be decoded in some way; the message says why."""


@contextmanager
def tried(otherwise: str) -> Iterator[None]:
    """Warn of ``otherwise``, and why, if what the block tries does not work for a model.

    A model's own code may raise anything. Only running out of memory is passed on: the alternative
    would need as much.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001
        kind = "" if isinstance(error, UnqualifiedError) else f"{type(error).__name__}: "
        warnings.warn(f"{otherwise}: {kind}{error}", stacklevel=3)


@contextmanager
def inference(policy: Policy) -> Iterator[None]:
    """Evaluation mode, no gradient, autocast; the model is left as it was found."""
    with evaluating(policy.model), torch.no_grad(), policy.autocast():
        yield


def logits_after(model: Any, ids: Tensor) -> Tensor:
    """Return the logits (B, V) of the token after ``ids`` (B, T), all of them read, no cache."""
    logits: Tensor = model(ids, use_cache=False, **last_only(model)).logits
    return logits[:, -1]


def last_only(model: Any) -> dict[str, int]:
    """Return what makes a call compute the last token's logits only, if the model knows how."""
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}


def with_cache(model: Any, cache: Any) -> dict[str, Any]:
    """Return what makes a call of ``model`` read ``cache``, and write to it; None = a new one.

    Newer transformers call the argument ``cache``; older ones, and models that bring their own
    code, ``past_key_values``.
    """
    forward = model.forward
    return {_cache_argument(getattr(forward, "__func__", forward)): cache, "use_cache": True}


@lru_cache  # asked for each token
def _cache_argument(forward: Callable[..., Any]) -> str:
    names = signature(forward).parameters
    if not {"cache", "past_key_values"} & names.keys():  # it hands on what it is given
        names = signature(CausalLMOutputWithPast).parameters
    return "past_key_values" if "past_key_values" in names else "cache"


def cache_of(output: Any) -> Any:
    """Return the cache that a call filled, None if it returns none."""
    found = getattr(output, "cache", None)
    return getattr(output, "past_key_values", None) if found is None else found


def tolerance(model: Any) -> float:
    """Return how far rounding may put two results of ``model`` apart, as a share; see ``apart``."""
    weight = next(model.parameters())
    if compute_dtype(weight) != torch.float32:
        return 0.1
    return 1e-2 if weight.device.type == "cuda" else 1e-3
