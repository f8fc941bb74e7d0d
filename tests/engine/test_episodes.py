"""Episodes: ids only grow, draws are keyed, limits are counted, slow tools hold nobody up."""

import threading
import time
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.engine.asking import source_of
from alignkit.engine.evaluation.statistics import summary
from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.opening import Opening
from alignkit.engine.sampling.questions import make_prompt
from alignkit.engine.sampling.rollouts import collect, sampled_batch, to_row, with_stops
from alignkit.episodes import EpisodeLimits, Turn
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Example, Reward, Sampling


class Characters:
    """A tokenizer with one id per character."""

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return [ord(c) for c in text]

    def convert_ids_to_tokens(self, ids):
        return [chr(i) for i in ids]


@dataclass
class FakePolicy:
    tokenizer: Characters = field(default_factory=Characters)
    max_length: int = 1000
    version: int = 3


@dataclass
class Keyed:
    """Says a text that depends on the draw's key, the sample and all that was said before."""

    version: int = 3
    calls: list = field(default_factory=list)
    streams: bool = True
    length: int = 4

    def one(self, ids, key, sample, limit):
        whole = f"{hash((tuple(ids), key, sample)) % 10**self.length:0{self.length}d}"
        text = whole[:limit]
        reason = "length" if len(whole) > limit else "stop"
        ids = tuple(map(ord, text))
        return Completion(text, ids, tuple(-i / 7 for i in ids), reason, self.version)

    def generate(self, prompts, sampling):
        self.calls.append((prompts, sampling))
        return [
            [self.one(ids, key, j, sampling.max_tokens) for j in range(sampling.n)]
            for ids, key in zip(prompts, sampling.prompt_keys, strict=True)
        ]


class Streaming(Keyed):
    def stream(self, prompts, sampling):
        yield from enumerate(self.generate(prompts, sampling))


@dataclass
class World:
    """Repeats each turn, for as many turns as the question says."""

    limits: EpisodeLimits = field(default_factory=lambda: EpisodeLimits(turns=8))
    stop: tuple = ("END",)
    seconds: float = 0.0
    opened: list = field(default_factory=list)
    closed: list = field(default_factory=list)
    kind: type = None

    def open(self, example, /, *, seed):
        episode = (self.kind or Repeats)(self, example, seed)
        self.opened.append((example.id, seed))
        return episode


class Repeats:
    def __init__(self, world, example, seed):
        self.world, self.prompt = world, f"{example.question}:"
        self.left, self.said = int(example.question), []

    def step(self, response):
        time.sleep(self.world.seconds)
        self.said.append(str(response))
        return Turn(f"<{response}>", len(self.said) >= self.left, reward=0.5)

    def close(self):
        self.world.closed.append(self)


def played(*questions, world=None, backend=None, n=2, reward=None, policy=None, template=None,
           sampling=None):  # fmt: skip
    policy, world = policy or FakePolicy(), world or World()
    opening = Opening(world, template, 7)
    prompts = [
        make_prompt(10 + i, i, Example(f"id{i}", q, "gold"), opening, policy)
        for i, q in enumerate(questions)
    ]
    return collect(
        prompts,
        policy=policy,
        backend=backend or Streaming(),
        reward=reward,
        sampling=with_stops(sampling or Sampling(n=n, seed=7, step=5), opening),
        clock=Clock(),
        opening=opening,
    )


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


# ---------------------------------------------------------------- limits


def limited(**limits):
    return World(EpisodeLimits(**{"turns": 8, **limits}))


def test_the_number_of_turns_is_limited():
    (one,) = played("5", world=limited(turns=2), n=1)
    assert (len(one.turns), one.cut, one.truncated) == (2, "turns", True)
    assert summary([one])["out_of_turns"] == 1


def test_a_turn_that_is_cut_ends_its_episode():
    backend = Streaming()
    (one,) = played("5", world=limited(turn_tokens=3), backend=backend, n=1)
    assert backend.calls[0][1].max_tokens == 3
    assert (len(one.turns), one.cut, one.truncated) == (1, "turn", True)
    assert summary([one])["turn_truncated"] == 1


