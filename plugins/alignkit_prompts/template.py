"""Templates whose only moving part is the question."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from alignkit.errors import shown

PLACEHOLDER = "{question}"


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """Text in which every ``{question}`` is replaced by the question, verbatim.

    Not ``str.format``: questions hold braces and backslashes, and one that holds
    ``{question}`` itself must not be expanded again.
    """

    text: str
    stop: tuple[str, ...] = ()

    def render(self, question: str) -> str:
        """Return the prompt.

        >>> TextTemplate("Q: {question} A:").render(r"What is $\\frac{1}{2}$?")
        'Q: What is $\\\\frac{1}{2}$? A:'
        """
        return self.text.replace(PLACEHOLDER, question)

    def followed_by(self, suffix: str) -> TextTemplate:
        """Return this template with a text after each place of the question.

        >>> TextTemplate("Q: {question} A:").followed_by("?").render("2 + 2")
        'Q: 2 + 2? A:'
        """
        return replace(self, text=self.text.replace(PLACEHOLDER, PLACEHOLDER + suffix))


INPUT = "\n\n### Input:\n"
"""Separates, within a question, an instruction from its input."""


@dataclass(frozen=True, slots=True)
class WithInput:
    """A template for questions with an input, and one for those without."""

    plain: TextTemplate
    paired: TextTemplate
    stop: tuple[str, ...] = ()

    def render(self, question: str) -> str:
        """Return the prompt; it contains the question verbatim, including its input."""
        return (self.paired if INPUT in question else self.plain).render(question)


@dataclass(frozen=True, slots=True)
class Framed:
    """Text before and after the question; nothing within any of them is expanded."""

    before: str
    after: str
    stop: tuple[str, ...] = ()

    def render(self, question: str) -> str:
        """Return the prompt."""
        return self.before + question + self.after


def bundled(name: str) -> str:
    """Return the text of a template shipped with this plugin, to the last character."""
    return (files("alignkit_prompts") / name).read_text(encoding="utf-8")


def read_template(path: Path, *, strip_final_newline: bool) -> str:
    """Return the template in ``path``; ValueError says what is wrong with the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{shown(path)}: not UTF-8 (byte {error.start}); save the template as UTF-8"
        ) from error
    except OSError as error:
        raise ValueError(f"{shown(path)}: cannot be read: {error.strerror}") from error
    if PLACEHOLDER not in text:
        raise ValueError(
            f"{shown(path)}: the template has no {PLACEHOLDER}; put it where the question belongs"
        )
    return text.removesuffix("\n") if strip_final_newline else text
