"""Checks of every component, whatever it builds."""

from __future__ import annotations

import re
from typing import Any, get_args

import tomli
import tomli_w
from pydantic import ValidationError

from alignkit.abilities import How, Parallel, StartsTogether, TakesCards, TakesShards
from alignkit.component import slots_of
from alignkit.docs import field_docs
from alignkit.kinds import KINDS
from alignkit.protocols import Divides, Prefetches
from alignkit.renaming import faults, present_name, schemas_of
from alignkit_testing.kit import Check, Subject


def has_a_snake_case_name(subject: Subject) -> None:
    """Recipes read the same everywhere: lower-case words joined by underscores."""
    name = subject.component.name
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name), (
        f"component name {name!r} is not snake_case"
    )


def has_a_docstring(subject: Subject) -> None:
    """`alignkit describe` shows it; its first line is the summary."""
    for schema in schemas_of(subject.component.params):
        assert (schema.__doc__ or "").strip(), f"class {schema.__name__} has no docstring"


def documents_its_fields(subject: Subject) -> None:
    """A string under each field says what it is, with its unit."""
    bare = [
        f"{schema.__name__}.{name}"
        for schema in schemas_of(subject.component.params)
        for name, text in field_docs(schema).items()
        if not text
    ]
    assert not bare, f"no docstring under {', '.join(bare)}"


def has_valid_defaults(subject: Subject) -> None:
    """A recipe that says nothing but `use` fails for want of values, never for bad defaults."""
    for schema in schemas_of(subject.component.params):
        try:
            schema.model_validate_json("{}")
        except ValidationError as error:
            bad = [e for e in error.errors() if e["type"] != "missing"]
            shown = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in bad)
            assert not bad, f"{schema.__name__} has defaults that it would refuse: {shown}"


def refuses_unknown_keys(subject: Subject) -> None:
    """A misspelt key is an error, and a validated table does not change."""
    for schema in schemas_of(subject.component.params):
        assert schema.model_config.get("extra") == "forbid", f"{schema.__name__} takes any key"
        assert schema.model_config.get("frozen"), f"{schema.__name__} is not frozen"


def has_slots_of_known_kinds(subject: Subject) -> None:
    """Keyword-only arguments of `build` are recipe tables."""
    for schema in schemas_of(subject.component.params):
        slots_of(schema, KINDS)


def renames_to_keys_it_has(subject: Subject) -> None:
    """A key of an earlier version stands for one of today, and is none itself."""
    for schema in schemas_of(subject.component.params):
        known = {*schema.model_fields, *slots_of(schema, KINDS)}
        assert not (wrong := list(faults(schema.renamed))), "; ".join(wrong)
        for old in schema.renamed:
            new = present_name(schema.renamed, old)
            assert new in known, f"{old!r} is said to be called {new!r} now, which is no key of it"
            assert old not in known, f"{old!r} is said to be called {new!r} now, and is still a key"


def survives_its_own_recipe(subject: Subject) -> None:
    """The resolved `recipe.toml` of a run gives the same parameters when it is read again."""
    node = subject.node()
    again = tomli.loads(tomli_w.dumps(node.dump()))
    again.pop("use")
    second = subject.node(**again)
    assert second.dump() == node.dump(), (
        f"{subject.id} reads its own recipe.toml as something else:\n"
        f"  first  {node.dump()}\n  second {second.dump()}"
    )


def builds(subject: Subject) -> None:
    """`build` returns something, and a second one that is independent of the first."""
    built = subject.build()
    assert built is not None, f"{subject.component.params.__name__}.build() returned None"


def states_its_abilities_as_values(subject: Subject) -> None:
    """What it may say of itself is a value: a method in its place would always count as yes."""
    stated = STATED.get(subject.kind, {})
    for of in (subject.node().params, subject.build()) if stated else ():
        for ability, (name, values) in stated.items():
            if isinstance(of, ability):
                value = getattr(of, name)
                said = f"{type(of).__name__}.{name} is {value!r}, "
                if isinstance(values, type):
                    assert isinstance(value, values), f"{said}no {values.__name__}"
                else:
                    assert value in values, f"{said}none of {', '.join(values)}"


STATED: dict[str, dict[type, tuple[str, Any]]] = {
    "algorithm": {Divides: ("on_ranks", bool)},
    "optimizer": {TakesShards: ("on_shards", bool)},
    "policy": {Parallel: ("parallel", get_args(How))},
    "rollout_backend": {
        Divides: ("on_ranks", bool),
        Prefetches: ("samples_ahead", bool),
        StartsTogether: ("together", bool),
        TakesCards: ("cards", int),
    },
}
"""The abilities, by kind, that consist of a value: its name, and its type or what it may be."""

CHECKS: tuple[Check, ...] = (
    has_a_snake_case_name,
    has_a_docstring,
    documents_its_fields,
    has_valid_defaults,
    refuses_unknown_keys,
    has_slots_of_known_kinds,
    renames_to_keys_it_has,
    survives_its_own_recipe,
    builds,
    states_its_abilities_as_values,
)
