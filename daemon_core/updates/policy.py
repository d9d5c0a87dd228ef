"""What the updater does next, and how long it waits otherwise. Pure: a book, rules and the time go in.

- The first check comes some minutes after the start, further ones after the interval; both are spread, so
  that not all installations ask at once. A failed check is tried again after a pause that doubles. Nothing
  else asks for anything by itself.
- What is fetched is applied at a quiet moment: no task has run for a while. That is waited for up to a limit;
  afterwards it is applied all the same, since runs go on over a restart. It is not applied by itself where
  the user has switched that off, or wants to hear of it later, or where it has failed before.
- Told: ready, once for a version, unless it is applied within minutes anyway.
"""

from __future__ import annotations

import datetime as dt
import enum
import random
from dataclasses import dataclass
from typing import Final

from daemon_core.updates.history import Book, left_s, until_s
from daemon_core.updates.offers import Problem
from daemon_core.updates.stages import AWAY, HERE, LIMITS_S, RESULTS, Stage

WEEK_S: Final = 7 * 86400.0
LATER_LIMIT_S: Final = 90 * 86400.0
NEVER_S: Final = 3600.0
"""Where there is nothing to wait for, a look is taken after this: a machine that slept has missed its
timers."""
RETRY_LIMIT_S: Final = 4 * 86400.0
"""What does not work is tried this seldom at last."""
HINT_AFTER_S: Final = 14 * 86400.0
"""A server that cannot be reached, or whose metadata has expired, is worth a word after this."""
HINT_SOON_S: Final = 86400.0
"""What has to do with this machine, or with trust, after this."""
_PATIENT: Final = frozenset({"unreachable", "server_error", "slow", "expired", "endless", "old_metadata"})


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings ``updates.*``."""

    check: bool = True
    automatic: bool = True
    interval_s: float = 6 * 3600.0
    quiet_limit_s: float = 24 * 3600.0
    url: str = ""
    size_limit_bytes: int = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Timing:
    """What is not the user's to choose."""

    first_least_s: float = 120.0
    first_most_s: float = 480.0
    retry_first_s: float = 300.0
    network_least_s: float = 10.0
    network_most_s: float = 60.0
    """After a change of the network, where the last check has failed."""
    spread: float = 0.15
    quiet_s: float = 20.0
    """Without a task for so long is a quiet moment."""
    settle_s: float = 60.0
    """After the start nothing is applied by itself for so long."""
    announce_s: float = 300.0
    wish_limit_s: float = 60.0
    """A wish to check is answered after this at the latest, with what is known then."""


