"""The text of responses, each cut right after the stop string that ends it.

Decoding every response at every token would cost more than a small model's forward pass. So a table
over the vocabulary records which tokens can complete a stop string at all, and only responses that
just drew such a token are decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BROKEN = "\N{REPLACEMENT CHARACTER}"  # stands for bytes that are not whole characters yet


class Texts:
    """Decodes responses of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.special = frozenset(tokenizer.all_special_ids)
        self._stops: dict[tuple[str, ...], StopStrings] = {}

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids`` without special tokens, spaces left as they are."""
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    def stops(self, stops: tuple[str, ...]) -> StopStrings | None:
        """Return a finder of ``stops``, kept for the next call; None if there are none."""
        if stops and stops not in self._stops:
            self._stops[stops] = StopStrings(self, stops)
        return self._stops.get(stops)

    @cached_property
    def pieces(self) -> list[str]:
        """Text each token adds in the middle of a response; "" for special tokens."""
        anchor = self.tokenizer.encode("a", add_special_tokens=False)[-1:]
        before = self.decode(anchor)
        joined = [self.decode([*anchor, token]) for token in range(self.vocab_size)]
        return [text.removeprefix(before) for text in joined]


class StopStrings:
    """The stop strings of one call."""

    def __init__(self, texts: Texts, stops: Sequence[str]) -> None:
        self.texts = texts
        self.stops = tuple(stops)
        self.window = 4 * max(map(len, self.stops)) + 4  # tokens; each has a byte or more

    @cached_property
    def may_end(self) -> Tensor:
        """(V,) bool on the CPU: whether a token can complete a stop string."""
        return torch.tensor([self._can_end(piece) for piece in self.texts.pieces])

    def _can_end(self, piece: str) -> bool:
        return any(
            stop in piece
            or any(piece[:k] == stop[-k:] for k in range(1, min(len(piece), len(stop)) + 1))
            or (_BROKEN in piece and not stop.isascii())
            for stop in self.stops
        )

    def cut(self, ids: Sequence[int]) -> str | None:
        """Return the text up to the stop string that the last id completed, or None.

        Of several, the one that starts first ends the text. A stop string completed by an
        earlier id does not count: it was passed over because of ``min_tokens``.
        """
        if not any(stop in self.texts.decode(self._tail(ids)) for stop in self.stops):
            return None
        text = self.texts.decode(ids)
        seen = len(self.texts.decode(ids[:-1]).rstrip(_BROKEN))
        found = [(text.find(stop, max(0, seen - len(stop) + 1)), stop) for stop in self.stops]
        ends = [(at, at + len(stop)) for at, stop in found if at >= 0]
        return text[: min(ends)[1]] if ends else None

    def _tail(self, ids: Sequence[int]) -> list[int]:
        tail: list[int] = []
        for token in reversed(ids):
            if len(tail) == self.window:
                break
            if token not in self.texts.special:
                tail.append(token)
        return tail[::-1]
