"""The parts of a small run: a random model, questions, and rewards it can learn from."""

import json
import math
from dataclasses import dataclass, field

import pytest
import torch

from alignkit.component import make
from alignkit.engine.learning.learner import Learner
from alignkit.execution import Run
from alignkit.lifecycle.checkpoints import Store
from alignkit.lifecycle.resume_point import BEGINNING, Start, rewind
from alignkit.lifecycle.signals import Interrupted
from alignkit.protocols import Example, Reward
from alignkit_testing.algorithm import is_measured


@dataclass(frozen=True)
class Template:
    """The question and a colon."""

    stop: tuple = ("#",)

    def render(self, question):
        return f"{question}:"


def first_is_ascii(responses, examples):
    """1 for a response that begins with an ASCII character: about half of random bytes do."""
    scores = [float(bool(r) and r[0].isascii()) for r in responses]
    return [Reward(s, {"format": 1.0, "answer": s}) for s in scores]


class Sgd:
    """Plain gradient descent: with lr 1 the change of the weights is minus the gradient."""

    max_grad_norm = math.inf

    def __init__(self, lr=1.0):
        self.lr, self.total_steps = lr, None

    def start(self, parameters, *, total_steps):
        from torch.optim import SGD
        from torch.optim.lr_scheduler import ConstantLR

        self.total_steps = total_steps
        optimizer = SGD(parameters, lr=self.lr)
        return optimizer, ConstantLR(optimizer, factor=1.0)


def group_mean(rewards, *, group_size):
    groups = rewards.view(-1, group_size)
    return (groups - groups.mean(1, keepdim=True)).flatten()


class Rising:
    """An advantage with a memory: the mean reward so far is its baseline."""

    def __init__(self):
        self.total, self.count = 0.0, 0

    def __call__(self, rewards, *, group_size):
        self.total, self.count = self.total + float(rewards.sum()), self.count + len(rewards)
        return rewards - self.total / self.count

    def state_dict(self):
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state):
        self.total, self.count = state["total"], state["count"]


@dataclass
class Toys:
    """Everything a run needs, and ways to look at it."""

    folder: object
    Template: type = Template
    Rising: type = Rising
    Sgd: type = Sgd
    first_is_ascii: object = staticmethod(first_is_ascii)
    group_mean: object = staticmethod(group_mean)
    made: list = field(default_factory=list)

    def policy(self):
        from alignkit_hf import HfPolicy

        return HfPolicy(path=str(self.folder)).build()

    def backend(self, **keys):
        from alignkit_hf import HfRollout

        return HfRollout(**{"max_tokens": 4, **keys}).build()

    def adamw(self, lr=3e-3, **keys):
        from alignkit_optimizers import AdamW

        return AdamW(lr=lr, **keys).build()

    def questions(self, count=12):
        return [Example(f"id{i}", f"q{i}", str(i)) for i in range(count)]

    def loss(self, name="grpo_clip"):
        import alignkit_losses as losses

        return make({c.name: c.params for c in losses.loss_type()}[name]())

    def normalizer(self, name="masked_mean", **keys):
        import alignkit_normalizers as normalizers

        return {c.name: c.params for c in normalizers.normalizer()}[name](**keys).build()

    def assemble(self, keys, **given):
        """Build an algorithm of these keys; two tables go by the name they have in the engine."""
        names = {"backend": "rollout", "plan": "eval"}
        return keys.build(**{names.get(k, k): v for k, v in given.items()})

    def grpo(self, keys, algorithm=None, **parts):
        """Put a small run of GRPO, or of an ``algorithm`` like it, together.

        ``parts`` stand in for some of its parts.
        """
        from alignkit_algorithms.grpo import Grpo

        given = {
            "policy": self.policy(),
            "data": self.questions(),
            "prompt": self.Template(),
            "reward": self.first_is_ascii,
            "advantage": self.group_mean,
            "loss": self.loss(),
            "normalizer": self.normalizer(),
            "backend": self.backend(),
            "optimizer": self.adamw(),
        }
        return self.assemble((algorithm or Grpo)(**keys), **{**given, **parts})

    def carry_out(self, algorithm, folder):
        """Run an algorithm as the kernel does; return the rows of its metrics."""
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(folder, {})
        try:
            algorithm.run(run)
        finally:
            run.close("done")
        return self.rows(folder)

    def rows(self, folder):
        """Return the rows of metrics that a run logged."""
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    def end_after(self, step, algorithm, folder):
        """Run an algorithm until it has logged ``step``, and interrupt it there."""
        folder.mkdir()
        run = Run(folder, {})
        log = run.log

        def interrupted(logged, metrics):
            log(logged, metrics)
            if logged == step:
                raise Interrupted("a test", 130)

        run.log = interrupted
        with pytest.raises(Interrupted):
            algorithm.run(run)
        run.close("failed")

    def go_on(self, algorithm, folder):
        """Resume a run; return where it started from, what it returned, and all its rows."""
        found = Store(folder / "checkpoints").newest(pytest.fail)
        start = Start(*found) if found else BEGINNING
        rewind(folder, start)
        run = Run(folder, {}, start)
        result = algorithm.run(run)
        run.close("done")
        return start, result, self.rows(folder)

    def is_keyed_by_seed_step_and_question(self, asked):
        """Check what two steps of a run with seed 5 asked a backend for."""
        first, second = asked
        assert [(s.seed, s.step, s.n, s.stop) for s in asked] == [
            (5, 1, 4, ("#",)),
            (5, 2, 4, ("#",)),
        ]
        assert set(first.prompt_keys).isdisjoint(second.prompt_keys)  # 2 x 4 of 12 questions
        assert first.max_tokens == 4

    def timeless(self, rows):
        """Drop what differs between two runs of the same recipe."""
        return [{k: v for k, v in row.items() if not is_measured(k)} for row in rows]

    def weights(self, policy):
        import torch

        return torch.cat([p.detach().flatten().clone() for p in policy.model.parameters()])


