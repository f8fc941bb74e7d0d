"""Commands from plugins: found, refused, left out, and built only when they are called."""

import sys
import types

import click
import pytest
from click.testing import CliRunner

from alignkit import Component, Params, hookimpl, plugins
from alignkit.cli import main
from alignkit.commands import call, command_of
from alignkit.errors import AlignkitError
from alignkit.plugins import COMMANDS

BUILT = []


def command(text="hello", error=None):
    class Hello(Params[click.Command]):
        """Greet whoever asks. More is said of it here."""

        def build(self) -> click.Command:
            BUILT.append(text)
            if error:
                raise error
            return click.Command("hello", callback=lambda: click.echo(text))

    return Hello


@pytest.fixture
def install(monkeypatch):
    """Put a plugin beside the built-in ones; ``dist`` and what it offers as a command."""
    BUILT.clear()
    real = plugins.entry_points(group="alignkit")
    entries = [e for e in real if e.dist.name == "alignkit"]
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries)
    monkeypatch.delenv("ALIGNKIT_DISABLE_PLUGINS", raising=False)

    def add(name, word="hello", offered=None, dist="alignkit-x"):
        module = types.ModuleType(f"fake_{name}")
        offered = offered or command(f"{name} says hello")

        def hook():
            yield Component(word, offered)

        hook.__name__ = "command"
        module.command = hookimpl(hook)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        entries.append(Entry(name, module.__name__, Dist(dist)))

    return add


class Dist:
    version, requires = "1.5", None

    def __init__(self, name):
        self.name, self.metadata = name, {"Name": name}


class Entry:
    def __init__(self, name, value, dist):
        self.name, self.value, self.dist = name, value, dist

    def load(self):
        return sys.modules[self.value]


