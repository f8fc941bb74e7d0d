"""Scaffold a plugin package (``new-plugin``), or a folder of recipes to work in (``init``)."""

from __future__ import annotations

import keyword
import re
import shutil
import unicodedata
from collections.abc import Mapping
from importlib.metadata import version
from os.path import lexists
from pathlib import Path
from shlex import quote

from alignkit.errors import AlignkitError, in_shell, shown
from alignkit.plugins import COMMANDS, Registry
from alignkit.security.names import name_problem
from alignkit.shipped import shipped

TEMPLATES = Path(__file__).parent / "templates"
PLACEHOLDER = "my_idea"
LONGEST = 24
"""Characters in a name, so that no line of what is written gets too long."""

TABLES = {
    "algorithm": 'use = "my_idea"',
    "policy": '[policy]\nuse = "my_idea"\npath = "Qwen/Qwen2.5-Math-1.5B"',
    "dataset": '[data]\nuse = "my_idea"',
    "prompt_template": '[prompt]\nuse = "my_idea"',
    "reward_fn": '[reward]\nuse = "my_idea"',
    "environment": '[environment]\nuse = "my_idea"',
    "advantage": '[advantage]\nuse = "my_idea"',
    "loss_type": '[loss]\nuse = "my_idea"',
    "preference_loss": '[loss]\nuse = "my_idea"',
    "normalizer": '[normalizer]\nuse = "my_idea"',
    "rollout_backend": '[rollout]\nuse = "my_idea"',
    "optimizer": '[optimizer]\nuse = "my_idea"',
    "tracker": '[[trackers]]\nuse = "my_idea"',
}
"""How a recipe of the built-in algorithms chooses a component, by kind."""


def new_plugin(name: str, kind: str, parent: Path, registry: Registry) -> Path:
    """Write a package ``alignkit-NAME`` with a working component of ``kind``; return its folder.

    Raises AlignkitError for a name that cannot be used and a folder that exists.
    """
    if problem := name_fault(name, kind, registry):
        raise AlignkitError(f"{name!r:.60} cannot be the name of a new plugin: {problem}")
    folder = parent / f"alignkit-{name.replace('_', '-')}"
    if lexists(folder):
        raise AlignkitError(f"{shown(folder)} exists; choose another NAME or --dest")
    texts: dict[Path, str | bytes] = {}
    for part in ("common", kind):  # the kind's files count where both have one
        for template in sorted((TEMPLATES / part).rglob("*.tmpl")):
            relative = template.relative_to(TEMPLATES / part).as_posix()
            target = folder / filled(relative.removesuffix(".tmpl"), name, kind)
            texts[target] = filled(template.read_text(encoding="utf-8"), name, kind)
    put(texts)
    return folder


def put(texts: Mapping[Path, str | bytes]) -> None:
    """Write new files, and the folders they stand in; AlignkitError says which one cannot be."""
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        except OSError as error:
            where = Path(error.filename or path)
            raise AlignkitError(
                f"cannot write to {shown(where)}: {error.strerror}; choose another --dest"
            ) from error


def next_steps(folder: Path, name: str, kind: str) -> str:
    """Return what to say about a package that was written to ``folder``."""
    words = f"run {in_shell(folder / 'recipe.toml')}"
    if kind == "command":
        words = f"{name.replace('_', '-')} --help"
    package = quote(f"{shown(folder)}[test]")
    return (
        f"wrote {shown(folder)}\n"
        f"next: pip install -e {package} && (cd {in_shell(folder)} && pytest)\n"
        f"      alignkit describe {kind} {name}\n"
        f"      alignkit {words}"
    )


def name_fault(name: str, kind: str, registry: Registry) -> str:
    """Return what is wrong with a plugin's name, with a remedy, or ``""``."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        return (
            f"it takes lower-case words joined by underscores, such as {_snake(name[:LONGEST])!r}"
        )
    if name.startswith("alignkit_") or name == "alignkit":
        short = name.removeprefix("alignkit").strip("_") or PLACEHOLDER
        return f"the package gets the prefix alignkit-; give the rest alone, such as {short!r}"
    if keyword.iskeyword(name):
        return f"it is a word of Python; try {name + '_' + kind!r}"
    if len(name) > LONGEST:
        return f"it has {len(name)} characters, more than {LONGEST}"
    if problem := name_problem(name):
        return f"it has {problem}; try {name + '_' + kind!r}"
    return _taken(name, kind, registry)


def _taken(name: str, kind: str, registry: Registry) -> str:
    for plugin in registry.plugins:
        if plugin.name == name:
            return f"{plugin.dist} {plugin.version} has a plugin of that name"
    if kind == "command" and name in COMMANDS:
        return f"alignkit {name} is a command of the kernel's"
    if name in registry.names(kind):
        owner = ", ".join(plugin.name for plugin, _ in registry.offers[kind, name])
        return f"plugin {owner} offers a {kind} {name!r}, and recipes could not tell them apart"
    return ""


def _snake(name: str) -> str:
    """Return the closest usable name.

    >>> _snake("My-GRPO loss2")
    'my_grpo_loss2'
    >>> _snake("Über")
    'uber'
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain)
    words = re.sub(r"[^a-z0-9]+", "_", split.lower())
    return words.lstrip("_0123456789").rstrip("_") or PLACEHOLDER


def filled(text: str, name: str, kind: str) -> str:
    """Return a template with a plugin's name and kind in it."""
    words = {
        "MY_TABLE": TABLES.get(kind, ""),
        "MY_HOOK": kind,
        "MY_KIND": kind.replace("_", " "),
        "MY_VERSION": ".".join(version("alignkit").split(".")[:2]),
        "dot_github": ".github",
        "MyIdea": "".join(word.capitalize() for word in name.split("_")),
        "my-idea": name.replace("_", "-"),
        PLACEHOLDER: name,
    }
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text


def init(folder: Path) -> list[str]:
    """Copy the shipped recipes and data into a new or empty folder; return what is in it now."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlignkitError(f"{shown(folder)} exists and is not empty; choose a new folder")
    unwanted = shutil.ignore_patterns("*.py", "__pycache__", "maker")  # how data/ was made
    for part in ("recipes", "data"):
        shutil.copytree(shipped() / part, folder / part, ignore=unwanted)
    return sorted(str(path.relative_to(folder)) for path in (folder / "recipes").rglob("*.toml"))
