"""What people get wrong, and what they are told: file, line, remedy; exit 2; nothing written."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASE = f'extends = "{ROOT}/recipes/grpo_offpolicy.toml"\n'

CASES = {
    "unknown plugin": (
        BASE + '[loss]\nuse = "grpo_clp"\n',
        ["bad.toml:3: loss.use: unknown loss_type 'grpo_clp'. Did you mean 'grpo_clip'?"],
    ),
    "misspelt key": (
        BASE + "n_step = 3\n",
        ["bad.toml:2: n_step: 'grpo' takes no 'n_step'. Did you mean 'n_steps'?"],
    ),
    "misspelt key in a table": (
        BASE + "[optimizer]\nlearning_rate = 1.0\n",
        ["bad.toml:3: optimizer.learning_rate: 'adamw' takes no", "it takes: lr, betas"],
    ),
    "wrong type": (BASE + 'n_steps = "60"\n', ["bad.toml:2: n_steps:", "valid integer (got '60')"]),
    "out of range": (
        BASE + "[loss]\ncliprange = -0.2\n",
        ["bad.toml:3: loss.cliprange:", "greater than 0 (got -0.2)"],
    ),
    "missing table": ('use = "grpo"\n', ["'grpo' needs a table [policy]", "Known: hf"]),
    "missing file": (
        BASE + '[data]\nuse = "jsonl"\npath = "nowhere.jsonl"\n',
        ["bad.toml:4: data.path: no such file or folder: nowhere.jsonl"],
    ),
    "broken TOML": (BASE + "n_steps = = 3\n", ["bad.toml:2:", "not valid TOML"]),
    "group size": (
        BASE + "rollout_batch_size = 256\ngroup_size = 7\n",
        ["bad.toml:3: group_size:", "must divide rollout_batch_size = 256"],
    ),
    "train batch size": (
        BASE + "rollout_batch_size = 256\ntrain_batch_size = 100\n",
        ["bad.toml:3: train_batch_size:", "must divide rollout_batch_size = 256"],
    ),
    "row without an answer": (
        BASE + '[data]\nuse = "jsonl"\npath = "rows.jsonl"\n',
        ["bad.toml:2: data.answer:", "rows.jsonl:2: no column 'answer'"],
    ),
    "several at once": (
        BASE + 'n_step = 3\n[loss]\nuse = "nope"\n[prompt]\nuse = "r1zero"\n',
        ["bad.toml:2:", "bad.toml:4:", "bad.toml:6:", "Did you mean 'r1_zero'?"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_recipe_is_refused_with_its_place_and_remedy(alignkit, tmp_path, case):
    text, wanted = CASES[case]
    (tmp_path / "bad.toml").write_text(text)
    (tmp_path / "rows.jsonl").write_text(
        '{"question": "1+1?", "answer": "2"}\n{"question": "1+2?"}\n'
    )
    before = sorted(tmp_path.iterdir())
    done = alignkit("run", tmp_path / "bad.toml", "--out", tmp_path / "run")
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    for part in wanted:
        assert part in done.output
    assert sorted(tmp_path.iterdir()) == before


def test_a_loss_that_reads_what_the_algorithm_lacks_is_refused(alignkit, tmp_path, monkeypatch):
    import alignkit_losses

    monkeypatch.setattr(alignkit_losses.GrpoClip, "needs", frozenset({"ref_logprobs"}))
    done = alignkit("run", "recipes/grpo_offpolicy.toml", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "recipes/grpo_offpolicy.toml:9: loss.use:" in done.output
    assert "reads ref_logprobs, which 'grpo' does not provide" in done.output
    assert not (tmp_path / "run").exists()
