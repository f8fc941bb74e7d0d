"""A machine that is made up, and an ``nvidia-smi`` that prints what it is told."""

import pytest

from alignkit_doctor.machine import Card, Machine, Torch

GIB = 2**30
GOOD = Torch(version="2.13.0+cu130", cuda="13.0", cards=[Card("NVIDIA L4", 23 * GIB)])


@pytest.fixture
def made_up():
    """Return a function that makes a machine with one L4 where all is well, but for the changes."""

    def make(**changes):
        whole = {
            "driver": "580.95",
            "driver_cuda": "13.0",
            "listed": [Card("NVIDIA L4", 23 * GIB, 22 * GIB)],
            "torch": GOOD,
            "packages": {
                "alignkit": "0.1.0", "torch": "2.13.0+cu130", "transformers": "5.19.0",
                "vllm": "0.32.0", "bitsandbytes": "0.50.0",
            },
            "cpu": "a processor",
            "cores": 8,
            "usable": 8,
            "quota": None,
            "memory": 64 * GIB,
            "available": 60 * GIB,
            "disk": 500 * GIB,
            "cache_disk": 500 * GIB,
            "offline": False,
            "settings": {},
        }  # fmt: skip
        return Machine(**{**whole, **changes})

    return make


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Return a function that puts an ``nvidia-smi`` on PATH: cards as CSV, CUDA in its head."""

    def install(rows, cuda="12.4", status=0):
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir(exist_ok=True)
        table = "\n".join(rows)
        tool.write_text(
            "#!/bin/sh\n"
            f'case "$*" in *query-gpu*) cat <<EOF\n{table}\nEOF\n;;\n'
            f'*) echo "| NVIDIA-SMI 1.0   Driver Version: 1.0   CUDA Version: {cuda} |";; esac\n'
            f"exit {status}\n"
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tool.parent), prepend=":")

    return install
