"""``ostler attachment``: files of issues, comments and chats, from inside a task."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, Group, pass_session
from daemon_core.cli.session import Session
from daemon_core.cli.task_server import task_server
from daemon_core.cli.words import EXIT_CONFLICT, EXIT_USAGE, CliError
from daemon_core.protocol.verbs import Request

DOWNLOAD_LIMIT_BYTES: Final = 512 * 1024 * 1024
UPLOAD_LIMIT_BYTES: Final = 100 * 1024 * 1024
_NAME_BYTES: Final = 120
"""Its end, which tells what it is."""


@click.group(cls=Group)
def attachment() -> None:
    """Files of issues, comments and chats, from inside a task."""


@attachment.command(cls=Command)
@click.argument("ident", metavar="ID")
@click.option("-o", "--output", metavar="FILE", help="Where to; otherwise its own name, in this directory.")
@pass_session
def download(session: Session, ident: str, output: str | None) -> None:
    """Get a file. Prints where it is. What is there already is not written over."""
    server = task_server(session)
    about = server.ask(Request(method="GET", path=f"/api/attachments/{quote(ident, safe='')}")).body
    url = about.get("download_url") if isinstance(about, dict) else None
    if not isinstance(url, str) or not url:
        raise CliError("bad_answer", "The server named no address to get the file from")
    path = Path(output) if output else Path(_file_name(about, ident))
    # Whole or not at all: a file that is half there would be read as if it were all.
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            try:
                size = server.fetch(url, fd, DOWNLOAD_LIMIT_BYTES)
            finally:
                os.close(fd)
            _name(partial, path)
        except FileExistsError as error:
            raise CliError(
                "exists", f"{path} is there already", "Choose another name with --output", EXIT_CONFLICT
            ) from error
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise CliError("system", f"{path} cannot be written: {error.strerror}") from error
    if session.json:
        session.document({"id": ident, "path": str(path.absolute()), "size": size})
    else:
        click.echo(path.absolute())


@attachment.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--issue", metavar="ID", help="The issue that it belongs to.")
@click.option("--comment", metavar="ID", help="The comment that it belongs to.")
@pass_session
def upload(session: Session, file: Path, issue: str | None, comment: str | None) -> None:
    """Send a file. Prints its id, which `issue create` and `issue comment add` take as --attachment."""
    server = task_server(session)
    try:
        size = file.stat().st_size
        if size > UPLOAD_LIMIT_BYTES:
            raise CliError(
                "too_large",
                f"{file} has {show.size(size)}, more than {show.size(UPLOAD_LIMIT_BYTES)}",
                "",
                EXIT_USAGE,
            )
        data = file.read_bytes()
    except OSError as error:
        raise CliError("usage", f"{file} cannot be read: {error.strerror}", "", EXIT_USAGE) from error
    fields = {name: value for name, value in (("issue_id", issue), ("comment_id", comment)) if value}
    answer = server.upload("/api/upload-file", file.name, data, fields).body
    if session.json:
        session.document(answer)
        return
    ident = answer.get("id") if isinstance(answer, dict) else None
    if not ident:
        raise CliError("bad_answer", "The server gave the file no id")
    click.echo(ident)


def _name(partial: Path, path: Path) -> None:
    """Give a whole file its name. Raises ``FileExistsError`` where that is taken."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here. The name was free a moment ago.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path)) from None
        os.rename(partial, path)


def _file_name(about: dict[str, Any], ident: str) -> str:
    """A plain name in this directory, whatever the server says."""
    said = about.get("filename") or about.get("name") or ""
    name = str(said).replace("\\", "/").rpartition("/")[2]
    name = "".join(c for c in name if c.isprintable() and c not in '<>:"|?*').strip(" .")
    name = name.encode()[-_NAME_BYTES:].decode(errors="ignore").lstrip(" .")
    return name or f"attachment-{ident}"
