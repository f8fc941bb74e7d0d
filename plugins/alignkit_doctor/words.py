"""A diagnosis in words and tables."""

from __future__ import annotations

from collections.abc import Iterator

from alignkit.text_table import aligned
from alignkit_doctor.diagnosis import Diagnosis
from alignkit_doctor.findings import Finding
from alignkit_doctor.fits import Fit
from alignkit_doctor.machine import Card, Machine

HEADS = {"stops": "STOPS A RUN", "lacks": "MISSING", "note": "NOTE"}


def report(found: Diagnosis) -> str:
    """Return what the machine has, then the findings, and a last line that sums them up."""
    parts = [aligned(("THIS MACHINE", ""), list(_rows(found.machine)))]
    if found.fits:
        heads = ("RECIPE", "FITS", "NEEDS", "HAS", "ON")
        parts.append(aligned(heads, [_fit(fit) for fit in found.fits]))
    if found.weights:
        rows = [(f'mode = "{mode}"', way) for mode, way in found.weights.items()]
        parts.append(aligned(("WEIGHTS TO VLLM", "GO BY"), rows))
    if found.findings:
        parts.append("\n".join(line for each in found.findings for line in _lines(each)))
    stops = sum(finding.level == "stops" for finding in found.findings)
    told = f"{stops} thing{'s' * (stops > 1)} would stop a run" if stops else "ready"
    return "\n\n".join([*parts, told])


def _rows(machine: Machine) -> Iterator[tuple[str, str]]:
    """Yield what the machine has: name, value."""
    cuda = f", CUDA {machine.driver_cuda} at most" if machine.driver_cuda else ""
    yield "NVIDIA driver", f"{machine.driver}{cuda}" if machine.driver else "none"
    for number, card in enumerate(machine.listed or machine.cards):  # containers without nvidia-smi
        yield f"card {number}", _card(card)
    yield "torch", _torch(machine)
    for name, version in machine.packages.items():
        if name != "torch":
            yield name, version
    cores = f"{machine.usable} of {machine.cores} cores"
    yield "processor", f"{machine.cpu}, {cores}"
    yield "memory", f"{gb(machine.available)} of {gb(machine.memory)} available"
    yield "disk", f"{gb(machine.disk)} free here, {gb(machine.cache_disk)} where models are kept"
    yield "Hub", "not to be asked (HF_HUB_OFFLINE)" if machine.offline else "may be asked"
    yield from machine.settings.items()


def _card(card: Card) -> str:
    free = f", {gb(card.free)} free" if card.free is not None else ""
    return f"{card.name}, {gb(card.memory)}{free}"


def _torch(machine: Machine) -> str:
    torch = machine.torch
    if not torch.version:
        return "does not import"
    built = f"built with CUDA {torch.cuda}" if torch.cuda else "built for CPUs"
    seen = len(torch.cards)
    return f"{torch.version}, {built}, sees {seen or 'no'} card{'s' * (seen != 1)}"


def _fit(fit: Fit) -> tuple[str, ...]:
    """Return the cells of one recipe."""
    cards = f"{fit.cards} card{'s' * (fit.cards > 1)}" if fit.cards else "CPU"
    lacking = "" if fit.enough else ", not so many here"
    return fit.recipe, "yes" if fit.fits else "no", gb(fit.needs), gb(fit.has), cards + lacking


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{HEADS[finding.level]}: {finding.text}"
    if finding.remedy:
        yield f"    {finding.remedy}"


def gb(size: float) -> str:
    """Return bytes in units of 10^9.

    >>> gb(24.06e9)
    '24.1 GB'
    """
    return f"{size / 1e9:.1f} GB"
