"""From a row with a dialogue to an :class:`~alignkit.protocols.Example`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignkit.data_files.columns import answers_of, bad, text_of, value_of
from alignkit.data_files.dialogues import messages_of, raw_messages
from alignkit.data_files.records import Row
from alignkit.protocols import Example

COLUMNS = ("messages", "conversations", "prompt")
"""Where a dialogue is looked for, unless the recipe names its column."""
PAIR = ("chosen", "rejected")

Messages = tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A dialogue to answer or to imitate, or one with two answers of which one is preferred."""

    messages: str
    """Column with the dialogue; "" = the first of ``COLUMNS`` that holds one."""
    answer: str
    """Column with the gold answer; "" = none but the dialogue's own."""
    id: str | None = None

    def __call__(self, row: Row) -> Example:
        column = self.messages or next((c for c in COLUMNS if c in row.values), "")
        paired = all(name in row.values for name in PAIR)
        more: dict[str, Any] = {}
        if paired:
            messages, more = _pair(row, column)
        elif column:
            messages = _opened(row, column)
        else:
            there = ", ".join(row.values) or "none"
            looked = ", ".join((*COLUMNS, *PAIR))
            raise bad(
                row, "messages", f"no column with a dialogue ({looked}); columns there: {there}"
            )
        closing = messages[-1]["content"] if messages[-1]["role"] == "assistant" else None
        answer, *others = self._answers(row, closing, paired)
        used = {column, self.answer, self.id} | ({*PAIR} if paired else set())
        used |= {"completion"} if column == "prompt" else set()
        return Example(
            id=row.name if self.id is None else text_of(row, self.id, "id"),
            question=_question(row, messages),
            answer=answer,
            extra={k: v for k, v in row.values.items() if k not in used} | more,
            also_accepted=tuple(others),
            messages=messages,
        )

    def _answers(self, row: Row, closing: str | None, paired: bool) -> Sequence[str]:
        """Return the gold answers: those of their column, or else what the assistant says last."""
        if self.answer in row.values and not paired:
            return answers_of(row, self.answer, "answer")
        if closing is None and self.answer:
            raise bad(
                row,
                "answer",
                f"no column {self.answer!r}, and the dialogue ends before the assistant answers; "
                f'if nothing needs an answer: answer = ""',
            )
        return (closing or "",)


def _opened(row: Row, column: str) -> Messages:
    """Return the dialogue in a column, or the question there as one, with a completion behind."""
    if raw_messages(value_of(row.values, column)) is None and column == "prompt":
        messages: Messages = ({"role": "user", "content": text_of(row, column, "messages")},)
    else:
        messages = messages_of(row, column, "messages")
    if column != "prompt" or "completion" not in row.values:
        return messages
    return messages + _said(row, "completion")


def _said(row: Row, column: str) -> Messages:
    """Return the dialogue in a column, or the answer there as the assistant's message."""
    if raw_messages(value_of(row.values, column)) is not None:
        return messages_of(row, column, "messages")
    return ({"role": "assistant", "content": text_of(row, column, "messages")},)


def _pair(row: Row, column: str) -> tuple[Messages, dict[str, Any]]:
    """Return the dialogue with the chosen answer, and both answers by their columns."""
    before = _opened(row, column) if column else ()
    chosen, rejected = (_behind(before, _said(row, name)) for name in PAIR)
    same = chosen[:-1] == rejected[:-1] and len(chosen) > 1
    if not same or {chosen[-1]["role"], rejected[-1]["role"]} != {"assistant"}:
        raise bad(
            row,
            "messages",
            "the columns 'chosen' and 'rejected' must be equal but for the assistant's answer at "
            "their end; what both answer stands in them or in 'prompt'",
        )
    answers = zip(PAIR, (chosen[-1], rejected[-1]), strict=True)
    return chosen, {name: _plain(message) for name, message in answers}


def _behind(before: Messages, said: Messages) -> Messages:
    """Return a whole dialogue of what may hold it or go on with it."""
    whole = said[: len(before)] == before and len(said) > len(before)
    return said if whole else before + said


def _plain(message: Mapping[str, Any]) -> str | Mapping[str, Any]:
    """Return the text of a message that holds nothing else."""
    return str(message["content"]) if message.keys() == {"role", "content"} else message


def _question(row: Row, messages: Messages) -> str:
    """Return what the user said last, behind the system's words where that is all there is."""
    asked = [m["content"] for m in messages if m["role"] == "user"]
    if not asked:
        raise bad(row, "messages", "the dialogue holds no message of the user")
    told = messages[0]["content"] if messages[0]["role"] in ("system", "developer") else ""
    return f"{told}\n\n{asked[-1]}" if told and len(asked) == 1 else str(asked[-1])
