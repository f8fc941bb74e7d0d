"""A registry of made-up components, so that the kernel is tested without any real plugin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pytest
from pydantic import Field

from alignkit import Component, Params, RecipePath
from alignkit.component import PathOrName
from alignkit.plugins import Plugin, Registry
from alignkit.protocols import Algorithm, Dataset, LossType, Policy, Tracker


class Clip(Params[LossType]):
    """A clipped loss."""

    needs = frozenset({"old_logprobs"})
    cliprange: Annotated[float, Field(gt=0)] = 0.2
    """ε, dimensionless."""

    def build(self) -> LossType:
        return lambda x: ("clip", self.cliprange)


class Plain(Params[LossType]):
    """A loss without a parameter."""

    def build(self) -> LossType:
        return lambda x: ("plain",)


class Rows(Params[Dataset]):
    """Rows of a file."""

    path: RecipePath
    """The file."""

    def check(self, tables: Mapping[str, Any]):
        if "bad" in self.path.read_text():
            yield "path", f"{self.path.name}:1: a bad row"

    def build(self) -> Dataset:
        return self.path.read_text().split()


class Weights(Params[Policy]):
    """A model."""

    path: PathOrName
    """Folder or Hub name."""

    def build(self) -> Policy:
        return self.path


class Needy(Params[Policy]):
    """A model that this machine cannot hold."""

    def missing(self):
        yield "needs a moon: pip install 'alignkit[moon]'"

    def build(self) -> Policy:
        raise AssertionError("must not be built")


class Unimportable(Params[Policy]):
    """A model whose package is absent."""

    def build(self) -> Policy:
        import a_package_nobody_has  # noqa: F401

        raise AssertionError("unreachable")


class Log(Params[Tracker]):
    """A tracker."""

    label: str = ""
    """Its name."""

    def build(self) -> Tracker:
        return self.label


class EvalTable(Params[dict]):
    """A table of fixed shape."""

    every: int = 5
    """Steps."""

    def build(self, *, data: Dataset, extra: Mapping[str, Dataset] | None = None) -> dict:
        return {"every": self.every, "data": data, "extra": extra}


class ToyRun:
    def __init__(self, params, slots):
        self.params, self.slots = params, slots

    def run(self, run):
        run.log(0, {"eval/answer_reward": 0.25, "odd": float("nan")})
        run.log(1, {"eval/answer_reward": 0.75})
        run.rows(1, "rollouts", [{"text": "é<"}])
        if self.params.fail:
            raise {"user": KeyError, "interrupt": KeyboardInterrupt}[self.params.fail]("boom")
        return {"eval/answer_reward": 0.75}


class Toy(Params[Algorithm]):
    """An algorithm that does nothing."""

    seed: int = 0
    """Seed."""
    n: Annotated[int, Field(gt=0)] = 4
    """How many."""
    group: Annotated[int, Field(gt=0)] = 2
    """Must divide n."""
    gives: tuple[str, ...] = ("old_logprobs",)
    """What it provides."""
    fail: str = ""
    """How the run ends."""

    def provides(self, tables):
        return frozenset(self.gives)

    def check(self, tables):
        if self.n % self.group:
            yield "group", f"{self.group} does not divide n = {self.n}"

    def facts(self, tables):
        return {"groups": str(self.n // self.group)}

    def build(
        self,
        *,
        loss: LossType,
        policy: Policy | None = None,
        eval: Annotated[dict, EvalTable] | None = None,
        trackers: Sequence[Tracker] = (),
    ) -> Algorithm:
        return ToyRun(self, {"loss": loss, "policy": policy, "eval": eval, "trackers": trackers})


COMPONENTS = {
    "algorithm": [Component("toy", Toy)],
    "loss_type": [Component("clip", Clip), Component("plain", Plain)],
    "dataset": [Component("rows", Rows)],
    "policy": [
        Component("weights", Weights),
        Component("needy", Needy),
        Component("unimportable", Unimportable),
    ],
    "tracker": [Component("log", Log)],
}


@pytest.fixture
def registry() -> Registry:
    plugin = Plugin("toys", "alignkit-toys", "1.0", "toys")
    rival = Plugin("rivals", "alignkit-rivals", "2.0", "rivals")
    broken = Plugin("sad", "alignkit-sad", "0.1", "sad", "broken", "ImportError: no")
    offers = defaultdict(list)
    for kind, components in COMPONENTS.items():
        for component in components:
            offers[kind, component.name].append((plugin, component))
    offers["loss_type", "plain"].append((rival, Component("plain", Clip)))
    return Registry([plugin, rival, broken], dict(offers))
