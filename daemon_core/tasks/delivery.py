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
from daemon_core.connections.client import ServerClient
from daemon_core.journal import Journal, Report
from daemon_core.protocol import failures
from daemon_core.protocol.errors import (
    PermanentError,
    ServerError,
    TaskGoneError,
    TransientError,
    UnauthorizedError,
    WorkspaceGoneError,
)
from daemon_core.protocol.wire import (
    TERMINAL_STATUSES,
    CompleteRequest,
    FailRequest,
    SessionRequest,
    TaskMessage,
    UsageRequest,
)
from daemon_core.tasks.failpoints import reach

log = logging.getLogger(__name__)

BATCH_MESSAGES = 1000
BATCH_BYTES = 1024 * 1024

_messages = msgspec.json.Decoder(list[msgspec.Raw])
_seq = msgspec.json.Decoder(TaskMessage)


class Delivery:
    """Sends one task's reports. ``run`` ends once the task has ended and all is delivered or moot."""

    def __init__(
        self,
        journal: Journal,
        client: ServerClient,
        task_key: str,
        task_id: str,
        runtime_id: str,
        *,
        fresh: bool,
        pause: Callable[[float], Awaitable[None]],
        on_done: Callable[[str], None],
    ) -> None:
        self.journal = journal
        self.client = client
        self.pause = pause
        self.task_key = task_key
        self.task_id = task_id
        self.runtime_id = runtime_id
        self.on_done = on_done
        self._unsure = not fresh
        """Whether the server may have messages that our outbox still holds."""
        self._wake = asyncio.Event()
        self._ended = False
        self.trouble: ServerError | None = None
        self.server_status = ""

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    def ended(self) -> None:
        """The task's last report is in the outbox."""
        self._ended = True
        self._wake.set()

    async def run(self) -> None:
        """Send until the task has ended and nothing is left."""
        backoff = Backoff(0.5, 60.0)
        while True:
            self._wake.clear()
            reports = await self.journal.reports(self.task_key, BATCH_MESSAGES, BATCH_BYTES)
            if not reports:
                if self._ended:
                    self.on_done("delivered")
                    return
                await self._wake.wait()
                continue
            try:
                await self._send(reports)
            except (TaskGoneError, WorkspaceGoneError) as error:
                log.info("task %s: the server does not have it any more (%s)", self.task_id, error)
                await self._moot()
                return
            except (TransientError, UnauthorizedError) as error:
                self.trouble = error
                if isinstance(error, TransientError) and error.maybe_applied:
                    self._unsure = True
                delay_s = backoff.next()
                if isinstance(error, TransientError) and error.retry_after_s is not None:
                    delay_s = max(delay_s, error.retry_after_s)
                log.warning("task %s: %s; next try in %.1f s", self.task_id, error, delay_s)
                await self.pause(delay_s)
            except PermanentError as error:
                await self._refused(reports[0], error)
                backoff.reset()
            else:
                self.trouble = None
                backoff.reset()

    async def _moot(self) -> None:
        await self.journal.drop_reports(self.task_key)
        while not self._ended:
            self._wake.clear()
            await self._wake.wait()
        await self.journal.drop_reports(self.task_key)
        self.on_done("moot")

    async def _send(self, reports: list[Report]) -> None:
        first = reports[0]
        client = self.client
        reach(f"report_{first.kind}")
        match first.kind:
            case "messages":
                await self._send_messages(reports)
            case "session":
                pin = msgspec.json.decode(first.body, type=SessionRequest)
                await client.pin_session(self.task_id, pin.session_id, pin.work_dir)
            case "usage":
                usage = msgspec.json.decode(first.body, type=UsageRequest)
                await client.usage(self.task_id, usage.usage)
            case "complete":
                await self._terminal(first)
            case "fail":
                await self._terminal(first)
            case unknown:
                log.error("task %s: a report of unknown kind %r is dropped", self.task_id, unknown)
        reach(f"reported_{first.kind}")
        await self.journal.acknowledge([report.id for report in reports])

    async def _send_messages(self, reports: list[Report]) -> None:
        bodies = [report.body for report in reports]
        if self._unsure:
            there = {
                message.seq
                for message in await self.client.messages_since(self.task_id, reports[0].first_seq - 1)
            }
            if there:
                bodies = [_without(body, there) for body in bodies]
        joined = b",".join(inner for body in bodies if (inner := body.strip()[1:-1]))
        if joined:
            await self.client.send_messages(self.task_id, b"[" + joined + b"]")
        self._unsure = False

    async def _terminal(self, report: Report) -> None:
        client = self.client
        if report.kind == "complete":
            status = await client.complete(
                self.task_id, msgspec.json.decode(report.body, type=CompleteRequest)
            )
        else:
            status = await client.fail(self.task_id, msgspec.json.decode(report.body, type=FailRequest))
        if status in ("dispatched", "waiting_local_directory") and report.kind == "complete":
            # A complete is effective from running alone and silently ignored before: the server has lost
            # our start (it was set back, say). Say it again, then complete.
            await client.start(self.task_id)
            status = await client.complete(
                self.task_id, msgspec.json.decode(report.body, type=CompleteRequest)
            )
        self.server_status = status
        expected = "completed" if report.kind == "complete" else "failed"
        if status in TERMINAL_STATUSES and status != expected:
            log.info(
                "task %s: the server had it as %s before our result (%s) came; the result is kept here",
                self.task_id, status, expected,
            )  # fmt: skip

    async def _refused(self, report: Report, error: PermanentError) -> None:
        """The server will never take this report: say the next best thing."""
        status = ""
        with contextlib.suppress(ServerError):
            status = await self.client.status(self.task_id)
        if status in TERMINAL_STATUSES:
            log.info("task %s has ended at the server (%s): %s", self.task_id, status, error)
            self.server_status = status
            if report.kind in ("complete", "fail"):
                await self.journal.acknowledge([report.id])
                return
        if report.kind == "complete":
            text = f"complete task failed: {error}"
            given = msgspec.json.decode(report.body, type=CompleteRequest)
            fail = FailRequest(
                error=text,
                session_id=given.session_id,
                work_dir=given.work_dir,
                failure_reason=failures.classify(text),
            )
            await self.journal.replace_report(report.id, "fail", msgspec.json.encode(fail))
            return
        log.error("task %s: the server refuses a report (%s): %s", self.task_id, report.kind, error)
        await self.journal.acknowledge([report.id])


def _without(body: bytes, there: set[int]) -> bytes:
    kept = [raw for raw in _messages.decode(body) if _seq.decode(raw).seq not in there]
    return b"[" + b",".join(bytes(raw) for raw in kept) + b"]"
