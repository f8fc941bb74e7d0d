"""What a user meets whose address is wrong, or whose server does not come up; no engine needed."""

import json
import os
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from alignkit import AlignkitError
from alignkit.protocols import Sampling
from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout, machine
from alignkit_vllm.engines import server
from alignkit_vllm.engines.client import Client, StrangerError, UnreachableError, hopeless, meet
from alignkit_vllm.engines.process import free_port
from alignkit_vllm.watchdog import DeadlineError

MODEL = {"data": [{"id": "m", "max_model_len": 512}]}


@pytest.fixture(scope="module")
def policy(tiny_folder):
    return HfPolicy(path=str(tiny_folder)).build()


@pytest.fixture
def answering():
    """``answering(pages)`` serves bytes by path, 404 elsewhere; return its address."""
    started = []

    def serve(pages):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path in pages else 404)
                self.end_headers()
                self.wfile.write(pages.get(self.path, b"no such page"))

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                text = pages.get("POST", b"no such page")
                self.send_response(500 if "POST" in pages else 404)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                """Say nothing."""

        web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        web.handle_error = lambda *_: None
        threading.Thread(target=web.serve_forever, daemon=True).start()
        started.append(web)
        return f"http://127.0.0.1:{web.server_port}"

    yield serve
    for web in started:
        web.shutdown()
        web.server_close()


def pages(version="0.32.0", models=MODEL):
    return {
        "/health": b"",
        "/version": json.dumps({"version": version}).encode(),
        "/v1/models": json.dumps(models).encode(),
    }


def test_a_server_introduces_itself(answering):
    assert meet(Client(answering(pages())), "the server") == ("m", 512)


@pytest.mark.parametrize(
    ("served", "words"),
    [
        ({"/health": b"<html>"}, "GET .*/health: the answer is not JSON: '<html>'"),
        ({"/health": b"{}"}, r"does not answer as vLLM does \(GET .*/version: 404 no such page\)"),
        (pages(models={"data": []}), r"does not answer as vLLM does \(IndexError"),
        (pages("nightly"), "does not answer as vLLM does"),
        (pages("0.33.1"), r"runs vLLM 0\.33\.1; versions 0\.32\.x are tested: install one of"),
    ],
    ids=["a web page", "another service", "no model", "no release", "another release"],
)
def test_another_server_is_told_at_once(answering, policy, served, words):
    backend = VllmRollout(mode="server", url=answering(served)).build()
    with pytest.raises(AlignkitError, match=words) as raised:
        backend.start(policy)
    assert not isinstance(raised.value, DeadlineError)
    backend.close()


def test_a_vllm_server_that_was_started_otherwise_says_how_to_start_it(answering, policy):
    backend = VllmRollout(mode="server", url=answering(pages())).build()
    with pytest.raises(StrangerError, match=r"python -m alignkit_vllm\.serve MODEL"):
        backend.start(policy)
    backend.close()


def test_a_server_that_cannot_take_the_weights_is_not_asked_for_ever(answering, policy, capsys):
    # Another model, say: healthy whenever it is asked, and an error at every attempt to load.
    backend = VllmRollout(
        mode="server", url=answering(pages() | {"POST": b"shapes differ"}), max_restarts=1
    ).build()
    with pytest.raises(AlignkitError, match=r"max_restarts is used up: .*500 shapes differ"):
        backend.start(policy)
    backend.close()
    assert capsys.readouterr().err.count("waiting for it (0 times more)") == 1


def test_encryption_that_is_not_there_is_told_at_once(answering, policy):
    url = answering(pages()).replace("http:", "https:")
    backend = VllmRollout(mode="server", url=url).build()
    with pytest.raises(AlignkitError, match=r"cannot be reached: .*SSL"):
        backend.start(policy)
    backend.close()


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), False),
        (ssl.SSLError(1, "wrong version number"), True),
        (ConnectionRefusedError(111, "Connection refused"), False),
        (TimeoutError(), False),
    ],
    ids=repr,
)
def test_what_waiting_does_not_mend(cause, told):
    error = UnreachableError("GET /health")
    error.__cause__ = cause
    assert bool(hopeless(error)) == told


