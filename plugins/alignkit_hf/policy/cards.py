"""Devices that cannot be used, and NVIDIA cards that torch does not see.

With those, training would silently run on the CPU.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from alignkit.errors import AlignkitError
from alignkit.lifecycle.programs import output


def refuse_unseen_cards() -> None:
    """Raise AlignkitError if torch sees none of the cards that the driver lists.

    A CUDA_VISIBLE_DEVICES that hides all of them is assumed to be intended.
    """
    if torch.cuda.is_available() or os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return
    if not (count := _cards()):
        return
    driver, cuda = _driver()
    newest = f", for CUDA up to {cuda}" if cuda else ""
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"
    older = f" that is built for CUDA {cuda} or older" if cuda else " that is built for its CUDA"
    raise AlignkitError(
        f'policy.device = "auto", but torch sees none of this machine\'s {count} NVIDIA card'
        f"{'s' if count > 1 else ''}: the driver is {driver}{newest}; torch {torch.__version__} is "
        f"built for {built}.\n  Install a newer driver, a torch{older}, or set "
        f'policy.device = "cpu" to train on the CPU all the same.'
    )


def _cards() -> int:
    """Return how many cards the driver lists."""
    listed = len(re.findall(r"^GPU \d+:", output("nvidia-smi", "-L"), flags=re.MULTILINE))
    return listed or len([*Path("/dev").glob("nvidia[0-9]*")])  # containers often lack nvidia-smi


def _driver() -> tuple[str, str]:
    """Return the driver's version, and the newest CUDA it runs ("" where that is not known)."""
    shown = output("nvidia-smi")
    driver = re.search(r"Driver Version:\s*([\d.]+)", shown)
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", shown)
    if driver is None:
        driver = re.search(r"Module(?: for \S+)?\s+([\d.]+)", _kernel_module())
    return driver[1] if driver else "of an unknown version", cuda[1] if cuda else ""


def _kernel_module() -> str:
    try:
        return Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return ""


def usable(name: str) -> torch.device:
    """Return the device of that name; AlignkitError if it cannot be used."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise AlignkitError(
            f"policy.device = {name!r} cannot be used here: {error}\n"
            '  Use "cpu", a CUDA device this machine has, or "auto".'
        ) from error
    return torch.device(name)
