"""The backend on an engine that streams: order, lost engines, checks."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignkit import AlignkitError
from alignkit.abilities import streams
from alignkit.protocols import Sampling
from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout
from alignkit_vllm.backend import VllmBackend
from alignkit_vllm.engines import LostError
from alignkit_vllm.watchdog import DeadlineError, Watchdog
from vllm_answers import answer


class Engine:
    """Answers a prompt with its own ids; gets lost once, after ``until`` answers."""

    peer = "the engine of the test"

    def __init__(self, until=None):
        self.until, self.held, self.loads, self.batches, self.rests = until, "", 0, [], 0

    def holds(self):
        return self.held

    def load(self, policy, dtype, version):
        self.held, self.loads = version, self.loads + 1

    def stream(self, requests):
        self.batches.append([r.prompt for r in requests])
        for place in reversed(range(len(requests))):
            if self.until == 0:
                self.until, self.held = None, ""
                raise LostError("gone")
            if self.until is not None:
                self.until -= 1
            yield place, [answer(*requests[place].prompt)] * requests[place].n

    def recover(self, lost):
        assert str(lost) == "gone"

    def rest(self):
        self.rests += 1

    def max_len(self):
        return 10

    def progress(self):
        return ""

    def close(self):
        """Nothing to end."""


@pytest.fixture
def backend_on(tiny_folder):
    policy = HfPolicy(path=str(tiny_folder)).build()

    def make(engine):
        made = VllmBackend(VllmRollout())
        made._engine, made._watch = engine, Watchdog(lambda: engine.peer, 60.0)
        made._dtype, made._policy = None, policy
        made._folder = SimpleNamespace(name=Path(), cleanup=lambda: None)
        made._hold(policy, fresh=True)
        return made

    return make


HOW = Sampling(n=2, max_tokens=4)


def test_groups_carry_their_prompt_s_index_whatever_the_order(backend_on):
    engine = Engine()
    backend = backend_on(engine)
    prompts = [(5, 6), (7,) * 10, (8,)]  # the second leaves no room
    found = list(backend.stream(prompts, HOW))
    assert [i for i, _ in found] == [1, 2, 0]
    assert {i: group[0].token_ids for i, group in found} == {0: (5, 6), 1: (), 2: (8,)}
    assert backend.generate(prompts, HOW) == [group for _, group in sorted(found)]
    assert engine.rests == 2
    assert streams(backend)


def test_an_engine_lost_amid_a_stream_is_asked_for_the_rest_with_the_weights(backend_on):
    engine = Engine(until=2)
    backend = backend_on(engine)
    found = list(backend.stream([(1,), (2,), (3,), (4,)], HOW))
    assert [i for i, _ in found] == [3, 2, 1, 0]  # each once
    assert [g[0].token_ids for _, g in found] == [(4,), (3,), (2,), (1,)]
    assert engine.batches == [[(1,), (2,), (3,), (4,)], [(1,), (2,)]]
    assert engine.loads == 2


def test_the_first_syncs_are_checked_and_then_every_so_many(backend_on, monkeypatch):
    backend = backend_on(Engine())
    backend.keys = VllmRollout(check_every=4)
    checked = []
    monkeypatch.setattr(backend, "_check", lambda policy: checked.append(backend.syncs))
    for _ in range(10):
        backend.sync(backend._policy)
    assert checked == [0, 1, 4, 8]
    backend.keys, backend.syncs = VllmRollout(check_every=0), 0
    for _ in range(10):
        backend.sync(backend._policy)
    assert checked == [0, 1, 4, 8, 0, 1]


def test_what_is_wrong_is_said_at_the_call_not_at_the_first_group(backend_on):
    backend = backend_on(Engine())
    with pytest.raises(AlignkitError, match="prompt 1 has no tokens"):
        backend.stream([(1,), ()], HOW)
    with pytest.raises(AlignkitError, match="was not started"):
        VllmRollout().build().stream([(1,)], HOW)


def test_a_stream_s_deadline_counts_the_engine_s_time_alone():
    watch = Watchdog(lambda: "the engine of the test", heartbeat=60.0)
    resting = threading.Event()

    def items(pause):
        for i in range(3):
            resting.wait(pause)
            yield i

    judged = [resting.wait(0.4) for _ in watch.each("generation", 1.0, items(0.0))]
    assert len(judged) == 3  # 1.2 s of judging, next to none of generation
    with pytest.raises(DeadlineError, match=r"generation: .* not finished after 1 s"):
        list(watch.each("generation", 1.0, items(0.45)))  # 1.35 s, though none above 0.45
