"""Read texts, answers and chats from the columns of a row, or report what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from alignkit.data_files.records import Fault, Row, kind_of
from alignkit.errors import did_you_mean


class BadRow(Exception):
    """A row that cannot become an example."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def bad(row: Row, key: str, message: str, lacks: str = "") -> BadRow:
    """Return the error for ``row``; ``key`` is the recipe key that may fix it."""
    return BadRow(Fault(row.where, message, key, lacks))


MISSING: Final = object()
"""What :func:`value_of` returns if there is no such column."""


def value_of(values: Mapping[str, Any], column: str) -> Any:
    """Return a column's value; dots lead into objects if no column has the whole name.

    >>> value_of({"reward_model": {"ground_truth": "4"}}, "reward_model.ground_truth")
    '4'
    """
    if column in values:
        return values[column]
    for at, character in enumerate(column):
        inner = values.get(column[:at]) if character == "." else None
        if isinstance(inner, Mapping):
            found = value_of(inner, column[at + 1 :])
            if found is not MISSING:
                return found
    return MISSING


def text_of(row: Row, column: str, key: str) -> str:
    """Return the text, or number written out, in a column that must not be empty."""
    return _text(row, column, key, _there(row, column, key))


def question_of(row: Row, column: str, key: str) -> str:
    """Return the question in a column: text or a number, or what a chat of one turn asks.

    A chat is a list of messages. The system message comes before the user's, separated by an empty
    line; an answer at the end of the chat is not part of the question.
    """
    value = _there(row, column, key)
    if not is_chat(value):
        return _text(row, column, key, value)
    system, user, _ = one_turn(row, column, key, value)
    return f"{system}\n\n{user}" if system else user


def answers_of(row: Row, column: str, key: str) -> tuple[str, ...]:
    """Return the answer in a column, or all answers of a list, any of which is right.

    The answer in a chat is what the assistant says.
    """
    value = _there(row, column, key)
    if is_chat(value):
        _, _, reply = one_turn(row, column, key, value)
        if not reply:
            raise bad(row, key, f"column {column!r} holds a chat without an answer at its end")
        return (reply,)
    if isinstance(value, list) and value:
        return tuple(_text(row, column, key, item, "holds an array with ") for item in value)
    return (_text(row, column, key, value),)


def _there(row: Row, column: str, key: str) -> Any:
    value = value_of(row.values, column)
    if value is MISSING:
        raise bad(row, key, _lacking(row.values, column, key), lacks=column)
    return value


def _text(row: Row, column: str, key: str, value: Any, holds: str = "holds ") -> str:
    if not isinstance(value, str):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and math.isfinite(value):
            return str(value)
        message = f"column {column!r} {holds}{kind_of(value)} where text or a number belongs"
        raise bad(row, key, f"{message}; {remedy(key)}")
    if not value.strip():
        message = f"column {column!r} is empty; fill it, drop the row, or {remedy(key)}"
        raise bad(row, key, message)
    if half_surrogate(value):
        raise bad(row, key, f"column {column!r} holds half of a surrogate pair; repair the text")
    return value


def half_surrogate(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which cannot be written as UTF-8."""
    try:
        return not text.isascii() and not text.encode()
    except UnicodeEncodeError:
        return True


def remedy(key: str) -> str:
    """Return the advice to read another column, by a recipe's key or a command's option."""
    option = key.startswith("-")
    return f"name another with {key}" if option else f'map another column with {key} = "…"'


def _lacking(values: Mapping[str, Any], column: str, key: str) -> str:
    there = ", ".join(values) or "none"
    guess = did_you_mean(column, values)
    chat = next((name for name, value in values.items() if is_chat(value)), None)
    asks = key in ("question", "answer")
    reads = f'{key} = "{chat}" reads the chat, or use = "chat" all turns of dialogues'
    hint = reads if chat and asks else remedy(key)
    return f"no column {column!r}.{guess} Columns there: {there}; {hint}"


# ---------------------------------------------------------------- chats

_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant",
}  # fmt: skip


def is_chat(value: Any) -> bool:
    """Whether a value is a list of messages: objects with a role and a content."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, Mapping) and ("role" in m or "from" in m) for m in value)
    )


def one_turn(row: Row, column: str, key: str, messages: list[Any]) -> tuple[str, str, str]:
    """Return what system, user and assistant say in a chat of one turn; "" for one that is absent.

    Messages are ``{"role": …, "content": …}``, or ``{"from": …, "value": …}`` with "human" and
    "gpt". Longer chats, and roles such as "tool", are refused.
    """
    said: dict[str, str] = {}
    names = [str(m.get("role", m.get("from"))) for m in messages]
    roles = [_ROLES.get(name, name) for name in names]
    if unknown := [role for role in roles if role not in _ROLES.values()]:
        raise bad(row, key, f"column {column!r} holds a chat with the role {unknown[0]!r}")
    order = [role for role in ("system", "user", "assistant") if role in roles]
    if roles != order or "user" not in roles:
        turns = roles.count("user")
        kind = f"of {turns} turns" if turns > 1 else f"in the order {', '.join(roles)}"
        raise bad(
            row,
            key,
            f"column {column!r} holds a chat {kind}; only one turn is read (system, user, "
            f"assistant), so make each turn a row of its own",
        )
    for role, message in zip(roles, messages, strict=True):
        content = joined(message.get("content", message.get("value")))
        said[role] = _text(row, column, key, content, f"holds a chat whose {role} says ")
    return said.get("system", ""), said["user"], said.get("assistant", "")


def joined(content: Any) -> Any:
    """Join a content given in parts if all of them are text; return other contents unchanged."""
    if not isinstance(content, list) or not content:
        return content
    texts = [part.get("text") for part in content if isinstance(part, Mapping)]
    known = [text for text in texts if isinstance(text, str)]
    return "".join(known) if len(known) == len(content) else content
