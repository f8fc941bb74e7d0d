"""Validate a recipe against the plugins it names: a tree ready to build, or all problems."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from alignkit.component import FromRecipe, Params, Slot, make, slots_of
from alignkit.document import Document, Key
from alignkit.errors import AlignkitError, Origin, Problem, RecipeError
from alignkit.kinds import KINDS
from alignkit.shipped import PREFIX, exists, path_from
from alignkit.toml import read

if TYPE_CHECKING:
    from alignkit.plugin import Plugin
    from alignkit.plugins import Registry
    from alignkit.renaming import Renamed


@dataclass(frozen=True)
class Node:
    """A validated table of the recipe, not yet built."""

    kind: str
    """Component kind, or ``""`` for a table of fixed shape such as ``[eval]``."""
    use: str
    plugin: Plugin
    params: Params[Any]
    children: Mapping[str, Node | list[Node] | dict[str, Node]]
    key: Key = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Where each given field is set; fields not listed have their default."""
    left_out: Sequence[str] = ()
    """Of the root: values in the files that were dropped because a ``use`` changed."""
    renamed: Sequence[Renamed] = ()
    """Of the root: keys set under their name in an earlier version, with the present one."""
    files: Sequence[Path] = ()
    """Of the root: the files that are plugins of this recipe."""

    def build(self) -> Any:
        """Build the slots' components, in the order of the signature, then this component."""
        slots = {name: mapped(child, Node.build) for name, child in self.children.items()}
        try:
            return make(self.params, **slots)
        except ImportError as error:
            raise AlignkitError(
                f"{self.kind} {self.use!r} (plugin {self.plugin.name} of {self.plugin.dist}) needs "
                f"a package that is not installed or does not import: {error}"
            ) from error

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, in recipe order."""
        yield self
        for child in self.children.values():
            for node in nodes(child):
                yield from node.walk()

    def tables(self) -> dict[str, Any]:
        """Return the parameters of the slots' components, by slot, for checks across tables."""
        return {name: mapped(child, lambda n: n.params) for name, child in self.children.items()}

    def dump(self, values: Callable[[Node], Mapping[str, Any]] | None = None) -> dict[str, Any]:
        """Return the table as resolved: defaults filled in, paths absolute, no None.

        ``values`` may return other values of a node than all of its own.
        """
        table: dict[str, Any] = {"use": self.use} if self.kind else {}
        own = values(self) if values else self.params.model_dump(mode="json")
        table |= {k: v for k, v in own.items() if v is not None}
        below = {n: mapped(c, lambda node: node.dump(values)) for n, c in self.children.items()}
        return table | below


def nodes(child: Any) -> list[Node]:
    """Return a slot's nodes as a list: one node, an array of them, or a table of them."""
    if isinstance(child, Node):
        return [child]
    return list(child.values()) if isinstance(child, dict) else list(child)


def mapped(child: Any, of: Any) -> Any:
    """Apply ``of`` to the node, or to each node of the list or table, that a slot holds."""
    if isinstance(child, Node):
        return of(child)
    if isinstance(child, dict):
        return {name: of(node) for name, node in child.items()}
    return [of(node) for node in child]


def load(
    path: Path,
    registry: Registry,
    overlays: Iterable[Path] = (),
    overrides: Sequence[str] = (),
) -> Node:
    """Return the recipe at ``path`` as a validated tree; RecipeError lists every problem."""
    document = read(path, overlays, overrides)
    return resolve(document, registry)


def resolve(document: Document, registry: Registry, kind: str = "algorithm") -> Node:
    """Validate a merged document whose root is a component of ``kind``; see :func:`load`.

    The files that it names as plugins are imported.
    """
    if document.plugins:
        from alignkit.plugin_files import with_files

        registry = with_files(registry, document.plugins)
    resolver = _Resolver(document, registry)
    node = resolver.choose(document.table, kind, ())
    if node is not None and not resolver.problems:
        resolver.check(node)
    if resolver.problems or node is None:
        raise RecipeError(resolver.problems)
    files = tuple(plugin.file for plugin in registry.plugins if plugin.file)
    return replace(node, left_out=tuple(document.left_out), renamed=resolver.renamed, files=files)


def missing(node: Node) -> list[Problem]:
    """Return what this machine lacks to build the recipe, each with its remedy."""
    return [
        Problem(part.key, message, origin=part.origins.get("use"))
        for part in node.walk()
        for message in part.params.missing()
    ]


@dataclass(frozen=True)
class _Table:
    """A table of the recipe, and the component or fixed shape that it is checked against."""

    kind: str
    use: str
    plugin: Plugin
    schema: type[Params[Any]]
    given: Mapping[str, Any]
    key: Key

    @property
    def slots(self) -> dict[str, Slot]:
        return slots_of(self.schema, KINDS)