def run(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def state(name):
    return next(p for p in plugins.load().plugins if p.name == name)


def test_a_command_is_called_by_its_name_and_listed_with_its_plugin(install):
    install("mine", "say_hello")
    done = run("say-hello")
    assert (done.exit_code, done.output) == (0, "mine says hello\n")
    row = next(x for x in run("list-plugins").output.splitlines() if x.startswith("mine "))
    assert row.split() == ["mine", "alignkit-x", "1.5", "active", "command:", "say-hello"]
    assert state("mine").provides == {"command": ["say_hello"]}


def test_help_lists_commands_by_their_first_words_and_builds_none(install):
    install("mine")
    said = run("--help")
    assert "  hello         Greet whoever asks." in said.output
    assert BUILT == []
    assert "Greet whoever asks. More is said of it here." in run("hello", "--help").output


def test_an_unknown_command_has_status_2_and_a_guess_among_all_of_them(install):
    install("mine")
    for typed, meant in (("helo", "hello"), ("rum", "run"), ("list-plugin", "list-plugins")):
        done = run(typed)
        assert done.exit_code == 2
        assert f"no such command {typed!r}. Did you mean {meant!r}?" in done.output


@pytest.mark.parametrize(
    ("word", "owner"),
    [
        ("report", "plugin report of alignkit"),
        ("new_plugin", "plugin scaffold of alignkit"),
        ("run", "the kernel"),
        ("list_plugins", "the kernel"),
    ],
)
def test_a_plugin_that_offers_a_built_in_command_is_refused_and_both_owners_named(
    install, word, owner
):
    install("aaa", word)  # loaded before the built-in one
    install("zzz", word)
    for name in ("aaa", "zzz"):
        found = state(name)
        assert (found.status, found.provides) == ("conflict", {})
        typed = word.replace("_", "-")
        assert found.detail == f"command {typed!r} is that of {owner}; rename {name}'s"
    assert run("list-plugins", "--strict").exit_code == 1
    assert "says hello" not in run(word.replace("_", "-"), "--help").output
    assert BUILT == []


def test_all_that_a_refused_plugin_offers_is_out_of_reach(install):
    install("mine", "report")
    offers = plugins.load().offers
    assert not [o for found in offers.values() for o in found if o[0].name == "mine"]


def test_two_plugins_with_one_command_are_told_apart_by_their_names(install):
    install("one")
    install("two", dist="alignkit-y")
    done = run("hello")
    assert done.exit_code == 2
    assert 'write "one/hello" (alignkit-x 1.5) or "two/hello" (alignkit-y 1.5).' in done.output
    assert "-p no:" not in done.output, "the command may take no -p"
    assert run("two/hello").output == "two says hello\n"
    assert "  one/hello " in run("--help").output


def test_a_broken_plugin_stops_no_command_and_is_told_where_one_is_missing(install, monkeypatch):
    install("mine")
    install("sad", "other")

    def fail():
        raise RuntimeError("no")

    monkeypatch.setattr(sys.modules["fake_sad"], "command", hookimpl(fail))
    fail.__name__ = "command"
    assert run("hello").output == "mine says hello\n"
    done = run("other")
    assert done.exit_code == 2
    assert "(not searched: sad is broken: " in done.output


def test_a_command_that_cannot_be_built_is_an_error_that_names_its_owner(install):
    install("needy", offered=command(error=ImportError("no module named moon")))
    done = run("hello")
    assert done.exit_code == 2
    assert "command 'hello' (plugin needy of alignkit-x) needs a package" in done.output
    assert "no module named moon" in done.output
    assert run("schema").exit_code == 0


def test_an_error_of_the_system_says_the_file_and_the_reason(install, tmp_path):
    folder = tmp_path / "a folder"
    install("reads", offered=command(error=IsADirectoryError(21, "Is a directory", str(folder))))
    done = run("hello")
    assert done.exit_code == 1
    assert done.output.strip().endswith("a folder: Is a directory")
    assert "Errno" not in done.output


def test_what_is_no_click_command_is_refused(install):
    class Wrong(Params[click.Command]):
        """Nothing."""

        def build(self):
            return print

    install("wrong", offered=Wrong)
    assert "which is no click command" in run("hello").output


def test_a_command_takes_options_of_click_and_no_fields(install):
    class Wrong(Params[click.Command]):
        """Nothing."""

        loud: bool = False

    install("wrong", offered=Wrong)
    assert state("wrong").status == "broken"
    assert "command 'hello' has fields; its options are click's" in state("wrong").detail


@pytest.mark.parametrize("words", [["-p", "no:mine"], ["-pno:mine"]])
def test_a_plugin_that_is_left_out_is_not_imported_in_search_of_a_command(
    install, monkeypatch, words
):
    install("mine")
    monkeypatch.setattr(Entry, "load", lambda self: pytest.fail("imported"))
    assert run("schema", *words).exit_code == 0
    done = run("hello", *words)
    assert done.exit_code == 2
    assert "not searched: mine is disabled" in done.output


def test_the_option_is_read_alike_wherever_it_stands(install, tmp_path):
    install("mine")
    listed = [run(*w) for w in (["schema", "-p", "no:data"], ["schema", "-pno:data"])]
    assert '"dataset": {\n      "not": {}' in listed[0].output
    assert listed[0].output == listed[1].output
    assert run("schema", "-p", "data").exit_code == 2  # not no:data
    assert "unknown plugin 'dat'. Did you mean 'data'" in run("schema", "-p", "no:dat").output


def test_the_kernel_s_own_commands_are_the_reserved_ones():
    assert {name.replace("-", "_") for name in main.commands} == set(COMMANDS)


def test_a_command_calls_another_or_says_that_there_is_none(install, capsys):
    install("mine")
    registry = plugins.load()
    with click.Context(main):
        call(registry, "hello")
        call(registry, "missing", with_some="value")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "mine says hello"
    assert said[1].startswith("without alignkit missing: unknown command 'missing'.")
    with pytest.raises(AlignkitError, match="unknown command 'missing'"):
        command_of(registry, "missing")


@pytest.mark.parametrize("name", ["new-plugin", "new_plugin"])
def test_a_command_is_described_as_typed_or_as_the_component_is_named(name):
    said = run("describe", "command", name).output
    assert "command new_plugin  (scaffold plugin, alignkit" in said
    assert "Write a package alignkit-NAME" in said


def test_no_command_is_a_part_of_recipes(install, tmp_path):
    install("mine")
    assert "command" not in run("schema").output.split('"$defs"')[1].split('"algorithm.')[0]
    (tmp_path / "r.toml").write_text('use = "hello"\n')
    assert "unknown algorithm 'hello'" in run("run", tmp_path / "r.toml").output
