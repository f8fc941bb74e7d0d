"""Rollouts: no response is ever separated from its prompt, its group or its weights."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.rollouts import check_groups, collect, serving, with_stops
from alignkit.errors import AlignkitError
from alignkit.protocols import Reward, Sampling
from rollout_fakes import TEMPLATE, Echo, FakePolicy, collected, echoed, prompts_for


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
