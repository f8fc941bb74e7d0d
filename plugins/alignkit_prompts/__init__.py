"""Built-in prompt templates.

These are r1_zero, r1_zero_three_shot, question_only, chat, file, alpaca_sft and zero_shot_system.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit import AlignkitError, Component, Params, RecipePath, hookimpl
from alignkit.dialogues import ChatFormat
from alignkit.protocols import PromptTemplate
from alignkit_prompts.chat import TAKEN, ChatPrompt, read_chat_template, read_tools
from alignkit_prompts.template import Framed, TextTemplate, WithInput, bundled, read_template

BOXED = "\nWork through it step by step, and put the final answer into \\boxed{}.\n"
"""What the prompt ``question_only`` adds in its boxed form."""


class R1Zero(Params[PromptTemplate]):
    """Ask for <think> reasoning and an <answer>, as in the prompt of DeepSeek-R1-Zero.

    DeepSeek-AI, arXiv:2501.12948, table 1, to the letter; the prompt ends in ``<think>``
    without a newline. A response ends at ``</answer>``.
    """

    def build(self) -> PromptTemplate:
        return TextTemplate(bundled("r1_zero.txt"), stop=("</answer>",))


class R1ZeroThreeShot(Params[PromptTemplate]):
    """The r1_zero prompt with three worked examples in the same format before the question.

    A response ends at ``</answer>``.
    """

    shots: RecipePath | None = None
    """UTF-8 JSONL of other worked examples, any number of them: objects with the texts
    ``question``, ``reasoning`` and ``answer``, without tags. Unset: the three bundled ones."""

    def build(self) -> PromptTemplate:
        from alignkit_prompts.shots import with_shots

        try:
            return with_shots(self.shots)
        except ValueError as error:
            raise AlignkitError(str(error)) from error

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        from alignkit_prompts.shots import read_shots

        try:
            read_shots(self.shots)
        except ValueError as error:
            yield "shots", str(error)

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        from alignkit_prompts.shots import read_shots

        return {"worked examples": str(len(read_shots(self.shots)))}


class QuestionOnly(Params[PromptTemplate]):
    """The question, alone or asking for a box; a response ends where the model ends it."""

    form: Literal["plain", "boxed"] = "plain"
    r"""What follows the question: nothing ("plain"), or a sentence that asks for steps and for the
    answer in ``\boxed{}`` ("boxed"), which the reward ``question_only`` reads."""

    def build(self) -> PromptTemplate:
        return TextTemplate("{question}") if self.form == "plain" else Framed("", BOXED)


class _Suffixed(Params[PromptTemplate]):
    """A template whose question may be followed by a text of the task's own."""

    suffix: str = ""
    r"""Text right after the question, such as ``"\nAnswer:"`` for word problems."""

    def suffixed(self, template: TextTemplate) -> TextTemplate:
        """Return the template with the suffix in its place."""
        return template.followed_by(self.suffix)


class AlpacaSft(_Suffixed):
    """The Stanford Alpaca instruction template, for tasks with or without an input.

    Taori et al. 2023, https://github.com/tatsu-lab/stanford_alpaca: ``prompt_input`` for questions
    with a line ``### Input:`` below the instruction, as the data set ``jsonl`` writes them, and
    ``prompt_no_input`` for all others. The text ends right after ``### Response:``. A response ends
    where the model ends it.
    """

    def build(self) -> PromptTemplate:
        plain, paired = (TextTemplate(bundled(f"alpaca_{name}.txt")) for name in ("sft", "input"))
        return WithInput(self.suffixed(plain), self.suffixed(paired))


class ZeroShotSystem(_Suffixed):
    """Show a base model the start of a query-and-answer record, without any example.

    The question stands between three backticks below ``# Query:``, the response follows
    below ``# Answer:`` and ends where the model starts the next ``# Query:``.
    """

    def build(self) -> PromptTemplate:
        template = TextTemplate(bundled("zero_shot_system.txt"), stop=("# Query:",))
        return self.suffixed(template)


