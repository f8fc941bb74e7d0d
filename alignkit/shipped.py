"""Find what alignkit ships besides code: recipes, and the model and data they start from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PREFIX = "alignkit:"
"""``alignkit:recipes/grpo.toml`` in a recipe is that file, wherever alignkit is installed."""


def shipped() -> Path:
    """Return the folder that holds ``recipes/`` and ``data/``: in the wheel, or the checkout."""
    package = Path(__file__).parent
    bundle = package / "_bundle"
    return bundle if bundle.is_dir() else package.parent


def path_from(text: str, base: Path) -> Path:
    """Return the path that ``text`` means in a file of the folder ``base``, symlinks resolved.

    What cannot be a path here (too long, a null byte, the home of nobody) comes back as it is,
    below ``base``; there is no file of that name.
    """
    with suppress(OSError, ValueError, RuntimeError):
        if text.startswith(PREFIX):
            return (shipped() / text.removeprefix(PREFIX)).resolve()
        return (base / Path(text).expanduser()).resolve()
    return base / text


def resolved(path: Path) -> Path:
    """Return an absolute path, symlinks resolved if they lead anywhere; reading it says if not."""
    with suppress(OSError, ValueError, RuntimeError):  # a null byte; links in a circle
        return path.resolve()
    return path.absolute()


def exists(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Whether there is a file or folder; not if the name is one that no file can have."""
    with suppress(OSError, ValueError):
        return kind(path)
    return False
