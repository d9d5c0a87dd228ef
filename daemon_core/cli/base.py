"""What every command has: global options wherever they stand, sub-commands loaded when used, one session.

``--json`` and ``--profile`` are accepted before and after any sub-command. Groups know their commands as
"module:name" with a line of help, so that `ostler --help` imports nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

import click

from daemon_core.cli.session import Session

_JSON_HELP: Final = "Print one JSON document and nothing else."
_PROFILE_HELP: Final = "A separate daemon with its own settings and tasks."


def session_of(context: click.Context) -> Session:
    """The session of this invocation, made by the outermost command that is looked at first."""
    root = context.find_root()
    if not isinstance(root.obj, Session):
        root.obj = Session()
    return root.obj


def _keep_json(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        session_of(context).json = True


def _keep_profile(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        session_of(context).profile = value


def _global_options() -> list[click.Parameter]:
    # Eager: an error in what follows is then already told in the form that was asked for.
    return [
        click.Option(
            ["--json"], is_flag=True, expose_value=False, is_eager=True, callback=_keep_json, help=_JSON_HELP
        ),
        click.Option(
            ["--profile"],
            metavar="NAME",
            expose_value=False,
            is_eager=True,
            callback=_keep_profile,
            help=_PROFILE_HELP,
        ),
    ]


class Command(click.Command):
    """A command with the global options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **kwargs)
        self.params.extend(_global_options())


class Group(click.Group):
    """A group with the global options, for commands that are made at once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **kwargs)
        self.params.extend(_global_options())


class LazyGroup(click.Group):
    """A group whose commands are imported when called.

    Args:
        commands: Name to (``module:attribute`` below ``daemon_core.cli.commands``, one line of help).
    """

    def __init__(self, name: str, commands: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(name, **kwargs)
        self.params.extend(_global_options())
        self._lazy = dict(commands)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"daemon_core.cli.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._lazy.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self._lazy:
            import difflib

            near = difflib.get_close_matches(name, self._lazy, 1, 0.6)
            hint = f"Did you mean `{ctx.command_path} {near[0]}`?" if near else ""
            raise UnknownCommandError(f"There is no command {ctx.command_path} {name}", hint, ctx)
        return super().resolve_command(ctx, args)


class UnknownCommandError(click.UsageError):
    """A misspelt command; ``hint`` names the nearest, or is empty."""

    def __init__(self, message: str, hint: str, context: click.Context) -> None:
        super().__init__(message, context)
        self.hint = hint


pass_session = click.make_pass_decorator(Session, ensure=True)
