"""POST requests that end: within a time in all, with an answer of a bounded size, or when closed.

The HTTP client's own timeout starts anew with every piece that arrives, so that a server which
sends a header line now and then, or one interim response after another, could hold a request for
ever. Here a timer shuts the connection down.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx2 as httpx


class NoAnswerError(Exception):
    """There was no whole answer, and another attempt may get one."""


class Poster:
    """Posts to one URL; may be used from several threads, each with a connection of its own."""

    def __init__(
        self, url: str, headers: Mapping[str, str], *, timeout: float, largest: int
    ) -> None:
        """``timeout`` is in seconds, ``largest`` in bytes of an answer."""
        self._url, self._timeout, self._largest = url, timeout, largest
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._headers |= headers
        self._tls = httpx.create_ssl_context()
        self._here, self._all = threading.local(), list[_Connection]()
        self._lock, self.closed = threading.Lock(), threading.Event()

    def post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and content; :class:`NoAnswerError` if there is no whole one."""
        connection = self._connection()
        try:
            with connection.within(self._timeout), self._sent(connection, body) as response:
                content = bytearray()
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) > self._largest:
                        raise NoAnswerError(f"the answer has more than {self._largest} bytes")
                return response.status_code, response.headers, bytes(content)
        except httpx.HTTPError as error:
            raise NoAnswerError(str(error)) from error

    def _sent(self, connection: _Connection, body: bytes) -> Any:
        trace = {"trace": connection.seen}
        return connection.client.stream("POST", self._url, content=body, extensions=trace)

    def _connection(self) -> _Connection:
        """Return this thread's connection."""
        with self._lock:
            if self.closed.is_set():
                raise NoAnswerError("closed")
            if not hasattr(self._here, "connection"):
                client = httpx.Client(
                    headers=self._headers, timeout=self._timeout, verify=self._tls
                )
                self._here.connection = _Connection(client)
                self._all.append(self._here.connection)
            found: _Connection = self._here.connection
            return found

    def close(self) -> None:
        """Refuse further requests and end those that are open."""
        with self._lock:
            self.closed.set()
            for connection in self._all:
                connection.end()

    def release(self) -> None:
        """Close the clients, once no thread uses them."""
        for connection in self._all:
            connection.client.close()


class _Connection:
    """A client of one thread, and the socket it talks through."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self._stream: Any = None
        self._open: _Deadline | None = None
        self._over = False
        self._lock = threading.Lock()

    def seen(self, event: str, info: Mapping[str, Any]) -> None:
        """Note the stream that the client has opened (a trace extension of the client's)."""
        stream = info.get("return_value")
        if hasattr(stream, "get_extra_info"):
            with self._lock:
                self._stream = stream
                if self._over:
                    self._shut()

    def within(self, seconds: float) -> _Deadline:
        """Return a context that ends the connection if it lasts longer."""
        return _Deadline(self, seconds)

    def begin(self, request: _Deadline) -> None:
        with self._lock:
            self._open, self._over = request, False

    def done(self) -> None:
        with self._lock:
            self._open = None

    def end(self, request: _Deadline | None = None) -> None:
        """Shut the socket down if a request is open: whoever reads from it gets an error.

        With ``request`` only if that one is open: its timer may be late, in the next one.
        """
        with self._lock:
            if self._open is not None and request in (None, self._open):
                self._over = True
                self._shut()

    def _shut(self) -> None:
        found = self._stream.get_extra_info("socket") if self._stream is not None else None
        if found is not None:
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(found, socket.SHUT_RDWR)  # below TLS, whose reader lives on


class _Deadline:
    """Ends a connection's request after some seconds."""

    def __init__(self, connection: _Connection, seconds: float) -> None:
        self._connection = connection
        self._timer = threading.Timer(seconds, connection.end, [self])
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._connection.begin(self)
        self._timer.start()

    def __exit__(self, *raised: object) -> None:
        self._timer.cancel()
        self._connection.done()
