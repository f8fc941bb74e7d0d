"""A run may write only to its own directory and to files that the command line names."""

from __future__ import annotations

from pathlib import Path

from alignkit.errors import Problem, RecipeError, shown
from alignkit.recipe import Node, path_mark


def refuse_outside(node: Node, folder: Path) -> None:
    """Raise RecipeError if the recipe alone names files to write outside ``folder``.

    Otherwise a recipe from somebody else could append to any file of the user who runs it.
    """
    if found := [problem for part in node.walk() for problem in _outside(part, folder)]:
        raise RecipeError(found)


def _outside(node: Node, folder: Path) -> list[Problem]:
    found = []
    for name in type(node.params).model_fields:
        mark, value = path_mark(type(node.params), name), getattr(node.params, name)
        origin = node.origins.get(name)
        if mark is None or not mark.new or value is None or origin is None or origin.file is None:
            continue
        if not Path(value).resolve().is_relative_to(folder.resolve()):
            message = (
                f"{shown(Path(value))} is outside the run directory, where a run writes only what "
                f"the command line names"
            )
            found.append(Problem((*node.key, name), message, _hint(node, value), origin))
    return found


def _hint(node: Node, value: Path) -> str:
    keys = ".".join(node.key[:-1] if node.key[-1:] and node.key[-1].isdigit() else node.key)
    return f'to have it so: -s \'{keys}=[{{use="{node.use}", path="{shown(Path(value))}"}}]\''
