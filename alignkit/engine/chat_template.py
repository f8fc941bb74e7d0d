"""Which chat template is used, and which of its arguments a recipe sets."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, TemplateSyntaxError, meta

from alignkit.dialogues import ChatFormat
from alignkit.errors import AlignkitError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GENERATION = re.compile(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}")
"""Tags around what the assistant says, which transformers adds to Jinja."""

NONE = (
    "the tokenizer has no chat template, as those of base models often have none; give one of "
    'your own: [prompt] template = "FILE"'
)

THINKING = ("enable_thinking", "thinking")
"""The templates' name for the switch between answers with and without a thought."""


def template_of(tokenizer: PreTrainedTokenizerBase, form: ChatFormat) -> str:
    """Return the text of the template; AlignkitError if the tokenizer has none."""
    try:
        return str(
            tokenizer.get_chat_template(form.template, [dict(tool) for tool in form.tools] or None)
        )
    except ValueError as error:
        raise AlignkitError(f"{NONE} ({str(error).splitlines()[0]})") from error


def arguments_for(template: str, form: ChatFormat) -> dict[str, Any]:
    """Return the arguments to call the template with; AlignkitError for one that it never reads."""
    found = dict(form.arguments)
    if not found and form.thinking is None and not form.tools:
        return {}
    reads = variables_of(template)
    for name in found.keys() - reads:
        raise AlignkitError(
            f"the chat template reads no argument {name!r}.{did_you_mean(name, reads)} "
            f"It reads: {', '.join(sorted(reads))}"
        )
    if form.tools and not reads & {"tools", "builtin_tools", "custom_tools"}:
        raise AlignkitError(
            "the chat template shows no tools; take them out of [prompt], or give a template that "
            "shows those of the [environment]"
        )
    if form.thinking is None:
        return found
    switches = [name for name in THINKING if name in reads]
    if not switches:
        raise AlignkitError(
            f"[prompt] thinking is {str(form.thinking).lower()}, but the chat template has no "
            f'switch for it ({" or ".join(THINKING)}); use thinking = "template"'
        )
    return {**dict.fromkeys(switches, form.thinking), **found}


@lru_cache(maxsize=16)
def variables_of(template: str) -> frozenset[str]:
    """Return the names of the values that a template reads."""
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])  # nosec B701 # parses only
    try:
        return frozenset(
            meta.find_undeclared_variables(environment.parse(GENERATION.sub("", template)))
        )
    except TemplateSyntaxError as error:
        raise AlignkitError(
            f"the chat template is no Jinja that can be read: line {error.lineno}: {error.message}"
        ) from error
