"""Record a recipe without its secrets and otherwise unchanged.

A value is left out if its name or its text is that of a secret (see
``alignkit.security.secrets``). Names of components and paths are never secrets: resuming a run
needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignkit.recipe import Node, path_mark
from alignkit.security.secrets import REDACTED, redact


def without_secrets(node: Node) -> dict[str, Any]:
    """Return the result of :meth:`Node.dump` without the secrets."""
    return node.dump(recorded_values)


def recorded_values(node: Node) -> dict[str, Any]:
    """Return a node's own parameters without the secrets."""
    params = node.params
    return {
        name: value if path_mark(type(params), name) else redact(value, name)
        for name, value in params.model_dump(mode="json").items()
    }


def lost(table: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the keys of a recorded recipe whose values were left out."""
    if isinstance(table, Mapping):
        return [key for name, item in table.items() for key in lost(item, (*at, str(name)))]
    if isinstance(table, list):
        return [key for i, item in enumerate(table) for key in lost(item, (*at, str(i)))]
    return [at] if isinstance(table, str) and REDACTED in table else []
