"""Checks of every command: it is a click command that explains itself and its options."""

from __future__ import annotations

import inspect

import click

from alignkit_testing.kit import Check, Subject


def is_a_click_command(subject: Subject) -> None:
    """`build` returns what `click.command` or `click.group` makes."""
    built = subject.build()
    assert isinstance(built, click.Command), (
        f"build() returned a {type(built).__name__}; decorate the function with @click.command()"
    )


def describes_its_options(subject: Subject) -> None:
    """Every option has a help; arguments are explained by the docstring of the class."""
    bare = [
        option.opts[0]
        for option in _command(subject).params
        if isinstance(option, click.Option) and not option.help
    ]
    assert not bare, f"no help= for {', '.join(bare)}"


def names_its_arguments(subject: Subject) -> None:
    """The docstring of the class, which is the command's help, says what each argument is."""
    command = _command(subject)
    said = inspect.getdoc(subject.component.params) or ""
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    words = [p.make_metavar(click.Context(command)).strip("[].") for p in arguments]
    bare = [word for word in words if not _is_list_of_choices(word) and word not in said]
    assert not bare, f"the docstring of {subject.component.params.__name__} has no {bare[0]}"


def answers_a_call_for_help(subject: Subject) -> None:
    """`--help` prints and ends with status 0; an option that is none is refused with status 2."""
    from click.testing import CliRunner

    command = _command(subject)
    for option, status in (("--help", 0), ("--no-such-option-of-any-command", 2)):
        done = CliRunner().invoke(command, [option])
        assert done.exit_code == status, (
            f"{option} ends with status {done.exit_code}, not {status}:\n{done.output}"
        )


def leaves_the_registry_s_option_to_it(subject: Subject) -> None:
    """`-p no:PLUGIN` is the kernel's; a command that needs the plugins takes `plugin_option`."""
    for option in _command(subject).params:
        own = "-p" in option.opts and option.name != "registry"
        assert not own, "-p is taken: it leaves plugins out; see alignkit.commands.plugin_option"


def _command(subject: Subject) -> click.Command:
    built: click.Command = subject.build()
    return built


def _is_list_of_choices(word: str) -> bool:
    return "|" in word


CHECKS: tuple[Check, ...] = (
    is_a_click_command,
    describes_its_options,
    names_its_arguments,
    answers_a_call_for_help,
    leaves_the_registry_s_option_to_it,
)
