"""``ostler repo``: repositories, asked for from inside a task with the task's own token."""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import click
import msgspec

from daemon_core.cli import show
from daemon_core.cli.base import Command, LazyGroup, pass_session
from daemon_core.cli.session import RESTART_S, Session, quoted
from daemon_core.cli.task_server import TaskServer, task_server
from daemon_core.cli.words import (
    EXIT_CONFLICT,
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    EXIT_REFUSED,
    EXIT_TIMEOUT,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    CliError,
)
from daemon_core.protocol.verbs import Request

WAIT_S: Final = 300.0
"""A first clone may take long; the daemon goes on with it afterwards."""
_TELL_EVERY_S: Final = 15.0
_RETRY_S: Final = 0.25
_ANSWER_LIMIT_BYTES: Final = 1024 * 1024

_EXITS: Final = {
    "not_configured": EXIT_REFUSED,
    "local_refused": EXIT_REFUSED,
    "refused": EXIT_REFUSED,
    "access": EXIT_REFUSED,
    "unknown_ref": EXIT_NOT_FOUND,
    "not_found": EXIT_NOT_FOUND,
    "empty": EXIT_NOT_FOUND,
    "no_default_branch": EXIT_USAGE,
    "bad_url": EXIT_USAGE,
    "unsafe_url": EXIT_USAGE,
    "bad_ref": EXIT_USAGE,
    "usage": EXIT_USAGE,
    "busy": EXIT_CONFLICT,
    "conflict": EXIT_CONFLICT,
    "timed_out": EXIT_TIMEOUT,
}

repo = LazyGroup(
    "repo",
    {
        "checkout": ("repo:checkout", "Get a repository into the task's directory."),
        "list": ("repo:list_repos", "The workspace's repositories."),
        "add": ("repo:add", "Add a repository to the workspace."),
    },
    help="Repositories, from inside a task.",
)


class _BusyError(Exception):
    """The daemon asks to come again."""

    def __init__(self, code: str, message: str, after_s: float) -> None:
        super().__init__(message)
        self.code = code
        self.after_s = after_s


@click.command(cls=Command)
@click.argument("url")
@click.option("--ref", default="", metavar="R", help="Branch, tag or commit; otherwise the default branch.")
@pass_session
def checkout(session: Session, url: str, ref: str) -> None:
    """Get a repository as a work tree on a branch of its own, below the task's directory.

    Prints the path. What is there already is brought up to date, unless something in it is uncommitted.
    """
    control, token, workspace = (
        os.environ.get(name, "") for name in ("OSTLER_CONTROL_URL", "OSTLER_TOKEN", "OSTLER_WORKSPACE_ID")
    )
    if not session.inside_run or not control or not token:
        raise CliError(
            "not_in_a_task",
            "This works inside a task only",
            "Use `git clone` here, or start a task with `ostler task add --repo`",
            EXIT_USAGE,
        )
    if "://" not in url and os.path.isdir(os.path.expanduser(url)):
        url = os.path.abspath(os.path.expanduser(url))
    body = {
        "url": url,
        "ref": ref,
        "workspace_id": workspace,
        "workdir": os.getcwd(),
        "agent_name": os.environ.get("OSTLER_AGENT_NAME", ""),
        "task_id": os.environ.get("OSTLER_TASK_ID", ""),
        "in_task_directory": True,
    }
    with _told_that_it_goes_on(session):
        done = _patiently(control, token, msgspec.json.encode(body))
    notices = done.get("notices") or []
    if session.json:
        session.document(
            {
                "path": done.get("path", ""),
                "branch": done.get("branch_name", ""),
                "commit": done.get("commit", ""),
                "notices": notices,
            }
        )
        return
    click.echo(done.get("path", ""))
    session.note(f"On the branch {done.get('branch_name', '')}")
    for notice in notices:
        message = str(notice.get("message", ""))
        session.note(message[:1].upper() + message[1:])


