"""What prevents runs on a machine and what would help them, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import requires
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import Version

from alignkit_doctor.machine import Machine

GIB = 2**30
LEAST_DISK = 2 * GIB
"""Bytes that the checkpoints of an embedded recipe need, with room to spare."""
LEAST_MEMORY = GIB
"""Bytes that torch, transformers and an embedded recipe need."""

Level = Literal["stops", "lacks", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a machine that somebody should know."""

    level: Level
    """"stops": no run can go well; "lacks": some recipes need it; "note": good to know."""
    text: str
    remedy: str = ""
    """A command, or what to do; "" = nothing is to be done."""


def findings(machine: Machine, requirements: Iterable[str] | None = None) -> list[Finding]:
    """Return the findings about ``machine``, those that would stop a run first.

    ``requirements`` are alignkit's, as its distribution lists them.
    """
    if requirements is None:
        requirements = requires("alignkit") or ()
    needed = [*map(Requirement, requirements)]
    found = [
        *_torch(machine),
        *_versions(machine, needed),
        *_broken(machine),
        *_cards(machine),
        *_room(machine),
        *_extras(machine),
        *_settings(machine),
    ]
    order: Sequence[Level] = ("stops", "lacks", "note")
    return sorted(found, key=lambda finding: order.index(finding.level))


def _torch(machine: Machine) -> Iterator[Finding]:
    if not machine.torch.version:
        why = machine.torch.error or "it is not installed"
        yield Finding("stops", f"torch does not import: {why}", "pip install alignkit")


def _versions(machine: Machine, needed: Iterable[Requirement]) -> Iterator[Finding]:
    """Yield installed packages, of extras too, in a release that alignkit does not work with."""
    for need in needed:
        have = machine.packages.get(need.name)
        if have is None or need.specifier.contains(Version(have).public, prereleases=True):
            continue
        extra = need.marker is not None and "extra" in str(need.marker)
        yield Finding(
            "lacks" if extra else "stops",
            f"{need.name} {have} is not a release that alignkit works with",
            f"pip install '{need.name}{need.specifier}'",
        )


def _broken(machine: Machine) -> Iterator[Finding]:
    for name, error in machine.torch.broken.items():
        yield Finding(
            "lacks",
            f"{name} {machine.packages.get(name, '')} does not import: {error}",
            f"pip uninstall {name}, or install a build for torch {machine.torch.version}",
        )


def _cards(machine: Machine) -> Iterator[Finding]:
    """Yield why torch sees no card though there are some, or fewer than there are."""
    torch, hidden = machine.torch, machine.settings.get("CUDA_VISIBLE_DEVICES")
    if not torch.version or not machine.listed or len(torch.cards) == len(machine.listed):
        return
    count = f"nvidia-smi lists {len(machine.listed)} card{'s' * (len(machine.listed) > 1)}"
    if hidden is not None:
        yield Finding(
            "note", f"{count} and torch sees {len(torch.cards)}: CUDA_VISIBLE_DEVICES={hidden}"
        )
    elif torch.cards:
        yield Finding("note", f"{count} and torch sees {len(torch.cards)}")
    else:
        yield _unseen(machine, f"{count} and torch sees none")


def _unseen(machine: Machine, count: str) -> Finding:
    """Return why no card is seen: the driver's release and torch's are both named."""
    torch, driver = machine.torch, f"driver {machine.driver}"
    if machine.driver_cuda:
        driver += f" (CUDA {machine.driver_cuda} at most)"
    if torch.cuda is None:
        return Finding(
            "stops",
            f"{count}: torch {torch.version} is a build for CPUs; {driver}",
            "pip install --force-reinstall torch, a build with CUDA",
        )
    both = f"torch {torch.version} was built with CUDA {torch.cuda}, {driver}"
    if machine.driver_cuda and Version(machine.driver_cuda) < Version(torch.cuda):
        return Finding(
            "stops",
            f"{count}: the driver is older than torch's CUDA; {both}",
            f"a driver for CUDA {torch.cuda}, or a build of torch for CUDA {machine.driver_cuda}",
        )
    why = f" ({torch.why_none})" if torch.why_none else ""
    return Finding("stops", f"{count}: {both}{why}", "nvidia-smi and the driver's log tell more")


def _room(machine: Machine) -> Iterator[Finding]:
    if machine.disk < LEAST_DISK:
        yield Finding(
            "stops",
            f"{machine.disk / GIB:.1f} GiB of disk are free here; checkpoints need more",
            "free some, or run where --out names a folder on another disk",
        )
    if machine.available < LEAST_MEMORY:
        yield Finding(
            "stops",
            f"{machine.available / GIB:.1f} of {machine.memory / GIB:.1f} GiB of memory are "
            "available; torch and a small model need 1 GiB",
            "end what else runs, or ask for a larger container",
        )


def _extras(machine: Machine) -> Iterator[Finding]:
    """Yield optional packages that recipes for this machine would use."""
    have = machine.packages
    if not machine.listed and not machine.cards:
        yield Finding("note", "no NVIDIA card: recipes/scale needs one, the other recipes do not")
        return
    if "vllm" not in have:
        yield Finding("lacks", "vLLM is not installed; recipes/scale samples with it",
                      "pip install 'alignkit[vllm]'")  # fmt: skip
    if "bitsandbytes" not in have:
        yield Finding("lacks", 'bitsandbytes is not installed; implementation = "8bit" needs it',
                      "pip install 'alignkit[8bit]'")  # fmt: skip


def _settings(machine: Machine) -> Iterator[Finding]:
    if machine.offline:
        yield Finding("note", "HF_HUB_OFFLINE is set: models and data sets must be in the cache")
    if machine.quota is not None and machine.usable < machine.cores:
        yield Finding(
            "note",
            f"the container has the time of {machine.quota:g} of {machine.cores} cores: "
            f"{machine.usable} threads are started",
        )
