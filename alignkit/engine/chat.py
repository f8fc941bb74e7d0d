"""Dialogues as token ids, by the chat template of a tokenizer.

Messages are mappings with ``role`` and ``content``, as ``apply_chat_template`` of transformers
takes them. A turn of the assistant is what the template writes behind the prompt for it, up to and
with the token that ends a turn. Its ids are what the policy would have sampled: prompt and turn are
tokenized apart, and what was tokenized once is never tokenized again.

Templates may rewrite what was said before, as those of thinking models do, which drop old thoughts.
Where that happens the ids of a dialogue do not grow from turn to turn: :func:`continuation` refuses
it, and :func:`~alignkit.engine.chat_rows.dialogue_rows` starts another row, so that each turn
follows what the model saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignkit.dialogues import ChatFormat, Message
from alignkit.engine.chat_template import arguments_for, template_of
from alignkit.engine.tokens import encode, encode_response
from alignkit.errors import AlignkitError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = ChatFormat()
"""The tokenizer's own template, without tools or arguments."""

_MARK = "words-of-the-assistant"


def chat_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    form: ChatFormat = PLAIN,
    *,
    prompt: bool = True,
) -> str:
    """Return the text of ``messages``, with ``prompt`` up to where the assistant's turn begins.

    AlignkitError where the template refuses the messages.
    """
    text = apply(tokenizer, messages, form, add_generation_prompt=prompt, tokenize=False)
    return str(text)


def chat_ids(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    form: ChatFormat = PLAIN,
    *,
    prompt: bool = True,
) -> tuple[int, ...]:
    """Return the ids of ``messages``, exactly those of the tokenizer's ``apply_chat_template``."""
    found = apply(
        tokenizer, messages, form, add_generation_prompt=prompt, tokenize=True, return_dict=False
    )
    return tuple(found)


def apply(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    form: ChatFormat,
    **how: Any,
) -> Any:
    """Call the tokenizer; whatever its template raises becomes an AlignkitError."""
    template = template_of(tokenizer, form)
    arguments = arguments_for(template, form)
    try:
        return tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in form.tools] or None,
            chat_template=template,
            **how,
            **arguments,
        )
    except Exception as error:  # a template may fail in any way
        roles = ", ".join(str(message.get("role")) for message in messages) or "none"
        raise AlignkitError(
            f"the chat template cannot write a dialogue of the roles {roles}: {error}"
        ) from error


# ---------------------------------------------------------------- the end of a turn


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The token that ends a turn of the assistant."""

    id: int
    text: str


def turn_end(tokenizer: PreTrainedTokenizerBase, form: ChatFormat = PLAIN) -> TurnEnd:
    """Return the token that the template writes behind what the assistant says.

    AlignkitError where there is none: nothing would end a sampled turn.
    """
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
    behind = chat_text(tokenizer, messages, form, prompt=False).rpartition(_MARK)[2]
    known = tokenizer.added_tokens_decoder
    first = next((i for i in encode(tokenizer, behind) if i in known), None)
    if first is None or behind.partition(str(known[first]))[0].strip():
        raise AlignkitError(
            f"the chat template writes {behind[:40]!r} behind what the assistant says, which does "
            f"not begin with a special token of the tokenizer, so nothing would end a sampled "
            f'turn; give a template that ends turns with one: [prompt] template = "FILE"'
        )
    return TurnEnd(first, str(known[first]))


def closes(messages: Sequence[Message]) -> bool:
    """Whether the assistant has the last word."""
    return bool(messages) and messages[-1].get("role") == "assistant"


def asked(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages up to the last that is not the assistant's: what it is to answer."""
    end = len(messages)
    while closes(messages[:end]):
        end -= 1
    return tuple(messages[:end])


# ---------------------------------------------------------------- from turn to turn


def continuation(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    before: Sequence[Message],
    after: Sequence[Message],
    form: ChatFormat = PLAIN,
) -> tuple[int, ...]:
    """Return the ids that lead from the assistant's turn to its next one.

    ``ids`` is the dialogue so far, prompt and sampled turn, with the token that ends the turn
    unless it was cut; ``before`` are its messages, the last one that turn, and ``after`` are these
    with those that came since. The ids returned follow ``ids``, which stay as they are. They hold
    the end of a turn that was cut. AlignkitError where the template now writes the dialogue so far
    otherwise: the ids would no longer be what it says.
    """
    if not closes(before) or [*after[: len(before)]] != [*before] or len(after) == len(before):
        raise ValueError("`before` must end with the assistant's turn, and `after` begin with it")
    end = turn_end(tokenizer, form)
    whole = chat_text(tokenizer, after, form)
    head = up_to_end(chat_text(tokenizer, before, form, prompt=False), end, len(before) - 1)
    seen = chat_text(tokenizer, before[:-1], form) + str(before[-1].get("content")) + end.text
    if not whole.startswith((head, seen)):
        raise AlignkitError(
            f"message {len(before)}, the assistant's, is written otherwise once {len(after)} "
            f"messages are there, so the dialogue does not grow from turn to turn. The chat "
            f"template rewrites it, as those of thinking models do with old thoughts: "
            f'{difference(head, whole)}; give a template that does not: [prompt] template = "FILE"'
        )
    head = head if whole.startswith(head) else seen
    if not ids or ids[-1] != end.id:
        head = head[: -len(end.text)]
    return ids_after(tokenizer, head, whole[len(head) :], end)


def ids_after(
    tokenizer: PreTrainedTokenizerBase, head: str, tail: str, end: TurnEnd
) -> tuple[int, ...]:
    """Return the ids of ``tail`` as it follows ``head``, whose ids stay what they are.

    Of ``head`` no more is tokenized than what follows the last turn: a special token parts texts.
    """
    head = head[max(head.rfind(end.text), 0) :]
    first, both = encode(tokenizer, head), encode(tokenizer, head + tail)
    if both[: len(first)] == first:
        return both[len(first) :]
    return encode_response(tokenizer, head, tail)


def up_to_end(text: str, end: TurnEnd, turn: int) -> str:
    """Cut what the template writes behind the end of the last turn."""
    head, mark, _ = text.rpartition(end.text)
    if not mark:
        raise AlignkitError(
            f"message {turn + 1}: the chat template does not end the assistant's turn with "
            f"{end.text!r}, as it does elsewhere"
        )
    return head + mark


def difference(had: str, has: str) -> str:
    """Quote the place from which two texts differ."""
    at = next((i for i, (a, b) in enumerate(zip(had, has, strict=False)) if a != b), len(has))
    return f"{had[at : at + 30]!r} became {has[at : at + 30]!r}"
