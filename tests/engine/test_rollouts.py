"""Rollouts: no response is ever separated from its prompt, its group or its weights."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.questions import PromptStream, make_prompt
from alignkit.engine.sampling.rollouts import check_groups, collect, serving, with_stops
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Example, Reward, Sampling


class Characters:
    """A tokenizer with one id per character."""

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return [ord(c) for c in text]


@dataclass
class FakePolicy:
    tokenizer: Characters = field(default_factory=Characters)
    max_length: int = 100
    version: int = 3


@dataclass
class Echo:
    """Answers sample j of a prompt with the prompt's text and j."""

    version: int = 3
    calls: list = field(default_factory=list)
    closed: int = 0

    def start(self, policy):
        self.started = policy

    def close(self):
        self.closed += 1

    def generate(self, prompts, sampling):
        self.calls.append((prompts, sampling))
        return [
            [self._answer("".join(map(chr, ids)), j) for j in range(sampling.n)] for ids in prompts
        ]

    def _answer(self, text, j):
        ids = tuple(ord(c) for c in f"{text}{j}")
        return Completion(f"{text}{j}", ids, (0.0,) * len(ids), "stop", self.version)


def echoed(responses, examples):
    """1 if the response is to the example's own question, else 0."""
    return [
        Reward(float(r[:-1] == f"<{e.question}>"), {"sample": float(r[-1:] or "nan")})
        for r, e in zip(responses, examples, strict=True)
    ]


TEMPLATE = SimpleNamespace(render=lambda q: f"<{q}>", stop=("END",))


def prompts_for(*questions, policy=None):
    policy = policy or FakePolicy()
    return [
        make_prompt(10 + i, i, Example(f"id{i}", q, "gold"), TEMPLATE, policy)
        for i, q in enumerate(questions)
    ]


def collected(prompts, *, policy=None, backend=None, reward=echoed, n=3, **more):
    return collect(
        prompts,
        policy=policy or FakePolicy(),
        backend=backend or Echo(),
        reward=reward,
        sampling=Sampling(n=n, seed=7, step=5),
        clock=Clock(),
        **more,
    )


def test_each_response_keeps_its_prompt_group_and_reward():
    got = collected(prompts_for("a", "bb"))
    assert [t.completion.text for t in got] == ["<a>0", "<a>1", "<a>2", "<bb>0", "<bb>1", "<bb>2"]
    # Tiled prompts (a, b, a, b, …) would give group ids 0 1 0 1 0 1 and rewards of 0.
    assert [t.group_id for t in got] == [0, 0, 0, 1, 1, 1]
    assert [t.prompt_id for t in got] == [0, 0, 0, 1, 1, 1]
    assert [t.reward.total for t in got] == [1.0] * 6
    assert [t.reward.parts["sample"] for t in got] == [0, 1, 2, 0, 1, 2]
    assert got[4].prompt_ids == tuple(map(ord, "<bb>"))
    assert got[4].example.id == "id1"


def test_draws_are_keyed_by_the_prompts_own_keys():
    backend = Echo()
    collected(prompts_for("a", "b"), backend=backend)
    ((_, sampling),) = backend.calls
    assert sampling.prompt_keys == (10, 11)
    assert (sampling.n, sampling.seed, sampling.step) == (3, 7, 5)


def test_groups_of_a_second_round_are_numbered_on():
    assert [t.group_id for t in collected(prompts_for("a", "b"), n=1, first_group=4)] == [4, 5]


def test_seconds_are_split_into_rollout_and_reward():
    clock = Clock()
    collect(
        prompts_for("a"),
        policy=FakePolicy(),
        backend=Echo(),
        reward=echoed,
        sampling=Sampling(),
        clock=clock,
    )
    assert set(clock.metrics()) == {"time/rollout", "time/reward"}


def test_responses_of_old_weights_are_refused():
    with pytest.raises(RuntimeError, match=r"weight version \[2\] while the policy is at 3"):
        collected(prompts_for("a"), backend=Echo(version=2))


@pytest.mark.parametrize("drop", ["a sample", "a prompt"])
def test_a_backend_that_returns_too_little_is_refused(drop):
    class Short(Echo):
        def generate(self, prompts, sampling):
            groups = super().generate(prompts, sampling)
            return groups[1:] if drop == "a prompt" else [group[1:] for group in groups]

    with pytest.raises(RuntimeError, match="asked for 3 responses to each of 2 prompts"):
        collected(prompts_for("a", "b"), backend=Short())


def test_a_reward_that_loses_a_response_is_named():
    with pytest.raises(AlignkitError, match="returned 2 rewards for 3 responses"):
        collected(prompts_for("a"), reward=lambda r, e: echoed(r, e)[1:])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_named(value):
    with pytest.raises(AlignkitError, match="for a response to example 'id0'"):
        collected(prompts_for("a"), reward=lambda r, e: [Reward(value) for _ in r])


