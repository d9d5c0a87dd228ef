"""Where an update stands: the book, how it changes, and what is true about the installed versions.

Every step goes through here: the stage's own rules, the line of the history and the notices that belong to a
result, the file, and whoever shows it. One daemon of a user keeps the book (``update.lock``); the others have
one of their own in memory.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from daemon_core.updates import history, profiles, stages
from daemon_core.updates.files import Lock, try_lock
from daemon_core.updates.history import Book, BookFile, Notice, Result, ServerWish
from daemon_core.updates.offers import Problem
from daemon_core.updates.pointer import Own
from daemon_core.updates.stages import HERE, RESULTS, Event, Facts, Stage, State
from daemon_core.updates.versions import Store, is_newer

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who wants to know."""

    def update_changed(self) -> None:
        """Something that is shown has changed."""
        ...

    def update_blocked(self, problem: Problem | None, since: str) -> None:
        """There have been no answers for long, because of this; None: there are again."""
        ...

    def wish_settled(self, wish: ServerWish, problem: Problem | None, running: str) -> None:
        """A server is owed the answer to its wish: done (None), or not."""
        ...


class Ledger:
    """See the module. Used on one loop.

    Attributes:
        book: All that is known. Replaced, never changed.
        running: The version that this process is.
        previous: The version before, as the last look has found it; empty: there is none.
        elsewhere: Another daemon of this user looks after the updates.
        progress: Phase, bytes done and bytes in all, while something is fetched.
        old_wishes: What servers wanted in an earlier life and nobody has settled yet.
    """

    def __init__(
        self,
        store: Store,
        listener: Listener,
        running: str,
        now: Callable[[], dt.datetime],
        profile: str = "default",
    ) -> None:
        self.book = Book()
        self.running = running
        self.previous = ""
        self.elsewhere = False
        self.progress: tuple[str, int, int] | None = None
        self.old_wishes: list[ServerWish] = []
        self._store = store
        self._listener = listener
        self._now = now
        self._profile = profile
        self._file = BookFile(Path(store.app_dir) / "update.json")
        self._lock: Lock | None = None
        self._saving = asyncio.Lock()

    async def open(self) -> None:
        """Read what is written down. What became of it, ``settle`` says."""
        await self.take_lock()
        self.book = await asyncio.to_thread(self._file.load)
        if self.elsewhere:
            self.book = Book(running=self.running, history=self.book.history)
        self.old_wishes = list(self.book.wishes)

    async def take_over(self) -> bool:
        """Look after the updates from now on, where nobody does any more. Gives whether that is so."""
        if not await self.take_lock():
            return False
        self.book = await asyncio.to_thread(self._file.load)
        return True

    def close(self) -> None:
        """Let somebody else look after the updates."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def leave(self) -> None:
        """The switch is about to leave this process (blocks shortly)."""
        self.book = msgspec.structs.replace(
            self.book, state=stages.step(self.book.state, Event.LEAVING, self.text())
        )
        self._listener.update_changed()
        try:
            self._file.save(self.book)
        except OSError as error:
            log.warning("how the update stands cannot be written down: %s", error)

    # --- what is written down --------------------------------------------------------------------

    async def keep(self, book: Book) -> None:
        """This is what is known now; write it down. A disk that is full does not stop anything here: what
        counts is in the pointer."""
        self.book = book
        self._listener.update_changed()
        if self.elsewhere:
            return
        async with self._saving:
            try:
                await asyncio.to_thread(self._file.save, self.book)
            except OSError as error:
                log.warning("how the update stands cannot be written down: %s", error)

    async def step(self, event: Event, problem: Problem | None = None, **changes: object) -> None:
        state = stages.step(self.book.state, event, self.text(), problem=problem)
        await self.enter(msgspec.structs.replace(state, **changes))

    async def enter(self, state: State) -> None:
        """Be in this state, with everything that belongs to getting there."""
        old, book = self.book.state, self.book
        if state.stage is not old.stage:
            log.info("update %s: %s", state.target or "-", state.stage.value)
            self.progress = None
        book = msgspec.structs.replace(book, state=state)
        if state.stage in RESULTS and state.stage is not old.stage:
            book = self._with_result(book, old)
        if state.stage not in HERE and state.stage is not Stage.CHECKING:
            book = history.without_notices(book, "ready")
        await self.keep(book)
        if state.stage in RESULTS and state.stage is not old.stage:
            await self.settle_wishes(state.problem if state.stage is not Stage.COMMITTED else None)

    def _with_result(self, book: Book, old: State) -> Book:
        state = book.state
        problem = state.problem
        version, other = state.target, state.started_from or self.running
        kind = {
            Stage.COMMITTED: "committed",
            Stage.ROLLED_BACK: "rolled_back",
            Stage.FAILED: "failed",
        }[state.stage]
        if state.back and state.stage is Stage.COMMITTED:
            version, other, kind = other, version, "rolled_back"
            problem = Problem(code="asked")
        elif state.back:
            kind = "failed"
        book = history.with_result(
            book,
            Result(
                version=version,
                from_version=other,
                result=kind,
                at=self.text(),
                asked_by=state.asked_by or "automatic",
                problem=problem,
            ),
        )
        if kind == "failed" and old.stage not in stages.AWAY and not old.at_once:
            return book  # nothing that the user has seen or asked for has changed
        notes = state.offer.notes if state.offer is not None and kind == "committed" else {}
        told = {"committed": "updated"}.get(kind, kind)
        notice = Notice(kind=told, version=version, from_version=other, notes=notes, problem=problem)
        return history.with_notice(history.untold(book, told, version), notice)

    def text(self) -> str:
        return history.text(self._now())

    # --- what is true ----------------------------------------------------------------------------

    async def facts(self, target: str) -> Facts:
        def look() -> Facts:
            pointer = self._store.pointer()
            self.previous = pointer.previous or ""
            own = pointer.own.get(self._profile, Own())
            trial = own.trial or pointer.trial
            return Facts(
                running=self.running,
                proven=pointer.version,
                on_trial=trial.version if trial is not None else "",
                bad={
                    version: Problem(code=bad.reason, params={"detail": bad.detail} if bad.detail else {})
                    for version, bad in profiles.bad(pointer, self._profile).items()
                },
                whole=self._store.is_complete(target) if target else False,
            )

        return await asyncio.to_thread(look)

    async def settle(self) -> State:
        """Go on from what is written down, as the facts have it. Gives where it is then."""
        facts = await self.facts(self.book.state.target)
        state = stages.recovered(self.book.state, facts, self.text())
        if state != self.book.state:
            await self.enter(state)
        return state

    async def note_other_hands(self) -> None:
        """A version that came here by an installer is news, too; once it is decided whether it stays."""
        facts = await self.facts("")
        if facts.on_trial == self.running and self.book.state.stage not in stages.AWAY:
            return
        await self._note_refused(facts)
        last, book = self.book.running, self.book
        if last == self.running:
            return
        if last and book.state.stage not in (*stages.AWAY, *RESULTS) and is_newer(self.running, last):
            at = self.text()
            line = Result(
                version=self.running, from_version=last, result="committed", at=at, asked_by="installer"
            )
            book = history.with_result(book, line)
        await self.keep(msgspec.structs.replace(book, running=self.running))

    async def _note_refused(self, facts: Facts) -> None:
        """What others run, and was tried at a start of this profile's daemon without an update of ours."""
        version, book = facts.proven, self.book
        told = any((line.version, line.result) == (version, "rolled_back") for line in book.history)
        if version == self.running or version not in facts.bad or told or book.state.stage in stages.AWAY:
            return
        problem = facts.bad[version]
        line = Result(
            version=version,
            from_version=self.running,
            result="rolled_back",
            at=self.text(),
            problem=problem,
        )
        notice = Notice(kind="rolled_back", version=version, from_version=self.running, problem=problem)
        await self.keep(history.with_notice(history.with_result(book, line), notice))

    async def take_lock(self) -> bool:
        """Look after the updates from now on, if nobody does. Gives whether this daemon does."""
        path = Path(self._store.app_dir) / "update.lock"

        def take() -> Lock | None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return try_lock(str(path))

        if self._lock is None:
            try:
                self._lock = await asyncio.to_thread(take)
            except OSError as error:
                log.warning("%s cannot be locked: %s", path, error)
        self.elsewhere = self._lock is None
        return not self.elsewhere

    async def forget_wish(self, wish: ServerWish) -> None:
        """It is answered."""
        left = [each for each in self.book.wishes if each.request_id != wish.request_id]
        if len(left) != len(self.book.wishes):
            await self.keep(msgspec.structs.replace(self.book, wishes=left))

    async def settle_wishes(self, problem: Problem | None) -> None:
        """What servers wanted is decided. Each is answered until somebody has taken the answer; that is the
        listener's matter, which calls ``forget_wish``."""
        self.old_wishes.clear()
        for wish in self.book.wishes:
            other = problem is None and wish.version not in ("", self.running)
            self._listener.wish_settled(wish, Problem(code="lost") if other else problem, self.running)

    async def settle_old_wishes(self) -> None:
        """After a start: those whose update is decided, or is not going on any more."""
        state = self.book.state
        if self.old_wishes and not state.at_once and state.stage not in stages.AWAY:
            decided = state.stage in RESULTS
            problem = None if state.stage is Stage.COMMITTED else state.problem
            await self.settle_wishes(problem if decided else Problem(code="lost"))
