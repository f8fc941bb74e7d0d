"""Dialogues as prompts: the messages, and how the tokenizer's chat template is called for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignkit.dialogues import ChatFormat, Message
from alignkit.errors import shown
from alignkit.protocols import Example


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A question as a user message, or a dialogue as it is; a system message may come first."""

    form: ChatFormat
    system: str | None = None
    stop: tuple[str, ...] = ()

    def messages(self, example: Example, /) -> tuple[Message, ...]:
        """Return the dialogue; the system message comes first unless the dialogue has its own."""
        asked = {"role": "user", "content": example.question}
        messages = example.messages or (asked,)
        if self.system is None or messages[0].get("role") in ("system", "developer"):
            return messages
        return ({"role": "system", "content": self.system}, *messages)

    def render(self, question: str) -> str:
        """Return the messages as plain text; only a tokenizer knows the template's markers."""
        return f"{self.system}\n\n{question}" if self.system else question


def read_tools(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Return the tools in a JSON file; ValueError says what is wrong with it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{shown(path)}: cannot be read as JSON: {error}") from error
    tools = found if isinstance(found, list) else [found]
    for number, tool in enumerate(tools, 1):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(
                f"{shown(path)}: tool {number} must be an object like "
                f'{{"type": "function", "function": {{"name": "…", "parameters": {{…}}}}}}'
            )
    return tuple(tools)


TAKEN = frozenset({
    "messages", "conversation", "tools", "chat_template", "add_generation_prompt",
    "continue_final_message", "tokenize", "return_dict",
})  # fmt: skip
"""Arguments of ``apply_chat_template`` itself, which cannot be passed to the template."""


def read_chat_template(path: Path) -> str:
    """Return the Jinja template in ``path``; ValueError says what is wrong with the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{shown(path)}: cannot be read: {error}") from error
    if "messages" not in text:
        raise ValueError(f"{shown(path)}: a chat template goes through `messages`; this has none")
    return text