def test_a_prompt_without_room_for_an_answer_gets_empty_truncated_responses():
    policy, backend = FakePolicy(max_length=5), Echo()
    got = collected(
        prompts_for("a", "toolong", "b", policy=policy), policy=policy, backend=backend, n=2
    )
    assert [t.completion.text for t in got] == ["<a>0", "<a>1", "", "", "<b>0", "<b>1"]
    assert [t.truncated for t in got] == [False, False, True, True, False, False]
    assert [t.empty for t in got] == [False, False, True, True, False, False]
    ((asked, sampling),) = backend.calls
    assert len(asked) == 2
    assert sampling.prompt_keys == (10, 12)


def test_white_space_alone_is_an_empty_response():
    (trajectory,) = collected(prompts_for("a"), n=1)
    blank = replace(trajectory.completion, text=" \n")
    assert replace(trajectory, completion=blank).empty
    assert not trajectory.empty


def test_groups_are_checked_where_they_are_consumed():
    good = collected(prompts_for("a", "b"), n=2)
    check_groups(good, 2)
    tiled = [good[0], good[2], good[1], good[3]]
    with pytest.raises(ValueError, match="responses 0 to 1 should be one group but answer 2"):
        check_groups(tiled, 2)
    with pytest.raises(ValueError, match="not whole groups of 2"):
        check_groups(good[:3], 2)
    with pytest.raises(ValueError, match="split over several blocks"):
        check_groups([good[0], good[2], good[1]], 1)


def test_a_response_moved_to_another_prompt_is_found():
    good = collected(prompts_for("a", "b"), n=2)
    swapped = [good[0], replace(good[1], prompt_ids=good[2].prompt_ids), *good[2:]]
    with pytest.raises(ValueError, match="responses 0 to 1"):
        check_groups(swapped, 2)


# ---------------------------------------------------------------- judged while generated


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


# ---------------------------------------------------------------- prompts in epochs


def questions(count, *, long=()):
    return [Example(str(i), "q" * (50 if i in long else 1), "") for i in range(count)]


def stream(data, seed=0, **policy):
    return PromptStream(data, TEMPLATE, FakePolicy(**policy), seed=seed)


def test_every_question_is_drawn_once_before_any_again():
    drawn = [p.index for p in stream(questions(7)).take(14, step=1)]
    assert sorted(drawn[:7]) == sorted(drawn[7:]) == list(range(7))
    assert drawn[:7] != drawn[7:]  # another order: 1 in 5040 by chance, and the seed is fixed


def test_the_order_depends_on_the_seed_alone():
    def drawn(seed, chunk):
        source = stream(questions(7), seed)
        return [p.index for _ in range(12 // chunk) for p in source.take(chunk, step=1)]

    assert drawn(1, 3) == drawn(1, 4) != drawn(2, 3)


def test_a_question_drawn_again_has_another_key():
    """Else two groups of one batch would hold the same responses."""
    first, second = stream(questions(1)).take(2, step=1)
    assert (first.index, second.index) == (0, 0)
    assert first.key != second.key


def test_the_position_is_the_whole_state():
    source = stream(questions(5))
    source.take(8, step=1)
    resumed = stream(questions(5))
    resumed.position = source.position
    assert resumed.take(9, step=1) == source.take(9, step=1)


def test_prompts_too_long_are_passed_over_and_counted():
    source = stream(questions(5, long=(1, 3)), max_length=20)
    assert sorted(p.index for p in source.take(3, step=1)) == [0, 2, 4]
    source.take(4, step=1)  # the seventh is in the third epoch, so two epochs are behind us
    assert source.skipped == source.position - 7 >= 4


def test_data_of_which_nothing_fits_is_an_error():
    with pytest.raises(AlignkitError, match=r"every prompt of \[data\] fills the 20 tokens"):
        stream(questions(3, long=(0, 1, 2)), max_length=20).take(1, step=1)


def test_empty_data_is_an_error():
    with pytest.raises(AlignkitError, match="no examples"):
        stream([])


def test_stop_strings_of_recipe_and_template_are_joined():
    assert with_stops(Sampling(stop=("###", "END")), TEMPLATE).stop == ("###", "END")


def test_the_backend_is_closed_when_the_run_fails():
    backend = Echo()
    with pytest.raises(ZeroDivisionError), serving(backend, FakePolicy()):
        1 / 0  # noqa: B018
    assert backend.closed == 1


def test_a_run_records_what_its_backend_chose_and_what_became_of_it():
    from alignkit.engine.training.resources import _recorded

    backend, run = Echo(), SimpleNamespace(computed={"rows": "packed"})
    with _recorded(None, run), _recorded(backend, run):
        assert run.computed == {"rows": "packed"}
    backend.computed = {"weights": "NCCL: it has a card of its own"}
    with pytest.raises(ZeroDivisionError), _recorded(backend, run):
        raise ZeroDivisionError
    assert run.computed == {"rows": "packed", "weights": "NCCL: it has a card of its own"}
    with _recorded(backend, run):
        backend.computed = {"weights": "a socket: no NCCL library"}
    assert run.computed == {"rows": "packed", "weights": "a socket: no NCCL library"}
