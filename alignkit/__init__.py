"""alignkit: a plugin-registry toolkit for aligning language models.

Everything a plugin author needs is re-exported here; nothing here imports torch.
"""

from alignkit.component import Component, Params, RecipePath
from alignkit.errors import AlignkitError, TransientError
from alignkit.hookspecs import hookimpl

__all__ = ["AlignkitError", "Component", "Params", "RecipePath", "TransientError", "hookimpl"]
