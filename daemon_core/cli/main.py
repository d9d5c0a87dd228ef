"""Entry point of ``ostler``: the tree of commands, and the end of every one of them.

Whatever a command raises becomes one line on stderr (or ``{"error": …}`` on stdout with ``--json``) and an
exit code: 0 done, 1 done and failed, 2 wrong usage, 3 daemon not reached, 4 refused, 5 no such thing, 6
conflict, 124 time ran out, 130 interrupted.
"""

from __future__ import annotations

import errno
import io
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


def _print_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from daemon_core.cli.commands.version import version

        context.invoke(version)
        context.exit()


root.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        callback=_print_version,
        help="The same as `ostler version`.",
    )
)


def run(arguments: Sequence[str]) -> int:
    """One call of ``ostler``; returns its exit code."""
    if not os.path.isabs(os.environ.get("OSTLER_HOME") or os.sep):
        from daemon_core.settings.directories import settle_home

        settle_home(os.environ)
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
        code = _tell(session, error)
        try:
            sys.stdout.flush()
        except OSError:  # a full disk: it has been told, and what is left to write goes nowhere
            _quiet()
        return code


def _tell(session: Session, error: Exception) -> int:
    found = _explain(error)
    if found is None:
        raise error
    if session.json:
        try:
            session.document({"error": {"code": found.code, "message": found.message, "hint": found.hint}})
            sys.stdout.flush()
            return found.exit_code
        except OSError:  # a full disk, say: then there is still the other stream
            _quiet()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
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
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            return CliError("usage", "No command was given", hint, EXIT_USAGE)
        if "unexpected extra argument" in error.format_message():
            hint = f"Put what belongs together in quotation marks; {hint}"
        return CliError("usage", error.format_message().rstrip("."), hint, EXIT_USAGE)
    from daemon_core.settings.errors import SettingsError

    if isinstance(error, SettingsError):
        place = f"{error.file}" if error.file is not None else ""
        if place and error.line is not None:
            place += f":{error.line}"
        begins = error.what.partition(" ")[0].isalpha() and not place
        what = error.what[:1].upper() + error.what[1:] if begins else error.what
        message = f"{place}: {what}" if place else what
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
        hint = "Check the disk and its permissions" if error.errno in _OF_THE_DISK else ""
        return CliError("system", f"{error.filename}: {what}" if error.filename else what, hint, EXIT_FAILED)
    if isinstance(error, UnicodeEncodeError) and _is_no_text(error.object):
        # Bytes of the command line or of a name; nothing has been asked for yet.
        return CliError(
            "invalid_input", "Something that was given is not UTF-8 text", "Convert it", EXIT_USAGE
        )
    return None


def _is_no_text(given: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in given)


_OF_THE_DISK: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _asked_for_json(arguments: Sequence[str]) -> bool:
    """For an error that came before the option was looked at."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in own


def _quiet() -> int:
    """The reader of our output is gone; nothing may complain about it, the interpreter's own end included."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    return EXIT_FAILED


def _settle_streams() -> None:
    """Output goes somewhere, whatever that is: a closed stream is one that nobody reads, and a character that
    a terminal does not have is no reason to stop. A closed input is an empty one; bytes in it that are no
    text are refused where they are used, in every locale."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - as long as we are
    elif isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as we are
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main() -> None:
    _settle_streams()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
