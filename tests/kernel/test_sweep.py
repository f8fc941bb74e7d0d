"""Sweeps: what the variants are, that nothing is made twice, and how they continue each other."""

import fcntl
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tomli
from click.testing import CliRunner

from alignkit import plugins
from alignkit.cli import main
from alignkit.errors import AlignkitError, RecipeError
from alignkit.report.groups import flatten
from alignkit.sweep import runner
from alignkit.sweep.plans import Plans
from alignkit.sweep.stop import StopTable, diverged
from alignkit.sweep.variants import Sweep

BASE = 'use = "toy"\nn = 4\ngroup = 2\n[loss]\nuse = "clip"\ncliprange = 0.2\n'

CHILD = '''
"""Stands in for `alignkit run PLAN --out DIR`: a run whose accuracy peaks at n = 8."""
import json, os, sys, time, tomllib
from pathlib import Path

plan = tomllib.loads(Path(sys.argv[2]).read_text())
out = Path(sys.argv[4])
with open("journal", "a") as journal:
    journal.write(f"{out.parent.name}/{out.name}\\n")
out.mkdir(parents=True)
manifest = {"status": "running", "seed": plan["seed"]}
(out / "manifest.json").write_text(json.dumps(manifest))
fail = os.environ.get("CHILD") or plan["fail"]
if fail == "die":
    sys.exit("cannot go on: the moon is missing")
score = 1 - abs(plan["n"] - 8) / 10 + plan["seed"] / 100
with (out / "metrics.jsonl").open("w") as rows:
    for step in range(400 if fail in ("nan", "slow") else 3):
        loss = None if fail == "nan" and step else 0.5
        row = {"step": step, "time": step / 10, "train/loss": loss, "eval/answer_reward": score}
        rows.write(json.dumps(row) + "\\n")
        rows.flush()
        if fail:
            time.sleep(0.02)
(out / "final").mkdir()
(out / "recipe.toml").write_text(Path(sys.argv[2]).read_text())
(out / "manifest.json").write_text(json.dumps(manifest | {"status": "done", "seconds": 1.0}))
'''


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a recipe, a sweep file and a stand-in for the child process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "POLL", 0.01)
    (tmp_path / "toy.toml").write_text(BASE)
    (tmp_path / "child.py").write_text(CHILD)
    return tmp_path


@pytest.fixture
def sweep(place, registry):
    """Read a sweep file that holds the given text."""

    def read(text, **options):
        (place / "s.toml").write_text(text)
        return Sweep(place / "s.toml", registry, **options)

    return read


@pytest.fixture
def make(place):
    """Make the runs of a sweep; return the runner, with what it said and what was started."""

    def run(swept, only=(), say=None, jobs=1):
        said = []
        command = (sys.executable, "-IS", str(place / "child.py"))
        made = runner.Runner(Plans(swept, Path("out")), jobs, (), say or said.append, command)
        journal = place / "journal"
        journal.unlink(missing_ok=True)
        try:
            made.run(only)
        finally:
            made.said = said
            made.started = journal.read_text().split() if journal.exists() else []
        return made

    return run


def plan(place, run):
    return tomli.loads((place / "out" / f"{run}.toml").read_text())


# ---------------------------------------------------------------- variants


def test_a_grid_is_every_combination_and_variants_take_the_top_unless_they_say_their_own(sweep):
    swept = sweep(
        'recipe = "toy.toml"\nseeds = [0, 1]\n[grid]\nn = [4, 8]\nloss.cliprange = [0.1, 0.3]\n'
        "[variants.a]\n[variants.b]\ngrid.n = [6]\nseeds = [5]\n"
    )
    assert [v.name for v in swept.variants] == [
        "a/n=4,cliprange=0.1", "a/n=4,cliprange=0.3", "a/n=8,cliprange=0.1", "a/n=8,cliprange=0.3",
        "b",
    ]  # fmt: skip
    plans = {v.name: swept.plan(v) for v in swept.variants}
    assert plans["a/n=8,cliprange=0.1"]["n"] == 8
    assert plans["a/n=8,cliprange=0.1"]["loss"] == {"use": "clip", "cliprange": 0.1}
    assert (plans["b"]["n"], plans["b"]["seed"], plans["b"]["loss"]["cliprange"]) == (6, 5, 0.2)
    assert swept.variants[0].seeds == (0, 1)


