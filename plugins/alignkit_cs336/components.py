"""The components of other plugins, by name: plugins never import each other."""

from __future__ import annotations

from functools import cache
from typing import Any

from alignkit import Params
from alignkit.plugins import load

_registry = cache(load)


def schema(kind: str, name: str) -> type[Params[Any]]:
    """Return the parameters' class of a component; LookupError if there is none."""
    return _registry().get(kind, name)[1].params


def make(kind: str, name: str, **parameters: Any) -> Any:
    """Build a component that has no slots from its parameters."""
    return schema(kind, name)(**parameters).build()
