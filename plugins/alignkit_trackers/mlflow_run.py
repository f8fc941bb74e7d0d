"""An MLflow run, on a tracking server or in a database in the run directory."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignkit_trackers.delivered import Delivered
from alignkit_trackers.values import sample_table

if TYPE_CHECKING:
    from alignkit.protocols import Run

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""How long a server that does not answer is waited for, unless the environment says: no run stands
still for the minutes that MLflow itself would try."""
SQLITE = "sqlite:///"
"""What the address of a database in a file begins with."""
PARAMS_AT_ONCE = 100
"""Parameters that a server takes in one request."""
LONGEST = 6000
"""Characters of a parameter that a server keeps."""


class MlflowTracker:
    """Logs metrics and samples; see :class:`alignkit_trackers.Mlflow`."""

    def __init__(
        self, uri: str | None, experiment: str, name: str | None, tags: Mapping[str, str], *,
        samples: int,
    ) -> None:  # fmt: skip
        self._uri, self._experiment, self._name = uri, experiment, name
        self._tags, self._samples = tags, samples

    def start(self, run: Run, /) -> None:
        """Open the run, or the one that a resumed run had, and report where it is."""
        for key, value in {**PATIENCE, "MLFLOW_DISABLE_TELEMETRY": "true"}.items():
            os.environ.setdefault(key, value)
        mlflow: Any = import_module("mlflow")
        logging.getLogger("mlflow.store").setLevel(logging.WARNING)  # it tells of every table
        self._entities: Any = import_module("mlflow.entities")
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI") or _database(run.dir / "mlflow")
        self._client = mlflow.MlflowClient(uri)
        self._sent = Delivered(run, "mlflow")
        self._id = self._found(run) or self._opened(run, uri)
        run.say(f"mlflow: run {self._id} of experiment {self._experiment!r} at {_without_key(uri)}")

    def _found(self, run: Run) -> str:
        """Go on with the run of a resumed run; ``""`` if there is none."""
        path = run.dir / ".trackers" / "mlflow-id"
        if not run.resumed or not path.is_file():
            return ""
        found = path.read_text(encoding="utf-8").strip()
        self._client.update_run(found, status="RUNNING")
        return found

    def _opened(self, run: Run, uri: str) -> str:
        """Make a run, with the recipe as its parameters; return its id."""
        known = self._client.get_experiment_by_name(self._experiment)
        number = (
            known.experiment_id
            if known
            else self._client.create_experiment(self._experiment, artifact_location=_files(uri))
        )
        tags = {"mlflow.source.name": "alignkit", **self._tags}
        made = self._client.create_run(number, run_name=self._name or run.name, tags=tags)
        found = str(made.info.run_id)
        params = [self._entities.Param(k, v[:LONGEST]) for k, v in leaves(run.plan)]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self._client.log_batch(found, params=params[start : start + PARAMS_AT_ONCE])
        (run.dir / ".trackers" / "mlflow-id").write_text(found, encoding="utf-8")
        return found

    def log(self, step: int, metrics: Mapping[str, float], /) -> None:
        """Log one row; a step that was sent before the run was resumed is left out."""
        if self._sent.has(step):
            return
        now = int(time.time() * 1000)
        row = [self._entities.Metric(usable(k), v, now, step) for k, v in metrics.items()]
        self._client.log_batch(self._id, metrics=row)
        self._sent.note(step)

    def rollouts(self, step: int, name: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """Keep the first rows as a file that MLflow shows as a table."""
        if not self._samples or not rows or self._sent.has(step):
            return
        columns, cells = sample_table(rows, self._samples)
        text = json.dumps({"columns": columns, "data": cells}, ensure_ascii=False)
        self._client.log_text(self._id, text, f"{name}/step_{step:06d}.json")

    def close(self, status: Literal["done", "failed"], /) -> None:
        """End the run, marked as failed if it did."""
        self._client.set_terminated(self._id, "FINISHED" if status == "done" else "FAILED")


def _database(folder: Path) -> str:
    """Return the address of a database of a run's own."""
    folder.mkdir(exist_ok=True)
    return f"{SQLITE}{folder / 'mlflow.db'}"


def _files(uri: str) -> str | None:
    """Return where samples go: beside a database of this machine, else wherever the server says."""
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).absolute().parent / "artifacts").as_uri()


def usable(name: str) -> str:
    """Return a metric's name with what MLflow does not take replaced.

    >>> usable("eval/pass@8 (hard)")
    'eval/pass_8 _hard_'
    """
    return re.sub(r"[^\w/.\- :]", "_", name)[:250]


def leaves(table: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of a recipe as text, by dotted key.

    >>> list(leaves({"use": "grpo", "loss": {"cap": 2.0}}))
    [('use', 'grpo'), ('loss.cap', '2.0')]
    """
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{at}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield usable(f"{at}{key}"), text


def _without_key(uri: str) -> str:
    """Return an address without the user and password it may hold."""
    return re.sub(r"//[^/@]+@", "//", uri)
