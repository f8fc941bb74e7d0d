"""The commands: the kernel's own, and those that plugins offer, built when they are called."""

from __future__ import annotations

import errno
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from alignkit import plugins
from alignkit.errors import AlignkitError, Said, did_you_mean, shown
from alignkit.lifecycle import meeting, ranks
from alignkit.lifecycle.signals import Interrupted
from alignkit.plugins import Registry
from alignkit.security.secrets import redact_text
from alignkit.security.text import say
from alignkit.shipped import PREFIX, path_from


class _Given(click.Path):
    """A file or folder to read, which may be one that alignkit ships: ``alignkit:recipes/…``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        ours = isinstance(value, str) and value.startswith(PREFIX)
        return super().convert(path_from(value, Path()) if ours else value, param, ctx)


GIVEN = _Given(path_type=Path)
"""Type of an argument or option that names a file or folder to read."""
FILE = click.Path(path_type=Path)
"""Type of an argument or option that names a file or folder to write."""
OFF = "no:"
"""Prefix of the name of a plugin to leave out."""
DISABLED = "alignkit.disabled"
"""Key in click's context for the plugins that the command line leaves out."""


class Commands(click.Group):
    """A group that plugins add commands to; errors are shown as text, never as a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._listed(ctx))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name; AlignkitError if a plugin offers it but it is unusable."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        registry = registry_in(ctx)
        if ("command", cmd_name.rpartition("/")[2].replace("-", "_")) in registry.offers:
            return command_of(registry, cmd_name)
        from alignkit.unused import not_searched

        guess = did_you_mean(cmd_name, self.list_commands(ctx))
        down = not_searched(registry.plugins, cmd_name.rpartition("/")[0])
        ctx.fail(f"no such command {cmd_name!r}.{guess}{down}")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, without importing plugins that ``-p no:NAME`` leaves out."""
        ctx.meta[DISABLED] = list(_disabled_in(args[1:]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the first words of their help, without building any."""
        found = self._listed(ctx)
        room = formatter.width - 6 - max(map(len, found))
        rows = [(name, found[name].get_short_help_str(room)) for name in sorted(found)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _listed(self, ctx: click.Context) -> dict[str, click.Command]:
        from alignkit.offered import stand_ins

        return {**self.commands, **{c.name or "": c for c in stand_ins(registry_in(ctx))}}

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (AlignkitError, OSError, KeyboardInterrupt) as error:
            said = redact_text(_said(error)) or "interrupted"
            if not isinstance(error, Said):
                say(f"rank {ranks.rank()}: {said}" if ranks.follows() else said, err=True)
            self._tell(ctx, said, _status(error))
            ctx.exit(_status(error))
        except click.exceptions.Exit:
            raise
        except click.ClickException as error:  # click prints it
            self._tell(ctx, error.format_message(), error.exit_code)
            raise _of_rank(error) from None
        except Exception as error:
            self._tell(ctx, redact_text(str(error)) or type(error).__name__, 1)
            raise

    def _tell(self, ctx: click.Context, said: str, status: int) -> None:
        """Tell other ranks that this one ends, if they may be waiting for it."""
        if ctx.invoked_subcommand in ("run", "resume"):
            meeting.tell(said, status)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Parse and run a command; as a process of its own it copes with a broken stdout."""
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        from alignkit.security.streams import guarded

        with guarded():
            return super().main(*args, **extra)


def _of_rank(error: click.ClickException) -> click.ClickException:
    """Return the error, with the rank's number on others than rank 0."""
    if not ranks.follows():
        return error
    said = f"rank {ranks.rank()}: {error.format_message()}"
    if isinstance(error, click.UsageError):
        return click.UsageError(said, error.ctx)
    return click.ClickException(said)


def _said(error: BaseException) -> str:
    """Return what an error says; of the system's errors the file and the reason."""
    if isinstance(error, OSError) and isinstance(error.filename, str) and error.strerror:
        return f"{shown(Path(error.filename))}: {error.strerror}"
    return str(error)


def _status(error: BaseException) -> int:
    """Return a command's exit status; a path that no file can have counts as a usage error."""
    if isinstance(error, AlignkitError | Interrupted):
        return error.exit_status
    return 1 + (error.errno == errno.ENAMETOOLONG) if isinstance(error, OSError) else 130


def command_of(registry: Registry, name: str) -> click.Command:
    """Build the command that a plugin offers as ``name``, or as ``PLUGIN/name``.

    Its help is the docstring of its parameters. Raises AlignkitError if there is no command of that
    name, or more than one, or if it cannot be built here.
    """
    try:
        plugin, component = registry.get("command", name.replace("-", "_"))
    except LookupError as error:
        raise AlignkitError(str(error)) from None
    owner = f"command {name!r} (plugin {plugin.name} of {plugin.dist})"
    try:
        found = component.params().build()
    except ImportError as error:
        raise AlignkitError(f"{owner} needs a package that does not import: {error}") from error
    if not isinstance(found, click.Command):
        raise AlignkitError(f"{owner} built {found!r}, which is no click command")
    found.help = inspect.getdoc(component.params)
    return found


def call(registry: Registry, name: str, **values: Any) -> None:
    """Call the command of that name, which a plugin may offer, from within another one.

    ``values`` are keyed by parameter name; other parameters keep their defaults. If there is no
    such command, a message that names it is printed instead.
    """
    try:
        found = command_of(registry, name)
    except AlignkitError as error:
        say(f"without alignkit {name}: {error}")
        return
    click.get_current_context().invoke(found, **values)


def plugin_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``-p`` to a command, which gets the ``registry``.

    ``-p no:NAME`` leaves a plugin out, ``-p FILE.py`` adds one that is a file.
    """
    return click.option(
        "-p",
        "registry",
        multiple=True,
        callback=_registry,
        metavar="FILE.py|no:PLUGIN",
        help="Import this file as a plugin, or leave a plugin out; may be repeated.",
    )(function)


def _registry(ctx: click.Context, option: click.Parameter, given: Sequence[str]) -> Registry:
    files = [item for item in given if not item.startswith(OFF)]
    if wrong := [item for item in files if not item.endswith(".py")]:
        raise click.BadParameter(
            f"{wrong[0]!r}: write FILE.py to add a file, no:NAME to switch a plugin off"
        )
    found = _loaded(ctx, [item.removeprefix(OFF) for item in given if item.startswith(OFF)])
    if files:
        from alignkit.plugin_files import with_files

        found = with_files(found, [path_from(item, Path.cwd()) for item in files])
    return found


def registry_in(ctx: click.Context) -> Registry:
    """Return the plugins except those that the command line leaves out; they are loaded once."""
    return _loaded(ctx, ctx.meta.get(DISABLED, ()))


def _loaded(ctx: click.Context, disabled: Iterable[str]) -> Registry:
    key = f"alignkit.registry {sorted(disabled)}"
    if key not in ctx.meta:
        ctx.meta[key] = plugins.load(disabled)
    found: Registry = ctx.meta[key]
    return found


def _disabled_in(words: Sequence[str]) -> Iterator[str]:
    """Yield the plugins that a command line leaves out: ``-p no:NAME``, ``-pno:NAME``."""
    for option, value in zip(["", *words], [*words, ""], strict=True):
        if option == "-p" and value.startswith(OFF):
            yield value.removeprefix(OFF)
        elif option.startswith("-pno:"):
            yield option.removeprefix("-pno:")


def command_line() -> list[str]:
    """Return the command as it was typed, for the manifest."""
    return ["alignkit", *sys.argv[1:]]
