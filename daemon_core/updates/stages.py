"""The stages of an update, as a table and pure steps.

No I/O and no clock: what is known goes in, a state comes out.

::

    idle ── check ──▶ checking ── found ──▶ available ── fetch ──▶ downloading ── fetched ──▶ staged
     ▲                   │ nothing, not known                          │ put off: available       │ arm
     │◀──────────────────┘ (kept: staged)                              │ failed                   ▼
     │                                                                 ▼                       waiting
    committed, rolled_back, failed ◀── verifying ◀── restarting ◀── switching ◀── go ─────────────┘
        (until the next check)

Every stage has an end (``LIMITS_S``): what nobody finishes is given up or tried again, never waited for for
ever. A state is written to the disk after every step, so it is also what a process finds that comes after a
death; ``recovered`` says how it goes on from there. What is true about the installed versions is not in here
but in their own pointer: a state only ever follows it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from daemon_core.updates.offers import Offer, Problem

ATTEMPTS: Final = 5
"""So often a version is fetched, or switched to, before it is left alone until the next check."""


class Stage(enum.Enum):
    IDLE = "idle"
    """Nothing is known that is newer."""
    CHECKING = "checking"
    AVAILABLE = "available"
    """There is a newer version; it is fetched next, or again after a pause."""
    DOWNLOADING = "downloading"
    """It is fetched, unpacked and verified."""
    STAGED = "staged"
    """It is here whole; nothing happens by itself."""
    WAITING = "waiting"
    """It is here whole, and applied at a quiet moment."""
    SWITCHING = "switching"
    """Claims are held, the process is about to become the next version."""
    RESTARTING = "restarting"
    """Somebody else is to run now: the launcher decides."""
    VERIFYING = "verifying"
    """This process is the version on trial."""
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


class Event(enum.Enum):
    CHECK = "check"
    FOUND = "found"
    """There is a version to have that is not here yet."""
    NOTHING = "nothing"
    """There is none, or it could not be learnt."""
    KEPT = "kept"
    """The one that is here already is still the one to have."""
    FETCH = "fetch"
    PUT_OFF = "put_off"
    """It could not be fetched, or the switch did not come about; it is tried again."""
    FETCHED = "fetched"
    ARM = "arm"
    """It is to be applied by itself."""
    DISARM = "disarm"
    GO = "go"
    """Now."""
    LEAVING = "leaving"
    """What follows is not in this process's hands."""
    ON_TRIAL = "on_trial"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    """Nothing more is tried for this version before the next check."""
    GONE = "gone"
    """The version is withdrawn, superseded or in place already."""
    LOST = "lost"
    """What is staged is not whole any more."""


_S, _E = Stage, Event
TRANSITIONS: Final[Mapping[tuple[Stage, Event], Stage]] = {
    (_S.IDLE, _E.CHECK): _S.CHECKING,
    (_S.AVAILABLE, _E.CHECK): _S.CHECKING,
    (_S.STAGED, _E.CHECK): _S.CHECKING,
    (_S.COMMITTED, _E.CHECK): _S.CHECKING,
    (_S.ROLLED_BACK, _E.CHECK): _S.CHECKING,
    (_S.FAILED, _E.CHECK): _S.CHECKING,
    (_S.CHECKING, _E.FOUND): _S.AVAILABLE,
    (_S.CHECKING, _E.NOTHING): _S.IDLE,
    (_S.CHECKING, _E.KEPT): _S.STAGED,
    (_S.CHECKING, _E.PUT_OFF): _S.AVAILABLE,
    (_S.AVAILABLE, _E.FETCH): _S.DOWNLOADING,
    (_S.AVAILABLE, _E.GONE): _S.IDLE,
    (_S.DOWNLOADING, _E.FETCHED): _S.STAGED,
    (_S.DOWNLOADING, _E.PUT_OFF): _S.AVAILABLE,
    (_S.DOWNLOADING, _E.FAILED): _S.FAILED,
    (_S.STAGED, _E.ARM): _S.WAITING,
    (_S.STAGED, _E.GO): _S.SWITCHING,
    (_S.STAGED, _E.GONE): _S.IDLE,
    (_S.STAGED, _E.LOST): _S.AVAILABLE,
    (_S.WAITING, _E.DISARM): _S.STAGED,
    (_S.WAITING, _E.GO): _S.SWITCHING,
    (_S.WAITING, _E.GONE): _S.IDLE,
    (_S.WAITING, _E.LOST): _S.AVAILABLE,
    (_S.SWITCHING, _E.LEAVING): _S.RESTARTING,
    (_S.SWITCHING, _E.PUT_OFF): _S.STAGED,
    (_S.SWITCHING, _E.LOST): _S.AVAILABLE,
    (_S.SWITCHING, _E.FAILED): _S.FAILED,
    (_S.SWITCHING, _E.ON_TRIAL): _S.VERIFYING,
    (_S.SWITCHING, _E.COMMITTED): _S.COMMITTED,
    (_S.SWITCHING, _E.ROLLED_BACK): _S.ROLLED_BACK,
    (_S.RESTARTING, _E.ON_TRIAL): _S.VERIFYING,
    (_S.RESTARTING, _E.COMMITTED): _S.COMMITTED,
    (_S.RESTARTING, _E.ROLLED_BACK): _S.ROLLED_BACK,
    (_S.RESTARTING, _E.PUT_OFF): _S.STAGED,
    (_S.RESTARTING, _E.LOST): _S.AVAILABLE,
    (_S.RESTARTING, _E.FAILED): _S.FAILED,
    (_S.VERIFYING, _E.COMMITTED): _S.COMMITTED,
    (_S.VERIFYING, _E.ROLLED_BACK): _S.ROLLED_BACK,
    (_S.VERIFYING, _E.FAILED): _S.FAILED,
}

