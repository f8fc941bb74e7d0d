"""What holds of every environment: episodes that answer alike, on any thread, whatever is said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alignkit.episodes import EpisodeLimits, Settles, Turn
from alignkit.protocols import Completion, Example, Response, Reward
from alignkit_testing.kit import Check, Subject
from alignkit_testing.samples import EXAMPLES, HOSTILE

SAID = (
    "12 - 5 = 7", "", "7\n", "<tool>6 * 7</tool>", "<answer> 42 </answer>", "</tool>", "50",
    "I do not know.",
)  # fmt: skip
"""Turns that a policy might take."""


def names_its_stops(subject: Subject) -> None:
    """`stop` is a sequence of non-empty strings, the same at every look; a str is not one."""
    world = subject.build()
    stop = world.stop
    assert not isinstance(stop, str), f"stop is the string {stop!r}; make it a tuple: ({stop!r},)"
    assert isinstance(stop, Sequence), f"stop is a {type(stop).__name__}, not a sequence"
    assert all(isinstance(text, str) and text for text in stop), f"stop holds no text: {stop!r}"
    assert list(stop) == list(world.stop), "stop differs at a second look"


def limits_its_episodes(subject: Subject) -> None:
    """`limits` is an `EpisodeLimits` of whole numbers above 0; EnvironmentParams has it."""
    limits = subject.build().limits
    assert isinstance(limits, EpisodeLimits), f"limits is {limits!r}, not an EpisodeLimits"
    counts = (limits.turns, limits.turn_tokens, limits.episode_tokens, limits.workers)
    for count in counts:
        assert count is None or count >= 1, f"a limit is {count!r}, which is less than 1"


def begins_alike(subject: Subject) -> None:
    """Equal examples and seeds begin with the same text, from a second build too."""
    first, second = subject.build(), subject.build()
    for example in EXAMPLES:
        prompts = [_prompt(world, example, 3) for world in (first, first, second)]
        assert isinstance(prompts[0], str), f"prompt is {prompts[0]!r}, not a str"
        assert len(set(prompts)) == 1, f"example and seed are equal, the prompts are {prompts}"


def answers_alike(subject: Subject) -> None:
    """Equal turns of episodes with one example and seed get equal answers: all else is keyed."""
    world, again = subject.build(), subject.build()
    for example in EXAMPLES:
        played = [_play(w, example, 5, SAID) for w in (world, world, again)]
        assert played[0] == played[1] == played[2], (
            f"the same turns on {example.question!r} are answered {played[0]} and then "
            f"{played[1]}; draw from the seed alone"
        )


def answers_hostile_text(subject: Subject) -> None:
    """Nothing a model writes raises: an error of a tool is an observation."""
    world = subject.build()
    for text in HOSTILE:
        try:
            _play(world, EXAMPLES[0], 1, [text])
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(f"raises {error!r} on the turn {text[:80]!r}") from error


def plays_episodes_side_by_side(subject: Subject) -> None:
    """Episodes do not mix: what one answers does not depend on the others, on many threads."""
    world = subject.build()
    asked = [(EXAMPLES[i % len(EXAMPLES)], i) for i in range(16)]
    want = [_play(world, example, seed, SAID) for example, seed in asked]
    episodes = [world.open(example, seed=seed) for example, seed in asked]
    found: list[list[Any]] = [[] for _ in asked]
    with ThreadPoolExecutor(8) as pool:
        for text in SAID:
            live = [i for i, turns in enumerate(found) if not (turns and turns[-1].done)]
            turns = pool.map(lambda i, text=text: episodes[i].step(said(text)), live)
            for i, turn in zip(live, turns, strict=True):
                found[i].append(turn)
    rewards = [_earned(episode) for episode in episodes]
    for episode in episodes:
        episode.close()
    got = [(turns, reward) for turns, reward in zip(found, rewards, strict=True)]
    assert got == want, "episodes played side by side are answered otherwise than one by one"


def said(text: str) -> Response:
    """Return a turn of a policy that was sampled as one token a character."""
    ids = tuple(map(ord, text))
    return Response.of(Completion(text, ids, (-1.0,) * len(ids), "stop", 0))


def _prompt(world: Any, example: Example, seed: int) -> Any:
    episode = world.open(example, seed=seed)
    prompt = episode.prompt
    assert episode.prompt == prompt, "prompt differs at a second look"
    episode.close()
    return prompt


def _play(
    world: Any, example: Example, seed: int, texts: Sequence[str]
) -> tuple[list[Turn], Reward | None]:
    """Play an episode; return its turns and, where it says so itself, what it earned."""
    episode = world.open(example, seed=seed)
    turns: list[Turn] = []
    for text in texts:
        turns.append(episode.step(said(text)))
        _is_well_formed(turns[-1])
        if turns[-1].done:
            break
    reward = _earned(episode)
    episode.close()
    return turns, reward


def _earned(episode: Any) -> Reward | None:
    if not isinstance(episode, Settles):
        return None
    reward = episode.reward()
    assert isinstance(reward, Reward), f"reward returns {type(reward).__name__}, not Reward"
    for name, value in {"total": reward.total, **reward.parts}.items():
        assert math.isfinite(value), f"{name} of the reward is {value!r}, not a finite number"
    return reward


def _is_well_formed(turn: object) -> None:
    assert isinstance(turn, Turn), f"step returns {type(turn).__name__}, not Turn"
    assert isinstance(turn.observation, str), f"the observation is {turn.observation!r}, no text"
    assert isinstance(turn.done, bool), f"done is {turn.done!r}, not a bool"
    assert math.isfinite(turn.reward), f"the reward of a turn is {turn.reward!r}, not finite"


CHECKS: tuple[Check, ...] = (
    names_its_stops,
    limits_its_episodes,
    begins_alike,
    answers_alike,
    answers_hostile_text,
    plays_episodes_side_by_side,
)
