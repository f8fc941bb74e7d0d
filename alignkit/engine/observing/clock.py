"""A stopwatch for the phases of a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from statistics import fmean
from time import perf_counter

from torch.profiler import record_function

from alignkit.engine.observing.metering import Meter
from alignkit.engine.ranks import here


class Clock:
    """Adds up wall-clock seconds by name, for the ``time/*`` metrics of one step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._before = dict(here().seconds)
        self.meter = Meter()
        """Counts what is computed while "update" is timed."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's duration under ``name``, also when it raises."""
        start = perf_counter()
        counted = self.meter.counting() if name == "update" else nullcontext()
        try:
            with counted, record_function(f"alignkit/{name}"):  # seen by --profile
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start

    def metrics(self) -> dict[str, float]:
        """Return the seconds so far as ``time/NAME``."""
        return {f"time/{name}": seconds for name, seconds in self.seconds.items()}

    def ranks(self) -> dict[str, float]:
        """Return the seconds spent on other ranks so far, as ``ranks/NAME``: the ranks' mean.

        They are part of the others; nothing in a run of one process. All ranks call this.
        """
        own = here().seconds
        spent = [seconds - self._before.get(name, 0.0) for name, seconds in own.items()]
        return {
            f"ranks/{name}": fmean(values)
            for name, *values in zip(own, *here().gather(spent), strict=True)
        }
