"""Made-up plugins and metadata: listed in one of the five states, and the good ones still work."""

import random
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import alignkit.plugins as loading
from alignkit import Component, Params, hookimpl, listing
from alignkit.errors import AlignkitError
from alignkit.protocols import LossType

QUIET = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}


class Good(Params[LossType]):
    """A loss."""

    def build(self) -> LossType:
        return lambda x: x


class BadSlot(Params[LossType]):
    """A loss with a slot of no kind."""

    def build(self, *, thing: int) -> LossType:
        return lambda x: x


class Lost(Params[LossType]):
    """A loss with an annotation that does not exist."""

    def build(self, *, thing: "NoSuchType") -> LossType:  # noqa: F821
        return lambda x: x


OFFERED = (
    Component("good", Good), Component("", Good), Component("a/b", Good), Component("x", BadSlot),
    Component("y", Lost), Component("z", int), Component(None, Good), Component("n", None), None, 3,
    "good", Good, [], {},
)  # fmt: skip


class Dist:
    """The metadata of a distribution, as odd as pip would let it be."""

    def __init__(self, name, version, requires):
        self.metadata, self.version, self.requires = {"Name": name}, version, requires


STATES = {"active", "disabled", "broken", "incompatible", "conflict"}


def plugin_module(draw_items, fault):
    module = ModuleType("alignkit_made_up")

    def loss_type():
        if fault == "raises":
            raise KeyError("no")
        if fault == "exits":
            sys.exit(3)
        if fault == "nothing":
            return None
        if fault == "recursion":
            return loss_type()
        return iter(draw_items)

    module.loss_type = hookimpl(loss_type)
    if fault == "unknown hook":
        module.loss_typ = hookimpl(lambda: ())
    if fault == "arguments":
        module.reward_fn = hookimpl(lambda wanted: ())
    if fault == "submodule":
        module.policy = ModuleType("alignkit_made_up.policy")
    return module


def test_any_plugin_is_listed_and_stops_no_other(cases, guarded, monkeypatch):
    words = st.text(max_size=12) | st.sampled_from(["losses", "good", "alignkit", "a-b", "x.y"])
    requires = st.none() | st.lists(
        st.sampled_from(
            ["alignkit>=99", "alignkit", "alignkit; extra == 'x'", "alignkit>=", "@@", ""]
        )
        | st.text(max_size=15),
        max_size=3,
    )
    faults = st.sampled_from(
        [
            "",
            "",
            "raises",
            "exits",
            "nothing",
            "recursion",
            "unknown hook",
            "arguments",
            "submodule",
        ]
    )
    real = {name: list(found) for name, found in loading._entry_points().items()}
    wanted = len(loading.load().offers)

    @settings(max_examples=max(20, cases // 4), **QUIET)
    @given(
        name=words, value=words | st.just("alignkit_made_up"), dist=words | st.none(),
        version=words, requires=requires, items=st.lists(st.sampled_from(OFFERED), max_size=3),
        fault=faults, seed=st.integers(0, 9),
    )  # fmt: skip
    def check(name, value, dist, version, requires, items, fault, seed):
        monkeypatch.setitem(sys.modules, "alignkit_made_up", plugin_module(items, fault))
        entry = EntryPoint(name, value, "alignkit")._for(Dist(dist, version, requires))
        found = {n: list(entries) for n, entries in real.items()}
        found.setdefault(name, []).append(entry)
        if random.Random(seed).random() < 0.3:
            found[name].append(entry)
        monkeypatch.setattr(loading, "_entry_points", lambda: found)
        with guarded((name, value, dist, version, requires, items, fault)):
            try:
                registry = loading.load()
            except AlignkitError as error:
                assert str(error).strip()  # noqa: PT017
                return
            assert {p.status for p in registry.plugins} <= STATES
            assert len(registry.offers) >= wanted  # ours are all there
            listing.plugin_table(registry.plugins)

    check()
