"""``ostler disk``: what is used by what and why it is kept, and the clean-up by hand."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command as _Command
from daemon_core.cli.base import LazyGroup, pass_session, session_of
from daemon_core.cli.session import Session
from daemon_core.cli.words import condition, disk_reason, plural
from daemon_core.control.views import CleanRequest, CleanRound, DiskReport

CLEAN_TIMEOUT_S: Final = 600.0
_AREAS: Final = {
    "runs": "raw output of runs",
    "changes": "what tasks changed",
    "journal": "record of tasks",
    "hub": "conversations",
    "logs": "logs",
    "homes": "agents' homes for your directories",
    "skills": "cached skills",
    "jobs": "jobs and their output",
    "trash": "being removed",
}


class _Group(LazyGroup):
    def invoke(self, ctx: click.Context) -> object:
        if not ctx._protected_args and not ctx.args:
            _report(session_of(ctx))
            return None
        return super().invoke(ctx)


disk = _Group(
    "disk",
    {"clean": ("disk:clean", "Remove now what may go.")},
    help="What Ostler has on the disk, and why it is kept. Your own directories are never touched.",
    invoke_without_command=True,
    no_args_is_help=False,
)


def _report(session: Session) -> None:
    found = session.call(DiskReport, "GET", "/v1/disk", timeout_s=CLEAN_TIMEOUT_S)
    if session.json:
        session.document(found)
        return
    if found.directories:
        click.echo(
            show.table(
                ("SIZE", "TASK", "ENDED", "TITLE", "WHY", "GOES"),
                (
                    (
                        show.size(entry.bytes),
                        entry.task_id[:8] or show.one_line(PurePath(entry.path).name, 12),
                        show.local_time(entry.ended_at),
                        show.one_line(entry.title, 30) or "-",
                        disk_reason(entry.reason),
                        show.local_time(entry.goes_at) if entry.goes_at else "-",
                    )
                    for entry in found.directories
                ),
            )
        )
        click.echo()
    if found.repositories:
        click.echo(
            show.table(
                ("SIZE", "COPY OF", "LAST USED", "WHY", "GOES"),
                (
                    (
                        show.size(entry.bytes),
                        show.one_line(entry.name or entry.path, 60),
                        show.local_time(entry.last_used_at),
                        f"used by {plural(entry.worktrees, 'task directory', 'task directories')}"
                        if entry.worktrees
                        else "kept for the next task",
                        show.local_time(entry.goes_at) if entry.goes_at else "-",
                    )
                    for entry in found.repositories
                ),
            )
        )
        click.echo()
    works = sum(entry.bytes for entry in found.directories)
    tools = sum(entry.artifact_bytes for entry in found.directories)
    again = f", of that {show.size(tools)} that tools can make again" if tools else ""
    pairs = [("Work directories", show.size(works) + again)]
    repositories = sum(entry.bytes for entry in found.repositories)
    if found.repositories:
        count = plural(len(found.repositories), "repository", "repositories")
        pairs.append(("Copies of repositories", f"{show.size(repositories)} in {count}"))
    pairs += [
        (_AREAS.get(area.name, area.name).capitalize(), show.size(area.bytes))
        for area in found.areas
        if area.bytes
    ]
    pairs.append(("Together", show.size(found.total_bytes)))
    pairs += [("Budget", show.size(found.budget))] if found.budget else []
    for space in found.spaces:
        floor = f"; below {show.size(space.floor)} no tasks are taken" if space.floor else ""
        pairs.append((f"Free at {space.path}", f"{show.size(space.free)} of {show.size(space.total)}{floor}"))
    click.echo(show.facts(pairs))
    for space in found.spaces:
        if space.low:
            session.note(*condition("disk_low", {"path": space.path}))
    last = found.last_clean
    if last is None:
        session.note("There was no clean-up yet", "`ostler disk clean --dry-run` shows what would go")
    else:
        session.note(
            f"Last clean-up at {show.local_time(last.at)}: {show.size(last.freed_bytes)} freed",
            "`ostler disk clean --dry-run` shows what would go now",
        )


@click.command(cls=_Command)
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@pass_session
def clean(session: Session, dry_run: bool) -> None:
    """Remove now what may go. It happens by itself, too."""
    done = session.call(
        CleanRound, "POST", "/v1/disk/clean", CleanRequest(dry_run=dry_run), timeout_s=CLEAN_TIMEOUT_S
    )
    if session.json:
        session.document(done)
        return
    for item in done.items:
        name = show.safe(item.title) or item.path
        if item.action == "artifacts":
            name += " (what tools can make again)"
        elif item.action == "repository":
            name = f"Ostler's copy of {name}"
        click.echo(f"{show.size(item.bytes):>9}  {name}: {disk_reason(item.reason)}")
    if dry_run:
        session.say(
            f"{show.size(done.freed_bytes)} would be freed" if done.items else "Nothing would go",
            "`ostler disk clean` does it" if done.items else "",
        )
        return
    freed = bool(done.items or done.freed_bytes or done.left)
    told = f"{show.size(done.freed_bytes)} freed" if freed else "No directory had to go"
    if done.tasks:
        told += f", {plural(done.tasks, 'old task')} forgotten"
    if done.runs:
        told += f", the raw output of {plural(done.runs, 'run')} removed"
    session.say(told)
    for path in done.left:
        session.note(f"{show.safe(path)} could not be removed", "Check its permissions")
