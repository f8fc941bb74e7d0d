"""A learner with a plain optimizer and loss, for tests."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective, Surrogate
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import LossOutput


class Sgd:
    """Plain gradient descent: with lr 1 the change of the weights is minus the gradient."""

    def __init__(self, lr=1.0, max_grad_norm=math.inf):
        self.lr, self.max_grad_norm = lr, max_grad_norm

    def start(self, parameters, *, total_steps):
        optimizer = torch.optim.SGD(parameters, lr=self.lr)
        return optimizer, LambdaLR(optimizer, lambda step: 1 - step / total_steps)


def reinforce(x):
    """The loss of a plain policy gradient, with two metrics."""
    metrics = {"place": torch.arange(x.mask.shape[1]).expand_as(x.mask), "twice": 2 * x.advantages}
    return LossOutput(per_token=-x.advantages * x.logprobs, metrics=metrics)


def with_kl(x):
    """``reinforce`` with a term that has a gradient at rows without advantage too."""
    output = reinforce(x)
    return LossOutput(per_token=output.per_token + x.logprobs, metrics=output.metrics)


def token_mean(per_token, mask, /, *, totals):
    return torch.where(mask, per_token, 0).sum() / max(totals.tokens, 1)


class Teacher(Learner):
    """A learner of one objective."""

    def __init__(self, policy, objective, optimizer, **settings):
        super().__init__(policy, optimizer, **settings)
        self.objective = objective

    def step(self, rows):
        return super().step(rows, self.objective)


def learner(policy, *, loss=reinforce, normalizer=token_mean, optimizer=None, temperature=1.0,
            zero=None, **changes):  # fmt: skip
    """Of the losses here, ``reinforce`` is zero without advantage."""
    surrogate = Surrogate(loss, loss is reinforce if zero is None else zero)
    objective = Objective(surrogate, normalizer, temperature)
    settings = {"token_budget": 12, "total_steps": 4, **changes}
    return Teacher(policy, objective, optimizer or Sgd(), **settings)


def weights(policy):
    return torch.cat([p.detach().flatten().clone() for p in policy.model.parameters()])


ROWS = [
    TrainRow((3, 4), (5, 6, 7), 1.0),
    TrainRow((3, 4, 8), (), 5.0),
    TrainRow((9,), (10,), -2.0),
    TrainRow((9, 2), (10, 11, 12, 13), 0.0),
]
