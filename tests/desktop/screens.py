"""Draws every window and state into ``build/screenshots``: light and dark, 100 and 200 %, in every language.

``python -m tests.desktop.screens [DIRECTORY] [LANGUAGE...]`` draws all; each scale and language is a process
of its own. English lies in the directory itself, the others below it; ``rtl`` is English from right to left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.desktop.screens_first_run import canned_messages, first_run_scenes
from tests.desktop.screens_panel import panel_scenes
from tests.desktop.screens_quit import quit_scenes

if TYPE_CHECKING:
    from desktop.windows.main import MainWindow

SCALES = (1, 2)
WIDE = 960
LANGUAGES = ("en", "de", "zh_CN", "rtl")


def draw(directory: Path, scale: int, language: str = "en") -> None:
    """Draw everything at the scale that Qt was started with."""
    from PySide6.QtCore import QSettings, Qt
    from PySide6.QtGui import QFontDatabase
    from PySide6.QtWidgets import QApplication

    from daemon_core.settings.directories import resolve
    from desktop.daemon.link import Link
    from desktop.language import Language
    from desktop.notifications.messages import Messages
    from desktop.theme.palette import Theme
    from desktop.windows.context import Context
    from desktop.windows.main import MainWindow

    app = QApplication(["screens"])
    if language == "rtl":
        app.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
    else:
        Language(app).choose(language)
    chinese = QFontDatabase.WritingSystem.SimplifiedChinese
    if language == "zh_CN" and not QFontDatabase.families(chinese):
        sys.stderr.write("screens: Chinese is left out, no font has it (apt-get install fonts-noto-cjk)\n")
        return
    directory.mkdir(parents=True, exist_ok=True)
    theme = Theme(app, "light")
    with tempfile.TemporaryDirectory() as home:
        directories = resolve({"OSTLER_HOME": home, "HOME": home}, None)
        directories.ensure()
        for look in ("light", "dark"):
            theme.choose("dark" if look == "dark" else "light")
            for name, show in scenes():
                link = Link(directories)
                settings = QSettings(str(Path(home) / f"{name}-{look}.ini"), QSettings.Format.IniFormat)
                context = Context(link, theme, lambda _command: None, messages=Messages())
                window = MainWindow(context, settings)
                window.show()
                show(window, link)
                for _round in range(5):
                    app.processEvents()
                window.grab().save(str(directory / f"{name}-{look}-{scale * 100}.png"))
                window.close()
                link.stop()
                window.deleteLater()
                app.processEvents()
            for name, make in first_run_scenes():
                link = Link(directories)
                settings = QSettings(str(Path(home) / f"{name}-{look}.ini"), QSettings.Format.IniFormat)
                shown = make(link, theme, settings)
                shown.show()
                for _round in range(5):
                    app.processEvents()
                shown.grab().save(str(directory / f"{name}-{look}-{scale * 100}.png"))
                shown.abandon()
                link.stop()
                shown.deleteLater()
                app.processEvents()
            for name, make_panel in panel_scenes():
                link = Link(directories)
                settings = QSettings(str(Path(home) / f"{name}-{look}.ini"), QSettings.Format.IniFormat)
                panel = make_panel(link, theme, settings)
                for _round in range(5):
                    app.processEvents()
                panel.grab().save(str(directory / f"{name}-{look}-{scale * 100}.png"))
                panel.close()
                link.stop()
                panel.deleteLater()
                app.processEvents()
            for name, make_box in quit_scenes():
                link = Link(directories)
                settings = QSettings(str(Path(home) / f"{name}-{look}.ini"), QSettings.Format.IniFormat)
                box = make_box(link, theme, settings)
                for _round in range(5):
                    app.processEvents()
                box.grab().save(str(directory / f"{name}-{look}-{scale * 100}.png"))
                box.reject()
                link.stop()
                app.processEvents()


def scenes() -> Iterator[tuple[str, Callable[..., None]]]:
    """(name, what brings a window into that state)."""
    from daemon_core.control.views import Condition, TaskRow, UpdateProgress
    from desktop.models.state import LinkPhase, Supervision
    from desktop.models.transcript import Transcript
    from desktop.windows.history import HistoryPage
    from desktop.windows.now import NowPage
    from desktop.windows.task import ABOUT, CHANGES, TaskPage
    from tests.desktop import canned

    def page(name: str, tell: dict[str, object]) -> Callable[[MainWindow, object], None]:
        def show(window: MainWindow, link: object) -> None:
            link.tell(**tell)  # type: ignore[attr-defined]
            window.open_page(name)

        return show

    def stats(link: object) -> None:
        from daemon_core.control.stats_views import StatsFrame, StatView
        from desktop.daemon.stats import StatsFeed

        for step in range(60):
            used = [
                StatView(kind="task", id=ident, memory=memory, cpu=canned.cpu(step, pace))
                for ident, memory, pace in (
                    ("b1", 214_000_000, 3),
                    ("b2", 96_000_000, 1),
                    ("b3", 1_310_000_000, 2),
                )
            ]
            StatsFeed.of(link).take(StatsFrame(number=step, at="", stats=used))  # type: ignore[arg-type]

    def limited(window: MainWindow, link: object) -> None:
        known = canned.connected(*canned.busy_rows(), conditions=(canned.spend_condition(),))
        known["status"] = canned.spent(known["status"])
        link.tell(**known)  # type: ignore[attr-defined]
        window.open_page("now")

    def busy(window: MainWindow, link: object) -> None:
        if window.width() >= WIDE:
            window.resize(WIDE, 628)  # ends between two rows
        link.tell(**canned.connected(*canned.busy_rows()))  # type: ignore[attr-defined]
        window.open_page("now")
        now = window.page("now")
        assert isinstance(now, NowPage)
        now.needing.show_requests(canned.asking_view(canned.permission()))
        now.new_task.prompt.setPlainText("Write a changelog from the last forty commits")
        stats(link)

    def narrow(window: MainWindow, link: object) -> None:
        window.resize(720, 480)
        busy(window, link)

    def messages(window: MainWindow, link: object) -> None:
        window._context.messages.show(canned_messages())  # type: ignore[union-attr]
        page("messages", canned.connected(*canned.busy_rows()))(window, link)

    def new_task(window: MainWindow, link: object) -> None:
        from daemon_core.control.model_views import ModelView
        from desktop.models.templates import Template

        link.tell(**canned.connected(*canned.busy_rows()))  # type: ignore[attr-defined]
        window.open_page("now")
        now = window.page("now")
        assert isinstance(now, NowPage)
        box = now.new_task
        box._models_of = "claude"
        box.use_template(
            Template(
                "Release",
                "Write the notes for {{version}} of {{product: as the website names it}}.\n"
                "From the commits since the last tag.",
            )
        )
        box.fields.edits["version"].setText("4.2.0")
        box._fill_models((ModelView(id="opus", name="Opus", default=True, thinking_levels=("low", "high")),))
        box.choose_directory(tempfile.gettempdir())
        box._look.stop()
        box._on_looked(tempfile.gettempdir(), 3)

    def repository(window: MainWindow, link: object) -> None:
        link.tell(**canned.connected())  # type: ignore[attr-defined]
        window.open_page("now")
        now = window.page("now")
        assert isinstance(now, NowPage)
        now.new_task.folder.setCurrentIndex(now.new_task.folder.findText("From a repository…"))
        now.new_task._on_folder()
        now.new_task.repo.setText("https://git.example.org/shop/web.git")
        now.new_task.prompt.setPlainText("Find out why the build is slow")

    def health(tell: dict[str, object]) -> Callable[..., None]:
        def show(window: MainWindow, link: object) -> None:
            from desktop.windows.settings_disk import DiskPanel
            from tests.desktop import canned_settings

            page("health", tell)(window, link)
            disk = window.page("health").findChild(DiskPanel)
            assert isinstance(disk, DiskPanel)
            low = any(each.code == "disk_low" for each in link.state.conditions)  # type: ignore[attr-defined]
            disk.show_report(canned_settings.disk(low=low))

        return show

    def runtimes(window: MainWindow, link: object) -> None:
        from daemon_core.control.model_views import ModelsView, ModelView
        from daemon_core.control.runtime_requests import MissingAgent
        from desktop.windows.runtimes import RuntimesPage

        page("runtimes", canned.connected())(window, link)
        found = window.page("runtimes")
        assert isinstance(found, RuntimesPage)
        models = (ModelView(id="opus", name="Opus 4.8", default=True), ModelView(id="haiku", name="Haiku 4"))
        found.rows["r1"].show_models(ModelsView(runtime="claude", models=models, source="static"))
        found.missing.show_agents([
            MissingAgent(provider="opencode", name="OpenCode", install="npm install -g opencode-ai"),
            MissingAgent(provider="pi", name="Pi", install="npm install -g @mariozechner/pi-coding-agent"),
        ])  # fmt: skip

    def history_of(rows: list[TaskRow], words: str) -> Callable[..., None]:
        def show(window: MainWindow, link: object) -> None:
            page("history", canned.connected())(window, link)
            found = window.page("history")
            assert isinstance(found, HistoryPage)
            found.field.setText(words)
            found._typing.stop()
            found.model.stop()
            found.model.show_tasks(rows)

        return show

    def history(window: MainWindow, link: object) -> None:
        link.tell(**canned.connected())  # type: ignore[attr-defined]
        window.open_page("history")
        found = window.page("history")
        assert isinstance(found, HistoryPage)
        rows = canned.busy_rows()
        found.model.show_tasks([
            canned.row(f"{each.id}-{number}", each.title, each.status, directory=each.directory,
                       started_at=each.started_at, ended_at=each.ended_at, tokens=each.tokens,
                       failure_reason=each.failure_reason, cost=each.cost, cost_how=each.cost_how,
                       changed_files=each.changed_files)
            for number in range(40) for each in rows
        ])  # fmt: skip

    def task(tab: int = 0, *, running: bool = True, asks: bool = False) -> Callable[..., None]:
        def show(window: MainWindow, link: object) -> None:
            jobs = {ident: job for ident, job in canned.jobs().items() if job.task_id}
            known = canned.connected(*canned.busy_rows(), link=LinkPhase.CONNECTING, jobs=jobs)
            link.tell(**known)  # type: ignore[attr-defined]
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
            from daemon_core.control.stats_views import StatsFrame, StatView
            from desktop.daemon.stats import StatsFeed

            for step in range(60):
                used = StatView(kind="task", id="a1", memory=412_000_000, cpu=canned.cpu(step, 4))
                frame = StatsFrame(number=step, at="", stats=[used])
                StatsFeed.of(link).take(frame)  # type: ignore[arg-type]
            found.tabs.setCurrentIndex(tab)
            found.about.show_turns(canned.turns())

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

    def jobs(key: str, *, new: bool = False, **stream: bytes) -> Callable[..., None]:
        def show(window: MainWindow, link: object) -> None:
            from daemon_core.control.stats_views import StatsFrame, StatView
            from desktop.daemon.stats import StatsFeed
            from desktop.windows.jobs import JobsPage

            known = canned.connected(jobs=canned.jobs(), residents=canned.residents())
            link.tell(**known)  # type: ignore[attr-defined]
            window.open_page("jobs")
            found = window.page("jobs")
            assert isinstance(found, JobsPage)
            found.choose(key)
            for detail in (found.job, found.resident):
                detail.output.feed.output.feed(stream.get("output", b""))
                detail.output.view.show_output(detail.output.feed.output, detail.output.view.message)
            found.job._show_question()
            for step in range(60):
                used = StatView(kind="resident", id="mail", memory=214_000_000, processes=3,
                                cpu=canned.cpu(step, 1))  # fmt: skip
                frame = StatsFrame(number=step, at="", stats=[used])
                StatsFeed.of(link).take(frame)  # type: ignore[arg-type]
            if new:
                found.begin_job()
                found.new_job.command.setPlainText("npm run build\nnpm test")

        return show

    troubles = (
        Condition(code="disk_low", params={"path": "/home"}, since=canned.ago(900)),
        Condition(code="server_unreachable", params={"server": "agents.example.org"}, since=canned.ago(300),
                  next_try_at=canned.ago(-40)),
    )  # fmt: skip
    down = {"link": LinkPhase.ABSENT, "supervision": Supervision.GAVE_UP, "said": "no module named x"}
    yield "now-empty", page("now", canned.connected())
    yield "now-busy", busy
    yield "now-narrow", narrow
    yield "now-limit", limited
    yield "now-new-task", new_task
    yield "now-repository", repository
    yield "now-daemon-down", page("now", {**canned.connected(*canned.busy_rows()), **down})
    yield "now-daemon-hung", page("now", {"link": LinkPhase.HUNG})
    yield "task-transcript", task()
    yield "task-asks", task(asks=True)
    yield "task-opened", opened
    yield "task-changes", task(CHANGES)
    yield "task-about", task(ABOUT)
    yield "history", history
    yield "runtimes", runtimes
    yield "runtimes-none", page("runtimes", canned.connected(runtimes={}))
    yield "history-empty", history_of([], "")
    yield "history-not-found", history_of([], "a needle")
    yield "jobs-asks", jobs(f"job {'j1' * 16}", output=canned.JOB_OUTPUT)
    yield "jobs-ended", jobs(f"job {'j4' * 16}", output=canned.JOB_OUTPUT * 20)
    yield "jobs-resident", jobs("resident mail", output=b"2026-11-21 10:02 two new messages\n" * 30)
    yield "jobs-invalid", jobs("resident cron")
    yield "jobs-new", jobs("resident mail", new=True)
    yield "jobs-empty", page("jobs", canned.connected())
    yield "health-troubles", health(canned.connected(conditions=troubles))
    yield "messages", messages
    yield "messages-empty", page("messages", canned.connected())
    yield "health-well", health(canned.connected())
    for name, view in {
        "well": canned.update(),
        "ready": canned.update("waiting", waits_for="quiet", applies_at=canned.ago(-7200)),
        "downloading": canned.update(
            "downloading", progress=UpdateProgress(done_bytes=700_000, total_bytes=2_100_000)
        ),
        "under-way": canned.update("verifying"),
        "updated": canned.update("committed", current="1.4.0"),
        "rolled-back": canned.update("rolled_back", problem=Condition(code="unhealthy")),
        "not-here": canned.update(possible=False, why_not=Condition(code="package_manager"), history=[]),
    }.items():
        yield f"updates-{name}", health(canned.connected(update=view))
    yield from settings_scenes()


def settings_scenes() -> Iterator[tuple[str, Callable[..., None]]]:
    """The page "Settings": every section, empty, with mistakes, with long values, narrow, searched."""
    from PySide6.QtWidgets import QApplication

    from daemon_core.control.errors import ControlError
    from desktop.models.state import LinkPhase
    from desktop.windows.settings import SettingsPage
    from desktop.windows.settings_agents import AgentsPanel
    from desktop.windows.settings_connections import ConnectionsPanel
    from desktop.windows.settings_disk import DiskPanel
    from desktop.windows.settings_sections import SECTIONS
    from tests.desktop import canned, canned_settings

    def opened(window: MainWindow, link: object, section: str, text: str | None = None) -> SettingsPage:
        state = canned.connected(agents=canned_settings.agents() if text is None else {})
        state["status"] = canned_settings.status(state["status"])
        state["update"] = canned_settings.update()
        link.tell(**state)  # type: ignore[attr-defined]
        window.open_page("settings")
        found = window.page("settings")
        assert isinstance(found, SettingsPage)
        place = Path(tempfile.mkdtemp(dir=link.directories.state))  # type: ignore[attr-defined]
        view = canned_settings.settings(place, canned_settings.TEXT if text is None else text)
        found.store.tell(view)
        found.open_section(section)
        return found

    def section(name: str) -> Callable[..., None]:
        def show(window: MainWindow, link: object) -> None:
            page = opened(window, link, name)
            servers, disk = page.panel(ConnectionsPanel), page.panel(DiskPanel)
            if isinstance(servers, ConnectionsPanel):
                servers.show_connections(canned_settings.connections())
            if isinstance(disk, DiskPanel):
                disk.show_report(canned_settings.disk())

        return show

    def mistake(window: MainWindow, link: object) -> None:
        opened(window, link, "tasks", canned_settings.TEXT + "[daemno]\nslots = 1\n")

    def left_out(window: MainWindow, link: object) -> None:
        page = opened(window, link, "tasks")
        text = canned_settings.TEXT + "[weather]\nrain = true\n[mcp]\nshape = 1\n"
        with tempfile.TemporaryDirectory() as place:
            view = canned_settings.settings(Path(place), text, not_ours=("weather", "mcp.shape"))
        page.store.tell(view)

    def no_agents(window: MainWindow, link: object) -> None:
        opened(window, link, "agents", "")

    def refused(window: MainWindow, link: object) -> None:
        page = opened(window, link, "advanced")
        reason = {"given": "80", "first": 19514, "last": 20513}
        page.rows["daemon.port"]._on_failed(
            ControlError(
                "settings_invalid", {"key": "daemon.port", "reason": "port", "reason_params": reason}
            )
        )
        row = page.rows["daemon.name"]
        pending = {**page.store.settings}
        import msgspec

        pending["daemon.name"] = msgspec.structs.replace(pending["daemon.name"], pending=True)
        page.store.settings = pending
        row._show()

    def narrow(name: str) -> Callable[..., None]:
        def show(window: MainWindow, link: object) -> None:
            window.resize(720, 480)
            section(name)(window, link)

        return show

    def searched(words: str) -> Callable[..., None]:
        def show(window: MainWindow, link: object) -> None:
            page = opened(window, link, "general")
            page.field.setText(words)
            page._build()

        return show

    def away(window: MainWindow, link: object) -> None:
        opened(window, link, "notifications")
        link.tell(link=LinkPhase.ABSENT)  # type: ignore[attr-defined]

    def unknown(window: MainWindow, link: object) -> None:
        link.tell(link=LinkPhase.ABSENT)  # type: ignore[attr-defined]
        window.open_page("settings")

    def form(*, empty: bool) -> Callable[..., None]:
        def show(window: MainWindow, link: object) -> None:
            page = opened(window, link, "agents")
            panel = page.panel(AgentsPanel)
            assert isinstance(panel, AgentsPanel)
            panel.open_form(None if empty else canned_settings.agents()["reviewer"])
            assert panel.form is not None
            if not empty:
                panel.form._on_refused(ControlError("agent_exists"))

        return show

    def signing_in(window: MainWindow, link: object) -> None:
        page = opened(window, link, "connections")
        panel = page.panel(ConnectionsPanel)
        assert isinstance(panel, ConnectionsPanel)
        panel.show_connections(canned_settings.connections()[:1])
        panel.open_form("https://agents.example.org")
        panel.form.token.setText("mul_0123456789abcdef")
        panel.form._on_refused(
            ControlError("sign_in_failed", {"why": "token_refused", "server": "agents.example.org"})
        )

    def signing_out(window: MainWindow, link: object) -> None:
        page = opened(window, link, "connections")
        panel = page.panel(ConnectionsPanel)
        assert isinstance(panel, ConnectionsPanel)
        panel.show_connections(canned_settings.connections())
        panel.rows["agents.example.org"]._ask(force=False)

    def offering(window: MainWindow, link: object) -> None:
        section("disk")(window, link)
        page = window.page("settings")
        assert isinstance(page, SettingsPage)
        panel = page.panel(DiskPanel)
        assert isinstance(panel, DiskPanel)
        panel.show_offer(canned_settings.offer())

    def below(show_first: Callable[..., None]) -> Callable[..., None]:
        def show(window: MainWindow, link: object) -> None:
            show_first(window, link)
            page = window.page("settings")
            assert isinstance(page, SettingsPage)
            QApplication.processEvents()
            page.area.verticalScrollBar().setValue(page.area.verticalScrollBar().maximum())

        return show

    for each in SECTIONS:
        yield f"settings-{each.name}", section(each.name)
    yield "settings-quiet-hours", below(section("notifications"))
    yield "settings-advanced-below", below(section("advanced"))
    yield "settings-agents-form", form(empty=False)
    yield "settings-agents-new", form(empty=True)
    yield "settings-agents-none", no_agents
    yield "settings-connections-sign-in", signing_in
    yield "settings-connections-sign-out", signing_out
    yield "settings-disk-offer", offering
    yield "settings-mistake", mistake
    yield "settings-left-out", left_out
    yield "settings-refused", refused
    yield "settings-narrow", narrow("notifications")
    yield "settings-narrow-connections", narrow("connections")
    yield "settings-search", searched("limit")
    yield "settings-search-nothing", searched("unicorn")
    yield "settings-daemon-away", away
    yield "settings-unknown", unknown


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "build/screenshots")
    scale = os.environ.get("OSTLER_SCREENS_SCALE")
    if scale is not None:
        draw(directory, int(scale), sys.argv[2])
        return
    for language in sys.argv[2:] or LANGUAGES:
        place = directory if language == "en" else directory / language
        for each in SCALES if language != "rtl" else SCALES[:1]:
            environ = {
                **os.environ,
                "QT_QPA_PLATFORM": "offscreen",
                "QT_SCALE_FACTOR": str(each),
                "OSTLER_SCREENS_SCALE": str(each),
            }
            subprocess.run([sys.executable, "-m", __name__.replace("__main__", "tests.desktop.screens"),
                            str(place), language], check=True, env=environ)  # fmt: skip


if __name__ == "__main__":
    main()
