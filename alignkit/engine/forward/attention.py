"""Refuse what the attention functions written here do not support."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNKNOWN = ("softcap", "s_aux", "position_bias")


class UnsupportedAttentionError(Exception):
    """The model asks its attention for something that is not implemented here."""


def refuse_unknown(asked: Mapping[str, Any], *more: str) -> None:
    """Raise UnsupportedAttentionError if ``asked`` has capped scores, sinks or a position bias.

    Args:
        asked: what a model passes to its attention function by name.
        *more: names that the caller does not support either.
    """
    unknown = sorted(name for name in (*_UNKNOWN, *more) if asked.get(name) is not None)
    if unknown:
        raise UnsupportedAttentionError(", ".join(unknown))
