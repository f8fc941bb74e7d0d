"""Signals before a run listens: while modules and plugins load, and its directory is made."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import alignkit_losses

PLUGINS = Path(alignkit_losses.__file__).parents[1]
COMMAND = """
import os, signal, sys

def watch(event, given):
    path = given[1] if event == "os.rename" else given[0] if given else ""
    if AT in f"{event} {path}." and not sent:
        sent.append(1)
        os.kill(os.getpid(), NUMBER)

AT, NUMBER, sent = sys.argv.pop(1), int(sys.argv.pop(1)), []
sys.addaudithook(watch)
from alignkit.__main__ import main
main()
"""
"""Runs alignkit, and sends it a signal at the first event of the interpreter described so."""

TOY = '''
"""An algorithm without a model; it imports what else nobody does."""
import colorsys
from alignkit import Component, Params, hookimpl
from alignkit.protocols import Algorithm

class Toy(Params[Algorithm]):
    """Logs a row."""

    def check(self, tables):
        import tabnanny
        return ()

    def build(self) -> Algorithm:
        import nturl2path
        return self

    def run(self, run):
        run.log(0, {"eval/reward": 1.0})
        return {}

@hookimpl
def algorithm():
    yield Component("toy", Toy)
'''

BEFORE = {
    "the command": "import click.",
    "its parameters": "import pydantic.",
    "a built-in plugin": "open {plugins}/alignkit_losses/",
    "a plugin file": "import colorsys.",
    "the check": "import tabnanny.",
    "the building": "import nturl2path.",
}
WHILE_MADE = {
    "the directory": "os.mkdir {out}.",
    "the lock": "open {out}/.lock.",
    "the checksums": "os.rename {out}/fingerprint.json.",
    "the manifest": "os.rename {out}/manifest.json.",
    "the recipe": "os.rename {out}/recipe.toml.",
    "the metrics": "open {out}/metrics.jsonl.",
}
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


def each_signal(moments):
    """Pair every moment with a signal, and in the slow tests with three others."""
    for i, name in enumerate(moments):
        for sent in dict.fromkeys((SIGNALS[i], *SIGNALS[:3])):
            marks = () if sent == SIGNALS[i] else pytest.mark.slow
            yield pytest.param(moments[name], sent, marks=marks, id=f"{name}-{sent}")


@pytest.fixture
def send(tmp_path):
    """Run a command that is sent a signal at a moment."""
    (tmp_path / "toys.py").write_text(TOY)
    (tmp_path / "toy.toml").write_text('use = "toy"\n')

    def usual():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's & ignores it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup does

    def go(at, name, *words, before=usual):
        at = at.format(out=tmp_path / "out", plugins=PLUGINS)
        number = str(int(getattr(signal, name)))
        command = [sys.executable, "-c", COMMAND, at, number, *words]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, preexec_fn=before, check=False
        )

    return go


def last_line(done):
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


RUN = ("run", "toy.toml", "-p", "toys.py", "--out", "out")
RESUME = ("resume", "out")
NEVER = "import nothing_that_exists"


@pytest.mark.parametrize(("at", "name"), [*each_signal(BEFORE)])
def test_a_signal_before_there_is_a_run_ends_the_process_at_once(send, tmp_path, at, name):
    done = send(at, name, *RUN)
    assert done.returncode == 128 + getattr(signal, name)
    assert last_line(done) == f"interrupted by {name}; nothing was written"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("at", "name"), [*each_signal(WHILE_MADE)])
def test_a_signal_while_the_directory_is_made_leaves_a_run_to_resume(send, tmp_path, at, name):
    out = tmp_path / "out"
    done = send(at, name, *RUN)
    assert done.returncode == 128 + getattr(signal, name), done.stderr
    assert last_line(done) == f"interrupted by {name}; go on with: alignkit resume out"
    assert json.loads((out / "manifest.json").read_text())["status"] == "interrupted"
    assert send(NEVER, name, *RESUME).returncode == 0
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(("saved", "status"), [(True, 75), (False, 138)], ids=["saved", "unsaved"])
def test_a_run_that_is_stopped_while_it_resumes_can_still_be_resumed(send, tmp_path, saved, status):
    out = tmp_path / "out"
    send(WHILE_MADE["the metrics"], "SIGTERM", *RUN)
    if saved:
        (out / "checkpoints" / "step_000001").mkdir(parents=True)
    left = (out / "manifest.json").read_bytes()
    done = send(BEFORE["its parameters"], "SIGUSR1", *RESUME)
    assert done.returncode == status, done.stderr
    assert done.stderr.endswith("by SIGUSR1; nothing was written\n")
    assert (out / "manifest.json").read_bytes() == left


def test_a_signal_that_the_process_was_started_to_ignore_stays_ignored(send):
    def nohup():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    assert send(BEFORE["its parameters"], "SIGHUP", *RUN, before=nohup).returncode == 0


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", -signal.SIGTERM)])
def test_other_commands_end_as_programs_do(send, name, status):
    done = send(BEFORE["a built-in plugin"], name, "list-plugins")
    assert done.returncode == status
    assert "Traceback" not in done.stderr
