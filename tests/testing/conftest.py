"""Run checks of the conformance kit on components made up by the tests."""

from typing import Any, ClassVar

import pytest

from alignkit import Params
from alignkit.testing import checks, registry_of
from alignkit_testing.kit import checks_of


def _planted(factory, needs=(), declared=()):
    """Parameters whose ``build`` calls ``factory``; ``declared`` names what they say is so."""

    class Planted(Params[Any]):
        """Made up by a test."""

        needs: ClassVar[frozenset[str]] = frozenset()

        def build(self) -> Any:
            return factory()

    Planted.needs = frozenset(needs)
    for name in declared:
        setattr(Planted, name, True)
    return Planted


def _failing(kind, params, only=None, table=None, **options):
    """Return ``{check: message}`` of the checks that fail; ``only`` runs just that one."""
    registry = registry_of(**{kind: {"planted": params}})
    cases = checks("mine", {f"{kind}/planted": table or {}}, registry=registry, **options)
    failed = {}
    for case in cases:
        name = case.id.rpartition("/")[2]
        if only in (None, name):
            try:
                case.run()
            except Exception as error:  # noqa: BLE001 - pytest fails a test on any of them
                failed[name] = str(error)
    return failed


def _names(kind):
    """Return the names of the checks that only ``kind`` has."""
    every = {check.__name__ for check in checks_of("every")} if kind != "every" else set()
    return {check.__name__ for check in _of(kind)} - every


def _of(kind):
    import importlib

    return importlib.import_module(f"alignkit_testing.{kind}").CHECKS


@pytest.fixture(scope="session")
def planted():
    return _planted


@pytest.fixture(scope="session")
def failing():
    return _failing


@pytest.fixture(scope="session")
def names():
    return _names
