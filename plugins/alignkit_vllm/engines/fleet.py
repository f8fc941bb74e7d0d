"""Several engines that sample side by side, each with the whole model on GPUs of its own.

If a model fits on one card, two engines answer twice as many prompts as one. One engine split over
two cards spends much of its time on communication between them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import torch

from alignkit_vllm.engines import Engine, LostError
from alignkit_vllm.engines.delivery import Delivery
from alignkit_vllm.engines.server import ServerEngine
from alignkit_vllm.requests import Answer, Request

if TYPE_CHECKING:
    from alignkit.protocols import Policy

Found = tuple[int, list[Answer]]


class Fleet(Engine):
    """Servers of this run that share its prompts; all hold the same weights."""

    def __init__(
        self,
        engines: Sequence[ServerEngine],
        *,
        together: Callable[[Sequence[ServerEngine]], Delivery] | None = None,
    ) -> None:
        """``together`` returns the delivery to all engines at once; None = one by one."""
        self.engines = list(engines)
        self._together = together
        self._shared: Delivery | None = None
        self.peer = f"the {len(self.engines)} vLLM servers of this run"
        self._lost: set[int] = set()
        """Indices of engines that were lost and not brought back yet."""

    def start(self, folder: Path, policy: Policy) -> None:
        """Start all engines at once, each on a copy of ``folder``, which gets its logs too."""
        for number, engine in enumerate(self.engines):
            own = folder / f"engine-{number}"
            shutil.copytree(folder, own, ignore=shutil.ignore_patterns("engine-*"))
            engine.begin(own, policy)
        for engine in self.engines:
            engine.wait()

    def load(self, policy: Policy, dtype: torch.dtype, version: str) -> None:
        """Send the weights to all engines at once by NCCL, or else to one after another."""
        if not self._reaches_all(policy, dtype):
            for number, engine in enumerate(self.engines):
                with self._noting(number):
                    engine.load(policy, dtype, version)
            return
        assert self._shared is not None
        with self._noting(*range(len(self.engines))):  # one lost engine blocks them all
            self._shared.bring(policy, dtype, version)
        for number, engine in enumerate(self.engines):
            with self._noting(number):
                engine.reset()

    def _reaches_all(self, policy: Policy, dtype: torch.dtype) -> bool:
        """Set up one transfer to all engines; return whether that works."""
        if self._together is None:
            return False
        if self._shared is None:
            self._shared = self._together(self.engines)
        with self._noting(*range(len(self.engines))):
            return self._shared.joined(policy, dtype)

    def computed(self) -> Mapping[str, str]:
        route = self._shared.route if self._shared is not None else None
        if route is not None and route.way == "nccl":
            return {"weights": f"{route}; one broadcast to all engines"}
        return self.engines[0].computed()

    def holds(self) -> str:
        found = set()
        for number, engine in enumerate(self.engines):
            with self._noting(number):
                found.add(engine.holds())
        return found.pop() if len(found) == 1 else ""

    def columns(self) -> Mapping[str, Any]:
        """Return some columns of one engine's weights: of one that differs from the first, if any.

        They are compared with the policy's, so a single engine with other weights is found.
        """
        first, *others = (engine.columns() for engine in self.engines)
        return next((other for other in others if other != first), first)

    def stream(self, requests: Sequence[Request]) -> Generator[Found]:
        """Distribute the requests in turn; yield each one's index and answers as they finish."""
        found: SimpleQueue[Found | _Ended] = SimpleQueue()
        stopped = Event()
        running = len(self.engines)
        with ExitStack() as stack:
            for number, engine in enumerate(self.engines):
                places = range(number, len(requests), running)
                own = [requests[i] for i in places]
                part = _Part(number, engine, places, own, found, stopped)
                stack.callback(part.join)
                stack.callback(engine.hang_up)
                part.start()
            stack.callback(stopped.set)
            while running:
                item = found.get()
                if not isinstance(item, _Ended):
                    yield item
                elif item.error is None:
                    running -= 1
                else:
                    if isinstance(item.error, LostError):
                        self._lost.add(item.number)
                    raise item.error

    def recover(self, lost: Exception) -> None:
        """Restart the engines that were lost; the others wait."""
        if not self._lost:
            raise lost
        self._leave()
        for number in sorted(self._lost):
            self.engines[number].recover(lost)
        self._lost.clear()

    def max_len(self) -> int:
        return min(engine.max_len() for engine in self.engines)

    def progress(self) -> str:
        told = [engine.progress() for engine in self.engines]
        return "; ".join(f"engine {i}: {text}" for i, text in enumerate(told) if text)

    def _leave(self) -> None:
        """Close the transfer to all engines; the next load sets it up again."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()

    def close(self) -> None:
        with ExitStack() as stack:
            stack.callback(self._leave)
            for engine in self.engines:
                stack.callback(engine.close)

    def kill(self) -> None:
        for engine in self.engines:
            engine.kill()

    def log_end(self) -> str:
        self._leave()
        return "\n".join(filter(None, [engine.log_end() for engine in self.engines]))

    @contextmanager
    def _noting(self, *numbers: int) -> Iterator[None]:
        """Record the engines ``numbers`` as lost if the block raises LostError."""
        try:
            yield
        except LostError:
            self._lost.update(numbers)
            raise


@dataclass(frozen=True, slots=True)
class _Ended:
    """Says that an engine has no more answers."""

    number: int
    error: BaseException | None = None


class _Part(Thread):
    """A thread that passes on one engine's answers to its share of the requests."""

    def __init__(
        self,
        number: int,
        engine: ServerEngine,
        places: Sequence[int],
        requests: Sequence[Request],
        found: SimpleQueue[Found | _Ended],
        stopped: Event,
    ) -> None:
        """``places`` are the requests' indices in the batch; ``stopped`` ends it early."""
        super().__init__(name=f"alignkit asks vLLM engine {number}", daemon=True)
        self.number, self.engine, self.found, self.stopped = number, engine, found, stopped
        self.places, self.requests = places, requests

    def run(self) -> None:
        error: BaseException | None = None
        try:
            self._hand_on()
        except BaseException as raised:  # noqa: BLE001 # the caller raises it, whatever it is
            error = raised
        self.found.put(_Ended(self.number, error))

    def _hand_on(self) -> None:
        with closing(self.engine.stream(self.requests)) as answers:
            for place, answer in answers:
                self.found.put((self.places[place], answer))
                if self.stopped.is_set():
                    return
