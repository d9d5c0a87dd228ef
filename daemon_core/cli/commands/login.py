"""``ostler login``, ``ostler logout`` and ``ostler connections``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, pass_session
from daemon_core.cli.session import Session
from daemon_core.cli.words import EXIT_USAGE, CliError, condition, connection_note, plural
from daemon_core.control.connection_views import (
    ConnectionDetail,
    SignedIn,
    SignedOut,
    SignIn,
    SignOut,
    TryAgain,
)

if TYPE_CHECKING:
    from daemon_core.control.connection_views import CredentialView

_SIGN_IN_S: Final = 120.0
"""The server is asked twice, and a keyring may have a question for the user."""
_SIGN_OUT_S: Final = 120.0
_TOKEN_LIMIT: Final = 8192


@click.command(cls=Command)
@click.option("--server", required=True, metavar="URL", help="Address of the server: https://host.")
@click.option("--token-stdin", is_flag=True, help="Read the access token from standard input.")
@click.option(
    "--store",
    type=click.Choice(["auto", "keyring", "file"]),
    default="auto",
    show_default=True,
    help="Where the token is kept; auto takes a file only where no keyring runs.",
)
@pass_session
def login(session: Session, server: str, token_stdin: bool, store: str) -> None:
    """Connect to a server with a personal access token; works on one that is known already, too."""
    _check_address(server)
    token = _from_stdin() if token_stdin else _asked(server)
    request = SignIn(url=server, token=token, store=store)  # type: ignore[arg-type]
    done = session.call(SignedIn, "POST", "/v1/connections/sign-in", request, timeout_s=_SIGN_IN_S)
    if session.json:
        session.document(done)
        return
    found = done.connection
    names = ", ".join(entry.name or entry.id for entry in found.workspaces)
    session.say(
        f"Signed in at {found.url} as {found.name}"
        + (f", with {plural(len(found.workspaces), 'workspace')}: {names}" if names else "")
    )
    session.say(f"The token is kept in {_place(found.credential)}", _why_file(done.why_file))
    for note in done.notes:
        session.note(*connection_note(note))


def _check_address(server: str) -> None:
    """What is wrong at first sight is said before anybody types a token."""
    if not server.strip():
        raise CliError("usage", "The address of the server is empty", "Give https://host", EXIT_USAGE)


def _from_stdin() -> str:
    token = sys.stdin.readline(_TOKEN_LIMIT).strip()
    if not token:
        raise CliError("usage", "There is no token on standard input", "Pipe one line into it", EXIT_USAGE)
    return token


def _asked(server: str) -> str:
    if not sys.stdin.isatty():
        raise CliError(
            "usage",
            "There is no terminal to ask for the token",
            "Give it on standard input with --token-stdin",
            EXIT_USAGE,
        )
    asked = click.prompt(
        f"Access token for {server}", hide_input=True, err=True, default="", show_default=False
    )
    token = str(asked).strip()
    if not token:
        raise CliError("usage", "No token was given", "Make one in your account at the server", EXIT_USAGE)
    return token


def _place(credential: CredentialView) -> str:
    match credential.place:
        case "keyring":
            return f"the system keyring ({credential.detail})" if credential.detail else "the system keyring"
        case "file":
            return f"the file {credential.detail}, which only you can read"
        case _:
            return "no place"


def _why_file(code: str) -> str:
    return "No keyring service runs on this machine" if code else ""


@click.command(cls=Command)
@click.option("--server", default="", metavar="URL", help="Address or name; not needed where there is one.")
@click.option(
    "--force", is_flag=True, help="End its tasks here, and give up reports that it does not take any more."
)
@pass_session
def logout(session: Session, server: str, force: bool) -> None:
    """Remove a server and its token from this machine."""
    done = session.call(
        SignedOut,
        "POST",
        "/v1/connections/sign-out",
        SignOut(server=server, force=force),
        timeout_s=_SIGN_OUT_S,
    )
    if session.json:
        session.document(done)
        return
    session.say(f"Signed out of {done.url or done.name}; its token is removed from this machine")
    if done.given_up:
        session.note(
            f"The results of {plural(done.given_up, 'task')} did not reach the server",
            "They are kept on this machine: `ostler task list --all`",
        )


@click.command(cls=Command)
@click.option("--retry", is_flag=True, help="Try those that do not work again now.")
@pass_session
def connections(session: Session, retry: bool) -> None:
    """The servers of this machine: how each is, and where its token is kept."""
    if retry:
        session.call(list[ConnectionDetail], "POST", "/v1/connections/try-again", TryAgain())
    found = session.call(list[ConnectionDetail], "GET", "/v1/connections")
    if session.json:
        session.document(found)
        return
    if not found:
        session.note("There is no server", "Add one with `ostler login --server URL`")
        return
    click.echo(
        show.table(
            ("SERVER", "STATE", "WORKSPACES", "RUNTIMES", "TASKS", "TOKEN", "ADDRESS"),
            (
                (
                    entry.name,
                    entry.status.replace("_", " "),
                    str(len(entry.workspaces)),
                    str(entry.runtimes),
                    str(entry.tasks),
                    "-" if entry.embedded else entry.credential.place,
                    entry.url or "-",
                )
                for entry in found
            ),
        )
    )
    for entry in found:
        if entry.credential.place == "file":
            session.note(f"The token of {entry.name} is kept in {_place(entry.credential)}")
        if entry.reason:
            what, hint = condition(entry.reason, entry.reason_params)
            what += f" (since {show.local_time(entry.since)})" if entry.since else ""
            what += f"; next try at {show.local_time(entry.next_try_at)}" if entry.next_try_at else ""
            session.note(what, hint)
        for workspace in entry.workspaces:
            if workspace.problem:
                where = workspace.name or workspace.id
                session.note(
                    f"{entry.name} does not take this machine's agents in {where}: {workspace.problem}",
                    "It is tried again by itself",
                )
        if entry.undelivered:
            session.note(f"{plural(entry.undelivered, 'result')} for {entry.name} to deliver")
