"""Packed supervised data: documents end to end, cut into equal windows."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alignkit_cs336.components import make

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Item = dict[str, Tensor]


class PackedDataset(Dataset[Item]):
    """Windows of ``seq_length`` ids and, as labels, the ids one further on."""

    def __init__(self, ids: Tensor, seq_length: int) -> None:
        self.ids = ids
        self.seq_length = seq_length

    def __len__(self) -> int:
        """Return (n - 1) // seq_length: every window needs one more id, the label of its last."""
        return max(len(self.ids) - 1, 0) // self.seq_length

    def __getitem__(self, index: int) -> Item:
        """Return ``input_ids`` and ``labels``, each (seq_length,) int64."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        start = index % len(self) * self.seq_length
        window = self.ids[start : start + self.seq_length + 1]
        return {"input_ids": window[:-1], "labels": window[1:]}


def get_packed_sft_dataset(
    tokenizer: PreTrainedTokenizerBase,
    dataset_path: str | os.PathLike[str],
    seq_length: int,
    shuffle: bool,
) -> PackedDataset:
    """Pack the rows of a JSONL file (``.gz`` too) with the keys ``prompt`` and ``response``.

    A row becomes a document in the Alpaca template, without a newline at its end, with the
    beginning-of-sequence id if the tokenizer adds one, and the end-of-sequence id. ``shuffle``
    permutes the documents, by torch's global generator.
    """
    texts = [alpaca_document(row["prompt"], row["response"]) for row in _rows(Path(dataset_path))]
    documents = [with_eos(tokenizer, text) for text in texts]
    order = torch.randperm(len(documents)).tolist() if shuffle else range(len(documents))
    ids = [token for i in order for token in documents[i]]
    return PackedDataset(torch.tensor(ids, dtype=torch.int64), seq_length)


def alpaca_document(prompt: str, response: str) -> str:
    """Return prompt and response in the Alpaca template."""
    template = make("prompt_template", "prompts/alpaca_sft")
    return f"{template.render(prompt)}\n{response}"


def with_eos(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of ``text`` as the tokenizer frames it, ended by the end-of-sequence id."""
    ids: list[int] = list(tokenizer.encode(text))
    if not isinstance(tokenizer.eos_token_id, int):
        raise ValueError("the tokenizer has no end-of-sequence token to end a document with")
    ended = ids[-1:] == [tokenizer.eos_token_id]  # some tokenizers add it themselves
    return ids if ended else [*ids, tokenizer.eos_token_id]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = json.loads(line)
                if not {"prompt", "response"} <= row.keys():
                    raise ValueError(f"{path}:{number}: a row needs 'prompt' and 'response'")
                yield row


def iterate_batches(dataset: Dataset[Item], batch_size: int, shuffle: bool) -> DataLoader[Item]:
    """Return one epoch of batches, the last partial one included; it has a length."""
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)