class File(Params[PromptTemplate]):
    """A template of your own, read from a text file."""

    path: RecipePath
    """UTF-8 text in which every ``{question}`` is replaced by the question, verbatim."""

    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a response, such as ``["</answer>"]``."""

    strip_final_newline: bool = False
    """Drop one newline at the end of the file, which many editors add automatically."""

    def build(self) -> PromptTemplate:
        try:
            return TextTemplate(self._text(), stop=self.stop)
        except ValueError as error:
            raise AlignkitError(str(error)) from error

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        try:
            self._text()
        except ValueError as error:
            yield "path", str(error)

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        return {"template ends in": repr(self._text()[-20:])}

    def _text(self) -> str:
        return read_template(self.path, strip_final_newline=self.strip_final_newline)


class Chat(Params[PromptTemplate]):
    """Dialogues, written by the chat template of the policy's tokenizer.

    A row without a dialogue becomes one with a single question. Prompts have exactly the ids of
    ``apply_chat_template(..., add_generation_prompt=True)``; a response ends at the token with
    which the template ends a turn, and training includes that token.
    """

    system: str | None = None
    """The system message for dialogues that have none. Left out = no system message, or the
    template's own; "" = an empty one, in place of the template's own."""

    thinking: bool | Literal["template"] = "template"
    """Whether the policy should think before it answers, set by the template's own switch.
    "template": the template's default. With templates that have no switch, true and false are
    refused."""

    tools: RecipePath | None = None
    """JSON file with a list of tools that the template shows to the policy: each ``{"type":
    "function", "function": {"name": …, "description": …, "parameters": …}}``."""

    template_kwargs: Annotated[dict[str, Any], Field(default={})]
    """Further arguments of the template, such as ``{ date_string = "1 May 2025" }``. An argument
    that the template does not read is refused."""

    template: RecipePath | None = None
    """File with a Jinja chat template to use instead of the tokenizer's."""

    def build(self) -> PromptTemplate:
        try:
            return ChatPrompt(self._form(), self.system)
        except ValueError as error:
            raise AlignkitError(str(error)) from error

    def _form(self) -> ChatFormat:
        return ChatFormat(
            tools=read_tools(self.tools) if self.tools else (),
            thinking=None if self.thinking == "template" else self.thinking,
            arguments=self.template_kwargs,
            template=read_chat_template(self.template) if self.template else None,
        )

    def template_problem(self, template: str, /) -> str:
        """Return what the template lacks for these keys; see ``TakesTemplate``."""
        from alignkit.engine.chat_template import NONE, arguments_for

        try:
            form = self._form()
            if not (form.template or template):
                return NONE
            arguments_for(form.template or template, form)
        except AlignkitError as error:
            return str(error)
        except ValueError:
            return ""  # of a file, which `check` reports
        return ""

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        for key, path, read in (
            ("tools", self.tools, read_tools),
            ("template", self.template, read_chat_template),
        ):
            try:
                _ = path and read(path)
            except ValueError as error:
                yield key, str(error)
        if taken := sorted(TAKEN & self.template_kwargs.keys()):
            yield "template_kwargs", f"{taken[0]} is set for every prompt and cannot be given here"

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        names = [tool["function"]["name"] for tool in read_tools(self.tools)] if self.tools else []
        return {"tools": ", ".join(names)} if names else {}


@hookimpl
def prompt_template() -> Iterable[Component[PromptTemplate]]:
    yield Component("r1_zero", R1Zero)
    yield Component("r1_zero_three_shot", R1ZeroThreeShot)
    yield Component("question_only", QuestionOnly)
    yield Component("alpaca_sft", AlpacaSft)
    yield Component("zero_shot_system", ZeroShotSystem)
    yield Component("file", File)
    yield Component("chat", Chat)
