"""Limits that end an episode."""

from alignkit.engine.evaluation.statistics import summary
from alignkit.episodes import EpisodeLimits
from episode_fakes import FakePolicy, Streaming, World, played


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
