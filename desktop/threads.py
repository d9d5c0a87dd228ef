"""Threads beside Qt's, for what may take long and cannot be told by a signal: a directory on a slow disk, a
library with a loop of its own.

Python collects cycles in whichever thread happens to allocate. What is found there may be Qt's, and Qt's
objects must not be destroyed outside of their own thread: the process would crash, once in a long while. So
as long as such a thread is there nothing is collected by itself; the Qt thread collects whenever its loop is
about to rest and there is enough to look at. Nothing else in the desktop starts a thread.

Such a thread neither reads nor writes what crosses the control API: msgspec works out a structure when it is
first used, and two threads at that end the process. All of it is the Qt thread's, so nothing has to be
prepared at the start.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from PySide6.QtCore import QAbstractEventDispatcher, QObject, Qt, Signal

log = logging.getLogger("ostler.desktop")

_beside: set[QObject] = set()
"""Who has a thread now."""


def collect_here(owner: QObject) -> None:
    """From now on only the Qt thread collects: ``owner`` is about to start a thread. To be called there."""
    if not _beside:
        gc.disable()
        dispatcher = QAbstractEventDispatcher.instance()
        if dispatcher is not None:
            dispatcher.aboutToBlock.connect(_collect_if_due)
    _beside.add(owner)


def collect_anywhere(owner: QObject) -> None:
    """The thread of ``owner`` has ended. To be called in the Qt thread, after the thread was joined."""
    if owner not in _beside:
        return
    _beside.remove(owner)
    if not _beside:
        dispatcher = QAbstractEventDispatcher.instance()
        if dispatcher is not None:
            dispatcher.aboutToBlock.disconnect(_collect_if_due)
        gc.enable()


def _collect_if_due() -> None:
    """What Python would have done by itself, by its own measure."""
    for generation in (2, 1, 0):
        threshold = gc.get_threshold()[generation]
        if threshold and gc.get_count()[generation] > threshold:
            gc.collect(generation)
            return


class Aside(QObject):
    """One piece of work in a thread of its own. The program does not wait for it when it ends.

    It keeps itself alive until the work is done. Neither the work nor its result may have to do with Qt.

    Signals:
        done(object): What the work returned; not sent if it raised, which is logged.
    """

    done = Signal(object)
    _ended = Signal()

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        super().__init__()
        self._result: Any = None
        self._failed: BaseException | None = None
        self._work: Final = work
        self._thread: Final = threading.Thread(target=self._run, name=name, daemon=True)
        self._ended.connect(self._on_ended, Qt.ConnectionType.QueuedConnection)

    def start(self) -> None:
        """Begin."""
        collect_here(self)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except Exception as error:  # noqa: BLE001 - told in the Qt thread
            self._failed = error
        self._ended.emit()

    def _on_ended(self) -> None:
        self._thread.join()  # it has nothing left to do
        collect_anywhere(self)
        if self._failed is not None:
            log.error("%s failed", self._thread.name, exc_info=self._failed)
        else:
            self.done.emit(self._result)
