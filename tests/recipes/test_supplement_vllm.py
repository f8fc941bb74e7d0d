"""The four evaluations of the supplement on a vLLM server for CPUs, and the same by `hf`."""

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
