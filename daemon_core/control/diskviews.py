"""What tasks changed and what is on the disk, in the words of the control API."""

from __future__ import annotations

import datetime as dt

import msgspec

from daemon_core.control.views import (
    ChangeNote,
    CleanItem,
    CleanRound,
    CommitView,
    DiskArea,
    DiskDirectory,
    DiskReport,
    DiskRepository,
    DiskSpace,
    FileChangeView,
    TaskChanges,
)
from daemon_core.tasks import clock
from daemon_core.tasks.housekeeping import CleanRules, Kept, Mirror, Round, Usage, mirror_due, mirror_title
from daemon_core.workdirs.changes import Changes


def changes_view(task_id: str, found: Changes | None, *, live: bool, stat: bool) -> TaskChanges:
    """``found`` None: there was no baseline, so nothing is known."""
    if found is None:
        return TaskChanges(id=task_id, live=live, notes=[ChangeNote(code="no_baseline")])
    files = [
        FileChangeView(
            path=file.path, status=file.status, old_path=file.old_path, added=file.added,
            deleted=file.deleted, binary=file.binary, before=file.before, note=file.note, cut=file.cut,
            diff="" if stat else file.diff,
        )
        for file in found.files
    ]  # fmt: skip
    return TaskChanges(
        id=task_id,
        live=live,
        work_dir=found.work_dir,
        kind=found.kind,
        since=_time(found.since),
        taken_at=_time(found.taken_at),
        files=files,
        files_total=found.files_total,
        added=found.added,
        deleted=found.deleted,
        commits=[CommitView(**msgspec.structs.asdict(commit)) for commit in found.commits],
        commits_total=found.commits_total,
        before=found.before,
        before_total=found.before_total,
        notes=[ChangeNote(code=note.code, params=dict(note.params)) for note in found.notes],
    )


def round_view(done: Round) -> CleanRound:
    """One round of clean-up."""
    return CleanRound(
        at=done.at,
        dry_run=done.dry_run,
        items=[CleanItem(**msgspec.structs.asdict(item)) for item in done.items],
        freed_bytes=done.freed_bytes,
        tasks=done.tasks,
        runs=done.runs,
        left=done.left,
    )


def disk_view(found: Usage, rules: CleanRules) -> DiskReport:
    """The whole report."""
    directories = [_directory(kept) for kept in found.kept]
    repositories = [_repository(mirror, size.total_bytes, rules) for mirror, size in found.mirrors]
    repositories.sort(key=lambda each: -each.bytes)
    areas = [DiskArea(name=name, path=str(path), bytes=size) for name, (path, size) in found.areas.items()]
    return DiskReport(
        total_bytes=(
            sum(each.bytes for each in directories)
            + sum(each.bytes for each in repositories)
            + sum(each.bytes for each in areas)
        ),
        directories=directories,
        repositories=repositories,
        areas=areas,
        spaces=[
            DiskSpace(
                path=space.path, free=space.free_bytes, total=space.total_bytes, floor=space.floor_bytes,
                low=space.low,
            )
            for space in found.spaces
        ],
        budget=rules.budget_bytes,
        retention_days=rules.retention_days,
        run_days=rules.run_days,
        last_clean=round_view(found.last) if found.last is not None else None,
    )  # fmt: skip


def _repository(mirror: Mirror, size: int, rules: CleanRules) -> DiskRepository:
    due = mirror_due(mirror, rules, used=bool(mirror.worktrees))
    return DiskRepository(
        path=str(mirror.path), bytes=size, worktrees=len(mirror.worktrees), name=mirror_title(mirror.path),
        last_used_at=_time(mirror.last_used_at), goes_at=_time(due) if due is not None else None,
    )  # fmt: skip


def _directory(kept: Kept) -> DiskDirectory:
    stamp, row = kept.environment.stamp, kept.row
    due = kept.verdict.due
    if kept.verdict.action == "delete" and due is None:
        due = 0.0
    return DiskDirectory(
        path=str(kept.environment.path),
        bytes=kept.size.total_bytes,
        artifact_bytes=kept.size.artifact_bytes,
        task_id=row.task_id if row is not None else stamp.task_id if stamp is not None else "",
        conversation_id=row.conversation_id if row is not None else stamp.chat_session_id if stamp else "",
        title=row.title if row is not None else "",
        server=row.connection if row is not None else stamp.connection if stamp is not None else "",
        ended_at=(row.ended_at if row is not None else stamp.completed_at if stamp else "") or None,
        reason=kept.verdict.reason,
        goes_at=_time(due) if due is not None else None,
    )


def _time(moment: float) -> str:
    return clock.text(dt.datetime.fromtimestamp(moment, dt.UTC)) if moment else ""
