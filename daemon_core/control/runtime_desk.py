"""The runtimes as the control API sees them: shown, restarted, switched, and given programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import msgspec

from daemon_core.connections.health import State
from daemon_core.control.backend import PREFIX_LEAST, resolve_id
from daemon_core.control.changes import ChangeLog
from daemon_core.control.errors import ControlError
from daemon_core.control.runtime_requests import MissingAgent, ProfilePath, SetPath
from daemon_core.control.runtime_views import found_view, mistake_view, with_facts
from daemon_core.control.views import RuntimeView
from daemon_core.runtimes.book import Off, RuntimeBook
from daemon_core.runtimes.discovery import FoundAgent
from daemon_core.runtimes.providers import Mistake
from daemon_core.runtimes.registration import RegisteredRuntime, Registration
from daemon_core.tasks.engine import Engine

APPLY_S: Final = 10.0
"""How long a server may take to hear of a change before the user is answered; it is told all the same."""


class RuntimeSource(Protocol):
    """What is shown here is kept elsewhere; the facade is one of these."""

    changes: ChangeLog

    @property
    def registrations(self) -> Mapping[str, Registration]: ...
    @property
    def found(self) -> Sequence[FoundAgent]: ...
    @property
    def provider_mistakes(self) -> Sequence[Mistake]: ...
    @property
    def engine(self) -> Engine | None: ...
    @property
    def phase(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Row:
    """A runtime, and what is known of it beside its view."""

    view: RuntimeView
    subject: str
    runtime: RegisteredRuntime | None = None
    """What is registered, or would be if it were switched on."""
    agent: FoundAgent | None = None


class RuntimeDesk:
    """Implements ``control.runtime_routes.RuntimeHost``.

    Attributes:
        book, discover, glance: given by the builder as soon as they are there. ``glance``: somebody looks at
            the agents, so it may be seen whether they are still the same.
    """

    def __init__(self, source: RuntimeSource) -> None:
        self._source = source
        self._shown: frozenset[str] = frozenset()
        self.book: RuntimeBook | None = None
        self.discover: Callable[[], Awaitable[object]] | None = None
        self.glance: Callable[[], None] = lambda: None

    # --- shown -------------------------------------------------------------------------------------

    def views(self) -> list[RuntimeView]:
        """All that were found, the unusable ones and those that are switched off, too."""
        mistakes = [mistake_view(mistake) for mistake in self._source.provider_mistakes]
        return [*(row.view for row in self._rows()), *mistakes]

    def missing(self) -> list[MissingAgent]:
        """What was looked for and is not here; the kinds that were tried come first."""
        found = [
            MissingAgent(
                provider=agent.provider, name=agent.name, install=agent.install_hint, verified=agent.verified
            )
            for agent in self._source.found
            if agent.status == "missing"
        ]
        return sorted(found, key=lambda each: (not each.verified, not each.install, each.name.lower()))

    def publish(self) -> None:
        """Tell those who follow what is registered and what is not any more."""
        ids = set()
        for registration in self._source.registrations.values():
            for runtime in registration.runtimes.values():
                ids.add(runtime.runtime_id)
                view = self._registered(runtime).view
                self._source.changes.publish("runtime", f"runtime:{runtime.runtime_id}", view)
            for runtime in registration.switched_off():
                ids.add(runtime.runtime_id)
                if runtime.runtime_id not in registration.runtimes:
                    view = self._switched_off(runtime).view
                    self._source.changes.publish("runtime", f"runtime:{runtime.runtime_id}", view)
        for gone in self._shown - ids:
            self._source.changes.publish("runtime_removed", f"runtime:{gone}", {"id": gone})
        self._shown = frozenset(ids)

    def is_off_at(self, connection: str, provider: str) -> bool:
        """Whether no task for a provider's plain runtime can be taken at a connection: it is off there."""
        registration = self._source.registrations.get(connection)
        if self.book is None:
            return False
        workspaces = list(registration.workspaces) if registration is not None else [""]
        return all(self.book.is_off(connection, workspace, provider) for workspace in workspaces or [""])

    # --- done --------------------------------------------------------------------------------------

    async def restart(self, name: str) -> list[RuntimeView]:
        """Ask the programs again, then register the runtime anew, wherever it is."""
        _, discover = self._ready()
        rows = self._named(name)
        on = [row for row in rows if row.view.status != "off"]
        if not on:
            raise _unusable(name, "switched_off")
        await discover()
        by_registration: dict[str, list[str]] = {}
        for row in on:
            if row.runtime is not None:
                by_registration.setdefault(row.runtime.connection.name, []).append(row.runtime.runtime_id)
        for connection, ids in by_registration.items():
            registration = self._source.registrations[connection]
            for runtime_id in ids:
                await _in_time(registration.restart(runtime_id), registration)
        after = self._same(rows)
        if not any(row.runtime is not None for row in after):
            found = next((row.view for row in after), None)
            if found is not None and found.status == "unusable":
                raise _unusable(name, found.reason, found.reason_params)
            for registration in self._source.registrations.values():
                registration.connection.sync_now()
        return [row.view for row in after]

    async def switch(self, name: str, *, on: bool) -> list[RuntimeView]:
        """Switch a runtime on or off; that holds over restarts, and at once even if a server is away."""
        book, _ = self._ready()
        rows = self._named(name)
        provider = _provider_of(name, rows)
        if provider and on:
            # All of it, however it was switched off.
            await book.switch(on=[entry for entry in book.off if entry.subject == provider])
        elif provider:
            await book.switch(off=[Off(subject=provider)])
        else:
            await self._switch_one(book, rows[0], on=on)
        for registration in list(self._source.registrations.values()):
            await _in_time(registration.follow(), registration)
        self.publish()
        return [row.view for row in self._same(rows)]

    async def _switch_one(self, book: RuntimeBook, row: _Row, *, on: bool) -> None:
        runtime = row.runtime
        if runtime is None:
            raise ControlError("unknown_runtime", {"runtime": row.view.id, "known": self._known()})
        place = (runtime.connection.name, runtime.workspace_id, row.subject)
        covering = [entry for entry in book.off if entry.covers(*place)]
        if not on:
            if not covering:
                await book.switch(off=[_off(runtime)])
            return
        # Where the kind as a whole is off, the others of it stay so, one by one.
        wide = any(not entry.connection for entry in covering)
        others = [
            _off(other.runtime)
            for other in self._rows()
            if wide and other.runtime is not None and other.subject == row.subject
            and (other.runtime.connection.name, other.runtime.workspace_id) != place[:2]
        ]  # fmt: skip
        await book.switch(on=covering, off=others)

    async def set_path(self, profile: str, request: SetPath) -> ProfilePath:
        """The program of a custom profile on this machine; an empty path takes it back."""
        book, _ = self._ready()
        path = request.path
        profile_id = self._profile(profile, book)
        if path:
            if not os.path.isabs(path):
                raise ControlError("invalid_input", {"field": "path", "why": "not_absolute", "path": path})
            if not await asyncio.to_thread(_executable, path):
                raise ControlError("invalid_input", {"field": "path", "why": "not_executable", "path": path})
        await book.set_path(profile_id, path)
        for registration in list(self._source.registrations.values()):
            if any(
                each.id == profile_id for state in registration.workspaces.values() for each in state.profiles
            ):
                await _in_time(registration.follow(), registration)
        self.publish()
        return self._profile_view(profile_id, book)

    # --- rows --------------------------------------------------------------------------------------

    def _rows(self) -> list[_Row]:
        rows: list[_Row] = []
        plain: set[str] = set()
        for registration in self._source.registrations.values():
            there = [self._registered(runtime) for runtime in registration.runtimes.values()]
            shown = {(row.view.workspace_id, row.subject) for row in there}
            off = [
                self._switched_off(runtime)
                for runtime in registration.switched_off()
                if (runtime.workspace_id, runtime.subject) not in shown
            ]
            failed = [
                self._failed(registration, workspace_id, profile.id, profile.display_name, reason)
                for workspace_id, profile, reason in registration.failed_profiles()
            ]
            rows += [*there, *off, *failed]
            plain.update(row.subject for row in (*there, *off) if not row.view.profile)
        for agent in self._source.found:
            if agent.provider in plain or agent.status == "missing":
                continue
            view = found_view(agent)
            if agent.usable and self.book is not None and self.book.is_off("", "", agent.provider):
                view = msgspec.structs.replace(view, status="off", reason="switched_off")
            rows.append(_Row(view, agent.provider, agent=agent))
        return rows

    def _registered(self, runtime: RegisteredRuntime) -> _Row:
        status, reason = "online", ""
        if not runtime.claimable:
            status, reason = "offline", "agent_gone"
            if self._is_off(runtime):
                status, reason = "off", "switched_off"
        elif runtime.connection.health.state not in (State.OK, State.STARTING):
            out = runtime.connection.health.state is State.SIGNED_OUT
            status, reason = "offline", "signed_out" if out else "unreachable"
        row = self._row(runtime, status, reason)
        engine = self._source.engine
        held = engine.accounts.held(runtime.provider) if engine is not None and engine.accounts else None
        if held is None or reason:
            return row
        params = {"provider": runtime.provider, "until": held.until, "resets_at": held.resets_at}
        view = msgspec.structs.replace(row.view, reason="usage_limit", reason_params=params)
        return replace(row, view=view)

    def _switched_off(self, runtime: RegisteredRuntime) -> _Row:
        return self._row(runtime, "off", "switched_off")

    def _row(self, runtime: RegisteredRuntime, status: str, reason: str) -> _Row:
        agent = next((found for found in self._source.found if found.provider == runtime.provider), None)
        view = RuntimeView(
            id=runtime.runtime_id,
            provider=runtime.provider,
            name=runtime.name,
            version=runtime.version,
            path=runtime.path,
            status=status,
            reason=reason,
            connection=runtime.connection.name,
            workspace=_workspace_name(runtime.connection.workspaces, runtime.workspace_id),
            workspace_id=runtime.workspace_id,
            busy=self._busy(runtime),
            profile=runtime.profile_id,
        )
        return _Row(with_facts(view, agent), runtime.subject, runtime, agent)

    def _failed(
        self, registration: Registration, workspace_id: str, profile_id: str, name: str, reason: str
    ) -> _Row:
        connection = registration.connection
        view = RuntimeView(
            id=profile_id,
            provider=name or profile_id,
            name=name,
            status="unusable",
            reason="profile_unusable",
            reason_params={"detail": reason, "profile": profile_id},
            connection=connection.name,
            workspace=_workspace_name(connection.workspaces, workspace_id),
            workspace_id=workspace_id,
            profile=profile_id,
        )
        return _Row(view, profile_id)

    def _busy(self, runtime: RegisteredRuntime) -> int:
        engine = self._source.engine
        if engine is None:
            return 0
        return sum(
            1
            for life in engine.lives.values()
            if life.record.connection == runtime.connection.name
            and life.record.runtime_id == runtime.runtime_id
        )

    def _is_off(self, runtime: RegisteredRuntime) -> bool:
        return self.book is not None and self.book.is_off(
            runtime.connection.name, runtime.workspace_id, runtime.subject
        )

    # --- finding -----------------------------------------------------------------------------------

    def _named(self, name: str) -> list[_Row]:
        """One runtime by its id or the beginning of it, or all plain ones of a provider."""
        rows = self._rows()
        wanted = name.strip().lower()
        of_kind = [row for row in rows if row.subject == wanted and not row.view.profile]
        if of_kind:
            return of_kind
        ids = {row.view.id.lower() for row in rows}
        near = sorted(id_ for id_ in ids if id_.startswith(wanted))
        if wanted not in ids and (len(wanted) < PREFIX_LEAST or not near):
            raise ControlError("unknown_runtime", {"runtime": name, "known": self._known()})
        full = resolve_id("runtime", wanted, ids)
        return [row for row in rows if row.view.id.lower() == full]

    def _same(self, before: Iterable[_Row]) -> list[_Row]:
        """These rows as they are now: ids may have changed."""
        wanted = {(row.view.connection, row.view.workspace_id, row.subject) for row in before}
        subjects = {row.subject for row in before if not row.view.connection}
        return [
            row
            for row in self._rows()
            if (row.view.connection, row.view.workspace_id, row.subject) in wanted
            or (row.subject in subjects and not row.view.profile)
        ]

    def _known(self) -> list[str]:
        return sorted({row.subject for row in self._rows() if not row.view.profile})

    def _profile(self, given: str, book: RuntimeBook) -> str:
        """A profile by its id, the beginning of it, or its name."""
        names: dict[str, str] = dict.fromkeys(book.paths, "")
        for registration in self._source.registrations.values():
            for state in registration.workspaces.values():
                names.update({profile.id: profile.display_name for profile in state.profiles})
        wanted = given.strip()
        with contextlib.suppress(ValueError):
            return str(uuid.UUID(wanted))  # perhaps of a server that cannot be asked right now
        called = [id_ for id_, name in names.items() if name.casefold() == wanted.casefold() and name]
        if len(called) == 1:
            return called[0]
        if not called and not any(id_.startswith(wanted.lower()) for id_ in names):
            known = sorted(name or id_ for id_, name in names.items())
            raise ControlError("not_found", {"kind": "profile", "id": given, "known": known})
        return resolve_id("profile", wanted, called or names)

    def _profile_view(self, profile_id: str, book: RuntimeBook) -> ProfilePath:
        made = ProfilePath(profile=profile_id, path=book.path_of(profile_id))
        for registration in self._source.registrations.values():
            for state in registration.workspaces.values():
                for profile in state.profiles:
                    if profile.id == profile_id:
                        made = msgspec.structs.replace(
                            made, name=profile.display_name, command=profile.command_name
                        )
            ids = [id_ for id_, each in registration.runtimes.items() if each.profile_id == profile_id]
            made = msgspec.structs.replace(made, runtimes=(*made.runtimes, *ids))
            for _, profile, reason in registration.failed_profiles():
                if profile.id == profile_id:
                    made = msgspec.structs.replace(made, reason=reason)
        return made

    def _ready(self) -> tuple[RuntimeBook, Callable[[], Awaitable[object]]]:
        if self.book is None or self.discover is None or self._source.phase != "running":
            raise ControlError("not_ready")
        return self.book, self.discover


def _provider_of(name: str, rows: Sequence[_Row]) -> str:
    """The provider, if that is what was named."""
    wanted = name.strip().lower()
    return wanted if all(row.subject == wanted and not row.view.profile for row in rows) else ""


def _off(runtime: RegisteredRuntime) -> Off:
    return Off(
        subject=runtime.subject,
        connection=runtime.connection.name,
        workspace=runtime.workspace_id,
        runtime_id=runtime.runtime_id,
    )


def _unusable(name: str, reason: str, params: Mapping[str, object] | None = None) -> ControlError:
    return ControlError(
        "runtime_unusable", {"runtime": name, "reason": reason, "reason_params": dict(params or {})}
    )


def _workspace_name(known: Mapping[str, object], workspace_id: str) -> str:
    return str(getattr(known.get(workspace_id), "name", "")) or workspace_id


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


async def _in_time(work: Awaitable[None], registration: Registration) -> None:
    """A server that does not answer keeps nobody waiting; it is told later."""
    try:
        async with asyncio.timeout(APPLY_S):
            await work
    except TimeoutError:
        registration.look_again()
