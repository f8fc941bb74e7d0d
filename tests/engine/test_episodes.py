"""Episodes: ids only grow, draws are keyed, limits are counted, slow tools hold nobody up."""

import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.engine.sampling.rollouts import sampled_batch, to_row
from alignkit.episodes import EpisodeLimits
from alignkit.protocols import Reward
from episode_fakes import Keyed, Repeats, Streaming, World, played


def text_of(ids):
    return "".join(map(chr, ids))


def test_a_transcript_is_one_row_whose_ids_only_grow():
    backend = Streaming()
    (one, *_) = played("3", backend=backend, n=1)
    turns = [turn.response for turn in one.turns]
    a, b, c = turns
    assert one.completion.text == f"{a}<{a}>{b}<{b}>{c}"  # what follows the last turn is not read
    assert text_of(one.completion.token_ids) == one.completion.text
    assert text_of(x for x, g in zip(one.completion.token_ids, one.completion.given, strict=True)
                   if not g) == a + b + c  # fmt: skip
    asked = [text_of(ids) for prompts, _ in backend.calls for ids in prompts]
    assert asked == ["3:", f"3:{a}<{a}>", f"3:{a}<{a}>{b}<{b}>"]
    assert one.turns[-1].observation == f"<{c}>"
    row = to_row(one)
    assert text_of(row.trained_ids) == a + b + c
    assert row.rollout_logprobs.tolist() == pytest.approx([-ord(x) / 7 for x in a + b + c])
    assert sampled_batch([one]).lengths.tolist() == [12]


def test_the_reward_is_the_sum_of_the_turns():
    assert [t.reward.total for t in played("1", "3")] == [0.5, 0.5, 1.5, 1.5]


def test_an_episode_may_say_what_it_earned():
    class Settling(Repeats):
        def reward(self):
            assert self not in self.world.closed
            return Reward(len(self.said) * 10.0, {"own": 1.0})

    (one,) = played("2", world=World(kind=Settling), n=1)
    assert one.reward == Reward(20.0, {"own": 1.0})


@pytest.mark.parametrize("backend", [Streaming, Keyed], ids=["streams", "generates"])
def test_a_reward_judges_the_whole_transcript(backend):
    def judge(responses, examples):
        assert all(r.completion.given is not None for r in responses if len(r) > 4)
        return [Reward(float(len(r))) for r in responses]

    got = played("1", "2", reward=judge, backend=backend())
    assert [t.reward.total for t in got] == [4.0, 4.0, 14.0, 14.0]


def test_a_template_renders_what_an_episode_begins_with():
    class Template:
        stop = ("STOP",)

        def render(self, question):
            return f"[{question}]"

    backend = Streaming()
    (one,) = played("1", template=Template(), backend=backend, n=1)
    assert one.prompt_text == "[1:]"
    assert backend.calls[0][1].stop == ("END", "STOP")


def test_groups_share_example_and_seed_and_no_others_do():
    world = World()
    played("1", "1", world=world, n=3)
    opened = [pair for pair in world.opened if pair[0] == "id0"]
    assert len(set(opened)) == 1
    assert len(set(world.opened)) == 2
    assert len(opened) == 4  # the prompt, then three episodes
    assert len(world.closed) == 8


def test_draws_of_a_turn_have_a_key_of_their_own():
    backend = Streaming()
    played("3", "3", backend=backend, n=2)
    first, *later = [sampling for _, sampling in backend.calls]
    assert (first.prompt_keys, first.n) == ((10, 11), 2)
    keys = [key for sampling in later for key in sampling.prompt_keys]
    assert [sampling.n for sampling in later] == [1, 1]
    assert len(set(keys)) == len(keys) == 8
    assert all(0 <= key < 2**63 for key in keys)


class Uneven(Repeats):
    """Takes a time that has nothing to do with the order of the episodes."""

    delays = iter(())

    def step(self, response):
        time.sleep(next(self.delays, 0.0))
        return super().step(response)


@settings(max_examples=15, deadline=None)
@given(
    questions=st.lists(st.integers(1, 4).map(str), min_size=1, max_size=4),
    delays=st.lists(st.sampled_from([0.0, 0.001, 0.004]), max_size=12),
    workers=st.sampled_from([1, 2, 16]),
    streams=st.booleans(),
)
def test_nothing_depends_on_time(questions, delays, workers, streams):
    want = played(*questions)
    for lockstep in (True, False):
        kind = type("Timed", (Uneven,), {"delays": iter(delays)})
        limits = EpisodeLimits(turns=8, workers=workers, lockstep=lockstep)
        backend = Streaming() if streams else Keyed()
        assert played(*questions, world=World(limits, kind=kind), backend=backend) == want


def test_slow_tools_run_beside_each_other():
    world = World(seconds=1.0)
    start = time.monotonic()
    got = played(*["1"] * 16, world=world, n=4)
    took = time.monotonic() - start
    assert len(got) == 64
    assert took < 3.0, f"64 episodes with a tool of 1 s took {took:.1f} s"


def test_tools_run_while_others_are_generated():
    """Each group takes 0.1 s to generate and 0.1 s to answer: together 0.5 s, not 0.8 s."""

    class Slow(Keyed):
        def stream(self, prompts, sampling):
            for item in enumerate(self.generate(prompts, sampling)):
                time.sleep(0.1)
                yield item

    world = World(replace(World().limits, workers=1), seconds=0.1)
    start = time.monotonic()
    played(*["1"] * 4, world=world, backend=Slow(), n=1)
    assert time.monotonic() - start < 0.7


def test_an_episode_may_go_on_while_another_waits():
    """Without lockstep the second turn of one is asked for before the other's tool answers."""
    second = threading.Event()

    class Waits(Repeats):
        def step(self, response):
            if self.left == 2 and not self.said:
                assert second.wait(5), "the other episode's second turn was not asked for"
            if self.left == 3 and len(self.said) == 1:
                second.set()
            return super().step(response)

    limits = EpisodeLimits(turns=8, lockstep=False)
    got = played("2", "3", world=World(limits, kind=Waits), n=1)
    assert [len(t.turns) for t in got] == [2, 3]
