"""Groups that are judged while others are generated."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from alignkit.errors import AlignkitError
from alignkit.protocols import Reward
from rollout_fakes import (
    Echo,
    FakePolicy,
    collected,
    echoed,
    prompts_for,
)


@dataclass
class Streaming(Echo):
    """Finishes groups in ``order``, and notes it in ``log``."""

    order: tuple = (0, 1)
    log: list = field(default_factory=list)

    def stream(self, prompts, sampling):
        groups = Echo.generate(self, prompts, sampling)
        for i in self.order:
            self.log.append(("generated", i))
            yield i, groups[i]

    def generate(self, prompts, sampling):
        self.log.append("generate")
        return Echo.generate(self, prompts, sampling)


class Background:
    """``echoed``, also in the background; notes in ``log`` what it is asked."""

    def __init__(self, log):
        self.log = log

    def __call__(self, responses, examples):
        self.log.append(("called", *responses))
        return echoed(responses, examples)

    def submit(self, responses, examples):
        self.log.append(("submitted", *responses))
        rewards = echoed(responses, examples)
        return SimpleNamespace(result=lambda: self.log.append("waited") or rewards)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_streamed_groups_give_the_same_trajectories(order):
    policy = FakePolicy(max_length=6)
    asked = prompts_for("a", "toolong", "bb", "c", policy=policy)
    plain = collected(asked, policy=policy, backend=Echo(), n=2)
    backend = Streaming(order=order)
    got = collected(asked, policy=policy, backend=backend, reward=Background([]), n=2)
    assert repr(got) == repr(plain)  # a part of the blank responses' rewards is nan
    assert [t.completion.text for t in plain][:3] == ["<a>0", "<a>1", ""]
    # index 1 of the stream is "bb", not "toolong", which was not asked
    assert [t.reward.total for t in plain] == [1, 1, 0, 0, 1, 1, 1, 1]
    assert backend.calls[0][1].prompt_keys == (10, 12, 13)


def test_each_group_is_submitted_before_the_next_is_generated():
    log = []
    backend = Streaming(order=(1, 0), log=log)
    collected(prompts_for("a", "b"), backend=backend, reward=Background(log), n=2)
    assert log == [
        ("generated", 1),
        ("submitted", "<b>0", "<b>1"),
        ("generated", 0),
        ("submitted", "<a>0", "<a>1"),
        "waited",
        "waited",
    ]


def test_generation_does_not_wait_for_verdicts():
    """The last group is held back until the first is judged, and its verdict until the last is
    there: waiting for either in the other's place never ends."""
    judged, finished = threading.Event(), threading.Event()

    class Last(Streaming):
        def stream(self, prompts, sampling):
            for i, group in Streaming.stream(self, prompts, sampling):
                if i == 1:
                    assert judged.wait(30), "the first group is not judged during generation"
                    finished.set()
                yield i, group

    def slow(responses, examples):
        judged.set()
        assert finished.wait(30), "generation waits for a verdict"
        return echoed(responses, examples)

    class Slow(Background):
        def submit(self, responses, examples):
            return pool.submit(slow, responses, examples)

    with ThreadPoolExecutor(1) as pool:
        got = collected(prompts_for("a", "b"), backend=Last(), reward=Slow([]))
    assert [t.reward.total for t in got] == [1.0] * 6


class OwnGenerate(Streaming):
    """Overrides ``generate`` alone; the inherited ``stream`` would bypass it."""

    def generate(self, prompts, sampling):
        return super().generate(prompts, sampling)


class Wrapper:
    """Hands everything on but ``generate``."""

    def __init__(self, log):
        self.inner = Streaming(log=log)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def generate(self, prompts, sampling):
        return self.inner.generate(prompts, sampling)


class OwnCall(Background):
    def __call__(self, responses, examples):
        return super().__call__(responses, examples)


@pytest.mark.parametrize(
    ("backend", "reward"),
    [
        (lambda log: OwnGenerate(log=log), Background),
        (Wrapper, Background),
        (lambda log: Streaming(log=log), OwnCall),
        (lambda log: Streaming(log=log), lambda _: echoed),
    ],
    ids=["subclass", "wrapper", "reward subclass", "plain reward"],
)
def test_what_overrides_the_plain_method_alone_is_not_bypassed(backend, reward):
    log = []
    got = collected(prompts_for("a", "b"), backend=backend(log), reward=reward(log), n=1)
    assert [t.reward.total for t in got] == [1.0, 1.0]
    assert log[0] == "generate"
    assert log[1:] in ([("called", "<a>0", "<b>0")], [])


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((0, 0, 1), "asked for prompts 0 to 1 and gave responses to prompt 0 twice"),
        ((0, 1, -1), "gave responses to prompt -1 too"),
        ((1,), r"2 prompts and returned groups of \[0, 3\] for 2"),
    ],
)
def test_a_stream_that_loses_count_is_refused(order, message):
    with pytest.raises(RuntimeError, match=message):
        collected(prompts_for("a", "b"), backend=Streaming(order=order), reward=Background([]))


def test_streamed_groups_pass_the_same_checks():
    with pytest.raises(RuntimeError, match=r"weight version \[2\] while the policy is at 3"):
        collected(prompts_for("a", "b"), backend=Streaming(version=2), reward=Background([]))

    class Bad(Background):
        def __init__(self, rewards):
            self.rewards = rewards

        def submit(self, responses, examples):
            return SimpleNamespace(result=lambda: self.rewards)

    with pytest.raises(AlignkitError, match="returned 2 rewards for 3 responses"):
        collected(prompts_for("a", "b"), backend=Streaming(), reward=Bad([Reward(0.0)] * 2))
    with pytest.raises(AlignkitError, match="for a response to example 'id0'"):
        collected(
            prompts_for("a", "b"), backend=Streaming(), reward=Bad([Reward(float("nan"))] * 3)
        )
