"""Discovery: the five states, each from entry points made up for the purpose."""

import json
import sys
import types
from importlib.metadata import Distribution, EntryPoint

import pytest

from alignkit import Component, Params, hookimpl, plugins
from alignkit.errors import AlignkitError
from alignkit.listing import as_text
from alignkit.protocols import LossType
from alignkit.unused import not_searched


class FakeDist(Distribution):
    def __init__(self, name, requires=()):
        self.text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n" + "".join(
            f"Requires-Dist: {r}\n" for r in requires
        )

    def read_text(self, filename):
        return self.text if filename == "METADATA" else None

    def locate_file(self, path):
        return path


class Fine(Params[LossType]):
    """A loss."""

    def build(self) -> LossType:
        return lambda x: None


class NoKind(Params[LossType]):
    """A component whose slot is not a kind."""

    def build(self, *, thing: int) -> LossType:
        return lambda x: None


class AnySlots(Params[LossType]):
    """A component that does not say what it takes."""

    def build(self, **slots) -> LossType:
        return lambda x: None


class TypedSlots(Params[LossType]):
    """A component whose slots are all said to be one kind, but not by name."""

    def build(self, **slots: LossType) -> LossType:
        return lambda x: None


class Positional(Params[LossType]):
    """A component whose slot is no keyword."""

    def build(self, inner: LossType) -> LossType:
        return inner


class Starred(Params[LossType]):
    """A component that takes a number of components that have no names."""

    def build(self, *inner: LossType) -> LossType:
        return inner[0]


def module(name, monkeypatch, hook="loss_type", offers=(("fine", Fine),)):
    def implementation():
        return [o if isinstance(o, str) else Component(*o) for o in offers]

    made = types.ModuleType(name)
    implementation.__name__ = hook
    setattr(made, hook, hookimpl(implementation))
    monkeypatch.setitem(sys.modules, name, made)


@pytest.fixture
def install(monkeypatch):
    entries = []
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries)
    monkeypatch.delenv("ALIGNKIT_DISABLE_PLUGINS", raising=False)

    def add(name, dist="alignkit-x", requires=(), value=None, **kwargs):
        value = value or f"fake_{name}_{len(entries)}"
        if value.startswith("fake_"):
            module(value, monkeypatch, **kwargs)
        entry = EntryPoint(name, value, "alignkit")
        vars(entry).update(dist=FakeDist(dist, requires) if isinstance(dist, str) else dist)
        entries.append(entry)

    return add


def states(*disable):
    return {(p.name, p.dist): p.status for p in plugins.load(disable).plugins}


def only(*disable):
    (plugin,) = plugins.load(disable).plugins
    return plugin


def test_an_active_plugin_offers_its_components(install):
    install("nice")
    registry = plugins.load()
    assert registry.plugins[0].provides == {"loss_type": ["fine"]}
    assert registry.names("loss_type") == ["fine"]
    assert registry.get("loss_type", "nice/fine")[1].params is Fine


def test_a_disabled_plugin_is_listed_and_not_imported(install, monkeypatch):
    install("nice", value="module_that_does_not_exist")
    assert only("nice").status == "disabled"
    monkeypatch.setenv("ALIGNKIT_DISABLE_PLUGINS", "nice, ")
    assert only().status == "disabled"
    with pytest.raises(AlignkitError, match=r"unknown plugin 'nic'\. Did you mean 'nice'"):
        plugins.load(["nic"])


@pytest.mark.parametrize("raised", ["SystemExit(0)", "GeneratorExit", "Odd()"])
def test_whatever_an_import_raises_or_prints_the_others_are_there(
    install, tmp_path, monkeypatch, capsys, raised
):
    code = f"print('{{not json')\nclass Odd(BaseException):\n    pass\nraise {raised}\n"
    (tmp_path / "module_that_raises.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "module_that_raises", raising=False)
    install("sad", value="module_that_raises")
    install("nice")
    registry = plugins.load()
    assert {p.name: p.status for p in registry.plugins} == {"sad": "broken", "nice": "active"}
    out, err = capsys.readouterr()
    assert (out, err) == ("", "{not json\n")


def test_a_broken_import_stops_nobody_else(install):
    install("sad", value="module_that_does_not_exist")
    install("nice")
    registry = plugins.load()
    sad = next(p for p in registry.plugins if p.name == "sad")
    assert sad.status == "broken"
    assert "module_that_does_not_exist" in sad.detail
    assert "Traceback" in sad.traceback
    assert registry.names("loss_type") == ["fine"]


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"hook": "loss_types"}, "unknown hook 'loss_types'. Did you mean 'loss_type'?"),
        ({"offers": ["fine"]}, "is not a Component"),
        ({"offers": [("not a name", Fine)]}, "is not an identifier"),
        ({"offers": [("fine", dict)]}, "is no subclass of Params"),
        ({"offers": [("fine", NoKind)]}, "slot 'thing' is annotated"),
        ({"offers": [("fine", AnySlots)]}, "AnySlots.build(): '**slots' does not say which"),
        ({"offers": [("fine", TypedSlots)]}, "TypedSlots.build(): '**slots:"),
        ({"offers": [("fine", Positional)]}, "write each slot after a `*`, such as"),
        ({"offers": [("fine", Starred)]}, "Starred.build(): '*inner:"),
        ({"offers": [("fine", Fine), ("fine", Fine)]}, "offers loss_type 'fine' twice"),
    ],
)
def test_a_plugin_that_registers_nonsense_is_broken(install, kwargs, says):
    install("odd", **kwargs)
    assert only().status == "broken"
    assert says in only().detail
    assert plugins.load().offers == {}


