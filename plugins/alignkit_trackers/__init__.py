"""Built-in trackers: console, jsonl, wandb, tensorboard, mlflow, trackio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit import Component, Params, hookimpl
from alignkit.component import NewPath
from alignkit.protocols import Tracker
from alignkit.security.names import path_problem
from alignkit.shipped import exists

Text = Annotated[str, Field(min_length=1)]
Samples = Annotated[int, Field(ge=0)]


class Console(Params[Tracker]):
    """Show progress: a live display with time left in a terminal, else a line per step."""

    metrics: tuple[Text, ...] = (
        "eval/*answer_reward",
        "train/reward",
        "train/accuracy",
        "train/loss",
        "train/token_entropy",
        "train/response_length",
        "train/grad_norm",
    )
    """Metrics to show where a run logs them, in this order; ``*`` stands for anything."""

    every: Annotated[int, Field(ge=1)] = 1
    """Steps between lines where there is no terminal; steps with an evaluation always show."""

    def build(self) -> Tracker:
        from alignkit_trackers.console import ConsoleTracker

        return ConsoleTracker(self.metrics, self.every)


class Jsonl(Params[Tracker]):
    """Append every row of metrics, with the run's name, to a file that runs can share.

    A run's own metrics are in its directory's ``metrics.jsonl`` with or without this.
    """

    path: NewPath
    """File to append to; it and its folder are created if needed."""

    def build(self) -> Tracker:
        from alignkit_trackers.jsonl import JsonlTracker

        return JsonlTracker(self.path)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if exists(self.path, Path.is_dir):
            yield "path", f"{self.path} is a folder; name a file in it, such as metrics.jsonl"
        if problem := path_problem(self.path):
            yield "path", f"{str(self.path)!r:.200} cannot be written: it has {problem}"


class Wandb(Params[Tracker]):
    """Log to Weights & Biases: metrics over train_step and eval_step, and tables of samples."""

    project: Text = "alignkit"
    """Project the run goes to."""

    entity: Text | None = None
    """User or team the project belongs to; without it your default one."""

    name: Text | None = None
    """Name of the run; without it that of the run directory."""

    group: Text | None = None
    """Name that groups runs, such as the seeds of one experiment."""

    tags: tuple[Text, ...] = ()
    """Labels to filter runs by."""

    mode: Literal["online", "offline"] | None = None
    """Unset: ``WANDB_MODE`` decides; without that, online with a key on this machine, else offline.
    An offline run is uploaded with ``wandb sync``."""

    samples: Samples = 16
    """Rows to log from each table of rollouts and evaluation responses; 0 = no tables."""

    def build(self) -> Tracker:
        from alignkit_trackers.wandb_run import WandbTracker

        settings = self.model_dump(include={"project", "entity", "name", "group", "tags"})
        given = {key: value for key, value in settings.items() if value}
        return WandbTracker(given, self.mode, self.samples)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        from alignkit_trackers.wandb_run import environment_problem

        if problem := environment_problem():
            yield "", problem

    def missing(self) -> Iterable[str]:
        if not find_spec("wandb"):
            yield "tracker wandb needs the wandb package: pip install 'alignkit[wandb]'"


class Tensorboard(Params[Tracker]):
    """Write event files for TensorBoard to ``tensorboard/`` in the run directory."""

    samples: Samples = 4
    """Rows written as text of each table of rollouts and evaluation responses; 0 = none."""

    def build(self) -> Tracker:
        from alignkit_trackers.tensorboard_log import TensorboardTracker

        return TensorboardTracker(self.samples)

    def missing(self) -> Iterable[str]:
        if not find_spec("tensorboard"):
            yield "tracker tensorboard needs tensorboard: pip install 'alignkit[tensorboard]'"


class Mlflow(Params[Tracker]):
    """Log to MLflow: metrics over steps, the recipe as parameters, tables of samples as files."""

    uri: Text | None = None
    """Address of the tracking server, or a database such as ``sqlite:////home/me/mlflow.db``; its
    samples are beside it. Unset: ``MLFLOW_TRACKING_URI``; without that, a database in ``mlflow/``
    in the run directory."""

    experiment: Text = "alignkit"
    """Experiment the run goes to; made if it does not exist."""

    name: Text | None = None
    """Name of the run; without it that of the run directory."""

    tags: Mapping[Text, str] = {}
    """Labels to filter runs by."""

    samples: Samples = 16
    """Rows to keep of each table of rollouts and evaluation responses; 0 = no tables."""

    def build(self) -> Tracker:
        from alignkit_trackers.mlflow_run import MlflowTracker

        return MlflowTracker(self.uri, self.experiment, self.name, self.tags, samples=self.samples)

    def missing(self) -> Iterable[str]:
        if not find_spec("mlflow"):
            yield "tracker mlflow needs the mlflow package: pip install 'alignkit[mlflow]'"


class Trackio(Params[Tracker]):
    """Log to Trackio: metrics over steps and tables of samples, shown by ``trackio show``.

    They are in ``trackio/`` in the run directory, or in the folder that ``TRACKIO_DIR`` names.
    """

    project: Text = "alignkit"
    """Project the run goes to."""

    name: Text | None = None
    """Name of the run; without it that of the run directory."""

    group: Text | None = None
    """Name that groups runs, such as the seeds of one experiment."""

    space: Text | None = None
    """Space on the Hugging Face Hub, ``USER/NAME``, that receives and shows the run."""

    samples: Samples = 16
    """Rows to log from each table of rollouts and evaluation responses; 0 = no tables."""

    def build(self) -> Tracker:
        from alignkit_trackers.trackio_run import TrackioTracker

        settings = self.model_dump(include={"project", "name", "group"}) | {"space_id": self.space}
        return TrackioTracker({k: v for k, v in settings.items() if v}, self.samples)

    def missing(self) -> Iterable[str]:
        if not find_spec("trackio"):
            yield "tracker trackio needs the trackio package: pip install 'alignkit[trackio]'"


@hookimpl
def tracker() -> Iterable[Component[Tracker]]:
    yield Component("console", Console)
    yield Component("jsonl", Jsonl)
    yield Component("wandb", Wandb)
    yield Component("tensorboard", Tensorboard)
    yield Component("mlflow", Mlflow)
    yield Component("trackio", Trackio)
