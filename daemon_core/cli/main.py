"""Entry point of ``ostler``: the tree of commands, and the end of every one of them.

Whatever a command raises becomes one line on stderr (or ``{"error": …}`` on stdout with ``--json``) and an
exit code: 0 done, 1 done and failed, 2 wrong usage, 3 daemon not reached, 4 refused, 5 no such thing, 6
conflict, 124 time ran out, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from daemon_core.cli.base import LazyGroup, UnknownCommandError, session_of
from daemon_core.cli.session import Session
from daemon_core.cli.words import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    CliError,
    refusal,
    sentence,
    unreachable,
)

_COMMANDS: Final = {
    "desktop": ("desktop:desktop", "Open the desktop."),
    "task": ("task:task", "Start, watch and end tasks."),
    "job": ("job:job", "Commands that go on in the background."),
    "resident": ("resident:resident", "Long-lived agent processes."),
    "runtimes": ("runtimes:runtimes", "The agents of this machine."),
    "models": ("models:models", "The models of an agent."),
    "agent": ("agent:agent", "Named configurations of agents."),
    "repo": ("repo:repo", "Get repositories inside a task."),
    "issue": ("server_verbs:issue", "Issues and comments, inside a task."),
    "chat": ("server_verbs:chat", "The chat of a task, inside it."),
    "attachment": ("attachment:attachment", "Attached files, inside a task."),
    "project": ("server_verbs:project", "Projects, inside a task."),
    "workspace": ("server_verbs:workspace", "Members, agents and squads, inside a task."),
    "squad": ("server_verbs:squad", "What a squad's leader records, inside a task."),
    "autopilot": ("server_verbs:autopilot", "Autopilots, inside a task."),
    "login": ("login:login", "Connect to a server."),
    "logout": ("login:logout", "Remove a server and its token."),
    "connections": ("login:connections", "The servers and how each is."),
    "daemon": ("daemon:daemon", "Start, stop and watch the daemon."),
    "config": ("config:config", "Show and change settings."),
    "spend": ("spend:spend", "What tasks cost, and going on beyond a day's limit."),
    "disk": ("disk:disk", "What is on the disk and why, and clean-up."),
    "update": ("update:update", "Newer versions of Ostler."),
    "doctor": ("doctor:doctor", "Check what Ostler needs."),
    "diagnostics": ("diagnostics:diagnostics", "One file for whoever helps you, without secrets."),
    "version": ("version:version", "Print the version."),
}


def _without_command(context: click.Context) -> None:
    from daemon_core.cli.commands.desktop import open_desktop

    open_desktop(session_of(context))


class _Root(LazyGroup):
    def invoke(self, ctx: click.Context) -> object:
        if not ctx._protected_args and not ctx.args:
            _without_command(ctx)
        return super().invoke(ctx)


root = _Root(
    "ostler",
    _COMMANDS,
    help="Keeps the coding agents of this machine: their runs survive the daemon that supervises them.",
    invoke_without_command=True,
    no_args_is_help=False,
)


def run(arguments: Sequence[str]) -> int:
    """One call of ``ostler``; returns its exit code."""
    session = Session()
    try:
        result = root.main(list(arguments), prog_name="ostler", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return result if isinstance(result, int) and not isinstance(result, bool) else 0
    except BrokenPipeError:
        return _quiet()
    except (click.exceptions.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a fault is raised again
        # The end of the process: whatever it was is told, in the form that was asked for.
        session.json = session.json or _asked_for_json(arguments)
        return _tell(session, error)


def _tell(session: Session, error: Exception) -> int:
    found = _explain(error)
    if found is None:
        raise error
    if session.json:
        session.document({"error": {"code": found.code, "message": found.message, "hint": found.hint}})
    else:
        click.echo(sentence(found.message, found.hint), err=True)
    return found.exit_code


def _explain(error: Exception) -> CliError | None:
    """Any expected failure in words; None for a fault of this program."""
    if isinstance(error, CliError):
        return error
    if isinstance(error, click.ClickException):
        hint = error.hint if isinstance(error, UnknownCommandError) else ""
        context = getattr(error, "ctx", None)
        if not hint and context is not None:
            hint = f"`{context.command_path} --help` shows how it is used"
        return CliError("usage", error.format_message().rstrip("."), hint, EXIT_USAGE)
    from daemon_core.settings.errors import SettingsError

    if isinstance(error, SettingsError):
        place = f"{error.file}" if error.file is not None else ""
        if place and error.line is not None:
            place += f":{error.line}"
        message = f"{place}: {error.what}" if place else error.what
        return CliError("settings_invalid", message, error.hint, EXIT_USAGE)
    from daemon_core.control.client import DaemonUnreachableError
    from daemon_core.control.errors import ControlError

    if isinstance(error, DaemonUnreachableError):
        words = unreachable(error.why)
        return CliError("daemon_unreachable", words.message, words.hint, words.exit_code)
    if isinstance(error, ControlError):
        words = refusal(error.code, error.params)
        return CliError(error.code, words.message, words.hint, words.exit_code)
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        return CliError("system", f"{error.filename}: {what}" if error.filename else what, "", EXIT_FAILED)
    return None


def _asked_for_json(arguments: Sequence[str]) -> bool:
    """For an error that came before the option was looked at."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in own


def _quiet() -> int:
    """The reader of our output is gone; nothing may complain about it, the interpreter's own end included."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    return EXIT_FAILED


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
