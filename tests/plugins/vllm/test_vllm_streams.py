"""Finished groups are handed out while others are still being generated; no engine needed."""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignkit import AlignkitError
from alignkit.abilities import streams
from alignkit.protocols import Sampling
from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout
from alignkit_vllm.backend import VllmBackend
from alignkit_vllm.engines import LostError
from alignkit_vllm.engines.local import LocalEngine
from alignkit_vllm.engines.server import ServerEngine
from alignkit_vllm.requests import Answer, Request
from alignkit_vllm.watchdog import DeadlineError, Watchdog

WAIT = 30  # seconds until a test gives up; none of them comes near


def answer(*ids):
    return Answer(ids, tuple(-0.5 for _ in ids), "", True, False)


def request(*prompt, n=1):
    return Request(prompt, n, {"max_tokens": 4})


# ---------------------------------------------------------------- over HTTP


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
        with pytest.raises(LostError, match="hung up on"):
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


# ---------------------------------------------------------------- in this process


class FakeLlm:
    """Finishes one request per step, the last one first, and keeps what is not taken back."""

    def __init__(self):
        self.llm_engine = self
        self.queue, self.steps, self.count = [], 0, 7

    def enqueue(self, prompts, how, *, use_tqdm):
        names = []
        for prompt, given in zip(prompts, how, strict=True):
            names.append(f"{self.count}-a1b2c3d4")
            self.queue.append((str(self.count), prompt["prompt_token_ids"], given.n))
            self.count += 1
        return names

    def step(self):
        self.steps += 1
        if self.steps % 2:
            return [SimpleNamespace(request_id=self.queue[0][0], finished=False, outputs=[])]
        name, ids, n = self.queue.pop()
        output = SimpleNamespace(
            token_ids=ids, logprobs=SimpleNamespace(logprobs=[-0.5] * len(ids)), text="",
            finish_reason="stop", stop_reason=None,
        )  # fmt: skip
        return [SimpleNamespace(request_id=name, finished=True, outputs=[output] * n)]

    def abort_request(self, names, *, internal):
        assert internal
        gone = {name.partition("-")[0] for name in names}
        self.queue = [item for item in self.queue if item[0] not in gone]


@pytest.fixture
def local(monkeypatch):
    from alignkit_vllm.engines import local as module

    made = LocalEngine({}, sleep=False)
    made._llm = FakeLlm()
    monkeypatch.setattr(module, "_sampling", lambda requests: requests)
    return made


def test_an_engine_s_answers_come_as_they_are_finished(local):
    answers = local.stream([request(1), request(2, n=3), request(3)])
    assert next(answers) == (2, [answer(3)])
    assert local._llm.steps == 2, "the engine went on before the first group was handed out"
    assert list(answers) == [(1, [answer(2)] * 3), (0, [answer(1)])]


def test_what_is_left_behind_does_not_come_out_of_the_next_call(local):
    left = local.stream([request(1), request(2)])
    next(left)
    left.close()
    assert local._llm.queue == []
    assert list(local.stream([request(9)])) == [(0, [answer(9)])]


# ---------------------------------------------------------------- the backend


class Engine:
    """Answers a prompt with its own ids; gets lost once, after ``until`` answers."""

    peer = "the engine of the test"

    def __init__(self, until=None):
        self.until, self.held, self.loads, self.batches, self.rests = until, "", 0, [], 0

    def holds(self):
        return self.held

    def load(self, policy, dtype, version):
        self.held, self.loads = version, self.loads + 1

    def stream(self, requests):
        self.batches.append([r.prompt for r in requests])
        for place in reversed(range(len(requests))):
            if self.until == 0:
                self.until, self.held = None, ""
                raise LostError("gone")
            if self.until is not None:
                self.until -= 1
            yield place, [answer(*requests[place].prompt)] * requests[place].n

    def recover(self, lost):
        assert str(lost) == "gone"

    def rest(self):
        self.rests += 1

    def max_len(self):
        return 10

    def progress(self):
        return ""

    def close(self):
        """Nothing to end."""


@pytest.fixture
def backend_on(tiny_folder):
    policy = HfPolicy(path=str(tiny_folder)).build()

    def make(engine):
        made = VllmBackend(VllmRollout())
        made._engine, made._watch = engine, Watchdog(lambda: engine.peer, 60.0)
        made._dtype, made._policy = None, policy
        made._folder = SimpleNamespace(name=Path(), cleanup=lambda: None)
        made._hold(policy, fresh=True)
        return made

    return make


HOW = Sampling(n=2, max_tokens=4)


def test_groups_carry_their_prompt_s_index_whatever_the_order(backend_on):
    engine = Engine()
    backend = backend_on(engine)
    prompts = [(5, 6), (7,) * 10, (8,)]  # the second leaves no room
    found = list(backend.stream(prompts, HOW))
    assert [i for i, _ in found] == [1, 2, 0]
    assert {i: group[0].token_ids for i, group in found} == {0: (5, 6), 1: (), 2: (8,)}
    assert backend.generate(prompts, HOW) == [group for _, group in sorted(found)]
    assert engine.rests == 2
    assert streams(backend)


def test_an_engine_lost_amid_a_stream_is_asked_for_the_rest_with_the_weights(backend_on):
    engine = Engine(until=2)
    backend = backend_on(engine)
    found = list(backend.stream([(1,), (2,), (3,), (4,)], HOW))
    assert [i for i, _ in found] == [3, 2, 1, 0]  # each once
    assert [g[0].token_ids for _, g in found] == [(4,), (3,), (2,), (1,)]
    assert engine.batches == [[(1,), (2,), (3,), (4,)], [(1,), (2,)]]
    assert engine.loads == 2


def test_the_first_syncs_are_checked_and_then_every_so_many(backend_on, monkeypatch):
    backend = backend_on(Engine())
    backend.keys = VllmRollout(check_every=4)
    checked = []
    monkeypatch.setattr(backend, "_check", lambda policy: checked.append(backend.syncs))
    for _ in range(10):
        backend.sync(backend._policy)
    assert checked == [0, 1, 4, 8]
    backend.keys, backend.syncs = VllmRollout(check_every=0), 0
    for _ in range(10):
        backend.sync(backend._policy)
    assert checked == [0, 1, 4, 8, 0, 1]


def test_what_is_wrong_is_said_at_the_call_not_at_the_first_group(backend_on):
    backend = backend_on(Engine())
    with pytest.raises(AlignkitError, match="prompt 1 has no tokens"):
        backend.stream([(1,), ()], HOW)
    with pytest.raises(AlignkitError, match="was not started"):
        VllmRollout().build().stream([(1,)], HOW)


def test_a_stream_s_deadline_counts_the_engine_s_time_alone():
    watch = Watchdog(lambda: "the engine of the test", heartbeat=60.0)
    resting = threading.Event()

    def items(pause):
        for i in range(3):
            resting.wait(pause)
            yield i

    judged = [resting.wait(0.4) for _ in watch.each("generation", 1.0, items(0.0))]
    assert len(judged) == 3  # 1.2 s of judging, next to none of generation
    with pytest.raises(DeadlineError, match=r"generation: .* not finished after 1 s"):
        list(watch.each("generation", 1.0, items(0.45)))  # 1.35 s, though none above 0.45
