"""A planted bug per property of optimizers."""

import pytest
import torch


class Sgd:
    """Plain gradient descent with a constant rate."""

    max_grad_norm = 1.0
    lr = 0.05

    def start(self, parameters, *, total_steps):
        optimizer = self.made(list(parameters))
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor)

    def made(self, parameters):
        return torch.optim.SGD(parameters, lr=self.lr, momentum=0.5)

    def factor(self, step):
        return 1.0


class NoLimit(Sgd):
    max_grad_norm = 0.0


class NoSchedule(Sgd):
    def start(self, parameters, *, total_steps):
        return self.made(list(parameters)), None


class Forgets(Sgd):
    def made(self, parameters):
        return super().made(parameters[1:])


class ForgetsOnceShown(Sgd):
    shown = False

    def look(self, model):
        self.shown = True

    def made(self, parameters):
        return super().made(parameters[1:] if self.shown else parameters)


class Uphill(Sgd):
    def made(self, parameters):
        return torch.optim.SGD(parameters, lr=self.lr, maximize=True)


class NegativeRate(Sgd):
    def factor(self, step):
        return 1 - step / 10  # below zero after 10 of 20 steps


class LosesState(Sgd):
    def made(self, parameters):
        made = super().made(parameters)
        load = made.load_state_dict
        made.load_state_dict = lambda state: load({**state, "state": {}})  # momentum is gone
        return made


class ByTheTensor(Sgd):
    on_shards = True

    def made(self, parameters):
        made = super().made(parameters)
        step = made.step

        def normed(closure=None):
            for p in parameters:
                p.grad /= p.grad.norm() + 1e-6  # the norm of a tensor, not of its part
            return step(closure)

        made.step = normed
        return made


OPTIMIZER_BUGS = {
    "clips_at_a_positive_norm": NoLimit,
    "gives_an_optimizer_and_a_schedule": NoSchedule,
    "holds_every_parameter_once": Forgets,
    "looks_and_holds_every_parameter": ForgetsOnceShown,
    "goes_downhill": Uphill,
    "follows_its_schedule": NegativeRate,
    "treats_numbers_by_themselves": ByTheTensor,
    "resumes": LosesState,
}


def test_a_sound_optimizer_passes(planted, failing):
    assert failing("optimizer", planted(Sgd)) == {}


@pytest.mark.parametrize("check", OPTIMIZER_BUGS)
def test_bug_in_an_optimizer_is_caught(planted, failing, check):
    assert check in failing("optimizer", planted(OPTIMIZER_BUGS[check]), only=check)


def test_parameters_that_can_be_read_once_are_given(planted, failing):
    class ReadsTwice(Sgd):
        def start(self, parameters, *, total_steps):
            count = sum(1 for _ in parameters)
            assert count
            return super().start(parameters, total_steps=total_steps)

    check = "holds_every_parameter_once"
    said = failing("optimizer", planted(ReadsTwice), only=check)
    assert "empty parameter list" in said[check]


def test_every_check_has_a_planted_bug(names):
    assert names("optimizer") == set(OPTIMIZER_BUGS)
