"""JSON over HTTP with one vLLM server, and a check that it is one.

Each request has a connection of its own, since servers may be restarted between requests.
"""

from __future__ import annotations

import atexit
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal

from alignkit.errors import AlignkitError
from alignkit_vllm import machine
from alignkit_vllm.engines import LostError
from alignkit_vllm.guard import KEY, LOCAL, headers

QUICK = 30.0
"""Deadline, in seconds, of a request for which the engine need not compute."""

START = "Start the server with: python -m alignkit_vllm.serve MODEL"


class UnreachableError(LostError):
    """The server does not answer, or reports that its engine is dead."""


class StrangerError(AlignkitError):
    """Something answers that is no vLLM server started by ``alignkit_vllm.serve``."""


@contextmanager
def event_loop() -> Iterator[BlockingPortal]:
    """Run an event loop in a thread beside the block; an error in the block cancels its tasks.

    So does the end of the process, by ``atexit``: a generator that was left inside the block is
    closed only later, when threads no longer run and waiting for the loop would never end.
    """
    with start_blocking_portal() as portal:
        end = partial(portal.call, portal.stop, True)
        atexit.register(end)
        try:
            yield portal
        finally:
            atexit.unregister(end)


class Client:
    """Talks to one server. Calls may come from many threads."""

    def __init__(self, url: str, key: str = "") -> None:
        """``key`` is what the server's :class:`~alignkit_vllm.guard.Guard` asks for."""
        self.url, self.key = url.rstrip("/"), key
        self._how: dict[str, Any] = {
            "base_url": self.url,
            "headers": headers(key),
            "verify": ssl.create_default_context(),
            "trust_env": False,  # no proxy between a run and its own server
        }

    def get(self, path: str, timeout: float) -> Any:
        """Return the JSON at ``path``, None if there is none."""
        return anyio.run(self.ask, "GET", path, None, timeout)

    def post(self, path: str, body: Mapping[str, Any] | None, timeout: float) -> Any:
        """Send ``body`` to ``path`` and return the JSON answered, None if there is none."""
        return anyio.run(self.ask, "POST", path, body, timeout)

    def call_workers(self, method: str, args: Sequence[str], timeout: float) -> list[Any]:
        """Call a method of ``alignkit_vllm.worker.Extension``; return each worker's result."""
        return anyio.run(self.ask_workers, method, args, timeout)

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float
    ) -> Any:
        """Do the same as :meth:`get` or :meth:`post`; cancelling it closes the connection."""
        try:
            async with httpx2.AsyncClient(**self._how) as http:
                answer = await http.request(method, path, json=body, timeout=timeout)
        except httpx2.RequestError as error:
            cause = _system_error(error)
            raise UnreachableError(f"{method} {self.url}{path}: {cause!r}") from cause
        return _content(answer, f"{method} {self.url}{path}")

    async def ask_workers(self, method: str, args: Sequence[str], timeout: float) -> list[Any]:
        """Do the same as :meth:`call_workers`; cancelling it closes the connection."""
        body = {"method": method, "args": list(args), "timeout": timeout}
        try:
            answer = await self.ask("POST", "/collective_rpc", body, timeout)
        except StrangerError as error:
            raise StrangerError(f"{error}\n  {START}") from error
        results: list[Any] = answer["results"]
        return results

    def local_address(self) -> str:
        """Return the address under which the server reaches this machine."""
        url = httpx2.URL(self.url)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((url.host, url.port or 80))
            address: str = probe.getsockname()[0]
        return address

    def is_here(self) -> bool:
        """Whether the server is on this machine."""
        return httpx2.URL(self.url).host in LOCAL


def _system_error(error: httpx2.RequestError) -> BaseException:
    """Return the operating system's error that caused ``error``, if there is one, else itself."""
    inner = error.__cause__
    below = (inner.__cause__ or inner.__context__) if inner else None
    while isinstance(below, OSError) and isinstance(cause := below.__cause__, OSError):
        below = cause  # below is "all attempts failed", after a single attempt
    return below if isinstance(below, OSError) else error


def _content(answer: httpx2.Response, asked: str) -> Any:
    """Return the JSON of an answer, None if it is empty; raise for an error status or no JSON."""
    status, text = answer.status_code, answer.text
    if status >= 500 and status != 501:  # 501: it knows no such request
        raise UnreachableError(f"{asked}: {status} {text[:2000]}")
    if status == 401:
        raise StrangerError(
            f"{asked}: the server refuses the key; set {KEY} to the key it was started with (if "
            "it made a random one, that is on its stderr)"
        )
    if status >= 400:
        raise StrangerError(f"{asked}: {status} {text[:2000]}")
    try:
        return answer.json() if text.strip() else None
    except ValueError as error:
        raise StrangerError(f"{asked}: the answer is not JSON: {text[:200]!r}") from error


def meet(client: Client, peer: str) -> tuple[str, int]:
    """Return the name of the model that the server ``peer`` serves, and its maximum length.

    Raises:
        UnreachableError: the server does not answer.
        AlignkitError: it is no vLLM server, or its version is not a tested one.
    """
    try:
        release = str(client.get("/version", QUICK)["version"])
        tested = machine.Installed("vllm", release).tested
        model = client.get("/v1/models", QUICK)["data"][0]
        found = str(model["id"]), int(model["max_model_len"])
    except (LookupError, TypeError, ValueError, StrangerError) as error:
        why = str(error) if isinstance(error, StrangerError) else repr(error)
        raise StrangerError(f"{peer} does not answer as vLLM does ({why}).\n  {START}") from error
    if not tested:
        raise AlignkitError(
            f"{peer} runs vLLM {release}; versions {machine.TESTED}.x are tested: install one of "
            f"these where the server runs"
        )
    return found


def hopeless(error: AlignkitError) -> str:
    """Return why waiting for the server is useless, "" if it may still appear.

    It is useless where no host has that name, or encryption cannot be set up.
    """
    cause = error.__cause__
    unknown = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME
    return str(cause) if unknown or isinstance(cause, ssl.SSLError) else ""
