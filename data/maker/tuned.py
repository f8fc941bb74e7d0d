"""The policy after a little supervised fine-tuning, for runs that start from one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "sft.toml"
CHANGES = ("n_examples=256", "epochs=1", "train_batch_size=32", "optimizer.warmup_steps=0")
"""8 optimizer steps: enough to show the form, not enough to make it a habit."""


def make(data: Path) -> None:
    """Write ``tiny_policy_sft`` below ``data``: what recipes/sft.toml makes of ``tiny_policy``."""
    target = data / "tiny_policy_sft"
    paths = (f"policy.path={data}/tiny_policy", f"data.path={data}/sft/train.jsonl")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        changes = [part for change in (*CHANGES, *paths) for part in ("-s", change)]
        command = [sys.executable, "-m", "alignkit", "run", RECIPE, *changes, "--out", out]
        subprocess.run(command, check=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(out / "final", target)
