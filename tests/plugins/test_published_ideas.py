"""A published idea is one short file that gives its paper, its equation and its deviations."""

import ast
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
IDEAS = [
    PLUGINS / "alignkit_losses" / f"{name}.py"
    for name in ("dapo_clip", "gspo", "cispo_clip", "dual_clip")
] + [
    PLUGINS / "alignkit_advantages" / f"{name}.py"
    for name in ("rloo", "batch_std", "maxrl", "pass_at_k")
]


def lines_of_code(source):
    """Count the lines that statements take, docstrings left out."""
    tree = ast.parse(source)
    docs = {
        number
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for number in range(node.lineno, node.end_lineno + 1)
    }
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.stmt)]
    taken = {number for n in nodes for number in range(n.lineno, n.end_lineno + 1)}
    blank = {i for i, line in enumerate(source.splitlines(), 1) if not line.split("#")[0].strip()}
    return len(taken - docs - blank)


@pytest.mark.parametrize("path", IDEAS, ids=lambda p: p.stem)
def test_an_idea_is_a_short_file_with_its_source(path):
    source = path.read_text(encoding="utf-8")
    assert lines_of_code(source) <= 60
    doc = ast.get_docstring(ast.parse(source))
    for part in ("Paper: ", "arXiv:", "Equation, ", "Deviations from the paper:\n\n- "):
        assert part in doc or part.replace(", ", ": ") in doc, part


def test_lines_are_counted_right():
    source = """'A module.'

# a comment
x = [
    1,
]


def f():
    'Doc.'
    return x
"""
    assert lines_of_code(source) == 5