def test_a_submodule_named_like_a_hook_is_refused_at_once(install, monkeypatch):
    """Importing it would put the module in the hook's place, for the rest of the process."""
    install("odd", value="fake_odd")
    sys.modules["fake_odd"].tracker = types.ModuleType("fake_odd.tracker")
    assert only().status == "broken"
    assert "submodule 'tracker' hides a hook" in only().detail


def test_a_plugin_for_another_alignkit_is_incompatible_and_not_imported(install):
    install("old", requires=["alignkit>=99", "torch"], value="module_that_does_not_exist")
    assert only().status == "incompatible"
    assert "requires alignkit>=99, but alignkit" in only().detail
    assert "install an alignkit that fits, or another release of alignkit-x" in only().detail


def test_two_plugins_of_one_name_are_in_conflict_but_a_built_in_keeps_its_name(install):
    install("mine", dist="a")
    install("mine", dist="b")
    install("losses", dist="alignkit")
    install("losses", dist="c")
    assert states() == {
        ("mine", "a"): "conflict",
        ("mine", "b"): "conflict",
        ("losses", "alignkit"): "active",
        ("losses", "c"): "conflict",
    }
    assert not_searched(plugins.load().plugins) == (
        " (not searched: losses is in conflict, mine is in conflict; see `alignkit list-plugins`)"
    )
    details = {p.dist: p.detail for p in plugins.load().plugins}
    both = "a 1.5 and b 1.5 both have a plugin 'mine'; "
    both += "uninstall one of them, or rename its entry point"
    assert details["a"] == details["b"] == both
    assert details["c"] == (
        "'losses' is the name of a plugin of alignkit's own; rename the entry point of c 1.5, or "
        "uninstall it"
    )


@pytest.mark.parametrize("name", ["fine", "mine/fine"])
def test_what_a_plugin_in_conflict_may_have_is_missed_with_both_owners_and_the_remedy(
    install, name
):
    install("mine", dist="a")
    install("mine", dist="b")
    if "/" in name:  # what is wrong with others matters only to a name that says no plugin
        install("sad", value="module_that_does_not_exist")
    with pytest.raises(LookupError) as missed:
        plugins.load().get("loss_type", name)
    assert "(not searched: mine is in conflict: a 1.5 and b 1.5 both have" in str(missed.value)
    assert "uninstall one of them, or rename its entry point" in str(missed.value)
    assert "sad" not in str(missed.value)


def test_a_broken_plugin_says_how_to_find_where(install):
    install("sad", value="module_that_does_not_exist")
    assert only().detail.endswith("; `alignkit check sad` shows where")


def test_one_component_name_from_two_plugins_is_told_on_both_and_settled_by_the_recipe(install):
    install("one")
    install("two")
    registry = plugins.load()
    assert [p["detail"] for p in json.loads(as_text(registry, as_json=True))] == [
        "loss_type fine is also offered as two/fine",
        "loss_type fine is also offered as one/fine",
    ]
    with pytest.raises(LookupError, match=r'write "one/fine" .* or "two/fine".* -p no:two'):
        registry.get("loss_type", "fine")


def test_of_a_built_in_name_the_other_plugin_is_the_one_to_leave_out(install):
    install("aaa", dist="theirs")
    install("zzz", dist="alignkit")
    with pytest.raises(LookupError, match="or leave one out with -p no:aaa"):
        plugins.load().get("loss_type", "fine")


def test_a_distribution_is_read_once_however_many_plugins_it_has(install, monkeypatch):
    read, one = [], FakeDist("alignkit")
    monkeypatch.setattr(one, "read_text", lambda name: read.append(name) or one.text)
    for i in range(12):
        install(f"p{i}", dist=one)
    assert {(p.dist, p.version) for p in plugins.load().plugins} == {("alignkit", "1.5")}
    assert read == ["METADATA"]
