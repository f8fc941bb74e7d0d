"""A teacher behind a vLLM server: log-probs of given ids, by the server's ``prompt_logprobs``."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from alignkit.errors import AlignkitError
from alignkit_vllm.engines.client import (
    QUICK,
    START,
    Client,
    StrangerError,
    UnreachableError,
    event_loop,
    hopeless,
    meet,
)
from alignkit_vllm.guard import key_for
from alignkit_vllm.watchdog import say

if TYPE_CHECKING:
    from alignkit.protocols import Policy

T = TypeVar("T")

LONGEST_PAUSE = 5.0
"""Seconds between two attempts to reach a server that does not answer."""

Row = tuple[Sequence[int], int]
"""All ids of a prompt and its response, and the place of the first that is scored."""


class Teacher:
    """Asks a server for the log-probs of token ids; see ``VllmTeacher``."""

    version = 0

    def __init__(
        self, *, url: str, model: str | None, at_once: int, timeout: float, patience: float
    ) -> None:
        self.url, self.wanted, self.at_once = url, model, at_once
        self.timeout, self.patience = timeout, patience
        self.peer = f"the vLLM server {url}"
        self.client = Client(url, key_for(url, os.environ))
        self._model, self._max_len = "", 0  # as long as it was not met
        self._lost: float | None = None  # since when it does not answer

    @property
    def name(self) -> str:
        """The model, as far as it is known, and its server."""
        known = self._model or self.wanted
        return f"{known} behind {self.url}" if known else self.peer

    # ------------------------------------------------------------ before the first scores

    def meet(self, policy: Policy, /, *, temperature: float) -> None:
        """Wait until the server answers, and compare its tokenizer with the policy's.

        Raises:
            AlignkitError: it is not to be reached, not a vLLM server, or has other tokens; or
                responses are sampled at another temperature than 1.
        """
        if temperature != 1.0:
            raise AlignkitError(
                f"{self.peer} gives log-probs at temperature 1, and responses are sampled at "
                f"{temperature:g}: set rollout.temperature = 1.0, or have the teacher in this "
                f'process (use = "hf")'
            )
        if not self._model:
            with event_loop() as portal:
                portal.call(self._patiently, self._look)
                portal.call(self._patiently, lambda: self._compare(policy))

    async def _look(self) -> None:
        """Note the served model and its length."""
        loop = asyncio.get_running_loop()  # `meet` runs loops of its own
        _, self._max_len = await loop.run_in_executor(None, meet, self.client, self.peer)
        served = await self.client.ask("GET", "/v1/models", None, QUICK)
        names = [str(model["id"]) for model in served["data"]]
        wanted = self.wanted or names[0]
        if wanted not in names:
            raise AlignkitError(f"{self.peer} does not serve {wanted!r} but {', '.join(names)}")
        self._model = wanted

    async def _compare(self, policy: Policy) -> None:
        """Raise AlignkitError unless the server reads every id of the policy as the policy does."""
        ids = sorted(policy.tokenizer.get_vocab().values())
        body = {"model": self._model, "tokens": ids}
        try:
            answer = await self.client.ask("POST", "/detokenize", body, self.timeout)
            theirs = answer["prompt"]
        except (StrangerError, LookupError, TypeError) as error:
            raise StrangerError(f"{self.peer} does not decode ids: {error}\n  {START}") from error
        if theirs != policy.tokenizer.decode(ids):
            self._model = ""
            raise AlignkitError(
                f"the teacher behind {self.url} and the policy {policy.name} have different "
                f"vocabularies, so their log-probs cannot be compared; serve a teacher of the same "
                f"model family"
            )

    # ------------------------------------------------------------ scores

    def score(self, rows: Sequence[Row], /) -> list[Sequence[float]]:
        """Return the log-probs (nats) of each row's ids from its place on, given all before them.

        Raises:
            AlignkitError: a row is too long for the server, or it has not answered for
                ``patience`` seconds, or answers anything else.
        """
        longest = max(len(ids) for ids, _ in rows)
        if longest >= self._max_len:
            raise AlignkitError(
                f"a prompt with its response has {longest} tokens, and {self.peer} scores at most "
                f"{self._max_len - 1}: start it with --max-model-len={longest + 1} or more, or "
                f"lower rollout.max_tokens"
            )
        with event_loop() as portal:
            try:
                return portal.call(self._score_all, rows)
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from failed

    async def _score_all(self, rows: Sequence[Row]) -> list[Sequence[float]]:
        """Ask for all rows; the first failure cancels the others."""
        gate = asyncio.Semaphore(self.at_once)

        async def one(row: Row) -> Sequence[float]:
            async with gate:
                return await self._patiently(lambda: self._score(*row))

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(row)) for row in rows]
        return [task.result() for task in tasks]

    async def _score(self, ids: Sequence[int], first: int) -> Sequence[float]:
        body = {
            "model": self._model,
            "prompt": list(ids),
            "max_tokens": 1,  # the least that a server takes
            "prompt_logprobs": 0,  # of the prompt's own ids, and of no others
        }
        answer = await self.client.ask("POST", "/v1/completions", body, self.timeout)
        try:
            (choice,) = answer["choices"]
            return _own(choice["prompt_logprobs"], ids, first)
        except (LookupError, TypeError, ValueError) as error:
            raise StrangerError(
                f"{self.peer} does not give a log-prob for each id: {error!r}\n  {START}"
            ) from error

    # ------------------------------------------------------------ a server that is away

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what ``ask`` returns; repeat it while the server is away, for ``patience``."""
        pause = 0.2
        while True:
            try:
                found = await ask()
            except UnreachableError as error:
                self._wait_or_raise(error)
            else:
                self._lost = None
                return found
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _wait_or_raise(self, error: UnreachableError) -> None:
        if not self._max_len and (why := hopeless(error)):
            raise AlignkitError(f"{self.peer} cannot be reached: {why}") from error
        if self._lost is None:
            self._lost = time.monotonic()
            say(f"{self.peer} does not answer: {error}; waiting for it")
        if time.monotonic() - self._lost > self.patience:
            raise AlignkitError(
                f"{self.peer} has not answered for {self.patience:g} s: {error}"
            ) from error


def _own(
    given: Sequence[Mapping[str, Mapping[str, float]] | None], ids: Sequence[int], first: int
) -> list[float]:
    """Return the log-probs of ``ids[first:]``; vLLM gives an entry per id, None for the first.

    >>> _own([None, {"7": {"logprob": -0.5}}, {"2": {"logprob": -1.5}}], [9, 7, 2], 1)
    [-0.5, -1.5]
    """
    if len(given) != len(ids):
        raise ValueError(f"{len(given)} entries for {len(ids)} ids")
    found = []
    for place in range(first, len(ids)):
        entry = given[place]
        if entry is None:
            raise ValueError(f"no entry for id {place}")
        found.append(float(entry[str(ids[place])]["logprob"]))
    if not all(map(math.isfinite, found)):
        raise ValueError("a log-prob is not a finite number")
    return found
