"""alignkit: a plugin-registry toolkit for aligning language models.

Everything a plugin author needs is re-exported here, and what runs recipes from Python:
:func:`load`, :func:`run` and :func:`open_run`, which are imported at first use. Nothing here
imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alignkit.component import Component, Params, RecipePath
from alignkit.errors import AlignkitError, TransientError
from alignkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from alignkit.api import Plan, RunResult, load, open_run, run

__all__ = [
    "AlignkitError", "Component", "Params", "Plan", "RecipePath", "RunResult", "TransientError",
    "hookimpl", "load", "open_run", "run",
]  # fmt: skip
_FROM_API = ("Plan", "RunResult", "load", "open_run", "run")


def __getattr__(name: str) -> Any:
    """Import what runs recipes when it is asked for: plugins, which are many, do not need it."""
    if name in _FROM_API:
        return getattr(import_module("alignkit.api"), name)
    raise AttributeError(f"module 'alignkit' has no attribute {name!r}")
