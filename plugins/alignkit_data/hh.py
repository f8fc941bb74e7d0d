"""The table of ``hh``; how its files are read is in ``dialogues``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit import Params, RecipePath
from alignkit.protocols import Dataset
from alignkit_data import dialogues


class Hh(Params[Dataset]):
    """Pairs of a preferred and a rejected response, from dialogues of Anthropic's HH (Bai 2022).

    Bai et al. 2022, arXiv:2204.05862. Rows have ``chosen`` and ``rejected``, each a whole dialogue:
    an empty line, ``Human: …``, an empty line, ``Assistant: …``. Pairs of more than one turn are
    dropped and counted, as are those with an empty text and those that answer two different
    instructions. The question is the human's message, the answer the preferred response; the
    columns ``chosen``, ``rejected`` and ``source`` (the file) are kept.
    """

    path: RecipePath
    """A file, JSON Lines with or without gzip, or a folder with files of the split at any depth,
    such as ``harmless-base/train.jsonl.gz`` or ``harmless-base-train.jsonl.gz``."""

    split: Annotated[str, Field(min_length=1)] = "train"
    """Which files of a folder are read; a single file is read whole."""

    part: Literal["all", "train", "validation"] = "all"
    """Which of the pairs are taken: all, only those held out, or only the others."""

    validation: Annotated[int, Field(ge=1)] = 200
    """Pairs that are held out where ``part`` is not "all"."""

    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """Fixes which pairs are held out; the same in [data] and [validation]."""

    def build(self) -> Dataset:
        from alignkit.engine.seeds import shuffled

        examples = self._pairs().loaded.checked()
        if self.part == "all":
            return examples
        held_out = set(shuffled(len(examples), f"{self.seed}/validation")[: self.validation])
        wanted = self.part == "validation"
        return tuple(e for i, e in enumerate(examples) if (i in held_out) == wanted)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from self._pairs().loaded.problems()
        count = len(self._pairs().loaded.examples)
        if self.part != "all" and 0 < count <= self.validation:
            yield "validation", f"there are {count:,} pairs, so none would be left to train on"

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        pairs = self._pairs()
        count = len(pairs.loaded.examples)
        held = min(self.validation, count)
        taken = {"all": count, "train": count - held, "validation": held}[self.part]
        return {"pairs": dialogues.described(pairs, taken)}

    def _pairs(self) -> dialogues.Pairs:
        return dialogues.pairs_of(self.path, self.split)
