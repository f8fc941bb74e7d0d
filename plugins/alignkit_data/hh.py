"""The table of ``hh``; how its files are read is in ``dialogues``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from alignkit import AlignkitError, Params
from alignkit.component import PathOrName
from alignkit.protocols import Dataset
from alignkit_data import dialogues, hub
from alignkit_data.source import as_text


class Hh(Params[Dataset]):
    """Pairs of a preferred and a rejected response, from dialogues of Anthropic's HH (Bai 2022).

    Bai et al. 2022, arXiv:2204.05862. Rows have ``chosen`` and ``rejected``, each a whole dialogue:
    an empty line, ``Human: …``, an empty line, ``Assistant: …``. Pairs of more than one turn are
    dropped and counted, as are those with an empty text and those that answer two different
    instructions. The question is the human's message, the answer the preferred response; the
    columns ``chosen``, ``rejected`` and ``source`` (the file) are kept.
    """

    path: Annotated[PathOrName, BeforeValidator(as_text)]
    """A file, JSON Lines with or without gzip, or a folder with files of the split at any depth,
    such as ``harmless-base/train.jsonl.gz`` or ``harmless-base-train.jsonl.gz``. On the Hub: a data
    set's name, such as ``Anthropic/hh-rlhf``, or one of its files,
    ``hf://datasets/OWNER/NAME/FILE``, with ``NAME@REVISION`` for a fixed version."""

    split: Annotated[str, Field(min_length=1)] = "train"
    """Which files of a folder or data set are read; a single file is read whole."""

    part: Literal["all", "train", "validation"] = "all"
    """Which of the pairs are taken: all, only those held out, or only the others."""

    validation: Annotated[int, Field(ge=1)] = 200
    """Pairs that are held out where ``part`` is not "all"."""

    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """Fixes which pairs are held out; the same in [data] and [validation]."""

    def build(self) -> Dataset:
        from alignkit.engine.seeds import shuffled

        examples = self._pairs().loaded.checked()
        if self.part != "all" and len(examples) <= self.validation:
            raise AlignkitError(f"{self.path}: {self._none_left(len(examples))}")
        if self.part == "all":
            return examples
        held_out = set(shuffled(len(examples), f"{self.seed}/validation")[: self.validation])
        wanted = self.part == "validation"
        return tuple(e for i, e in enumerate(examples) if (i in held_out) == wanted)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if not self._local:
            if hub.is_no_name(self.path):
                yield "path", f"no such file or folder: {self.path}"
            return
        yield from self._pairs().loaded.problems()
        count = len(self._pairs().loaded.examples)
        if self.part != "all" and 0 < count <= self.validation:
            yield "validation", self._none_left(count)

    def missing(self) -> Iterable[str]:
        return () if self._local else hub.client_missing(self.path)

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        if not self._local:
            part = "" if hub.FILE.fullmatch(self.path) else f"{self.split} of "
            return {"pairs": f"{part}{self.path} on the Hub"}
        pairs = self._pairs()
        count = len(pairs.loaded.examples)
        held = min(self.validation, count)
        taken = {"all": count, "train": count - held, "validation": held}[self.part]
        return {"pairs": dialogues.described(pairs, taken)}

    @property
    def _local(self) -> bool:
        """Whether the pairs can be read here and now."""
        return Path(self.path).exists()

    def _pairs(self) -> dialogues.Pairs:
        path = Path(self.path)
        return dialogues.pairs_of(*((path, self.split) if self._local else self._fetched()))

    def _fetched(self) -> tuple[Path, str, Path]:
        path, root = hub.copy_of(self.path)
        if not dialogues.files_of(path, self.split):
            files = f"{self.split}.jsonl.gz or NAME-{self.split}.jsonl.gz"
            raise AlignkitError(f"{self.path}: the data set on the Hub holds no {files}")
        return path, self.split, root

    def _none_left(self, count: int) -> str:
        return f"there are {count:,} pairs, so none would be left to train on"
