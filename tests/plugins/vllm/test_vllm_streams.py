"""Finished groups are handed out while others are still being generated; no engine needed."""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from alignkit_vllm.engines import LostError
from alignkit_vllm.engines.server import ServerEngine
from alignkit_vllm.watchdog import DeadlineError, Watchdog
from vllm_answers import request

WAIT = 30  # seconds until a test gives up; none of them comes near


@pytest.fixture
def server():
    """An HTTP server whose answer to prompt [k] waits for ``gates[k]``, if there is such."""
    made = SimpleNamespace(gates={}, asked=[], refused=set())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            first = body["prompt"][0]
            made.asked.append(first)
            if first in made.gates:
                made.gates[first].wait(WAIT)
            choice = {
                "index": 0, "token_ids": body["prompt"], "text": "", "finish_reason": "stop",
                "logprobs": {"token_logprobs": [-0.5] * len(body["prompt"])},
            }  # fmt: skip
            status, reply = (500, {}) if first in made.refused else (200, {"choices": [choice]})
            text = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            """Say nothing."""

    class Web(ThreadingHTTPServer):
        def handle_error(self, *_):
            """Say nothing of clients that hung up."""

    web = Web(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    made.engine = ServerEngine(
        url=f"http://127.0.0.1:{web.server_port}",
        visible=None,
        options={},
        timeouts=(WAIT, WAIT, WAIT),
        max_restarts=0,
    )
    yield made
    for gate in made.gates.values():
        gate.set()
    web.shutdown()
    web.server_close()
    thread.join(WAIT)


def test_a_server_s_answers_come_as_they_are_finished(server):
    gates = server.gates = {k: threading.Event() for k in (1, 2, 3)}
    answers = server.engine.stream([request(1), request(2), request(3)])
    order = []
    for k in (2, 3, 1):  # the next is let go only when the last has arrived
        gates[k].set()
        place, (found,) = next(answers)
        order.append(place)
        assert found.token_ids == (k,)
    assert order == [1, 2, 0]
    assert list(answers) == []
    assert server.engine.progress() == ""


def test_requests_left_behind_are_hung_up_on(server):
    server.gates = {2: threading.Event()}
    answers = server.engine.stream([request(1), request(2)])
    assert next(answers)[0] == 0
    answers.close()  # would wait for the second answer, if it were not cut off
    assert not server.gates[2].is_set()
    assert server.asked.count(2) <= 1, "a request nobody waits for was sent again"


def test_closing_the_engine_ends_a_stream_in_another_thread(server):
    server.gates = {1: threading.Event()}
    ended = []

    def sample():
        with pytest.raises(LostError, match=r"connections to .* were closed"):
            list(server.engine.stream([request(1)]))
        ended.append(True)

    thread = threading.Thread(target=sample)
    thread.start()
    while not server.asked:
        time.sleep(0.01)
    server.engine.close()
    thread.join(WAIT / 2)
    assert ended
    assert not server.gates[1].is_set()


def test_a_deadline_ends_a_stream_off_the_main_thread_of_a_server_of_somebody_else(server):
    server.gates = {1: threading.Event()}
    watch, ended = Watchdog(lambda: "the server of the test", heartbeat=60.0), []
    watch.on_expiry = server.engine.log_end

    def sample():
        with pytest.raises(DeadlineError, match=r"generation: .* not finished after 1 s"):
            list(watch.each("generation", 1.0, server.engine.stream([request(1)])))
        ended.append(True)

    thread = threading.Thread(target=sample)
    thread.start()
    thread.join(WAIT / 2)
    assert ended
    assert not server.gates[1].is_set()


FAILS = """
import sys
from alignkit_vllm.engines.server import ServerEngine
from alignkit_vllm.requests import Request
engine = ServerEngine(
    url=sys.argv[1], visible=None, options={}, timeouts=(30, 30, 600), max_restarts=0
)
stream = engine.stream([Request((k,), 1, {"max_tokens": 4}) for k in (1, 2)])
next(stream)
raise SystemExit(3)
"""


def test_a_trainer_that_fails_amid_a_batch_does_not_wait_for_the_rest(server):
    server.gates = {2: threading.Event()}
    url = server.engine.client.url
    done = subprocess.run([sys.executable, "-c", FAILS, url], timeout=WAIT, check=False)
    assert done.returncode == 3
    assert not server.gates[2].is_set()


def test_a_server_that_fails_is_lost_after_what_it_answered(server):
    server.refused = {2}
    answers = server.engine.stream([request(1), request(2)])
    assert next(answers)[0] == 0
    with pytest.raises(LostError, match="500"):
        next(answers)
    assert server.asked.count(2) == 3  # a busy server may drop a connection, so it is asked again
