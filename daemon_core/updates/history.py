"""``update.json``: where the update is, what became of earlier ones, and what the user has been told.

One file, replaced as a whole after every step, so a death leaves the step before or the step after. A file
that cannot be read is set aside and begun anew: it decides nothing about what runs.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
from pathlib import Path
from typing import Final

import msgspec

from daemon_core.settings.atomic import write_private
from daemon_core.updates.offers import Problem
from daemon_core.updates.stages import State

log = logging.getLogger(__name__)

HISTORY_KEPT: Final = 50
TOLD_KEPT: Final = 50
FORMAT: Final = 1


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an update."""

    version: str
    from_version: str
    result: str
    """committed, rolled_back or failed."""
    at: str
    asked_by: str = "automatic"
    problem: Problem | None = None


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What the user is to be told once."""

    kind: str
    """ready, updated, rolled_back or failed."""
    version: str
    from_version: str = ""
    notes: dict[str, list[str]] = {}
    problem: Problem | None = None


class ServerWish(msgspec.Struct, frozen=True, kw_only=True):
    """An update that a server asked for; it is owed an answer, whichever version gives it."""

    connection: str
    runtime_id: str
    request_id: str
    version: str = ""
    """The one that it wants; empty: the newest."""
    at: str = ""


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """All that is kept.

    Attributes:
        checked_at: The last check that was answered.
        failing_since: Since when checks are not answered; None: the last one was.
        check_problem: Why not.
        running: The version that ran when this was written.
        told: ``kind version`` of each notice that was told.
        remind_version: The version that the user wants to hear of later, at ``remind_at``.
    """

    format: int = FORMAT
    state: State = State()
    checked_at: str | None = None
    failing_since: str | None = None
    check_problem: Problem | None = None
    running: str = ""
    history: list[Result] = []
    notices: list[Notice] = []
    told: list[str] = []
    remind_version: str = ""
    remind_at: str | None = None
    wishes: list[ServerWish] = []


def with_result(book: Book, result: Result) -> Book:
    """With one more line, the newest first. The same failure once more only has a newer time."""
    before = book.history
    if before and result.result == "failed" and _what(before[0]) == _what(result):
        before = before[1:]
    return msgspec.structs.replace(book, history=[result, *before][:HISTORY_KEPT])


def _what(result: Result) -> tuple[str, str, str]:
    return result.version, result.result, result.problem.code if result.problem is not None else ""


def with_notice(book: Book, notice: Notice) -> Book:
    """With one more notice, unless it was told before. What is ready is not news any more once it runs, or
    once a newer one is."""
    if f"{notice.kind} {notice.version}" in book.told:
        return book
    others = [each for each in book.notices if each.kind != notice.kind and each.kind != "ready"]
    return msgspec.structs.replace(book, notices=[*others, notice])


def without_notices(book: Book, kind: str) -> Book:
    return msgspec.structs.replace(book, notices=[each for each in book.notices if each.kind != kind])


def told(book: Book, kind: str, version: str) -> Book:
    """The user knows this now."""
    left = [each for each in book.notices if (each.kind, each.version) != (kind, version)]
    mark = f"{kind} {version}"
    marks = [each for each in book.told if each != mark]
    return msgspec.structs.replace(book, notices=left, told=[*marks, mark][-TOLD_KEPT:])


def untold(book: Book, kind: str, version: str) -> Book:
    """It is news again: the same version is put in place once more."""
    return msgspec.structs.replace(book, told=[each for each in book.told if each != f"{kind} {version}"])


class BookFile:
    """The file. Blocking; a few kilobytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Book:
        """What is kept; an empty book where there is none, or none that can be read."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return Book()
        except OSError as error:
            log.warning("%s cannot be read, it is begun anew: %s", self.path, error)
            return Book()
        try:
            book = msgspec.json.decode(raw, type=Book)
            if book.format == FORMAT:
                return book
            why = f"it has the format {book.format}"
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            why = str(error)
        log.warning("%s cannot be understood and is set aside: %s", self.path, why)
        with contextlib.suppress(OSError):
            os.replace(self.path, self.path.with_suffix(".damaged"))
        return Book()

    def save(self, book: Book) -> None:
        """Keep it, durably. Raises ``OSError``; the old one is then still there."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.path, msgspec.json.encode(book))


# --- times ------------------------------------------------------------------------------------------------


def text(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(value: str | None) -> dt.datetime | None:
    """A recorded time; None for none, and for what is no time."""
    if not value:
        return None
    try:
        found = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def left_s(since: str | None, length_s: float, now: dt.datetime) -> float:
    """What is left of a time that began then. A clock that was set, forwards or back, makes it at most end at
    once or begin anew."""
    begun = moment(since)
    if begun is None:
        return 0.0
    return min(max(length_s - (now - begun).total_seconds(), 0.0), length_s)


def until_s(at: str | None, most_s: float, now: dt.datetime) -> float:
    """Seconds to a recorded moment, from 0 to ``most_s``; 0 where none is recorded."""
    found = moment(at)
    if found is None:
        return 0.0
    return min(max((found - now).total_seconds(), 0.0), most_s)
