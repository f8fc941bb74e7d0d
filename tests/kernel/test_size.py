"""The part of the kernel that a run needs is small, and each module has one duty."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 2_319
"""Lines of code behind the command ``run``: the command line, the dry run, the run itself."""
LIMIT_OF_EXECUTE = 1_810
"""Lines of code that carrying a recipe out needs of these: imports of ``execution``."""

RUN = '''
import json, sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("toys", sys.argv[1])
toys = sys.modules["toys"] = module_from_spec(spec)
spec.loader.exec_module(toys)

import click
from alignkit import Component, Params, plugins

class Show(Params[click.Command]):
    """Say nothing: a run has this command in what is installed."""

    def build(self):
        return click.Command("show", callback=lambda **given: None)

toys = toys.without_commands()
toys.offers["command", "show"] = [(toys.plugins[0], Component("show", Show))]
plugins.load = lambda disable=(): toys
from alignkit.cli import main
open("toy.toml", "w").write('use = "toy"\\n[loss]\\nuse = "clip"\\n')
for options in (["--dry-run"], ["--out", "run"]):
    main(["run", "toy.toml", *options], standalone_mode=False)
print()
print(json.dumps(sorted(name for name in sys.modules if name.partition(".")[0] == "alignkit")))
'''


def file_of(module):
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.fixture(scope="module")
def behind_run(tmp_path_factory):
    """The kernel's modules that a run of made-up components imports, its dry run included."""
    toys = ROOT / "tests" / "fixtures" / "toys.py"
    command = [sys.executable, "-c", RUN, str(toys)]
    folder = tmp_path_factory.mktemp("size")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def imports(module):
    """Return the modules of alignkit that a module imports, those for types alone left out."""
    found = set()
    tree = ast.parse(file_of(module).read_text(encoding="utf-8"))
    typed = [
        n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)
    ]
    left_out = {id(inner) for node in typed for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in left_out:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {m for m in found if m.partition(".")[0] == "alignkit" and file_of(m).is_file()}


def closure(module, within):
    """Return a module and all of ``within`` that its imports lead to, late ones too.

    The packages that they stand in are among them.
    """
    seen, waiting = set(), {module}
    while waiting:
        name = waiting.pop()
        parts = name.split(".")
        new = {".".join(parts[:n]) for n in range(1, len(parts) + 1)} - seen
        assert new <= set(within)
        seen |= new
        waiting |= {m for known in new for m in imports(known) if m in within} - seen
    return seen


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


def sizes(modules):
    return {name: code_lines(file_of(name).read_text(encoding="utf-8")) for name in modules}


def test_the_kernel_behind_a_run_is_small(behind_run):
    assert {"alignkit.cli", "alignkit.plan", "alignkit.execution", "alignkit.toml"} <= set(
        behind_run
    )
    assert not [name for name in behind_run if name.startswith("alignkit.engine")]
    found = sizes(behind_run)
    assert sum(found.values()) <= LIMIT, found


def test_what_carries_a_recipe_out_is_small(behind_run):
    found = sizes(closure("alignkit.execution", behind_run))
    assert sum(found.values()) <= LIMIT_OF_EXECUTE, found


ON_DEMAND = {
    "alignkit.inheritance": "a table that chooses another component than the file below it",
    "alignkit.lifecycle.full": "a disk on which something cannot be written",
    "alignkit.lifecycle.recovery": "a run directory that is moved or deleted during the run",
    "alignkit.overrides": "a value given with -s",
    "alignkit.plugin_files": "a plugin that is a file",
    "alignkit.renaming": "a key under its name in an earlier version",
    "alignkit.wrong_values": "a recipe with a mistake",
}
"""Modules that carrying a recipe out imports only for this, and that are not counted therefore."""


def test_only_what_most_recipes_do_not_need_is_left_out_of_the_count(behind_run):
    counted = closure("alignkit.execution", behind_run)
    later = {name for module in counted for name in imports(module)} - counted
    assert later == ON_DEMAND.keys()


KERNEL = sorted((ROOT / "alignkit").glob("*.py"))


@pytest.mark.parametrize("path", KERNEL, ids=lambda p: p.stem)
def test_the_first_line_of_a_module_is_its_duty(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r'"""\S.{20,}', first), first
