"""Dialogues as rows to learn from: the assistant's turns are trained, and nothing else.

Each turn follows what the model saw when it was to be written. See :mod:`alignkit.engine.chat`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alignkit.dialogues import ChatFormat, Message
from alignkit.engine.chat import (
    PLAIN,
    TurnEnd,
    apply,
    chat_ids,
    chat_text,
    difference,
    ids_after,
    turn_end,
    up_to_end,
)
from alignkit.engine.chat_template import GENERATION, template_of
from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(slots=True)
class _Open:
    """A row that further turns may be added to."""

    prompt: tuple[int, ...]
    text: str
    """What the ids stand for, up to the end of the last turn."""
    turn: int
    """Number of messages up to the last turn."""
    ids: list[int] = field(default_factory=list)
    given: list[bool] = field(default_factory=list)

    def add(self, ids: Sequence[int], *, given: bool) -> None:
        self.ids += ids
        self.given += [given] * len(ids)


def dialogue_rows(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    form: ChatFormat = PLAIN,
    *,
    first: int = 0,
    train_end: bool = True,
) -> list[TrainRow]:
    """Return rows that train on the assistant's turns among ``messages[first:]`` and nothing else.

    One row where the template writes earlier turns the same in each prompt, and else one for each
    stretch in which it does: a turn follows what the model saw. Of a template with
    ``{% generation %}`` blocks, only what stands in them is trained. The token that ends a turn is
    trained with ``train_end``, and else only read. AlignkitError, with the message named, where the
    template does not write a turn behind the prompt for it.
    """
    end = turn_end(tokenizer, form)
    rows: list[_Open] = []
    for turn in range(first, len(messages)):
        if messages[turn].get("role") == "assistant":
            _add_turn(rows, tokenizer, messages[: turn + 1], form, end)
    if not rows:
        raise AlignkitError("the dialogue holds no turn of the assistant to learn from")
    marked = GENERATION.search(template_of(tokenizer, form)) is not None
    for row in rows:
        if marked:
            _restrict(row, tokenizer, messages[: row.turn], form, end)
        if not train_end:
            row.given = [g or i == end.id for g, i in zip(row.given, row.ids, strict=True)]
    return [_closed(row) for row in rows]


def _add_turn(
    rows: list[_Open],
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    form: ChatFormat,
    end: TurnEnd,
) -> None:
    """Add the last of ``messages`` to the last row, or as a row of its own."""
    turn = len(messages) - 1
    prompt = chat_text(tokenizer, messages[:-1], form)
    head = up_to_end(chat_text(tokenizer, messages, form, prompt=False), end, turn)
    if not head.startswith(prompt):
        head = _behind_thought(prompt, head, messages[-1], end, turn)
    if rows and prompt.startswith(rows[-1].text):
        row = rows[-1]
        row.add(ids_after(tokenizer, row.text, prompt[len(row.text) :], end), given=True)
    else:
        row = _Open(chat_ids(tokenizer, messages[:-1], form), prompt, turn)
        rows.append(row)
    row.add(ids_after(tokenizer, prompt, head[len(prompt) :], end), given=False)
    row.text, row.turn = head, turn + 1


def _behind_thought(prompt: str, head: str, message: Message, end: TurnEnd, turn: int) -> str:
    """Return the dialogue up to the end of a turn whose thought the prompt opened.

    Such a template writes a turn that is over without its thought. The model wrote it: the message
    goes on where the prompt ends. AlignkitError for a message that does not hold what was opened.
    """
    said = str(message.get("content"))
    opened = next((n for n in range(len(said), 0, -1) if prompt.endswith(said[:n])), 0)
    if not said[:opened].strip() or not head.startswith(prompt[: len(prompt) - opened]):
        raise AlignkitError(
            f"message {turn + 1}, the assistant's, does not follow the prompt for it in the chat "
            f"template, so the model cannot have written it: {difference(prompt, head)}"
        )
    return prompt + said[opened:] + end.text


def _restrict(
    row: _Open,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    form: ChatFormat,
    end: TurnEnd,
) -> None:
    """Train only on the template's ``{% generation %}`` blocks, and on the ends of turns.

    A row whose ids are not those of the dialogue tokenized as a whole, since a token would reach
    over a border, stays as it is.
    """
    whole = apply(
        tokenizer,
        messages,
        form,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    start, stop = len(row.prompt), len(row.prompt) + len(row.ids)
    if tuple(whole["input_ids"][:stop]) != (*row.prompt, *row.ids):
        return
    generated = whole["assistant_masks"][start:stop]
    row.given = [
        given or not (mask or id == end.id)
        for given, mask, id in zip(row.given, generated, row.ids, strict=True)
    ]


def _closed(row: _Open) -> TrainRow:
    """Return the row up to its last trained token."""
    if all(row.given):
        raise AlignkitError(
            f"message {row.turn}, the assistant's, holds nothing to train on by the chat template"
        )
    size = len(row.given) - row.given[::-1].index(False)
    given = tuple(row.given[:size])
    return TrainRow(row.prompt, tuple(row.ids[:size]), given=given if any(given) else None)
