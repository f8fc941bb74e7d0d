"""pipeline_depth = 1: the same numbers as its schedule carried out one thing after the other."""

import threading
from dataclasses import replace

import pytest
import torch

from alignkit.engine.learning.rows import Rows
from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling import prefetch
from alignkit.errors import AlignkitError
from alignkit.execution import Run
from alignkit.lifecycle.signals import Interrupted
from alignkit_algorithms.grpo import Grpo
from alignkit_hf import HfRollout

KEYS = {
    "n_steps": 4,
    "rollout_batch_size": 16,
    "group_size": 4,
    "train_batch_size": 8,
    "importance_cap": 2.0,
    "pipeline_depth": 1,
}


@pytest.fixture
def grpo(toys):
    def make(**keys):
        loss, optimizer = toys.loss("reinforce"), toys.adamw(lr=0.02)
        return toys.grpo({**KEYS, **keys}, loss=loss, optimizer=optimizer)

    return make


def at_once(self, sample, step):
    """Stands in for ``Prefetcher.begin``: sample first, update then."""
    self._next = sample(step, Clock(), prefetch.as_of_now(self._policy))


def test_equal_to_the_schedule_in_sequence(grpo, toys, tmp_path, monkeypatch):
    beside = grpo()
    rows = toys.timeless(toys.carry_out(beside, tmp_path / "beside"))
    weights = toys.weights(beside.parts.policy)
    again = grpo()
    assert toys.timeless(toys.carry_out(again, tmp_path / "again")) == rows
    turns = grpo(pipeline_depth=0)
    assert toys.timeless(toys.carry_out(turns, tmp_path / "turns"))[0] != rows[-1]
    assert not torch.equal(toys.weights(turns.parts.policy), weights)

    monkeypatch.setattr(prefetch.Prefetcher, "begin", at_once)
    sequence = grpo()
    assert toys.timeless(toys.carry_out(sequence, tmp_path / "sequence")) == rows
    assert torch.equal(toys.weights(sequence.parts.policy), weights)


def test_which_weights_sample_which_batch(grpo, toys, tmp_path):
    subject = grpo()
    seen = []
    rollout, learn = subject.parts.backend.stream, threading.Event()

    def stream(prompts, sampling):
        seen.append((sampling.step, subject.parts.backend._paths.policy.version))
        here = threading.current_thread() is threading.main_thread()
        assert here == (sampling.step == 1)  # all but the first beside the learner
        assert here or learn.wait(60)
        return rollout(prompts, sampling)

    subject.parts.backend.stream = stream
    batches_of = Rows.batches

    def batches(self, *args, **keys):
        yield from batches_of(self, *args, **keys)
        learn.set()  # step 1 has learned before batch 2 is sampled: by old weights all the same

    Rows.batches = batches
    try:
        rows = toys.carry_out(subject, tmp_path)
    finally:
        Rows.batches = batches_of
    # Two updates a step. Batches 1 and 2 by the starting weights, then one step behind each:
    # in turns it would be 0, 2, 4, 6.
    assert seen == [(1, 0), (2, 0), (3, 2), (4, 4)]
    assert [row["train/staleness"] for row in rows] == [0, 2, 2, 2]
    assert all(row["time/wait"] >= 0 for row in rows[:3])


def test_resumed_after_an_interruption_to_the_same_numbers(grpo, toys, tmp_path):
    whole = grpo()
    want = toys.timeless(toys.carry_out(whole, tmp_path / "whole"))

    folder = tmp_path / "cut"
    toys.end_after(2, grpo(), folder)
    subject = grpo()
    _, _, rows = toys.go_on(subject, folder)
    assert toys.timeless(rows) == want
    assert torch.equal(toys.weights(subject.parts.policy), toys.weights(whole.parts.policy))


def test_an_error_in_the_sampling_ends_the_run(grpo, toys, tmp_path):
    subject = grpo()

    def reward(responses, examples):
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("no verdict")
        return toys.first_is_ascii(responses, examples)

    subject.parts.reward = reward
    with pytest.raises(AlignkitError, match="no verdict"):
        toys.carry_out(subject, tmp_path)
    assert threading.active_count() == 1 or not any(
        t.name.startswith("rollout batch") for t in threading.enumerate()
    )


def test_a_backend_that_cannot_is_refused(grpo, toys, tmp_path):
    keys = Grpo(pipeline_depth=1)
    assert not list(keys.check({"rollout": HfRollout()}))
    ((key, message),) = keys.check({"rollout": None})
    assert key == "pipeline_depth"
    assert "cannot sample while the policy learns" in message
    subject = grpo()

    class Bare:
        sampling = replace(subject.parts.backend.sampling)
        start = sync = lambda *_: None
        close = lambda *_: None  # noqa: E731

    subject.parts.backend = Bare()
    with pytest.raises(AlignkitError, match=r"Bare has no method hold\(\)"):
        toys.carry_out(subject, tmp_path)


def test_facts_say_how_far_off_policy_it_is():
    facts = Grpo(**KEYS).facts({})
    assert facts["off-policy"].startswith("yes: the last update of a rollout batch is 3 behind")


def test_resumed_between_a_batch_and_the_one_sampled_beside_it(grpo, toys, tmp_path, monkeypatch):
    whole = grpo()
    want = toys.timeless(toys.carry_out(whole, tmp_path / "whole"))
    folder = tmp_path / "cut"
    folder.mkdir()
    run, begin = Run(folder, {}), prefetch.Prefetcher.begin

    def ended(self, sample, step):
        if step == 3:
            run.signals.deferring = 0
            run.signals.interrupt("a test")
        begin(self, sample, step)

    with monkeypatch.context() as patch:
        patch.setattr(prefetch.Prefetcher, "begin", ended)
        with pytest.raises(Interrupted):
            grpo().run(run)
    run.close("failed")
    subject = grpo()
    start, _, rows = toys.go_on(subject, folder)
    assert (start.mark.step, start.mark.part) == (1, 1)
    assert toys.timeless(rows) == want
    assert torch.equal(toys.weights(subject.parts.policy), toys.weights(whole.parts.policy))
