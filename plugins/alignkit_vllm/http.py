"""JSON over HTTP, with connections that can be cut from another thread."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from alignkit.errors import AlignkitError
from alignkit_vllm.guard import KEY, headers


class UnreachableError(AlignkitError):
    """The server does not answer, or says that its engine is dead."""


class StrangerError(AlignkitError):
    """Something answers, but not as a vLLM server that ``alignkit_vllm.serve`` started."""


class Client:
    """Talks to one server. Calls may come from many threads."""

    def __init__(self, url: str, key: str = "") -> None:
        """``key`` is what the server's :class:`~alignkit_vllm.guard.Guard` asks for."""
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json", **headers(key)}
        self._open: set[HTTPConnection] = set()
        self._lock = threading.Lock()

    def get(self, path: str, timeout: float) -> Any:
        """Return the JSON at ``path``, None if there is none."""
        return self._call("GET", path, None, timeout)

    def post(self, path: str, body: Mapping[str, Any] | None, timeout: float) -> Any:
        """Send ``body`` to ``path`` and return the JSON answered, None if there is none."""
        return self._call("POST", path, body, timeout)

    def local_address(self) -> str:
        """Return this machine's address as the server would reach it."""
        parts = urlsplit(self.url)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((parts.hostname or "", parts.port or 80))
            address: str = probe.getsockname()[0]
        return address

    def hang_up(self) -> None:
        """Cut all connections; calls under way raise UnreachableError."""
        with self._lock:
            for connection in self._open:
                if connection.sock:
                    with suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float) -> Any:
        parts = urlsplit(self.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        with self._lock:
            self._open.add(connection)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, self._headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        except (OSError, HTTPException) as error:
            raise UnreachableError(f"{method} {self.url}{path}: {error!r}") from error
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()
        if response.status >= 500 and response.status != 501:  # 501: it knows no such request
            raise UnreachableError(f"{method} {self.url}{path}: {response.status} {text[:2000]}")
        if response.status == 401:
            raise StrangerError(
                f"{method} {self.url}{path}: the server refuses the key; set {KEY} to the one it "
                f"was started with (it shows a random one on its stderr)"
            )
        if response.status >= 400:
            raise StrangerError(f"{method} {self.url}{path}: {response.status} {text[:2000]}")
        try:
            return json.loads(text) if text.strip() else None
        except ValueError as error:
            what = f"{method} {self.url}{path}: the answer is no JSON: {text[:200]!r}"
            raise StrangerError(what) from error
