"""A planted bug per property of policies, rollout backends and algorithms."""

import copy
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from types import SimpleNamespace

import pytest
import torch

from alignkit import Params
from alignkit.engine.sampling.rollout_table import SamplingParams
from alignkit.engine.training.loop import Parts
from alignkit.protocols import Algorithm, LossType, Policy, RolloutBackend, Sampling, Tracker
from alignkit.testing import tiny_model
from alignkit_hf import HfPolicy
from alignkit_hf.policy import CausalPolicy
from alignkit_hf.rollout import HfBackend

# ---------------------------------------------------------------- policies


class EndsAtNothing(CausalPolicy):
    eos_ids = frozenset()


class StartsAtOne(CausalPolicy):
    def __init__(self, params):
        super().__init__(params)
        self.version = 1


class Reloads(CausalPolicy):
    @property
    def model(self):
        return CausalPolicy(self.params).model


class DropsOut(CausalPolicy):
    @cached_property
    def model(self):
        made = CausalPolicy(self.params).model
        made.model.norm.register_forward_hook(lambda m, x, y: torch.dropout(y, 0.1, True))
        return made


class LowerCase(CausalPolicy):
    @cached_property
    def tokenizer(self):
        from tokenizers.normalizers import Lowercase

        made = CausalPolicy(self.params).tokenizer
        made.backend_tokenizer.normalizer = Lowercase()
        return made


class SavesTheOld(CausalPolicy):
    def save(self, folder):
        shutil.copytree(self.name, folder)


class SavesOneEnd(CausalPolicy):
    def save(self, folder):
        super().save(folder)
        self.model.generation_config.eos_token_id = min(self.eos_ids)
        self.model.generation_config.save_pretrained(folder)


POLICY_BUGS = {
    "knows_its_ids": EndsAtNothing,
    "starts_at_version_zero": StartsAtOne,
    "holds_one_model": Reloads,
    "predicts_without_chance": DropsOut,
    "keeps_text": LowerCase,
    "saves_what_it_is": SavesTheOld,
}


def policy_of(made):
    class Planted(HfPolicy):
        """A policy made up by a test."""

        def build(self) -> Policy:
            return made(self)

    return Planted


@pytest.mark.parametrize(
    ("check", "bug"), [*POLICY_BUGS.items(), ("saves_what_it_is", SavesOneEnd)]
)
def test_bug_in_a_policy_is_caught(failing, check, bug):
    table = {"path": tiny_model()}
    assert check in failing("policy", policy_of(bug), only=check, table=table)


# ---------------------------------------------------------------- rollout backends


class Backend(HfBackend):
    """The built-in backend; bugs change what goes in or what comes out."""

    def generate(self, prompts, sampling):
        groups = super().generate(prompts, self.asked(sampling))
        return [[self.given(c, sampling) for c in group] for group in groups]

    def asked(self, sampling):
        return sampling

    def given(self, completion, sampling):
        return completion


class OwnSampling(Backend):
    def __init__(self, sampling, **how):
        super().__init__(Sampling(), **how)


class OneForAll(Backend):
    def asked(self, sampling):
        return replace(sampling, n=1)


class LongestFirst(Backend):
    def generate(self, prompts, sampling):
        return super().generate(sorted(prompts, key=len, reverse=True), sampling)


class OldVersion(Backend):
    def given(self, completion, sampling):
        return replace(completion, weight_version=0)


class RawLogprobs(Backend):
    def given(self, completion, sampling):  # as if the temperature were left out
        scale = 1.3 if sampling.temperature != 1 else 1.0
        return replace(completion, logprobs=tuple(p * scale for p in completion.logprobs))


class NeverGreedy(Backend):
    def asked(self, sampling):
        return replace(sampling, temperature=sampling.temperature or 1.0)


class AlwaysStops(Backend):
    def given(self, completion, sampling):
        return replace(completion, finish_reason="stop")


class NoMinimum(Backend):
    def asked(self, sampling):
        return replace(sampling, min_tokens=0)


class OneEnd(Backend):
    def start(self, policy):
        first = frozenset([min(policy.eos_ids)])

        class Half:
            eos_ids = first

            def __getattr__(self, name):
                return getattr(policy, name)

        super().start(Half())

    def sync(self, policy):
        pass


class KeepsNoStop(Backend):
    def given(self, completion, sampling):
        for stop in sampling.stop:
            completion = replace(completion, text=completion.text.removesuffix(stop))
        return completion


class OwnSeed(Backend):
    def asked(self, sampling):
        return replace(sampling, seed=0)