def _patiently(control: str, token: str, body: bytes) -> dict[str, Any]:
    """Ask until there is an answer. Asking twice does no harm, so a restarting daemon is waited for."""
    deadline = time.monotonic() + WAIT_S
    absent_until = time.monotonic() + RESTART_S
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise _too_long()
        try:
            return _ask(control, token, body, left_s)
        except TimeoutError as error:
            raise _too_long() from error
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= absent_until:
                raise CliError(
                    "daemon_unreachable",
                    "The daemon cannot be reached",
                    "Try again, or see `ostler daemon status`",
                    EXIT_UNREACHABLE,
                ) from error
            time.sleep(_RETRY_S)
        except _BusyError as busy:
            if time.monotonic() + busy.after_s >= deadline:
                raise CliError(busy.code, str(busy), "Try again later", EXIT_CONFLICT) from busy
            absent_until = time.monotonic() + RESTART_S
            time.sleep(busy.after_s)


def _ask(control: str, token: str, body: bytes, limit_s: float) -> dict[str, Any]:
    address = urlsplit(control)
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=limit_s)
    try:
        connection.request(
            "POST",
            "/repo/checkout",
            body,
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        said = answer.read(_ANSWER_LIMIT_BYTES)
    finally:
        connection.close()
    if answer.status == 200:
        return msgspec.json.decode(said, type=dict[str, Any])
    text = said.decode("utf-8", "replace").strip() or f"the daemon answered {answer.status}"
    code = answer.headers.get("X-Ostler-Error", "")
    if answer.status == 503:
        after = answer.headers.get("Retry-After", "")
        raise _BusyError(code or "busy", text, float(after) if after.isdigit() else _RETRY_S)
    exit_code = _EXITS.get(code, EXIT_REFUSED if answer.status in (401, 403) else EXIT_FAILED)
    raise CliError(code or "failed", text[:1].upper() + text[1:], "", exit_code)


def _too_long() -> CliError:
    return CliError(
        "timed_out",
        f"The repository is not there after {WAIT_S / 60:.0f} minutes",
        "The daemon goes on with it: ask again in a while",
        EXIT_TIMEOUT,
    )


@contextmanager
def _told_that_it_goes_on(session: Session) -> Iterator[None]:
    """Say now and then that this takes long: silence looks like a fault, and ends an agent's patience."""
    over = threading.Event()
    began = time.monotonic()

    def tell() -> None:
        while not over.wait(_TELL_EVERY_S):
            session.note(f"Getting the repository ({time.monotonic() - began:.0f} s)")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@click.command("list", cls=Command)
@pass_session
def list_repos(session: Session) -> None:
    """List the repositories of the task's workspace."""
    repos = _workspace_repos(task_server(session))
    if session.json:
        session.document(repos)
        return
    if not repos:
        click.echo("The workspace has no repositories.")
        return
    click.echo(
        show.table(
            ["url", "description"],
            [[str(each.get("url", "")), str(each.get("description") or "")] for each in repos],
        )
    )


@click.command(cls=Command)
@click.argument("url")
@click.option("--description", default="", help="What it is, in a line.")
@pass_session
def add(session: Session, url: str, description: str) -> None:
    """Add a repository to the task's workspace. Nothing happens where it is there already."""
    server = task_server(session)
    entry = {"url": url, **({"description": description} if description else {})}
    path = f"/api/workspaces/{quoted(str(server.implied['workspace']))}"
    for tries_left in (2, 1, 0):
        repos = _workspace_repos(server)
        if any(each.get("url") == url for each in repos):
            session.say("The workspace has it already")
            if session.json:
                session.document(repos)
            return
        try:
            answer = server.ask(Request(method="PATCH", path=path, body={"repos": [*repos, entry]}))
        except CliError as error:
            if error.code != "conflict" or not tries_left:
                raise
            continue  # somebody has added one since we looked
        if session.json:
            session.document(answer.body)
        else:
            session.say("Added")
        return


def _workspace_repos(server: TaskServer) -> list[dict[str, Any]]:
    workspace = str(server.implied["workspace"])
    found = server.ask(Request(method="GET", path=f"/api/workspaces/{quoted(workspace)}")).body
    repos = found.get("repos") if isinstance(found, dict) else None
    return [each for each in repos if isinstance(each, dict)] if isinstance(repos, list) else []
