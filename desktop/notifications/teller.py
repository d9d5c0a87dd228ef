"""Hears what the daemon tells, and has said what the user should hear: once.

    state → news (``facts``) → told before? (``told``) → planner → service of the platform
                                                              └→ ``messages``, until it is handled

Promises kept here: what was told is written down before it is shown, so neither a restart of the desktop nor
one of the daemon says it again; what happened while nobody looked comes as one summary; an answer given on a
notification is held against the daemon, and a question whose answer did not get there comes back.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
from PySide6.QtCore import QObject, QTimer

from daemon_core.control.errors import ControlError
from daemon_core.control.update_views import UpdateTold
from daemon_core.control.views import ChangeEvent, TaskAnswer, TaskChanges, TaskRow, TaskView
from daemon_core.settings import quiet
from desktop import focus
from desktop.commands import Command
from desktop.daemon.http import Call, Failure
from desktop.daemon.link import Link
from desktop.models.requests import decode_answer, encode_answer
from desktop.models.settings import SettingsStore
from desktop.models.state import DesktopState
from desktop.notifications import facts
from desktop.notifications.disturbance import Disturbance
from desktop.notifications.facts import News
from desktop.notifications.messages import Messages
from desktop.notifications.planner import (
    CROWD_ID,
    SUMMARY_ID,
    CallAgain,
    Context,
    Fact,
    Kind,
    Planner,
    Result,
    Show,
    Withdraw,
)
from desktop.notifications.service import Button, Notification, Service
from desktop.notifications.told import REPEAT_S, Told
from desktop.text import _
from desktop.words import parse

log = logging.getLogger("ostler.desktop.notifications")

SETTLE_MS: Final = 10_000
"""Trouble that is over sooner was none."""
SOUND_S: Final = 10.0
"""At most one sound in this time."""
DETAIL_MS: Final = 3_000
"""So long an end waits for how much was changed."""
LONGEST_MS: Final = 6 * 3_600_000
"""A timer looks at the clock so often at least: a machine that slept has missed time."""
TEST_ID: Final = "test"
DAEMON_REPEAT_S: Final = 600.0
"""A daemon that is in trouble again after this time is news again."""
_LASTING: Final = frozenset({Kind.STALLED, Kind.PARKED, Kind.TROUBLE})
"""Kinds that are over when they do not hold any more; an end stays an end."""

_SOUNDS: Final = {
    Kind.NEEDS_YOU: "message-new-instant",
    Kind.FINISHED: "complete",
    Kind.FAILED: "dialog-warning",
    Kind.STALLED: "dialog-warning",
    Kind.JOB: "complete",
    Kind.TROUBLE: "dialog-error",
    Kind.PARKED: "dialog-information",
    Kind.UPDATE: "dialog-information",
}
_CATEGORIES: Final = {
    Kind.NEEDS_YOU: "im.received",
    Kind.FINISHED: "transfer.complete",
    Kind.FAILED: "transfer.error",
}


class _Named(msgspec.Struct):
    id: str


class Teller(QObject):
    """One for the desktop.

    Args:
        do: Has commands done by the application.
        told: Where it is kept what was told.
        looked_at: The task in a focused window of ours, or a job as ``job:ID``; empty: none.

    Attributes:
        messages: What was notified and is not handled.
    """

    def __init__(
        self,
        link: Link,
        store: SettingsStore,
        service: Service,
        disturbance: Disturbance,
        told: Path,
        do: Callable[[Command], None],
        looked_at: Callable[[], str],
        parent: QObject | None = None,
        settle_ms: int = SETTLE_MS,
    ) -> None:
        super().__init__(parent)
        self._link = link
        self._store = store
        self._service = service
        self._disturbance = disturbance
        self._told_path = told
        self._told = Told(None)
        self._begun = False
        self._do = do
        self._looked_at = looked_at
        self._planner = Planner()
        self._on_screen: dict[str, Show] = {}
        self._asked: dict[str, Call[TaskView]] = {}
        self._ask_again: set[str] = set()
        self._ending: set[str] = set()
        self._taken_back: set[str] = set()
        """Questions that a crash has left on the screen without anybody to hear the answer."""
        self._troubles: dict[str, float] = {}
        self._settle_s = settle_ms / 1000
        self._sounded = -SOUND_S
        self._connected = False
        self._due: dt.datetime | None = None
        """When the quiet time is over by the clock. Timers stand still while the machine sleeps."""
        self._settle = self._timer(self._on_settled)
        self._moment = self._timer(self._on_moment)
        self._again = self._timer(self._on_moment)
        self.messages = Messages(self)
        self.messages.open = self.open
        self.messages.put_away = self.put_away
        self.messages.seen = self._on_seen
        self.messages.test = self.test
        self.messages.server = lambda: service.abilities.name
        self.messages.silenced = lambda: disturbance.silenced
        self.messages.snoozed_until = lambda: self.snooze_until
        store.changed.connect(self._on_settings)
        disturbance.changed.connect(self._on_moment)
        service.opened.connect(self._on_opened)
        service.pressed.connect(self._on_pressed)
        service.replied.connect(self._on_replied)
        service.gone.connect(self._on_gone)
        service.failed.connect(self._on_failed)
        service.revived.connect(self._on_revived)
        service.left.connect(self._on_left)

    # --- for others --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Tell from now on. Only one desktop of a profile may: what was told is read here, not before."""
        if self._begun:
            return
        self._begun = True
        self._told = Told(self._told_path)
        self._planner.restore(self._told.open)
        self._link.changed.connect(self._on_state)
        self._link.happened.connect(self._on_event)
        self._service.begin()
        self._finish([])
        self._on_state(self._link.state, self._link.state)

    @property
    def snooze_until(self) -> str:
        """Until when nothing is said (RFC 3339); empty: nobody wanted that."""
        until = parse(self._told.snooze_until)
        return self._told.snooze_until if until is not None and until > dt.datetime.now(dt.UTC) else ""

    def snooze(self, until: dt.datetime | None) -> None:
        """Say nothing until then; None: speak again. What waits for an answer is said all the same."""
        self._told.snooze_until = until.astimezone(dt.UTC).isoformat() if until is not None else ""
        self._finish([])
        self.messages.changed.emit()
        self._on_moment()

    def handled(self, task_id: str) -> None:
        """A task was opened: its news are told."""
        self._settle_all(
            [
                subject
                for subject, fact in self._planner.open.items()
                if fact.task == task_id and fact.kind is not Kind.NEEDS_YOU
            ]
        )

    def open(self, fact: Fact) -> None:
        """What a click on a notification does."""
        if fact.kind is not Kind.NEEDS_YOU:
            self.put_away(fact.subject)
        if fact.command is not None:
            self._do(fact.command)

    def put_away(self, subject: str) -> None:
        """Nothing more to be done about it."""
        self._finish(self._planner.settled(subject))

    def test(self) -> None:
        """Show one notification, whatever the settings say."""
        self._service.show(
            Notification(
                TEST_ID,
                _("This is how Ostler tells you something"),
                _("Click here if you can see it."),
                buttons=(Button("seen", _("I can see it")),),
                sound="message-new-instant",
            )
        )

    def close(self) -> None:
        """Say nothing any more."""
        for timer in (self._settle, self._moment, self._again):
            timer.stop()
        for call in self._asked.values():
            call.cancel()
        if self._begun:
            self._link.changed.disconnect(self._on_state)
            self._link.happened.disconnect(self._on_event)

    # --- what comes --------------------------------------------------------------------------------

    def _on_state(self, before: DesktopState, state: DesktopState) -> None:
        if self._due is not None and dt.datetime.now(dt.UTC) >= self._due:
            self._on_moment()
        fresh = state.connected and not self._connected
        self._connected = state.connected
        if state.connected and (fresh or before.tasks is not state.tasks or before.jobs is not state.jobs):
            self._look_at_ends(state, fresh=fresh)
        if state.connected and (fresh or before.tasks is not state.tasks):
            self._look_at_questions(state, fresh=fresh)
        self._look_at_standing(state)

    def _on_event(self, event: ChangeEvent) -> None:
        """A further question of a task does not change its row; the event comes all the same."""
        if event.kind == "task":
            task_id = msgspec.json.decode(event.data, type=_Named).id
            task = self._link.state.tasks.get(task_id)
            if task is not None and task.needs_input:
                self._ask(task_id)

    def _on_settled(self) -> None:
        self._look_at_standing(self._link.state)

    def _look_at_ends(self, state: DesktopState, *, fresh: bool) -> None:
        """Tasks and jobs that ended: one now and then as it comes, all that was missed in one go."""
        ended = [
            task
            for task in facts.ended_tasks(state, self._told.since)
            if not self._told.knows(facts.task_subject(task.id), facts.ended_key(task))
            and task.id not in self._ending
        ]
        jobs = [
            facts.job_ended_news(job)
            for job in facts.ended_jobs(state, self._told.since)
            if not self._told.knows(facts.job_subject(job.id), facts.job_ended_key(job))
        ]
        if fresh and len(ended) + len(jobs) > 1:
            missed = [*(facts.ended_news(task) for task in ended), *jobs]
            self._tell_many(sorted(missed, key=lambda news: news.fact.at))
            return
        for task in ended:
            self._tell_end(task)
        self._tell(jobs)
        results: list[Result] = []
        for task in state.tasks.values():
            if task.status == "cancelled" and facts.task_subject(task.id) in self._planner.open:
                results += self._planner.settled(facts.task_subject(task.id))
        if results:
            self._finish(results)

    def _tell_end(self, task: TaskRow) -> None:
        """Say it with how much was changed, if that is known soon."""
        if task.status != "completed":
            self._tell([facts.ended_news(task)])
            return
        self._ending.add(task.id)

        def tell(changes: TaskChanges | None) -> None:
            self._ending.discard(task.id)
            self._tell([facts.ended_news(task, changes)])

        self._link.call(
            TaskChanges,
            "GET",
            f"/v1/tasks/{quote(task.id, safe='')}/changes?stat=true",
            done=tell,
            failed=lambda _failure: tell(None),
            timeout_ms=DETAIL_MS,
        )

    def _look_at_questions(self, state: DesktopState, *, fresh: bool) -> None:
        """What is new is told by events; a snapshot has none."""
        needing = {task.id for task in state.needing}
        for task_id in needing if fresh else ():
            self._ask(task_id)
        over = [
            subject
            for subject, fact in self._planner.open.items()
            if fact.kind is Kind.NEEDS_YOU and fact.task not in needing
        ]
        self._settle_all(over)

    def _ask(self, task_id: str) -> None:
        """Ask what a task asks. While that is on its way, a further wish waits for it."""
        if task_id in self._asked:
            self._ask_again.add(task_id)
            return

        def over() -> None:
            self._asked.pop(task_id, None)
            if task_id in self._ask_again:
                self._ask_again.discard(task_id)
                self._ask(task_id)

        def done(task: TaskView) -> None:
            self._take_questions(task)
            over()

        path = f"/v1/tasks/{quote(task_id, safe='')}"
        # One that fails has ended, or the daemon went: the next change of the state says which.
        self._asked[task_id] = self._link.call(
            TaskView, "GET", path, done=done, failed=lambda _failure: over()
        )

    def _take_questions(self, task: TaskView) -> None:
        found = {news.fact.subject: news for news in facts.asking_news(task)}
        gone = [
            subject
            for subject, fact in self._planner.open.items()
            if fact.kind is Kind.NEEDS_YOU and fact.task == task.id and subject not in found
        ]
        self._settle_all(gone)
        again = self._taken_back & found.keys()
        self._taken_back -= again
        self._tell(
            [
                news
                for subject, news in found.items()
                if subject in again or not self._told.knows(subject, news.key)
            ]
        )

    def _look_at_standing(self, state: DesktopState) -> None:
        """Trouble, waits, updates: said when they come and taken back when they are over."""
        standing = facts.standing_news(state)
        now = time.monotonic()
        fresh: list[News] = []
        pause_s = 0.0
        changed = False
        for subject, news in standing.items():
            if self._told.knows(subject, news.key, DAEMON_REPEAT_S if subject == "daemon" else REPEAT_S):
                changed |= self._told.holds(subject)
                continue
            left = 0.0
            if news.fact.kind is Kind.TROUBLE:
                left = self._troubles.setdefault(subject, now) + self._settle_s - now
            if left <= 0:
                fresh.append(news)
            else:
                pause_s = min(left, pause_s) if pause_s else left
        if pause_s:
            self._settle.start(round(pause_s * 1000) + 1)
        for subject in [subject for subject in self._troubles if subject not in standing]:
            del self._troubles[subject]
        if state.connected:  # while nobody is there to tell, nothing is over
            over = [
                subject
                for subject, fact in self._planner.open.items()
                if (fact.kind in _LASTING and subject not in standing)
                or (fact.kind is Kind.UPDATE and not facts.update_holds(subject, state.update))
            ]
            for subject in (*self._told.standing("condition:"), *self._told.standing("daemon")):
                if subject not in standing:
                    changed |= self._told.over(subject)
            self._settle_all(over)
        if changed:
            self._told.save(self._planner.open.values())
        self._tell(fresh)

    # --- saying ------------------------------------------------------------------------------------

    def _tell(self, news: Sequence[News]) -> None:
        if not news:
            return
        results: list[Result] = []
        for each in news:
            self._told.say(each.fact.subject, each.key)
            results += self._planner.happened(self._dated(each.fact), self._context())
        self._finish(results)
        self._say_to_updater(news)

    def _tell_many(self, news: Sequence[News]) -> None:
        for each in news:
            self._told.say(each.fact.subject, each.key)
        self._finish(self._planner.returned([self._dated(each.fact) for each in news], self._context()))

    def _dated(self, fact: Fact) -> Fact:
        return fact if fact.at else replace(fact, at=dt.datetime.now(dt.UTC).isoformat())

    def _say_to_updater(self, news: Sequence[News]) -> None:
        for each in news:
            what, _colon, rest = each.fact.subject.partition(":")
            kind, _colon, version = rest.partition(":")
            if what == "update" and kind in ("ready", "updated", "rolled_back", "failed"):
                self._link.call(
                    object,
                    "POST",
                    "/v1/update/told",
                    UpdateTold(kind=kind, version=version),  # type: ignore[arg-type]
                    failed=lambda failure: log.info("the updater does not know what was told: %s", failure),
                )

    def _settle_all(self, subjects: Sequence[str]) -> None:
        if subjects:
            results: list[Result] = []
            for subject in subjects:
                results += self._planner.settled(subject)
            self._finish(results)

    def _finish(self, results: Sequence[Result]) -> None:
        """Write down what was said, then say it."""
        if not self._begun:
            return
        self._told.save(self._planner.open.values())
        for result in results:
            match result:
                case Show():
                    self._on_screen[result.ident] = result
                    self._service.show(self._notification(result))
                case Withdraw(ident):
                    self._on_screen.pop(ident, None)
                    self._service.withdraw(ident)
                case CallAgain(after_s):
                    self._again.start(round(after_s * 1000) + 1)
        self._disturbance.waits(self._planner.keeps)
        self.messages.show(tuple(reversed(self._planner.open.values())))
        self._arm()

    def _notification(self, show: Show) -> Notification:
        now = time.monotonic()
        sound = ""
        if self._store.flag("notifications.sound") and not self._quiet() and now - self._sounded >= SOUND_S:
            sound = _SOUNDS[show.kind]
            self._sounded = now
        return Notification(
            show.ident,
            show.title,
            show.text,
            buttons=tuple(Button(str(place), text) for place, (text, _command) in enumerate(show.buttons)),
            reply=_("Your answer") if show.reply is not None else "",
            category=_CATEGORIES.get(show.kind, ""),
            sound=sound,
            stays=show.kind is Kind.NEEDS_YOU,
        )

    # --- good and bad moments ----------------------------------------------------------------------

    def _context(self) -> Context:
        flag = self._store.flag
        return Context(
            now=time.monotonic(),
            looked_at=self._looked_at(),
            quiet=self._quiet(),
            off=frozenset(kind for kind in Kind if not flag(f"notifications.{kind.value}")),
            limit=max(1, self._store.number("notifications.per_minute")),
            mute=not flag("notifications.enabled"),
        )

    def _quiet(self) -> bool:
        if self.snooze_until or self._disturbance.away:
            return True
        if self._store.flag("notifications.respect_do_not_disturb") and self._disturbance.silenced:
            return True
        return self._quiet_until() is not None

    def _quiet_until(self) -> dt.datetime | None:
        table = self._store.table("notifications.quiet_hours")
        try:
            return quiet.quiet_until(table, dt.datetime.now())  # noqa: DTZ005 - the user's wall clock
        except ValueError:
            return None  # the daemon has said what is wrong with the setting

    def _arm(self) -> None:
        """Come back when a quiet time ends, if anything waits for that."""
        ends = [parse(self.snooze_until)] if self.snooze_until else []
        until = self._quiet_until() if self._planner.keeps else None
        if until is not None:
            ends.append(until.astimezone())
        left = [(end - dt.datetime.now(dt.UTC)).total_seconds() for end in ends if end is not None]
        if not left:
            self._moment.stop()
            self._due = None
            return
        self._due = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=max(0.0, min(left)))
        self._moment.start(min(LONGEST_MS, max(0, round(min(left) * 1000)) + 1_000))

    def _on_moment(self) -> None:
        """The moment may be a better one."""
        self._finish(self._planner.tick(self._context()))
        if not self.snooze_until and self._told.snooze_until:
            self._told.snooze_until = ""
            self.messages.changed.emit()

    def _on_settings(self, keys: frozenset[str]) -> None:
        if any(key.startswith("notifications.") for key in keys):
            self._on_moment()

    # --- what becomes of a notification ------------------------------------------------------------

    def _on_opened(self, ident: str, token: str) -> None:
        if ident == TEST_ID:
            self._tested("opened")
            return
        show = self._on_screen.get(ident)
        if show is None:
            return
        focus.allow(token)
        if show.kind is not Kind.NEEDS_YOU:
            self._finish(self._planner.seen() if ident == SUMMARY_ID else self._planner.settled(ident))
        if show.command is not None:
            self._do(show.command)

    def _on_pressed(self, ident: str, key: str, token: str) -> None:
        if ident == TEST_ID:
            self._tested("opened")
            return
        show = self._on_screen.get(ident)
        if show is None or not key.isdecimal() or int(key) >= len(show.buttons):
            return
        command = show.buttons[int(key)][1]
        if command.name == "answer":
            self._answer(ident, command)
            return
        focus.allow(token)
        if show.kind is not Kind.NEEDS_YOU:
            self._finish(self._planner.settled(ident))
        self._do(command)

    def _on_replied(self, ident: str, text: str) -> None:
        show = self._on_screen.get(ident)
        if show is not None and show.reply is not None and text.strip():
            choice, _words = decode_answer(show.reply.choice)
            self._answer(ident, replace(show.reply, choice=encode_answer(choice, text)))

    def _ask_anew(self, ident: str, words: str) -> None:
        """An answer did not count: the question is shown again with these words around it."""
        fact = self._planner.open.get(ident)
        if fact is not None:
            told = replace(fact, text=words.format(asked=fact.text))
            results = self._planner.happened(told, self._context())
            self._planner.open[ident] = fact  # it is still the same question
            self._finish(results)

    def _answer(self, ident: str, command: Command) -> None:
        """Give an answer to the daemon. Only what it has taken is settled."""
        if self._disturbance.away:
            # Some desktops show notifications on the locked screen, where anybody can press them.
            log.warning("an answer was given while the screen was locked, and does not count")
            self._ask_anew(ident, _("The screen was locked: please answer again. {asked}"))
            return
        choice, words = decode_answer(command.choice)
        task, request = quote(command.subject, safe=""), quote(command.detail, safe="")

        def done(view: TaskView) -> None:
            self._finish(self._planner.settled(ident))
            self._take_questions(view)

        def failed(failure: Failure) -> None:
            log.warning("an answer was not taken: %s", failure)
            if isinstance(failure, ControlError) and failure.code in ("conflict", "not_found"):
                self._finish(self._planner.settled(ident))  # somebody else has answered, or it is over
                return
            self._ask_anew(ident, _("Your answer did not get through. {asked}"))

        self._link.call(
            TaskView,
            "POST",
            f"/v1/tasks/{task}/requests/{request}/answer",
            TaskAnswer(decision=choice, text=words),  # type: ignore[arg-type]
            done=done,
            failed=failed,
        )

    def _on_gone(self, ident: str, by_user: bool) -> None:
        if ident == TEST_ID:
            return
        self._planner.gone(ident)
        self._on_screen.pop(ident, None)

    def _on_failed(self, ident: str) -> None:
        """Nobody could show it: it is listed."""
        if ident == TEST_ID:
            self._tested("failed")
            return
        self._on_screen.pop(ident, None)
        self._planner.gone(ident)

    def _on_revived(self) -> None:
        self._finish(self._planner.again(self._context()))

    def _on_left(self, idents: frozenset[str]) -> None:
        """A crash took these from the screen: what still waits for an answer is asked once more."""
        waiting = {
            subject: fact.task
            for subject, fact in self._planner.open.items()
            if fact.kind is Kind.NEEDS_YOU and (subject in idents or CROWD_ID in idents)
        }
        self._taken_back |= waiting.keys()
        if self._link.state.connected:
            for task_id in set(waiting.values()):
                self._ask(task_id)

    def _on_seen(self) -> None:
        self._finish(self._planner.seen())

    def _tested(self, what: str) -> None:
        self._service.withdraw(TEST_ID)
        self.messages.test_came.emit(what)

    def _timer(self, slot: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.timeout.connect(slot)
        return timer
