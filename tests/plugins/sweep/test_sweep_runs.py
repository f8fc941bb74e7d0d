"""The runs of a sweep: nothing is made twice, and how they continue each other."""

import fcntl
import json
import subprocess
import sys
import threading

import pytest
import tomli

from alignkit.errors import AlignkitError, RecipeError
from alignkit_sweep import runner


def plan(place, run):
    return tomli.loads((place / "out" / f"{run}.toml").read_text())


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


def test_a_sweep_may_run_off_the_main_thread(sweep, make):
    """Signal handlers may not be set there."""
    swept, made = sweep(TWO), []
    thread = threading.Thread(target=lambda: made.append(make(swept)))
    thread.start()
    thread.join()
    assert len(made[0].started) == 4


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


def test_a_table_of_one_variant_is_the_best_whatever_it_logs(sweep, make, place):
    text = (
        'recipe = "toy.toml"\nmetric = "eval/of_another_recipe"\nseeds = [0]\n'
        '[variants.sft]\n[variants.rl]\nstart_from = "sft"\nset.policy.use = "weights"\n'
        'set.policy.path = "hub/name"\n'
    )
    made = make(sweep(text))
    assert not made.failures
    assert plan(place, "rl/seed_0")["policy"]["path"] == str(place / "out/sft/seed_0/final")


def test_what_cannot_continue_is_told(sweep, make):
    text = CHAIN.replace("set.group = 1", "set.fail = 'die'")
    made = make(sweep(text))
    assert len(made.failures) == 4
    assert "no run of 'first' logged eval/answer_reward" in made.failures[-1]
