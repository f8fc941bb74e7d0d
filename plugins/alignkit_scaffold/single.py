"""Plugins that are one file: writing one to start from, and making a package of one."""

from __future__ import annotations

from importlib.util import find_spec
from os.path import lexists
from pathlib import Path
from shlex import quote

from alignkit.errors import AlignkitError, in_shell, shown
from alignkit.plugin import Plugin
from alignkit.plugin_files import with_files
from alignkit.plugins import Registry
from alignkit_scaffold.scaffold import TABLES, TEMPLATES, filled, name_fault, put

TEST = '''"""alignkit's conformance kit on NAME; add numbers that you worked out by hand."""

from alignkit.testing import conformance

test_conforms = conformance("NAME")
'''


RIVALS = {
    "advantage": ("advantage", "group_std"),
    "loss_type": ("loss", "grpo_clip"),
    "normalizer": ("normalizer", "masked_mean"),
    "preference_loss": ("loss", "dpo"),
}
"""What a new component is compared with, by kind: its table in a recipe and the built-in one."""


def new_file(name: str, kind: str, parent: Path, registry: Registry) -> list[Path]:
    """Write ``NAME.py`` with a working component of ``kind``, and ``NAME.toml`` that runs it.

    Where there is a built-in component to compare it with, ``NAME_sweep.toml`` does that. Raises
    AlignkitError for a name that cannot be used, files that exist, and a kind whose component does
    not fit one file.
    """
    if problem := name_fault(name, kind, registry):
        raise AlignkitError(f"{name!r:.60} cannot be the name of a new plugin: {problem}")
    if hidden := _hidden_by(name, parent):
        raise AlignkitError(f"{name!r} cannot be the name of a plugin file: {hidden}")
    modules = sorted((TEMPLATES / kind / "alignkit_my_idea").glob("*.tmpl"))
    recipe = TEMPLATES / kind / "recipe.toml.tmpl"
    if len(modules) != 1 or not recipe.is_file():
        raise AlignkitError(f"{kind} takes a package of several modules; leave --file out")
    plugin = filled(modules[0].read_text(encoding="utf-8"), name, kind)
    comment, _, rest = filled(recipe.read_text(encoding="utf-8"), name, kind).partition("\n")
    texts: dict[Path, str | bytes] = {
        parent / f"{name}.py": plugin,
        parent / f"{name}.toml": f'{comment}\nplugins = ["{name}.py"]\n{rest}',
    }
    if kind in RIVALS:
        texts[parent / f"{name}_sweep.toml"] = _sweep(name, *RIVALS[kind])
    for path in texts:
        if lexists(path):
            raise AlignkitError(f"{shown(path)} exists; choose another NAME or --dest")
    put(texts)
    return list(texts)


def _hidden_by(name: str, parent: Path) -> str:
    """Return which module a file of this name would hide from ``python -m`` beside it, or ``""``.

    >>> _hidden_by("json", Path("/nowhere"))
    "Python programs started beside it would import it in place of 'json'; try 'json_idea'"
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None or Path(spec.origin).parent == parent:
        return ""
    return (
        f"Python programs started beside it would import it in place of {name!r}; "
        f"try {name + '_idea'!r}"
    )


def _sweep(name: str, table: str, rival: str) -> str:
    return f"""# {name} beside {rival}: the same seeds, data and steps.
recipe = "{name}.toml"
seeds = [0, 1]

# The first variant is what the others are compared with.
[variants.{rival}.set]
{table}.use = "{rival}"

[variants.{name}.set]
{table}.use = "{name}"
"""


def package(file: Path, parent: Path, registry: Registry) -> Path:
    """Write a package ``alignkit-NAME`` around the plugin ``NAME.py``; return its folder.

    Raises AlignkitError for a file that is no plugin, a name that is taken by an installed one,
    and a folder that exists.
    """
    found = with_files(registry, [file]).plugins
    plugin = next(p for p in found if p.file and p.name == file.stem)
    kind, names = next(iter(plugin.provides.items()))
    if problem := name_fault(plugin.name, kind, registry):
        raise AlignkitError(f"{shown(file)}: {problem}; rename the file")
    folder = parent / f"alignkit-{plugin.name.replace('_', '-')}"
    if lexists(folder):
        raise AlignkitError(f"{shown(folder)} exists; choose another --dest")
    put({folder / path: text for path, text in _files(plugin, kind, names[0], file).items()})
    return folder


def _files(plugin: Plugin, kind: str, component: str, file: Path) -> dict[str, str | bytes]:
    """Return the content of each file of a package, by its path."""
    name = plugin.name
    texts: dict[str, str | bytes] = {
        filled(path.relative_to(TEMPLATES / "common").as_posix(), name, kind).removesuffix(
            ".tmpl"
        ): filled(path.read_text(encoding="utf-8"), name, kind)
        for path in (TEMPLATES / "common").rglob("*.tmpl")
    }
    table = TABLES.get(kind, "").replace("my_idea", component)
    texts["README.md"] = _readme(name, kind, component, table)
    texts[f"alignkit_{name}/__init__.py"] = file.read_bytes()  # in its own encoding
    texts[f"tests/test_{name}.py"] = TEST.replace("NAME", name)
    return texts


def _readme(name: str, kind: str, component: str, table: str) -> str:
    return f"""# alignkit-{name.replace("_", "-")}

`{component}`, a {kind.replace("_", " ")} for alignkit. The first lines of
`alignkit_{name}/__init__.py` say what it does and where it comes from.

```sh
pip install -e '.[test]'
pytest
alignkit describe {kind} {component}
```

In a recipe:

```toml
{table}
```
"""


def next_for_file(files: list[Path], kind: str, name: str) -> str:
    """Return what to say about files that :func:`new_file` wrote."""
    plugin, recipe, *sweep = (in_shell(path) for path in files)
    compare = [f"      alignkit sweep {path}   (and read its report)\n" for path in sweep]
    return (
        f"wrote {', '.join(map(shown, files[:-1]))} and {shown(files[-1])}\n"
        f"next: alignkit check {plugin}\n"
        f"      alignkit describe {kind} {name} -p {plugin}\n"
        f"      alignkit run {recipe}\n"
        f"{''.join(compare)}"
        f"      alignkit package {plugin}   (to publish it)"
    )


def next_for_package(folder: Path) -> str:
    """Return what to say about a package that :func:`package` wrote."""
    extra = quote(f"{shown(folder)}[test]")
    return (
        f"wrote {shown(folder)}\n"
        f"next: pip install -e {extra} && (cd {in_shell(folder)} && pytest)\n"
        "      take the file out of `plugins` in your recipes: the package offers it now\n"
        f"      pip install build && python -m build {in_shell(folder)}   (what goes to an index)"
    )
