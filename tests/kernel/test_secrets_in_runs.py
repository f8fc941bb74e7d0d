"""Secrets planted in recipe, command line and errors are in no file of the run; code is named."""

import hashlib
import json

import pytest
import tomli

from alignkit import Component, Params, RecipePath, recipe
from alignkit.errors import AlignkitError, RunFailed
from alignkit.execution import execute
from alignkit.plugin import Plugin
from alignkit.plugins import Registry
from alignkit.protocols import Algorithm
from alignkit.resume import resume
from alignkit.security import secrets

PLANTED = ["planted-one", "planted-two", "sk-planted3456789012345", "planted-four", "planted-five"]


class JudgeRun:
    def __init__(self, keys):
        self.keys = keys

    def run(self, run):
        run.lines = []
        run.printer = run.lines.append
        run.say(f"asking {self.keys.url}")
        assert "planted" not in "".join(run.lines)
        run.log(0, {"x": 1.0})
        if self.keys.fails == "error":
            raise AlignkitError(f"{self.keys.url} says 401 to api_key={self.keys.api_key}")
        if self.keys.fails == "crash":
            raise RuntimeError(f"refused {self.keys.note} with password='{self.keys.api_key}'")
        return {"x": 1.0}


class Judge(Params[Algorithm]):
    """An algorithm that asks somebody else."""

    api_key: str = ""
    """A key."""
    url: str = "http://host"
    """Where."""
    note: str = ""
    """Anything."""
    max_tokens: int = 3
    """No secret."""
    fails: str = ""
    """How."""
    file: RecipePath | None = None
    """Code."""

    def code(self):
        return [self.file] if self.file else []

    def facts(self, tables):
        return {"judge": self.url}

    def build(self) -> Algorithm:
        return JudgeRun(self)


@pytest.fixture
def registry():
    plugin = Plugin("judge", "alignkit-judge", "1.0", "judge")
    return Registry([plugin], {("algorithm", "judge"): [(plugin, Component("judge", Judge))]})


@pytest.fixture
def start(tmp_path, registry, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTHER_API_KEY", "planted-five")
    (tmp_path / "judge.toml").write_text(
        'use = "judge"\napi_key = "planted-one"\nurl = "http://me:planted-two@host/v1"\n'
        'note = "sk-planted3456789012345"\n'
    )

    def begin(*overrides):
        node = recipe.load(tmp_path / "judge.toml", registry, (), overrides)
        command = ["alignkit", "run", "--api-key", "planted-four", "-s", "note=planted-five"]
        return execute(node, tmp_path / "judge.toml", tmp_path / "out", command)

    return begin


def written(folder):
    return {p.name: p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("fails", ["", "error", "crash"])
def test_no_file_of_a_run_holds_a_secret(start, tmp_path, fails, capsys):
    try:
        start(f"fails={fails}")
        message = ""
    except RunFailed as error:
        message = str(error)
    files = written(tmp_path / "out")
    assert {"recipe.toml", "manifest.json", "metrics.jsonl"} <= files.keys()
    assert ("error.txt" in files) == (fails == "crash")
    out, err = capsys.readouterr()
    for name, text in (files | {"stdout": out, "stderr": err}).items():
        assert not [s for s in PLANTED if s in text], name
    if fails == "crash":
        assert not [s for s in PLANTED if s in message]
        assert "RuntimeError: refused <redacted> with password='<redacted>'" in files["error.txt"]
    assert "max_tokens = 3" in files["recipe.toml"]
    command = json.loads(files["manifest.json"])["command"]
    assert command == ["alignkit", "run", "--api-key", "<redacted>", "-s", "note=<redacted>"]


def test_a_resumed_run_asks_for_the_secrets_that_its_record_lacks(start, tmp_path, registry):
    with pytest.raises(RunFailed):
        start("fails=error", "note=")
    with pytest.raises(AlignkitError, match=r"give them again: -s api_key=… -s url=…"):
        resume(tmp_path / "out", registry, [])
    with pytest.raises(AlignkitError, match="-s cannot change max_tokens"):
        resume(tmp_path / "out", registry, [], overrides=["max_tokens=4"])
    given = ["api_key=planted-one", "url=http://me:planted-two@host/v1"]
    with pytest.raises(RunFailed, match="says 401"):  # the recipe says that it fails
        resume(tmp_path / "out", registry, ["resume", "-s", *given], overrides=given)
    for name, text in written(tmp_path / "out").items():
        assert not [s for s in PLANTED if s in text], name


NAMES = ["sk-learn-experiments-2024", "hf_ABCDEFGHIJKLMNOPqrst", "glpat-0123456789abcdefghij"]


@pytest.mark.parametrize("name", [*NAMES, "judge-password-file"])
def test_paths_and_names_of_components_are_recorded_as_they_are(
    start, tmp_path, registry, monkeypatch, name
):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "mine.py").write_text("")
    monkeypatch.setenv("DB_PASSWORD", "judge" if name in NAMES else name)  # a component's name
    monkeypatch.setattr(secrets, "SHORTEST", 4)
    with pytest.raises(RunFailed):
        start(f'file="{name}/mine.py"', "fails=error", "api_key=", "url=http://host", "note=")
    files = written(tmp_path / "out")
    assert tomli.loads(files["recipe.toml"])["file"] == str(folder / "mine.py")
    assert tomli.loads(files["recipe.toml"])["use"] == "judge"
    [component] = json.loads(files["manifest.json"])["components"]
    assert (component["use"], component["plugin"]) == ("judge", "judge")
    with pytest.raises(RunFailed, match="says 401"):  # the run is resumed
        resume(tmp_path / "out", registry, [])


def test_what_is_left_out_is_said_and_noted(start, tmp_path, capsys):
    with pytest.raises(RunFailed):
        start("fails=error")
    note = (
        "recipe.toml does not keep the secrets of api_key, url, note; resuming asks for them again"
    )
    assert note in capsys.readouterr().out
    assert json.loads((tmp_path / "out/manifest.json").read_text())["notes"] == [note]


def test_foreign_code_is_named_with_its_sum_before_anything_is_built(
    start, tmp_path, monkeypatch, capsys
):
    code = tmp_path / "mine.py"
    code.write_text("print('hello')\n")
    monkeypatch.setattr(Judge, "build", lambda self: (_ for _ in ()).throw(AlignkitError("no")))
    with pytest.raises(AlignkitError, match="no"):
        start('file="mine.py"')
    total = hashlib.sha256(b"print('hello')\n").hexdigest()[:16]
    assert capsys.readouterr().out == (
        f"this recipe runs code of: plugin judge (alignkit-judge 1.0); mine.py (sha256 {total})\n"
    )
    assert not (tmp_path / "out").exists()


def test_foreign_code_is_in_the_manifest(start, tmp_path):
    start()
    facts = json.loads((tmp_path / "out/manifest.json").read_text())
    assert facts["foreign_code"] == ["plugin judge (alignkit-judge 1.0)"]
