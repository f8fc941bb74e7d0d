"""A planted bug per property of a policy."""

import shutil
from functools import cached_property

import pytest
import torch

from alignkit.protocols import Policy
from alignkit.testing import tiny_model
from alignkit_hf import HfPolicy
from alignkit_hf.policy.causal import CausalPolicy


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


class ForgetsItsEnds(CausalPolicy):
    def end_at(self, ids):
        self.eos_ids = frozenset(ids)


class SavesNoNewEnd(CausalPolicy):
    def end_at(self, ids):
        self.eos_ids = self.eos_ids.union(ids)


POLICY_BUGS = {
    "knows_its_ids": EndsAtNothing,
    "starts_at_version_zero": StartsAtOne,
    "holds_one_model": Reloads,
    "predicts_without_chance": DropsOut,
    "keeps_text": LowerCase,
    "saves_what_it_is": SavesTheOld,
    "ends_where_it_is_told": ForgetsItsEnds,
}


def policy_of(made):
    class Planted(HfPolicy):
        """A policy made up by a test."""

        def build(self) -> Policy:
            return made(self)

    return Planted


@pytest.mark.parametrize(
    ("check", "bug"),
    [
        *POLICY_BUGS.items(),
        ("saves_what_it_is", SavesOneEnd),
        ("ends_where_it_is_told", SavesNoNewEnd),
    ],
)
def test_bug_in_a_policy_is_caught(failing, check, bug):
    table = {"path": tiny_model()}
    assert check in failing("policy", policy_of(bug), only=check, table=table)


def test_every_check_has_a_planted_bug(names):
    assert names("policy") == set(POLICY_BUGS)
