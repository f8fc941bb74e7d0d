"""Peak memory of a GRPO step beside TRL 1.16; how to run it is in ``turns``.

    python tests/bench/bench_memory.py --trl-python trl/bin/python [--quick]

Peak resident memory of a fresh process over three steps, and how much of it there was before the
first (interpreter, libraries, weights). TRL with the whole batch as one micro-batch, its fastest
setting, and with micro-batches of 8, its default.
"""

from __future__ import annotations

from bench_grpo import CASES as GRPO
from bench_grpo import SETTINGS
from turns import arguments, compare

CASES = ("fixed", "varying", "long prompts", "large vocabulary")


def main() -> None:
    args = arguments(__doc__.partition("\n")[0], CASES)
    args.rounds = min(args.rounds, 2)
    for name in args.case or CASES:
        found = compare(name, GRPO[name], args, SETTINGS)
        ours = found.pop("alignkit")
        for other in found.values():
            own, theirs = (w.peak("peak_mib") - w.reports[0]["idle_mib"] for w in (ours, other))
            print(
                f"  peak, alignkit / {other.name}: "
                f"{ours.peak('peak_mib') / other.peak('peak_mib'):.2f} in all, "
                f"{own / theirs:.2f} of what steps added ({own:,.0f} and {theirs:,.0f} MiB)"
            )


if __name__ == "__main__":
    main()
