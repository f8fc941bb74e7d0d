"""The supplement on one vLLM server for CPUs: its evaluations, the judge, and fine-tuning.

The `hf` backend answers greedily as the server must, so each run is made with both and compared.
"""

import json
from pathlib import Path

import pytest

from alignkit.testing import run_cli

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
SETS = {"mmlu": 8, "gsm8k": 8, "alpaca_eval": 8, "simple_safety_tests": 10}
KEY = "ALIGNKIT_VLLM_KEY"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Address of a server of the embedded policy, which answers chats by the r1_zero template."""
    from alignkit_vllm.engines.process import Child, free_port

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY, "of this test")
        port = free_port()
        options = [
            f"--port={port}", "--dtype=float32", "--enforce-eager", "--served-model-name=tiny",
            "--kv-cache-memory-bytes=67108864", "--max-num-seqs=64",
            f"--chat-template={RECIPES / 'chat' / 'r1_zero.jinja'}",
        ]  # fmt: skip
        log = tmp_path_factory.mktemp("server") / "log"
        server = Child([str(ROOT / "data" / "tiny_policy"), *options], log, {})
        yield f"http://127.0.0.1:{port}"
        server.kill()


def run(recipe, out, *settings):
    """Run a recipe; return its rows of metrics, and the held-out responses by file."""
    flags = [part for setting in settings for part in ("-s", setting)]
    done = run_cli("run", RECIPES / recipe, "--out", out, *flags)
    assert done.status == 0, done.stderr
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    said = {
        str(path.relative_to(out / "eval")): [
            json.loads(line) for line in path.read_text().splitlines()
        ]
        for path in sorted((out / "eval").rglob("*.jsonl"))
    }
    return rows, said


def with_server(url, table="rollout"):
    """Settings of a table; the recipes' own temperature and length are those of `hf`."""
    where = {"use": "vllm", "mode": "server", "url": url, "temperature": 0, "max_tokens": 24}
    return [f"{table}.{key}={value}" for key, value in where.items()]


def of(name, metrics):
    return {k: v for k, v in metrics.items() if k.startswith(f"eval/{name}") and "time" not in k}


def test_the_four_evaluations(url, tmp_path):
    sizes = [f"sets.{name}.n={n}" for name, n in SETS.items()]
    sizes.append("rollout.max_tokens=24")
    (row,), said = run("supplement/all.toml", tmp_path / "vllm", *sizes, *with_server(url))
    (want,), by_hf = run("supplement/all.toml", tmp_path / "hf", *sizes)
    assert [(k, len(v)) for k, v in said.items()] == [(k, len(v)) for k, v in by_hf.items()]
    for name in by_hf:
        assert [r["response"] for r in said[name]] == [r["response"] for r in by_hf[name]]
    for name, n in SETS.items():
        assert row[f"eval/{name}/n"] == n
        assert of(name, row) == pytest.approx(of(name, want), abs=1e-4)


def judged(said):
    """Verdicts by response, None for the unjudged, of the one evaluation of a run."""
    (rows,) = said.values()
    return [(row["response"], row.get("judge_reward")) for row in rows]


def test_a_judge_run_by_the_server(url, tmp_path):
    """Any digit is a verdict: the embedded policy writes no other."""
    how = ["rollout.max_tokens=24", "reward.pattern=([0-9])", "reward.best=9"]
    _, by_hf = run("supplement/judge.toml", tmp_path / "hf", *how)
    served = [
        *with_server(url),
        *with_server(url, "reward.rollout"),
        "reward.rollout.max_tokens=64",
    ]
    _, said = run("supplement/judge.toml", tmp_path / "vllm", *how, *served)
    assert judged(said) == judged(by_hf)
    assert any(score is not None for _, score in judged(said))


def test_instruction_tuning_is_evaluated_by_the_weights_it_has_learned(url, tmp_path):
    """Before the first step and after the last; the server gets the new weights in between."""
    how = [
        "n_steps=2", "train_batch_size=2", "n_examples=64", "validation.limit=8",
        "reward.use=last_number", "eval.n=8", "eval.data.use=jsonl",
        f"eval.data.path={ROOT / 'data' / 'problems' / 'test.jsonl'}",
    ]  # fmt: skip
    by = {"hf": ["rollout.use=hf", "rollout.temperature=0", "rollout.max_tokens=24"]}
    by["vllm"] = with_server(url)
    found = {name: run("instruction_sft.toml", tmp_path / name, *how, *by[name]) for name in by}
    said = {
        name: [[r["response"] for r in rows] for rows in found[name][1].values()] for name in by
    }
    assert said["vllm"] == said["hf"]
    before, after = said["vllm"]
    assert before != after
    losses = [row["eval/loss"] for row in found["vllm"][0] if "eval/loss" in row]
    assert losses[-1] < losses[0]
