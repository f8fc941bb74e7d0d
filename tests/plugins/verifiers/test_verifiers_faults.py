"""Faults in environments of verifiers, and limits of episodes."""

import time

import pytest

from adapters import lacking, skipped_without
from alignkit.protocols import Example
from alignkit.testing import run_cli
from verifiers_worlds import CUT, recipe, said, world

LACKING = lacking("verifiers", "alignkit_verifiers")

pytestmark = [pytest.mark.verifiers, *skipped_without(LACKING)]


def play(opened, texts=("a", "b", "c")):
    for text in texts:
        if opened.step(said(text)).done:
            break
    return opened.reward()


def begin_and_play(env, opened):
    opened.append(env.open(Example("0", "?", ""), seed=0))
    play(opened[0])


@pytest.mark.parametrize("fault", [
    "setup", "response", "cleanup", "reward", "setup, infrastructure", "response, infrastructure",
    "cleanup, infrastructure",
])  # fmt: skip
def test_what_it_raises_is_its_own_error(fault):
    where, comma, _ = fault.partition(",")
    opened = []
    with pytest.raises(Exception, match=where) as caught:
        begin_and_play(world("faulty", {"where": fault}), opened)
    assert type(caught.value).__name__ == ("SandboxError" if comma else "OutOfOrderError")
    for episode in opened:
        episode.close()  # does not hang


@pytest.mark.parametrize("grouped", [1, 2], ids=["in a group", "in a group of groups"])
def test_what_a_rubric_of_a_group_raises_is_its_error_too(grouped):
    """`EnvGroup` asks the rubric of the environment that a row belongs to."""
    good = world("faulty", {"grouped": grouped})
    assert play(good.open(_first(good), seed=0)).total == 5.0  # messages
    bad = world("faulty", {"grouped": grouped, "where": "reward"})
    opened = bad.open(_first(bad), seed=0)
    with pytest.raises(Exception, match="reward") as caught:
        play(opened)
    assert type(caught.value).__name__ == "OutOfOrderError"


def _first(env):
    """The first row of an environment's own data."""
    from alignkit_verifiers.rows import Rows

    return Rows(env.env, "train")[0]


def test_a_run_ends_with_its_error(tmp_path):
    named = 'use = "verifiers"\nid = "faulty"\nargs = { where = "response" }\n'
    path = recipe(tmp_path, "grpo.toml", named)
    done = run_cli("run", path, *[p for s in CUT for p in ("-s", s)], "--out", tmp_path / "run")
    assert done.status != 0
    assert "environment 'verifiers' raised OutOfOrderError: response" in done.stderr


def test_errors_of_a_reward_may_count_as_no_reward():
    opened = world("faulty", {"where": "reward"}, reward_errors="zero")
    assert play(opened.open(Example("0", "?", ""), seed=0)).total == 0.0


def test_an_error_for_what_the_model_wrote_ends_the_episode():
    opened = world("faulty", {"where": "response, tool"}).open(Example("0", "?", ""), seed=0)
    assert opened.step(said("a")).done
    assert opened.reward().total == 1.0  # of the turn that was taken
    opened.close()


def test_a_rewritten_dialogue_is_refused():
    opened = world("faulty", {"where": "rewrites"}).open(Example("0", "?", ""), seed=0)
    with pytest.raises(RuntimeError, match="ids of a transcript only grow"):
        opened.step(said("a"))
    opened.close()


def test_an_episode_that_is_cut_is_scored_as_far_as_it_went():
    opened = world("faulty").open(Example("0", "?", ""), seed=0)
    opened.step(said("a", "length"))
    assert opened.reward().total == 1.0
    opened.close()


def test_its_time_limit_is_its_error():
    opened = world("faulty", {"timeout_seconds": 0.2}).open(Example("0", "?", ""), seed=0)
    time.sleep(0.5)
    with pytest.raises(TimeoutError, match="timeout_seconds"):
        opened.step(said("a"))
    opened.close()