def test_a_server_that_is_not_there_is_waited_for_aloud(policy, capsys):
    url = f"http://127.0.0.1:{free_port()}"
    backend = VllmRollout(mode="server", url=url, start_timeout=1.0, heartbeat=0.4).build()
    with pytest.raises(DeadlineError) as raised:
        backend.start(policy)
    why = f"not healthy: GET {url}/health: ConnectionRefusedError"
    assert f"start of the engine: the vLLM server {url}, {why}" in str(raised.value)
    assert "not finished after 1 s; finished last: nothing yet" in str(raised.value)
    backend.close()
    first, beat, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith(f"alignkit: vllm: the vLLM server {url} does not answer: GET ")
    assert why in beat


@pytest.mark.parametrize("port", ["99999", "80a"])
def test_a_port_that_is_none(port):
    ((key, _),) = VllmRollout(mode="server", url=f"http://gpu7:{port}").check({})
    assert key == "url"


@pytest.mark.parametrize("mode", ["colocate", "device", "server"])
def test_without_vllm_the_backend_says_how_to_get_it(policy, monkeypatch, mode):
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    monkeypatch.setattr(machine, "installed", lambda: None)
    with pytest.raises(AlignkitError, match=r"^vLLM is not installed: pip install 'alignkit\[vllm"):
        VllmRollout(mode=mode).build().start(policy)


# ---------------------------------------------------------------- a server of the run's own


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """``stand_in(source)`` makes ``source`` what runs where vLLM's server would."""

    def place(source):
        folder = tmp_path / "vllm" / "entrypoints" / "openai"
        folder.mkdir(parents=True)
        for package in (folder, folder.parent, folder.parent.parent):
            (package / "__init__.py").touch()
        (folder / "api_server.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))

    return place


@pytest.mark.slow
def test_a_server_that_does_not_come_up_is_named_with_its_log(stand_in, policy):
    stand_in("import time; print('reading the model', flush=True); time.sleep(600)")
    backend = VllmRollout(mode="server", start_timeout=6.0).build()
    with pytest.raises(DeadlineError) as raised:
        backend.start(policy)
    message = str(raised.value)
    assert "start of the engine: the vLLM server of this run, http://127.0.0.1:" in message
    assert "not healthy: " in message
    assert "not finished after 6 s; finished last: nothing yet" in message
    assert "The stacks of all threads are on stderr" in message
    log = backend._engine._child.log.read_text()
    assert "reading the model" in log
    assert "Fatal Python error: Aborted" in log
    assert not backend._engine._child.alive
    backend.close()


@pytest.mark.slow
def test_a_server_that_ends_at_once_is_not_waited_for(stand_in, policy):
    stand_in("raise SystemExit('the model is made of cheese')")
    backend = VllmRollout(mode="server").build()
    with pytest.raises(AlignkitError, match=r"ended while starting \(exit status 1\)") as raised:
        backend.start(policy)
    assert "  | the model is made of cheese" in str(raised.value)
    backend.close()


@pytest.mark.slow
def test_a_port_that_somebody_else_took_is_left_to_them(
    stand_in, answering, policy, monkeypatch, capsys
):
    stand_in(Path(__file__).with_name("fake_server.py").read_text())
    taken = int(answering({"/health": b"<html>"}).rpartition(":")[2])
    ports = iter([taken, free_port()])
    monkeypatch.setattr(server, "free_port", lambda: next(ports))
    backend = VllmRollout(mode="server", max_logprob_gap=1e9, max_rollout_kl=1e9).build()
    try:
        backend.start(policy)
        ((found,),) = backend.generate([[1, 2]], Sampling(max_tokens=3))
        assert found.token_ids == (1, 1, 1)
    finally:
        backend.close()
    assert f"127.0.0.1:{taken}: another process took the port" in capsys.readouterr().err
