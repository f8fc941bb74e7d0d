"""What is released: its version is that of the tag, and both distributions are complete."""

import subprocess
import sys
import tarfile
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = spec_from_file_location("version_tool", ROOT / ".ci" / "version.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(folder, *words):
    who = ["-c", "user.name=N", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one commit and no tag."""
    folder = tmp_path / "checkout"
    (folder / ".github").mkdir(parents=True)
    git(tmp_path, "init", "-q", folder)
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    return folder


def changelog(folder, text):
    (folder / ".github" / "CHANGELOG.md").write_text(f"# Changelog\n\n{text}", encoding="utf-8")


def test_at_a_tag_it_is_the_tags_and_later_it_is_under_way_to_the_next(tool, checkout):
    git(checkout, "tag", "v0.3.1")
    git(checkout, "tag", "nightly")  # no release
    assert tool.version(checkout) == "0.3.1"
    for _ in range(3):
        git(checkout, "commit", "-q", "--allow-empty", "-m", "more")
    commit = git(checkout, "rev-parse", "--short", "HEAD")
    assert tool.version(checkout) == f"0.3.2.dev3+g{commit}"
    git(checkout, "tag", "v0.4.0rc1")
    assert tool.version(checkout) == "0.4.0rc1"
    git(checkout, "commit", "-q", "--allow-empty", "-m", "more")
    assert tool.version(checkout).startswith("0.4.0rc1.post1+g")


def test_without_a_tag_it_is_the_newest_of_the_changelog_or_the_first(tool, checkout):
    assert tool.version(checkout) == tool.FIRST
    changelog(checkout, "## [Unreleased]\n\n## [0.12.0] - 2031-01-02\n\n## [0.11.0] - 2030-01-02\n")
    assert tool.version(checkout) == "0.12.0"
    inside = checkout / "vendored"  # a copy of the files in somebody else's repository
    inside.mkdir()
    git(checkout, "tag", "v7.0.0")
    assert tool.version(inside) == tool.FIRST


def test_an_sdist_keeps_the_version_that_it_was_made_with(tool, checkout):
    git(checkout, "tag", "v0.3.1")
    (checkout / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: alignkit\nVersion: 5.6.7\n")
    assert tool.version(checkout) == "5.6.7"


READY = "## [Unreleased]\n\n## [0.5.0] - 2031-01-02\n\n### Added\n\n- A thing.\n"


@pytest.mark.parametrize(
    ("text", "tag", "problem"),
    [
        (READY, "v0.5.0", ""),
        (READY + "\n## [0.4.0] - 2030-01-01\n\n- Older.\n", "v0.5.0", ""),
        (READY, "v0.6.0", "version 0.5.0"),
        ("## [Unreleased]\n\n- A thing.\n", "v0.5.0", "does not begin with"),
        (READY.replace("\n\n##", "\n\n- Left.\n\n##", 1), "v0.5.0", "not under 0.5.0"),
        ("## [Unreleased]\n\n## [0.5.0] - 2031-01-02\n", "v0.5.0", "or none"),
    ],
    ids=["ready", "older-below", "other-tag", "no-heading", "left-over", "empty"],
)
def test_the_notes_of_a_release_are_the_changelogs(tool, checkout, text, tag, problem):
    git(checkout, "tag", "v0.5.0")
    changelog(checkout, text)
    if not problem:
        assert tool.notes(tag, checkout) == "### Added\n\n- A thing."
        return
    with pytest.raises(ValueError, match=problem):
        tool.notes(tag, checkout)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The distributions, each built from what it is built from by others: sdist, then wheel."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    subprocess.run([*build, "-t", "wheel"], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel, source


def test_the_wheel_made_of_the_sdist_holds_all_that_runs_and_nothing_else(tool, built):
    sdist, wheel, source = built
    assert wheel.name == f"alignkit-{tool.version()}-py3-none-any.whl"
    assert sdist.name == f"alignkit-{tool.version()}.tar.gz"
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    packages = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}
    assert {top for top in tops if "dist-info" not in top} == {"alignkit", *packages}
    wanted = {"alignkit/_bundle/recipes/grpo.toml"}
    wanted |= {"alignkit/_bundle/data/tiny_policy/model.safetensors"}
    for folder, base in ((ROOT / "alignkit", ROOT), (ROOT / "plugins", ROOT / "plugins")):
        files = [
            p for p in folder.glob("*/**/*") if p.is_file() and p.suffix not in (".pyc", ".md")
        ]
        wanted |= {p.relative_to(base).as_posix() for p in files}
    assert wanted - set(names) == set()
    unwanted = (".pyc", ".pyo", ".so", ".log", ".orig", "conftest.py")
    assert [n for n in names if n.endswith(unwanted) or "/." in n] == []
    assert (source / "tests" / "conftest.py").is_file()
    assert (source / ".ci" / "version.py").is_file()


def test_the_sdist_holds_nothing_at_the_top_but_what_belongs_there(built):
    """A file left behind in the checkout, once committed, would go out with each release."""
    found = {path.name for path in built[2].iterdir() if not path.name.startswith(".")}
    belongs = ["LICENSE", "README.md", "pyproject.toml", "PKG-INFO"]
    folders = ["alignkit", "plugins", "tests", "recipes", "data"]
    assert found == {*belongs, *folders}


def test_the_index_takes_both_and_shows_the_readme(built):
    pytest.importorskip("twine", reason="twine is in the extra `release`")
    check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built[:2])]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
