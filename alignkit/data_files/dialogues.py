"""Dialogues out of the columns of a row, in the forms that people store them in.

Messages come out as chat templates take them: ``role``, ``content`` as text, and what else a
message has, such as ``tool_calls`` or ``reasoning_content``. Read are lists of
``{"role": …, "content": …}`` and of ShareGPT's ``{"from": …, "value": …}``, the columns that Arrow
makes of such a list, and JSON of either in a text, as a cell of a table holds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from alignkit.data_files.columns import (
    MISSING,
    bad,
    half_surrogate,
    is_chat,
    joined,
    remedy,
    value_of,
)
from alignkit.data_files.records import Row, kind_of

ROLES = {
    "human": "user", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip
"""What other formats call the roles."""
KNOWN = ("system", "developer", "user", "assistant", "tool")


def messages_of(row: Row, column: str, key: str) -> tuple[dict[str, Any], ...]:
    """Return the messages in a column; BadRow, with the message named, where one is none."""
    found = raw_messages(value_of(row.values, column))
    if found is None:
        value = value_of(row.values, column)
        there = "is missing" if value is MISSING else f"holds {kind_of(value)}"
        raise bad(row, key, f"column {column!r} {there} where a dialogue belongs; {remedy(key)}")
    return tuple(_message(row, column, key, n, item) for n, item in enumerate(found, 1))


def raw_messages(value: Any) -> list[Mapping[str, Any]] | None:
    """Return the messages of a dialogue as they are stored, None if ``value`` is none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, Mapping) and {"role", "from"} & value.keys():
        value = _rows_of(value)
    return list(value) if is_chat(value) else None


def _rows_of(columns: Mapping[str, Any]) -> Any:
    """Turn lists of roles and contents into a list of messages; a single message into one."""
    if not all(isinstance(values, list) for values in columns.values()):
        return [columns]
    if len({len(values) for values in columns.values()}) != 1:
        return None
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _message(
    row: Row, column: str, key: str, number: int, stored: Mapping[str, Any]
) -> dict[str, Any]:
    where = f"column {column!r}, message {number}"
    name = str(stored.get("role", stored.get("from")))
    role = ROLES.get(name, name)
    if role not in KNOWN:
        raise bad(row, key, f"{where}: unknown role {name!r}; known are {', '.join(KNOWN)}")
    more = {k: v for k, v in stored.items() if v is not None and k not in _USED}
    content = joined(stored.get("content", stored.get("value")))
    if content is None and more:
        content = ""  # what it does stands in its other keys
    if not isinstance(content, str):
        raise bad(row, key, f"{where}: the {role} says {kind_of(content)} where text belongs")
    if half_surrogate(content):
        raise bad(row, key, f"{where} holds half of a surrogate pair; repair the text")
    needed = role == "user" or (role == "assistant" and not more)
    if needed and not content.strip():
        raise bad(row, key, f"{where}: the {role} says nothing; fill it or drop the row")
    if "tool_calls" in more:
        more["tool_calls"] = [_call(call) for call in more["tool_calls"]]
    return {"role": role, "content": content, **more}


_USED = ("role", "from", "content", "value")


def _call(call: Any) -> Any:
    """Read arguments that stand in a text: templates write them as JSON themselves."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}
