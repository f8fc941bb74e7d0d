"""Find what alignkit ships besides code: recipes, and the model and data they start from."""

from __future__ import annotations

from pathlib import Path

PREFIX = "alignkit:"
"""``alignkit:recipes/grpo.toml`` in a recipe is that file, wherever alignkit is installed."""


def shipped() -> Path:
    """Return the folder that holds ``recipes/`` and ``data/``: in the wheel, or the checkout."""
    package = Path(__file__).parent
    bundle = package / "_bundle"
    return bundle if bundle.is_dir() else package.parent


def path_from(text: str, base: Path) -> Path:
    """Return the path that ``text`` means in a file of the folder ``base``."""
    if text.startswith(PREFIX):
        return shipped() / text.removeprefix(PREFIX)
    return base / Path(text).expanduser()
