"""Checks of every algorithm, run for real on stand-ins: a tiny random model, twelve sums.

An algorithm whose defaults are sized for real work needs small ones, for example
``params={"algorithm/mine": {"n_steps": 2, "rollout_batch_size": 8}}``. Slots that the
table leaves open are filled when they are required; give the optional ones that matter.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import tomli
import tomli_w

from alignkit.component import slots_of
from alignkit.errors import RunFailed
from alignkit.execution import Run, execute
from alignkit.kinds import KINDS
from alignkit.lifecycle.signals import Interrupted
from alignkit.resume import resume
from alignkit_testing.kit import Check, Subject
from alignkit_testing.standins import RECORDED, stand_in


def runs(subject: Subject) -> None:
    """The run ends as done, and returns finite numbers by name."""
    manifest = _finished(subject)["manifest"]
    assert manifest["status"] == "done", f"the manifest says {manifest['status']!r}"
    result = manifest["result"]
    assert result, "run() returns no metrics; return those of the last step"
    lost = [name for name, value in result.items() if value is None]
    assert not lost, f"run() returns numbers that are not finite: {lost}"


def logs_its_steps(subject: Subject) -> None:
    """`metrics.jsonl` has a row per step, steps never go back, and no step has two rows."""
    steps = [row["step"] for row in _finished(subject)["metrics"]]
    assert steps, "nothing is logged; call run.log(step, metrics) once per step"
    assert steps == sorted(set(steps)), (
        f"steps are logged in the order {steps}; call run.log once per step, in order"
    )


def logs_finite_numbers(subject: Subject) -> None:
    """No metric of a healthy run is NaN or infinite."""
    for row in _finished(subject)["metrics"]:
        bad = [name for name, value in row.items() if value is None or not math.isfinite(value)]
        assert not bad, f"step {row['step']} logs numbers that are not finite: {bad}"


def keeps_recipe_and_manifest(subject: Subject) -> None:
    """What ran can be told from the run directory: the plan in full, the plugin of each part."""
    done = _finished(subject)
    assert done["recipe"] == done["plan"], (
        f"recipe.toml of the run says {done['recipe']}, what ran is {done['plan']}"
    )
    parts = {part["key"]: part["kind"] for part in done["manifest"]["components"]}
    assert parts.get("") == "algorithm", f"the manifest lists {parts}"
    for slot in slots_of(subject.component.params, KINDS).values():
        if slot.required and slot.kind and slot.arity == "one":
            assert parts.get(slot.name) == slot.kind, f"[{slot.name}] is not in {parts}"


def attaches_its_trackers(subject: Subject) -> None:
    """Trackers in a `trackers` slot get what the run logs: call run.attach(self.trackers)."""
    if not _has_trackers(subject):
        return
    done = _finished(subject)
    told = [step for event, step in done["recorded"] if event == "log"]
    logged = [row["step"] for row in done["metrics"]]
    assert told == logged, (
        f"the tracker was told of steps {told}, metrics.jsonl has {logged}; call "
        "run.attach(trackers) before the first run.log"
    )


def repeats_itself(subject: Subject) -> None:
    """Same recipe, same seed, same machine: same numbers, but for times."""
    first, second = _finished(subject)["metrics"], _run(subject)["metrics"]
    for a, b in zip(map(_timeless, first), map(_timeless, second), strict=True):
        apart = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
        assert not apart, (
            f"step {a['step']} of a second run differs in {apart[:5]}: "
            f"{[(a.get(n), b.get(n)) for n in apart[:2]]}; is everything drawn keyed by the seed?"
        )


def resumes_exactly(subject: Subject) -> None:
    """Ended after its middle row and resumed, a run logs what it would have, no row twice.

    A loop over `training.steps` (alignkit.engine.training.loop) is resumed; any other begins anew.
    """
    whole = _finished(subject)["metrics"]
    resumed = _run(subject, end_after=(len(whole) + 1) // 2)["metrics"]
    steps = [row["step"] for row in resumed]
    assert steps == [row["step"] for row in whole], f"the resumed run logged steps {steps}"
    for a, b in zip(map(_timeless, whole), map(_timeless, resumed), strict=True):
        apart = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
        assert not apart, (
            f"step {a['step']} of a resumed run differs in {apart[:5]}: "
            f"{[(a.get(n), b.get(n)) for n in apart[:2]]}; is all that changes from step to step "
            "in remember= of training(), and all that is drawn made by t.sample and t.update?"
        )


@cache
def _finished(subject: Subject) -> dict[str, Any]:
    """Return what a run left behind; one run serves all checks that only look."""
    return _run(subject)


def _run(subject: Subject, end_after: int = 0) -> dict[str, Any]:
    """Run the algorithm, ended after ``end_after`` rows and resumed unless that is 0."""
    changes: dict[str, Any] = {}
    if _has_trackers(subject):
        changes["trackers"] = [*subject.table.get("trackers", ()), stand_in("tracker")]
    subject.build(**changes)  # skips the test where the machine lacks something
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        node = subject.node(**changes)
        try:
            with _ended(end_after):
                execute(node, Path(folder) / "recipe.toml", out, ["conformance"])
        except Interrupted:
            _resume(subject, out)
        except RunFailed as error:
            raise AssertionError(f"{subject.id} does not run:\n{error}") from error
        kept = tomli.loads((out / "recipe.toml").read_text(encoding="utf-8"))
        kept.pop("plugins", None)  # where the copies of plugin files are
        return {
            "plan": tomli.loads(tomli_w.dumps(node.dump())),
            "recipe": kept,
            "manifest": json.loads((out / "manifest.json").read_text(encoding="utf-8")),
            "metrics": _lines(out / "metrics.jsonl"),
            "recorded": _lines(out / RECORDED) if (out / RECORDED).exists() else [],
        }


@contextmanager
def _ended(after: int) -> Iterator[None]:
    """End a run as SIGTERM would, once it has logged so many rows; 0 = never."""
    log, logged = Run.log, 0

    def counted(self: Run, step: int, metrics: Mapping[str, float]) -> None:
        nonlocal logged
        log(self, step, metrics)
        logged += 1
        if logged == after:
            self.signals.interrupt("the conformance kit")

    Run.log = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Run.log = log  # type: ignore[method-assign]


def _resume(subject: Subject, out: Path) -> None:
    try:
        resume(out, subject.registry, ["conformance"])
    except RunFailed as error:
        raise AssertionError(f"{subject.id} cannot be resumed:\n{error}") from error


def _has_trackers(subject: Subject) -> bool:
    slot = slots_of(subject.component.params, KINDS).get("trackers")
    return slot is not None and slot.kind == "tracker" and slot.arity == "list"


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def is_measured(metric: str) -> bool:
    """Whether a metric depends on the machine's speed and memory, so that no two runs agree."""
    speed = ("time", "train/tokens_per_second", "train/mfu")
    return metric in speed or metric.startswith(("time/", "memory/", "ranks/"))


def _timeless(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if not is_measured(k)}


CHECKS: tuple[Check, ...] = (
    runs,
    logs_its_steps,
    logs_finite_numbers,
    keeps_recipe_and_manifest,
    attaches_its_trackers,
    repeats_itself,
    resumes_exactly,
)
