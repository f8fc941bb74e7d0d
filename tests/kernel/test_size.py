"""The kernel stays small enough to read in an evening, and each module has one duty."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

KERNEL = sorted((Path(__file__).resolve().parents[2] / "alignkit").glob("*.py"))
LIMIT = 1_500


def code_lines(source):
    """Count lines that hold code: no blank line, comment or docstring."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT,
                              tokenize.DEDENT, tokenize.ENDMARKER):  # fmt: skip
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - set(docstring_lines(source)))


def docstring_lines(source):
    """Yield the lines of strings that stand alone: docstrings, and those below fields."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield from range(node.lineno, node.end_lineno + 1)


def test_code_lines_are_counted_right():
    source = '''"""A module."""

# a comment
def f(a,
      b):
    """Two
    lines."""
    return """one
    two"""  # 2 lines of code
'''
    assert code_lines(source) == 4


def test_the_kernel_is_small():
    sizes = {path.name: code_lines(path.read_text(encoding="utf-8")) for path in KERNEL}
    assert len(sizes) > 10
    assert sum(sizes.values()) <= LIMIT, sizes


@pytest.mark.parametrize("path", KERNEL, ids=lambda p: p.stem)
def test_the_first_line_of_a_module_is_its_duty(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r'"""\S.{20,}', first), first
