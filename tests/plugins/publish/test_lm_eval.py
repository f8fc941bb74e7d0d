"""The README's command for lm-evaluation-harness: it scores `final/` as alignkit does."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignkit.shipped import shipped

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
ROWS = 24
TASK = """
task: toy_problems
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["</answer>"], do_sample: false, max_gen_toks: 64}
filter_list:
  - name: answer
    filter:
      - {function: regex, regex_pattern: "</think> <answer> *(.*?) *$"}
      - {function: take_first}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


def documented():
    """The README's command, in words."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^lm_eval .*$", readme, flags=re.MULTILINE)
    return command.split()


def test_the_harness_scores_a_model_as_alignkit_does(tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is a package of its own: pip install lm-eval")
    lines = (shipped() / "data" / "problems" / "test.jsonl").read_text().splitlines()[:ROWS]
    (tmp_path / "asked.jsonl").write_text("\n".join(lines) + "\n")
    model = shutil.copytree(shipped() / "data" / "tiny_policy_sft", tmp_path / "run" / "final")
    sets = [f"policy.path={model}", f"data.path={tmp_path / 'asked.jsonl'}", f"n={ROWS}"]
    sets += ["rollout.temperature=0.0", "rollout.max_tokens=64"]
    words = [w for item in sets for w in ("-s", item)]
    run = [sys.executable, "-m", "alignkit", "run", "alignkit:recipes/evaluate.toml", *words]
    subprocess.run([*run, "--out", tmp_path / "own"], check=True, capture_output=True)
    (file,) = (tmp_path / "own" / "eval").glob("*.jsonl")
    own = [json.loads(line) for line in file.read_text().splitlines()]

    prompt = (ROOT / "plugins" / "alignkit_prompts" / "r1_zero.txt").read_text().rstrip("\n")
    rows = [
        {"prompt": prompt.replace("{question}", r["question"]), "answer": r["gold"]} for r in own
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "toy_problems.yaml").write_text(TASK)
    given = {"pretrained=RUN_DIR/final": f"pretrained={model}", "gsm8k": "toy_problems"}
    command = [next((word.replace(a, b) for a, b in given.items() if a in word), word)
               for word in documented()]  # fmt: skip
    command[0] = str(Path(sys.executable).with_name("lm_eval"))
    command += ["--device", "cpu", "--include_path", ".", "--output_path", "out"]
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (tmp_path / "out").rglob("results_*.json")
    score = json.loads(found.read_text())["results"]["toy_problems"]["exact_match,answer"]
    right = sum(row["answer_reward"] for row in own)
    assert 0 < right < ROWS  # else the score would tell nothing
    assert score == pytest.approx(right / ROWS)
