"""No module is needed by what it needs itself: late imports and those for types count too."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

KNOWN = {
    ("alignkit_rewards.expression", "alignkit_rewards.commands"),
    ("alignkit_rewards.relations", "alignkit_rewards.equality"),
    ("alignkit_vllm.backend", "alignkit_vllm"),
}
"""Imports that close a circle; there may be fewer."""


def modules(*folders):
    """Return the file of each module below ``folders``, by its dotted name."""
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in folders
        for path in folder.rglob("*.py")
    }


def imports(path, known):
    """Return the modules of ``known`` that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & known.keys()
            found |= {node.module} if inner - known.keys() else set()
    return found & known.keys()


def graph_of(*folders, prefix=""):
    known = {n: path for n, path in modules(*folders).items() if n.startswith(prefix)}
    return {name: imports(path, known) - {name} for name, path in known.items()}


def circle(graph):
    """Return one circle of a graph as a list of modules, [] where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_there_is_no_circle_but_the_known():
    graph = graph_of(ROOT / "plugins", ROOT, prefix="alignkit")
    for importer, imported in KNOWN:
        graph.get(importer, set()).discard(imported)
    assert not circle(graph)
    assert len(graph) > 200


@pytest.mark.parametrize(
    "back",
    [
        "import house.a",
        "from house.a import x",
        "from house import a",
        "def f():\n    from house.a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.a",
    ],
)
def test_every_kind_of_import_counts(tmp_path, back):
    (tmp_path / "house").mkdir()
    (tmp_path / "house/__init__.py").touch()
    (tmp_path / "house/a.py").write_text("from house.b import y\nx = 1\n")
    (tmp_path / "house/b.py").write_text("y = 1\n")
    assert not circle(graph_of(tmp_path))
    (tmp_path / "house/b.py").write_text(back)
    assert set(circle(graph_of(tmp_path))) == {"house.a", "house.b"}
