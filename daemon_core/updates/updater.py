"""The updater: one task that looks for newer versions, gets them here, and has them switched to.

It does one thing at a time, always the one that `policy.decide` names, and writes down where it is after
every step. Wishes (of the user, of a server) change what is written down and wake it. Whether an update is
*good* is not its business: the switch, the launcher and the new version decide that, and the updater reads
the result from their pointer, in whichever version it wakes up.

Several daemons (profiles) share one set of versions: the one with ``update.lock`` looks after it, the others
only notice that another version is there, and restart into it in the same way.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from daemon_core.updates import history, policy, stages
from daemon_core.updates.download import Limits, of_system
from daemon_core.updates.errors import UpdateError
from daemon_core.updates.fetching import Fetcher
from daemon_core.updates.history import Book, Notice, ServerWish
from daemon_core.updates.ledger import Ledger, Listener
from daemon_core.updates.offers import Checked, Offer, Problem, ProblemError, problem_of
from daemon_core.updates.places import Place
from daemon_core.updates.policy import Do, Moment, Rules, Timing
from daemon_core.updates.stages import HERE, RESULTS, Event, Facts, Stage, State
from daemon_core.updates.trust import Source
from daemon_core.updates.versions import Store, is_newer

log = logging.getLogger(__name__)

_NO_MORE: Final = frozenset(
    {"version_bad", "not_installed", "owned", "launcher_missing", "nothing_before", "older", "current"}
)
"""Refusals of the switch that stay as they are."""
_BUSY_STAGES: Final = stages.AWAY | {Stage.DOWNLOADING}
_NO_SOURCE: Final = frozenset({"no_trust", "no_address"})
"""Where nothing newer can be had; what is here already can be gone back to."""


class Switching(Protocol):
    """What becomes the next version."""

    async def apply(self, version: str, *, asked: bool = False) -> None:
        """Does not return where that works. Raises ``UpdateError``."""
        ...

    async def rollback(self) -> None:
        """The same with the version before."""
        ...


class Checking(Protocol):
    """What asks the server."""

    async def check(
        self,
        source: Source,
        *,
        platform: str,
        current: str,
        bucket: str,
        bad: Sequence[str],
        anyway: bool,
    ) -> Checked: ...


class WishError(Exception):
    """What somebody wants cannot be done now.

    Attributes:
        code: ``off`` (no updates here: ``problem``), ``conflict`` (``stage``), ``none`` (there is nothing
            newer), ``not_known`` (the server does not tell: ``problem``), ``passed_over`` (``because``
            it is bad or its turn has not come), ``no_previous``.
    """

    def __init__(self, code: str, problem: Problem | None = None, **params: str) -> None:
        self.code = code
        self.problem = problem
        self.params = params
        super().__init__(code, problem, params)


class Updater:
    """See the module. ``run`` is its task; everything else is called on the same loop.

    Args:
        running: The version that this process is.
        platform: This machine, as payloads name it.
        bucket: Names this installation in a staged roll-out.
        profile: Whose daemon this is.
        find_place, find_seed: Look for where updates come from, and for the installer's own payload. Block.
        rules: The settings, as they are now.
        busy: Whether a task runs or is being claimed.
        quiet: Returns when none does.

    Attributes:
        place: Where updates come from, or why there are none.
        passed_over: The newest version that the last check did not offer, and why (bad, fraction).
    """

    def __init__(
        self,
        *,
        store: Store,
        switch: Switching,
        trust: Checking,
        fetcher: Fetcher,
        listener: Listener,
        running: str,
        platform: str,
        bucket: str,
        find_place: Callable[[], Place],
        find_seed: Callable[[], str],
        rules: Callable[[], Rules],
        busy: Callable[[], bool],
        quiet: Callable[[], Awaitable[None]],
        profile: str = "default",
        timing: Timing | None = None,
        limits: Limits | None = None,
        rng: random.Random | None = None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._store = store
        self._switch = switch
        self._trust = trust
        self._fetcher = fetcher
        self._listener = listener
        self._platform = platform
        self._bucket = bucket
        self._find_place = find_place
        self._find_seed = find_seed
        self._rules = rules
        self._busy = busy
        self._quiet = quiet
        self._timing = timing or Timing()
        self._limits = limits or Limits()
        self._rng = rng or random.Random()
        self._now = now
        self._ledger = Ledger(store, listener, running, now, profile)
        self.place = Place()
        self.passed_over = ("", "")
        self._wake = asyncio.Event()
        self._look_around = False
        self._checks: list[asyncio.Future[None]] = []
        self._anyway = False
        self._failures = 0
        self._began = self._busy_at = self._asked_at = self._next_check = 0.0
        self._last_rules = Rules()
        self._blocked: Problem | None = None

    # --- life ------------------------------------------------------------------------------------

    async def open(self, wished: Callable[[list[ServerWish]], object] = lambda wishes: None) -> None:
        """Read what is written down, and what has become of it. Before ``run``; costs a few file reads.

        Args:
            wished: called with what servers wanted in an earlier life, before any of it is answered.
        """
        loop = asyncio.get_running_loop()
        self._began = self._busy_at = loop.time()
        self._last_rules = self._rules()
        self.place = await asyncio.to_thread(self._find_place)
        if self.place.why_not is not None and self.place.why_not.code == "source":
            return
        await self._ledger.open()
        wished(self._ledger.old_wishes)
        wait_s = policy.first_check_s(self.book, self._last_rules, self._timing, self._now(), self._rng)
        self._next_check = loop.time() + wait_s
        await self._settle()
        await self._ledger.note_other_hands()

    async def run(self) -> None:
        """For ever. After ``open``; may be called again after an error."""
        if self.book.state.stage in (Stage.CHECKING, Stage.DOWNLOADING, Stage.SWITCHING):
            await self._settle()
        await self._ledger.settle_old_wishes()
        while True:
            self._tell_if_blocked()
            decision = policy.Decision(None)
            state = self.book.state
            if self.place.source is not None or state.stage in stages.AWAY or state.back:
                decision = policy.decide(self.book, self._last_rules, self._moment(), self._timing)
            if decision.do is not None:
                await self._do(decision.do)
                continue
            self._answer(self._checks)
            if await self._wait(decision.wait_s):
                await self._notice_others()

    def close(self) -> None:
        """Let somebody else look after the updates."""
        self._ledger.close()

    def look(self) -> None:
        """The settings, a trial or the installed versions may have changed."""
        self._look_around = True
        self._wake.set()

    def network_changed(self) -> None:
        """What could not be reached may be by now: the pause after a failed check is cut short. Not more
        often than a failed check is tried again anyway: some networks change all the time."""
        loop = asyncio.get_running_loop()
        if self._failures and loop.time() - self._asked_at >= self._timing.retry_first_s:
            soon_s = self._rng.uniform(self._timing.network_least_s, self._timing.network_most_s)
            self._next_check = min(self._next_check, loop.time() + soon_s)
            self._wake.set()

    async def _wait(self, wait_s: float) -> bool:
        """Until something changes. Gives whether a look at the installed versions is due."""
        around = False
        try:
            async with asyncio.timeout(max(wait_s, 0.01)), asyncio.TaskGroup() as group:
                waits: list[asyncio.Task[Any]] = [group.create_task(self._wake.wait())]
                if self.book.state.stage is Stage.WAITING and self._busy():
                    waits.append(group.create_task(self._until_quiet()))
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
        except TimeoutError:
            around = True
        self._wake.clear()
        around, self._look_around = around or self._look_around, False
        rules = self._rules()
        if rules != self._last_rules:
            await self._take_rules(rules)
        return around

    async def _until_quiet(self) -> None:
        await self._quiet()
        self._busy_at = asyncio.get_running_loop().time()

    async def _take_rules(self, rules: Rules) -> None:
        old, self._last_rules = self._last_rules, rules
        if rules.url != old.url:
            self.place = await asyncio.to_thread(self._find_place)
        if rules.interval_s < old.interval_s or rules.url != old.url or (rules.check and not old.check):
            wait_s = min(rules.interval_s, self._timing.first_most_s)
            loop = asyncio.get_running_loop()
            self._next_check = min(self._next_check, loop.time() + wait_s)
        self._listener.update_changed()

    def _moment(self) -> Moment:
        loop = asyncio.get_running_loop()
        time = loop.time()
        if self._busy():
            self._busy_at = time
        target = self.book.state.target
        return Moment(
            now=self._now(),
            check_in_s=self._check_in_s(),
            quiet_for_s=0.0 if self._busy() else max(time - self._busy_at, 0.001),
            alive_s=time - self._began,
            wanted=bool(self._checks),
            announced=f"ready {target}" in self.book.told
            or any((each.kind, each.version) == ("ready", target) for each in self.book.notices),
        )

    def _check_in_s(self) -> float:
        """A machine that slept has missed its timers: the wall clock counts, too."""
        by_loop_s = self._next_check - asyncio.get_running_loop().time()
        if self.elsewhere:
            return 1e9
        if self._failures or self.book.checked_at is None:
            return by_loop_s
        late_s = self._last_rules.interval_s * (1 + self._timing.spread)
        by_wall_s = history.left_s(self.book.checked_at, late_s, self._now())
        return by_loop_s if by_wall_s > 0 else min(by_loop_s, 0.0 if self._is_settled() else by_loop_s)

    def _is_settled(self) -> bool:
        return asyncio.get_running_loop().time() - self._began > self._timing.first_most_s

    @property
    def next_check_at(self) -> dt.datetime | None:
        """When the server is asked next by itself."""
        if self.place.source is None or not self._last_rules.check or self.elsewhere:
            return None
        return self._now() + dt.timedelta(seconds=max(self._check_in_s(), 0.0))

    @property
    def now(self) -> dt.datetime:
        return self._now()

    @property
    def rules(self) -> Rules:
        return self._last_rules

    @property
    def running(self) -> str:
        """The version that this process is."""
        return self._ledger.running

    @property
    def book(self) -> Book:
        """All that is known. Replaced, never changed."""
        return self._ledger.book

    @property
    def previous(self) -> str:
        """The version that a rollback goes to; empty: there is none."""
        return self._ledger.previous

    @property
    def elsewhere(self) -> bool:
        """Whether another daemon of this user looks after the updates."""
        return self._ledger.elsewhere

    @property
    def progress(self) -> tuple[str, int, int] | None:
        """Phase, bytes done and bytes in all, while something is fetched."""
        return self._ledger.progress

    async def _notice_others(self) -> None:
        """Another daemon, or an installer, may have brought another version; a trial may have ended."""
        if self.place.why_not is not None and self.place.why_not.code == "source":
            return
        place = await asyncio.to_thread(self._find_place)
        if place != self.place:
            self.place = place
            self._listener.update_changed()
        state = self.book.state
        if self.elsewhere and await self._ledger.take_over():
            await self._settle()
            return
        if state.stage in stages.AWAY:
            await self._settle()
            return
        await self._ledger.note_other_hands()
        state = self.book.state
        if self.place.source is None or state.stage not in (Stage.IDLE, *RESULTS):
            return
        # A package may have been installed over the one that we came with.
        self._store.seed_dir = await asyncio.to_thread(self._find_seed)
        facts = await self._ledger.facts("")
        if is_newer(facts.proven, self.running) and not facts.on_trial and facts.proven not in facts.bad:
            now = self._ledger.text()
            await self._ledger.enter(
                State(
                    stage=Stage.STAGED,
                    since=now,
                    target=facts.proven,
                    whole=True,
                    asked_by="automatic",
                    ready_since=now,
                )
            )

    async def _settle(self) -> None:
        """Go on as the installed versions have it."""
        state = await self._ledger.settle()
        if state.stage is Stage.COMMITTED:
            await self._clean()

    async def _clean(self) -> None:
        """Old versions and downloads that nobody needs."""
        state = self.book.state
        keep = [state.target] if state.target and state.whole else []
        try:
            removed = await asyncio.to_thread(self._store.remove_unused, [self.running, *keep])
        except OSError as error:
            log.warning("old versions cannot be removed, which is tried again: %s", error)
        else:
            if removed:
                log.info("removed version %s", ", ".join(removed))
        await self._fetcher.forget(state.offer if not state.whole else None)

    # --- doing -----------------------------------------------------------------------------------

    async def _do(self, do: Do) -> None:
        match do:
            case Do.CHECK:
                await self._check()
            case Do.FETCH:
                await self._fetch()
            case Do.ARM:
                await self._ledger.step(Event.ARM)
            case Do.DISARM:
                await self._ledger.step(Event.DISARM)
            case Do.SWITCH:
                await self._go()
            case Do.SETTLE:
                await self._give_up()
            case Do.REMIND:
                book = msgspec.structs.replace(self.book, remind_version="", remind_at=None)
                await self._ledger.keep(history.untold(book, "ready", book.state.target))
            case Do.ANNOUNCE:
                await self._announce()

    async def _announce(self) -> None:
        state = self.book.state
        notice = Notice(
            kind="ready",
            version=state.target,
            from_version=self.running,
            notes=state.offer.notes if state.offer is not None else {},
        )
        await self._ledger.keep(history.with_notice(self.book, notice))

    async def _check(self) -> None:
        source = self.place.source
        assert source is not None
        anyway, self._anyway = self._anyway, False
        asking, self._checks = self._checks, []
        self._asked_at = asyncio.get_running_loop().time()
        before = self.book.state
        await self._ledger.step(Event.CHECK)
        facts = await self._ledger.facts(before.target)
        try:
            async with asyncio.timeout(stages.LIMITS_S[Stage.CHECKING]):
                checked = await self._trust.check(
                    source,
                    platform=self._platform,
                    current=self._newest_here(facts),
                    bucket=self._bucket,
                    bad=sorted(facts.bad),
                    anyway=anyway,
                )
        except (ProblemError, TimeoutError) as error:
            problem = error.problem if isinstance(error, ProblemError) else Problem(code="slow")
            await self._not_checked(before, problem)
        else:
            await self._checked(before, facts, checked)
        finally:
            loop = asyncio.get_running_loop()
            wait_s = policy.next_check_s(self._failures, self._last_rules, self._timing, self._rng)
            self._next_check = loop.time() + wait_s
            self._answer(asking)

    def _newest_here(self, facts: Facts) -> str:
        """What is not worth fetching, nor anything older. What does not work with this profile is."""
        others = is_newer(facts.proven, self.running) and facts.proven not in facts.bad
        return facts.proven if others else self.running

    async def _not_checked(self, before: State, problem: Problem) -> None:
        self._failures += 1
        log.info("there is no telling what is new: %s %s", problem.code, problem.params)
        book = msgspec.structs.replace(
            self.book,
            check_problem=problem,
            failing_since=self.book.failing_since or self._ledger.text(),
        )
        self._ledger.book = book
        if before.whole:
            await self._ledger.step(Event.KEPT)
        elif before.stage is Stage.AVAILABLE:
            await self._ledger.step(Event.PUT_OFF, before.problem, attempts=before.attempts)
        else:
            await self._ledger.step(Event.NOTHING)

    async def _checked(self, before: State, facts: Facts, checked: Checked) -> None:
        self._failures = 0
        self.passed_over = (checked.passed_over, checked.passed_over_why)
        self._ledger.book = msgspec.structs.replace(
            self.book, checked_at=self._ledger.text(), check_problem=None, failing_since=None
        )
        offer = checked.offer
        if before.whole and (offer is None or offer.version == before.target):
            if before.target in checked.withdrawn:
                log.warning("version %s was withdrawn", before.target)
                await self._ledger.step(Event.NOTHING)
            elif facts.whole:
                await self._ledger.step(Event.KEPT)
            elif offer is not None:
                await self._ledger.enter(self._found(offer, facts))
            else:
                await self._ledger.step(Event.NOTHING)
        elif offer is not None:
            state = self._found(offer, facts)
            by = before.asked_by if before.at_once else "automatic"
            await self._ledger.enter(msgspec.structs.replace(state, asked_by=by))
        else:
            await self._ledger.step(Event.NOTHING)
        await self._clean()

    def _found(self, offer: Offer, facts: Facts) -> State:
        failed_before = offer.version in facts.bad
        return stages.found(self.book.state, offer, self._ledger.text(), failed_before=failed_before)

    async def _fetch(self) -> None:
        source, offer = self.place.source, self.book.state.offer
        assert source is not None
        assert offer is not None
        await self._ledger.step(Event.FETCH)
        limits = dataclasses.replace(self._limits, size_bytes=self._last_rules.size_limit_bytes)
        try:
            async with asyncio.timeout(stages.LIMITS_S[Stage.DOWNLOADING]):
                await self._fetcher.fetch(offer, source, limits, self._tell)
        except (ProblemError, TimeoutError) as error:
            lasting = isinstance(error, ProblemError) and error.lasting
            problem = error.problem if isinstance(error, ProblemError) else Problem(code="too_slow")
            log.warning("version %s cannot be fetched: %s %s", offer.version, problem.code, problem.params)
            await self._put_off(problem, lasting=lasting)
        except Exception as error:  # the boundary of an attempt: it must not begin again at once, for ever
            log.exception("version %s cannot be fetched", offer.version)
            detail = f"{type(error).__name__}: {error}"[:200]
            await self._put_off(Problem(code="internal", params={"detail": detail}), lasting=False)
        else:
            await self._ledger.step(Event.FETCHED)
            await self._fetcher.forget()

    def _tell(self, phase: str, done: int, total: int) -> None:
        self._ledger.progress = (phase, done, total)
        self._listener.update_changed()

    async def _put_off(self, problem: Problem, *, lasting: bool) -> None:
        attempts = self.book.state.attempts + 1
        over = lasting or attempts >= stages.ATTEMPTS
        wait_s = policy.retry_s(attempts, self._last_rules, self._timing, self._rng, lasting=over)
        at = history.text(self._now() + dt.timedelta(seconds=wait_s))
        if over:
            await self._ledger.step(Event.FAILED, problem, next_try_at=at)
            return
        # Whoever wanted it at once sees that it did not come; a restart hours later is not what they meant.
        await self._ledger.step(Event.PUT_OFF, problem, next_try_at=at, at_once=False)
        await self._ledger.settle_wishes(problem)

    async def _go(self) -> None:
        """Become the version that is here. Where that works, it is the last that this process does of it."""
        state = self.book.state
        asked = state.at_once and state.asked_by != "automatic"
        await self._ledger.step(Event.GO, started_from=self.running)
        try:
            async with asyncio.timeout(stages.LIMITS_S[Stage.SWITCHING]):
                if state.offer is None and not state.back:
                    # An installer has brought it: its own files are not what runs in the end.
                    await asyncio.to_thread(self._store.install_seed)
                if state.back:
                    await self._switch.rollback()
                else:
                    await self._switch.apply(state.target, asked=asked)
        except UpdateError as error:
            await self._not_gone(problem_of(error))
        except TimeoutError:
            await self._not_gone(Problem(code="busy"))
        except OSError as error:
            await self._not_gone(of_system(error, Path(self._store.app_dir)).problem)
        else:
            # On some systems the next one is started beside us, and we only have to end.
            if self.book.state.stage is Stage.SWITCHING:
                await self._ledger.step(Event.LEAVING)

    async def _not_gone(self, problem: Problem) -> None:
        log.warning("version %s is not switched to: %s", self.book.state.target, problem.code)
        state = self.book.state
        if problem.code == "version_missing" and state.offer is not None:
            await self._ledger.step(Event.LOST, problem)
        elif problem.code == "stopping":
            await self._ledger.step(Event.PUT_OFF, problem, attempts=state.attempts)
        else:
            await self._put_off(problem, lasting=problem.code in _NO_MORE or state.back)

    def leaving(self) -> None:
        """The switch is about to leave this process (blocks shortly)."""
        if self.book.state.stage is Stage.SWITCHING:
            self._ledger.leave()

    async def _give_up(self) -> None:
        """What should have been decided long ago is not: the pointer is asked once more, then it is over."""
        await self._settle()
        state = self.book.state
        if state.stage in stages.AWAY and history.left_s(state.since, 1.0, self._now()) <= 0:
            await self._ledger.step(Event.FAILED, Problem(code="lost"))

    def _tell_if_blocked(self) -> None:
        book = self.book
        blocked = book.check_problem
        if not policy.worth_a_word(blocked, book.failing_since, self._now()):
            blocked = None
        if blocked != self._blocked:
            self._blocked = blocked
            self._listener.update_blocked(blocked, book.failing_since or "")

    # --- wishes ----------------------------------------------------------------------------------

    def _possible(self) -> None:
        if self.place.source is None:
            raise WishError("off", self.place.why_not)

    @staticmethod
    def _answer(checks: list[asyncio.Future[None]]) -> None:
        for future in checks:
            if not future.done():
                future.set_result(None)
        checks.clear()

    async def check(self) -> None:
        """Ask the server now; returns when that is known (or is taking long). Raises ``WishError``."""
        self._possible()
        if self.elsewhere:
            raise WishError("off", Problem(code="elsewhere"))
        if self.book.state.stage in _BUSY_STAGES:
            return  # it is known already
        self._anyway = True
        future = asyncio.get_running_loop().create_future()
        self._checks.append(future)
        self._wake.set()
        try:
            async with asyncio.timeout(self._timing.wish_limit_s):
                await asyncio.shield(future)
        except TimeoutError:
            pass  # whoever asked sees that it goes on

    async def apply(self, version: str = "", *, asked_by: str = "user") -> None:
        """Have the newest version (or just this one) here and switch to it, without waiting for a quiet
        moment. Returns when it is on its way. Raises ``WishError``."""
        self._possible()
        state = self.book.state
        if state.stage in stages.AWAY:
            raise WishError("conflict", stage=state.stage.value)
        if not self._is_wanted(version):
            await self.check()
            if not self._is_wanted(version):
                raise self._nothing(version)
        await self._hurry(asked_by)

    def _is_wanted(self, version: str) -> bool:
        """Whether what is known is what somebody wants now."""
        state = self.book.state
        on_its_way = state.stage in (*HERE, Stage.AVAILABLE, Stage.DOWNLOADING) and not state.back
        return on_its_way and version in ("", state.target)

    def _nothing(self, version: str) -> WishError:
        if self.book.state.stage is Stage.CHECKING:
            return WishError("conflict", stage="checking")  # the server takes its time
        if (problem := self.book.check_problem) is not None:
            return WishError("not_known", problem)
        if self.passed_over[0] and version in ("", self.passed_over[0]):
            return WishError("passed_over", because=self.passed_over[1], version=self.passed_over[0])
        return WishError("none", version=version)

    async def _hurry(self, asked_by: str) -> None:
        state = msgspec.structs.replace(
            self.book.state, at_once=True, asked_by=asked_by, next_try_at=None, attempts=0
        )
        book = msgspec.structs.replace(self.book, state=state, remind_version="", remind_at=None)
        # Whoever asks for it need not be told that it can be had.
        book = history.told(book, "ready", state.target)
        await self._ledger.keep(book)
        self._wake.set()

    async def rollback(self) -> None:
        """Go back to the version before. Returns when it is on its way. Raises ``WishError``."""
        why_not = self.place.why_not
        if why_not is not None and why_not.code not in _NO_SOURCE:
            raise WishError("off", why_not)
        stage = self.book.state.stage
        if stage in _BUSY_STAGES or stage is Stage.CHECKING:
            raise WishError("conflict", stage=stage.value)
        await self._ledger.facts("")
        if not self.previous:
            raise WishError("no_previous")
        now = self._ledger.text()
        await self._ledger.enter(
            State(
                stage=Stage.STAGED,
                since=now,
                target=self.previous,
                whole=True,
                at_once=True,
                back=True,
                asked_by="user",
                ready_since=now,
            )
        )
        self._wake.set()

    async def remind_later(self, seconds: float) -> None:
        """Say and do nothing about the version that is ready for so long. Raises ``WishError``."""
        state = self.book.state
        if state.stage not in HERE and not (state.stage is Stage.CHECKING and state.whole):
            raise WishError("none")
        at = history.text(self._now() + dt.timedelta(seconds=seconds))
        book = msgspec.structs.replace(self.book, remind_version=state.target, remind_at=at)
        await self._ledger.keep(history.told(book, "ready", state.target))
        self._wake.set()

    async def told(self, kind: str, version: str) -> None:
        """The user knows this now."""
        await self._ledger.keep(history.told(self.book, kind, version))

    # --- servers ---------------------------------------------------------------------------------

    async def server_wants(self, wish: ServerWish) -> Problem | None:
        """A server asks for an update. None: it is on its way, and answered later (``wish_settled``)."""
        if wish.version and wish.version == self.running:
            self._listener.wish_settled(wish, None, self.running)
            return None
        wish = msgspec.structs.replace(wish, at=self._ledger.text())
        await self._ledger.keep(msgspec.structs.replace(self.book, wishes=[*self.book.wishes, wish]))
        try:
            await self.apply(wish.version, asked_by="server")
        except WishError as error:
            if not any(each.request_id == wish.request_id for each in self.book.wishes):
                return None  # answered already
            await self._ledger.forget_wish(wish)
            if error.code == "none" and not wish.version:
                self._listener.wish_settled(wish, None, self.running)
                return None
            return error.problem or Problem(code=error.code, params=dict(error.params))
        return None

    async def forget_wish(self, wish: ServerWish) -> None:
        """It is answered."""
        await self._ledger.forget_wish(wish)