def test_names_are_whole_only_where_they_would_clash(sweep):
    swept = sweep(
        'recipe = "toy.toml"\n[grid]\nloss.use = ["clip", "toys/plain"]\nn = [4]\ngroup = [1, 2]\n'
    )
    names = [v.name for v in swept.variants]
    assert names == ["loss=clip,group=1", "loss=clip,group=2",
                     "loss=toys_plain,group=1", "loss=toys_plain,group=2"]  # fmt: skip
    values = [flatten(swept.plan(v))["loss.use"] for v in swept.variants]
    assert values == ["clip", "clip", "toys/plain", "toys/plain"]


def test_values_change_a_table_whole_when_they_change_its_use(sweep):
    """As an overlay does: a cliprange left over from the recipe would not fit `plain`."""
    swept = sweep('recipe = "toy.toml"\n[variants.x.set]\nloss.use = "toys/plain"\n')
    assert swept.plan(swept.variants[0])["loss"] == {"use": "toys/plain"}


def test_factors_and_same_as_follow_the_recipe_below_them(sweep, place):
    (place / "big.toml").write_text("n = 40\n[loss]\ncliprange = 0.5\n")
    text = (
        'recipe = "toy.toml"\n[set]\nn = 10\n'
        "[factors]\nn = [0.5, 2]\nloss.cliprange = [0.3]\n[same_as]\ngroup = 'group'\n"
    )
    small, big = sweep(text), sweep(text, overlays=[place / "big.toml"])
    assert [v.name for v in small.variants] == ["n_x0.5", "n_x2"]
    # of the recipe's 4 and not of the 10 that is set; 0.2 * 0.3 is 0.06, not 0.06 and a bit
    assert [small.plan(v)["n"] for v in small.variants] == [2, 8]
    assert small.plan(small.variants[0])["loss"]["cliprange"] == 0.06
    assert [big.plan(v)["n"] for v in big.variants] == [20, 80]
    assert big.plan(big.variants[0])["loss"]["cliprange"] == 0.15


def test_same_as_takes_the_value_of_another_key(sweep):
    swept = sweep('recipe = "toy.toml"\n[same_as]\ngroup = "n"\n')
    assert swept.plan(swept.variants[0])["group"] == 4


def test_a_path_is_relative_to_the_sweep_file_it_stands_in(place, registry):
    (place / "deep").mkdir()
    (place / "deep/rows.txt").write_text("a b")
    (place / "deep/s.toml").write_text(
        'recipe = "../toy.toml"\n[set.eval.data]\nuse = "rows"\npath = "rows.txt"\n'
    )
    swept = Sweep(place / "deep/s.toml", registry)
    data = swept.plan(swept.variants[0])["eval"]["data"]
    assert data["path"] == str(place / "deep/rows.txt")


def test_a_shipped_recipe_is_found_from_anywhere(sweep):
    from alignkit.shipped import shipped

    with pytest.raises(RecipeError) as caught:  # there it is; these toys just do not know grpo
        sweep('recipe = "alignkit:recipes/grpo.toml"\n')
    assert caught.value.problems[0].origin.file == shipped() / "recipes/grpo.toml"


def test_the_command_line_is_laid_over_everything(sweep):
    text = 'recipe = "toy.toml"\n[variants.a.set]\nn = 8\n[variants.b.set]\nn = 6\nfail = "x"\n'
    swept = sweep(text, overrides=["n=2"])
    assert [swept.plan(v)["n"] for v in swept.variants] == [2, 2]


PROBLEMS = [
    ("seed = [0]\n", "s.toml:2: seed: a sweep takes no 'seed' here. Did you mean 'seeds'?"),
    ("stop.step = 1\n", "s.toml:2: stop.step: a sweep takes no 'step' here. Did you mean 'steps'?"),
    ("seeds = [1, 1]\n", "s.toml:2: seeds: a seed stands twice in [1, 1]"),
    ('seeds = "x"\n', "s.toml:2: seeds: Input should be a valid array"),
    ("[set]\nloss.use = 'cli'\n", "s.toml:3: loss.use: unknown loss_type 'cli'. Did you mean"),
    ("[grid]\nnn = [1]\n", "s.toml:3: nn: 'toy' takes no 'nn'. Did you mean 'n'?"),
    ("[grid]\nn = 3\n", "s.toml:3: grid.n: expected an array of values, got 3"),
    ("[grid]\nn = [5]\n", "toy.toml:3: group: 2 does not divide n = 5"),
    ("[factors]\nn = [0.3]\n", "s.toml:3: n: 0.3 times the recipe's 4 is no such number"),
    ("[factors]\nuse = [2]\n", "s.toml:3: use: 2 times the recipe's 'toy' is no such number"),
    ("[factors]\nseed = [2]\n", "s.toml:3: seed: this is relative to 'seed', which toy.toml does"),
    ("[same_as]\nn = 'm'\n", "s.toml:3: n: this is relative to 'm', which toy.toml does not set"),
    ("with = ['no.toml']\n", "s.toml:2: with: no such file: no.toml (looked for "),
    ("[variants.a]\nbest_of = 'b'\n[variants.b]\n", "no variant 'b' stands above this one; above:"),
    ("[variants.a]\n[variants.b]\n", "s.toml:3: variants.b: 'b' and 'a' are the same run"),
    ("[variants.'../x']\n", "variants.../x: '../x' names a folder: use letters, digits"),
    ("[grid]\nfail = ['a b', 'a+b', 'a_b']\n", "two variants would have the same folder"),
]


