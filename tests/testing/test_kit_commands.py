"""A planted bug per property of commands."""

import click
import pytest

from alignkit import Params
from alignkit.testing import checks, registry_of


def with_options(*options):
    def build(self):
        return click.Command("mine", params=list(options), callback=lambda **values: None)

    return build


def raising(self):
    def fail(ctx, option, value):
        raise ValueError("at once")

    eager = click.Option(["--help"], is_eager=True, is_flag=True, callback=fail, help="Fail.")
    return click.Command("mine", params=[eager], add_help_option=False)


BUGS = {
    "is_a_click_command": lambda self: lambda: None,
    "describes_its_options": with_options(click.Option(["--bare"])),
    "names_its_arguments": with_options(click.Argument(["other"])),
    "answers_a_call_for_help": raising,
    "leaves_the_registry_s_option_to_it": with_options(click.Option(["-p"], help="Mine.")),
}


def failing(build):
    class Mine(Params[click.Command]):
        """Do something with FOLDER."""

    Mine.build = build
    failed = []
    for case in checks("mine", registry=registry_of(command={"mine": Mine})):
        try:
            case.run()
        except (AssertionError, AttributeError) as error:
            failed.append((case.id.rpartition("/")[2], str(error)))
    return failed


@pytest.mark.parametrize("check", BUGS)
def test_a_planted_bug_is_caught_by_its_check(check):
    assert check in [name for name, _ in failing(BUGS[check])]


def test_every_check_has_a_planted_bug(names):
    assert names("command") == set(BUGS)


def test_a_good_command_conforms():
    folder = click.Argument(["folder"])
    assert failing(with_options(folder, click.Option(["--metric"], help="By what."))) == []
