"""A planted bug per property of an algorithm."""

import random
from collections.abc import Sequence

import pytest

from alignkit import Params
from alignkit.engine.training.parts import Parts
from alignkit.engine.training.resources import opened
from alignkit.protocols import Algorithm, LossType, Tracker
from alignkit.testing import tiny_model
from alignkit_hf import HfPolicy


class Steps:
    """Logs three made-up steps."""

    def __init__(self, params, trackers):
        self.seed, self.trackers = params.seed, trackers

    def run(self, run):
        run.attach(self.trackers)
        chance = random.Random(self.seed)
        for step in range(3):
            metrics = {"train/loss": self.loss(chance)}
            run.log(step, metrics)
        return metrics

    def loss(self, chance):
        return chance.random()


class ReturnsNothing(Steps):
    def run(self, run):
        super().run(run)
        return {}


class Fails(Steps):
    def run(self, run):
        raise ValueError("boom")


class LogsTwice(Steps):
    def run(self, run):
        super().run(run)
        run.log(2, {"eval/reward": 1.0})
        return {"eval/reward": 1.0}


class LogsNan(Steps):
    def loss(self, chance):
        return float("nan")

    def run(self, run):
        super().run(run)
        return {"loss": 0.0}


class OverwritesTheRecipe(Steps):
    def run(self, run):
        (run.dir / "recipe.toml").write_text("seed = 1\n")
        return super().run(run)


class ForgetsTrackers(Steps):
    def __init__(self, params, trackers):
        super().__init__(params, ())


class Unseeded(Steps):
    def loss(self, chance):
        return random.random()


class ForgetsItsPlace(Steps):
    """Draws from a generator that no checkpoint holds."""

    def run(self, run):
        policy = HfPolicy(path=str(tiny_model())).build()
        parts = Parts(policy=policy, seed=0, token_budget=64, trackers=self.trackers)
        self.chance = random.Random(self.seed)
        with opened(parts, run) as training:
            for _ in training.steps(3, state=self.state()):
                training.end_step({"train/loss": self.loss(self.chance)})
            return training.finish()

    def state(self):
        return {}


class KnowsItsPlace(ForgetsItsPlace):
    def state(self):
        return {"chance": self}

    def state_dict(self):
        return {"chance": self.chance.getstate()}

    def load_state_dict(self, state):
        self.chance.setstate(state["chance"])


ALGORITHM_BUGS = {
    "runs": ReturnsNothing,
    "logs_its_steps": LogsTwice,
    "logs_finite_numbers": LogsNan,
    "keeps_recipe_and_manifest": OverwritesTheRecipe,
    "attaches_its_trackers": ForgetsTrackers,
    "repeats_itself": Unseeded,
    "resumes_exactly": ForgetsItsPlace,
}


def algorithm_of(made):
    class Planted(Params[Algorithm]):
        """An algorithm made up by a test."""

        seed: int = 0
        """Seed."""

        def build(self, *, loss: LossType, trackers: Sequence[Tracker] = ()) -> Algorithm:
            return made(self, trackers)

    return Planted


@pytest.mark.parametrize("sound", [Steps, KnowsItsPlace])
def test_a_sound_algorithm_passes(failing, sound):
    assert failing("algorithm", algorithm_of(sound)) == {}


@pytest.mark.parametrize(("check", "bug"), [*ALGORITHM_BUGS.items(), ("runs", Fails)])
def test_bug_in_an_algorithm_is_caught(failing, check, bug):
    assert check in failing("algorithm", algorithm_of(bug), only=check)


def test_every_check_has_a_planted_bug(names):
    assert names("algorithm") == set(ALGORITHM_BUGS)
