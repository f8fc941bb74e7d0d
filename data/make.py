"""Remake the embedded default: ``python data/make.py`` writes everything below ``data/``.

The text files take a second and come out byte for byte as they are in the repository. The
policy takes some minutes; the same machine and versions give the same weights.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED = 0
POLICY_STEPS = 2000


def main() -> None:
    """Read the command line and write what it asks for."""
    asked = _arguments()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch loads
    sys.path.insert(0, str(HERE))
    from maker import files, policy, tools_policy, tuned

    files.write(asked.out, SEED)
    if asked.text_only:
        return
    import torch

    torch.set_num_threads(asked.threads)
    held_out = _questions(asked.out / "problems" / "test.jsonl")
    policy.make(asked.out / "tiny_policy", held_out=held_out, steps=asked.steps, seed=SEED)
    tuned.make(asked.out)
    held_out = _questions(asked.out / "tools" / "test.jsonl")
    tools_policy.make(asked.out, held_out=held_out, seed=SEED)


def _questions(path: Path) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["question"] for line in lines}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (data/)")
    parser.add_argument("--text-only", action="store_true", help="leave the policy as it is")
    parser.add_argument("--steps", type=int, default=POLICY_STEPS, help="optimizer steps")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    return parser.parse_args()


if __name__ == "__main__":
    main()
