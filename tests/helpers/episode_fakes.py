"""Environments and backends for tests of episodes, and a function that plays them."""

import time
from dataclasses import dataclass, field

import rollout_fakes
from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.opening import Opening
from alignkit.engine.sampling.questions import make_prompt
from alignkit.engine.sampling.rollouts import collect, with_stops
from alignkit.episodes import EpisodeLimits, Turn
from alignkit.protocols import Completion, Example, Sampling


@dataclass
class FakePolicy(rollout_fakes.FakePolicy):
    max_length: int = 1000


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
