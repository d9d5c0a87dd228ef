"""What the user was told, kept over restarts: so that nothing is said twice, and nothing is lost.

One small file in the state directory, written before anything is shown: a death in between costs a
notification, whose message is listed all the same. A file that cannot be read is as good as none: what
happened before this moment is then no news.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from daemon_core.settings.atomic import write_private
from desktop.daemon.link import now_text
from desktop.notifications.planner import Fact
from desktop.words import parse

log = logging.getLogger("ostler.desktop.notifications")

FORMAT: Final = 1
MOST: Final = 1_000
"""So many subjects are remembered; ``since`` moves on over those that are forgotten."""
REPEAT_S: Final = 3_600.0
"""Trouble that goes away and comes back within this time is the same trouble."""


class Said(msgspec.Struct):
    """``over_at``: when it stopped being so (RFC 3339); empty: it has not."""

    key: str
    at: str
    over_at: str = ""


class _File(msgspec.Struct):
    format: int = FORMAT
    since: str = ""
    snooze_until: str = ""
    said: dict[str, Said] = msgspec.field(default_factory=dict)
    open: list[msgspec.Raw] = msgspec.field(default_factory=list)


class Told:
    """Attributes:
    since: What ended before this is no news (RFC 3339).
    fresh: Whether nothing was told in this profile before.
    snooze_until: Until when the user wants to hear nothing; empty: he does.
    """

    def __init__(self, path: Path | None) -> None:
        """``path`` None: nothing is known, and nothing is kept."""
        self._path = path
        self._written = b""
        found = self._read()
        self.fresh = found is None
        found = found or _File(since=now_text())
        self.since = found.since or now_text()
        self.snooze_until = found.snooze_until
        self._said = found.said
        self.open = list(_facts(found.open))

    def knows(self, subject: str, key: str, repeat_s: float = REPEAT_S) -> bool:
        """Whether this was said, or is the same trouble as what was said lately."""
        said = self._said.get(subject)
        if said is None:
            return False
        if said.key != key:
            return False
        over = parse(said.over_at)
        return over is None or (dt.datetime.now(dt.UTC) - over).total_seconds() < repeat_s

    def say(self, subject: str, key: str) -> None:
        """It is said now, or was decided not to be."""
        self._said.pop(subject, None)  # the newest at the end
        self._said[subject] = Said(key, now_text())
        while len(self._said) > MOST:
            oldest = next(iter(self._said))
            self.since = max(self.since, self._said.pop(oldest).at)

    def over(self, subject: str) -> bool:
        """It is not so any more; whether that is new."""
        said = self._said.get(subject)
        if said is None or said.over_at:
            return False
        said.over_at = now_text()
        return True

    def holds(self, subject: str) -> bool:
        """It is so; whether that is new."""
        said = self._said.get(subject)
        if said is None or not said.over_at:
            return False
        said.over_at = ""
        return True

    def standing(self, prefix: str) -> list[str]:
        """Subjects of a kind that were said and are not over."""
        return [
            subject for subject, said in self._said.items() if subject.startswith(prefix) and not said.over_at
        ]

    def save(self, open_facts: Iterable[Fact]) -> None:
        """Write it down, if it is different from what stands there.

        A few kilobytes without ``fsync``: a power cut may cost the last of it, and then something is said
        twice.
        """
        facts = [msgspec.Raw(msgspec.json.encode(fact)) for fact in open_facts]
        data = msgspec.json.encode(
            _File(since=self.since, snooze_until=self.snooze_until, said=self._said, open=facts)
        )
        if data == self._written or self._path is None:
            return
        try:
            write_private(self._path, data, durable=False)
            self._written = data
        except OSError as error:
            log.warning("what was told cannot be written down: %s", error)

    def _read(self) -> _File | None:
        if self._path is None:
            return None
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("what was told cannot be read: %s", error)
            return None
        try:
            found = msgspec.json.decode(data, type=_File)
        except ValueError as error:
            log.warning("what was told makes no sense, and is begun anew: %s", error)
            return None
        return found if found.format == FORMAT else None


def _facts(raw: Iterable[Any]) -> Iterable[Fact]:
    for each in raw:
        try:
            yield msgspec.json.decode(each, type=Fact)
        except msgspec.MsgspecError as error:
            log.warning("a message of another version is left out: %s", error)
