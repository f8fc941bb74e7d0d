"""One row of a dataset, as every component receives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a dataset."""

    id: str
    """Unique within its dataset and stable between runs."""
    question: str
    """The problem as the prompt template receives it."""
    answer: str
    """The gold answer the reward compares with (for SFT: the response to imitate)."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Every other column of the row, untouched."""
    also_accepted: tuple[str, ...] = ()
    """Further answers that count as right, where the data name several."""
    messages: tuple[Mapping[str, Any], ...] = ()
    """The dialogue, if the row is one, with the assistant's last turn if the row has it.
    ``question`` is then the user's last message, ``answer`` the assistant's."""

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers that count as right; ``answer`` is the first."""
        return (self.answer, *self.also_accepted)
