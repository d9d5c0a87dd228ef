"""The updater for the control API: wishes in, views and codes out; changes and conditions told."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from daemon_core.control.changes import ChangeLog
from daemon_core.control.errors import ControlError
from daemon_core.control.update_views import UpdateApply, UpdateLater, UpdateTold
from daemon_core.control.views import (
    Condition,
    UpdateNotice,
    UpdateProgress,
    UpdateResult,
    UpdateVersion,
    UpdateView,
)
from daemon_core.updates import history, policy
from daemon_core.updates.history import Notice, Result, ServerWish
from daemon_core.updates.offers import Offer, Problem
from daemon_core.updates.stages import HERE, RESULTS, Stage
from daemon_core.updates.updater import Updater, WishError

log = logging.getLogger(__name__)

BLOCKED: Final = "update_blocked"


class Conditions(Protocol):
    """Where it is said that something is not as it should be."""

    changes: ChangeLog

    def set_condition(self, code: str, subject: str = "", **params: Any) -> None: ...

    def clear_condition(self, code: str, subject: str = "") -> None: ...


class Owner(Protocol):
    """Has tasks of its own."""

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> object: ...


Reporter = Callable[[ServerWish, dict[str, Any]], Awaitable[bool]]
"""Brings an answer to the server that is owed it; whether nobody is owed it any more."""


class UpdateDesk:
    """Implements the routes, and listens to the updater.

    Args:
        owner: Has the reports to servers.
        report: see :data:`Reporter`.
    """

    def __init__(self, conditions: Conditions, owner: Owner, report: Reporter) -> None:
        self._conditions = conditions
        self._owner = owner
        self._report = report
        self._updater: Updater | None = None

    def open(self, updater: Updater) -> None:
        """Take it over, as it is."""
        self._updater = updater
        self.update_changed()

    @property
    def updater(self) -> Updater:
        if self._updater is None:
            raise ControlError("not_ready")
        return self._updater

    # --- questions -------------------------------------------------------------------------------

    def view(self) -> UpdateView:
        updater = self.updater
        book, rules, state = updater.book, updater.rules, updater.book.state
        present = updater.now
        later_s = policy.reminded_s(book, present)
        ready = state.whole and state.stage in (*HERE, Stage.CHECKING) and not state.back
        applies_at = policy.applies_at(book, rules, present)
        next_check = updater.next_check_at
        problem = state.problem or book.check_problem
        return UpdateView(
            stage=state.stage.value,
            since=state.since,
            current=updater.running,
            previous=updater.previous,
            possible=updater.place.source is not None and not updater.elsewhere,
            why_not=_condition(Problem(code="elsewhere") if updater.elsewhere else updater.place.why_not),
            version=_version(state.offer, state.target) if state.stage is not Stage.IDLE else None,
            ready=ready,
            progress=_progress(updater),
            asked_by=state.asked_by if state.stage not in (Stage.IDLE, *RESULTS) else "",
            automatic=rules.automatic,
            waits_for="reminder" if ready and later_s > 0 else "quiet" if applies_at is not None else "",
            applies_at=history.text(applies_at) if applies_at is not None else None,
            remind_at=book.remind_at if later_s > 0 else None,
            next_try_at=state.next_try_at if state.stage is Stage.AVAILABLE else None,
            problem=_condition(problem),
            checked_at=book.checked_at,
            next_check_at=history.text(next_check) if next_check is not None else None,
            notices=[_notice(each) for each in book.notices],
            history=[_result(each) for each in book.history],
        )

    # --- wishes ----------------------------------------------------------------------------------

    async def check(self) -> UpdateView:
        with _refused():
            await self.updater.check()
        return self.view()

    async def apply(self, wanted: UpdateApply) -> UpdateView:
        with _refused():
            await self.updater.apply(wanted.version)
        return self.view()

    async def rollback(self) -> UpdateView:
        with _refused():
            await self.updater.rollback()
        return self.view()

    async def remind_later(self, wanted: UpdateLater) -> UpdateView:
        if not 0 < wanted.seconds <= policy.LATER_LIMIT_S:
            raise ControlError("invalid_input", {"field": "seconds", "why": "reminder"})
        with _refused():
            await self.updater.remind_later(wanted.seconds)
        return self.view()

    async def told(self, wanted: UpdateTold) -> UpdateView:
        await self.updater.told(wanted.kind, wanted.version)
        return self.view()

    # --- what servers ask ------------------------------------------------------------------------

    async def server_asks(
        self, connection: str, runtime_id: str, request_id: str, version: str
    ) -> dict[str, Any] | None:
        """A server wants this machine updated; what it is told at once. The rest follows (``Reporter``)."""
        if self._updater is None:
            return _failed(Problem(code="not_ready"))
        wish = ServerWish(
            connection=connection,
            runtime_id=runtime_id,
            request_id=request_id,
            version=version.strip().removeprefix("v"),
        )
        await self._report(wish, {"status": "running"})
        problem = await self._updater.server_wants(wish)
        return _failed(problem) if problem is not None else None

    # --- what the updater tells ------------------------------------------------------------------

    def update_changed(self) -> None:
        if self._updater is not None:
            self._conditions.changes.publish("update", "update", self.view())

    def update_blocked(self, problem: Problem | None, since: str) -> None:
        if problem is None:
            self._conditions.clear_condition(BLOCKED)
        else:
            self._conditions.set_condition(
                BLOCKED, reason=problem.code, reason_params=problem.params, since=since
            )

    def wish_settled(self, wish: ServerWish, problem: Problem | None, running: str) -> None:
        told = (
            {"status": "completed", "output": f"Ostler runs version {running}."}
            if problem is None
            else _failed(problem)
        )
        self._owner.start(self._tell(wish, told), f"answer to {wish.request_id}")

    async def _tell(self, wish: ServerWish, told: dict[str, Any]) -> None:
        if await self._report(wish, told):
            await self.updater.forget_wish(wish)


@contextmanager
def _refused() -> Iterator[None]:
    """A wish that cannot be met becomes a refusal of the API."""
    try:
        yield
    except WishError as error:
        problem = error.problem
        known: dict[str, Any] = {}
        if problem is not None:
            known = {"reason": problem.code, "reason_params": problem.params}
        match error.code:
            case "off":
                raise ControlError("updates_off", known) from error
            case "conflict":
                raise ControlError("update_conflict", dict(error.params)) from error
            case code:
                raise ControlError("no_update", {"why": code, **error.params, **known}) from error


def _failed(problem: Problem) -> dict[str, Any]:
    said = str(problem.params.get("detail", ""))
    text = f"The update did not go ahead: {problem.code.replace('_', ' ')}" + (f" ({said})" if said else "")
    return {"status": "failed", "error": f"{text}. `ostler update status` on that machine has more."}


def _condition(problem: Problem | None) -> Condition | None:
    return Condition(code=problem.code, params=problem.params) if problem is not None else None


def _version(offer: Offer | None, target: str) -> UpdateVersion | None:
    if offer is None:
        return UpdateVersion(version=target) if target else None
    smaller = offer.delta is not None and offer.delta.length < offer.full.length
    fetched = offer.delta if smaller and offer.delta is not None else offer.full
    return UpdateVersion(
        version=offer.version,
        notes=offer.notes,
        released_at=offer.released_at,
        download_bytes=fetched.length,
    )


def _progress(updater: Updater) -> UpdateProgress | None:
    if updater.progress is None:
        return None
    phase, done, total = updater.progress
    return UpdateProgress(phase=phase, done_bytes=done, total_bytes=total)  # type: ignore[arg-type]


def _notice(notice: Notice) -> UpdateNotice:
    return UpdateNotice(
        kind=notice.kind,  # type: ignore[arg-type]
        version=notice.version,
        from_version=notice.from_version,
        notes=notice.notes,
        reason=_condition(notice.problem),
    )


def _result(result: Result) -> UpdateResult:
    return UpdateResult(
        version=result.version,
        from_version=result.from_version,
        result=result.result,  # type: ignore[arg-type]
        at=result.at,
        asked_by=result.asked_by,
        reason=_condition(result.problem),
    )
