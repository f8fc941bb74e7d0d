"""Event files that TensorBoard shows."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import tomli_w

from alignkit_trackers.values import sample_table

if TYPE_CHECKING:
    from alignkit.protocols import Run


class TensorboardTracker:
    """Writes scalars and samples; see :class:`alignkit_trackers.Tensorboard`."""

    def __init__(self, samples: int) -> None:
        self._samples = samples

    def start(self, run: Run, /) -> None:
        """Open event files in the run directory and put the recipe into them."""
        from torch.utils.tensorboard import SummaryWriter

        self._hook, threading.excepthook = threading.excepthook, self._excepthook
        self._writer: Any = SummaryWriter(
            log_dir=str(run.dir / "tensorboard"),
            purge_step=run.first_step if run.resumed else None,  # these come again
        )
        self._writer.add_text("recipe", _verbatim(tomli_w.dumps(dict(run.plan))))

    def log(self, step: int, metrics: Mapping[str, float], /) -> None:
        """Write one row of scalars; TensorBoard draws a gap where one is not finite."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def rollouts(self, step: int, name: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """Write the first rows as text."""
        columns, cells = sample_table(rows, self._samples)
        for number, row in enumerate(cells):
            fields = zip(columns, row, strict=True)
            text = "\n\n".join(f"**{c}**\n\n{_verbatim(v)}" for c, v in fields)
            self._writer.add_text(f"{name}/{number}", text, step)

    def close(self, status: Literal["done", "failed"], /) -> None:
        """Write what is buffered and close the files."""
        threading.excepthook = self._hook
        self._writer.close()

    def _excepthook(self, raised: threading.ExceptHookArgs, /) -> None:
        """Leave it to the next call to raise what the thread that writes the files raised."""
        if type(raised.thread).__name__ != "_AsyncWriterThread":
            self._hook(raised)


def _verbatim(value: object) -> str:
    """Return Markdown that shows ``value`` as it is: a code block by indentation."""
    return "\n".join(f"    {line}" for line in str(value).split("\n"))