class ForgetsTheStep(Backend):
    def asked(self, sampling):
        return replace(sampling, step=0)


class ByPosition(Backend):
    def asked(self, sampling):
        return replace(sampling, prompt_keys=None)


class Streams(HfBackend):
    """Streams what ``given_stream`` makes of it; ``generate`` stays sound."""

    def generate(self, prompts, sampling):
        groups = dict(HfBackend.stream(self, prompts, sampling))
        return [groups[i] for i in range(len(prompts))]


class StreamsBackwards(Streams):
    def stream(self, prompts, sampling):
        for i, group in super().stream(prompts, sampling):
            yield len(prompts) - 1 - i, group


class StreamsTooFew(Streams):
    def stream(self, prompts, sampling):
        yield from list(super().stream(prompts, sampling))[:-1]


class StreamsTwice(Streams):
    def stream(self, prompts, sampling):
        for item in super().stream(prompts, sampling):
            yield from (item, item)


class StreamsOtherDraws(Streams):
    def stream(self, prompts, sampling):
        return super().stream(prompts, replace(sampling, seed=sampling.seed + 1))


class KeepsWhatWasLeft(Streams):
    """What a stream left behind comes out of the next call, as from an engine's queue."""

    queue = ()

    def stream(self, prompts, sampling):
        self.queue = list(super().stream(prompts, sampling))
        while self.queue:
            yield self.queue.pop()

    def generate(self, prompts, sampling):
        groups = super().generate(prompts, sampling)
        for i, group in self.queue:
            groups[-1 - i] = group
        self.queue = ()
        return groups


class OwnWeights(Backend):
    """Samples from a copy made at the start."""

    def start(self, policy):
        frozen = SimpleNamespace(**{n: getattr(policy, n) for n in dir(policy) if n[0] != "_"})
        frozen.model = copy.deepcopy(policy.model)
        frozen.autocast = policy.autocast
        super().start(frozen)

    def sync(self, policy):
        self._forward.policy.version = policy.version


class ClosesOnce(Backend):
    def close(self):
        assert self._forward is not None, "was not started"
        super().close()


BACKEND_BUGS = {
    "offers_its_sampling": OwnSampling,
    "gives_n_to_each": OneForAll,
    "keeps_prompts_in_order": LongestFirst,
    "fills_its_records": OldVersion,
    "reports_the_logprobs_it_drew_from": RawLogprobs,
    "is_greedy_at_temperature_zero": NeverGreedy,
    "obeys_max_tokens": AlwaysStops,
    "obeys_min_tokens": NoMinimum,
    "ends_at_every_eos": OneEnd,
    "ends_after_a_stop_string": KeepsNoStop,
    "is_reproducible": OwnSeed,
    "draws_by_key_not_by_position": ByPosition,
    "streams_what_it_generates": StreamsOtherDraws,
    "can_be_left_amid_a_stream": KeepsWhatWasLeft,
    "follows_the_weights": OwnWeights,
    "closes_twice": ClosesOnce,
}


def backend_of(made):
    class Planted(SamplingParams):
        """A backend made up by a test."""

        def build(self) -> RolloutBackend:
            return made(self.sampling(), kv_cache_tokens=2**14)

    return Planted


@pytest.mark.parametrize(
    ("check", "bug"),
    [
        *BACKEND_BUGS.items(),
        ("is_reproducible", ForgetsTheStep),
        ("streams_what_it_generates", StreamsBackwards),
        ("streams_what_it_generates", StreamsTooFew),
        ("streams_what_it_generates", StreamsTwice),
    ],
)
def test_bug_in_a_backend_is_caught(failing, check, bug):
    table = {"max_tokens": 9}
    assert check in failing("rollout_backend", backend_of(bug), only=check, table=table)


def test_the_bare_wrapper_passes_but_for_what_it_wraps(failing):
    for check in ("keeps_prompts_in_order", "ends_after_a_stop_string", "follows_the_weights"):
        assert failing("rollout_backend", backend_of(Backend), only=check) == {}
    for check in ("streams_what_it_generates", "can_be_left_amid_a_stream"):
        assert failing("rollout_backend", backend_of(Streams), only=check) == {}


# ---------------------------------------------------------------- algorithms


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
        with parts.open(run) as training:
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


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("kind", "bugs"),
    [
        ("policy", POLICY_BUGS),
        ("rollout_backend", BACKEND_BUGS),
        ("algorithm", ALGORITHM_BUGS),
    ],
)
def test_every_check_has_a_planted_bug(names, kind, bugs):
    assert names(kind) == set(bugs)
