"""The main job: it learns, as a user runs it, it repeats, and real data go through it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignkit_testing.algorithm import is_measured

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def run(out, *args, recipe="recipes/grpo_offpolicy.toml"):
    command = [sys.executable, "-m", "alignkit", "run", recipe, "--out", out, *args]
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def quick(warm):
    """Return what :func:`run` is, without the time of imports."""

    def started(out, *args, recipe="recipes/grpo_offpolicy.toml"):
        process = warm.start(["run", recipe, "--out", out, *args], os.environ, ROOT)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        return said

    return started


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(rows):
    return [{k: v for k, v in r.items() if not is_measured(k)} for r in rows]


@pytest.mark.parametrize("seed", [0, 1])
def test_off_policy_grpo_lifts_accuracy_by_40_points(tmp_path, seed, quick):
    said = (quick if seed else run)(tmp_path / "run", "-s", f"seed={seed}")
    evals = [r for r in metrics(tmp_path / "run") if "eval/answer_reward" in r]
    assert evals[0]["step"] == 0
    assert evals[0]["eval/n"] >= 200
    assert 0.15 <= evals[0]["eval/answer_reward"] <= 0.40
    assert evals[-1]["eval/answer_reward"] - evals[0]["eval/answer_reward"] >= 0.4
    assert f"run directory: {tmp_path / 'run'}" in said
    assert "next: alignkit run alignkit:recipes/evaluate.toml" in said
    _loads_and_speaks(tmp_path / "run" / "final")


def _loads_and_speaks(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("User: 1 + 1 ?", return_tensors="pt").input_ids
    assert model.generate(input_ids=ids, max_new_tokens=4).shape[1] > ids.shape[1]


def test_the_same_seed_gives_the_same_numbers(tmp_path, quick):
    short = ["-s", "n_steps=3", "-s", "eval.n=64", "-s", "eval.every=1"]
    for name, start in (("a", run), ("b", quick)):
        start(tmp_path / name, *short)
    first, again = (without_times(metrics(tmp_path / n)) for n in ("a", "b"))
    assert json.dumps(first) == json.dumps(again)
    quick(tmp_path / "c", *short, "-s", "seed=1")
    assert without_times(metrics(tmp_path / "c")) != first
    texts = [(tmp_path / n / "rollouts/step_000001.jsonl").read_text() for n in ("a", "b")]
    assert texts[0] == texts[1]


def test_evaluation_takes_all_of_gsm8k(tmp_path, shared_data, quick):
    args = ["-s", "data.use=gsm8k", "-s", f"data.path={shared_data}/gsm8k/test.jsonl", "-s", "n=0"]
    quick(tmp_path / "run", *args, recipe="recipes/evaluate.toml")
    (row,) = metrics(tmp_path / "run")
    assert row["eval/n"] == 1319
    total = row["eval/n_correct"] + row["eval/n_format_only"] + row["eval/n_neither"]
    assert total == 1319
    assert 0 <= row["eval/truncated"] <= 1
    assert len((tmp_path / "run/eval/step_000000.jsonl").read_text().splitlines()) == 1319


def test_grpo_takes_gsm8k(tmp_path, shared_data, quick):
    train, test = (shared_data / "gsm8k" / f"{part}.jsonl" for part in ("train", "test"))
    data = ["-s", "data.use=gsm8k", "-s", f"data.path={train}"]
    held_out = ["-s", "eval.data.use=gsm8k", "-s", f"eval.data.path={test}", "-s", "eval.n=32"]
    quick(tmp_path / "run", *data, *held_out, "-s", "n_steps=2")
    rows = metrics(tmp_path / "run")
    assert [r["step"] for r in rows] == [0, 1, 2]
    assert all(0 <= r["train/truncated"] <= 1 for r in rows[1:])
    assert all(r["train/loss"] is not None for r in rows[1:])
