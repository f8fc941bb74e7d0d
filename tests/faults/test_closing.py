"""A reward that holds something is closed with its run, however that ends."""

import json

import pytest

from alignkit.errors import AlignkitError, RunFailed
from alignkit.execution import Run
from alignkit.lifecycle.signals import Interrupted
from alignkit_rewards import Python

EVALUATED = """
[eval]
n = 2
[eval.data]
use = "jsonl"
path = "rows.jsonl"
[eval.reward]
use = "python"
file = "judge.py"
"""


class Held:
    """A reward, and how often it was closed."""

    def __init__(self, inner, fault):
        self.inner, self.fault, self.closed, self.calls = inner, fault, 0, 0

    def __call__(self, responses, examples):
        assert not self.closed
        self.calls += 1
        if self.calls == self.fault.get("call"):
            raise self.fault["error"]
        return self.inner(responses, examples)

    def close(self):
        self.closed += 1
        if error := self.fault.get("close"):
            raise error


@pytest.fixture
def held(monkeypatch):
    """Have each python reward note when it is closed; return them as they are made."""
    made, fault, build = [], {}, Python.build

    def building(self):
        made.append(Held(build(self), fault))
        return made[-1]

    monkeypatch.setattr(Python, "build", building)
    made_with = fault
    return made, made_with


def stop_at(monkeypatch, step, status):
    log = Run.log

    def interrupted(self, logged, metrics):
        log(self, logged, metrics)
        if logged == step:
            raise Interrupted("a limit", status)

    monkeypatch.setattr(Run, "log", interrupted)


def state(runs):
    return json.loads((runs.folder / "run/manifest.json").read_text())["status"]


@pytest.mark.parametrize("end", ["done", "failed", "stopped", "interrupted"])
def test_rewards_are_closed_once_however_the_run_ends(runs, grpo, held, monkeypatch, end):
    made, fault = held
    if end == "failed":
        fault.update(call=2, error=SystemExit(0))
        with pytest.raises(RunFailed):
            runs.start(grpo + EVALUATED)
    elif end == "done":
        runs.start(grpo + EVALUATED)
    else:
        stop_at(monkeypatch, 2, {"stopped": 75, "interrupted": 143}[end])
        with pytest.raises(Interrupted):
            runs.start(grpo + EVALUATED)
    assert state(runs) == end
    assert [reward.closed for reward in made] == [1, 1]


def test_a_reward_of_sft_and_one_that_no_step_has_asked_yet_are_closed_too(runs, sft, held):
    made, _ = held
    reward = '[reward]\nuse = "python"\nfile = "judge.py"\n'
    runs.start(sft + reward)
    assert [(r.calls, r.closed) for r in made] == [(0, 1)]


def test_an_error_of_closing_fails_a_run_that_was_well_and_hides_no_other(runs, grpo, held, caplog):
    made, fault = held
    fault.update(close=ValueError("it does not let go"))
    with pytest.raises(AlignkitError, match="reward 'python' raised ValueError: it does not let"):
        runs.start(grpo)
    assert state(runs) == "failed"
    fault.update(call=2, error=KeyError("first"))
    with pytest.raises(AlignkitError, match="reward 'python' raised KeyError: 'first'"):
        runs.start(grpo, out="second")
    assert "the reward could not be closed" in caplog.text
    assert [reward.closed for reward in made] == [1, 1]


def test_the_processes_of_a_python_reward_end_with_the_run(runs, grpo, monkeypatch):
    from alignkit_rewards.script_pool import ScriptPool

    seen = []
    submit = ScriptPool.submit

    def watched(self, *given):
        pending = submit(self, *given)
        pending.result()
        seen.append((self, self.processes()))
        return pending

    monkeypatch.setattr(ScriptPool, "submit", watched)
    runs.start(grpo, "reward.workers=1")
    pool, pids = seen[-1]
    assert len(pids) == 1
    assert pool.processes() == []
