"""Run an alignkit command and count the bytes that torch allocates: ``counted.py FILE WORDS…``.

Writes the most bytes there were at a time to ``FILE.RANK``, as torch's allocator counts them.
"""

import os
import sys
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from alignkit.cli import main


def peak(events):
    there = most = 0
    for _, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        there += size
        most = max(most, there)
    return most


if __name__ == "__main__":
    torch.set_num_threads(1)
    status = 0
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        try:
            main(sys.argv[2:], standalone_mode=True)
        except SystemExit as end:
            status = end.code
    found = peak(profiled.profiler.kineto_results.events())
    Path(f"{sys.argv[1]}.{os.environ['RANK']}").write_text(str(found))
    sys.exit(status)
