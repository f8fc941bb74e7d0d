"""`alignkit sweep`, and what is left of one that is killed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignkit import plugins
from alignkit.cli import main

TWO = 'recipe = "toy.toml"\nseeds = [0, 1]\n[grid]\nn = [4, 8]\n'


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def test_the_command_lists_without_running(place, registry, monkeypatch):
    monkeypatch.setattr(plugins, "load", lambda disable=(): registry)
    (place / "s.toml").write_text(TWO)
    done = call("sweep", "s.toml", "--list", "--only", "n=8")
    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.output.splitlines()] == [
        ["RUN", "STATE", "SETTINGS"],
        ["n=8/seed_0", "missing", "n", "=", "8"],
        ["n=8/seed_1", "missing", "n", "=", "8"],
    ]
    assert not (place / "runs").exists()
    wrong = call("sweep", "s.toml", "-s", "n=x")
    assert wrong.exit_code == 2
    assert "Traceback" not in wrong.output


def test_the_command_runs_alignkit_and_fails_with_status_1_when_a_run_does(
    place, registry, monkeypatch
):
    """The children are the real command, which knows no algorithm called toy."""
    monkeypatch.setattr(plugins, "load", lambda disable=(): registry)
    (place / "s.toml").write_text('recipe = "toy.toml"\n')
    done = call("sweep", "s.toml")
    assert done.exit_code == 1, done.output
    assert "unknown algorithm 'toy'" in done.output
    assert Path("runs/s/s/seed_own.log").is_file()


# ---------------------------------------------------------------- kills

DRIVER = '''
"""Makes the runs of s.toml with the components of the test's own registry."""
import sys
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

spec = spec_from_file_location("toys", sys.argv[1])
toys = sys.modules["toys"] = module_from_spec(spec)
spec.loader.exec_module(toys)
from alignkit.plugins import Plugin, Registry
from alignkit_sweep import runner
from alignkit_sweep.plans import Plans
from alignkit_sweep.variants import Sweep

plugin = Plugin("toys", "alignkit-toys", "1.0", "toys")
offers = {(kind, c.name): [(plugin, c)] for kind, all in toys.COMPONENTS.items() for c in all}
swept = Sweep(Path("s.toml"), Registry([plugin], offers))
runner.POLL = 0.01
command = (sys.executable, "-IS", "child.py")
made = runner.Runner(Plans(swept, Path("out")), 2, (), partial(print, flush=True), command)
made.run()
assert made.failures == [], made.failures
'''


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_called_again_a_sweep_makes_every_run_and_none_twice(place, kill):
    """SIGKILL leaves children behind: they are waited for, and what they finish counts."""
    seeds = list(range(6))
    (place / "s.toml").write_text(f'recipe = "toy.toml"\nseeds = {seeds}\n[set]\nfail = "brief"\n')
    (place / "driver.py").write_text(DRIVER)
    command = [sys.executable, "driver.py", str(Path(__file__).parents[2] / "fixtures" / "toys.py")]
    finished: set[Path] = set()
    for runs in (1, 3, 6):
        before = {p: p.stat().st_mtime_ns for p in finished}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sweep:
            done = 0
            while done < runs and (line := sweep.stdout.readline()):
                done += ": done" in line
            if runs < len(seeds):
                sweep.send_signal(kill)
        assert {p: p.stat().st_mtime_ns for p in before} == before  # not made again
        found = (place / "out").glob("*/seed_*/manifest.json")
        finished = {p for p in found if json.loads(p.read_text())["status"] == "done"}
    assert len(finished) == len(seeds)