class Watched:
    """A backend that notes what it is asked, and the policy's version at that moment."""

    def __init__(self, inner):
        self.inner, self.sampling, self.calls, self.asked = inner, inner.sampling, [], []

    def start(self, policy):
        self.policy = policy
        self._note("start")
        self.inner.start(policy)

    def sync(self, policy):
        self._note("sync")
        self.inner.sync(policy)

    def generate(self, prompts, sampling):
        self._note("generate")
        self.asked.append(sampling)
        return self.inner.generate(prompts, sampling)

    def close(self):
        self._note("close")
        self.inner.close()

    def _note(self, what):
        self.calls.append((what, self.policy.version))


@pytest.fixture
def watched(toys):
    return Watched(toys.backend())


@pytest.fixture
def toys(tiny_folder):
    return Toys(tiny_folder)


@pytest.fixture
def grpo(toys):
    """Return a function that puts a GRPO run of three steps with four updates each together."""
    small = {
        "n_steps": 3,
        "rollout_batch_size": 16,
        "group_size": 4,
        "train_batch_size": 8,
        "epochs_per_rollout_batch": 2,
    }
    return lambda keys=None, **parts: toys.grpo({**small, **(keys or {})}, **parts)


@pytest.fixture
def steps(monkeypatch):
    """Record the rows of every optimizer step."""
    seen = []
    step = Learner.step

    def recording(self, rows, *args, **how):
        seen.append(list(rows))
        return step(self, rows, *args, **how)

    monkeypatch.setattr(Learner, "step", recording)
    return seen


@pytest.fixture
def ended(monkeypatch):
    """End a run before its n-th optimizer step changes a weight, as a signal would."""

    def run(algorithm, folder, before):
        folder.mkdir()
        started = Run(folder, {})
        apply, count = Learner._apply, [0]

        def counted(self, *args):
            count[0] += 1
            if count[0] == before:
                started.signals.interrupt("a test")
                started.signals.poll()
            return apply(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Learner, "_apply", counted)
            with pytest.raises(Interrupted):
                algorithm.run(started)
        started.close("failed")

    return run


@pytest.fixture
def teacher(toys):
    """A policy that is surer of its tokens than the one that is trained."""
    policy = toys.policy()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.5)
    return policy
