"""Calls that run beside the caller, on threads that end with the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Self, TypeVar

T = TypeVar("T")
_Job = tuple[Future[Any], Callable[[], Any]]


class Beside:
    """At most ``workers`` calls at a time.

    The threads of the standard library's executor keep a process alive until their calls return;
    these do not, so that a call which hangs cannot hold up the end of a run.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._left = False

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have ``call`` made; the future holds what it returns or raises."""
        future: Future[T] = Future()
        self._jobs.put((future, call))
        if len(self._threads) < self._workers:
            thread = threading.Thread(target=self._work, daemon=True, name="alignkit beside")
            self._threads.append(thread)
            thread.start()
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._left = True
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if self._left or not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                future.set_exception(error)