HERE: Final = frozenset({Stage.STAGED, Stage.WAITING})
"""The version is here whole."""
RESULTS: Final = frozenset({Stage.COMMITTED, Stage.ROLLED_BACK, Stage.FAILED})
AWAY: Final = frozenset({Stage.SWITCHING, Stage.RESTARTING, Stage.VERIFYING})
"""The pointer and the launcher say how it goes on."""

LIMITS_S: Final[Mapping[Stage, float | None]] = {
    Stage.IDLE: None,  # the next check
    Stage.CHECKING: 120.0,
    Stage.AVAILABLE: None,  # the next attempt, or the next check
    Stage.DOWNLOADING: 24 * 3600.0,
    Stage.STAGED: None,  # the next check; the user
    Stage.WAITING: None,  # the user's own limit of the wait for a quiet moment
    Stage.SWITCHING: 180.0,
    Stage.RESTARTING: 300.0,
    Stage.VERIFYING: 300.0,
    Stage.COMMITTED: None,  # the next check
    Stage.ROLLED_BACK: None,
    Stage.FAILED: None,
}
"""The longest a stage may take by itself; None: something else bounds it, as said."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where an update is.

    Attributes:
        since: When the stage began (RFC 3339).
        offer: The version that all this is about; None where there is none, and on the way back.
        target: Its number, also on the way back.
        whole: It is here whole, and may be put in place.
        at_once: The user (or a server) wants it without waiting for a quiet moment.
        back: It is the version before, which the user wants again.
        failed_before: It was tried on this machine; somebody asked what there is, and only they may want it.
        attempts: How often it did not work.
        next_try_at: Not before then; None: at once.
        ready_since: When it was first here whole: from then on the wait for a quiet moment counts.
        started_from: The version that ran when the switch began.
    """

    stage: Stage = Stage.IDLE
    since: str = ""
    offer: Offer | None = None
    target: str = ""
    whole: bool = False
    at_once: bool = False
    back: bool = False
    failed_before: bool = False
    asked_by: str = ""
    attempts: int = 0
    next_try_at: str | None = None
    problem: Problem | None = None
    ready_since: str | None = None
    started_from: str = ""


class StageError(Exception):
    """This event cannot happen in this stage: a fault of the program."""

    def __init__(self, stage: Stage, event: Event) -> None:
        self.stage = stage
        self.event = event
        super().__init__(f"{event.value} in the stage {stage.value}")


def step(state: State, event: Event, now: str, *, problem: Problem | None = None) -> State:
    """The state after an event.

    Args:
        now: The time, RFC 3339.
        problem: Why it went that way; stays until something works.

    Raises:
        StageError: It cannot happen here.
    """
    stage = TRANSITIONS.get((state.stage, event))
    if stage is None:
        raise StageError(state.stage, event)
    replace = msgspec.structs.replace
    state = replace(state, stage=stage, since=now)
    match event:
        case Event.FETCHED:
            return replace(
                state,
                whole=True,
                attempts=0,
                next_try_at=None,
                problem=None,
                ready_since=state.ready_since or now,
            )
        case Event.PUT_OFF | Event.LOST:
            whole = state.whole and event is not Event.LOST
            return replace(state, whole=whole, attempts=state.attempts + 1, problem=problem)
        case Event.NOTHING | Event.GONE:
            return State(stage=stage, since=now, problem=problem)
        case Event.KEPT:
            return replace(state, problem=problem)
        case Event.COMMITTED | Event.ROLLED_BACK:
            return replace(state, whole=False, at_once=False, next_try_at=None, problem=problem)
        case Event.FAILED:
            return replace(state, whole=False, at_once=False, attempts=state.attempts + 1, problem=problem)
        case _:
            return state


