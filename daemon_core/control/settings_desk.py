"""``/v1/settings``: every setting with its value, its limits and where it comes from; changed one by one.

The file is the truth: it is read for each answer, changed with its comments kept, and taken over at once. One
with a mistake is told with file and line, what was in force stays so, and nothing is written into it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.changes import ChangeLog
from daemon_core.control.errors import ControlError
from daemon_core.control.route import Query, Route
from daemon_core.control.settings_views import (
    SettingChanged,
    SettingSet,
    SettingsEvent,
    SettingsProblem,
    SettingsView,
    SettingView,
)
from daemon_core.control.views import ReloadAnswer
from daemon_core.control.web import answer, body
from daemon_core.settings import edit, file, values
from daemon_core.settings.errors import SettingsError
from daemon_core.settings.file import Entry
from daemon_core.settings.sections import Settings

log = logging.getLogger(__name__)

UNBOUNDED: Final = 2**53
PROVIDER: Final = "<provider>"

SETTINGS_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "settings",
        "GET",
        "/v1/settings",
        "Settings with their values, limits and sources; a mistake in the file with its line.",
        SettingsView,
        query=(Query("sections", "Only these, such as `desktop,notifications`.", "string"),),
        refusals=("not_ready",),
    ),
    Route(
        "set_setting",
        "PUT",
        "/v1/settings/{key}",
        "Write one setting into the file and take it over.",
        SettingChanged,
        SettingSet,
        guarded=True,
        refusals=("settings_invalid", "invalid_input", "not_ready"),
    ),
    Route(
        "unset_setting",
        "DELETE",
        "/v1/settings/{key}",
        "Take one setting out of the file: back to its default.",
        SettingChanged,
        guarded=True,
        refusals=("settings_invalid", "not_ready"),
    ),
)


def settings_refusal(error: SettingsError) -> ControlError:
    """A mistake in the settings as the control API tells it."""
    return ControlError("settings_invalid", msgspec.to_builtins(_problem(error)))


def _problem(error: SettingsError) -> SettingsProblem:
    return SettingsProblem(
        what=error.what,
        hint=error.hint,
        file=str(error.file) if error.file is not None else "",
        line=error.line,
        key=error.key,
        reason=error.reason,
        reason_params=error.params,
    )


def condition_params(mistakes: Sequence[SettingsError]) -> dict[str, Any]:
    """Of the condition ``settings_invalid``: the words for the command line, and the same as codes."""
    return {
        "what": " ".join(str(mistake) for mistake in mistakes),
        "problems": [msgspec.to_builtins(_problem(mistake)) for mistake in mistakes],
    }


class SettingsDesk:
    """Answers the routes above.

    Args:
        path: The file.
        environ: What overrides it.
        in_force: The settings that the daemon goes by.
        reload: Have the daemon read the file anew. Raises ``SettingsError``.
        providers: The names of all kinds of agent.
        present: Those that are on this machine.
        not_ours: Whether the daemon goes without a setting that it does not know: one of a newer version.
    """

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        changes: ChangeLog,
        *,
        in_force: Callable[[], Settings],
        reload: Callable[[], Awaitable[ReloadAnswer]],
        providers: Callable[[], Collection[str]],
        present: Callable[[], Collection[str]],
        not_ours: file.Unknown | None = None,
    ) -> None:
        self._path = path
        self._environ = environ
        self._changes = changes
        self._in_force = in_force
        self._reload = reload
        self._providers = providers
        self._present = present
        self._not_ours = not_ours
        self._at_start = in_force()
        self._changing = asyncio.Lock()
        self._last: dict[str, Any] = {}

    def taken_over(self, problem: SettingsError | None = None) -> None:
        """The daemon has read the file: readers of the stream hear that there is something to ask for."""
        self._changes.publish("settings", "settings", SettingsEvent(problem=problem is not None))

    async def view(self, sections: Collection[str] = ()) -> SettingsView:
        """All settings, or those of some sections. A damaged file is part of the answer."""
        written, problem, left_out = await asyncio.to_thread(self._written)
        settings = self._in_force()
        overridden = {name for name, _, _ in file.overrides(self._environ)}
        views = [
            self._view(entry, settings, written, overridden)
            for entry in self._entries(settings, written)
            if not sections or entry.name.partition(".")[0] in sections
        ]
        return SettingsView(
            file=str(self._path),
            exists=os.path.exists(self._path),
            settings=views,
            problem=problem,
            left_out=left_out,
            providers=sorted(self._providers()),
        )

    async def set(self, key: str, request: SettingSet) -> SettingChanged:
        """Write one setting. Raises ``ControlError``: settings_invalid, invalid_input."""
        if (request.value is msgspec.UNSET) is (request.text is None):
            raise ControlError("invalid_input", {"field": "value", "why": "either_value_or_text"})

        def write() -> None:
            known = self._providers()
            if request.text is not None:
                edit.set_value(self._path, key, request.text, known, self._not_ours)
            else:
                edit.set_plain(self._path, key, request.value, known, self._not_ours)

        return await self._change(key, write)

    async def unset(self, key: str) -> SettingChanged:
        """Take one setting out of the file. Raises ``ControlError``: settings_invalid."""
        return await self._change(key, lambda: edit.unset_value(self._path, key, self._not_ours))

    async def _change(self, key: str, write: Callable[[], object]) -> SettingChanged:
        try:
            entry = file.find(key)
            async with self._changing:
                await asyncio.to_thread(write)
                await self._reload()
        except SettingsError as error:
            raise settings_refusal(error) from error
        log.info("the setting %s was changed over the control API", key)
        written, _mistake, _left_out = await asyncio.to_thread(self._written)
        overridden = {name for name, _, _ in file.overrides(self._environ)}
        view = self._view(entry, self._in_force(), written, overridden)
        return SettingChanged(setting=view, applied=not view.pending and not view.variable)

    def _written(self) -> tuple[dict[str, Any], SettingsProblem | None, list[SettingsProblem]]:
        """What the file sets (a damaged one: what it last set), what is wrong with it, and which of its
        settings are left out. Reads the disk."""
        left_out: list[SettingsProblem] = []

        def unknown(mistake: SettingsError) -> bool:
            if self._not_ours is None or not self._not_ours(mistake):
                return False
            left_out.append(_problem(mistake))
            return True

        try:
            raw = file.content(self._path)
            file.parse(raw, self._path, self._environ, self._providers(), unknown)
            self._last = file.set_in(raw, self._path, self._not_ours)
        except SettingsError as error:
            return self._last, _problem(error), left_out
        return self._last, None, left_out

    def _entries(self, settings: Settings, written: Mapping[str, Any]) -> list[Entry]:
        """Each setting that there is on this machine."""
        named = {*settings.agents, *self._present()}
        named |= {name.split(".")[1] for name in written if name.startswith("agents.")}
        plain: list[Entry] = []
        of_agents: list[Entry] = []
        for entry in file.entries():
            (of_agents if PROVIDER in entry.name else plain).append(entry)
        return plain + [
            Entry(entry.name.replace(PROVIDER, provider), entry.key, entry.default)
            for provider in sorted(named)
            for entry in of_agents
        ]

    def _view(
        self, entry: Entry, settings: Settings, written: Mapping[str, Any], overridden: Collection[str]
    ) -> SettingView:
        name, key = entry.name, entry.key
        value = file.value_of(settings, name)
        variable = file.override_name(name) if name in overridden else ""
        bounded = key.kind in ("count", "amount", "counts", "duration", "size")
        return SettingView(
            key=name,
            kind=key.kind,
            value=value,
            default=values.to_toml(key, entry.default),
            written=written.get(name),
            source="environment" if variable else "file" if name in written else "default",
            variable=variable,
            what=key.what,
            why=key.why,
            least=key.least if bounded else None,
            most=key.most if bounded and key.most < UNBOUNDED else None,
            choices=list(key.choices),
            live=key.live,
            pending=not key.live and value != file.value_of(self._at_start, name),
        )


class HasSettings(Protocol):
    """What the routes need of the daemon."""

    @property
    def settings_desk(self) -> SettingsDesk | None: ...


def settings_handlers(backend: HasSettings) -> Mapping[str, Handler]:
    """The answering functions by the name of their route."""

    def desk() -> SettingsDesk:
        if backend.settings_desk is None:
            raise ControlError("not_ready")
        return backend.settings_desk

    async def settings(request: web.Request) -> web.Response:
        sections = [each for each in request.query.get("sections", "").split(",") if each]
        return answer(await desk().view(sections))

    async def set_setting(request: web.Request) -> web.Response:
        return answer(await desk().set(request.match_info["key"], await body(request, SettingSet)))

    async def unset_setting(request: web.Request) -> web.Response:
        return answer(await desk().unset(request.match_info["key"]))

    return {"settings": settings, "set_setting": set_setting, "unset_setting": unset_setting}
