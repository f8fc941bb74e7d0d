"""The architecture is a test: the import contracts of pyproject.toml hold."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).resolve().parents[2]


def test_import_contracts_hold():
    pytest.importorskip("importlinter")
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------- what contracts cannot see

PACKAGES = sorted(p.name for p in (ROOT / "plugins").iterdir() if (p / "__init__.py").is_file())
CONTRACTS = {
    contract["name"]: contract
    for contract in tomli.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
}
LIBRARIES = {"data_files", "docs", "footprint", "model_shape", "run_data", "text", "text_table"}
LIBRARIES |= {"api", "estimate", "run_result"}
"""What stands in alignkit/ for plugins and scripts, and the kernel does not need."""


def strings(path):
    """Yield the strings in a file's code, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    alone = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


@pytest.mark.parametrize("folder", ["alignkit", *(f"plugins/{name}" for name in PACKAGES)])
def test_no_plugin_is_reached_by_a_string(folder):
    others = set(PACKAGES) - {Path(folder).name}
    for path in (ROOT / folder).rglob("*.py"):
        for text in strings(path):
            named = {name for name in others if re.search(rf"\b{name}\b", text)}
            assert not named, f"{path.relative_to(ROOT)} names {named} in {text[:80]!r}"


def test_the_contracts_know_every_package_and_every_module_of_the_kernel():
    for name in (
        "The kernel and the engine never import a plugin",
        "Plugins do not know each other",
    ):
        contract = CONTRACTS[name]
        assert set(contract.get("forbidden_modules") or contract["modules"]) == set(PACKAGES)
    inside = {p.stem for p in (ROOT / "alignkit").iterdir() if p.suffix == ".py" or p.is_dir()}
    inside -= {"__init__", "__pycache__", "_bundle", "testing", "training", "engine"}
    kernel = CONTRACTS["The kernel knows neither the engine nor what only plugins need"]
    listed = {module.removeprefix("alignkit.") for module in kernel["source_modules"]}
    assert listed | LIBRARIES == inside
    without_torch = next(
        c for name, c in CONTRACTS.items() if name.startswith("The kernel needs no")
    )
    assert {f"alignkit.{name}" for name in inside} <= set(without_torch["source_modules"])
