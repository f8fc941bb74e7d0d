"""Learning from given responses: shared by fine-tuning, expert iteration and preferences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from alignkit.data_files.columns import MISSING, half_surrogate, value_of
from alignkit.dialogues import Converses
from alignkit.engine.prompting import Reply, dialogue_rows_of, prompt_of, reply_row
from alignkit.engine.seeds import shuffled
from alignkit.engine.tokens import TrainRow, encode_response
from alignkit.errors import AlignkitError
from alignkit.protocols import Example, LossInputs, LossOutput, Policy, PromptTemplate

Eos = Literal["auto", "always", "never"]


def nll(x: LossInputs) -> LossOutput:
    """Negative log-likelihood per response token, (B, T); prompts and padding have no loss."""
    return LossOutput(per_token=-x.logprobs, metrics={"nll": -x.logprobs.detach()})


def column(example: Example, name: str) -> str:
    """Return a column of the example as text; "" names its answer. AlignkitError if absent.

    Dots lead into objects, as in the columns that data sets read.
    """
    if not name:
        return _only_answer(example)
    value = value_of(example.extra, name)
    if not isinstance(value, str) or not value.strip():
        have = ", ".join(sorted(example.extra)) or "none besides question and answer"
        got = "no such column" if value is MISSING else f"{value!r:.80}"
        raise AlignkitError(
            f"example {example.id!r}: column {name!r} must hold a text, got {got}; "
            f"columns of this row: {have}"
        )
    if half_surrogate(value):
        raise AlignkitError(
            f"example {example.id!r}: column {name!r} holds half of a surrogate pair; repair the "
            f"text or drop the row"
        )
    return value


def _only_answer(example: Example) -> str:
    if example.also_accepted:
        raise AlignkitError(
            f"example {example.id!r} holds {1 + len(example.also_accepted)} answers, any of which "
            f"is right; name the column with the one to imitate"
        )
    return example.answer


def reply(example: Example, name: str) -> Reply:
    """Return a column of the example as :func:`column` does, or the message that it holds."""
    value = example.extra.get(name)
    return value if isinstance(value, Mapping) and "role" in value else column(example, name)


def supervised_rows(
    example: Example, response: str, template: PromptTemplate, policy: Policy, eos: Eos
) -> list[TrainRow]:
    """Return what there is to imitate in an example: its response, or all answers of a dialogue.

    A dialogue gives one row for each stretch that a chat template leaves unchanged; see
    :func:`~alignkit.engine.chat_rows.dialogue_rows`.
    """
    if isinstance(template, Converses):
        end = eos != "never"
        return dialogue_rows_of(example, response, template, policy, train_end=end)
    return [supervised_row(example, response, template, policy, eos)]


def supervised_row(
    example: Example, response: Reply, template: PromptTemplate, policy: Policy, eos: Eos
) -> TrainRow:
    """Tokenize a prompt and the given response that follows it, and end the response.

    With ``eos`` "auto" the end-of-sequence id is added unless the response already ends in a stop
    string of the template, which is what will end it when it is sampled. A chat template ends the
    response itself; with "never" that end is not trained on.
    """
    if isinstance(template, Converses):
        return reply_row(example, response, template, policy, train_end=eos != "never")
    if not isinstance(response, str):
        raise AlignkitError(
            f"example {example.id!r}: the response is a message that holds more than text, which "
            f'takes [prompt] use = "chat"'
        )
    prompt, prompt_ids = prompt_of(example, template, policy)
    ids = encode_response(policy.tokenizer, prompt, response)
    stops = tuple(template.stop)
    ends_itself = bool(stops) and response.rstrip().endswith(stops)
    if eos == "always" or (eos == "auto" and not ends_itself):
        ids = (*ids, eos_id(policy))
    return TrainRow(prompt_ids, ids)


def eos_id(policy: Policy) -> int:
    """Return the id to end responses with: the tokenizer's if the model stops there."""
    own = policy.tokenizer.eos_token_id
    if isinstance(own, int) and (own in policy.eos_ids or not policy.eos_ids):
        return own
    if not policy.eos_ids:
        raise AlignkitError(
            f'{policy.name} has no end-of-sequence id to append; set append_eos = "never"'
        )
    return min(policy.eos_ids)


def steps_in(rows: int, batch_size: int, epochs: int) -> int:
    """Return the optimizer steps of ``epochs`` passes, a partial batch ending each."""
    return math.ceil(rows / batch_size) * epochs


class Epochs:
    """Batches of row numbers by the batch's number, so that no position has to be saved.

    Each epoch is a fresh order by ``key``, or with ``shuffle`` False the given one. Every row comes
    once an epoch: if the batch size does not divide the rows, the last batch of an epoch is
    smaller, and not filled up from the next.
    """

    def __init__(self, rows: int, batch_size: int, key: str, *, shuffle: bool = True) -> None:
        self.rows, self.batch_size, self.key, self.shuffle = rows, batch_size, key, shuffle
        self._order: tuple[int, list[int]] = (-1, [])

    def batch(self, number: int) -> tuple[int, list[int]]:
        """Return (epoch from 1, row numbers) of batch ``number`` from 0."""
        epoch, place = divmod(number, steps_in(self.rows, self.batch_size, 1))
        if self._order[0] != epoch:
            key = f"{self.key}/{epoch}"
            order = shuffled(self.rows, key) if self.shuffle else list(range(self.rows))
            self._order = (epoch, order)
        start = place * self.batch_size
        return epoch + 1, self._order[1][start : start + self.batch_size]
