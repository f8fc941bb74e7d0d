"""Protects the server with a key, which all requests need: completions and the trainer's.

vLLM's own ``--api-key`` protects only the paths below ``/v1``. The development mode that training
needs has others: ``/collective_rpc`` calls methods of the workers. So every request is checked
here, before vLLM sees it.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from alignkit.errors import AlignkitError

KEY = "ALIGNKIT_VLLM_KEY"
"""Environment variable with the key that server and trainer share. It is no option of the command
line, since all users of a machine can read command lines."""

HOSTS = "ALIGNKIT_VLLM_HOSTS"
"""Environment variable with the hosts, separated by commas, that the key is sent to besides this
machine itself. A recipe cannot name hosts, because its author could make a user send the key to a
host of his own."""

LOCAL = ("localhost", "127.0.0.1", "::1")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware that refuses requests without ``Authorization: Bearer KEY``."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.wanted = f"Bearer {os.environ[KEY]}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 (HTTP) and close (web socket)."""
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "lifespan" or secrets.compare_digest(given, self.wanted):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            kind = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": kind})
            await send({"type": "http.response.body", "body": b"wrong or missing key"})
        else:
            await send({"type": "websocket.close", "code": 1008})


def new_key() -> str:
    """Return a random key of 256 bits."""
    return secrets.token_urlsafe(32)


def closed(arguments: list[str], environ: MutableMapping[str, str]) -> list[str]:
    """Return the options that protect the server, and put the key into ``environ``.

    The server listens on 127.0.0.1 unless ``arguments`` say otherwise. The key is the one in
    ``environ``, or a random one that is printed once to stderr. SystemExit for a key among the
    arguments.
    """
    if any(word.partition("=")[0] == "--api-key" for word in arguments):
        sys.exit(f"give the key in the environment variable {KEY}: command lines are public")
    if not (key := environ.get(KEY) or environ.get("VLLM_API_KEY")):
        key = new_key()
        print(f"the trainer needs this server's key: export {KEY}={key}", file=sys.stderr)
    environ[KEY] = environ["VLLM_API_KEY"] = key
    local = not any(word.partition("=")[0] in ("--host", "--uds") for word in arguments)
    return [*(["--host=127.0.0.1"] if local else []), f"--middleware={__name__}.{Guard.__name__}"]


def key_for(url: str, environ: Mapping[str, str]) -> str:
    """Return the key to send to a server, "" if none; AlignkitError for a host not in HOSTS."""
    key, host = environ.get(KEY, ""), urlsplit(url).hostname or ""
    named = {name.strip().lower() for name in environ.get(HOSTS, "").split(",")}
    if key and url and host not in {*LOCAL, *named}:
        raise AlignkitError(
            f"the key in {KEY} would be sent to {host}; if that server is yours, allow it with: "
            f"export {HOSTS}={host}"
        )
    return key


def headers(key: str) -> Mapping[str, str]:
    """Return the headers that a request needs to pass the guard."""
    return {"Authorization": f"Bearer {key}"} if key else {}