@pytest.mark.parametrize(("text", "message"), PROBLEMS)
def test_a_wrong_sweep_says_where_and_what(sweep, text, message):
    with pytest.raises(RecipeError) as caught:
        sweep('recipe = "toy.toml"\n' + text)
    assert message in str(caught.value)


def test_all_problems_of_all_variants_are_told_at_once_and_each_once(sweep):
    with pytest.raises(RecipeError) as caught:
        sweep(
            'recipe = "toy.toml"\n[set]\nbogus = 1\n'
            '[variants.a.set]\nn = "x"\n[variants.b.set]\nloss.cliprange = -1\n'
        )
    found = [str(p).partition(": ")[0] for p in caught.value.problems]
    assert found == ["s.toml:3", "s.toml:5", "s.toml:7"]


def test_a_recipe_is_needed_and_must_be_there(sweep):
    with pytest.raises(RecipeError, match='there is no line recipe = "FILE'):
        sweep("seeds = [1]\n")
    with pytest.raises(RecipeError, match=r"s.toml:1: recipe: no such file: moon.toml"):
        sweep('recipe = "moon.toml"\n')


# ---------------------------------------------------------------- runs

TWO = 'recipe = "toy.toml"\nseeds = [0, 1]\n[grid]\nn = [4, 8]\n'


def test_each_run_is_a_run_directory_of_its_own(sweep, make, place):
    made = make(sweep(TWO))
    assert made.failures == []
    assert sorted(made.started) == ["n=4/seed_0", "n=4/seed_1", "n=8/seed_0", "n=8/seed_1"]
    assert (plan(place, "n=8/seed_1")["n"], plan(place, "n=8/seed_1")["seed"]) == (8, 1)
    assert [r.series("eval/answer_reward")[-1][1] for r in made.plans.finished()] == [
        0.6, 0.61, 1.0, 1.01,
    ]  # fmt: skip


def test_a_second_call_starts_nothing(sweep, make):
    make(sweep(TWO))
    assert make(sweep(TWO)).started == []


def test_only_what_is_missing_is_made_and_a_half_finished_run_is_kept_aside(sweep, make, place):
    make(sweep(TWO))
    half = place / "out/n=4/seed_1"
    (half / "manifest.json").write_text('{"status": "running"}')
    (half / "metrics.jsonl").write_text('{"step": 0}\n{"st')
    again = make(sweep(TWO.replace("[4, 8]", "[4, 8, 6]")))
    assert again.started == ["n=4/seed_1", "n=6/seed_0", "n=6/seed_1"]
    aside = place / "out/.aside/n=4-seed_1-1"
    assert (aside / "metrics.jsonl").read_text() == '{"step": 0}\n{"st'
    assert "cannot go on as it began" in again.said[0]
    assert "begins anew" in again.said[1]
    assert json.loads((half / "manifest.json").read_text())["status"] == "done"


