"""How far a model's attention and its positions reach, in tokens, read from its configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_WINDOWS = ("window", "window_size", "attention_chunk_size", "index_topk", "local_attention")
"""Suffixes of the settings that limit how many tokens back a layer attends."""

_ORIGINAL = "original_max_position_embeddings"
_STRETCHING = ("dynamic", "longrope")
"""Kinds of rotary positions whose angles change, for all tokens of a row, once the row is longer
than the original length. A token's logits then depend on how many tokens follow it."""


def windows(config: Any) -> list[int]:
    """Return the lengths, in tokens and sorted, beyond which some layers do not attend.

    In a longer row a token does not see everything before it; what it sees depends on the
    architecture.
    """
    settings = config.get_text_config().to_dict()
    sizes = [value for name, value in settings.items() if name.endswith(_WINDOWS)]
    return sorted({size for size in sizes if isinstance(size, int) and size > 0})


def borders(config: Any) -> list[int]:
    """Return all lengths, sorted, past which a row may be computed differently.

    They are the :func:`windows` and the lengths that a model's positions were first made for.
    """
    settings = config.get_text_config().to_dict()
    return sorted({*windows(config), *_originals(settings)})


def length_bound(config: Any) -> int | None:
    """Return the longest row whose logits do not depend on its length; None if there is no limit.

    Angles of dynamic and long rotary positions (arXiv:2402.13753) depend on the length of the whole
    row. Past this limit, sampling and updates compute different logits for the same token.
    """
    settings = config.get_text_config().to_dict()
    if not any(kind in _STRETCHING for kind in _rope_types(settings)):
        return None
    whole = settings.get("max_position_embeddings")
    known = [*_originals(settings), *([whole] if isinstance(whole, int) else [])]
    return min(known, default=None)


def _originals(settings: Mapping[str, Any]) -> Iterator[int]:
    for part in _parts(settings):
        size = part.get(_ORIGINAL)
        if isinstance(size, int) and size > 0:
            yield size


def _rope_types(settings: Mapping[str, Any]) -> Iterator[Any]:
    for part in _parts(settings):
        yield part.get("rope_type", part.get("type"))


def _parts(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the settings and the rotary settings: one set, or one for each kind of layer."""
    yield settings
    for name in ("rope_parameters", "rope_scaling"):
        rope = settings.get(name)
        if isinstance(rope, Mapping):
            yield rope
            yield from (part for part in rope.values() if isinstance(part, Mapping))
