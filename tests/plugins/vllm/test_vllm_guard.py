"""The server's door: every path needs the key, and the key is nowhere in public."""

import asyncio
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from alignkit import AlignkitError
from alignkit_vllm import VllmRollout
from alignkit_vllm.engines.client import Client
from alignkit_vllm.guard import HOSTS, KEY, Guard, closed, key_for, new_key


async def inner(scope, receive, send):
    await send({"type": "reached", "status": 200})


def ask(monkeypatch, headers, kind="http", path="/collective_rpc"):
    monkeypatch.setenv(KEY, "right")
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "method": "POST", "headers": headers}
    asyncio.run(Guard(inner)(scope, None, send))
    return sent


@pytest.mark.parametrize("path", ["/collective_rpc", "/health", "/v1/completions", "/metrics"])
@pytest.mark.parametrize("value", [None, b"Bearer wrong", b"Bearer", b"right", b"Basic right"])
def test_nothing_is_answered_without_the_key(monkeypatch, path, value):
    headers = [] if value is None else [(b"authorization", value)]
    start, body = ask(monkeypatch, headers, path=path)
    assert start["status"] == 401
    assert body["body"] == b"wrong or missing key"
    (close,) = ask(monkeypatch, headers, "websocket", path)
    assert close == {"type": "websocket.close", "code": 1008}


def test_the_key_opens_and_the_start_of_the_server_needs_none(monkeypatch):
    reached = [{"type": "reached", "status": 200}]
    assert ask(monkeypatch, [(b"authorization", b"Bearer right")]) == reached
    assert ask(monkeypatch, [], "lifespan") == reached


def test_a_server_is_local_with_a_random_key_unless_told_otherwise(capsys):
    environ = {}
    middleware = "--middleware=alignkit_vllm.guard.Guard"
    assert closed([], environ) == ["--host=127.0.0.1", middleware]
    assert f"export {KEY}={environ[KEY]}" in capsys.readouterr().err
    assert len(environ[KEY]) >= 43  # 32 bytes in base64
    assert environ["VLLM_API_KEY"] == environ[KEY]
    assert new_key() != new_key()
    given = {KEY: "mine"}
    assert closed(["--host=0.0.0.0"], given) == [middleware]
    assert closed(["--host", "0.0.0.0"], given) == [middleware]
    assert given[KEY] == "mine"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [["--api-key", "x"], ["--api-key=x"]])
def test_a_key_on_the_command_line_is_refused(words):
    with pytest.raises(SystemExit, match=f"environment variable {KEY}"):
        closed(words, {})


class Picky(BaseHTTPRequestHandler):
    def do_GET(self):
        right = self.headers.get("Authorization") == "Bearer right"
        self.send_response(200 if right else 401)
        self.end_headers()
        self.wfile.write(b'{"ok": true}')

    def log_message(self, *args):
        pass


def test_the_client_shows_its_key_and_says_what_to_do_when_it_is_refused():
    server = HTTPServer(("127.0.0.1", 0), Picky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert Client(url, "right").get("/health", 5) == {"ok": True}
        with pytest.raises(AlignkitError, match=f"refuses the key; set {KEY} to") as refused:
            Client(url, "wrong").get("/health", 5)
        assert "wrong" not in str(refused.value)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.9", "localhost.evil.example"])
def test_the_key_goes_only_to_hosts_that_the_user_names(host, monkeypatch):
    url = f"http://{host}:8000"
    settings = VllmRollout(mode="server", url=url)
    monkeypatch.delenv(HOSTS, raising=False)
    monkeypatch.setenv(KEY, "planted")
    [(key, said)] = settings.check({})
    assert key == "url"
    assert said == (
        f"the key in {KEY} would be sent to {host}; if that server is yours, allow it with: export "
        f"{HOSTS}={host}"
    )
    with pytest.raises(AlignkitError, match="would be sent to"):
        key_for(url, os.environ)
    monkeypatch.setenv(HOSTS, f"gpu1, {host}")
    assert list(settings.check({})) == []
    assert key_for(url, os.environ) == "planted"
    monkeypatch.delenv(KEY)
    monkeypatch.delenv(HOSTS)
    assert list(settings.check({})) == []  # there is no key to send
    assert key_for(url, os.environ) == ""


def test_this_machine_is_sent_the_key_unnamed():
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert key_for(f"http://{host}:8000", {KEY: "k"}) == "k"
