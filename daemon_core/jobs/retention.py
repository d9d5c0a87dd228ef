"""When an ended job goes, with its files: so that nothing grows without bound, and nothing goes unread.

One whose end its agent has been told of goes soon; one that nobody was told of stays a day. Where the files
of ended jobs take more than their room, the oldest go first, those that were told of before the others.
A job that goes on never goes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

import msgspec

from daemon_core.jobs.store import JobRecord


class KeepRules(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much is kept."""

    told_s: float = 3600.0
    """After whoever has to know was told."""
    untold_s: float = 86400.0
    budget_bytes: int = 2 * 2**30
    """Of the files of all ended jobs together; 0: no limit."""


def goes_at(job: JobRecord, followed_up_at: str, rules: KeepRules) -> dt.datetime | None:
    """When a job that has ended goes; None for one that has not."""
    ended = _parse(job.ended_at)
    if not job.ended or ended is None:
        return None
    told = _parse(followed_up_at)
    if told is not None:
        return max(told, ended) + dt.timedelta(seconds=rules.told_s)
    return ended + dt.timedelta(seconds=rules.untold_s)


def due(
    ended: Iterable[tuple[JobRecord, str]], sizes: Mapping[str, int], rules: KeepRules, now: dt.datetime
) -> tuple[list[str], dt.datetime | None]:
    """Which ended jobs go now, and when the next one does.

    Args:
        ended: With when each was followed up (empty: it was not), oldest end first.
        sizes: What the files of each take.
    """
    going: list[str] = []
    stay: list[tuple[JobRecord, str]] = []
    following: dt.datetime | None = None
    for job, told in ended:
        moment = goes_at(job, told, rules)
        if moment is None:
            continue
        if moment <= now:
            going.append(job.id)
        else:
            stay.append((job, told))
            following = moment if following is None else min(following, moment)
    if rules.budget_bytes:
        total = sum(sizes.get(job.id, 0) for job, _ in stay)
        for job, _ in sorted(stay, key=lambda each: not each[1]):  # stable: oldest first within both
            if total <= rules.budget_bytes:
                break
            if sizes.get(job.id, 0):
                going.append(job.id)
                total -= sizes[job.id]
    return going, following


def _parse(text: str) -> dt.datetime | None:
    try:
        found = dt.datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo else found.replace(tzinfo=dt.UTC)
