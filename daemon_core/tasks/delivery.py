"""Sending what the outbox holds: in order within a task, at least once, with back-off, never given up while
the server can still take it (promises P1 and P3).

A server may have taken a batch of messages whose answer was lost, and it does not refuse doubles. So whenever
that is possible (an answer was lost, or this process was not the one that sent before) the server is asked
what it has before the batch is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from daemon_core.connections.backoff import Backoff
from daemon_core.connections.client import NoAnswerError, ServerClient
from daemon_core.journal import Journal, Report
from daemon_core.protocol import failures
from daemon_core.protocol.errors import (
    PermanentError,
    RuntimeGoneError,
    ServerError,
    TaskGoneError,
    TransientError,
    WorkspaceGoneError,
)
from daemon_core.protocol.wire import (
    TERMINAL_STATUSES,
    CancelAckRequest,
    CompleteRequest,
    FailRequest,
    SessionRequest,
    TaskMessage,
    UsageRequest,
)
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.owned import beside, keep_going
from daemon_core.tasks.patience import Patience

log = logging.getLogger(__name__)

BATCH_MESSAGES = 1000
BATCH_BYTES = 1024 * 1024

REFUSED_LINES = 3
"""So many lines refused in a row, each with its substitute: the server refuses whatever it is sent."""

REFUSED_TRIES = 5
"""So often a report is tried that is refused by somebody who is not the server, or a last word with 400: some
servers answer so to troubles of their own."""

_PLAIN_WORDS = (
    "the task failed; its server refused the text that says why, which is kept where it was worked on"
)

_messages = msgspec.json.Decoder(list[msgspec.Raw])
_seq = msgspec.json.Decoder(TaskMessage)


class Delivery:
    """Sends one task's reports. ``run`` ends once the task has ended and all is delivered or moot.

    Args:
        fresh: whether nothing of this task can have been sent before.
        pause: waits before another try, shorter if the server comes back meanwhile.
        on_done: hears ``delivered`` or ``moot``, once, when nothing is left.
        on_gone: hears that the server does not know the task any more.
        before_last: done once before the task's last word is sent; takes a moment at most.
    """

    def __init__(
        self,
        journal: Journal,
        client: ServerClient,
        task_key: str,
        task_id: str,
        runtime_id: str,
        *,
        fresh: bool,
        patience: Patience,
        pause: Callable[[float], Awaitable[None]],
        on_done: Callable[[str], Awaitable[None]],
        on_gone: Callable[[], None] = lambda: None,
        before_last: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.journal = journal
        self.client = client
        self.patience = patience
        self.pause = pause
        self.task_key = task_key
        self.task_id = task_id
        self.runtime_id = runtime_id
        self.on_done = on_done
        self.on_gone = on_gone
        self._before_last = before_last
        self._unsure = not fresh
        """Whether the server may have messages that our outbox still holds."""
        self._there: set[int] = set()
        """Numbers that the server has told us it has, from the first in the outbox on; empty: ask again."""
        self._backoff = Backoff(0.5, 60.0)
        self._wake = asyncio.Event()
        self._ended = False
        self._refusals = (0, 0)
        """The report that was refused last (by its id), and how often in a row."""
        self._given_up = asyncio.Event()
        self._verdict = "delivered"
        self.trouble: ServerError | None = None

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    def ended(self) -> None:
        """The task's last report is in the outbox."""
        self._ended = True
        self._wake.set()

    def give_up(self) -> None:
        """The connection goes and takes no reports any more: drop what is left. The task must have ended."""
        self._given_up.set()
        self._wake.set()

    async def run(self) -> None:
        """Send until the task has ended and nothing is left. Does not end before, whatever fails."""
        await keep_going(self._run, f"delivery of task {self.task_id}")

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            reports = await self.patience.carry(
                lambda: self.journal.reports(self.task_key, BATCH_MESSAGES, BATCH_BYTES)
            )
            if reports and self._given_up.is_set():
                await self._moot()
                return
            if not reports:
                if self._ended:
                    await self.on_done(self._verdict)
                    return
                await self._wake.wait()
                continue
            try:
                await self._send(reports)
            except (TaskGoneError, WorkspaceGoneError) as error:
                log.info("task %s: the server does not have it any more (%s)", self.task_id, error)
                await self._moot()
                return
            except ServerError as error:
                await self._hold_on(error)
            except msgspec.MsgspecError as error:
                await self._unusable(reports[0], error)
            except BaseException:
                self._doubt()
                raise
            else:
                self.trouble = None
                self._backoff.reset()

    async def _hold_on(self, error: ServerError) -> None:
        """No answer, or one that may be another next time (a refused credential, too): wait, try again."""
        self.trouble = error
        delay_s = self._backoff.next()
        if isinstance(error, TransientError):
            if error.maybe_applied:
                self._doubt()
            if error.retry_after_s is not None:
                delay_s = max(delay_s, error.retry_after_s)
        elif not error.by_server:
            self._doubt()  # somebody in between has kept the server's answer from us, perhaps
        log.warning("task %s: %s; next try in %.1f s", self.task_id, error, delay_s)
        async with (
            beside(_awaited(self.pause(delay_s)), f"pause of {self.task_id}") as pause,
            beside(self._given_up.wait(), f"end of {self.task_id}") as given_up,
        ):
            await asyncio.wait({pause, given_up}, return_when=asyncio.FIRST_COMPLETED)

    def _doubt(self) -> None:
        self._unsure = True
        self._there.clear()

    async def _moot(self) -> None:
        self.trouble = None
        self._verdict = "moot"
        self.on_gone()
        while True:
            self._wake.clear()
            await self.patience.carry(lambda: self.journal.drop_reports(self.task_key))
            if self._ended:
                break
            await self._wake.wait()
        await self.on_done(self._verdict)

    async def _send(self, reports: list[Report]) -> None:
        first = reports[0]
        reach(f"report_{first.kind}")
        try:
            await self._say(reports)
        except (PermanentError, RuntimeGoneError) as error:
            # A runtime that is gone is registered again under another id: for this task it stays gone.
            if not await self._refused(reports, error):
                return
        reach(f"reported_{first.kind}")
        await self._acknowledge(reports)

    async def _acknowledge(self, reports: list[Report]) -> None:
        # Through a full disk: what was sent and is not taken note of would be sent again.
        await self.patience.carry(lambda: self.journal.acknowledge([report.id for report in reports]))

    async def _say(self, reports: list[Report]) -> None:
        first = reports[0]
        if first.kind in ("complete", "fail") and self._before_last is not None:
            before, self._before_last = self._before_last, None
            await before()
        match first.kind:
            case "messages":
                await self._send_messages(reports)
            case "session":
                pin = msgspec.json.decode(first.body, type=SessionRequest)
                await self.client.pin_session(self.task_id, pin.session_id, pin.work_dir)
            case "usage":
                usage = msgspec.json.decode(first.body, type=UsageRequest)
                await self.client.usage(self.task_id, usage.usage)
            case "complete":
                await self._complete(msgspec.json.decode(first.body, type=CompleteRequest))
            case "fail":
                fail = msgspec.json.decode(first.body, type=FailRequest)
                self._compare(await self.client.fail(self.task_id, fail), "failed")
            case "cancel_ack":
                ack = msgspec.json.decode(first.body, type=CancelAckRequest)
                await self.client.cancel_ack(self.task_id, ack)
            case unknown:
                log.error("task %s: a report of unknown kind %r is dropped", self.task_id, unknown)

    # --- messages ------------------------------------------------------------------------------

    async def _send_messages(self, reports: list[Report]) -> None:
        bodies = [report.body for report in reports]
        more = False
        if self._unsure:
            if not self._there:
                more = await self._ask_what_is_there(reports)
            bodies = [_without(body, self._there) for body in bodies]
        joined = b",".join(inner for body in bodies if (inner := body.strip()[1:-1].strip()))
        if joined:
            await self.client.send_messages(self.task_id, b"[" + joined + b"]")
        self._there = {seq for seq in self._there if seq > reports[-1].last_seq}
        self._unsure = more or bool(self._there)  # it may have what comes next, too

    async def _ask_what_is_there(self, reports: list[Report]) -> bool:
        """Learn what the server has from the first of these messages on; whether it may have yet more."""
        first, last = reports[0].first_seq, reports[-1].last_seq
        try:
            stored = await self.client.messages_since(self.task_id, first - 1)
        except NoAnswerError as error:
            if error.code != "too_large":
                raise
            # Tens of megabytes more than this batch: sent in order, so the batch is among them.
            self._there = set(range(first, last + 1))
            return True
        self._there = {message.seq for message in stored}
        return False

    async def _send_one_by_one(self, reports: list[Report]) -> None:
        """The server refuses a batch: find the lines that it does not want and put a word in their place."""
        refused = 0
        for report in reports:
            for raw in _messages.decode(report.body):
                seq = _seq.decode(raw).seq
                if seq in self._there:
                    continue
                if refused == REFUSED_LINES:
                    log.error("task %s: line %d is not sent: the server refuses all", self.task_id, seq)
                    continue
                substitute = TaskMessage(
                    seq=seq, type="error", content="Ostler: the server refused this line of the transcript."
                )
                for line in (bytes(raw), msgspec.json.encode(substitute)):
                    with contextlib.suppress(PermanentError):
                        await self.client.send_messages(self.task_id, b"[" + line + b"]")
                        refused = 0
                        break
                else:
                    refused += 1
                    if refused == REFUSED_LINES:
                        await self._standing()  # it does refuse these alone?
                    log.error("task %s: the server refuses line %d", self.task_id, seq)
                    continue
                self._unsure = True
                self._there.add(seq)

    # --- the last word -------------------------------------------------------------------------

    async def _complete(self, result: CompleteRequest) -> None:
        status = await self.client.complete(self.task_id, result)
        if status in ("dispatched", "waiting_local_directory"):
            # A complete is effective from running alone and silently ignored before: the server has lost
            # our start (it was set back, say). Say it again, then complete.
            await self.client.start(self.task_id)
            status = await self.client.complete(self.task_id, result)
        self._compare(status, "completed")

    def _compare(self, status: str, expected: str) -> None:
        if status in TERMINAL_STATUSES and status != expected:
            log.info(
                "task %s: the server had it as %s before our result (%s) came; the result is kept here",
                self.task_id, status, expected,
            )  # fmt: skip
        elif status and status != expected:
            log.warning("task %s: the server took its end and has it as %s", self.task_id, status)

    async def _refused(self, reports: list[Report], error: ServerError) -> bool:
        """The server will never take this report: say the next best thing. Whether it is dealt with.

        Raises:
            ServerError: it may take it another time.
        """
        report = reports[0]
        status = await self._standing()
        if status in TERMINAL_STATUSES:
            log.info("task %s has ended at the server (%s): %s", self.task_id, status, error)
            return True
        troubled = error.status == 400 and report.kind in ("complete", "fail")
        if (troubled or not error.is_verdict) and self._tried(report) < REFUSED_TRIES:
            raise error
        log.error("task %s: the server refuses a report (%s): %s", self.task_id, report.kind, error)
        if report.kind == "messages":
            if self._unsure and not self._there:
                with contextlib.suppress(PermanentError):
                    await self._ask_what_is_there(reports)
            await self._send_one_by_one(reports)
        elif report.kind == "complete":
            await self._fail_instead(report, f"complete task failed: {error}")
            return False
        elif report.kind == "fail":
            if await self._fail_plainly(report):
                return False
            self._verdict = "moot"
        return True

    async def _standing(self) -> str:
        """The task's status, empty if the server will not tell.

        Raises:
            ServerError: whoever refuses this refuses everything at present, or does not answer.
        """
        try:
            return await self.client.status(self.task_id)
        except (PermanentError, RuntimeGoneError) as refusal:
            if not refusal.is_verdict:
                raise
            return ""

    def _tried(self, report: Report) -> int:
        """One more refusal of this report; how many that makes in a row."""
        last, count = self._refusals
        self._refusals = (report.id, count + 1 if last == report.id else 1)
        return self._refusals[1]

    async def _fail_plainly(self, report: Report) -> bool:
        """A filter on the way may dislike the words of a failure: the failure itself has to arrive. Whether
        there is anything else to say."""
        fail = msgspec.json.decode(report.body, type=FailRequest)
        if fail.error == _PLAIN_WORDS:
            return False
        fail.error = _PLAIN_WORDS
        body = msgspec.json.encode(fail)
        await self.patience.carry(lambda: self.journal.replace_report(report.id, "fail", body))
        return True

    async def _fail_instead(self, report: Report, text: str) -> None:
        fail = FailRequest(error=text, failure_reason=failures.classify(text))
        with contextlib.suppress(msgspec.MsgspecError):
            given = msgspec.json.decode(report.body, type=CompleteRequest)
            fail.session_id, fail.work_dir = given.session_id, given.work_dir
            fail.retired_session_id = given.retired_session_id
            fail.session_rollout_missing = given.session_rollout_missing
            fail.branch_name = given.branch_name or msgspec.UNSET
        body = msgspec.json.encode(fail)
        await self.patience.carry(lambda: self.journal.replace_report(report.id, "fail", body))

    async def _unusable(self, report: Report, error: msgspec.MsgspecError) -> None:
        """A report that cannot be understood (a salvaged journal): it must not hold up what follows."""
        log.error("task %s: a report (%s) is damaged: %s", self.task_id, report.kind, error)
        if report.kind in ("complete", "fail"):
            await self._fail_instead(report, "the task's result was damaged on this machine's disk")
        else:
            await self._acknowledge([report])


async def _awaited(wait: Awaitable[None]) -> None:
    await wait


def _without(body: bytes, there: set[int]) -> bytes:
    if not there:
        return body
    kept = [raw for raw in _messages.decode(body) if _seq.decode(raw).seq not in there]
    return b"[" + b",".join(bytes(raw) for raw in kept) + b"]"
