"""Direct preference optimisation beside TRL 1.16; how to run it is in ``turns``.

    python tests/bench/bench_dpo.py --trl-python trl/bin/python [--quick]

A round is one pass over 64 pairs in optimizer steps of 16. Both compute the reference's
log-probs once, before the first step (in TRL ``precompute_ref_log_probs``); that is not timed.
"""

from __future__ import annotations

from cases import Case
from turns import main

CASES = {"dpo": Case("dpo", prompts=64, max_tokens=256)}
SETTINGS = {"one micro-batch": {}, "micro-batches of 4": {"micro_batch": 4}}


if __name__ == "__main__":
    main(__doc__, CASES, SETTINGS)
