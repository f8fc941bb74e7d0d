"""Find the checks that apply to a plugin and make one parametrised pytest test of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alignkit import plugins, recipe
from alignkit.abilities import only_scores
from alignkit.component import Component
from alignkit.document import Document
from alignkit.errors import AlignkitError, RecipeError, did_you_mean
from alignkit.plugin import Plugin
from alignkit.plugins import Registry
from alignkit.protocols import Example
from alignkit.recipe import Node
from alignkit_testing import registering
from alignkit_testing.samples import EXAMPLES, answers
from alignkit_testing.standins import completed, with_stand_ins


@dataclass(frozen=True, eq=False)
class Subject:
    """A component under test, and what it is tested with."""

    kind: str
    plugin: Plugin
    component: Component[Any]
    registry: Registry
    table: Mapping[str, Any]
    """Its recipe table but for ``use``: values of fields, and sub-tables for its slots."""
    responses: Sequence[tuple[str, Example]]
    """What a reward is tried on: each response with the example it answers."""

    @property
    def id(self) -> str:
        """``kind/name``, as in ``conformance(params=...)``."""
        return f"{self.kind}/{self.component.name}"

    def node(self, **changes: Any) -> Node:
        """Return the validated table; required slots it leaves open get stand-ins."""
        table = _plain({**self.table, **changes})
        table["use"] = f"{self.plugin.name}/{self.component.name}"
        table = completed(table, self.component.params, self.registry)
        document = Document(table, {}, Path.cwd() / "conformance")
        try:
            return recipe.resolve(document, self.registry, self.kind)
        except RecipeError as error:
            problems = "\n".join(f"  {'.'.join(p.key)} {p.message}" for p in error.problems)
            raise AssertionError(
                f"{self.id} cannot be built for testing:\n{problems}\n"
                f"  give values with conformance(..., params={{{self.id!r}: {{...}}}})"
            ) from None

    def build(self, **changes: Any) -> Any:
        """Return a newly built component; the test is skipped where the machine lacks a need."""
        node = self.node(**changes)
        if lacking := recipe.missing(node):
            import pytest

            pytest.skip("; ".join(problem.message for problem in lacking))
        return node.build()


Check = Callable[[Subject], None]


@dataclass(frozen=True)
class Case:
    """One check of one component."""

    id: str
    """``kind/component/check``, or ``plugin/check`` for those of the whole plugin."""
    run: Callable[[], None]
    """Raises AssertionError, with what is wrong and what is wanted, when the check fails."""


def conformance(
    plugin: str,
    *,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    waive: Mapping[str, str] | None = None,
    responses: Mapping[str, Sequence[tuple[str, Example]]] | None = None,
    registry: Registry | None = None,
    ranks: int = 1,
) -> Callable[..., None]:
    """Return a pytest test with a case for every check of every component of ``plugin``.

    Assign it to a name that starts with ``test_``. ``params`` holds recipe tables by
    ``"kind/name"``, for components that cannot be built from their defaults or would run for
    long with them. ``waive`` maps the id of a check (``"kind/name/check"``) that a component
    must fail by its nature to the reason; the check has to fail, or the test does.
    ``responses`` holds, by ``"kind/name"``, what a reward is tried on: pairs of a response and the
    example it answers, not all of which earn the same. ``registry`` replaces what is installed,
    see :func:`registry_of`. With ``ranks=2`` every algorithm also runs on two processes, which has
    to give what one process does; that takes some ten seconds each.
    """
    import pytest

    waived = dict(waive or {})
    cases = list(checks(plugin, params, responses, registry, ranks))
    if cases[1:]:  # a plugin that could not be loaded has but the one case that says so
        _refuse_unknown(waived, [case.id for case in cases], "check")

    def marks(case: Case) -> list[Any]:
        reason = waived.get(case.id)
        if reason is None:
            return []
        return [pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError)]

    @pytest.mark.parametrize(
        "check", [pytest.param(case.run, id=case.id, marks=marks(case)) for case in cases]
    )
    def test_conforms(check: Callable[[], None]) -> None:
        check()

    return test_conforms


def checks(
    plugin: str,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    responses: Mapping[str, Sequence[tuple[str, Example]]] | None = None,
    registry: Registry | None = None,
    ranks: int = 1,
) -> Iterator[Case]:
    """Yield every check of every component of ``plugin``; see :func:`conformance`."""
    installed = registry is None
    registry = registry or plugins.load()
    info = next((p for p in registry.plugins if p.name == plugin and p.status == "active"), None)
    yield Case(f"{plugin}/is_active", partial(_is_active, plugin, registry))
    if info is None:
        return
    if installed:
        light = partial(registering.is_light, info.name)
        yield Case(f"{plugin}/{registering.is_light.__name__}", light)
    tables, trials = dict(params or {}), dict(responses or {})
    offered = [
        (kind, component)
        for (kind, _), offers in registry.offers.items()
        for owner, component in offers
        if owner is info
    ]
    ids = [f"{kind}/{component.name}" for kind, component in offered]
    _refuse_unknown({**tables, **trials}, ids, "component")
    furnished = with_stand_ins(registry)
    for kind, component in offered:
        table = tables.get(f"{kind}/{component.name}", {})
        tried = trials.get(f"{kind}/{component.name}") or answers(EXAMPLES)
        subject = Subject(kind, info, component, furnished, table, tried)
        for check in checks_of("scoring" if only_scores(component.params) else kind):
            yield Case(f"{subject.id}/{check.__name__}", partial(check, subject))
        if kind == "algorithm" and ranks > 1:
            yield _on_ranks(subject, ranks)


def _on_ranks(subject: Subject, size: int) -> Case:
    check = importlib.import_module("alignkit_testing.several").gives_the_same_on_ranks
    return Case(f"{subject.id}/{check.__name__}", partial(check, subject, size))


def checks_of(kind: str) -> Iterator[Check]:
    """Yield the checks of every component, then those of ``kind``; each kind has its module.

    "scoring" is a policy that only scores: it has no model or tokenizer to look at.
    """
    for module in ("every", kind):
        checks: Sequence[Check] = importlib.import_module(f"alignkit_testing.{module}").CHECKS
        yield from checks


def _is_active(name: str, registry: Registry) -> None:
    found = [p for p in registry.plugins if p.name == name]
    known = [p.name for p in registry.plugins]
    assert found, (
        f"no plugin {name!r} is installed here.{did_you_mean(name, known)} Is its package "
        "installed, and does its pyproject.toml name it under [project.entry-points.alignkit]?"
    )
    broken = [p for p in found if p.status != "active"]
    assert not broken, f"{name} is {broken[0].status}: {broken[0].detail}\n{broken[0].traceback}"


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise AlignkitError(
                f"conformance: no {what} {name!r}.{did_you_mean(name, known)} "
                f"Known: {', '.join(known)}."
            )


def _plain(value: Any) -> Any:
    """Return a copy that could have been read from TOML: tables, arrays, strings for paths."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
