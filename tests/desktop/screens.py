"""Draws every window and state into ``build/screenshots``: light and dark, at 100 and 200 %.

``python -m tests.desktop.screens [DIRECTORY]`` draws all; each scale is a process of its own, since Qt takes
it at the start.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

SCALES = (1, 2)


def draw(directory: Path, scale: int) -> None:
    """Draw everything at the scale that Qt was started with."""
    from PySide6.QtCore import QSettings
    from PySide6.QtWidgets import QApplication

    from daemon_core.settings.directories import resolve
    from desktop.daemon.link import Link
    from desktop.theme.palette import Theme
    from desktop.windows.context import Context
    from desktop.windows.main import MainWindow

    app = QApplication(["screens"])
    theme = Theme(app, "light")
    with tempfile.TemporaryDirectory() as home:
        directories = resolve({"OSTLER_HOME": home, "HOME": home}, None)
        directories.ensure()
        for look in ("light", "dark"):
            theme.choose("dark" if look == "dark" else "light")
            for name, show in scenes():
                link = Link(directories)
                settings = QSettings(str(Path(home) / f"{name}-{look}.ini"), QSettings.Format.IniFormat)
                window = MainWindow(Context(link, theme, lambda _command: None), settings)
                window.show()
                show(window, link)
                for _round in range(5):
                    app.processEvents()
                window.grab().save(str(directory / f"{name}-{look}-{scale * 100}.png"))
                window.close()
                link.stop()
                window.deleteLater()
                app.processEvents()


def scenes() -> Iterator[tuple[str, Callable[..., None]]]:
    """(name, what brings a window into that state)."""
    from daemon_core.control.views import Condition
    from desktop.models.state import LinkPhase, Supervision
    from desktop.models.transcript import Transcript
    from desktop.windows.history import HistoryPage
    from desktop.windows.main import MainWindow
    from desktop.windows.now import NowPage
    from desktop.windows.task import ABOUT, CHANGES, TaskPage
    from tests.desktop import canned

    def page(name: str, tell: dict[str, object]) -> Callable[[MainWindow, object], None]:
        def show(window: MainWindow, link: object) -> None:
            link.tell(**tell)  # type: ignore[attr-defined]
            window.open_page(name)

        return show

    def busy(window: MainWindow, link: object) -> None:
        link.tell(**canned.connected(*canned.busy_rows()))  # type: ignore[attr-defined]
        window.open_page("now")
        now = window.page("now")
        assert isinstance(now, NowPage)
        now.needing.show_requests(canned.asking_view(canned.permission()))
        now.new_task.prompt.setPlainText("Write a changelog from the last forty commits")

    def narrow(window: MainWindow, link: object) -> None:
        window.resize(720, 480)
        busy(window, link)

    def history(window: MainWindow, link: object) -> None:
        link.tell(**canned.connected())  # type: ignore[attr-defined]
        window.open_page("history")
        found = window.page("history")
        assert isinstance(found, HistoryPage)
        rows = canned.busy_rows()
        found.model.show_tasks([
            canned.row(f"{each.id}-{number}", each.title, each.status, directory=each.directory,
                       started_at=each.started_at, ended_at=each.ended_at, tokens=each.tokens,
                       failure_reason=each.failure_reason)
            for number in range(40) for each in rows
        ])  # fmt: skip

    def task(tab: int = 0, *, running: bool = True, asks: bool = False) -> Callable[..., None]:
        def show(window: MainWindow, link: object) -> None:
            link.tell(**canned.connected(*canned.busy_rows(), link=LinkPhase.CONNECTING))  # type: ignore[attr-defined]
            window.open_page("now")
            window.open_task("a1")
            found = window.page("task")
            assert isinstance(found, TaskPage)
            requests = (canned.permission(), canned.question()) if asks else ()
            found.show_task(canned.asking_view(*requests))
            made = Transcript()
            made.say(canned.PROMPT)
            made.take(canned.transcript(running=running))
            if not running:
                made.end()
            found.transcript.show_transcript(made)
            found.feed.changed.emit()
            found.changes.show_changes(canned.changes())
            found.tabs.setCurrentIndex(tab)

        return show

    def opened(window: MainWindow, link: object) -> None:
        task()(window, link)
        found = window.page("task")
        assert isinstance(found, TaskPage)
        for index, item in enumerate(found.transcript.transcript.items):
            item.open = True
            for step in item.steps:
                step.open = True
            found.transcript.transcript.items[index].version += 1
        found.transcript.grown(0)
        found.begin_search()
        found.search.field.setText("redirect")

    troubles = (
        Condition(code="disk_low", params={"path": "/home"}, since=canned.ago(900)),
        Condition(code="server_unreachable", params={"server": "agents.example.org"}, since=canned.ago(300),
                  next_try_at=canned.ago(-40)),
    )  # fmt: skip
    down = {"link": LinkPhase.ABSENT, "supervision": Supervision.GAVE_UP, "detail": "no module named x"}
    yield "now-empty", page("now", canned.connected())
    yield "now-busy", busy
    yield "now-narrow", narrow
    yield "now-daemon-down", page("now", {**canned.connected(*canned.busy_rows()), **down})
    yield "now-daemon-hung", page("now", {"link": LinkPhase.HUNG})
    yield "task-transcript", task()
    yield "task-asks", task(asks=True)
    yield "task-opened", opened
    yield "task-changes", task(CHANGES)
    yield "task-about", task(ABOUT)
    yield "history", history
    yield "runtimes", page("runtimes", canned.connected())
    yield "health-troubles", page("health", canned.connected(conditions=troubles))
    yield "health-well", page("health", canned.connected())


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "build/screenshots")
    directory.mkdir(parents=True, exist_ok=True)
    scale = os.environ.get("OSTLER_SCREENS_SCALE")
    if scale is not None:
        draw(directory, int(scale))
        return
    for each in SCALES:
        environ = {
            **os.environ,
            "QT_QPA_PLATFORM": "offscreen",
            "QT_SCALE_FACTOR": str(each),
            "OSTLER_SCREENS_SCALE": str(each),
        }
        subprocess.run([sys.executable, "-m", __name__.replace("__main__", "tests.desktop.screens"),
                        str(directory)], check=True, env=environ)  # fmt: skip


if __name__ == "__main__":
    main()
