"""The newest set of packages: what is asked for, and that the workflow and the guide ask for it."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import tomli
import yaml
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
_SPEC = spec_from_file_location("newest_tool", ROOT / ".ci" / "newest.py")
newest_tool = module_from_spec(_SPEC)
_SPEC.loader.exec_module(newest_tool)


def test_every_requirement_is_there_and_none_has_an_upper_bound():
    project = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    found = [Requirement(line) for line in newest_tool.newest()]
    assert [r.name for r in found] == [Requirement(line).name for line in wanted]
    assert {s.operator for r in found for s in r.specifier} == {">="}
    assert any("<" in line for line in wanted)  # or there is nothing left to try


SPECIFIERS = st.lists(
    st.sampled_from([">=1.2", "<3", "!=2.1", "<=2.9", ">1", "==2.*"]), unique=True, max_size=4
)


@given(SPECIFIERS, st.sampled_from(["", "; python_version<'3.14'", "; sys_platform<'x'"]))
def test_only_upper_bounds_go(specifiers, marker):
    before = Requirement("name[extra]" + ",".join(specifiers) + marker)
    after = Requirement(newest_tool.without_bound("name[extra]" + ",".join(specifiers) + marker))
    kept = {str(s) for s in before.specifier if not s.operator.startswith("<")}
    assert {str(s) for s in after.specifier} == kept
    assert (after.name, after.extras, after.marker) == ("name", {"extra"}, before.marker)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "workflows/test.yml"])
def test_the_guide_and_the_workflow_say_what_the_script_says(name):
    lines = re.findall(r"^    (.*newest/bin/.*)$", newest_tool.__doc__, flags=re.MULTILINE)
    assert len(lines) == 2
    text = (ROOT / ".github" / name).read_text(encoding="utf-8")
    assert all(line in text for line in lines)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_files_of_the_checkout_that_a_workflow_runs_are_there(path):
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    commands = "\n".join(step.get("run", "") for job in jobs for step in job["steps"])
    assert [f for f in re.findall(r"\.ci/[\w./]+", commands) if not (ROOT / f).is_file()] == []
