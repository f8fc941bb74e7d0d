"""The modules beside a file of code that it imports, found without running any of it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path


def helpers(file: Path) -> list[Path]:
    """Return the files beside ``file`` that its import statements reach, also from one another.

    Of a folder that is imported, all modules count; the names of the standard library are never
    theirs. SyntaxError and OSError as reading gives them.
    """
    found: dict[Path, None] = {}
    waiting = [file]
    while waiting:
        for name in sorted({*_imported(waiting.pop())} - sys.stdlib_module_names):
            new = [p for p in _files_of(file.parent, name) if p not in found and p != file]
            found.update(dict.fromkeys(new))
            waiting += new
    return sorted(found)


def _imported(file: Path) -> Iterator[str]:
    """Yield the first parts of the names of the modules that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(file.read_bytes(), filename=str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _files_of(folder: Path, name: str) -> list[Path]:
    """Return the files of a module or package; none if there is no such one in the folder."""
    if (module := folder / f"{name}.py").is_file() and not (
        folder / name / "__init__.py"
    ).is_file():
        return [module]
    return sorted(p for p in (folder / name).rglob("*.py") if p.is_file())
