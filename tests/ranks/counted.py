"""Run an alignkit command and count the memory it takes: ``counted.py FILE WORDS…``.

Writes to ``FILE.RANK`` by how many bytes the process was larger than before, at most, without pages
of files. torch's profiler does not tell: it misses what threads of gloo free. Freed memory has to
go back to the system at once, so start with ``MALLOC_MMAP_THRESHOLD_`` in the environment.
"""

import os
import sys
import threading
from pathlib import Path

import torch
import torch.distributed.fsdp
import torch.distributed.tensor
from transformers import AutoModelForCausalLM  # noqa: F401

import alignkit_hf.policy.causal  # noqa: F401
from alignkit.cli import main

PAUSE = 0.002
"""Seconds between two looks."""


def anonymous():
    """Return the bytes of this process that are no pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Peak(threading.Thread):
    """Looks from time to time."""

    def __init__(self):
        super().__init__(daemon=True)
        self.before = self.most = anonymous()
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(PAUSE):
            self.most = max(self.most, anonymous())


if __name__ == "__main__":
    torch.set_num_threads(1)
    status, peak = 0, Peak()
    peak.start()
    try:
        main(sys.argv[2:], standalone_mode=True)
    except SystemExit as end:
        status = end.code
    peak.over.set()
    peak.join()
    Path(f"{sys.argv[1]}.{os.environ['RANK']}").write_text(str(peak.most - peak.before))
    sys.exit(status)
