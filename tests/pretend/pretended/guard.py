"""Compile ``guard.cpp``, and load it before torch looks for a CUDA device."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")
LIBRARY = "ALIGNKIT_PRETENDED_GUARD"
"""Environment variable that names the compiled guard."""


def lacking() -> str:
    """Return what a pretended device needs and this machine lacks, "" if nothing."""
    if shutil.which("g++") is None:
        return "no g++ to compile the pretended device with"
    return "" if torch_folder() else "torch is not installed"


def torch_folder() -> Path | None:
    """Return the folder of the package, found without importing it."""
    spec = find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def compiled(folder: Path) -> Path:
    """Return the shared library, compiled into ``folder`` unless it is there for this torch."""
    torch = torch_folder()
    assert torch is not None
    include = torch / "include"
    wanted = f"{version('torch')} {SOURCE.read_text()}"
    made = folder / f"guard-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}.so"
    if not made.exists():
        command = ["g++", "-O1", "-shared", "-fPIC", "-std=c++20", str(SOURCE), f"-I{include}",
                   f"-I{include / 'torch' / 'csrc' / 'api' / 'include'}", f"-L{torch / 'lib'}",
                   "-lc10", "-ltorch_cpu", "-o", f"{made}.part"]  # fmt: skip
        subprocess.run(command, check=True)
        Path(f"{made}.part").rename(made)
    return made


def load(library: str) -> None:
    """Register the guard; torch asks for its devices once, when it is imported."""
    if "torch" in sys.modules:
        raise RuntimeError("torch was imported before the pretended device")
    folder = torch_folder()
    assert folder is not None
    for path in (folder / "lib" / "libc10.so", folder / "lib" / "libtorch_cpu.so", library):
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
