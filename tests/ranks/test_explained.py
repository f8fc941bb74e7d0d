"""What ``alignkit explain --ranks`` says, held against runs whose memory and time are measured."""

from pathlib import Path

import pytest

from alignkit import plugins, recipe
from alignkit.estimate import PROCESS, estimate
from alignkit.plugin_files import with_files
from alignkit.run_data.runs import read
from alignkit_explain.ranks import OnRanks, held
from alignkit_explain.split import speed, split

from .conftest import Ranks, metrics

SIZES = ["token_budget=128", "rollout_batch_size=16", "train_batch_size=16", "n_steps=3"]
SIZES += ["rollout.max_tokens=24", "checkpoint.every=0", "eval.every=9"]
WAYS = [("replicate", 1), ("replicate", 2), ("shard", 2)]
LOWER, UPPER = 0.8, 1.3
"""Counted bytes as a share of what is predicted, of the rank that takes most."""
FACTOR = 4.0
"""How many times longer or shorter a step may take than predicted, on a machine with other work."""


@pytest.fixture(scope="module")
def larger(ranks, write_policy, tmp_path_factory):
    """Runs of a model whose weights take more than a micro-batch of 128 tokens: 50 MB."""
    sizes = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4}
    model = write_policy("larger", **sizes)
    place = tmp_path_factory.mktemp("explained")
    return Ranks(place, model, ranks.rows, ranks.teacher, ranks.warm)


def words(larger, out, parallel):
    keys = [*SIZES, f"policy.parallel={parallel}"]
    return larger.words("off_policy", out, *(word for key in keys for word in ("-s", key)))


def known(larger, out):
    registry = with_files(plugins.load(), [larger.place / "vowel_plugin.py"])
    return recipe.load(out / "recipe.toml", registry), registry


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "size"), WAYS, ids=[f"{w}-{n}" for w, n in WAYS])
def test_each_rank_takes_the_memory_that_is_predicted(larger, parallel, size, monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**17))
    out = larger.place / f"{parallel}-{size}"
    counter = [Path(__file__).with_name("counted.py"), larger.place / out.name]
    more = ["-s", "n_steps=2"]
    codes, said = larger.go([*counter, *words(larger, out, parallel)[2:], *more], size, limit=400)
    assert codes == [0] * size, said
    node, _ = known(larger, out)
    (way,) = [way for way in held(node, OnRanks(size)) if way.parallel == parallel]
    files = [Path(f"{counter[1]}.{rank}") for rank in range(size)]
    most = max(int(file.read_text()) for file in files)
    assert LOWER < most / (way.total - PROCESS) < UPPER


@pytest.mark.slow
def test_a_step_on_two_ranks_is_split_as_predicted_from_one_process(larger):
    outs = {}
    for size in (1, 2):
        outs[size] = larger.place / f"timed-{size}"
        codes, said = larger.go(words(larger, outs[size], "replicate"), size, limit=400)
        assert codes == [0] * size, said
    node, registry = known(larger, outs[1])
    at = speed(read(outs[1]), registry)
    told = split(estimate(node), at, OnRanks(2), "replicate")
    rows = [row for row in metrics_of(outs[2]) if row["step"] > 1]  # the first step warms up
    took = {n: min(row[f"time/{n}"] for row in rows) for n in ("rollout", "reward", "update")}
    between = {n: min(row[f"ranks/{n}"] for row in rows) for n in ("wait", "exchange")}
    whole = sum(told.values())
    assert 1 / FACTOR < sum(took.values()) / whole < FACTOR
    assert took["rollout"] / FACTOR < told["sampling"] + told["waiting"]
    assert told["sampling"] < FACTOR * took["rollout"]
    assert told["learning"] < FACTOR * took["update"]
    assert 0 < between["exchange"] + between["wait"] < sum(took.values())
    assert all(not name.startswith("ranks/") for row in metrics_of(outs[1]) for name in row)
    assert len(metrics(outs[2])) == len(rows) + 2


def metrics_of(folder):
    return list(read(folder).rows)
