"""``ostler task diff``: what a task changed."""

from __future__ import annotations

import sys

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, pass_session
from daemon_core.cli.session import Session, pages, quoted
from daemon_core.cli.words import change_note, plural
from daemon_core.control.client import WORK_TIMEOUT_S
from daemon_core.control.views import FileChangeView, TaskChanges

_LETTERS = {"added": "A", "modified": "M", "deleted": "D", "renamed": "R", "type_changed": "T"}
_WHY = {
    "too_large": "too large for a diff",
    "too_many": "too many files for a diff of each",
    "filtered": "kept by a filter of git",
    "special": "no plain file",
    "unreadable": "cannot be read",
    "submodule": "a repository of its own",
    "not_copied": "its earlier content was not kept",
    "moved": "moved",
}


@click.command(cls=Command)
@click.argument("ident", metavar="ID")
@click.option("--stat", is_flag=True, help="Only which files, and how much of each.")
@pass_session
def diff(session: Session, ident: str, stat: bool) -> None:
    """What a task changed in its directory; of a running one, so far. Your own changes are left out."""
    path = pages(f"/v1/tasks/{quoted(ident)}/changes", stat=stat)
    found = session.call(TaskChanges, "GET", path, timeout_s=WORK_TIMEOUT_S)
    if session.json:
        session.document(found)
        return
    for commit in found.commits:
        made = "" if commit.made else " (made before, only brought in)"
        place = f" in {commit.repository}" if commit.repository else ""
        click.echo(f"commit {commit.id[:12]}{place}: {show.one_line(commit.subject, 100)}{made}")
    if found.commits_total > len(found.commits):
        click.echo(f"… and {found.commits_total - len(found.commits)} more commits")
    if stat:
        for file in found.files:
            click.echo(_line(file))
        if found.files:
            files = plural(found.files_total, "file")
            click.echo(f"{files} changed, {plural(found.added, 'line')} added, {found.deleted} taken away")
    else:
        _print_diffs(found)
    if not found.files and not found.commits and not any(n.code == "no_baseline" for n in found.notes):
        session.note("Nothing was changed" if not found.live else "Nothing has been changed so far")
    if found.before_total:
        session.note(f"{plural(found.before_total, 'file')} had changes of yours before: those are left out")
    for note in found.notes:
        session.note(*change_note(note.code, note.params))


def _print_diffs(found: TaskChanges) -> None:
    for file in found.files:
        if file.diff:
            click.echo(show.safe(file.diff), nl=False)
            if file.cut:
                click.echo(f"… the rest of {show.safe(file.path)} is left out")
        else:
            click.echo(_line(file))
    sys.stdout.flush()


def _line(file: FileChangeView) -> str:
    name = show.safe(file.path).replace("\n", "\\n")
    if file.old_path:
        name = f"{show.safe(file.old_path)} → {name}"
    told = f"{_LETTERS.get(file.status, '?')}  {name}"
    if file.added is not None and file.deleted is not None:
        told += f"  +{file.added} -{file.deleted}"
    elif file.binary:
        told += "  (binary)"
    elif file.note:
        told += f"  ({_WHY.get(file.note, file.note)})"
    return told + ("  (you had changed it before)" if file.before else "")
