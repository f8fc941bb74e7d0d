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
from alignkit.document import Document, Key, merge
from alignkit.errors import Origin, Problem, RecipeError, did_you_mean
from alignkit.overrides import typed
from alignkit.plugins import Registry
from alignkit.security.names import file_name, name_problem, refused
from alignkit.shipped import path_from, resolved
from alignkit_sweep.settings import HOW, ROOM, How, Setting, below, label, layer, leaves, value
from alignkit_sweep.stop import StopTable
from alignkit_sweep.tables import SweepTable, VariantTable


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
    under and over what the sweep sets; ``seeds`` and ``max_hours`` stand for those of the file and
    of all its variants.
    """

    def __init__(
        self,
        path: Path,
        registry: Registry,
        overlays: Iterable[Path] = (),
        overrides: Iterable[str] = (),
        *,
        seeds: Sequence[int] = (),
        max_hours: float | None = None,
    ) -> None:
        self.path, self.registry = path, registry
        self.overlays, self.overrides = tuple(overlays), tuple(overrides)
        self.document = toml.read(path)
        if seeds:
            self._replace("seeds", list(seeds), f"--seeds {','.join(map(str, seeds))}")
        if max_hours is not None:
            self._replace("max_hours", max_hours, f"--max-hours {max_hours:g}")
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

    def _replace(self, key: str, value: Any, typed: str) -> None:
        """Put a value of the command line in place of what the file and its variants say."""
        variants = self.document.table.get("variants")
        for own in variants.values() if isinstance(variants, dict) else ():
            if isinstance(own, dict):
                own.pop(key, None)
        self.document.table[key] = value
        self.document.origins[key,] = Origin(None, 1, typed)

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
        own_name = file_name(self.path.stem, room=ROOM)
        for place, (name, own) in enumerate(tables.items()):
            self._check_names(name, own, list(tables)[:place])
            recipes = list(self._files(name, "recipe"))
            if not recipes:
                self.problem(_table_of(name), 'there is no line recipe = "FILE.toml"')
                continue
            overlays, seeds = tuple(self._files(name, "with")), own.seeds or self.table.seeds
            if len(set(seeds)) < len(seeds):
                self.problem(self._at(name, "seeds")[0], f"a seed stands twice in {list(seeds)}")
            for point, varied in self._points(name):
                folder = "/".join(filter(None, [name, label(varied)])) or own_name
                yield Variant(
                    folder, name, recipes[0], overlays, seeds, point, own.best_of, own.start_from
                )

    def _check_names(self, name: str, own: VariantTable, above: Sequence[str]) -> None:
        if name and not re.fullmatch(r"\w[\w.=+-]*", name):
            message = f"{name[:60]!r} names a folder: use letters, digits and any of _ . = + -"
            self.problem(("variants", name), message)
        elif name and (fault := name_problem(name, room=ROOM)):
            self.problem(("variants", name), refused(name, "a folder of runs", fault))
        for key in ("best_of", "start_from"):
            wanted = getattr(own, key)
            if wanted is not None and wanted not in above:
                known = ", ".join(above) or "none"
                message = f"no variant {wanted!r} stands above this one; above: {known}"
                self.problem(("variants", name, key), message)

    def _at(self, name: str, key: str) -> tuple[Key, Any]:
        """Return where a variant's value is given, its own table or the top, and the value."""
        own = self.document.table.get("variants", {}).get(name, {})
        if key in own:
            return ("variants", name, key), own[key]
        return (key,), self.document.table.get(key, [])

    def _files(self, name: str, key: str) -> Iterator[Path]:
        at, value = self._at(name, key)
        folder = (self.document.origin(at).file or self.path).parent
        for file in [value] if isinstance(value, str) else value:
            path = resolved(path_from(file, folder))
            if not path.is_file():
                self.problem(at, f"no such file: {file} (looked for {path})")
            yield path

    def _points(self, name: str) -> Iterator[tuple[tuple[Setting, ...], list[Setting]]]:
        """Yield each combination of the grid and the factors, and its values that are varied."""
        axes = [axis for how in HOW for axis in self._axes(name, how)]
        for point in product(*axes):
            varied = [s for s, axis in zip(point, axes, strict=True) if len(axis) > 1]
            yield point, varied

    def _axes(self, name: str, how: How) -> Iterator[list[Setting]]:
        at, table = self._at(name, how)
        for key, found in leaves(dict(table)):
            wanted = str if how == "same_as" else list
            if not isinstance(found, wanted) or not found:
                what = "another key's name" if wanted is str else "an array of values"
                self.problem((*at, *key), f"expected {what}, got {found!r}")
                continue
            values = [found] if isinstance(found, str) else found
            yield [Setting(key, v, how, self.document.origin((*at, *key))) for v in values]

    def _check(self) -> None:
        """Resolve every variant, each that continues another with all it could come from."""
        names = [v.name for v in self.variants]
        for name in {n for n in names if names.count(n) > 1}:
            self.problem((), f"two variants would have the same folder: {name}")
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
                    if self.overrides:
                        message += f"; is what they vary set by -s {' -s '.join(self.overrides)}?"
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
            files = {"plugins": [str(file) for file in node.files]} if node.files else {}
            self._plans[key] = files | node.dump()
        return self._plans[key]

    def _document(
        self, variant: Variant, chain: Sequence[Variant], weights: Path | None
    ) -> Document:
        document = toml.read(variant.recipe, (*variant.overlays, *self.overlays))
        layers = [below(self.document, ("set",))]
        for part in (*chain, variant):
            layers.append(below(self.document, ("variants", part.table, "set")))
            layers += [layer(s.key, value(s, document), s.origin) for s in part.point]
        if variant.seeds:
            at, _ = self._at(variant.table, "seeds")
            layers.append(layer(("seed",), variant.seeds[0], self.document.origin(at)))
        if weights:
            origin = self.document.origin(("variants", variant.table, "start_from"))
            layers.append(layer(("policy", "path"), str(weights), origin))
        for top in (*layers, typed(self.overrides)):
            merge(document, copy.deepcopy(top))
        return document

    def settings(self, variant: Variant) -> dict[str, str]:
        """Return what a variant sets by dotted key, a factor as ``×0.1``."""
        table = self.document.table.get("variants", {}).get(variant.table, {})
        values = {".".join(k): json.dumps(v) for k, v in leaves(table.get("set", {}))}
        marks = {"grid": "", "factors": "×", "same_as": "as "}
        point = {".".join(s.key): f"{marks[s.how]}{s.value}" for s in variant.point}
        return values | point


def _table_of(name: str) -> Key:
    return ("variants", name) if name else ()
