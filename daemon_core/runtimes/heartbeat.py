"""Signs of life of a connection's runtimes.

Every runtime beats once an interval, first after a random part of it. Beats are gathered into a few moments
of an interval, on a loopback connection into one, so that an idle machine wakes up seldom however many
runtimes it has. A beat goes over the link if there is one, and over HTTP unless the link has acknowledged one
recently. Nothing here waits for a server or a disk: each HTTP beat and each action that an answer asks for
(:mod:`daemon_core.runtimes.actions`) is a task of its own, owned by :meth:`Heartbeat.run`, so a slow one
delays no other, and no thread is needed for a beat that others could keep busy.

The tick is also where a jump of the clock is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Final

from daemon_core.connections.clock import Clock
from daemon_core.connections.connection import Connection, ConnectionListener
from daemon_core.protocol import errors, wire
from daemon_core.runtimes.actions import ActionDesk, ActionHandler, refuse_action

log = logging.getLogger(__name__)

_FAILURES_BEFORE_NEW_CONNECTIONS: Final = 2
_TICKS: Final = 5
"""Beats of an interval fall into so many moments: a machine with hundreds of runtimes wakes up no more often
than one with five. The moments are the same for all connections."""


class Heartbeat(ConnectionListener):
    """The beats of one connection's runtimes. Run :meth:`run`; tell it the set by :meth:`set_runtimes`.

    Args:
        connection: whose runtimes these are; this becomes a listener of it.
        gone: called with a runtime id and the (monotonic) time at which the beat began whose answer said
            that the server does not know the runtime.
        act: does pending actions; its exceptions are reported as failures.
        ticked: called when beats were due: the daemon is awake. Must not block.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        gone: Callable[[str, float], None],
        act: ActionHandler = refuse_action,
        ticked: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._connection = connection
        self._gone = gone
        self._ticked = ticked
        self._clock = clock or Clock()
        self._rng = rng or random.Random()
        self._due: dict[str, float] = {}
        """Loop time of each runtime's next beat."""
        self._changed = asyncio.Event()
        self._beating: set[str] = set()
        """Runtimes with an HTTP beat under way."""
        self._failures = 0
        """Transient failures of HTTP beats in a row, over all runtimes: they share the server."""
        self._actions = ActionDesk(connection, act)
        self._group: asyncio.TaskGroup | None = None
        self.flags: dict[str, str] = {}
        """The server's feature flags as of the last answer; none given means none set."""
        connection.add_listener(self)

    def set_runtimes(self, runtime_ids: Iterable[str]) -> None:
        """The runtimes to beat for from now on."""
        wanted = set(runtime_ids)
        if wanted == self._due.keys():
            return
        now = asyncio.get_running_loop().time()
        interval_s = self._connection.timing.heartbeat_s
        together = min(self._due.values(), default=now + interval_s)
        for runtime_id in self._due.keys() - wanted:
            del self._due[runtime_id]
        grid_s = interval_s / _TICKS
        for runtime_id in wanted - self._due.keys():
            at = now + self._rng.uniform(0, interval_s)
            alone = max(at - at % grid_s, now)
            self._due[runtime_id] = together if self._connection.timing.loopback else alone
        self._changed.set()

    def beat_now(self, runtime_id: str) -> None:
        """Beat once more, outside the interval, over HTTP: an action waits to be told."""
        if self._group is not None and runtime_id in self._due:
            self._beat_over_http(runtime_id)

    def heartbeat_acked(self, connection: Connection, ack: wire.HeartbeatResponse, asked_at: float) -> None:
        """An answer over the link."""
        if ack.runtime_id not in self._due:
            return
        if ack.runtime_gone:
            self._gone(ack.runtime_id, asked_at)
        else:
            self._answered(ack.runtime_id, ack)

    def work_pending(self, connection: Connection, runtime_id: str) -> None:
        """The server would like to be asked."""
        self.beat_now(runtime_id)

    async def run(self) -> None:
        """Beat until cancelled. No failure of the server ends it."""
        loop = asyncio.get_running_loop()
        interval_s = self._connection.timing.heartbeat_s
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                while True:
                    self._changed.clear()
                    now = loop.time()
                    due = [runtime_id for runtime_id, at in self._due.items() if at <= now]
                    if due:
                        # May change the set of runtimes, so after it each is looked up again.
                        self._connection.check_clock(now - min(self._due[id_] for id_ in due))
                        self._ticked()
                    for runtime_id in due:
                        if runtime_id in self._due:
                            self._beat(runtime_id)
                            at = self._due[runtime_id] + interval_s
                            self._due[runtime_id] = at if at > now else now + interval_s
                    try:
                        async with asyncio.timeout_at(min(self._due.values(), default=None)):
                            await self._changed.wait()
                    except TimeoutError:
                        pass
            finally:
                self._group = None

    def _beat(self, runtime_id: str) -> None:
        link = self._connection.link
        link.beat(runtime_id)
        if not link.fresh(runtime_id) and self._connection.usable:
            self._beat_over_http(runtime_id)

    def _beat_over_http(self, runtime_id: str) -> None:
        if self._group is not None and runtime_id not in self._beating:
            self._beating.add(runtime_id)
            self._group.create_task(self._ask(runtime_id), name=f"heartbeat {runtime_id}")

    async def _ask(self, runtime_id: str) -> None:
        """One beat over HTTP."""
        asked_at = self._clock.monotonic()
        try:
            answer = await self._connection.client.heartbeat(runtime_id)
        except errors.RuntimeGoneError:
            self._failures = 0
            self._gone(runtime_id, asked_at)
        except errors.TransientError as error:
            log.info("%s: heartbeat: %s", self._connection.name, error)
            self._failures += 1
            if self._failures == _FAILURES_BEFORE_NEW_CONNECTIONS:
                await self._connection.client.drop_idle()
            self._connection.report(error, asked_at)
        except errors.ServerError as error:
            log.info("%s: heartbeat: %s", self._connection.name, error)
            self._connection.report(error, asked_at)
        else:
            self._failures = 0
            if runtime_id in self._due:
                self._answered(runtime_id, answer)
        finally:
            self._beating.discard(runtime_id)

    def _answered(self, runtime_id: str, answer: wire.HeartbeatResponse) -> None:
        self.flags = dict(answer.feature_flags.flags) if answer.feature_flags is not None else {}
        if self._group is not None:
            self._actions.take(self._group, runtime_id, answer)
