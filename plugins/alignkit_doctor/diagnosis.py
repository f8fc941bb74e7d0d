"""A machine and the findings about it, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from alignkit.plugins import Registry
from alignkit_doctor.engines import ways
from alignkit_doctor.findings import Finding, findings
from alignkit_doctor.fits import Fit, on_cards, on_the_cpu
from alignkit_doctor.machine import Machine, look


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What ``alignkit doctor`` reports."""

    machine: Machine
    findings: Sequence[Finding]
    fits: Sequence[Fit]
    weights: Mapping[str, str] = field(default_factory=dict)
    """How weights get to a vLLM engine and why, by ``rollout.mode``."""

    @property
    def ready(self) -> bool:
        """Whether nothing was found that stops every run."""
        return all(finding.level != "stops" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return everything as mappings and lists."""
        fits = [{**asdict(fit), "fits": fit.fits} for fit in self.fits]
        return {**asdict(self), "fits": fits, "ready": self.ready}


def of_this_machine(registry: Registry) -> Diagnosis:
    """Inspect this machine and return the findings."""
    machine = look()
    weights = ways(machine, registry)
    return Diagnosis(machine, findings(machine), fitting(machine, registry), weights)


def fitting(machine: Machine, registry: Registry) -> list[Fit]:
    """Return how recipes fit: those for cards, on the smallest card, and those for the CPU."""
    found = on_the_cpu(registry, machine.available)
    if cards := machine.cards:
        found = [*on_cards(registry, min(card.memory for card in cards), len(cards)), *found]
    return found
