"""Several engines side by side: every prompt is answered once, whatever becomes of one of them."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit.protocols import Sampling
from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout
from alignkit_vllm.backend import VllmBackend
from alignkit_vllm.engines import LostError
from alignkit_vllm.engines.fleet import Fleet
from alignkit_vllm.options import shares
from alignkit_vllm.requests import Answer, Request
from alignkit_vllm.watchdog import Watchdog

WAIT = 30  # seconds until a test gives up; none of them comes near


def request(*prompt):
    return Request(prompt, 1, {})


class Server:
    """Answers each prompt with its own ids; may get lost, or wait until it is hung up on."""

    def __init__(self, *, lose_after=None, gate=None, columns=None, room=64):
        self.lose_after, self.gate, self.room = lose_after, gate, room
        self.told = columns or {"dtype": "float32", "columns": {}}
        self.asked, self.held, self.events = [], "", []
        self.cut = threading.Event()
        self.closed = threading.Event()

    def stream(self, requests):
        try:
            for place, one in enumerate(requests):
                if self.gate is not None:
                    while not self.gate.wait(0.01):
                        if self.cut.is_set():
                            raise LostError("hung up on")
                if self.lose_after == len(self.asked):
                    self.lose_after, self.held = None, ""
                    raise LostError("gone")
                self.asked.append(one.prompt)
                yield place, [Answer(one.prompt, (-0.5,) * len(one.prompt), "", True, False)]
        finally:
            self.closed.set()

    def hang_up(self):
        self.cut.set()

    def begin(self, folder, policy):
        assert (folder / "config.json").read_text() == "{}"
        self.events.append(("begin", folder.name))

    def wait(self):
        self.events.append("wait")

    def load(self, policy, dtype, version):
        self.held = version

    def holds(self):
        return self.held

    def columns(self):
        return self.told

    def recover(self, lost):
        self.events.append(f"recover: {lost}")

    def max_len(self):
        return self.room

    def progress(self):
        return ""

    def close(self):
        self.events.append("close")


@given(count=st.integers(0, 23), engines=st.integers(1, 5))
def test_every_request_is_answered_once_in_its_place(count, engines):
    servers = [Server() for _ in range(engines)]
    asked = [request(i, i + 1) for i in range(count)]
    found = list(Fleet(servers).stream(asked))
    assert sorted(place for place, _ in found) == list(range(count))
    assert all(answers[0].token_ids == asked[place].prompt for place, answers in found)
    dealt = [len(server.asked) for server in servers]
    assert max(dealt) - min(dealt) <= 1


def test_engines_work_at_the_same_time():
    gate = threading.Event()
    slow, quick = Server(gate=gate), Server()
    answers = Fleet([slow, quick]).stream([request(i) for i in range(6)])
    assert sorted(next(answers)[0] for _ in range(3)) == [1, 3, 5]  # all of the quick one's
    gate.set()
    assert sorted(place for place, _ in answers) == [0, 2, 4]


def test_a_caller_that_looks_away_leaves_no_thread_behind():
    servers = [Server(gate=threading.Event()), Server()]
    answers = Fleet(servers).stream([request(i) for i in range(4)])
    next(answers)
    answers.close()
    assert servers[0].closed.wait(WAIT)
    assert not [t for t in threading.enumerate() if t.name.startswith("alignkit asks vLLM")]


def test_the_engine_that_is_lost_is_the_one_that_is_brought_back():
    servers = [Server(gate=threading.Event()), Server(lose_after=1), Server()]
    fleet = Fleet(servers)
    with pytest.raises(LostError, match="gone") as raised:
        list(fleet.stream([request(i) for i in range(9)]))
    fleet.recover(raised.value)
    assert [server.events for server in servers] == [[], ["recover: gone"], []]
    with pytest.raises(LostError):  # nobody is lost any more
        fleet.recover(raised.value)


@pytest.mark.parametrize("method", ["load", "holds"])
def test_an_engine_lost_between_batches_is_known_too(method):
    servers = [Server(), Server()]

    def gone(*_):
        raise LostError("gone")

    setattr(servers[1], method, gone)
    fleet = Fleet(servers)
    arguments = (None, None, "a/1") if method == "load" else ()
    with pytest.raises(LostError) as raised:
        getattr(fleet, method)(*arguments)
    fleet.recover(raised.value)
    assert [server.events for server in servers] == [[], ["recover: gone"]]


def test_they_hold_a_version_when_all_of_them_do():
    servers = [Server(), Server()]
    fleet = Fleet(servers)
    fleet.load(None, None, "a/1")
    assert fleet.holds() == "a/1"
    servers[1].held = "a/0"
    assert fleet.holds() == ""


def test_odd_weights_of_one_engine_are_those_that_are_checked():
    odd = {"dtype": "float32", "columns": {"lm_head": [[1.0]]}}
    assert Fleet([Server(), Server(), Server(columns=odd)]).columns() == odd
    same = Server().columns()
    assert Fleet([Server(), Server()]).columns() == same


def test_all_are_started_before_any_is_waited_for(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    servers, order = [Server(), Server()], []
    for number, server in enumerate(servers):
        server.wait = lambda number=number: order.append((number, len(servers[1].events)))
    Fleet(servers).start(tmp_path, None)
    assert [server.events for server in servers] == [[("begin", f"engine-{i}")] for i in (0, 1)]
    assert order == [(0, 1), (1, 1)]


def test_one_that_cannot_be_closed_does_not_keep_the_others_open():
    servers = [Server(), Server(), Server()]

    def fail():
        raise OSError("stuck")

    servers[1].close = fail
    with pytest.raises(OSError, match="stuck"):
        Fleet(servers).close()
    assert [server.events for server in servers] == [["close"], [], ["close"]]


def test_the_shortest_engine_says_how_long_a_response_may_be():
    assert Fleet([Server(room=64), Server(room=32)]).max_len() == 32


def test_a_batch_survives_the_loss_of_an_engine(tiny_folder):
    policy = HfPolicy(path=str(tiny_folder)).build()
    backend = VllmBackend(VllmRollout(mode="device", engines=2))
    servers = [Server(), Server(lose_after=2)]
    backend._engine = Fleet(servers)
    backend._watch = Watchdog(lambda: "a fleet", 60)
    backend._policy, backend._dtype, backend.version = policy, None, 0
    prompts = [(5 + i, 6) for i in range(12)]
    groups = backend.generate(prompts, Sampling(n=1, max_tokens=4, temperature=1.0, seed=0))
    assert [tuple(group[0].token_ids) for group in groups] == prompts
    assert "recover: gone" in servers[1].events


# ---------------------------------------------------------------- the keys


@pytest.mark.parametrize(
    ("keys", "key", "text"),
    [
        ({"engines": 2}, "engines", 'more than one needs mode = "device", not "colocate"'),
        ({"engines": 2, "mode": "server"}, "engines", 'needs mode = "device", not "server"'),
        (
            {"engines": 2, "mode": "device", "devices": ("0", "1", "2")},
            "devices",
            "names 3 GPUs for tensor_parallel_size = 1 and engines = 2; give 2",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, key, text):
    found = list(VllmRollout(max_tokens=8, **keys).check({}))
    assert [(where, text in said) for where, said in found] == [(key, True)]


def test_engines_take_cards_of_their_own():
    keys = VllmRollout(mode="device", engines=3, tensor_parallel_size=2, max_tokens=8)
    assert keys.cards == 6
    assert shares(["2", "3", "4", "5", "6", "7"], 3) == [["2", "3"], ["4", "5"], ["6", "7"]]
    assert shares(None, 2) == [None, None]
    assert "3 of them" in keys.facts({})["vLLM engine"]


def test_as_many_gpus_are_asked_for(monkeypatch):
    asked = []

    def lacking(count, *, chosen):
        asked.append((count, chosen))
        return []

    monkeypatch.setattr("alignkit_vllm.machine.lacking", lacking)
    list(VllmRollout(mode="device", engines=3, max_tokens=8).missing())
    assert asked == [(4, True)]  # and the policy's own


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_two_real_engines_hold_the_same_weights_and_share_prompts(tied_folder):
    policy = HfPolicy(path=str(tied_folder)).build()
    keys = {"mode": "device", "kv_cache_gib": 0.0625, "max_num_seqs": 8, "max_tokens": 8}
    prompts = [tuple(5 + (i * k) % 80 for i in range(6)) for k in range(1, 6)]
    how = Sampling(n=1, max_tokens=8, temperature=0.0, seed=0)
    backend = VllmRollout(engines=2, **keys).build()
    try:
        backend.start(policy)
        pair = backend.generate(prompts, how)
        logs = [engine._child.log for engine in backend._engine.engines]
    finally:
        backend.close()
    assert len({*logs}) == 2
    alone = VllmRollout(**keys).build()
    try:
        alone.start(policy)
        one = alone.generate(prompts, how)
    finally:
        alone.close()
    assert [g[0].token_ids for g in pair] == [g[0].token_ids for g in one]