class Do(enum.Enum):
    CHECK = "check"
    FETCH = "fetch"
    ARM = "arm"
    DISARM = "disarm"
    SWITCH = "switch"
    REMIND = "remind"
    """The user wanted to hear of it later: that is now."""
    ANNOUNCE = "announce"
    SETTLE = "settle"
    """A stage took too long: look what has become of it, and give it up."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known about now.

    Attributes:
        now: By the wall clock.
        check_in_s: To the next check.
        quiet_for_s: How long no task has run; 0: one does.
        alive_s: How long this process lives.
        wanted: Somebody asked for a check.
        announced: ``ready`` of this version is told, or waits to be.
    """

    now: dt.datetime
    check_in_s: float
    quiet_for_s: float = 0.0
    alive_s: float = 1e9
    wanted: bool = False
    announced: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do; ``None``: wait ``wait_s``, or until something changes."""

    do: Do | None
    wait_s: float = NEVER_S


def decide(book: Book, rules: Rules, moment: Moment, timing: Timing) -> Decision:
    """The next step."""
    state = book.state
    stage = state.stage
    if stage in AWAY:
        limit_s = LIMITS_S[stage]
        assert limit_s is not None
        # A clock that is set meanwhile ends nothing: this process waits its own time, too.
        rest_s = max(left_s(state.since, limit_s, moment.now), limit_s - moment.alive_s)
        return Decision(None, min(rest_s, NEVER_S)) if rest_s > 0 else Decision(Do.SETTLE)
    if stage in HERE:
        here = _with_version_here(book, rules, moment, timing)
        if here.do is not None:
            return here
        checking = _checking(rules, moment)
        return checking if checking.do is not None else Decision(None, min(here.wait_s, checking.wait_s))
    checking = _checking(rules, moment)
    if checking.do is not None and stage in (Stage.IDLE, Stage.AVAILABLE, *RESULTS):
        return checking
    if stage is Stage.AVAILABLE and (rules.check or state.at_once):
        pause_s = until_s(state.next_try_at, RETRY_LIMIT_S, moment.now)
        return Decision(None, min(pause_s, checking.wait_s)) if pause_s > 0 else Decision(Do.FETCH)
    return checking


def _checking(rules: Rules, moment: Moment) -> Decision:
    if moment.wanted:
        return Decision(Do.CHECK)
    if not rules.check:
        return Decision(None, NEVER_S)
    return Decision(Do.CHECK) if moment.check_in_s <= 0 else Decision(None, min(moment.check_in_s, NEVER_S))


def _with_version_here(book: Book, rules: Rules, moment: Moment, timing: Timing) -> Decision:
    state = book.state
    pause_s = until_s(state.next_try_at, RETRY_LIMIT_S, moment.now)
    if state.at_once:
        return Decision(Do.SWITCH) if pause_s <= 0 else Decision(None, pause_s)
    later_s = reminded_s(book, moment.now)
    if later_s <= 0 and book.remind_version == state.target and book.remind_at is not None:
        return Decision(Do.REMIND)
    automatic = rules.automatic and later_s <= 0 and not state.failed_before
    if automatic != (state.stage is Stage.WAITING):
        return Decision(Do.ARM if automatic else Do.DISARM)
    ready_for_s = timing.announce_s - left_s(state.ready_since, timing.announce_s, moment.now)
    announced = moment.announced or state.failed_before
    if later_s <= 0 and not announced and (not automatic or ready_for_s >= timing.announce_s):
        return Decision(Do.ANNOUNCE)
    if not automatic:
        return Decision(None, later_s or NEVER_S)
    waits = [timing.settle_s - moment.alive_s, pause_s]
    limit_s = left_s(state.ready_since, rules.quiet_limit_s, moment.now)
    if limit_s > 0:
        # A task that runs has its end told; the time to wait is that of the quiet after it.
        quiet_in_s = limit_s if moment.quiet_for_s <= 0 else timing.quiet_s - moment.quiet_for_s
        waits.append(min(limit_s, quiet_in_s))
    wait_s = max(waits)
    if wait_s <= 0:
        return Decision(Do.SWITCH)
    if not moment.announced:
        wait_s = min(wait_s, max(timing.announce_s - ready_for_s, 0.1))
    return Decision(None, wait_s)


def reminded_s(book: Book, now: dt.datetime) -> float:
    """How long the user does not want to hear of this version; 0: no longer."""
    if not book.remind_version or book.remind_version != book.state.target:
        return 0.0
    return until_s(book.remind_at, LATER_LIMIT_S, now)


def applies_at(book: Book, rules: Rules, now: dt.datetime) -> dt.datetime | None:
    """When it is applied at the latest by itself; None: it is not."""
    if book.state.stage is not Stage.WAITING:
        return None
    return now + dt.timedelta(seconds=left_s(book.state.ready_since, rules.quiet_limit_s, now))


def first_check_s(book: Book, rules: Rules, timing: Timing, now: dt.datetime, rng: random.Random) -> float:
    """From the start to the first check: some minutes, or what is left of the interval."""
    soon_s = rng.uniform(timing.first_least_s, timing.first_most_s)
    return max(soon_s, left_s(book.checked_at, rules.interval_s, now))


def next_check_s(failures: int, rules: Rules, timing: Timing, rng: random.Random) -> float:
    """From one check to the next one; ``failures`` in a row lie behind."""
    plain_s = rules.interval_s
    if failures:
        plain_s = min(rules.interval_s, timing.retry_first_s * 2.0 ** min(failures - 1, 20))
    return plain_s * rng.uniform(1 - timing.spread, 1 + timing.spread)


def retry_s(
    attempts: int, rules: Rules, timing: Timing, rng: random.Random, *, lasting: bool = False
) -> float:
    """From one attempt to fetch or to switch to the next one.

    Args:
        lasting: It is known that it will not work, unless what is offered is mended.
    """
    if not lasting:
        return next_check_s(max(attempts, 1), rules, timing, rng)
    plain_s = min(rules.interval_s * 2.0 ** min(attempts, 5), RETRY_LIMIT_S)
    return plain_s * rng.uniform(1 - timing.spread, 1 + timing.spread)


def worth_a_word(problem: Problem | None, failing_since: str | None, now: dt.datetime) -> bool:
    """Whether checks have failed for so long that the user should know."""
    if problem is None or failing_since is None:
        return False
    limit_s = HINT_AFTER_S if problem.code in _PATIENT else HINT_SOON_S
    return left_s(failing_since, limit_s, now) <= 0
