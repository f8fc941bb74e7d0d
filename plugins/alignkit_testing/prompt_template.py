"""What holds of every prompt template: the question arrives as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

from alignkit.dialogues import ChatFormat, Converses
from alignkit.protocols import Example
from alignkit_testing.kit import Check, Subject
from alignkit_testing.samples import DIALOGUE, QUESTIONS


def contains_the_question(subject: Subject) -> None:
    """Verbatim: braces, backslashes, percent signs, unicode, new lines, tags, spaces."""
    template = subject.build()
    for question in QUESTIONS:
        text = template.render(question)
        assert isinstance(text, str), f"render returns {type(text).__name__}, not str"
        assert question in text, f"the question {question[:60]!r} is not in {text[:300]!r}"


def surrounds_every_question_alike(subject: Subject) -> None:
    """What stands around the question is not changed by what the question says."""
    template = subject.build()
    marker = "a question that no template holds"
    frame = template.render(marker)
    for question in QUESTIONS:
        got, want = template.render(question), frame.replace(marker, question)
        assert got == want, (
            f"for the question {question[:60]!r} the prompt is {got[-200:]!r}, while other "
            f"questions give {want[-200:]!r}"
        )


def names_its_stops(subject: Subject) -> None:
    """`stop` is a sequence of non-empty strings, the same at every look; a str is not one."""
    template = subject.build()
    stop = template.stop
    assert not isinstance(stop, str), f"stop is the string {stop!r}; make it a tuple: ({stop!r},)"
    assert isinstance(stop, Sequence), f"stop is a {type(stop).__name__}, not a sequence"
    for text in stop:
        assert isinstance(text, str), f"stop holds {text!r}, not a string"
        assert text, "stop holds an empty string, which would end every response at once"
    assert list(stop) == list(template.stop), "stop differs at a second look"


def converses_with_what_is_there(subject: Subject) -> None:
    """A template of dialogues changes no message and leaves none out; a question is the user's.

    Its `form` is a ChatFormat; `messages` are the same at every look and have roles and text.
    """
    template = subject.build()
    if not isinstance(template, Converses):
        return
    assert isinstance(template.form, ChatFormat), f"form is a {type(template.form).__name__}"
    asked = [Example("0", question, "") for question in QUESTIONS]
    for example in (*asked, Example("0", "2 + 2?", "4", messages=DIALOGUE)):
        wanted = example.messages or ({"role": "user", "content": example.question},)
        found = template.messages(deepcopy(example))
        for message in found:
            sound = isinstance(message, Mapping) and isinstance(message.get("role"), str)
            assert sound, f"{message!r} is no message: a mapping with role and content"
        assert list(found) == list(template.messages(example)), "messages differ at a second look"
        kept = list(found)[-len(wanted) :]
        assert kept == list(wanted), (
            f"the dialogue {list(wanted)!r:.300} comes out as {list(found)!r:.300}: put what else "
            f"is to be said before it"
        )


CHECKS: tuple[Check, ...] = (
    contains_the_question,
    surrounds_every_question_alike,
    names_its_stops,
    converses_with_what_is_there,
)
