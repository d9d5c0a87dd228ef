"""``ostler diagnostics``: one file for whoever helps, without secrets, also with the daemon down."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import click

from daemon_core.cli.base import Command, pass_session
from daemon_core.cli.session import Session
from daemon_core.cli.words import EXIT_FAILED, CliError


@click.command(cls=Command)
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=True), help="Where to write it.")
@click.option("--preview", is_flag=True, help="Only say what would be in it.")
@click.option("--keep-paths", is_flag=True, help="Leave the path of your home directory in it.")
@click.option("--progress", is_flag=True, hidden=True, help="A line on stderr for each part.")
@pass_session
def diagnostics(session: Session, output: str | None, preview: bool, keep_paths: bool, progress: bool) -> int:
    """Gather versions, checks, settings, logs and counts into a zip file, without secrets or contents."""
    from daemon_core.cli.diagnostics.archive import ABOUT, write
    from daemon_core.cli.diagnostics.parts import parts, redactor, text_of

    now = dt.datetime.now(dt.UTC)
    target = _target(output, now)
    wanted = parts(session)
    redact = redactor(session, keep_paths=keep_paths)
    files: list[tuple[str, str]] = []
    for number, part in enumerate(wanted, 1):
        if progress:
            click.echo(f"{number}/{len(wanted)} {part.name}", err=True)
        files.append((part.name, text_of(part, redact)))
    told = [
        {"name": part.name, "what": part.what, "bytes": len(text.encode("utf-8", "replace"))}
        for part, (_, text) in zip(wanted, files, strict=True)
    ]
    if preview:
        if session.json:
            session.document({"parts": told})
        else:
            _show(told)
        return 0
    at = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    contents = "\n".join(f"{entry['name']!s:16} {entry['what']}" for entry in told)
    paths = "" if keep_paths else ", the path of your home directory"
    files.insert(0, ("README.txt", ABOUT.format(at=at, paths=paths, contents=contents)))
    try:
        size = write(target, files, at)
    except OSError as error:
        raise CliError(
            "system",
            f"{target}: {error.strerror or error}",
            "Choose another place with --output",
            EXIT_FAILED,
        ) from error
    if session.json:
        session.document({"path": str(target), "bytes": size, "parts": told})
    else:
        _show(told)
        session.say(f"Written to {target}", "Look through it before you hand it on")
    return 0


def _target(output: str | None, now: dt.datetime) -> Path:
    name = f"ostler-diagnostics-{now:%Y%m%d-%H%M%S}.zip"
    if output is None:
        return Path.cwd() / name
    chosen = Path(os.path.abspath(os.path.expanduser(output)))
    return chosen / name if chosen.is_dir() else chosen


def _show(told: list[dict[str, object]]) -> None:
    for entry in told:
        size = int(str(entry["bytes"]))
        shown = f"{size / 1024:.0f} KiB" if size >= 1024 else f"{size} B"
        click.echo(f"{entry['name']!s:16} {shown:>9}  {entry['what']}")
