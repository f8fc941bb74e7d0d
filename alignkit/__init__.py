"""alignkit: a plugin-registry toolkit for aligning language models.

Everything a plugin author needs is re-exported here. So are the functions that run recipes from
Python, :func:`load`, :func:`run` and :func:`open_run`, which are imported at first use, and
``API``, the version of the interface that plugins rely on. Nothing here imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alignkit.component import Component, Params, RecipePath
from alignkit.errors import AlignkitError, TransientError
from alignkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from alignkit.api import API, Plan, RunResult, load, open_run, run

__all__ = [
    "API", "AlignkitError", "Component", "Params", "Plan", "RecipePath", "RunResult",
    "TransientError", "hookimpl", "load", "open_run", "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what plugins do not need on first access: the functions that run recipes."""
    if name in __all__:
        return getattr(import_module("alignkit.api"), name)
    raise AttributeError(f"module 'alignkit' has no attribute {name!r}")
