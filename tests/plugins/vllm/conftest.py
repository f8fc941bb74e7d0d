"""A small policy that the CPU engine takes (its attention wants heads of 32 numbers)."""

import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


import pytest

from alignkit_hf import HfPolicy

SIZES = {"hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 512}


@pytest.fixture(scope="session")
def untied_folder(write_policy):
    """Two ids end a response; the output head has weights of its own."""
    return write_policy("untied", **SIZES, tie_word_embeddings=False)


@pytest.fixture(scope="session")
def tied_folder(write_policy):
    """As ``untied_folder``, with the embedding as output head."""
    return write_policy("tied", **SIZES, tie_word_embeddings=True)


@pytest.fixture(scope="session")
def members():
    """Return a function that lists a process group's processes which have not ended."""

    def of(group):
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, pgid = stat.read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(pgid) == group and state not in "ZX":  # zombies have ended
                found.append(int(stat.parent.name))
        return found

    return of


@pytest.fixture(scope="session")
def emptied(members):
    """Return a function that waits for a process group's end: a minute, if the machine is busy."""

    def within_a_minute(group):
        end = time.monotonic() + 60
        while members(group) and time.monotonic() < end:
            time.sleep(0.1)
        return not members(group)

    return within_a_minute


@pytest.fixture
def sharded_trainer(tmp_path):
    """Return a function that runs both ranks of ``sharded.py`` to their end."""

    def run(folder, out, *url, **environment):
        script = Path(__file__).with_name("sharded.py")
        ranks = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "ignore",
                    script,
                    folder,
                    tmp_path / "store",
                    rank,
                    out,
                    *url,
                ],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
            )
            for rank in ("0", "1")
        ]
        for rank in ranks:
            _, errors = rank.communicate(timeout=600)
            assert rank.returncode == 0, errors

    return run


@pytest.fixture
def stub(monkeypatch):
    """vLLM's trainer engines replaced by those of ``transfer_stub``, on a policy with a card."""
    from contextlib import nullcontext

    from alignkit_vllm.weights import transfer as transfer_module

    from . import transfer_stub

    monkeypatch.setattr(transfer_module, "_vllm", lambda module: transfer_stub)
    monkeypatch.setattr(transfer_module.Transfer, "_device", lambda self: nullcontext())
    monkeypatch.setattr("alignkit_vllm.engines.delivery.gpu_of", lambda policy: "GPU-a")
    monkeypatch.setattr(transfer_module, "PATIENCE", 0.5)
    return transfer_stub


@pytest.fixture
def tied(tied_folder):
    from alignkit_hf import HfPolicy

    return HfPolicy(path=str(tied_folder)).build()


@pytest.fixture
def policy(tiny_folder):
    return HfPolicy(path=str(tiny_folder)).build()
