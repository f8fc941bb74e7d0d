"""Components that raise, exit, fork or close what is not theirs: nothing that was done is lost."""

import itertools
import json

import pytest

pytestmark = pytest.mark.one_in(3)

NAMES = {
    "reward": "reward 'python'",
    "dataset": "dataset 'jsonl'",
    "prompt template": "prompt template 'question_only'",
    "rollout backend": "rollout backend 'hf'",
    "rollout backend sync": "rollout backend 'hf'",
    "rollout backend start": "rollout backend 'hf'",
    "advantage": "advantage 'group_std'",
    "loss": "loss 'grpo_clip'",
    "normalizer": "normalizer 'masked_mean'",
    "optimizer": "optimizer 'adamw'",
    "optimizer step": "optimizer 'adamw'",
    "tracker": "tracker 'jsonl'",
    "tracker start": "tracker 'jsonl'",
}
AT_WORK = [k for k in NAMES if not k.endswith(("start", "optimizer", "step", "tracker"))]
ENDS = {
    "ValueError": "ValueError: the judge is asleep",
    "StopIteration": "StopIteration: the judge is asleep",
    "OSError": "OSError: [Errno 5] the judge is asleep",
    "ENOSPC": "OSError: [Errno 28] the judge is asleep",
    "SystemExit": "SystemExit: 0",
    "SystemExit text": "SystemExit: the judge is asleep",
    "KeyboardInterrupt": "KeyboardInterrupt: the judge is asleep",
    "GeneratorExit": "GeneratorExit: the judge is asleep",
    "OtherError": "OtherError: the judge is asleep",
}
numbers = itertools.count()


def quick(*names, among=AT_WORK):
    """Return all cases, of which those not named are slow."""
    return [n if n in names else pytest.param(n, marks=pytest.mark.slow) for n in among]


def fail(faults, kind, how, at, *more, built=False):
    """Have a component do something at one of its calls; return the run's name and its words."""
    out = f"run-{next(numbers)}"
    status, said = faults.go(out, *more, kind=kind, how=how, at=at, built=built)
    assert status == 1, said
    assert faults.status(out) == "failed"
    return out, said


def checkpoints(faults, out):
    return sorted(p.name for p in (faults.folder / out / "checkpoints").glob("step_*"))


@pytest.mark.parametrize("share", quick(1.0, among=[0.0, 0.6, 1.0]))
@pytest.mark.parametrize("kind", quick("reward", "loss"))
def test_what_was_done_before_a_component_raised_is_saved_and_gone_on_with(faults, kind, share):
    calls, whole = faults.calls(kind)
    at = 1 + round(share * (calls - 1))
    out, said = fail(faults, kind, "ValueError", at)
    own = said.partition("nanobind: leaked")[0]  # triton prints that when the process is gone
    first = own.splitlines()[-6:]
    named = [s for s in first if s.startswith(f"{NAMES[kind]} raised ValueError: the judge is ")]
    assert len(named) == 1, said
    assert "faulty.py:" in named[0]
    assert "Traceback" not in said
    assert "Traceback" in (faults.folder / out / "error.txt").read_text()
    assert f"go on with: alignkit resume {out}" in said
    if share == 1.0:
        (newest,) = checkpoints(faults, out)
        assert newest.startswith(("step_000002", "step_000003"))
        assert f"saved after step {int(newest[5:11])}: {out}/checkpoints/{newest}" in said
    status, said = faults.go(out)
    assert status == 0, said
    assert faults.left(out) == whole
    assert not (faults.folder / out / "error.txt").exists()


@pytest.mark.parametrize("how", quick("SystemExit", "OtherError", among=ENDS))
@pytest.mark.parametrize("kind", quick("reward"))
def test_whatever_a_component_raises_the_status_is_1_and_its_error_comes_first(faults, kind, how):
    calls, whole = faults.calls(kind)
    out, said = fail(faults, kind, how, calls)
    assert f"{NAMES[kind]} raised {ENDS[how]} (" in said
    assert "saved after step" in said
    assert faults.go(out)[0] == 0
    assert faults.left(out) == whole


@pytest.mark.parametrize(
    "how", quick("SystemExit", among=["ValueError", "SystemExit", "GeneratorExit"])
)
@pytest.mark.parametrize("kind", ["rollout backend start", "tracker start", "optimizer"])
def test_a_component_that_fails_at_its_start_leaves_a_run_that_begins_anew(faults, kind, how):
    _, whole = faults.calls("reward")
    out, said = fail(faults, kind, how, 1)
    assert f"{NAMES[kind]} raised {how}: " in said
    assert "nothing is saved: resuming begins anew" in said
    assert faults.go(out)[0] == 0
    assert faults.left(out) == whole


