"""alignkit: a plugin-registry toolkit for aligning language models.

Everything a plugin author needs is re-exported here. So are the functions that run recipes from
Python, :func:`load`, :func:`run` and :func:`open_run`, and ``API``, the version of the interface
that plugins rely on. Each is imported at first use, so that the command can listen to signals
before anything else. Nothing here imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignkit.api import API, Plan, RunResult, load, open_run, run
    from alignkit.component import Component, Params, RecipePath
    from alignkit.errors import AlignkitError, TransientError
    from alignkit.hookspecs import hookimpl

__all__ = [
    "API", "AlignkitError", "Component", "Params", "Plan", "RecipePath", "RunResult",
    "TransientError", "hookimpl", "load", "open_run", "run",
]  # fmt: skip


_MODULES = {
    "AlignkitError": "errors", "TransientError": "errors", "hookimpl": "hookspecs",
    "Component": "component", "Params": "component", "RecipePath": "component",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a name of the interface on first access."""
    if name in __all__:
        return getattr(import_module(f"alignkit.{_MODULES.get(name, 'api')}"), name)
    raise AttributeError(f"module 'alignkit' has no attribute {name!r}")
