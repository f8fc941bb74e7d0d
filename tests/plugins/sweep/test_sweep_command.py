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


@pytest.mark.parametrize(
    ("typed", "seeds"),
    [("3", [0, 1, 2]), ("1", [0]), ("4,7", [4, 7]), ("5,", [5]), (" 0, 2", [0, 2])],
)
def test_seeds_of_the_command_line_replace_those_of_the_file_and_its_variants(
    place, registry, monkeypatch, typed, seeds
):
    monkeypatch.setattr(plugins, "load", lambda disable=(): registry)
    (place / "s.toml").write_text(
        'recipe = "toy.toml"\nseeds = [9]\n[variants.a]\nset.n = 6\n[variants.b]\nseeds = [8]\n'
    )
    done = call("sweep", "s.toml", "--list", "--seeds", typed)
    assert done.exit_code == 0, done.output
    names = [line.split()[0] for line in done.output.splitlines()[1:]]
    assert names == [f"{v}/seed_{s}" for v in "ab" for s in seeds]


SEEDS = ("0", "-1", "1,1", "x", "0,x", "1.5", ",", "100000", "9" * 5000)
HOURS = ("0", "-1", "nan", "inf")
WRONG = [*(("--seeds", typed) for typed in SEEDS), *(("--max-hours", typed) for typed in HOURS)]


@pytest.mark.parametrize(("option", "typed"), WRONG)
def test_seeds_and_budgets_that_are_none_are_refused(place, registry, monkeypatch, option, typed):
    monkeypatch.setattr(plugins, "load", lambda disable=(): registry)
    (place / "s.toml").write_text(TWO)
    done = call("sweep", "s.toml", "--list", option, typed)
    assert done.exit_code == 2, done.output
    assert option in done.output
    assert "-s --" not in done.output


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


def test_a_finished_sweep_ends_with_the_table_and_page_of_the_report_command(
    place, sweep, make, registry, monkeypatch
):
    make(sweep(TWO))
    (place / "out/else/seed_0").mkdir(parents=True)  # of another sweep, so not in this page
    (place / "out/else/seed_0/metrics.jsonl").write_text('{"step": 0, "eval/answer_reward": 1}\n')
    monkeypatch.setattr(plugins, "load", lambda disable=(): registry)
    done = call("sweep", "s.toml", "--out", "out")
    assert done.exit_code == 0, done.output
    heads, first, second, *_, last = done.output.splitlines()
    assert heads.split()[:2] == ["VARIANT", "RUNS"]
    assert (first.split()[:2], second.split()[:2]) == (["n=4", "2"], ["n=8", "2"])
    assert last == "report: out/report.html"
    page = (place / "out/report.html").read_text()
    assert "<h1>s</h1>" in page  # the sweep's title
    assert "else" not in page.partition("<script")[0]


def test_a_sweep_without_the_report_command_says_so_and_is_done(
    place, sweep, make, registry, monkeypatch
):
    make(sweep(TWO))
    del registry.offers["command", "report"]
    monkeypatch.setattr(plugins, "load", lambda disable=(): registry)
    done = call("sweep", "s.toml", "--out", "out")
    assert done.exit_code == 0, done.output
    assert "without alignkit report: unknown command 'report'" in done.output
    assert not (place / "out/report.html").exists()


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
from alignkit.plugin import Plugin
from alignkit.plugins import Registry
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