class _Resolver:
    """Walks a document, turning tables into nodes and collecting problems."""

    def __init__(self, document: Document, registry: Registry) -> None:
        self.document = document
        self.registry = registry
        self.problems: list[Problem] = []
        self.renamed: tuple[Renamed, ...] = ()

    def problem(self, key: Key, message: str, hint: str = "") -> None:
        self.problems.append(Problem(key, message, hint, self.document.origin(key)))

    def choose(self, given: Any, kind: str, key: Key) -> Node | None:
        """Resolve a table whose ``use`` names a component of ``kind``."""
        known = ", ".join(self.registry.names(kind)) or "none"
        if not isinstance(given, Mapping):
            self.problem(key, f"expected a table with a {kind}, got {given!r}. Known: {known}.")
        elif not isinstance(given.get("use"), str):
            where = f"[{'.'.join(key)}]" if key else "the recipe"
            self.problem(key, f'{where} needs a line `use = "<{kind}>"`. Known: {known}.')
        else:
            try:
                plugin, component = self.registry.get(kind, given["use"])
            except LookupError as error:
                self.problem((*key, "use"), str(error))
                return None
            return self.fill(_Table(kind, given["use"], plugin, component.params, given, key))
        return None

    def fill(self, table: _Table) -> Node | None:
        """Validate the values of a table and resolve its sub-tables."""
        given = dict(table.given)
        if table.kind and self.document.inherited:
            from alignkit.inheritance import fitting

            inherited, origin = self.document.inherited, self.document.origin
            given, notes = fitting(given, table.key, table.slots, inherited, origin)
            self.document.left_out += notes
        if table.schema.renamed.keys() & given.keys():
            from alignkit.renaming import present_names

            given, renamed, problems = present_names(
                given, table.schema.renamed, table.key, self.document, table.plugin.dist
            )
            self.renamed = (*self.renamed, *renamed)
            self.problems += problems
        given = {name: value for name, value in given.items() if value is not None}
        table = replace(table, given=given)
        before = len(self.problems)
        params, children = self.values(table), self.children(table)
        if params is None or len(self.problems) > before:
            return None
        origins = {k: self.document.origin((*table.key, k)) for k in table.given}
        return Node(table.kind, table.use, table.plugin, params, children, table.key, origins)

    def values(self, table: _Table) -> Params[Any] | None:
        slots = table.slots
        values = {k: v for k, v in table.given.items() if k != "use" and k not in slots}
        for name in values.keys() & table.schema.model_fields.keys():
            values[name] = self.located(values[name], table, name)
        try:
            # JSON mode is strict about types, yet lets an array fill a tuple and a string a Path.
            return table.schema.model_validate_json(json.dumps(values, default=str))
        except ValidationError as error:
            from alignkit.wrong_values import described

            name, allowed = table.use or ".".join(table.key), [*table.schema.model_fields, *slots]
            for at, *said in described(error, name, allowed):
                self.problem((*table.key, *at), *said)
        return None

    def located(self, value: Any, table: _Table, name: str) -> Any:
        """Make a path absolute that is relative to the file it is set in; it must exist."""
        mark, key = path_mark(table.schema, name), (*table.key, name)
        if mark is None or not isinstance(value, str) or (mark.or_name and not value):
            return value
        origin = self.document.origin(key)
        path = path_from(value, origin.file.parent if origin.file else Path.cwd())
        if mark.new or exists(path):
            return str(path)
        no_name = value.startswith((".", "/", "~", PREFIX)) or len(value) > 255 or "\0" in value
        if not mark.or_name or no_name:
            self.problem(key, f"no such file or folder: {value} (looked for {path})")
        return value

    def children(self, table: _Table) -> dict[str, Any]:
        children: dict[str, Any] = {}
        for slot in table.slots.values():
            key = (*table.key, slot.name)
            if slot.name in table.given or slot.always:
                child = self.child(table.given.get(slot.name, {}), slot, table.plugin, key)
                children |= {slot.name: child} if child is not None else {}
            elif slot.required and slot.unless not in table.given:
                from alignkit.wrong_values import lacks_table

                self.problem(
                    table.key, lacks_table(table.use, key, slot, self.registry.names(slot.kind))
                )
        return children

    def child(self, value: Any, slot: Slot, plugin: Plugin, key: Key) -> Any:
        """Resolve a slot's value: one table, an array of them, or a table of them."""
        if slot.arity == "one":
            return self.item(value, slot, plugin, key)
        wanted = list if slot.arity == "list" else dict
        if not isinstance(value, wanted):
            shape = f"[[{'.'.join(key)}]] tables" if wanted is list else f"[{'.'.join(key)}.NAME]"
            self.problem(key, f"expected {shape}, got {value!r}")
            return None
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found = {name: self.item(v, slot, plugin, (*key, str(name))) for name, v in items}
        named = {name: node for name, node in found.items() if node is not None}
        return named if isinstance(value, dict) else list(named.values())

    def item(self, value: Any, slot: Slot, plugin: Plugin, key: Key) -> Node | None:
        if slot.table is None:
            return self.choose(value, slot.kind, key)
        if not isinstance(value, Mapping):
            self.problem(key, f"expected a table, got {value!r}")
            return None
        return self.fill(_Table("", "", plugin, slot.table, value, key))

    def check(self, root: Node) -> None:
        """Run the checks that schemas cannot express, on every node."""
        for node in root.walk():
            tables = node.tables()
            for name, message in node.params.check(tables):
                self.problem((*node.key, *filter(None, name.split("."))), message)
            provided = node.params.provides(tables)
            for child in node.children.values():
                for below in nodes(child):
                    self.satisfied(node, below, provided)

    def satisfied(self, owner: Node, node: Node, provided: frozenset[str]) -> None:
        """Refuse a component that reads records which its owner does not provide."""
        lacking = sorted(node.params.needs - provided) if node.kind else []
        if lacking:
            given = ", ".join(sorted(provided)) or "nothing beyond the required fields"
            self.problem(
                (*node.key, "use"),
                f"{node.kind} {node.use!r} reads {', '.join(lacking)}, which {owner.use!r} does "
                f"not provide with this recipe; it provides {given}",
            )


def path_mark(schema: type[Params[Any]], name: str) -> FromRecipe | None:
    """Return the marker that makes a field a path, if any; also for ``X | None`` fields."""
    info = schema.model_fields[name]
    inner = (getattr(part, "__metadata__", ()) for part in get_args(info.annotation))
    return next((m for m in chain(info.metadata, *inner) if isinstance(m, FromRecipe)), None)
