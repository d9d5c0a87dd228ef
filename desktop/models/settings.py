"""The settings as the desktop knows them: from the daemon while it is there, from a small cache when not.

``SettingsStore`` follows the daemon's ``settings`` events, so what ``ostler config set`` or another window
changes shows at once. What the desktop itself goes by (``desktop.*``, ``notifications.*``) is kept in a file
beside the window's own state, so that look, language and quiet hours hold before the daemon answers and while
it is away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
import shiboken6
from PySide6.QtCore import QObject, QSaveFile, Signal

from daemon_core.control.settings_views import (
    SettingChanged,
    SettingSet,
    SettingsProblem,
    SettingsView,
    SettingView,
)
from daemon_core.control.views import ChangeEvent
from desktop.daemon.http import Call, Failure
from desktop.daemon.link import Link

log = logging.getLogger("ostler.desktop.settings")

OURS: Final = ("desktop.", "notifications.")
"""What the desktop goes by and therefore remembers."""
DEFAULTS: Final[Mapping[str, Any]] = {
    "desktop.appearance": "system",
    "desktop.language": "system",
    "desktop.explain_close": True,
    "desktop.terminal": "",
    "desktop.editor": "",
    "desktop.global_shortcut": "",
    "notifications.enabled": True,
    "notifications.needs_you": True,
    "notifications.finished": True,
    "notifications.failed": True,
    "notifications.stalled": True,
    "notifications.job": True,
    "notifications.parked": True,
    "notifications.update": True,
    "notifications.trouble": True,
    "notifications.sound": True,
    "notifications.respect_do_not_disturb": True,
    "notifications.quiet_hours": {},
    "notifications.per_minute": 5,
}
"""What holds where neither a daemon nor a file was ever there; a test holds it against the settings."""
CACHE_LIMIT_BYTES: Final = 256 * 1024


class SettingsStore(QObject):
    """The settings of one profile.

    Attributes:
        settings: What the daemon told last, by key; empty before it ever did.
        problem: What is wrong with the file; None where nothing is.
        left_out: Settings in the file that the daemon does not know and goes without.
        file: Where it is.
        providers: Names of all kinds of agent.
        known: Whether the daemon has told them in this life of the desktop.

    Signals:
        changed(frozenset[str]): Values, or what is said about them, are different for these keys.
    """

    changed = Signal(object)

    def __init__(self, link: Link, cache: Path | None = None, parent: QObject | None = None) -> None:
        """``cache``: the file for what the desktop goes by; None: nothing is remembered."""
        super().__init__(parent)
        self._link = link
        self._cache = cache
        self._remembered = self._read_cache()
        self.settings: dict[str, SettingView] = {}
        self.problem: SettingsProblem | None = None
        self.left_out: list[SettingsProblem] = []
        self.file = ""
        self.providers: list[str] = []
        self.known = False
        self._asking: Call[SettingsView] | None = None
        self._again = False
        self._in_flight: dict[str, int] = {}
        link.fresh.connect(self.refresh)
        link.happened.connect(self._on_event)
        if link.state.connected:
            self.refresh()

    # --- reading -----------------------------------------------------------------------------------

    def value(self, key: str) -> Any:
        """The value in force; for what the desktop goes by also without a daemon. None: not known."""
        found = self.settings.get(key)
        if found is not None:
            return found.value
        return self._remembered.get(key, DEFAULTS.get(key))

    def flag(self, key: str) -> bool:
        """A switch; off where it is not known."""
        return bool(self.value(key))

    def text(self, key: str) -> str:
        """A text or a choice."""
        found = self.value(key)
        return found if isinstance(found, str) else ""

    def number(self, key: str) -> int:
        """A count."""
        found = self.value(key)
        return found if isinstance(found, int) else 0

    def table(self, key: str) -> dict[str, Any]:
        """A table, such as the quiet hours."""
        found = self.value(key)
        return dict(found) if isinstance(found, dict) else {}

    # --- changing ----------------------------------------------------------------------------------

    def set(
        self,
        key: str,
        value: Any,
        *,
        done: Callable[[SettingChanged], None] | None = None,
        failed: Callable[[Failure], None] | None = None,
    ) -> None:
        """Have a setting written, as it would stand in the file; it is in force when ``done`` is called."""
        self._change("PUT", key, SettingSet(value=value), done, failed)

    def unset(
        self,
        key: str,
        *,
        done: Callable[[SettingChanged], None] | None = None,
        failed: Callable[[Failure], None] | None = None,
    ) -> None:
        """Back to the default."""
        self._change("DELETE", key, None, done, failed)

    def busy(self, key: str) -> bool:
        """Whether a change of it is on its way."""
        return key in self._in_flight

    def refresh(self) -> None:
        """Ask for all of them anew."""
        if self._asking is not None:
            self._again = True
            return
        self._asking = self._link.call(
            SettingsView, "GET", "/v1/settings", done=self._on_view, failed=self._on_no_view
        )

    def take_over(self) -> None:
        """Have the daemon read the file anew (somebody has changed it by hand), then ask what holds."""
        if self._link.state.connected:
            self._link.call(
                object, "POST", "/v1/settings/reload", failed=self._on_not_taken
            )  # fmt: skip

    def tell(self, view: SettingsView) -> None:
        """Take what the daemon told."""
        before = self.settings
        self.settings = {each.key: each for each in view.settings}
        other = (view.problem, view.left_out, view.file, view.providers) != (
            self.problem,
            self.left_out,
            self.file,
            self.providers,
        )
        first, self.known = not self.known, True
        self.problem, self.left_out = view.problem, view.left_out
        self.file, self.providers = view.file, view.providers
        moved = {
            key for key in {*before, *self.settings} if before.get(key) != self.settings.get(key) or first
        }
        self._remember()
        if moved or other:
            self.changed.emit(frozenset(moved))

    # --- small -------------------------------------------------------------------------------------

    def _change(
        self,
        method: str,
        key: str,
        body: Any,
        done: Callable[[SettingChanged], None] | None,
        failed: Callable[[Failure], None] | None,
    ) -> None:
        number = self._in_flight.get(key, 0) + 1
        self._in_flight[key] = number

        def settled() -> bool:
            """Whether this was the last change of it: what an older one answers is no news any more."""
            if self._in_flight.get(key) != number:
                return False
            del self._in_flight[key]
            return True

        def on_done(answer: SettingChanged) -> None:
            if not shiboken6.isValid(self):
                return
            if settled():
                self._put(answer.setting)
            if done is not None:
                done(answer)

        def on_failed(failure: Failure) -> None:
            log.info("%s was not changed: %s", key, failure)
            if not shiboken6.isValid(self):
                return
            if settled():
                self.changed.emit(frozenset({key}))
            if failed is not None:
                failed(failure)

        path = f"/v1/settings/{quote(key, safe='')}"
        self._link.call(SettingChanged, method, path, body, done=on_done, failed=on_failed)

    def _put(self, view: SettingView) -> None:
        self.settings[view.key] = view
        self._remember()
        self.changed.emit(frozenset({view.key}))

    def _on_view(self, view: SettingsView) -> None:
        if not shiboken6.isValid(self):
            return  # its window is gone
        self._asking = None
        if self._again:
            self._again = False
            self.refresh()
            return
        self.tell(view)

    def _on_no_view(self, failure: Failure) -> None:
        self._asking = None
        self._again = False
        log.info("the settings cannot be had: %s", failure)

    def _on_not_taken(self, _failure: Failure) -> None:
        if shiboken6.isValid(self):
            self.refresh()  # it tells what is wrong with the file

    def _on_event(self, event: ChangeEvent) -> None:
        if event.kind == "settings":
            self.refresh()

    def _read_cache(self) -> dict[str, Any]:
        if self._cache is None:
            return {}
        try:
            with open(self._cache, "rb") as file:
                found = msgspec.json.decode(file.read(CACHE_LIMIT_BYTES), type=dict[str, Any])
        except (OSError, ValueError):
            return {}  # nothing is remembered, or it cannot be read: the defaults hold until the daemon tells
        return {
            key: value
            for key, value in found.items()
            if key in DEFAULTS and type(value) is type(DEFAULTS[key])
        }

    def _remember(self) -> None:
        ours = {key: each.value for key, each in self.settings.items() if key.startswith(OURS)}
        if not ours or ours == self._remembered:
            return
        self._remembered = ours
        if self._cache is None:
            return
        file = QSaveFile(str(self._cache))
        if file.open(QSaveFile.OpenModeFlag.WriteOnly):
            file.write(msgspec.json.encode(ours))
            file.commit()
