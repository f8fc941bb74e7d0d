"""What is promised to plugins: public names, how they are retired, the API of a plugin."""

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import types
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import alignkit
from alignkit import plugins, promises
from alignkit.errors import AlignkitError
from alignkit.kinds import HOOKS
from alignkit.plugin_files import with_files

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "fixtures" / "public_names.txt"
RULE = """
The public names are not those of tests/fixtures/public_names.txt. They are a promise:
- a new name: raise the second number of alignkit.promises.API if the file's API was released;
- a name that goes, or another signature: first deprecate it for two minor releases (`deprecated`,
  `moved`), then take it out and raise the first number.
Then write the file anew: python tests/kernel/test_promises.py --write
"""


def signature(item):
    """Return the arguments of a function, the fields of a record, the methods of a protocol."""
    if dataclasses.is_dataclass(item):
        return f"({', '.join(field.name for field in dataclasses.fields(item))})"
    if isinstance(item, type) and getattr(item, "_is_protocol", False):
        names = {n for owner in item.__mro__ for n in vars(owner) if not n.startswith("_")}
        names |= {n for owner in item.__mro__ for n in getattr(owner, "__annotations__", ())}
        call = ("__call__",) if "__call__" in vars(item) else ()
        return f"{{{', '.join(sorted(n for n in (*names, *call) if not n.startswith('_abc')))}}}"
    if inspect.isfunction(item):
        return f"({', '.join(inspect.signature(item).parameters)})"
    return ""


def public():
    """Return a line for each public name, and for each hook."""
    lines = [f"API {promises.API}"]
    for name in promises.PUBLIC:
        module = importlib.import_module(name)
        lines += [f"{name}.{n}{signature(getattr(module, n))}" for n in sorted(module.__all__)]
    return [*lines, *(f"hook {kind}" for kind in HOOKS)]


def test_public_names_are_those_that_were_frozen():
    assert public() == GOLDEN.read_text(encoding="utf-8").splitlines(), RULE


def test_every_public_name_is_documented_and_the_guide_says_where_they_are():
    for name in promises.PUBLIC:
        module = importlib.import_module(name)
        for item in (getattr(module, n) for n in module.__all__):
            if isinstance(item, type) or inspect.isfunction(item):
                assert inspect.getdoc(item), item
    guide = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## What you may rely on\n(.*?)^## ", guide, re.MULTILINE | re.DOTALL)
    assert [name for name in promises.PUBLIC if f"`{name}`" not in section] == []
    assert f"`{promises.API}`" in section


def test_the_engines_public_names_need_no_torch_until_they_are_used():
    code = (
        "import sys; from alignkit.engine import EnvironmentParams, SamplingParams;"
        "import alignkit; alignkit.API; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Sampler'"):
        importlib.import_module("alignkit.engine").Sampler  # noqa: B018


# ---------------------------------------------------------------- names that go


@promises.deprecated("alignkit.new_way", since="0.3")
def old_way(a, *, b=1):
    """Add."""
    return a + b


def test_a_deprecated_function_works_and_says_what_replaces_it_and_until_when():
    with pytest.warns(promises.AlignkitDeprecationWarning) as told:
        assert old_way(1, b=2) == 3
    assert str(told[0].message).endswith(
        "old_way is deprecated since alignkit 0.3; use alignkit.new_way. It goes in alignkit 0.5"
    )
    assert told[0].filename == __file__  # the line that is to be changed
    assert old_way.__doc__ == "Add."


def test_a_name_that_moved_is_still_found_and_warns_at_the_line_that_uses_it():
    module = types.ModuleType("older")
    module.__getattr__ = promises.moved("older", {"Loss": ("alignkit.protocols.LossType", "1.9")})
    with pytest.warns(promises.AlignkitDeprecationWarning) as told:
        assert module.Loss is alignkit.protocols.LossType
    assert "older.Loss is deprecated since alignkit 1.9; use alignkit.protocols.LossType" in str(
        told[0].message
    )
    assert "It goes in alignkit 1.11" in str(told[0].message)
    assert told[0].filename == __file__
    with pytest.raises(AttributeError, match="'older' has no attribute 'Other'"):
        module.Other  # noqa: B018


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 9))
def test_every_name_is_kept_for_two_minor_releases(major, minor, patch):
    gone = promises.Deprecation("a.b", "a.c", f"{major}.{minor}.{patch}").removed_in
    assert tuple(map(int, gone.split("."))) == (major, minor + 2)


