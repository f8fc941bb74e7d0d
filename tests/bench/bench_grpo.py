"""Whole GRPO steps beside TRL 1.16: rollout, reward, update; how to run it is in ``turns``.

    python tests/bench/bench_grpo.py --trl-python trl/bin/python [--case fixed] [--quick]

Both get the same weights (Qwen2, hidden 256, 4 layers, MLP 1,024, float32), prompts, reward and
lengths, clip at 0.2, no KL term, fused AdamW, gradients clipped to 1. About half the responses
are right, so that no group is without signal. TRL is run with the whole batch as one
micro-batch and with micro-batches of 8 (its default); its best counts. ``--compile`` adds
torch.compile, which takes minutes to warm up.
"""

from __future__ import annotations

import sys

from cases import Case
from turns import arguments, compare

CASES = {
    "fixed": Case("grpo"),
    "two epochs": Case("grpo", epochs=2),
    "varying": Case("grpo", max_tokens=256, ends=17),
    "long prompts": Case("grpo", prompts=4, group=16, prompt_tokens=(256, 256)),
    "large vocabulary": Case("grpo", vocabulary=151_936),
}
for factor in (1, 2, 4, 8):
    CASES[f"size x{factor}"] = Case("grpo", prompts=4 * factor)
SETTINGS = {"one micro-batch": {}, "micro-batches of 8": {"micro_batch": 8}}


def main() -> None:
    compiled = "--compile" in sys.argv
    if compiled:
        sys.argv.remove("--compile")
    args = arguments(__doc__.partition("\n")[0], list(CASES))
    settings = SETTINGS | ({"compiled": {"compile": True}} if compiled else {})
    for name in args.case or [n for n in CASES if not n.startswith("size")]:
        compare(name, CASES[name], args, settings)


if __name__ == "__main__":
    main()
