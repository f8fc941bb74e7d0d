"""Fine-tuning on rows of mixed length beside TRL 1.16; how to run it is in ``turns``.

    python tests/bench/bench_sft.py --trl-python trl/bin/python [--quick]

A round is one pass over 128 rows in optimizer steps of 16: prompts of 24 to 44 tokens, responses
of 59 on average and 256 at most. alignkit deals rows to steps at random and sorts within a step
only; TRL's fastest mode groups rows of similar length into steps, which biases their order.
"""

from __future__ import annotations

from cases import Case
from turns import main

CASES = {"sft": Case("sft", prompts=128, max_tokens=256)}
SETTINGS = {"padded": {}, "grouped by length": {"grouped": True}}


if __name__ == "__main__":
    main(__doc__, CASES, SETTINGS)