def found(state: State, offer: Offer, now: str, *, failed_before: bool = False) -> State:
    """``FOUND``, with what it is. What was known of another version is forgotten; what did not work with this
    one counts on, unless it was mended."""
    same = (
        state.offer is not None
        and state.offer.version == offer.version
        and state.offer.full.sha256 == offer.full.sha256
    )
    known = step(state, Event.FOUND, now)
    return msgspec.structs.replace(
        known,
        offer=offer,
        target=offer.version,
        whole=False,
        back=False,
        failed_before=failed_before,
        attempts=state.attempts if same else 0,
        next_try_at=state.next_try_at if same else None,
        problem=state.problem if same else None,
        ready_since=state.ready_since if same else None,
        started_from="",
    )


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is true about the installed versions, as their pointer says it.

    Attributes:
        running: The version that this process is.
        proven: The version that the pointer names.
        on_trial: The one that is on trial; empty: none.
        bad: Versions that failed here, and why.
        whole: Whether the target is here whole.
    """

    running: str
    proven: str
    on_trial: str = ""
    bad: Mapping[str, Problem] = {}
    whole: bool = False


def recovered(state: State, facts: Facts, now: str) -> State:
    """How it goes on in a process that finds this state: after a death, or as the version that was switched
    to."""
    if state.stage in AWAY:
        return _returned(state, facts, now)
    if state.stage is Stage.CHECKING:
        if state.whole:
            return _still_here(step(state, Event.KEPT, now), facts, now)
        # After a commit the offer is that of what runs.
        return _still_newer(
            step(state, Event.PUT_OFF if state.offer is not None else Event.NOTHING, now), facts, now
        )
    if state.stage is Stage.DOWNLOADING:
        # What is here of it is kept, so a death costs nothing and counts for nothing.
        put_off = step(state, Event.PUT_OFF, now)
        put_off = msgspec.structs.replace(put_off, attempts=state.attempts, next_try_at=None)
        return _still_newer(put_off, facts, now)
    if state.stage in HERE:
        return _still_here(state, facts, now)
    return _still_newer(state, facts, now)


def _still_newer(state: State, facts: Facts, now: str) -> State:
    if state.stage is Stage.AVAILABLE and state.target in (facts.running, facts.proven):
        return step(state, Event.GONE, now)
    return state


def _still_here(state: State, facts: Facts, now: str) -> State:
    if state.target == facts.running:
        return step(state, Event.GONE, now)  # it came to run in another way: by the installer, say
    if facts.whole:
        return state
    return _without_offer(step(state, Event.LOST, now), now)


def _without_offer(state: State, now: str) -> State:
    """There is nothing to fetch where nothing was offered (on the way back)."""
    return state if state.offer is not None else step(state, Event.GONE, now)


def _returned(state: State, facts: Facts, now: str) -> State:
    """After a switch: the pointer has the last word."""
    if facts.running == state.target:
        if facts.on_trial == state.target:
            if state.stage is Stage.VERIFYING:
                return state
            return step(state, Event.ON_TRIAL, now)
        if facts.proven == state.target:
            return step(state, Event.COMMITTED, now)
    if facts.on_trial == state.target:
        return state  # somebody else's start decides
    if state.target in facts.bad:
        return step(state, Event.ROLLED_BACK, now, problem=facts.bad[state.target])
    if facts.proven == state.target:
        # It has proven itself and another version runs all the same: that one only needs to start again.
        return step(state, Event.COMMITTED, now)
    if state.stage is Stage.VERIFYING or state.attempts + 1 >= ATTEMPTS:
        return step(state, Event.FAILED, now, problem=Problem(code="lost"))
    if not facts.whole:
        return _without_offer(step(state, Event.LOST, now, problem=Problem(code="lost")), now)
    return step(state, Event.PUT_OFF, now, problem=Problem(code="lost"))
