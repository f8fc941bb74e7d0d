"""A policy, a backend and a reward for tests of rollouts, none of which computes."""

from dataclasses import dataclass, field
from types import SimpleNamespace

from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.questions import make_prompt
from alignkit.engine.sampling.rollouts import collect
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


def questions(count, *, long=()):
    return [Example(str(i), "q" * (50 if i in long else 1), "") for i in range(count)]
