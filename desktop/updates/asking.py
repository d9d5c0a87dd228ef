"""What the user wants of an update goes to the daemon; a refusal is told, never swallowed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QMessageBox

from daemon_core.control.errors import ControlError
from daemon_core.control.update_views import UpdateApply, UpdateLater
from daemon_core.control.views import Condition, UpdateView
from desktop.commands import Command
from desktop.daemon.http import WORK_TIMEOUT_MS, Failure
from desktop.daemon.link import Link
from desktop.text import _
from desktop.updates.words import reason_words

log = logging.getLogger("ostler.desktop.updates")


class Updates(QObject):
    """Does the commands about updates.

    Args:
        tell: Shows (title, text) to the user.
    """

    def __init__(self, link: Link, tell: Callable[[str, str], None], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._link = link
        self._tell = tell
        self._asking: QMessageBox | None = None

    def do(self, command: Command) -> None:
        """Do one of ``update``, ``update_later``, ``update_check``, ``update_rollback``."""
        match command.name:
            case "update":
                self._post("/v1/update/apply", UpdateApply(version=command.subject))
            case "update_later":
                self._post("/v1/update/remind-later", UpdateLater())
            case "update_check":
                self._post("/v1/update/check")
            case "update_rollback":
                self._ask_to_go_back()
            case _:
                raise ValueError(command.name)

    def _ask_to_go_back(self) -> None:
        """Ask once: what is newer is then not taken again by itself."""
        update = self._link.state.update
        if update is None or not update.previous:
            return
        if self._asking is not None:
            self._asking.raise_()
            return
        box = QMessageBox()
        box.setIcon(QMessageBox.Icon.NoIcon)
        box.setWindowTitle("Ostler")
        box.setText(_("Go back to {version}?", version=update.previous))
        box.setInformativeText(
            _(
                "Tasks go on. {version} is not put in place again by itself; a later version is.",
                version=update.current,
            )
        )
        yes = box.addButton(_("Go back"), QMessageBox.ButtonRole.AcceptRole)
        box.setDefaultButton(box.addButton(_("Cancel"), QMessageBox.ButtonRole.RejectRole))
        box.buttonClicked.connect(lambda button: self._on_answer(button is yes))
        box.finished.connect(self._on_asked)
        self._asking = box
        box.open()

    def _on_answer(self, yes: bool) -> None:
        if yes:
            self._post("/v1/update/rollback")

    def _on_asked(self, _result: int) -> None:
        box, self._asking = self._asking, None
        if box is not None:
            box.deleteLater()

    def _post(self, path: str, body: Any = None) -> None:
        self._link.call(UpdateView, "POST", path, body, timeout_ms=WORK_TIMEOUT_MS, failed=self._on_refused)

    def _on_refused(self, failure: Failure) -> None:
        log.warning("a wish about updates was refused: %s", failure)
        self._tell(_("The update does not go ahead"), refusal(failure))


def refusal(failure: Failure) -> str:
    """Why not, in a sentence."""
    if not isinstance(failure, ControlError):
        return _("Ostler's daemon does not answer. Nothing was changed.")
    reason = failure.params.get("reason")
    why = ""
    if isinstance(reason, str):
        params = failure.params.get("reason_params")
        why = reason_words(Condition(code=reason, params=params if isinstance(params, dict) else {}))
    match failure.code:
        case "update_conflict":
            return _("Another step of an update is going on. Try again in a moment.")
        case "no_update" if failure.params.get("why") == "none":
            return _("There is no newer version.")
        case "no_update" if failure.params.get("why") == "no_previous":
            return _("There is no version to go back to.")
        case _ if why:
            return _("The reason: {why}. Nothing was changed.", why=why)
        case _:
            return _("The daemon refused ({code}). Nothing was changed.", code=failure.code)
