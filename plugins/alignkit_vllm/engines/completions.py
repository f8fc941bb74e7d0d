"""A server's answers to many requests at once, returned in the order in which they finish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from queue import SimpleQueue
from typing import Any

from alignkit_vllm.engines import LostError
from alignkit_vllm.engines.client import Client, UnreachableError, event_loop
from alignkit_vllm.requests import Answer, Request

PAUSES = (0.5, 2.0)
"""Seconds before a request is sent again: a busy server may drop a connection; a dead one stays
dead."""


class Completions:
    """Asks a server for responses."""

    def __init__(
        self, client: Client, *, at_once: int, timeout: float, is_dead: Callable[[], bool]
    ) -> None:
        """Send ``at_once`` prompts at a time; repeat a request unless the server ``is_dead``.

        ``timeout`` is for one prompt's answers, in seconds.
        """
        self.client, self.at_once, self.timeout, self.is_dead = client, at_once, timeout, is_dead
        self.model = ""
        """The name under which the server offers its model."""
        self.left = 0
        """Number of prompts of the last batch that are not answered yet."""
        self._batch: Future[None] | None = None

    def stream(self, requests: Sequence[Request]) -> Generator[tuple[int, list[Answer]]]:
        """Yield each request's index and its answers, in the order in which they finish.

        Raises:
            LostError: the server is lost, or :meth:`hang_up` was called.
        """
        self.left = len(requests)
        found: SimpleQueue[tuple[int, list[Answer]] | None] = SimpleQueue()
        with event_loop() as portal:
            self._batch = batch = portal.start_task_soon(self._answer_all, requests, found.put)
            batch.add_done_callback(lambda _: found.put(None))
            while (item := found.get()) is not None:
                self.left -= 1
                yield item
            try:
                batch.result()
            except CancelledError as error:
                raise LostError(f"the connections to {self.client.url} were closed") from error
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from failed

    def hang_up(self) -> None:
        """Close all connections; a stream in progress, in any thread, raises LostError."""
        if self._batch is not None:
            self._batch.cancel()

    async def _answer_all(
        self, requests: Sequence[Request], hand_out: Callable[[tuple[int, list[Answer]]], None]
    ) -> None:
        """Call ``hand_out`` for each request; the first failure cancels the others."""
        gate = asyncio.Semaphore(self.at_once)

        async def answer(place: int, request: Request) -> None:
            async with gate:
                hand_out((place, await self._ask(request)))

        async with asyncio.TaskGroup() as group:
            for place, request in enumerate(requests):
                group.create_task(answer(place, request))

    async def _ask(self, request: Request) -> list[Answer]:
        for pause in PAUSES:
            try:
                return await self._ask_once(request)
            except UnreachableError:
                if self.is_dead():
                    raise
            await asyncio.sleep(pause)
        return await self._ask_once(request)

    async def _ask_once(self, request: Request) -> list[Answer]:
        body = {
            "model": self.model,
            "prompt": list(request.prompt),
            "n": request.n,
            "logprobs": 0,
            "return_token_ids": True,  # nosec B105 # no password
            **request.options,
        }
        answered = await self.client.ask("POST", "/v1/completions", body, self.timeout)
        choices = sorted(answered["choices"], key=lambda choice: int(choice["index"]))
        return [_answer(choice) for choice in choices]


def _answer(choice: Mapping[str, Any]) -> Answer:
    return Answer(
        token_ids=tuple(choice["token_ids"]),
        logprobs=tuple(choice["logprobs"]["token_logprobs"]),
        text=choice["text"],
        ended=choice["finish_reason"] != "length",
        stop_string=isinstance(choice.get("stop_reason"), str),
    )
