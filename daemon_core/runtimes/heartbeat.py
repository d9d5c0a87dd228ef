"""Signs of life of a connection's runtimes, and the actions that their answers ask for.

Every runtime beats once an interval, first after a random part of it; on a loopback connection all beat in
one tick, so that an idle machine wakes up once. A beat goes over the link if there is one, and over HTTP
unless the link has acknowledged one recently. Nothing here waits for a server: each HTTP beat and each
action is a task of its own, owned by :meth:`Heartbeat.run`, so a slow one delays no other.

The tick is also where a jump of the clock is noticed.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from daemon_core.connections.client import ActionRoute
from daemon_core.connections.clock import Clock
from daemon_core.connections.connection import Connection, ConnectionListener
from daemon_core.connections.timing import RESULT_RETRIES_S
from daemon_core.protocol import errors, wire

log = logging.getLogger(__name__)

_FAILURES_BEFORE_NEW_CONNECTIONS: Final = 2
_ACTIONS_LIMIT: Final = 64
"""Actions under way on one connection; further ones are left to time out at the server."""
_REMEMBERED_ACTIONS: Final = 256

ActionKind = Literal["update", "model_list", "local_skills", "local_skill_import"]
_ROUTES: Final[dict[ActionKind, ActionRoute]] = {
    "update": "update",
    "model_list": "models",
    "local_skills": "local-skills",
    "local_skill_import": "local-skills/import",
}


@dataclass(frozen=True, slots=True)
class PendingAction:
    """Something a server asks of a runtime. ``argument`` is the version or the skill key, if there is one."""

    kind: ActionKind
    runtime_id: str
    request_id: str
    argument: str = ""


ActionHandler = Callable[[PendingAction], Awaitable[dict[str, Any] | None]]
"""Does an action and returns the JSON object to report; None reports nothing."""


async def refuse_action(action: PendingAction) -> dict[str, Any]:
    """The answer where an action is not supported here."""
    match action.kind:
        case "update":
            text = "This daemon is Ostler. It keeps itself up to date and cannot be updated from here."
            return {"status": "failed", "error": text}
        case "model_list":
            text = "This daemon cannot list the models of its agents."
            return {"status": "failed", "models": [], "supported": False, "error": text}
        case "local_skills":
            return {"status": "completed", "skills": [], "supported": False}
        case "local_skill_import":
            return {"status": "failed", "error": "This daemon cannot import local skills."}


class Heartbeat(ConnectionListener):
    """The beats of one connection's runtimes. Run :meth:`run`; tell it the set by :meth:`set_runtimes`.

    Args:
        connection: whose runtimes these are; this becomes a listener of it.
        gone: called with a runtime id and the (monotonic) time at which the beat began whose answer said
            that the server does not know the runtime.
        act: does pending actions; its exceptions are reported as failures.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        gone: Callable[[str, float], None],
        act: ActionHandler = refuse_action,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._connection = connection
        self._gone = gone
        self._act = act
        self._clock = clock or Clock()
        self._rng = rng or random.Random()
        self._due: dict[str, float] = {}
        """Loop time of each runtime's next beat."""
        self._changed = asyncio.Event()
        self._beating: set[str] = set()
        """Runtimes with an HTTP beat under way."""
        self._failures = 0
        """Transient failures of HTTP beats in a row, over all runtimes: they share the server."""
        self._seen: collections.OrderedDict[str, None] = collections.OrderedDict()
        """Actions taken on lately, so that one that is told twice is done once."""
        self._acting = 0
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
        for runtime_id in wanted - self._due.keys():
            alone = now + self._rng.uniform(0, interval_s)
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
        for action in actions_of(runtime_id, answer):
            if action.request_id in self._seen or self._group is None:
                continue
            if self._acting >= _ACTIONS_LIMIT:
                log.warning("%s: too many actions at once", self._connection.name)
                return
            self._seen[action.request_id] = None
            if len(self._seen) > _REMEMBERED_ACTIONS:
                self._seen.popitem(last=False)
            self._acting += 1
            self._group.create_task(self._do(action), name=f"{action.kind} {action.request_id}")

    async def _do(self, action: PendingAction) -> None:
        """Do one action and report its result."""
        try:
            try:
                result = await self._act(action)
            except Exception:  # the boundary of an action: whatever it is, the server is told
                log.exception("%s: %s failed", self._connection.name, action.kind)
                result = {"status": "failed", "error": "This failed inside the daemon; its log has more."}
            if result is not None:
                await self._report(action, result)
        finally:
            self._acting -= 1

    async def _report(self, action: PendingAction, result: dict[str, Any]) -> None:
        """Attempts after 0, 0.5, 2 and 4 s; any 4xx ends them."""
        for pause_s in RESULT_RETRIES_S:
            if pause_s:
                await asyncio.sleep(pause_s)
            try:
                await self._connection.client.report_action(
                    action.runtime_id, _ROUTES[action.kind], action.request_id, result
                )
            except errors.ServerError as error:
                log.info("%s: result of %s: %s", self._connection.name, action.kind, error)
                if 400 <= error.status < 500:
                    self._connection.report(error)
                    return
            else:
                return


def actions_of(runtime_id: str, answer: wire.HeartbeatResponse) -> list[PendingAction]:
    """What an answer asks for. The single import repeats the first of the list and is then ignored."""
    actions: list[PendingAction] = []
    if (update := answer.pending_update) is not None:
        actions.append(PendingAction("update", runtime_id, update.id, update.target_version))
    if (models := answer.pending_model_list) is not None:
        actions.append(PendingAction("model_list", runtime_id, models.id))
    if (skills := answer.pending_local_skills) is not None:
        actions.append(PendingAction("local_skills", runtime_id, skills.id))
    imports = answer.pending_local_skill_imports or []
    if not imports and answer.pending_local_skill_import is not None:
        imports = [answer.pending_local_skill_import]
    actions += [PendingAction("local_skill_import", runtime_id, item.id, item.skill_key) for item in imports]
    return actions
