"""``alignkit explain --ranks`` by hand: memory of a rank, and how a step's time is split."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from alignkit import plugins, recipe
from alignkit.errors import AlignkitError
from alignkit.estimate import CONTEXT, PROCESS, estimate
from alignkit.run_data.runs import read
from alignkit_explain.ranks import OnRanks, _replicated, chosen, held
from alignkit_explain.split import Speed, speed, split

SIZES = {"token_budget": 1000, "rollout_batch_size": 8, "train_batch_size": 4, "n_steps": 5,
         "epochs_per_rollout_batch": 2, "rollout.max_tokens": 10, "eval.n": 8}  # fmt: skip
N = 451_840
"""Parameters of the embedded policy (data/README.md), of 4 bytes each."""
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def node_of():
    def node(*more):
        sets = [*(f"{k}={v}" for k, v in SIZES.items()), *more]
        return recipe.load(ROOT / "recipes" / "grpo.toml", plugins.load(), (), sets)

    return node


def memory_of(node, on, card=None):
    return {way.parallel: way for way in held(node, on, card)}


def test_a_rank_that_replicates_holds_all_and_caches_its_share(node_of):
    alone, four = (memory_of(node_of(), OnRanks(n))["replicate"].memory for n in (1, 4))
    for name in ("weights", "gradients", "optimizer state", "activations"):
        assert four[name] == alone[name]
    # 8 responses of 10 tokens, and two of them: keys and values, 4 layers, 32 numbers, 4 bytes.
    assert alone["key-value cache"] == 80 * 2 * 4 * 32 * 4
    assert four["key-value cache"] == 20 * 2 * 4 * 32 * 4
    assert four["gradients on their way between ranks"] == 4 * N


def test_a_rank_of_a_policy_that_is_cut_holds_a_part_and_a_whole_copy(node_of):
    node = node_of()
    found, sizes = memory_of(node, OnRanks(4))["shard"], estimate(node).sizes
    on_card = memory_of(node, OnRanks(4), 1e12)["shard"]
    assert found.memory["weights"] == N  # a quarter of 4 N bytes
    assert found.memory["gradients"] == N
    assert found.memory["optimizer state"] == 2 * N
    assert found.memory["whole copy of the weights, to sample from"] == 4 * N
    # 96 wide, 4 layers, k = 32, m = 256: 97 * (96 + 64) + 96 * 96 + 3 * 96 * 256 + 192.
    assert (sizes.layers, sizes.layer) == (4, 98_656)
    outside = N - 4 * 98_656
    gathered = found.memory["layers gathered from all ranks, and their gradients"]
    assert gathered == 4 * (2 * outside + 3 * 98_656)
    assert found.saving == on_card.saving == 2 * 3 * N  # one file, and its bytes
    # A quarter of weights and optimizer, the copy, and the libraries.
    assert found.writing == 6 * N + (3 * N + 4 * N + PROCESS)
    assert on_card.writing == 3 * N + 4 * N + CONTEXT
    most = replace(found, saving=1e12)
    assert (most.total, replace(most, on_card=True).total) == (most.writing, found.learning)
    assert found.learning - found.sampling == pytest.approx(
        found.memory["gradients"] + found.memory["activations"] + gathered
        + found.memory.get("output head", 0.0)
    )  # fmt: skip


@pytest.mark.parametrize(("dtype", "wanted"), [("float32", 4 * 2**24), ("bfloat16", 8 * 2**24)])
def test_gradients_are_copied_for_the_exchange_so_many_at_a_time(node_of, dtype, wanted):
    node = node_of(f"policy.dtype={dtype}")
    found = estimate(node)
    large = replace(found, sizes=replace(found.sizes, trained=10**9, embedding=2**24))
    assert _replicated(large)["gradients on their way between ranks"] == wanted
    # A head that is larger than one go is added by itself: in place, or as float32 beside it.
    larger = replace(found, sizes=replace(found.sizes, trained=10**9, embedding=2**26))
    alone = {"float32": wanted, "bfloat16": 4 * 2**26}[dtype]
    assert _replicated(larger)["gradients on their way between ranks"] == alone


def test_every_node_holds_a_whole_policy(node_of):
    one, two = (memory_of(node_of(), OnRanks(8, nodes))["shard"].memory for nodes in (1, 2))
    assert (one["weights"], two["weights"]) == (N / 2, N)


def test_an_adapters_policy_is_not_cut(node_of):
    ways = held(node_of("policy.lora.rank=2"), OnRanks(2))
    assert [way.parallel for way in ways] == ["replicate"]


@pytest.mark.parametrize(
    ("share", "wanted"), [(None, "replicate"), (0.59, "replicate"), (0.61, "shard")]
)
def test_auto_cuts_what_takes_more_than_a_share_of_the_card(node_of, share, wanted):
    node = node_of()
    assert chosen(node, estimate(node, share and 16 * N / share)) == wanted
    assert chosen(node_of("policy.parallel=shard"), estimate(node)) == "shard"


AT = Speed(learn=1e9, sample=1e8, judge=0.01, length=5.0, spread=0.5)


def test_time_by_hand(node_of):
    found = estimate(node_of())
    told = split(found, AT, OnRanks(2), "replicate", 1e9)
    # Half of 8 responses of 5 tokens, 2 N operations each; learnt from at (2 + 2 * 6) N.
    assert told["sampling"] == pytest.approx(20 * 2 * N / 1e8)
    assert told["learning"] == pytest.approx(20 * 14 * N / 1e9)
    assert told["judging"] == pytest.approx(0.04)
    # 16 rows a step in batches of 4: 4 updates; a gradient of 4 N bytes goes round twice, by half.
    assert told["exchange of weights and gradients"] == pytest.approx(4 * 4 * N / 1e9)
    assert told["gathering of weights to sample from"] == 0
    # The longer of two shares of 4 responses: 0.59 deviations of 0.5 / sqrt(4); a row of half of
    # a rank's update, which has 1.
    waits = told["sampling"] * 0.589456 * 0.25 + told["learning"] / 2
    assert told["waiting"] == pytest.approx(waits, rel=1e-3)


def test_what_is_cut_is_gathered_for_every_pass(node_of):
    found = estimate(node_of())
    told = split(found, AT, OnRanks(4), "shard", 1e9)
    # 3/4 of 4 N bytes once to sample; of 4 updates, forwards, backwards, and gradients.
    assert told["gathering of weights to sample from"] == pytest.approx(3 * N / 1e9)
    assert told["exchange of weights and gradients"] == pytest.approx(4 * 9 * N / 1e9)
    alone = split(found, AT, OnRanks(1), "replicate")
    assert alone["waiting"] == alone["exchange of weights and gradients"] == 0
    slow = split(found, AT, OnRanks(8, 2), "replicate")
    assert slow["exchange of weights and gradients"] > 0


@pytest.fixture
def run_of(node_of, tmp_path):
    def made(**facts):
        row = {"train/response_length": 5.0, "time/rollout": 2.0, "time/update": 4.0}
        rows = [json.dumps({"step": i, "time": 3.0 * i} | row) for i in (1, 2)]
        (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
        (tmp_path / "recipe.toml").write_text(tomli_w.dumps(node_of().dump()))
        (tmp_path / "manifest.json").write_text(json.dumps(facts))
        (tmp_path / "rollouts").mkdir(exist_ok=True)
        lengths = [json.dumps({"response_length": n}) for n in (4, 6)]
        (tmp_path / "rollouts" / "step_000001.jsonl").write_text("\n".join(lengths))
        return tmp_path

    return made


def test_speed_is_taken_from_a_run_of_one_process(run_of):
    found = speed(read(run_of()), plugins.load())
    # 40 tokens: 2 N each in 2 s, 14 N each in 4 s; lengths 4 and 6: deviation 1 of 5.
    assert (found.sample, found.learn) == pytest.approx((40 * N, 140 * N))
    assert (found.length, found.spread) == pytest.approx((5, 0.2))


def test_a_run_of_several_ranks_does_not_tell(run_of):
    with pytest.raises(AlignkitError, match="give a run of one process"):
        speed(read(run_of(hardware={"ranks": 2})), plugins.load())


def said(alignkit, *words):
    done = alignkit("explain", "recipes/grpo.toml", *words)
    assert done.exit_code == 0, done.output
    return done.output.split("\nEstimate")[1]


def test_the_command_tells_both_ways(alignkit, run_of):
    text = said(alignkit, "--ranks", "4", "--nodes", "2", "--like", run_of(), "--card", "40")
    assert text.startswith(" for each of 4 ranks on 2 nodes, each with a card of 40.0 GB\n")
    assert 'parallel = "replicate" (this recipe)\n' in text
    assert 'parallel = "shard"\n' in text
    assert text.count("memory, at most: ") == 2
    assert text.count("time of a step, without evaluations: ") == 2
    assert "% sampling" in text
    assert "% waiting" in text
    assert "% gathering of weights" in text
    text = said(alignkit, "--ranks", "2", "-s", "policy.parallel=shard")
    assert 'parallel = "shard" (this recipe)\n' in text
    assert "time: give a run of one process with --like" in text


def test_ranks_that_the_nodes_cannot_share_are_refused(alignkit):
    done = alignkit("explain", "recipes/grpo.toml", "--ranks", "3", "--nodes", "2")
    assert done.exit_code == 2
    assert "each of 2 nodes has as many" in done.output
