"""Checks of policies that only score: a right one passes, and each fault is found by its check."""

import random
from functools import cache
from typing import ClassVar

import pytest
import torch

from alignkit import AlignkitError, Params
from alignkit.protocols import Policy
from alignkit.testing import checks, registry_of, tiny_model


@cache
def model():
    from alignkit_hf import HfPolicy

    return HfPolicy(path=str(tiny_model()), device="cpu").build()


class Scorer:
    """Scores by the kit's model, in this process."""

    def __init__(self):
        self.policy = model()

    def meet(self, policy, /, *, temperature):
        ids = sorted(policy.tokenizer.get_vocab().values())
        if policy.tokenizer.decode(ids) != self.policy.tokenizer.decode(ids):
            raise AlignkitError("other ids")

    def logits(self, ids):
        with torch.no_grad():
            return self.policy.model(torch.tensor([list(ids)])).logits[0]

    def one(self, ids, first):
        log_p = self.logits(ids).log_softmax(-1)
        return [log_p[i - 1, ids[i]].item() for i in range(first, len(ids))]

    def score(self, rows, /):
        return [self.one(*row) for row in rows]


class TooFew(Scorer):
    def one(self, ids, first):
        return super().one(ids, first)[1:]


class NotFinite(Scorer):
    def one(self, ids, first):
        return [*super().one(ids, first)[:-1], float("-inf")]


class Probabilities(Scorer):
    def one(self, ids, first):
        return [torch.tensor(p).exp().item() for p in super().one(ids, first)]


class Warm(Scorer):
    def logits(self, ids):
        return super().logits(ids) / 2


class OneOff(Scorer):
    """Scores each id by what follows it, too."""

    def one(self, ids, first):
        log_p = self.logits(ids).log_softmax(-1)
        return [log_p[i, ids[i]].item() for i in range(first, len(ids))]


class Padded(Scorer):
    """Pads at the left, without a mask."""

    def score(self, rows, /):
        longest = max(len(ids) for ids, _ in rows)
        pad = [[self.policy.pad_id] * (longest - len(ids)) for ids, _ in rows]
        return [self.one([*p, *i], len(p) + n) for p, (i, n) in zip(pad, rows, strict=True)]


class Sorted(Scorer):
    """Returns the rows in the order of their lengths."""

    def score(self, rows, /):
        return super().score(sorted(rows, key=lambda row: len(row[0])))


class Looking(Scorer):
    """Looks at the last id before it scores the first."""

    def logits(self, ids):
        return super().logits(ids) + super().logits(ids)[-1]


class FromItsPlace(Scorer):
    """Forgets what stands before the scored ids but one."""

    def one(self, ids, first):
        return super().one(ids[first - 1 :], 1)


class Drawing(Scorer):
    def one(self, ids, first):
        return [p - random.random() for p in super().one(ids, first)]


class Blind(Scorer):
    def meet(self, policy, /, *, temperature):
        """Take any."""


BROKEN = {
    TooFew: "gives_a_number_per_id",
    NotFinite: "gives_a_number_per_id",
    Probabilities: "gives_a_number_per_id",
    Warm: "scores_by_the_model",
    OneOff: "scores_by_the_model",
    Padded: "scores_rows_apart",
    Sorted: "scores_rows_apart",
    Looking: "scores_without_looking_ahead",
    FromItsPlace: "scores_without_looking_ahead",
    Drawing: "scores_again_alike",
    Blind: "refuses_other_ids",
}


def failing(scorer, names=None):
    """Return the checks that it fails, of those by name, or of all."""

    class Mine(Params[Policy]):
        """Scores."""

        only_scores: ClassVar[bool] = True

        def build(self) -> Policy:
            return scorer()

    found = []
    for case in checks("mine", registry=registry_of(policy={"mine": Mine})):
        name = case.id.rpartition("/")[2]
        try:
            if names is None or name in names:
                case.run()
        except AssertionError:
            found.append(name)
    return found


def test_one_that_scores_by_the_model_passes():
    assert failing(Scorer) == []


@pytest.mark.parametrize("scorer", BROKEN)
def test_each_fault_is_found(scorer):
    assert failing(scorer, [BROKEN[scorer]]) == [BROKEN[scorer]]


def test_every_check_finds_a_fault():
    from alignkit_testing.scoring import CHECKS

    assert {check.__name__ for check in CHECKS} == set(BROKEN.values())


def test_a_teacher_behind_a_server_passes(serving):
    with serving(Scorer().policy) as server:
        found = list(checks("vllm", params={"policy/vllm": {"url": server.url}}))
        own = [case for case in found if case.id.startswith("policy/vllm/")]
        assert any(case.id.endswith("scores_by_the_model") for case in own)
        for case in own:
            case.run()
