"""How the daemon stands: its status and health, and the conditions that somebody should know of.

Conditions of connections, agents and spending follow from facts and are made when the status is; only those
that somebody has said (``set_condition``) are kept here, until that is taken back.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from daemon_core.connections.connection import Connection
from daemon_core.connections.health import State
from daemon_core.control.changes import ChangeLog
from daemon_core.control.pause_desk import PauseDesk
from daemon_core.control.requests_desk import waiting_tasks
from daemon_core.control.spend_desk import SpendDesk
from daemon_core.control.views import (
    Barrier,
    Condition,
    ConnectionView,
    DaemonStatus,
    Health,
    WorkspaceHealth,
)
from daemon_core.hub import Hub
from daemon_core.runtimes.discovery import FoundAgent
from daemon_core.runtimes.registration import Registration
from daemon_core.tasks import clock
from daemon_core.tasks.barrier import BarrierState
from daemon_core.tasks.engine import Engine

_CONNECTION_STATES: Final[Mapping[State, tuple[str, str]]] = {
    State.STARTING: ("connecting", ""),
    State.OK: ("connected", ""),
    State.WAITING_FOR_NETWORK: ("unreachable", "network_down"),
    State.SERVER_UNREACHABLE: ("unreachable", "server_unreachable"),
    State.SIGNED_OUT: ("signed_out", "signed_out"),
    State.REFUSED: ("unreachable", "server_refuses"),
}


class Source(Protocol):
    """Where the facts are; the facade is one of these."""

    @property
    def changes(self) -> ChangeLog: ...
    @property
    def engine(self) -> Engine | None: ...
    @property
    def hub(self) -> Hub | None: ...
    @property
    def connections(self) -> Mapping[str, Connection]: ...
    @property
    def registrations(self) -> Mapping[str, Registration]: ...
    @property
    def found(self) -> Sequence[FoundAgent]: ...
    @property
    def pause_desk(self) -> PauseDesk: ...
    @property
    def spend_desk(self) -> SpendDesk: ...


class StatusDesk:
    """Tells it, whenever it is asked and whenever it changes.

    Attributes:
        phase: starting, running or stopping.
        daemon_id, port: Given by the builder as soon as they are known.
        conditions: What was said, by code and subject.
    """

    def __init__(
        self, source: Source, *, version: str, profile: str, device_name: str, started_at: dt.datetime
    ) -> None:
        self._source = source
        self.version = version
        self.profile = profile
        self.device_name = device_name
        self.started_at = started_at
        self.daemon_id = ""
        self.port: int | None = None
        self.phase = "starting"
        self.conditions: dict[str, Condition] = {}
        self._started = time.monotonic()
        self._held_since = ""
        """Since when something else than the user's pause holds claims back."""
        self._queued = 0

    # --- told ----------------------------------------------------------------------------------

    def set_phase(self, phase: str) -> None:
        """Another phase begins."""
        self.phase = phase
        self.publish()

    def set_condition(self, code: str, subject: str = "", **params: Any) -> None:
        """Something is not as it should be; ``subject`` tells several of one kind apart."""
        key = f"{code}:{subject}"
        old = self.conditions.get(key)
        since = old.since if old is not None else clock.now_text()
        condition = Condition(code=code, params=params, since=since)
        if condition != old:
            self.conditions[key] = condition
            self.publish()

    def clear_condition(self, code: str, subject: str = "") -> None:
        """It is as it should be again."""
        if self.conditions.pop(f"{code}:{subject}", None) is not None:
            self.publish()

    def publish(self) -> None:
        """Publish the status as it is now."""
        self._source.changes.publish("status", "status", self.view())

    # --- asked ---------------------------------------------------------------------------------

    async def status(self) -> DaemonStatus:
        """The status, with the queue counted anew."""
        hub = self._source.hub
        if hub is not None and self.phase == "running":
            self._queued = await hub.count_queued()
        return self.view()

    def view(self) -> DaemonStatus:
        """The status, with the queue as it was counted last."""
        source = self._source
        engine = source.engine
        return DaemonStatus(
            status=self.phase,  # type: ignore[arg-type]
            pid=os.getpid(),
            version=self.version,
            uptime=round(time.monotonic() - self._started, 3),
            port=self.port,
            active_runs=engine.active_runs() if engine else 0,
            slots=engine.slots.total if engine else 0,
            barrier=self._barrier(),
            connections=[self.connection_view(connection) for connection in source.connections.values()],
            runtimes=sum(len(found.runtimes) for found in source.registrations.values()),
            conditions=self._all_conditions(),
            profile=self.profile,
            started_at=clock.text(self.started_at),
            daemon_id=self.daemon_id,
            queued=self._queued,
            needs_input=waiting_tasks(engine.lives) if engine else 0,
            undelivered=sum(1 for delivery in engine.deliveries.values() if delivery.trouble)
            if engine
            else 0,
            spend=source.spend_desk.view(),
        )

    async def health(self) -> Health:
        """As ``status``, for the loopback port."""
        source = self._source
        uptime_s = time.monotonic() - self._started
        engine = source.engine
        workspaces: dict[str, list[str]] = {}
        for registration in source.registrations.values():
            for runtime in registration.runtimes.values():
                workspaces.setdefault(runtime.workspace_id, []).append(runtime.runtime_id)
        return Health(
            status=self.phase,  # type: ignore[arg-type]
            pid=os.getpid(),
            os=_os_name(),
            uptime=_go_duration(uptime_s),
            daemon_id=self.daemon_id,
            device_name=self.device_name,
            server_url=next((c.client.base_url for c in source.connections.values()), ""),
            cli_version=self.version,
            profile=self.profile,
            active_task_count=len(engine.lives) if engine else 0,
            running_task_count=engine.active_runs() if engine else 0,
            resource_wait_task_count=engine.waiting_for_resources() if engine else 0,
            agents=sorted(agent.provider for agent in source.found if agent.usable),
            workspaces=[WorkspaceHealth(id=name, runtimes=ids) for name, ids in workspaces.items()] or None,
            version=self.version,
            uptime_s=round(uptime_s, 3),
            active_runs=engine.active_runs() if engine else 0,
            barrier=self._barrier(),
        )

    def connection_view(self, connection: Connection) -> ConnectionView:
        """A connection as the status tells it."""
        health = connection.health
        status, reason = _CONNECTION_STATES[health.state]
        return ConnectionView(
            name=connection.name,
            url=connection.client.base_url,
            status=status,  # type: ignore[arg-type]
            workspaces=len(connection.workspaces),
            websocket=connection.link.connected,
            reason=reason,
            reason_params={"reason": health.code, **health.params} if reason else {},
            since=_time(health.since),
            next_try_at=_time(health.next_try_at) if health.next_try_at else None,
        )

    # --- inside --------------------------------------------------------------------------------

    def _barrier(self) -> Barrier | None:
        pause, engine = self._source.pause_desk.standing, self._source.engine
        if pause is not None:
            return pause
        if engine is not None and engine.barrier.state is not BarrierState.DOWN:
            self._held_since = self._held_since or clock.now_text()
            return Barrier(reason="update", since=self._held_since)
        self._held_since = ""
        return None

    def _all_conditions(self) -> list[Condition]:
        source = self._source
        found = list(self.conditions.values())
        for connection in source.connections.values():
            health = connection.health
            _, code = _CONNECTION_STATES[health.state]
            if code:
                found.append(
                    Condition(
                        code=code,
                        params={"server": connection.name, "reason": health.code, **health.params},
                        since=_time(health.since),
                        next_try_at=_time(health.next_try_at) if health.next_try_at else None,
                        action="sign_in" if health.state is State.SIGNED_OUT else "try_again",
                    )
                )
        if self.phase == "running" and not any(
            agent.usable and agent.provider != "shell" for agent in source.found
        ):
            found.append(
                Condition(code="no_agents", since=clock.text(self.started_at), action="install_agent")
            )
        found += source.spend_desk.conditions()
        return found


def _time(moment: float | None) -> str:
    if not moment:
        return ""
    return clock.text(dt.datetime.fromtimestamp(moment, dt.UTC))


def _go_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _os_name() -> str:
    return {"darwin": "macos", "win32": "windows"}.get(sys.platform, sys.platform)
