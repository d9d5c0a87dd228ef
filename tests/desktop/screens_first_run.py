"""The steps of the first run, and a list of messages, made up: for looking at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PySide6.QtCore import QSettings

    from desktop.daemon.link import Link
    from desktop.notifications.planner import Fact
    from desktop.theme.palette import Theme
    from desktop.windows.first_run import FirstRunWindow

LONG = "work/a-very-long-name-of-a-project-that-nobody-would-type"
Make = Callable[["Link", "Theme", "QSettings"], "FirstRunWindow"]


def first_run_scenes() -> Iterator[tuple[str, Make]]:
    """(name, what makes a window in that state)."""
    from daemon_core.control.errors import ControlError
    from daemon_core.control.runtime_requests import MissingAgent
    from desktop.models.state import LinkPhase, Supervision
    from desktop.notifications.messages import Messages
    from desktop.windows.context import Context
    from desktop.windows.first_run import FirstRunWindow
    from desktop.windows.first_run_agents import AgentsStep
    from desktop.windows.first_run_places import PlacesStep
    from desktop.windows.first_run_steps import LoginStep, NoticeStep, WhereStep
    from tests.desktop import canned

    class AtLogin:
        """A switch that does as it is told."""

        def enabled(self) -> bool | None:
            return True

        def enable(self, on: bool) -> None:
            pass

        def explanation(self) -> str:
            return "/home/me/.config/autostart/ostler.desktop starts it."

    def made(link: Link, theme: Theme, settings: QSettings) -> FirstRunWindow:
        messages = Messages()
        messages.server = lambda: "gnome-shell"
        context = Context(link, theme, lambda _command: None, autostart=AtLogin(), messages=messages)
        return FirstRunWindow(context, settings)

    def step(at: int, *, up: bool = True, more: Callable[[FirstRunWindow], None] | None = None) -> Make:
        def make(link: Link, theme: Theme, settings: QSettings) -> FirstRunWindow:
            window = made(link, theme, settings)
            if up:
                link.tell(**canned.connected())
            else:
                link.tell(link=LinkPhase.ABSENT, supervision=Supervision.STARTING)
            for _step in range(at):
                window.go_on()
            window.show()
            if more is not None:
                more(window)
            return window

        return make

    def server(window: FirstRunWindow) -> None:
        found = window.steps[0]
        assert isinstance(found, WhereStep)
        found.server.setChecked(True)
        found.form.url.setText("https://agents.example.org")
        found.form.token.setText("mul_0123456789abcdef")
        found.form._on_refused(
            ControlError("sign_in_failed", {"why": "token_refused", "server": "agents.example.org"})
        )

    def agents(window: FirstRunWindow) -> None:
        found = window.steps[1]
        assert isinstance(found, AgentsStep)
        found.show_missing(
            [
                MissingAgent(provider="opencode", name="OpenCode", install="npm install -g opencode-ai"),
                MissingAgent(
                    provider="pi", name="Pi", install="npm install -g @mariozechner/pi-coding-agent"
                ),
            ]
        )
        line = found.lines.get("claude")
        if line is not None:
            line.task = "t"
            line.show_task(
                canned.row("t", "x", "completed", started_at=canned.ago(9), ended_at=canned.ago(5))
            )

    def none(window: FirstRunWindow) -> None:
        link = window._context.link
        link.tell(runtimes={})
        agents(window)

    def places(window: FirstRunWindow) -> None:
        found = window.steps[2]
        assert isinstance(found, PlacesStep)
        for path in list(found.lines):
            found.lines.pop(path).deleteLater()
        for name, on in (("shop-web", True), ("api", True), ("work/import", False), (LONG, False)):
            found.add_place(f"/home/me/{name}", on=on)

    def login(window: FirstRunWindow) -> None:
        assert isinstance(window.steps[3], LoginStep)

    def asked(window: FirstRunWindow) -> None:
        found = window.steps[4]
        assert isinstance(found, NoticeStep)
        found._test()

    def unseen(window: FirstRunWindow) -> None:
        found = window.steps[4]
        assert isinstance(found, NoticeStep)
        found._answer(False)

    yield "first-run-1-where", step(0)
    yield "first-run-1-server", step(0, more=server)
    yield "first-run-2-agents", step(1, more=agents)
    yield "first-run-2-none", step(1, more=none)
    yield "first-run-2-starting", step(1, up=False)
    yield "first-run-3-places", step(2, more=places)
    yield "first-run-4-login", step(3, more=login)
    yield "first-run-5-asked", step(4, more=asked)
    yield "first-run-5-unseen", step(4, more=unseen)


def canned_messages() -> tuple[Fact, ...]:
    """One of every kind."""
    from desktop.commands import Command
    from desktop.notifications.planner import Fact, Kind
    from tests.desktop import canned

    def fact(kind: Kind, title: str, text: str, seconds: float, *buttons: str) -> Fact:
        pairs = tuple((each, Command("open", "now")) for each in buttons)
        return Fact(kind, title, title, text, command=Command("open", "now"), buttons=pairs,
                    at=canned.ago(seconds))  # fmt: skip

    return (
        fact(Kind.NEEDS_YOU, "Fix login redirect", "Wants to run `rm -rf build && npm run build`", 40),
        fact(Kind.FINISHED, "Upgrade to Postgres 17", "Done in 12 min: 3 files changed", 500),
        fact(Kind.FAILED, "Flaky test hunt", "Failed after 1 h 4 min: timed out", 4_000),
        fact(Kind.STALLED, "Find out why the nightly import of the product catalogue takes four hours",
             "Silent since 14:02; ends at 14:32", 1_200, "Give it more time", "Cancel it"),
        fact(Kind.PARKED, "Translate the manual", "Usage limit reached: goes on at 18:00", 9_000),
        fact(Kind.UPDATE, "Ostler 1.4.0 is ready", "It comes with a restart; tasks go on meanwhile.", 20_000,
             "Restart now", "Later"),
        fact(Kind.TROUBLE, "Ostler needs a hand", "The disk of /home is nearly full: no tasks are taken",
             90_000),
    )  # fmt: skip
