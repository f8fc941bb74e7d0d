"""Which runs a sweep consists of, in which order, and what each continues from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from alignkit.errors import AlignkitError, did_you_mean
from alignkit.run_data.groups import Group, final
from alignkit.run_data.runs import RunData, is_run, read
from alignkit.security.names import file_name
from alignkit.text_table import aligned
from alignkit_sweep.child import Job
from alignkit_sweep.variants import Sweep, Variant


def default_folder(sweep: Path, overlays: Sequence[Path]) -> Path:
    """Return where a sweep's runs go: ``runs/`` and the names of the files it is made of."""
    return Path("runs") / file_name("+".join(path.stem for path in (sweep, *overlays)))


class Plans:
    """The runs of a sweep below a directory."""

    def __init__(self, sweep: Sweep, out: Path) -> None:
        self.sweep, self.out = sweep, out.absolute()

    def chosen(self, only: Sequence[str]) -> list[Variant]:
        """Return the variants that match, and those they continue from; all without a pattern."""
        variants = self.sweep.variants
        names = {name for v in variants for name in (v.name, v.table) if name}
        wanted: set[str] = set()
        for pattern in only:
            found = {n for n in names if fnmatchcase(n, pattern)}
            if not found:
                known = ", ".join(v.name for v in variants)
                guess = did_you_mean(pattern, names)
                raise AlignkitError(f"no variant matches {pattern!r}.{guess} There are: {known}")
            wanted |= found
        keep: list[Variant] = []
        for v in reversed(variants):
            if not only or {v.name, v.table} & wanted:
                keep.insert(0, v)
                wanted |= {v.best_of or v.name, v.start_from or v.name}
        return keep

    def waves(self, variants: Sequence[Variant]) -> Iterator[list[Variant]]:
        """Yield variants that can run side by side, after those they continue from."""
        left = list(variants)
        while left:
            tables = {v.table for v in left}
            wave = [v for v in left if not {v.best_of, v.start_from} & tables]
            left = [v for v in left if v not in wave]
            yield wave

    def folder(self, variant: Variant, seed: int | None) -> Path:
        """Return the directory of a run; without a seed of the sweep it is the recipe's own."""
        return self.out / variant.name / f"seed_{'own' if seed is None else seed}"

    def jobs(self, variant: Variant) -> list[Job]:
        """Return a variant's runs; what it continues from must be finished."""
        chain = self.chain(variant)
        seeds = variant.seeds or (None,)
        origin = self.best(variant.start_from) if variant.start_from else None
        if origin is None:
            plan = self.sweep.plan(variant, chain)
            plans = [plan if s is None else plan | {"seed": s} for s in seeds]
        else:
            plans = [self._continued(variant, chain, origin, seed) for seed in seeds]
        return [
            Job(variant.name, plan, self.folder(variant, seed))
            for seed, plan in zip(seeds, plans, strict=True)
        ]

    def _continued(
        self, variant: Variant, chain: Sequence[Variant], origin: Variant, seed: int | None
    ) -> dict[str, Any]:
        """Return the plan of a run that begins with the weights another one left."""
        mine = self.folder(origin, seed) / "final"
        every = [self.folder(origin, s) / "final" for s in origin.seeds or (None,)]
        weights = next((f for f in (mine, *every) if f.is_dir()), None)
        if weights is None:
            raise AlignkitError(f"{variant.name}: no run of {origin.name} left a folder final/")
        one = replace(variant, seeds=() if seed is None else (seed,))
        return self.sweep.plan(one, chain, weights)

    def chain(self, variant: Variant) -> tuple[Variant, ...]:
        """Return the winners whose settings a variant takes over, the first of them first."""
        if variant.best_of is None:
            return ()
        winner = self.best(variant.best_of)
        return (*self.chain(winner), winner)

    def best(self, table: str) -> Variant:
        """Return the best variant of a table; one with a run that diverged loses to any other.

        A table of one variant is that variant, whatever its runs log.
        """
        ranked = []
        candidates = list(self.sweep.candidates(table))
        if len(candidates) == 1 and self.runs(candidates[0]):
            return candidates[0]
        for v in candidates:
            runs = self.runs(v)
            found = final(Group(v.name, runs), self.sweep.table.metric) if runs else None
            if found:
                sound = all(run.status in ("done", "out of time") for run in runs)
                sign = 1 if self.sweep.table.goal == "max" else -1
                ranked.append((sound, sign * found.value, v))
        if not ranked:
            metric = self.sweep.table.metric
            raise AlignkitError(f"no run of {table!r} logged {metric}, so none is the best of them")
        return max(ranked, key=lambda r: r[:2])[2]

    def finished(self) -> list[RunData]:
        """Return all runs that exist, in the order of the sweep."""
        return [run for variant in self.sweep.variants for run in self.runs(variant)]

    def runs(self, variant: Variant) -> list[RunData]:
        """Return the existing runs of a variant."""
        folders = [self.folder(variant, seed) for seed in variant.seeds or (None,)]
        return [read(folder, self.out) for folder in folders if is_run(folder)]

    def listing(self, only: Sequence[str] = ()) -> str:
        """Return one line per run: its state and what the variant sets."""
        rows = []
        for v in self.chosen(only):
            settings = [f"{k} = {value}" for k, value in self.sweep.settings(v).items()]
            settings += [f"best of {v.best_of}"] * bool(v.best_of)
            settings += [f"starts from {v.start_from}"] * bool(v.start_from)
            for seed in v.seeds or (None,):
                folder = self.folder(v, seed)
                state = read(folder).status if is_run(folder) else "missing"
                rows.append((f"{v.name}/{folder.name}", state, ", ".join(settings)))
        return aligned(("RUN", "STATE", "SETTINGS"), rows)
