"""Read a sweep file: its variants, each a recipe that resolves, or every problem at once."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from alignkit import recipe, toml
from alignkit.component import Params
from alignkit.errors import Origin, Problem, RecipeError, did_you_mean, shown
from alignkit.plugins import Registry
from alignkit.sweep.stop import StopTable
from alignkit.sweep.tables import SweepTable, VariantTable
from alignkit.toml import Document, Key


@dataclass(frozen=True)
class Setting:
    """One value of a grid point."""

    key: Key
    value: Any
    relative: bool
    """Whether ``value`` multiplies what the recipe says."""
    origin: Origin


@dataclass(frozen=True)
class Variant:
    """One point of a sweep."""

    name: str
    """Folder of its runs below the sweep's directory."""
    table: str
    recipe: Path
    overlays: tuple[Path, ...]
    seeds: tuple[int, ...]
    point: tuple[Setting, ...]
    best_of: str | None
    start_from: str | None


class Sweep:
    """A sweep file, read and checked: every variant is a recipe that resolves.

    Raises RecipeError with all problems of all variants. ``overlays`` and ``overrides`` are laid
    under and over what the sweep sets.
    """

    def __init__(
        self,
        path: Path,
        registry: Registry,
        overlays: Iterable[Path] = (),
        overrides: Iterable[str] = (),
    ) -> None:
        self.path, self.registry = path, registry
        self.overlays, self.overrides = tuple(overlays), tuple(overrides)
        self.document = toml.read(path)
        self.problems: list[Problem] = []
        self.lacking: list[Problem] = []
        """What this machine lacks to run the variants."""
        self._plans: dict[str, dict[str, Any]] = {}
        self.table = self._table()
        self.variants = list(self._variants()) if not self.problems else []
        if not self.problems:
            self._check()
        if self.problems:
            raise RecipeError({str(p): p for p in self.problems}.values())

    @property
    def title(self) -> str:
        """First sentence of what the sweep is about, or the file's name."""
        return self.table.about.strip().partition(". ")[0].rstrip(".") or self.path.stem

    def problem(self, key: Key, message: str, hint: str = "") -> None:
        self.problems.append(Problem(key, message, hint, self.document.origin(key)))

    def _table(self) -> SweepTable:
        try:
            return SweepTable.model_validate_json(json.dumps(self.document.table, default=str))
        except ValidationError as error:
            for detail in error.errors():
                self._invalid(tuple(map(str, detail["loc"])), detail)
        return SweepTable()

    def _invalid(self, at: Key, detail: Mapping[str, Any]) -> None:
        if detail["type"] != "extra_forbidden":
            self.problem(at, f"{detail['msg']} (got {detail['input']!r})")
            return
        schemas: dict[int, type[Params[Any]]] = {1: SweepTable, 2: StopTable}
        schema = schemas.get(len(at), VariantTable)
        known = ["with" if k == "overlays" else k for k in schema.model_fields]
        hint = f"it takes: {', '.join(known)}"
        if schema is not StopTable:
            hint += "; values of the recipe go below `set`"
        self.problem(at, f"a sweep takes no {at[-1]!r} here.{did_you_mean(at[-1], known)}", hint)

    def _variants(self) -> Iterator[Variant]:
        tables = self.table.variants or {"": VariantTable()}
        for place, (name, own) in enumerate(tables.items()):
            self._check_names(name, own, list(tables)[:place])
            recipes = list(self._files(name, "recipe"))
            if not recipes:
                self.problem(_table_of(name), 'there is no line recipe = "FILE.toml"')
                continue
            overlays, seeds = tuple(self._files(name, "with")), own.seeds or self.table.seeds
            if len(set(seeds)) < len(seeds):
                self.problem(self._at(name, "seeds")[0], f"a seed stands twice in {list(seeds)}")
            for label, point in self._points(name):
                folder = "/".join(filter(None, [name, label])) or self.path.stem
                yield Variant(
                    folder, name, recipes[0], overlays, seeds, point, own.best_of, own.start_from
                )

    def _check_names(self, name: str, own: VariantTable, above: Sequence[str]) -> None:
        if name and not re.fullmatch(r"\w[\w.=+-]*", name):
            message = f"{name!r} names a folder: use letters, digits and any of _ . = + -"
            self.problem(("variants", name), message)
        for key in ("best_of", "start_from"):
            wanted = getattr(own, key)
            if wanted is not None and wanted not in above:
                known = ", ".join(above) or "none"
                message = f"no variant {wanted!r} stands above this one; above: {known}"
                self.problem(("variants", name, key), message)

    def _at(self, name: str, key: str) -> tuple[Key, Any]:
        """Return where a variant's value stands, its own table or the top, and the value."""
        own = self.document.table.get("variants", {}).get(name, {})
        if key in own:
            return ("variants", name, key), own[key]
        return (key,), self.document.table.get(key, [])

    def _files(self, name: str, key: str) -> Iterator[Path]:
        at, value = self._at(name, key)
        folder = (self.document.origin(at).file or self.path).parent
        for file in [value] if isinstance(value, str) else value:
            if not (folder / file).is_file():
                self.problem(at, f"no such file: {file} (looked for {folder / file})")
            yield folder / file

    def _points(self, name: str) -> Iterator[tuple[str, tuple[Setting, ...]]]:
        """Yield label and settings of each combination of the grid and the factors."""
        axes = []
        for field_name in ("grid", "factors"):
            at, table = self._at(name, field_name)
            for key, values in _leaves(dict(table)):
                if not isinstance(values, list) or not values:
                    self.problem((*at, *key), f"expected an array of values, got {values!r}")
                    continue
                origin, relative = self.document.origin((*at, *key)), field_name == "factors"
                axes.append([Setting(key, value, relative, origin) for value in values])
        for point in product(*axes):
            varied = [s for s, axis in zip(point, axes, strict=True) if len(axis) > 1]
            yield ",".join(_label(s, varied) for s in varied), point

    def _check(self) -> None:
        """Resolve every variant, each that continues another with all it could come from."""
        twins: dict[str, Variant] = {}
        for variant in self.variants:
            for chain in self._chains(variant):
                try:
                    plan = self.plan(variant, chain)
                except RecipeError as error:
                    self.problems += error.problems
                    continue
                if variant.best_of or variant.start_from:
                    continue
                twin = twins.setdefault(json.dumps(plan, sort_keys=True), variant)
                if twin is not variant:
                    message = f"{variant.name!r} and {twin.name!r} are the same run"
                    self.problem(_table_of(variant.table), message)

    def _chains(self, variant: Variant) -> Iterator[tuple[Variant, ...]]:
        if variant.best_of is None:
            yield ()
        for candidate in self.candidates(variant.best_of):
            yield (*next(self._chains(candidate)), candidate)

    def candidates(self, table: str | None) -> list[Variant]:
        """Return the variants of one table of the file."""
        return [v for v in self.variants if table is not None and v.table == table]

    def plan(
        self, variant: Variant, chain: Sequence[Variant] = (), weights: Path | None = None
    ) -> dict[str, Any]:
        """Return the resolved recipe of a variant's first seed.

        ``chain`` holds the variants whose settings it takes over, ``weights`` a model's folder.
        Raises RecipeError.
        """
        key = repr((variant.name, variant.seeds[:1], [v.name for v in chain], weights))
        if key not in self._plans:
            document = self._document(variant, chain, weights)
            node = recipe.resolve(document, self.registry)
            self.lacking += recipe.missing(node)
            self._plans[key] = node.dump()
        return self._plans[key]

    def _document(
        self, variant: Variant, chain: Sequence[Variant], weights: Path | None
    ) -> Document:
        document = toml.read(variant.recipe, (*variant.overlays, *self.overlays))
        layers = [_below(self.document, ("set",))]
        for part in (*chain, variant):
            layers.append(_below(self.document, ("variants", part.table, "set")))
            layers += [_layer(s.key, _value(s, document), s.origin) for s in part.point]
        if variant.seeds:
            at, _ = self._at(variant.table, "seeds")
            layers.append(_layer(("seed",), variant.seeds[0], self.document.origin(at)))
        if weights:
            origin = self.document.origin(("variants", variant.table, "start_from"))
            layers.append(_layer(("policy", "path"), str(weights), origin))
        for layer in (*layers, toml.typed(self.overrides)):
            toml.merge(document, copy.deepcopy(layer))
        return document

    def settings(self, variant: Variant) -> dict[str, str]:
        """Return what a variant sets by dotted key, a factor as ``×0.1``."""
        table = self.document.table.get("variants", {}).get(variant.table, {})
        values = {".".join(k): json.dumps(v) for k, v in _leaves(table.get("set", {}))}
        point = {".".join(s.key): f"{'×' * s.relative}{json.dumps(s.value)}" for s in variant.point}
        return values | point