def test_weights_that_a_failed_step_has_changed_are_not_saved(faults):
    """A checkpoint of them would not be what the run went through."""
    calls, whole = faults.calls("optimizer step")
    every = ("-s", "checkpoint.every=1")
    out, said = fail(faults, "optimizer step", "ValueError", calls, *every)
    assert "optimizer 'adamw' raised ValueError: the judge is asleep" in said
    assert "the weights had changed since the last point to resume from; saved after step 2" in said
    assert checkpoints(faults, out) == ["step_000001", "step_000002"]
    assert faults.go(out)[0] == 0
    assert faults.left(out) == whole


def test_a_batch_that_fails_beside_a_step_costs_no_update(faults):
    """Resumed, it is sampled by the weights it was to be sampled by."""
    more = ("-s", "pipeline_depth=1", "-s", "checkpoint.every=0")
    calls, whole = faults.calls("reward", *more)
    for at in (calls // 2, calls - 1, calls):
        out, said = fail(faults, "reward", "ValueError", at, *more)
        assert "reward 'python' raised ValueError: the judge is asleep" in said
        assert "the weights had changed" not in said
        assert "saved after step" in said
        assert faults.go(out)[0] == 0
        assert faults.left(out) == whole


@pytest.mark.parametrize("how", quick("SystemExit", among=ENDS))
@pytest.mark.parametrize("kind", ["tracker", "tracker close"])
def test_a_tracker_that_fails_is_let_go_and_ends_no_training(faults, kind, how):
    _, whole = faults.calls("reward")
    out = f"run-{next(numbers)}"
    status, said = faults.go(out, kind=kind, how=how, at=1)
    assert status == 0, said
    assert (
        said.count(f"warning: tracker 'jsonl' is told nothing more, since it raised {ENDS[how]}")
        == 1
    )
    assert "Traceback" not in said
    facts = json.loads((faults.folder / out / "manifest.json").read_text())
    assert facts["status"] == "done"
    [note] = facts["notes"]
    assert ENDS[how] in note
    assert faults.left(out) == whole


@pytest.mark.parametrize("kind", quick("reward"))
@pytest.mark.parametrize("how", ["close stdout", "close descriptor 1"])
def test_a_component_that_closes_stdout_does_not_end_a_run_as_if_it_were_done(faults, kind, how):
    out = f"run-{next(numbers)}"
    calls, whole = faults.calls(kind)
    status, said = faults.go(out, kind=kind, how=how, at=calls // 2)
    # 1 also for a run that is done, if the terminal did not get what it was told
    assert status == 1 or (status == 0 and faults.status(out) == "done"), said
    assert faults.go(out)[0] == 0
    assert faults.left(out) == whole


@pytest.mark.parametrize("kind", quick("reward"))
@pytest.mark.parametrize("how", ["fork", "fork and exit"])
def test_a_process_that_a_component_forks_is_not_the_run(faults, kind, how):
    out = f"run-{next(numbers)}"
    calls, whole = faults.calls(kind)
    status, said = faults.go(out, kind=kind, how=how, at=calls // 2)
    assert status == 0, said
    components = 2 if kind == "dataset" else 1  # the evaluation has one of its own
    assert said.count("was forked in a") == components
    assert faults.status(out) == "done"
    assert faults.left(out) == whole


def test_a_component_that_exits_while_it_is_built_leaves_nothing(faults):
    ways = itertools.product(("reward", "loss", "dataset"), ("SystemExit", "GeneratorExit"))
    for kind, how in ways:
        out = f"run-{next(numbers)}"
        status, said = faults.go(out, kind=kind, how=how, built=True)
        assert status in (1, 2), said
        assert not (faults.folder / out).exists()


@pytest.mark.parametrize("kind", ["reward", "dataset", "prompt template", "rollout backend"])
def test_a_call_that_fails_for_a_while_is_made_again(faults, kind):
    calls, whole = faults.calls(kind)
    out = f"run-{next(numbers)}"
    status, said = faults.go(out, kind=kind, how="TransientError", at=calls, times=2)
    assert status == 0, said
    word = NAMES[kind].partition(" '")[0]
    assert f"{word}: the judge is asleep; trying again in 0.01 s (1 of 2)" in said
    assert f"{word}: the judge is asleep; trying again in 0.02 s (2 of 2)" in said
    assert faults.left(out) == whole
    out = f"run-{next(numbers)}"
    status, said = faults.go(out, kind=kind, how="TransientError", at=calls, times=3)
    assert status == 1
    assert "the judge is asleep\n" in said
    assert "saved after step" in said
    assert json.loads((faults.folder / out / "manifest.json").read_text())["status"] == "failed"
    assert faults.go(out)[0] == 0
    assert faults.left(out) == whole


def test_a_tracker_that_fails_for_a_while_is_asked_again_and_then_let_go(faults):
    _, whole = faults.calls("tracker")
    for times in (2, 3):
        out = f"run-{next(numbers)}"
        status, said = faults.go(out, kind="tracker", how="TransientError", at=2, times=times)
        assert status == 0, said
        assert "tracker: the judge is asleep; trying again in 0.02 s (2 of 2)" in said
        assert ("tracker 'jsonl' is told nothing more" in said) == (times == 3)
        assert faults.left(out) == whole
