"""The files beside the code: they can be read, and what they say to run is there."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / ".github").glob("*.md"))
FORMS = sorted(
    [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"], key=lambda p: p.name
)


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.name)
def test_every_form_is_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(path):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [t for t in targets if not (path.parent / t).exists()] == []


@pytest.mark.parametrize(
    "name", ["CONTRIBUTING.md", "AGENTS.md", "workflows/test.yml"], ids=lambda n: n
)
def test_set_up_is_the_readmes_command(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^python3 -m venv \.venv .*pytest$", readme, flags=re.MULTILINE)
    assert command in (ROOT / ".github" / name).read_text(encoding="utf-8")


def test_the_changelog_knows_the_version_that_is_being_made():
    text = (ROOT / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text
