"""What `conformance` makes of a plugin, and the checks that hold for every component."""

from typing import Annotated, ClassVar

import pytest
from pydantic import ConfigDict, Field, field_validator

from alignkit import Params
from alignkit.kinds import HOOKS
from alignkit.protocols import LossOutput, LossType
from alignkit.testing import checks, registry_of
from alignkit_testing.kit import checks_of


class Reinforce(Params[LossType]):
    """Advantage times log-probability."""

    scale: Annotated[float, Field(gt=0)] = 1.0
    """Multiplies the loss. Dimensionless."""

    def build(self) -> LossType:
        return lambda x: LossOutput(per_token=-self.scale * x.advantages * x.logprobs)


class Undocumented(Params[LossType]):
    scale: float = 1.0
    """Multiplies the loss."""

    build = Reinforce.build


class BareField(Params[LossType]):
    """A loss."""

    scale: float = 1.0

    build = Reinforce.build


class BadDefault(Params[LossType]):
    """A loss."""

    scale: Annotated[float, Field(gt=0)] = 0.0
    """Multiplies the loss."""

    build = Reinforce.build


class TakesAnything(Params[LossType]):
    """A loss."""

    model_config = ConfigDict(extra="allow")
    scale: float = 1.0
    """Multiplies the loss."""

    build = Reinforce.build


class BadSlot(Params[LossType]):
    """A loss."""

    def build(self, *, other: int) -> LossType:
        raise AssertionError("not reached")


class Percent(Params[LossType]):
    """A loss whose table, as it is written out, means something else when it is read again."""

    scale: float = 100.0
    """Multiplies the loss, in percent."""

    @field_validator("scale")
    @classmethod
    def share(cls, value: float) -> float:
        return value / 100

    build = Reinforce.build


class BuildsNothing(Params[LossType]):
    """A loss."""

    def build(self) -> LossType:
        return None


class RenamedToNothing(Params[LossType]):
    """A loss."""

    scale: float = 1.0
    """Multiplies the loss."""
    renamed: ClassVar[dict[str, str]] = {"factor": "scales"}

    build = Reinforce.build


EVERY = {
    "has_a_docstring": Undocumented,
    "documents_its_fields": BareField,
    "has_valid_defaults": BadDefault,
    "refuses_unknown_keys": TakesAnything,
    "renames_to_keys_it_has": RenamedToNothing,
    "survives_its_own_recipe": Percent,
    "builds": BuildsNothing,
}


@pytest.mark.parametrize("check", EVERY)
def test_a_planted_bug_is_caught(failing, check):
    assert check in failing("loss_type", EVERY[check], only=check)


def test_a_sound_component_passes(failing):
    assert failing("loss_type", Reinforce) == {}


def test_a_name_that_is_not_snake_case_is_caught():
    cases = checks("mine", registry=registry_of(loss_type={"GrpoClip": Reinforce}))
    (case,) = [c for c in cases if c.id.endswith("has_a_snake_case_name")]
    with pytest.raises(AssertionError, match="'GrpoClip' is not snake_case"):
        case.run()


def test_a_slot_of_no_kind_is_caught():
    cases = checks("mine", registry=registry_of(loss_type={"bad": BadSlot}))
    (case,) = [c for c in cases if c.id.endswith("has_slots_of_known_kinds")]
    with pytest.raises(TypeError, match="'other' is annotated"):
        case.run()


ABILITIES = [
    ("optimizer", "built", "on_shards", True),
    ("policy", "built", "parallel", "shard"),
    ("policy", "params", "parallel", "auto"),
    ("rollout_backend", "params", "on_ranks", True),
    ("rollout_backend", "params", "samples_ahead", False),
    ("rollout_backend", "params", "cards", 2),
    ("algorithm", "built", "on_ranks", False),
]


@pytest.mark.parametrize(("kind", "of", "name", "value"), ABILITIES)
def test_an_ability_stated_by_a_method_is_caught(planted, failing, kind, of, name, value):
    check = "states_its_abilities_as_values"

    def said(stated):
        made = type("Made", (), {name: stated} if of == "built" else {})
        params = planted(made)
        if of == "params":
            setattr(params, name, stated)
        return failing(kind, params, only=check)

    assert said(property(lambda self: value)) == {}
    assert f"{name} is <bound method" in said(lambda self: value)[check]


def test_every_general_check_has_a_planted_bug(names):
    tested_apart = {
        "has_a_snake_case_name",
        "has_slots_of_known_kinds",
        "states_its_abilities_as_values",
    }
    assert names("every") == set(EVERY) | tested_apart


@pytest.mark.parametrize("kind", HOOKS)
def test_every_kind_has_checks_with_help_and_unlike_names(kind):
    found = list(checks_of(kind))
    assert len({check.__name__ for check in found}) == len(found)
    assert all(check.__doc__ for check in found)
