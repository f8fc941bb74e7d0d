"""Errors in episodes: whose they are, and that all that is open is closed."""

import pytest

from alignkit.engine.asking import source_of
from alignkit.episodes import EpisodeLimits, Turn
from alignkit.errors import AlignkitError
from alignkit.protocols import Reward
from episode_fakes import Keyed, Repeats, World, played


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
