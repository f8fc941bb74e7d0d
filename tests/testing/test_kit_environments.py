"""A planted bug per property of environments."""

import random
from dataclasses import dataclass, field

import pytest

from alignkit.episodes import EpisodeLimits, Turn
from alignkit.protocols import Reward


@dataclass
class Sound:
    """Answers each of three turns with what it can be told from; a base for the bugs."""

    stop: tuple = ("\n",)
    limits: EpisodeLimits = field(default_factory=lambda: EpisodeLimits(turns=3))

    def open(self, example, /, *, seed):
        return SoundEpisode(example, seed)


class SoundEpisode:
    def __init__(self, example, seed):
        self.prompt, self.seed, self.said = example.question, seed, []

    def step(self, response, /):
        self.said.append(str(response))
        return Turn(f"{self.seed} {len(response)}", len(self.said) == 3)

    def reward(self):
        return Reward(float(len(self.said)))

    def close(self):
        pass


def with_episode(kind):
    """Return what builds a world of such episodes."""

    class World(Sound):
        def open(self, example, /, *, seed):
            return kind(example, seed)

    return World


class BeginsByChance(SoundEpisode):
    def __init__(self, example, seed):
        super().__init__(example, seed)
        self.prompt += str(random.random())


class AnswersByChance(SoundEpisode):
    def step(self, response, /):
        return Turn(str(random.random()), True)


class Chokes(SoundEpisode):
    def step(self, response, /):
        return Turn(response.split("<answer>")[1], True)


class Shared(SoundEpisode):
    """Counts the turns of all episodes of a world together, but forgets them between two."""

    open_now, count = 0, 0

    def __init__(self, example, seed):
        super().__init__(example, seed)
        if Shared.open_now == 0:
            Shared.count = 0
        Shared.open_now += 1

    def step(self, response, /):
        Shared.count += 1
        return Turn(str(Shared.count), len(response) > 8)

    def close(self):
        Shared.open_now -= 1


BUGS = {
    "names_its_stops": lambda: Sound(stop="\n"),
    "limits_its_episodes": lambda: Sound(limits=EpisodeLimits(turns=0)),
    "begins_alike": with_episode(BeginsByChance),
    "answers_alike": with_episode(AnswersByChance),
    "answers_hostile_text": with_episode(Chokes),
    "plays_episodes_side_by_side": with_episode(Shared),
}


def returns(turn):
    """Return what builds a world that answers so."""
    return with_episode(type("Fixed", (SoundEpisode,), {"step": lambda self, response, /: turn}))


ILL_FORMED = {
    "no turn": ("", True),
    "no text": Turn(b"", True),
    "no flag": Turn("", None),
    "no number": Turn("", True, float("inf")),
}


def test_a_sound_environment_passes(planted, failing):
    assert failing("environment", planted(Sound)) == {}


@pytest.mark.parametrize("check", BUGS)
def test_bug_in_an_environment_is_caught(planted, failing, check):
    assert check in failing("environment", planted(BUGS[check]), only=check)


@pytest.mark.parametrize("fault", ILL_FORMED)
def test_a_turn_that_is_ill_formed_is_caught(planted, failing, fault):
    said = failing("environment", planted(returns(ILL_FORMED[fault])), only="answers_alike")
    assert "answers_alike" in said


def test_a_reward_that_is_no_number_is_caught(planted, failing):
    broken = type("Broken", (SoundEpisode,), {"reward": lambda self: Reward(float("nan"))})
    assert "answers_alike" in failing("environment", planted(with_episode(broken)))


def test_every_check_has_a_planted_bug(names):
    assert names("environment") == set(BUGS)
