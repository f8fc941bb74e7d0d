"""A Weights & Biases run, online with a key and offline without."""

from __future__ import annotations

import math
import netrc
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from alignkit.run_data.metrics import read_rows
from alignkit.security.names import checked_name, name_problem, refused
from alignkit_trackers.values import sample_table
from alignkit_trackers.wandb_files import steps_on_disk
from alignkit_trackers.wandb_service import patiently

if TYPE_CHECKING:
    from alignkit.protocols import Run

Mode = Literal["online", "offline"]

MODES = ("online", "offline", "disabled", "dryrun", "run", "shared")
"""What wandb takes as ``WANDB_MODE``."""
UPLOAD = 600.0
"""Seconds at the end of a run to wait for what is not uploaded yet; it is on the disk too."""
ANSWER = 60.0
"""Seconds that W&B's process may take for a row."""


class WandbTracker:
    """Logs metrics and samples; see :class:`alignkit_trackers.Wandb`."""

    def __init__(self, settings: Mapping[str, Any], mode: Mode | None, samples: int) -> None:
        self._settings, self._mode, self._samples = settings, mode, samples

    def start(self, run: Run, /) -> None:
        """Open the run below the run directory and report where it is."""
        self._say = run.say
        wandb: Any = import_module("wandb")  # untyped where it is not installed

        self._on_disk = steps_on_disk(run.dir) if run.resumed else set()
        given = {"name": run.name, "id": _id(run), "resume": "allow", **self._settings}
        self._run = _opened(
            run,
            self._mode or default_mode(),
            dir=run.dir,
            config=dict(run.plan),
            # Its own record of the command line and the git remote would hold their secrets.
            settings=wandb.Settings(
                console="off",
                silent=True,
                x_disable_meta=True,
                finish_timeout=UPLOAD,
                finish_timeout_raises=True,
            ),
            **given,
        )
        for step in ("train_step", "eval_step"):
            self._run.define_metric(step, hidden=True)
        for part, step in (("train", "train_step"), ("time", "train_step"), ("eval", "eval_step")):
            self._run.define_metric(f"{part}/*", step_metric=step)
        run.say(f"wandb: {self._state()}")
        for row in _rows_before(run):
            self.log(row.pop("step"), row)

    def _state(self) -> str:
        if self._run.disabled:
            return "disabled by WANDB_MODE; nothing is logged there"
        offline = f"offline; upload it with: wandb sync {Path(self._run.dir).parent}"
        return offline if self._run.offline else str(self._run.url)

    def log(self, step: int, metrics: Mapping[str, float], /) -> None:
        """Log one row; ``train/*`` and ``time/*`` over train_step, ``eval/*`` over eval_step."""
        if step not in self._on_disk:
            row = {**metrics, **_steps(step, metrics)}
            patiently(partial(self._run.log, row), ANSWER)

    def rollouts(self, step: int, name: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """Log the first rows as a table, ``train/rollouts`` or ``eval/samples``."""
        if not self._samples or not rows or step in self._on_disk:
            return
        wandb: Any = import_module("wandb")  # untyped where it is not installed

        columns, cells = sample_table(rows, self._samples)
        table = wandb.Table(columns=columns, data=cells, allow_mixed_types=True)
        key = "train/rollouts" if name == "rollouts" else f"{name}/samples"
        patiently(partial(self._run.log, {key: table, **_steps(step, [key])}), ANSWER)

    def close(self, status: Literal["done", "failed"], /) -> None:
        """Finish the run, marked as failed if it did."""
        folder = Path(self._run.dir).parent
        try:
            finish = partial(self._run.finish, exit_code=0 if status == "done" else 1)
            patiently(finish, UPLOAD + ANSWER)
        except TimeoutError:
            self._say(f"wandb did not take all within {UPLOAD:g} s; later: wandb sync {folder}")
        except Exception:
            with suppress(Exception):  # of a process that is gone: else it is raised at exit
                patiently(import_module("wandb").teardown, ANSWER)
            raise


def _id(run: Run) -> str:
    """Return the run's id at Weights & Biases, the same after it is resumed.

    That is ``WANDB_RUN_ID`` at the start of the run, or else a random id.
    """
    path = run.dir / ".trackers" / "wandb-id"
    path.parent.mkdir(exist_ok=True)
    if not run.resumed or not path.is_file():
        chosen = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        path.write_text(checked_name(chosen, "a W&B run (WANDB_RUN_ID)", room=64), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _rows_before(run: Run) -> Iterator[dict[str, Any]]:
    """Yield the rows that a resumed run has of the steps before it goes on."""
    warnings: list[str] = []
    for row in read_rows(run.dir / "metrics.jsonl", warnings) if run.resumed else ():
        yield {name: math.nan if value is None else value for name, value in row.items()}
    for warning in warnings:
        run.say(f"warning: {warning}")


def environment_problem() -> str:
    """Return what is wrong with the environment's settings of wandb, ``""`` if nothing is."""
    mode, chosen = os.environ.get("WANDB_MODE", ""), os.environ.get("WANDB_RUN_ID", "")
    if mode and mode not in MODES:
        return f"WANDB_MODE is {mode!r:.60}; it may be {', '.join(MODES)}"
    if chosen and (problem := name_problem(chosen, room=64)):
        return refused(chosen, "a W&B run (WANDB_RUN_ID)", problem)
    return ""


def _steps(step: int, names: Mapping[str, Any] | Sequence[str]) -> dict[str, int]:
    parts = {name.partition("/")[0] for name in names}
    return {"train_step": step} | ({"eval_step": step} if "eval" in parts else {})


def _opened(run: Run, mode: Mode | None, **given: Any) -> Any:
    """Start a wandb run, offline where the server cannot be reached or refuses the key."""
    wandb: Any = import_module("wandb")

    try:
        return wandb.init(mode=mode, **given)
    except wandb.Error as error:
        if mode == "offline":
            raise
        reason = str(error).partition("\n")[0].rstrip(".")
        run.say(f"wandb cannot be used online: {reason}; training goes on, logged offline")
        wandb.teardown()  # its service holds on to the id of the run that could not start
        return wandb.init(mode="offline", **given)


def default_mode() -> Mode | None:
    """Return "offline" where there is no key to log in with; None leaves it to wandb.

    ``WANDB_MODE`` decides if it is set; otherwise ``WANDB_API_KEY`` or the netrc entry that
    ``wandb login`` writes.
    """
    if os.environ.get("WANDB_MODE") or os.environ.get("WANDB_API_KEY"):
        return None
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        entries = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return "offline"
    return None if host in entries.hosts else "offline"
