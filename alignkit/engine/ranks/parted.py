"""Tensors cut over ranks in a checkpoint, by ``torch.distributed.checkpoint``.

Every rank writes its parts to files of its own, in torch's safetensors format: a file's header says
where in each tensor its parts begin (``HuggingFaceStorageWriter``). torch's usual format is not
used, as its index is a pickle; and no ranks talk in torch's name while they write or read
(``no_dist``), as what it sends is pickled, and waits for a rank that is gone. Any number of ranks
can read the files, and one process.

Joining the parts on rank 0 instead took 10.1 s and 325 MB there, against 3.7 s and 16 MB in files
of 16 MB: 311 MB of weights and AdamW's means, two processes with gloo on one machine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.tensor import DTensor

from alignkit.engine.ranks import here
from alignkit.engine.ranks.pulse import OtherRankFailed
from alignkit.engine.ranks.shards import PARTS
from alignkit.footprint import FILE
from alignkit.lifecycle.files import file_sum, sync_folder


class _Writer(HuggingFaceStorageWriter):
    """Writes one file of one rank."""

    def __init__(self, folder: Path, number: int, names: Mapping[str, Tensor]) -> None:
        super().__init__(str(folder), dict.fromkeys(names, number), save_distributed=True)

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Name the file by this rank; torch takes a writer without others for the first rank."""
        rank = here().rank + 1
        return [
            replace(plan, storage_data={**plan.storage_data, "shard_index": rank})
            for plan in super().prepare_global_plan(plans)
        ]


class Parts:
    """A checkpoint's tensors that are cut, written by all ranks to the folder that rank 0 makes."""

    def __init__(self, tensors: Mapping[str, DTensor]) -> None:
        """Take what every rank calls by the same names."""
        self._tensors, self._begun = tensors, False

    @contextmanager
    def led(self) -> Iterator[Callable[[Path], dict[str, dict[str, Any]]]]:
        """On rank 0: give what has all ranks write to a folder; see :meth:`_lead`.

        If the block ends before there is one, the others are told.
        """
        try:
            yield self._lead
        finally:
            if not self._begun:
                here().first("")

    def _lead(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Return size and sum of each file that the ranks wrote; OSError if one of them cannot."""
        (folder / PARTS).mkdir()
        self._begun = True
        return self._write(here().first(str(folder)))

    def follow(self) -> None:
        """On another rank: write to the folder that rank 0 names; OtherRankFailed if it cannot."""
        folder = here().first("")
        if not folder:
            raise OtherRankFailed("rank 0 cannot write a checkpoint")
        try:
            self._write(folder)
        except OSError as error:
            raise OtherRankFailed(f"a checkpoint cannot be written: {error.strerror}") from error

    def _write(self, folder: str) -> dict[str, dict[str, Any]]:
        problem, sums = None, {}
        try:
            sums = _save(Path(folder), self._tensors)
        except OSError as error:
            problem = (error.errno, error.strerror)
        found = here().gather((problem, sums))
        for rank, (failed, _) in enumerate(found):
            if failed:
                raise OSError(failed[0], f"{failed[1]} (rank {rank})")
        return {name: facts for _, own in found for name, facts in own.items()}


def _save(folder: Path, tensors: Mapping[str, DTensor]) -> dict[str, dict[str, Any]]:
    """Write this rank's parts; return size and sum of each file, by its name in ``folder``."""
    place = folder / PARTS
    own = {name: tensor for name, tensor in tensors.items() if _is_first(tensor)}
    for number, names in enumerate(_files(own), 1):
        with _torchs_errors():
            dcp_save(dict(names), storage_writer=_Writer(place, number, names), no_dist=True)
    mine = sorted(place.glob(f"shard-{here().rank + 1:05}-*"))
    for path in [*mine, place]:
        sync_folder(path)
    return {
        f"{PARTS}/{path.name}": {"size": path.stat().st_size, "sha256": file_sum(path)}
        for path in mine
    }


def _is_first(tensor: DTensor) -> bool:
    """Whether this rank holds a part, and is on the first of the nodes that do."""
    mesh = tensor.device_mesh
    return tensor.to_local().numel() > 0 and (mesh.ndim == 1 or mesh.get_local_rank(0) == 0)


def _files(tensors: Mapping[str, DTensor]) -> Iterator[dict[str, DTensor]]:
    """Yield the tensors in groups of which this rank has ``FILE`` bytes at most, or of one."""
    group: dict[str, DTensor] = {}
    size = 0
    for name, tensor in tensors.items():
        own = tensor.to_local().nbytes
        if group and size + own > FILE:
            yield group
            group, size = {}, 0
        group[name] = tensor
        size += own
    if group:
        yield group


def load(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Read tensors whole, or this rank's parts of those that are cut, into their memory."""
    with _torchs_errors():
        reader = HuggingFaceStorageReader(str(folder))
        dcp_load(dict(into), storage_reader=reader, no_dist=True)


@contextmanager
def _torchs_errors() -> Iterator[None]:
    """Raise what torch wraps, and keep its remark that there is one process to itself."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    except CheckpointException as wrapped:
        raise next(iter(wrapped.failures.values()))[0] from None
