"""Plugins that are one file: ``-p ./my_loss.py``, or ``plugins = ["my_loss.py"]`` in a recipe.

Such a file is a plugin's module without a package around it: it implements hooks with ``@hookimpl``
and the plugin has its name. Which file is read, with its SHA-256, is said before any of it runs.
Nothing that it offers may have the name of something else.
"""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from alignkit.component import Component
from alignkit.errors import AlignkitError, shown
from alignkit.plugins import Offers, Plugin, Registry, components_of
from alignkit.security.text import say

MODULES = "alignkit_file_"
"""Prefix of the modules made of files, so that none hides an installed module."""


def with_files(registry: Registry, files: Iterable[Path]) -> Registry:
    """Return the registry with what the files offer besides; what it has already is skipped.

    Raises AlignkitError for a file that cannot be read or does not import, and for names that are
    taken.
    """
    for file in files:
        registry = _with(registry, file.resolve())
    return registry


def copied(files: Iterable[Path], folder: Path) -> list[str]:
    """Copy plugin files into a run directory; return where they lie in it."""
    places = []
    for file in files:
        target = folder / "plugins" / file.name
        target.parent.mkdir(exist_ok=True)
        if target != file:  # a run that goes on reads them from there
            target.write_bytes(file.read_bytes())
        places.append(f"plugins/{file.name}")
    return places


def _with(registry: Registry, file: Path) -> Registry:
    content = _content(file)
    sha = hashlib.sha256(content).hexdigest()
    plugin = Plugin(file.stem, file.name, sha[:12], MODULES + file.stem, file=file)
    for known in registry.plugins:
        if known.name == plugin.name:
            if (known.dist, known.version) == (plugin.dist, plugin.version):
                return registry
            whose = shown(known.file) if known.file else f"{known.dist} {known.version}"
            raise AlignkitError(
                f"{shown(file)} would be plugin {plugin.name!r}, which {whose} is already; "
                "rename the file"
            )
    module, components = _imported(file, content, sha)
    sys.modules[plugin.module] = module
    offers: Offers = defaultdict(list, {key: [*found] for key, found in registry.offers.items()})
    for kind, component in components:
        if taken := offers.get((kind, component.name)):
            owner = taken[0][0]
            raise AlignkitError(
                f"{shown(file)} offers {kind} {component.name!r}, and so does plugin {owner.name} "
                f"of {owner.dist} {owner.version}; give it another name"
            )
        offers[kind, component.name].append((plugin, component))
        plugin.provides.setdefault(kind, []).append(component.name)
    return replace(registry, plugins=[*registry.plugins, plugin], offers=dict(offers))


def _content(file: Path) -> bytes:
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise AlignkitError(
            f"{shown(file)} cannot be a plugin; it takes a file NAME.py whose NAME Python can "
            "import, such as my_loss.py"
        )
    try:
        return file.read_bytes()
    except OSError as error:
        raise AlignkitError(f"{shown(file)} cannot be read: {error.strerror}") from error


@cache
def _imported(
    file: Path, content: bytes, sha: str
) -> tuple[ModuleType, tuple[tuple[str, Component[Any]], ...]]:
    """Run a file once, after saying so; return its module and what it offers."""
    say(f"plugin file {shown(file)}, sha256 {sha}", err=True)
    module = ModuleType(MODULES + file.stem)
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    try:
        code = compile(content, str(file), "exec", dont_inherit=True)
        exec(code, module.__dict__)  # nosec B102 # a plugin is code that the user names
        found = tuple(components_of(module))
    except (Exception, SystemExit) as error:
        raise AlignkitError(f"{_where(file, error)}: {type(error).__name__}: {error}") from error
    if any(kind == "command" for kind, _ in found):
        raise AlignkitError(f"{shown(file)} offers a command; commands take an installed package")
    if not found:
        raise AlignkitError(
            f"{shown(file)} offers nothing; a plugin has a function with @hookimpl for each kind "
            "of component, see `alignkit new-plugin NAME --file`"
        )
    return module, found


def _where(file: Path, error: BaseException) -> str:
    """Return the file, with the line of it that an error came from."""
    lines = [
        frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(file)
    ]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    return f"{shown(file)}:{lines[-1]}" if lines else shown(file)