def _table_of(name: str) -> Key:
    return ("variants", name) if name else ()


def _leaves(table: Mapping[str, Any], at: Key = ()) -> Iterator[tuple[Key, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*at, name))
        else:
            yield (*at, name), value


def _label(setting: Setting, varied: Sequence[Setting]) -> str:
    """Return ``lr=0.0001`` or, for a factor, ``lr_x0.1``; the whole key where names clash."""
    named = setting.key[:-1] if setting.key[-1] == "use" and len(setting.key) > 1 else setting.key
    clash = sum(s.key[-1] == setting.key[-1] for s in varied) > 1
    name = ".".join(named) if clash else named[-1]
    value = setting.value if isinstance(setting.value, str) else json.dumps(setting.value)
    return re.sub(r"[^\w.=+-]+", "_", f"{name}{'_x' if setting.relative else '='}{value}")


def _below(document: Document, at: Key) -> Document:
    """Return a sub-table as a document of its own, its values knowing where they stand."""
    table: Any = document.table
    for name in at:
        table = table.get(name, {})
    origins = {k[len(at) :]: o for k, o in document.origins.items() if k[: len(at)] == at}
    return Document(table, origins, document.path)


def _layer(key: Key, value: Any, origin: Origin) -> Document:
    table = value
    for name in reversed(key):
        table = {name: table}
    return Document(table, {key[:n]: origin for n in range(1, len(key) + 1)})


def _value(setting: Setting, base: Document) -> Any:
    """Return a setting's value; a factor times what the recipe says, an integer if that is one."""
    if not setting.relative:
        return setting.value
    own = dict(_leaves(base.table)).get(setting.key)
    if isinstance(own, bool) or not isinstance(own, int | float):
        says = "does not set this" if own is None else f"says {own!r}"
        message = f"a factor needs a number to multiply; {shown(base.path)} {says}"
        raise RecipeError([Problem(setting.key, message, origin=setting.origin)])
    value = float(f"{own * setting.value:.6g}")
    if isinstance(own, int) and not value.is_integer():
        message = f"{setting.value} times the recipe's {own} is no whole number"
        raise RecipeError([Problem(setting.key, message, origin=setting.origin)])
    return int(value) if isinstance(own, int) else value
