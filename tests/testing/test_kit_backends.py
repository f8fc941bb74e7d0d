"""A planted bug per property of a rollout backend."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest

from alignkit.engine.sampling.rollout_table import SamplingParams
from alignkit.protocols import RolloutBackend, Sampling
from alignkit_hf.sampling.backend import HfBackend


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
        self._paths.policy.version = policy.version


class ClosesOnce(Backend):
    def close(self):
        assert self._paths is not None, "was not started"
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


def test_every_check_has_a_planted_bug(names):
    assert names("rollout_backend") == set(BACKEND_BUGS)
