"""Notifications of Windows and macOS, through ``desktop-notifier``. Not tried there by its makers.

It wants an asyncio loop: one in a thread of its own, begun with the first notification. It fails in silence:
with nobody to show it, sending gives an ident all the same. So it is asked first what it can do (that does
raise), and a notification counts as shown only when it says "dispatched"; one that does not has failed.

On macOS notifications need a signed bundle, and what comes back arrives by the main thread's run loop, which
is Qt's. On Windows the library registers the program's name for this user.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sys
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QObject, Qt, Signal

from desktop.notifications.service import Abilities, Notification, Service
from desktop.text import _
from desktop.threads import collect_anywhere, collect_here

if TYPE_CHECKING:
    from desktop_notifier import DesktopNotifier

log = logging.getLogger("ostler.desktop.notifications")

ANSWER_S: Final = 10.0
CLOSE_S: Final = 2.0


class LibraryService(Service):
    """All signals of the library come from its thread; they reach Qt's by queued signals of ours."""

    _came = Signal(str, str, str)
    _knows = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._notifier: DesktopNotifier | None = None
        self._wanted: dict[str, str] = {}
        self._turn = asyncio.Lock()
        self._came.connect(self._on_came, Qt.ConnectionType.QueuedConnection)
        self._knows.connect(self._on_knows, Qt.ConnectionType.QueuedConnection)

    def show(self, wanted: Notification) -> None:
        tag = tag_of(wanted.ident)
        self._wanted[tag] = wanted.ident
        self._run(self._send(wanted, tag))

    def withdraw(self, ident: str) -> None:
        tag = tag_of(ident)
        if self._wanted.pop(tag, None) is not None:
            self._run(self._clear(tag))

    def close(self) -> None:
        self._wanted.clear()
        loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None:
            return

        async def end() -> None:
            try:
                if self._notifier is not None:
                    await asyncio.wait_for(self._notifier.clear_all(), CLOSE_S)
            except Exception:
                log.info("what is shown could not be taken back", exc_info=True)
            finally:
                loop.stop()

        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join(CLOSE_S + 1)
        if not thread.is_alive():
            collect_anywhere(self)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None:
            collect_here(self)
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._keep_running, args=(self._loop,), name="notifications", daemon=True
            )
            self._thread.start()
        asyncio.run_coroutine_threadsafe(work, self._loop)

    @staticmethod
    def _keep_running(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    # --- in the library's thread -------------------------------------------------------------------

    async def _known(self) -> DesktopNotifier:
        """The library, asked what it can do. Raises what it raises."""
        if self._notifier is None:
            from desktop_notifier import Capability, DesktopNotifier

            notifier = DesktopNotifier(app_name="Ostler", app_icon=None)
            can = await asyncio.wait_for(notifier.get_capabilities(), ANSWER_S)
            if Capability.TITLE not in can:
                raise RuntimeError("nobody here shows notifications")
            notifier.on_dispatched = lambda ident: self._came.emit("shown", ident, "")
            notifier.on_clicked = lambda ident: self._came.emit("opened", ident, "")
            notifier.on_dismissed = lambda ident: self._came.emit("gone", ident, "")
            notifier.on_button_pressed = lambda ident, key: self._came.emit("pressed", ident, key)
            notifier.on_replied = lambda ident, text: self._came.emit("replied", ident, text)
            self._notifier = notifier
            name = {"win32": "Windows", "darwin": "macOS"}.get(sys.platform, sys.platform)
            self._knows.emit(Abilities(name, Capability.BUTTONS in can, Capability.REPLY_FIELD in can))
        return self._notifier

    async def _send(self, wanted: Notification, tag: str) -> None:
        from desktop_notifier import DEFAULT_SOUND, Button, ReplyField, Urgency
        from desktop_notifier import Notification as Theirs

        shown = False
        try:
            notifier = await self._known()

            def dispatched() -> None:
                nonlocal shown
                shown = True

            theirs = Theirs(
                title=wanted.title,
                message=wanted.text,
                urgency=Urgency(wanted.urgency),
                buttons=tuple(Button(title=each.text, identifier=each.key) for each in wanted.buttons),
                reply_field=ReplyField(title=wanted.reply, button_title=_("Send")) if wanted.reply else None,
                sound=DEFAULT_SOUND if wanted.sound else None,
                on_dispatched=dispatched,
                identifier=tag,
            )
            async with self._turn:  # what is taken back has to be there first
                await asyncio.wait_for(notifier.send_notification(theirs), ANSWER_S)
        except Exception as error:  # noqa: BLE001 - whatever it was on whichever platform, another one shows it
            log.warning("a notification could not be shown: %r", error)
        if not shown:
            self._came.emit("failed", tag, "")

    async def _clear(self, tag: str) -> None:
        if self._notifier is not None:
            try:
                async with self._turn:
                    await asyncio.wait_for(self._notifier.clear(tag), ANSWER_S)
            except Exception:
                log.info("a notification could not be taken back", exc_info=True)

    # --- in Qt's thread ----------------------------------------------------------------------------

    def _on_knows(self, abilities: Abilities) -> None:
        self._abilities = abilities

    def _on_came(self, what: str, tag: str, detail: str) -> None:
        ident = self._wanted.get(tag)
        if ident is None:
            return
        match what:
            case "opened":
                self.opened.emit(ident, "")
            case "pressed":
                self.pressed.emit(ident, detail, "")
            case "replied":
                self.replied.emit(ident, detail)
            case "gone":
                del self._wanted[tag]
                self.gone.emit(ident, True)
            case "failed":
                del self._wanted[tag]
                self.failed.emit(ident)
            case _:
                pass


def tag_of(ident: str) -> str:
    """A name that every platform takes: old versions of Windows allow sixteen characters."""
    return hashlib.sha256(ident.encode()).hexdigest()[:16]