def deprecations():
    """Yield the deprecations that the code of alignkit and of the built-in plugins declares."""
    pattern = r'(?:since="|\("[\w.]+", ")(\d+\.\d+)"'
    for folder in ("alignkit", "plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            code = path.read_text(encoding="utf-8")
            if path.name != "promises.py" and re.search(r"@deprecated\(|= moved\(", code):
                yield from ((path, since) for since in re.findall(pattern, code))


def test_no_name_is_kept_after_the_release_in_which_it_goes():
    ours = tuple(map(int, version("alignkit").split(".")[:2]))
    for path, since in deprecations():
        gone = promises.Deprecation("", "", since).removed_in
        assert ours < tuple(map(int, gone.split("."))), f"{path}: time to take it out"


# ---------------------------------------------------------------- the API a plugin is built for

MODULE = '''"""A loss."""
{declared}
from alignkit import Component, Params, hookimpl
from alignkit.protocols import LossType


class Mine(Params[LossType]):
    """A loss."""

    def build(self) -> LossType:
        return lambda x: None


@hookimpl
def loss_type():
    yield Component("{name}", Mine)
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a distribution whose plugin has these lines: a module, or one inside a package."""

    def install(name, declared, *, inside):
        path = tmp_path / name / "hooks.py" if inside else tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(MODULE.format(declared=declared, name=name))
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        value = f"{name}.hooks" if inside else name
        (info / "entry_points.txt").write_text(f"[alignkit]\n{name} = {value}\n")
        if inside:
            (tmp_path / name / "__init__.py").write_text("raise RuntimeError('ran')\n" * inside)

    monkeypatch.syspath_prepend(tmp_path)
    return install


MAJOR, MINOR = map(int, promises.API.split("."))
DECLARED = {
    f'ALIGNKIT_API = "{MAJOR}.{MINOR}"': "",
    f"ALIGNKIT_API: str = '{MAJOR}.{MINOR}'": "",
    f'ALIGNKIT_API = "{MAJOR}.{MINOR + 1}"; import nothing_there': "upgrade alignkit",
    f'ALIGNKIT_API = "{MAJOR + 1}.0"; import nothing_there': "upgrade alignkit",
    f"ALIGNKIT_API: str = '{MAJOR - 1}.7'; import nothing_there": "get a newer version of the",
}


@pytest.mark.parametrize("declared", DECLARED, ids=["same", "typed", "minor", "major", "old"])
def test_a_plugin_for_another_api_is_incompatible_and_does_not_run(installed, declared):
    remedy = DECLARED[declared]
    installed("apilone", declared, inside=False)
    (found,) = [p for p in plugins.load().plugins if p.name == "apilone"]
    assert found.status == ("incompatible" if remedy else "active"), found.detail
    if remedy:
        assert re.fullmatch(r"is built for API \d+\.\d+ of alignkit, but .*; .*", found.detail)
        assert remedy in found.detail
    sys.modules.pop("apilone", None)


def test_a_module_inside_a_package_is_read_without_importing_the_package(installed):
    installed("apiwithin", f'ALIGNKIT_API = "{MAJOR + 3}.0"', inside=True)
    (found,) = [p for p in plugins.load().plugins if p.name == "apiwithin"]
    assert found.status == "incompatible"
    assert f"API {MAJOR + 3}.0" in found.detail


def test_a_file_for_another_api_is_refused_and_does_not_run(tmp_path):
    file = tmp_path / "apifile.py"
    file.write_text(MODULE.format(declared='ALIGNKIT_API = "99.0"\nimport nothing_there', name="x"))
    with pytest.raises(AlignkitError, match=r"apifile\.py is built for API 99\.0 of alignkit"):
        with_files(plugins.load(), [file])


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_a_plugin_fits_where_the_first_number_is_the_same_and_nothing_is_lacking(a, b, c, d):
    problem = promises.unmet_api(f'"""Doc."""\n\nALIGNKIT_API = "{a}.{b}"\n', f"{c}.{d}")
    assert (problem == "") == (a == c and b <= d)


if __name__ == "__main__" and "--write" in sys.argv:
    GOLDEN.write_text("\n".join(public()) + "\n", encoding="utf-8")
