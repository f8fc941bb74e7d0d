"""Plugins that are one file: ``-p ./my_loss.py``, or ``plugins = ["my_loss.py"]`` in a recipe.

Such a file is a plugin's module without a package around it: it implements hooks with ``@hookimpl``
and the plugin has its name. The file's name and SHA-256 are printed before any of it runs. Its
components must not have names that are taken.
"""

from __future__ import annotations

import hashlib
import stat
import sys
from collections import defaultdict
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from alignkit import unused
from alignkit.component import Component
from alignkit.errors import AlignkitError, shown
from alignkit.lifecycle.ranks import follows
from alignkit.plugin import Offers, Plugin
from alignkit.plugins import Registry, offer
from alignkit.promises import unmet_api
from alignkit.security.text import say
from alignkit.shipped import resolved
from alignkit.vetting import components_of

MODULES = "alignkit_file_"
"""Prefix of the modules made from files, so that none hides an installed module."""


def with_files(registry: Registry, files: Iterable[Path]) -> Registry:
    """Return a registry that also has these files as plugins; files already in it are skipped.

    Raises AlignkitError for a file that cannot be a plugin, and for names that are taken.
    """
    for file in files:
        registry = _with_file(registry, resolved(file))
    return registry


def _with_file(registry: Registry, file: Path) -> Registry:
    content, sha = content_of(file)
    plugin = Plugin(file.stem, file.name, sha[:12], str(file), file=file)
    for known in registry.plugins:
        if known.name == plugin.name:
            if (known.dist, known.version) == (plugin.dist, plugin.version):
                return registry
            raise AlignkitError(unused.same_name(file, known))
    offers: Offers = defaultdict(list, {key: [*found] for key, found in registry.offers.items()})
    for kind, component in imported(file, content, sha):
        if taken := offers.get((kind, component.name)):
            raise AlignkitError(unused.same_component(file, kind, component.name, taken[0][0]))
        offer(plugin, kind, component, offers)
    return replace(registry, plugins=[*registry.plugins, plugin], offers=dict(offers))


def copied(files: Iterable[Path], folder: Path) -> list[str]:
    """Copy plugin files into a run directory; return their paths in it."""
    places = []
    for file in files:
        target = folder / "plugins" / file.name
        target.parent.mkdir(exist_ok=True)
        if target != file:  # a resumed run reads them from there
            target.write_bytes(file.read_bytes())
        places.append(f"plugins/{file.name}")
    return places


def content_of(file: Path) -> tuple[bytes, str]:
    """Return a file's content and its SHA-256; AlignkitError if it cannot be a plugin."""
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise AlignkitError(
            f"{shown(file)} cannot be a plugin; it takes a file NAME.py whose NAME Python can "
            "import, such as my_loss.py"
        )
    try:
        if (
            not stat.S_ISREG(file.stat().st_mode) and not file.is_dir()
        ):  # reading could wait for ever
            raise AlignkitError(f"{shown(file)} cannot be a plugin; it is no regular file")
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AlignkitError(f"{shown(file)} cannot be read: {reason}") from error
    return content, hashlib.sha256(content).hexdigest()


def imported(file: Path, content: bytes, sha: str) -> tuple[tuple[str, Component[Any]], ...]:
    """Return ``(kind, component)`` for all that a file offers; AlignkitError says what is wrong.

    It runs once in a process, after its name and ``sha`` are printed to stderr.
    """
    module, found = _imported(file, content, sha)
    sys.modules[module.__name__] = module  # where another file of that name was meanwhile
    return found


@cache
def _imported(
    file: Path, content: bytes, sha: str
) -> tuple[ModuleType, tuple[tuple[str, Component[Any]], ...]]:
    if not follows():  # rank 0 says it
        say(f"plugin file {shown(file)}, sha256 {sha}", err=True)
    if problem := unmet_api(content.decode("utf-8", errors="replace")):
        raise AlignkitError(f"{shown(file)} {problem}")
    module = ModuleType(MODULES + file.stem)
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    try:
        code = compile(content, str(file), "exec", dont_inherit=True)
        with redirect_stdout(sys.stderr):  # what it prints is no part of what a command says
            exec(code, module.__dict__)  # nosec B102 # a plugin is code that the user names
            found = tuple(components_of(module))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        said = f"{type(error).__name__}: {error}{unused.not_imported(file, error)}"
        raise AlignkitError(f"{_where(file, error)}: {said}") from error
    if any(kind == "command" for kind, _ in found):
        raise AlignkitError(f"{shown(file)} offers a command; commands take an installed package")
    if not found:
        raise AlignkitError(
            f"{shown(file)} offers nothing; a plugin has a function with @hookimpl for each kind "
            "of component, see `alignkit new-plugin NAME --file`"
        )
    return module, found


def _where(file: Path, error: BaseException) -> str:
    """Return the file, with the line that an error came from."""
    lines = [
        frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(file)
    ]
    if isinstance(error, SyntaxError) and error.lineno:
        lines.append(error.lineno)
    return f"{shown(file)}:{lines[-1]}" if lines else shown(file)