def test_an_interrupted_sweep_ends_its_children_and_goes_on_later(sweep, make, place, monkeypatch):
    def interrupt(line):
        if "seed_0: done" in line:
            monkeypatch.setenv("CHILD", "slow")  # eight seconds, if it were left alone
        if "seed_1: started" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(sweep(TWO), say=interrupt)
    with (place / "out/.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no child holds it any more
    monkeypatch.delenv("CHILD")
    assert make(sweep(TWO)).started == ["n=4/seed_1", "n=8/seed_0", "n=8/seed_1"]


def test_a_run_that_a_killed_sweep_left_behind_is_waited_for(sweep, make, place):
    (place / "out").mkdir()
    code = (
        "import fcntl, sys, time; f = open('out/.lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(0.5)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        made = make(sweep(TWO))
        assert other.poll() is not None or other.wait(1) == 0
    assert made.said[0].startswith("waiting: another sweep")
    assert len(made.started) == 4


def test_runs_side_by_side_each_run_once(sweep, make):
    made = make(sweep(TWO), jobs=3)
    assert sorted(made.started) == ["n=4/seed_0", "n=4/seed_1", "n=8/seed_0", "n=8/seed_1"]


def test_a_sweep_tells_now_and_then_how_far_its_runs_are(sweep, make, monkeypatch):
    monkeypatch.setattr(runner, "HEARTBEAT", 0.0)
    made = make(sweep('recipe = "toy.toml"\n[set]\nfail = "brief"\n'))
    assert "s/seed_own: step 1, eval/answer_reward 0.600" in made.said
    assert made.said[-1] == "s/seed_own: done, step 2, eval/answer_reward 0.600"


def test_a_failed_run_is_told_with_its_last_words_tried_again_and_stops_no_other(sweep, make):
    text = 'recipe = "toy.toml"\n[variants.bad.set]\nfail = "die"\n[variants.good]\n'
    made = make(sweep(text))
    assert made.started == ["bad/seed_own", "good/seed_own"]
    assert len(made.failures) == 1
    assert "bad/seed_own: ended with status 1" in made.failures[0]
    assert "cannot go on: the moon is missing" in made.failures[0]
    assert make(sweep(text)).started == ["bad/seed_own"]


def test_a_finished_run_of_another_plan_is_refused_before_anything_starts(sweep, make, place):
    make(sweep(TWO))
    with pytest.raises(AlignkitError, match=r"n=4/seed_0 was made with another plan \(fail was"):
        make(sweep(TWO + "[set]\nfail = 'slow'\n"))
    assert not (place / "journal").exists()


def test_only_takes_what_a_variant_continues_from_along(sweep, make):
    text = CHAIN + "[variants.other.set]\nfail = 'slow'\n"
    made = make(sweep(text), only=["next"])
    assert made.started == ["n=4/seed_0", "n=8/seed_0", "n=14/seed_0", "next/seed_0"]
    with pytest.raises(AlignkitError, match=r"no variant matches 'nxt'. Did you mean 'next'\?"):
        make(sweep(text), only=["nxt"])


def test_what_the_machine_lacks_is_told_once_before_anything_starts(sweep, make, place):
    swept = sweep(TWO + '[set.policy]\nuse = "needy"\n')
    with pytest.raises(RecipeError) as caught:
        make(swept)
    assert str(caught.value).count("needs a moon") == 1
    assert not (place / "out").exists()


# ---------------------------------------------------------------- continuing

CHAIN = (
    'recipe = "toy.toml"\nseeds = [0]\n[variants.first]\ngrid.n = [4, 8, 14]\nset.group = 1\n'
    '[variants.next]\nbest_of = "first"\nset.loss.cliprange = 0.4\n'
)


def test_a_variant_takes_over_the_settings_of_the_best(sweep, make, place):
    made = make(sweep(CHAIN))
    found = plan(place, "next/seed_0")
    assert (found["n"], found["group"], found["loss"]["cliprange"]) == (8, 1, 0.4)
    assert "next takes over the settings of first/n=8" in made.said


def test_the_best_may_be_the_least(sweep, make, place):
    make(sweep('goal = "min"\n' + CHAIN))
    assert plan(place, "next/seed_0")["n"] == 14  # 1 - 6/10, below 1 - 4/10


def test_winners_are_passed_on(sweep, make, place):
    make(sweep(CHAIN + '[variants.last]\nbest_of = "next"\nset.seed = 0\nset.fail = ""\n'))
    found = plan(place, "last/seed_0")
    assert (found["n"], found["group"], found["loss"]["cliprange"]) == (8, 1, 0.4)


def test_a_variant_with_a_diverged_run_is_not_the_best(sweep, make, place):
    text = CHAIN.replace("set.group = 1", "set.group = 1\nset.fail = ''")
    make(sweep(text), only=["first"])
    note = {"status": "diverged", "reason": "lost"}
    (place / "out/first/n=8/seed_0/stopped.json").write_text(json.dumps(note))
    manifest = place / "out/first/n=8/seed_0/manifest.json"
    manifest.write_text('{"status": "running", "seed": 0}')
    make(sweep(text))
    assert plan(place, "next/seed_0")["n"] == 4


def test_a_variant_starts_from_the_weights_of_the_same_seed(sweep, make, place):
    text = (
        'recipe = "toy.toml"\n[variants.sft]\nseeds = [0, 1]\n'
        '[variants.rl]\nseeds = [1, 2]\nstart_from = "sft"\nset.policy.use = "weights"\n'
        'set.policy.path = "hub/name"\n'
    )
    make(sweep(text))
    ends = [plan(place, f"rl/seed_{s}")["policy"]["path"] for s in (1, 2)]
    # seed 2 has no namesake, so it takes the first there is
    assert ends == [str(place / f"out/sft/seed_{s}/final") for s in (1, 0)]


def test_what_cannot_continue_is_told(sweep, make):
    text = CHAIN.replace("set.group = 1", "set.fail = 'die'")
    made = make(sweep(text))
    assert len(made.failures) == 4
    assert "no run of 'first' logged eval/answer_reward" in made.failures[-1]


# ---------------------------------------------------------------- giving up


def rows(rewards, losses=None):
    losses = losses or [0.1] * len(rewards)
    return [
        {"step": i, "train/reward": r, "train/loss": x}
        for i, (r, x) in enumerate(zip(rewards, losses, strict=True))
    ]


def test_a_run_diverges_when_the_loss_is_lost_for_some_steps_in_a_row():
    stop = StopTable(nonfinite_steps=2)
    assert diverged(rows([0.5] * 4, [0.1, None, 0.1, None]), stop) == ""
    assert "not finite for 2 steps, to step 3" in diverged(
        rows([0.5] * 4, [0.1, 0.1, None, None]), stop
    )
    assert diverged(rows([0.5] * 3, [None] * 3), StopTable(nonfinite_steps=0)) == ""


def test_an_evaluation_row_without_a_loss_is_no_lost_loss():
    stop = StopTable(nonfinite_steps=1)
    assert diverged([{"step": 0, "eval/answer_reward": 0.3}], stop) == ""


def test_a_run_diverges_when_its_reward_collapses_but_not_when_it_starts_slowly():
    stop = StopTable(steps=2, fraction=0.1)
    assert diverged(rows([0.0] * 20), stop) == ""
    assert diverged(rows([0.0, 0.0, 0.0, 0.4, 0.4]), stop) == ""
    # means of two: 0.4, 0.4, 0.2, 0.02; the last against the best of those before it began
    assert "fell from 0.4 to 0.02 at step 4" in diverged(rows([0.4, 0.4, 0.4, 0.0, 0.04]), stop)
    assert diverged(rows([0.4, 0.4, 0.4, 0.0, 0.1]), stop) == ""  # 0.05 is above a tenth
    assert diverged(rows([0.4, 0.4, 0.4, 0.0, 0.0]), StopTable(steps=2, fraction=0)) == ""


def test_a_diverged_run_is_stopped_logged_and_not_made_again(sweep, make, place):
    text = 'recipe = "toy.toml"\n[set]\nfail = "nan"\n[stop]\nnonfinite_steps = 3\n'
    made = make(sweep(text))
    (run,) = made.plans.finished()
    assert run.status == "diverged"
    assert len(run.rows) < 400  # ended early
    assert "not finite for 3 steps" in run.reason
    assert made.failures == []
    assert make(sweep(text)).started == []


def test_a_run_is_stopped_when_its_time_is_over(sweep, make):
    text = f'recipe = "toy.toml"\nmax_hours = {0.3 / 3600}\n[set]\nfail = "slow"\n'
    made = make(sweep(text))
    (run,) = made.plans.finished()
    assert run.status == "out of time"
    assert make(sweep(text)).started == []


def test_a_run_may_be_stopped_before_it_has_a_directory(sweep, make):
    made = make(sweep('recipe = "toy.toml"\nmax_hours = 1e-9\n'))
    assert [r.status for r in made.plans.finished()] == ["out of time"]
    assert made.failures == []


def test_a_sweep_may_run_off_the_main_thread(sweep, make):
    """Signal handlers may not be set there."""
    swept, made = sweep(TWO), []
    thread = threading.Thread(target=lambda: made.append(make(swept)))
    thread.start()
    thread.join()
    assert len(made[0].started) == 4


# ---------------------------------------------------------------- command


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
from alignkit.sweep import runner
from alignkit.sweep.plans import Plans
from alignkit.sweep.variants import Sweep

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
    command = [sys.executable, "driver.py", str(Path(__file__).with_name("conftest.py"))]
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
