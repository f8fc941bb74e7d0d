"""What a plugin registers: a name, a schema, and a way to build the thing."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FromRecipe:
    """Marks a field as a path that is relative to the file it stands in."""

    or_name: bool = False
    """A value that does not look like a path and does not exist is a Hub name, left alone."""
    new: bool = False
    """Need not exist: the run writes it."""


RecipePath = Annotated[Path, FromRecipe()]
"""A file or folder that must exist, relative to the recipe file that names it."""

PathOrName = Annotated[str, FromRecipe(or_name=True)]
"""An existing file or folder relative to the recipe file, or else a Hub name."""

NewPath = Annotated[Path, FromRecipe(new=True)]
"""A file or folder that the run writes, relative to the recipe file that names it."""


class Params(BaseModel, Generic[T]):
    """Parameters of a component that builds a ``T``: the keys its recipe table may hold.

    The class docstring is the component's help; the string under a field is the field's.
    ``build`` turns validated parameters into the component. Its keyword-only arguments
    are *slots*: components the kernel builds first, from same-named sub-tables.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        defer_build=True,  # listing plugins validates nothing
    )

    needs: ClassVar[frozenset[str]] = frozenset()
    """Optional records this component reads, such as ``old_logprobs``; see :meth:`provides`."""

    def build(self, *args: Any, **slots: Any) -> T:
        """Return the component; heavy imports belong here."""
        raise NotImplementedError(f"{type(self).__qualname__} must define build()")

    def provides(self, tables: Mapping[str, Any]) -> frozenset[str]:
        """Return the optional records this component hands to those in its slots.

        ``tables`` holds the validated parameters of each filled slot.
        """
        return frozenset()

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield ``(key, message)`` for whatever the schema cannot see: sums, files, rows.

        Runs before anything is built; must not import the ML stack. A key of ``""`` is the
        table itself.
        """
        return ()

    def missing(self) -> Iterable[str]:
        """Yield what this machine lacks to build the component, each with its remedy."""
        return ()

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what follows from the parameters, for ``--dry-run``: sizes, counts."""
        return {}

    def code(self) -> Iterable[Path | str]:
        """Yield each file of code that these values, not the plugin, bring in; a run names them.

        A text stands for code whose files are not known before it is loaded.
        """
        return ()


@dataclass(frozen=True, slots=True)
class Component(Generic[T]):
    """A named schema that can build a ``T``."""

    name: str
    params: type[Params[T]]

    @property
    def summary(self) -> str:
        """First line of the parameters' docstring."""
        return (inspect.getdoc(self.params) or "").partition("\n")[0]


def field_docs(params: type[Params[Any]]) -> dict[str, str]:
    """Return the string under each field in the source, ``""`` where there is none.

    Read when asked for: pydantic would read every source file at every start.
    """
    docs = {name: info.description or "" for name, info in params.model_fields.items()}
    for cls in reversed(params.__mro__):
        if issubclass(cls, Params) and cls is not Params:
            docs |= _strings_under_fields(cls)
    return {name: docs[name] for name in params.model_fields}


@cache
def _strings_under_fields(cls: type) -> dict[str, str]:
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):  # made without a source file
        return {}
    found = {}
    for field, below in pairwise(getattr(definition, "body", ())):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = inspect.cleandoc(text)
    return found


@dataclass(frozen=True, slots=True)
class Slot:
    """A sub-table of a component, read off a keyword-only argument of its ``build``."""

    name: str
    kind: str
    """Component kind chosen with ``use``; ``""`` for a table of fixed shape."""
    table: type[Params[Any]] | None
    """The fixed shape: the argument is annotated ``Annotated[Product, SomeParams]``."""
    arity: Literal["one", "list", "map"]
    """``[x]``, ``[[x]]`` (``Sequence[Kind]``) or ``[x.name]`` (``Mapping[str, Kind]``)."""
    required: bool
    always: bool = False
    """A fixed shape that has a default: its own defaults fill it where the recipe has no table."""


def slots_of(params: type[Params[Any]], kinds: Mapping[type, str]) -> dict[str, Slot]:
    """Return the slots of a component by name; TypeError if one has no known kind."""
    if params.build is Params.build:
        return {}
    hints = get_type_hints(params.build, include_extras=True)
    keyword_only = [
        p for p in inspect.signature(params.build).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]
    return {p.name: _slot(p, hints.get(p.name), params, kinds) for p in keyword_only}


def _slot(
    argument: inspect.Parameter,
    hint: Any,
    owner: type[Params[Any]],
    kinds: Mapping[type, str],
) -> Slot:
    item, arity = _unwrap(hint)
    required = argument.default is argument.empty
    if get_origin(item) is Annotated:
        for mark in get_args(item)[1:]:
            if isinstance(mark, type) and issubclass(mark, Params):
                always = arity == "one" and not required and argument.default is not None
                return Slot(argument.name, "", mark, arity, required, always)
    if item in kinds:
        return Slot(argument.name, kinds[item], None, arity, required)
    raise TypeError(
        f"{owner.__qualname__}.build(): slot {argument.name!r} is annotated {hint!r}, which is "
        f"not a component kind; use one of {', '.join(k.__name__ for k in kinds)}"
    )


def _unwrap(hint: Any) -> tuple[Any, Literal["one", "list", "map"]]:
    """Strip ``| None``, ``Sequence[...]`` and ``Mapping[str, ...]`` from a slot's annotation."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(a for a in get_args(hint) if a is not type(None))
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return args[1], "map"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return args[0], "list"
    return hint, "one"