def test_sampled_tokens_of_an_episode_are_limited():
    backend = Streaming()
    (one,) = played("5", world=limited(episode_tokens=10), backend=backend, n=1)
    assert [sampling.max_tokens for _, sampling in backend.calls] == [10, 6, 2]
    assert (len(one.turns), one.cut) == (3, "episode")
    assert sum(turn.tokens for turn in one.turns) == 10
    assert summary([one])["episode_truncated"] == 1


def test_the_policys_length_is_never_passed():
    # "5:" + 4 + 6 + 4 + 6 + 4 + 6 = 32; the fourth turn would not fit into 32 tokens
    (one,) = played("5", policy=FakePolicy(max_length=32), n=1)
    assert (len(one.turns), one.cut) == (3, "episode")
    assert len(one.prompt_ids) + len(one.completion.token_ids) <= 32


def test_an_end_within_all_limits_is_none():
    got = played("1", "2", n=1, world=limited(turns=2, turn_tokens=4, episode_tokens=8))
    assert [(t.cut, t.truncated) for t in got] == [("", False)] * 2
    found = summary(got)
    assert (found["turns"], found["given_tokens"], found["response_length"]) == (1.5, 3.0, 6.0)


def test_a_prompt_without_room_has_an_empty_episode():
    world = World()
    got = played("123456", "1", world=world, policy=FakePolicy(max_length=7))
    assert [(t.completion.text == "", t.cut) for t in got] == [(True, "episode")] * 2 + [
        (False, "")
    ] * 2
    assert [t.reward.total for t in got] == [0.0, 0.0, 0.5, 0.5]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("method", ["open", "step", "close", "reward"])
def test_an_environments_error_ends_the_run_as_its_own(method):
    class Broken(Repeats):
        def __init__(self, world, example, seed):
            super().__init__(world, example, seed)
            if method == "open" and len(world.opened) == 3:
                raise OSError("no such world")

        def reward(self):
            if method == "reward":
                raise OSError("no such world")
            return Reward(1.0)

        def step(self, response):
            if method == "step" and self.said:
                raise OSError("no such world")
            return super().step(response)

        def close(self):
            super().close()
            if method == "close" and len(self.world.closed) == 3:
                raise OSError("no such world")

    world = World(kind=Broken)
    with pytest.raises(OSError, match="no such world") as raised:
        played("2", "2", world=world)
    source = source_of(raised.value)
    assert (source.word, source.component) == ("environment", world)


def test_what_is_open_is_closed_when_another_fails():
    class Broken(Repeats):
        def step(self, response):
            if self.left == 1:
                raise OSError("no such world")
            return super().step(response)

    world = World(kind=Broken)
    with pytest.raises(OSError, match="no such world"):
        played("2", "1", world=world)
    assert len(world.closed) == 2 + 4  # one for each prompt, then all four episodes


def test_a_backends_error_is_not_the_environments():
    class Broken(Keyed):
        def stream(self, prompts, sampling):
            raise OSError("no such engine")
            yield

        generate = None

    with pytest.raises(OSError, match="no such engine") as raised:
        played("2", backend=Broken())
    assert source_of(raised.value).word == "rollout backend"


@pytest.mark.parametrize(
    ("turn", "said"),
    [(Turn(None, True), "no text"), (Turn("", True, float("nan")), "must be a finite number")],
    ids=["no text", "no number"],
)
def test_a_turn_that_is_none_is_refused(turn, said):
    class Broken(Repeats):
        def step(self, response):
            return turn

    with pytest.raises(AlignkitError, match=said):
        played("2", world=World(kind=Broken))


def test_episodes_of_a_group_that_begin_differently_are_refused():
    class Drifting(Repeats):
        def __init__(self, world, example, seed):
            super().__init__(world, example, seed)
            self.prompt += str(len(world.opened))

    with pytest.raises(AlignkitError, match="two episodes of example 'id0' with one seed"):
        played("2", world=World(kind=Drifting))


def test_a_step_that_never_ends_ends_the_run():
    world = World(EpisodeLimits(turns=2, step_seconds=0.1), seconds=30)
    with pytest.raises(AlignkitError, match=r"did not answer within step_seconds = 0\.1"):
        played("2", world=world)
