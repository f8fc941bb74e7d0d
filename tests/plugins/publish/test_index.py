"""The list of known plugins, and how one of them is installed."""

import subprocess
import sys

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from alignkit import AlignkitError, plugins
from alignkit.cli import main
from alignkit_publish import INDEX
from alignkit_publish import install as installing
from alignkit_publish.index import NONE_YET, listing, read, requirement

TWO = """
[[plugin]]
name = "warm"
package = "alignkit-warm"
kinds = ["loss_type", "advantage"]
summary = "Losses that are warmed up."
url = "https://github.com/somebody/alignkit-warm"

[[plugin]]
name = "abacus"
package = "abacus-for-alignkit"
kinds = ["environment"]
summary = "An abacus."
url = "https://example.org/abacus"
"""


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "index.toml"
    path.write_text(TWO)
    return path


def call(*words, **how):
    return CliRunner().invoke(main, [str(word) for word in words], **how)


def test_the_shipped_list_can_be_read_and_its_example_is_right(tmp_path):
    assert listing(read(INDEX), plugins.load())
    lines = [line[2:] for line in INDEX.read_text().splitlines() if line.startswith("# ")]
    begin = lines.index("[[plugin]]")
    (tmp_path / "example.toml").write_text("\n".join(lines[begin : begin + 6]))
    (example,) = read(tmp_path / "example.toml")
    assert example.package == f"alignkit-{example.name}"


def test_known_plugins_are_listed_by_name_and_can_be_searched(index):
    listed = call("plugins", "--index", index).output
    assert listed.index("abacus") < listed.index("warm")
    assert "https://github.com/somebody/alignkit-warm" in listed
    assert "warm" not in call("plugins", "--index", index, "--kind", "environment").output
    assert "abacus" not in call("plugins", "WARMED", "--index", index).output
    assert "none of the 2" in call("plugins", "nothing", "--index", index).output
    page = call("plugins", "--index", index, "--markdown", "--kind", "advantage").output
    assert "| [warm](https://github.com/somebody/alignkit-warm) | loss_type, advantage |" in page
    assert "![conformance](https://github.com/somebody/alignkit-warm/actions/" in page
    index.write_text("")
    assert NONE_YET in call("plugins", "--index", index).output


def test_the_badge_is_that_of_the_workflow_on_github(index):
    abacus, warm = read(index)
    assert abacus.badge == ""
    assert warm.badge == (
        "https://github.com/somebody/alignkit-warm/actions/workflows/conformance.yml/badge.svg"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"An abacus."', '""', "summary"),
        ('name = "abacus"', 'name = "warm"', "warm is listed twice"),
        ('["environment"]', '["environs"]', "unknown kind 'environs'"),
        ("https://example.org/abacus", "ftp://example.org/abacus", "url"),
        ("abacus-for-alignkit", "--index-url=x", "package"),
        ('"An abacus."', '"An abacus."\nextra = 1', "extra"),
        ("[[plugin]]", "[[plug]]", "unknown table 'plug'"),
        ('"An abacus."', '"An', "is no list"),
        ('"An abacus."', '""', "plugin 2: summary: String should have at least 1 character"),
        (TWO, "plugin = 3", "write [[plugin]] for each"),
        (TWO, "[plugin]\nname = 'x'", "write [[plugin]] for each"),
        (TWO, "plugin = [1]", "plugin 1: it: Input should be a valid dictionary"),
    ],
    ids=[
        "summary",
        "twice",
        "kind",
        "url",
        "option",
        "extra",
        "table",
        "toml",
        "which",
        "number",
        "one_table",
        "numbers",
    ],
)
def test_a_list_that_is_wrong_is_refused_with_the_reason(index, old, new, said):
    index.write_text(TWO.replace(old, new))
    with pytest.raises(AlignkitError, match=r"is no list of plugins") as refused:
        read(index)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "pydantic" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("warm", "alignkit-warm"),
        ("alignkit_Warm", "alignkit-warm"),
        ("abacus>=0.2,<1", "abacus-for-alignkit<1,>=0.2"),
        ("warm[gpu]", "alignkit-warm[gpu]"),
        ("warm[b,a]==1", "alignkit-warm[a,b]==1"),
    ],
)
def test_a_name_stands_for_the_package_that_is_listed(index, given, wanted):
    assert str(requirement(read(index), given, unlisted=False)) == wanted


@pytest.mark.parametrize(
    "given", ["wram", "numpy", "-r x.txt", "--pre", "", "warm @ file:///x",
     "warm; os_name == 'x'"])  # fmt: skip
def test_other_names_are_refused_unless_asked_for(index, given):
    with pytest.raises(AlignkitError):
        requirement(read(index), given, unlisted=False)
    if given in ("wram", "numpy"):
        assert str(requirement(read(index), given, unlisted=True)) == given
    refused = call("install", "wram", "--index", index)
    assert refused.exit_code == 2
    assert "Did you mean 'warm'?" in refused.output


def test_the_command_is_shown_first_and_nothing_runs_without_a_yes(index, monkeypatch):
    ran = []
    monkeypatch.setattr(installing.subprocess, "run", lambda *a, **k: ran.append(a))
    said = call("install", "warm", "--index", index, input="n\n")
    assert f"$ {sys.executable} -m pip install alignkit-warm" in said.output
    assert ran == []


def test_without_pip_it_is_uv_and_without_both_the_remedy_is_said(monkeypatch):
    monkeypatch.setattr(installing, "find_spec", lambda name: None)
    monkeypatch.setattr(installing.shutil, "which", lambda name: "/bin/uv")
    words = installing.command(Requirement("warm"))
    assert words == ["/bin/uv", "pip", "install", "--python", sys.executable, "warm"]
    monkeypatch.setattr(installing.shutil, "which", lambda name: None)
    with pytest.raises(AlignkitError, match="ensurepip"):
        installing.command(Requirement("warm"))


def test_what_pip_cannot_do_is_an_error(capfd):
    words = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(AlignkitError, match="failed with status 3"):
        installing.installed(words, "warm")


def test_a_package_without_a_plugin_is_told(monkeypatch):
    with pytest.raises(AlignkitError, match="numpy is installed, but it has no plugin"):
        installing.installed([sys.executable, "-c", ""], "numpy")
    assert "offers" in installing.installed([sys.executable, "-c", ""], "AlignKit")


def test_describe_shows_how_to_cite_a_plugin(tmp_path):
    file = tmp_path / "cited.py"
    made = call("new-plugin", "cited", "--kind", "loss_type", "--file", "--dest", tmp_path)
    assert made.exit_code == 0, made.output
    before = call("describe", "loss_type", "cited", "-p", file).output
    assert "\nCite\n" not in before
    file.write_text(
        file.read_text() + '\n__citation__ = """\n  @misc{cited,\n    year = {2031}}\n"""\n'
    )
    words = [sys.executable, "-m", "alignkit", "describe", "loss_type", "cited", "-p", file]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "\nCite\n  @misc{cited,\n    year = {2031}}\n" in said
