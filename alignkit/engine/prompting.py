"""Examples as prompts and as rows to imitate: by a template of text, or by a chat template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from alignkit.dialogues import Converses, Ends, Message
from alignkit.engine.asking import ask
from alignkit.engine.chat import asked, chat_ids, chat_text, closes, turn_end
from alignkit.engine.chat_rows import dialogue_rows
from alignkit.engine.tokens import TrainRow, encode_prompt
from alignkit.errors import AlignkitError
from alignkit.protocols import Example, Policy, PromptTemplate

if TYPE_CHECKING:
    from collections.abc import Iterable

Reply = str | Message
"""What the assistant is to say: a text, or a message with more in it, such as calls of tools."""


def prompt_of(
    example: Example, template: PromptTemplate, policy: Policy
) -> tuple[str, tuple[int, ...]]:
    """Return the prompt for an example, as text and as the policy reads it."""
    if isinstance(template, Converses):
        before = asked(dialogue_of(example, template))
        with _named(example):
            text = chat_text(policy.tokenizer, before, template.form)
            return text, chat_ids(policy.tokenizer, before, template.form)
    _refuse_turns(example)
    text = ask("prompt template", template, template.render, example.question)
    return text, encode_prompt(policy, text)


def dialogue_of(example: Example, template: Converses) -> Sequence[Message]:
    """Return the messages of an example as the template has them."""
    return ask("prompt template", template, template.messages, example)


def reply_row(
    example: Example, reply: Reply, template: Converses, policy: Policy, *, train_end: bool
) -> TrainRow:
    """Return the dialogue of an example with one answer at its end, which alone is trained."""
    messages = dialogue_of(example, template)
    before = asked(messages)
    if isinstance(reply, str):
        own = closes(messages) and messages[-1].get("content") == reply
        reply = messages[-1] if own else {"role": "assistant", "content": reply}
    (row,) = _rows(example, [*before, reply], template, policy, len(before), train_end)
    return row


def dialogue_rows_of(
    example: Example, reply: str, template: Converses, policy: Policy, *, train_end: bool
) -> list[TrainRow]:
    """Return rows that train on all that the assistant says in the dialogue of an example.

    Where ``reply`` is another than the answer at the end of the dialogue, on that alone.
    """
    messages = dialogue_of(example, template)
    if not closes(messages) or messages[-1].get("content") != reply:
        return [reply_row(example, reply, template, policy, train_end=train_end)]
    return _rows(example, messages, template, policy, 0, train_end)


def _rows(
    example: Example,
    messages: Sequence[Message],
    template: Converses,
    policy: Policy,
    first: int,
    train_end: bool,
) -> list[TrainRow]:
    with _named(example):
        return dialogue_rows(
            policy.tokenizer, messages, template.form, first=first, train_end=train_end
        )


def end_turns(policy: Policy, templates: Iterable[object]) -> None:
    """Have responses end where a chat template ends a turn of the assistant.

    AlignkitError where the policy does not stop there and cannot be told to.
    """
    for template in templates:
        if not isinstance(template, Converses):
            continue
        end = turn_end(policy.tokenizer, template.form)
        if end.id in policy.eos_ids:
            continue
        if not isinstance(policy, Ends):
            raise AlignkitError(
                f"{policy.name} does not end a response at {end.text!r}, where the chat template "
                f"ends a turn, and the [policy] cannot be told to (end_at)"
            )
        policy.end_at((end.id,))


@contextmanager
def _named(example: Example) -> Iterator[None]:
    """Name the example in what is wrong with its dialogue."""
    try:
        yield
    except AlignkitError as error:
        raise AlignkitError(f"example {example.id!r}: {error}") from error


def _refuse_turns(example: Example) -> None:
    """A template of text shows the last question alone."""
    if any(message.get("role") == "assistant" for message in asked(example.messages)):
        raise AlignkitError(
            f"example {example.id!r} is a dialogue of several turns, of which the [prompt] shows "
            f'only the last question; use = "chat" shows all'
        )
