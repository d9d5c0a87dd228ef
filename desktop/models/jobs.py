"""Jobs and residents as one list with headings: what waits for somebody first, then what runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from PySide6.QtCore import QAbstractListModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from daemon_core.control.views import JobView, ResidentView
from desktop.text import _, mark

Index = QModelIndex | QPersistentModelIndex
ENTRY: Final = Qt.ItemDataRole.UserRole + 1
AT_WORK: Final = frozenset({"running", "starting", "building", "stopping", "waiting"})
"""States of residents in which there is or will be a process."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row. ``key`` stays the same as long as it is about the same thing."""

    key: str
    heading: str = ""
    """Untranslated; empty for what is no heading."""
    job: JobView | None = None
    resident: ResidentView | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        if self.job is not None:
            return job_name(self.job)
        if self.resident is not None:
            return self.resident.name or self.resident.id
        return _(self.heading) if self.heading else ""


def job_name(job: JobView) -> str:
    """Its name, or its command on one line."""
    return job.name or " ".join(job.command.split()) or job.id[:8]


def entries_of(jobs: Iterable[JobView], residents: Iterable[ResidentView]) -> list[Entry]:
    """The whole list, in order."""
    found = list(jobs)
    newest = {"key": lambda job: job.created_at, "reverse": True}
    stalled = [job for job in found if job.ended_at is None and job.stalled]
    running = [job for job in found if job.ended_at is None and not job.stalled]
    ended = [job for job in found if job.ended_at is not None]
    made: list[Entry] = []

    def add(heading: str, entries: list[Entry]) -> None:
        if entries:
            made.append(Entry(f"heading {heading}", heading))
            made.extend(entries)

    def of_jobs(some: list[JobView]) -> list[Entry]:
        return [Entry(f"job {job.id}", job=job) for job in sorted(some, **newest)]  # type: ignore[call-overload]

    add(mark("Waits for you"), of_jobs(stalled))
    add(mark("Running"), of_jobs(running))
    known = sorted(residents, key=lambda each: (each.name or each.id).casefold())
    add(mark("Residents"), [Entry(f"resident {each.id}", resident=each) for each in known])
    add(mark("Ended"), of_jobs(ended))
    return made


class JobsModel(QAbstractListModel):
    """The list; changed row by row, so that what is chosen stays chosen."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.entries: list[Entry] = []

    def show_entries(self, wanted: list[Entry]) -> None:
        """Make the list this one."""
        nowhere = QModelIndex()
        kept = {entry.key for entry in wanted}
        for row in range(len(self.entries) - 1, -1, -1):
            if self.entries[row].key not in kept:
                self.beginRemoveRows(nowhere, row, row)
                del self.entries[row]
                self.endRemoveRows()
        for row, entry in enumerate(wanted):
            at = next(
                (place for place in range(row, len(self.entries)) if self.entries[place].key == entry.key), -1
            )
            if at < 0:
                self.beginInsertRows(nowhere, row, row)
                self.entries.insert(row, entry)
                self.endInsertRows()
                continue
            if at > row:
                self.beginMoveRows(nowhere, at, at, nowhere, row)
                self.entries.insert(row, self.entries.pop(at))
                self.endMoveRows()
            if self.entries[row] != entry:
                self.entries[row] = entry
                index = self.index(row)
                self.dataChanged.emit(index, index)

    def row_of(self, key: str) -> int:
        """Where it stands; -1: nowhere."""
        return next((row for row, entry in enumerate(self.entries) if entry.key == key), -1)

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: N802, B008 - Qt's
        return 0 if parent.isValid() else len(self.entries)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self.entries):
            return None
        entry = self.entries[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return entry.name
        if role == Qt.ItemDataRole.AccessibleTextRole:
            thing = entry.job.status if entry.job is not None else ""
            thing = entry.resident.state if entry.resident is not None else thing
            return f"{entry.name}: {thing}" if thing else entry.name
        return entry if role == ENTRY else None

    def flags(self, index: Index) -> Qt.ItemFlag:
        if index.isValid() and self.entries[index.row()].heading:
            return Qt.ItemFlag.ItemNeverHasChildren
        return super().flags(index)
