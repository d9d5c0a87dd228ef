"""Updates as the user sees them, and the desktop that follows its daemon to the next version."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PySide6.QtCore import QCoreApplication, QObject
from PySide6.QtWidgets import QLabel, QPushButton
from pytestqt.qtbot import QtBot

from daemon_core.control.errors import ControlError
from daemon_core.control.update_views import REASONS, UpdateApply, UpdateLater
from daemon_core.control.views import Condition, UpdateProgress, UpdateVersion, UpdateView
from desktop.commands import Command
from desktop.models.state import DesktopState, LinkPhase
from desktop.single import SingleInstance
from desktop.text import choose_language
from desktop.updates import words
from desktop.updates.asking import Updates, refusal
from desktop.updates.renewal import EXIT_SAME, WISH, Renewal, TakingOver, wanted_version
from desktop.windows.health import HealthPage
from tests.desktop import canned
from tests.desktop.conftest import Desk
from tests.desktop.host import PATIENCE_S, make_host
from tests.desktop.screen import PLACE, desktop, session_bus, x_server
from tests.end_to_end.home import OstlerHome, wait_until

NOW = dt.datetime(2026, 1, 1, 12, 0, 0, tzinfo=dt.UTC)
REFUSALS = [
    (ControlError("update_conflict"), "Another step of an update is going on. Try again in a moment."),
    (ControlError("no_update", {"why": "none"}), "There is no newer version."),
    (ControlError("no_update", {"why": "no_previous"}), "There is no version to go back to."),
    (
        ControlError("no_update", {"why": "not_known", "reason": "unreachable", "reason_params": {}}),
        "The reason: the update server cannot be reached. Nothing was changed.",
    ),
    (ControlError("child_of_run"), "The daemon refused (child_of_run). Nothing was changed."),
]


# --- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("update", "sentence", "detail"),
    [
        (canned.update(), "Ostler 1.3.0 is the newest version.", "Last look"),
        (canned.update(checked_at=None), "Nobody has looked", "Next look"),
        (canned.update(problem=Condition(code="clock", params={"here": "a", "there": "b"})),
         "It is not known", "the clock of this machine is wrong: it says a, the server b."),
        (canned.update("checking"), "Looking for", ""),
        (canned.update("available", next_try_at="2026-01-01T13:00:00Z"),
         "1.4.0 is there. It is fetched at", ""),
        (canned.update("downloading", progress=UpdateProgress(done_bytes=10**6, total_bytes=4 * 10**6)),
         "1.4.0 is being fetched.", "1.0 of 4.0 MB are here."),
        (canned.update("downloading", progress=UpdateProgress(phase="unpack")),
         "1.4.0 is being checked.", ""),
        (canned.update("staged", automatic=False), "Ostler 1.4.0 is ready.", "It comes when you say so."),
        (canned.update("waiting", waits_for="quiet", applies_at="2026-01-01T18:00:00Z"),
         "Ostler 1.4.0 is ready.", "at the latest at"),
        (canned.update("staged", waits_for="reminder", remind_at="2026-01-08T12:00:00Z"),
         "Ostler 1.4.0 is ready.", "You are reminded on "),
        (canned.update("restarting"), "Updating to 1.4.0. Tasks go on.", "some seconds"),
        (canned.update("committed", current="1.4.0"), "Updated to 1.4.0.", ""),
        (canned.update("rolled_back", problem=Condition(code="crashed")),
         "1.4.0 did not work here, 1.3.0 runs again.", "The reason: it ended by itself."),
        (canned.update("failed", problem=Condition(code="disk_full", params={"path": "/home"})),
         "1.4.0 could not be put in place. Nothing was changed.", "the disk of /home is full."),
        (canned.update(possible=False, why_not=Condition(code="package_manager")),
         "The package manager of your system updates Ostler.", "This is version 1.3.0."),
        (canned.update(possible=False, why_not=Condition(code="of_the_future")),
         "There are no updates here.", ""),
    ],
    ids=lambda given: given.stage if isinstance(given, UpdateView) else None,
)  # fmt: skip
def test_every_stage_has_a_sentence(update: UpdateView, sentence: str, detail: str) -> None:
    assert words.sentence(update, NOW).startswith(sentence)
    assert detail in words.detail(update, NOW)
    assert "{" not in words.sentence(update, NOW) + words.detail(update, NOW)


def test_what_is_new_is_said_in_the_users_language() -> None:
    notes = {"en": ["New."], "de": ["Neu."], "zh": ["新。"]}
    try:
        assert choose_language(["en"]) == "en"
        assert words.in_language(notes) == ["New."]
        if choose_language(["de"]) == "de":  # where there is a catalogue
            assert words.in_language(notes) == ["Neu."]
            assert words.in_language({"en": ["New."]}) == ["New."]
    finally:
        choose_language(["en"])
    assert words.in_language({}) == ()


def test_a_reason_that_nobody_here_knows_is_shown_all_the_same() -> None:
    assert words.reason_words(Condition(code="eaten_by_a_bear")) == "Eaten by a bear"
    assert words.reason_words(None) == ""


def test_every_reason_that_is_given_has_words() -> None:
    assert {*words._WHY_NOT, *words._REASONS} == set(REASONS)
    assert not {*words._WHY_NOT} & {*words._REASONS}
    for code, params in REASONS.items():
        for given in ({}, dict.fromkeys(params, "x")):
            said = words.reason_words(Condition(code=code, params=given))
            assert said
            assert "{" not in said
            assert not said.endswith(".")
    alone = words.reason_words(Condition(code="clock", params={"here": "1970-01-01"}))
    assert "1970-01-01" in alone
    assert "?" not in alone


def test_everybody_who_asks_for_an_update_has_words() -> None:
    assert set(words._BY) == {"automatic", "user", "server", "installer"}


# --- the page --------------------------------------------------------------------------------------


@pytest.fixture
def page(qtbot: QtBot, desk: Desk) -> HealthPage:
    made = HealthPage(desk.context)
    qtbot.addWidget(made)
    made.resize(700, 600)
    made.show()
    return made


def told(desk: Desk, update: UpdateView | None, **more: Any) -> None:
    desk.link.tell(**canned.connected(update=update, **more))
    QCoreApplication.processEvents()  # what was added to the page is shown


def buttons(page: HealthPage) -> list[str]:
    return [each.text() for each in page.updates.findChildren(QPushButton) if each.isVisible()]


def texts(page: HealthPage) -> str:
    return "\n".join(each.text() for each in page.updates.findChildren(QLabel) if each.isVisible())


def test_a_version_that_is_ready_can_be_restarted_into_or_put_off(desk: Desk, page: HealthPage) -> None:
    told(desk, canned.update("waiting"))
    assert buttons(page) == ["Restart now", "Remind me in a week", "Show 1 more"]
    assert "Tasks can be handed" in texts(page)
    page.updates.restart.click()
    page.updates.later.click()
    assert desk.asked == [Command("update", "1.4.0"), Command("update_later", "1.4.0")]
    told(desk, canned.update("staged", waits_for="reminder", remind_at=canned.ago(-600_000)))
    assert buttons(page) == ["Restart now", "Show 1 more"]


def test_the_history_says_what_became_of_each_and_why(desk: Desk, page: HealthPage) -> None:
    told(desk, canned.update())
    shown = texts(page)
    assert "Updated from 1.2.9 to 1.3.0." in shown
    assert "1.2.10 did not work, back to 1.2.9." in shown
    assert "you asked for it · the disk of /home is full" in shown
    assert "Updated from 1.2.7" not in shown
    page.updates.more.click()
    QCoreApplication.processEvents()
    assert "Updated from 1.2.7 to 1.2.8." in texts(page)
    assert "Show" not in " ".join(buttons(page))


def test_progress_is_shown_while_something_goes_on_and_nothing_can_be_pressed(
    desk: Desk, page: HealthPage
) -> None:
    told(desk, canned.update("downloading", progress=UpdateProgress(done_bytes=1, total_bytes=4), history=[]))
    assert (page.updates.bar.isVisible(), page.updates.bar.share) == (True, 0.25)
    assert buttons(page) == []
    told(desk, canned.update("verifying", history=[]))
    assert (page.updates.bar.isVisible(), page.updates.bar.share, buttons(page)) == (True, 0.75, [])
    desk.link.tell(link=LinkPhase.ABSENT)
    assert page.updates.isVisible()
    assert page._sentence.text == "Updating to 1.4.0; tasks go on"
    told(desk, canned.update("committed", current="1.4.0", history=[]))
    assert not page.updates.bar.isVisible()
    assert "Updated to 1.4.0." in texts(page)
    assert "What is new" in texts(page)
    assert buttons(page) == ["Look now", "Go back to 1.2.9"]


def test_a_daemon_without_updates_shows_no_section(desk: Desk, page: HealthPage) -> None:
    told(desk, None)
    assert not page.updates.isVisible()


def test_where_somebody_else_updates_nothing_can_be_pressed(desk: Desk, page: HealthPage) -> None:
    told(desk, canned.update(possible=False, why_not=Condition(code="package_manager"), history=[]))
    assert buttons(page) == []


def test_where_nothing_is_fetched_by_itself_one_press_does_it_all(desk: Desk, page: HealthPage) -> None:
    told(desk, canned.update("available", history=[]))
    assert buttons(page) == ["Fetch it and restart", "Look now", "Go back to 1.2.9"]
    page.updates.restart.click()
    assert desk.asked == [Command("update", "1.4.0")]


# --- what is asked of the daemon -------------------------------------------------------------------


class Calls(QObject):
    """Stands for the link where only what is asked of it counts."""

    def __init__(self, update: UpdateView) -> None:
        super().__init__()
        self.state = DesktopState(update=update)
        self.asked: list[tuple[str, object]] = []
        self.failed: Callable[[Any], None] = lambda _failure: None

    def call(self, _kind: object, _method: str, path: str, body: object = None, **more: Any) -> None:
        self.asked.append((path, body))
        self.failed = more["failed"]


def test_commands_become_wishes_and_a_refusal_is_told(qtbot: QtBot) -> None:
    calls, said = Calls(canned.update("staged")), list[tuple[str, str]]()
    updates = Updates(calls, lambda title, text: said.append((title, text)))  # type: ignore[arg-type]
    updates.do(Command("update", "1.4.0"))
    updates.do(Command("update_later", "1.4.0"))
    updates.do(Command("update_check"))
    assert calls.asked == [
        ("/v1/update/apply", UpdateApply(version="1.4.0")),
        ("/v1/update/remind-later", UpdateLater()),
        ("/v1/update/check", None),
    ]
    calls.failed(ControlError("update_conflict"))
    assert said == [("The update does not go ahead", REFUSALS[0][1])]


@pytest.mark.parametrize(("failure", "sentence"), REFUSALS, ids=[each[1][:20] for each in REFUSALS])
def test_refusals_have_words(failure: ControlError, sentence: str) -> None:
    assert refusal(failure) == sentence


def test_going_back_is_asked_once(qtbot: QtBot) -> None:
    calls = Calls(canned.update())
    updates = Updates(calls, lambda title, text: None)  # type: ignore[arg-type]
    updates.do(Command("update_rollback"))
    updates.do(Command("update_rollback"))
    box = updates._asking
    assert box is not None
    assert calls.asked == []
    next(each for each in box.buttons() if each.text() == "Go back").click()
    qtbot.waitUntil(lambda: updates._asking is None)
    assert calls.asked == [("/v1/update/rollback", None)]


# --- the desktop's own version ---------------------------------------------------------------------


def state(stage: str, daemon: str, **more: Any) -> DesktopState:
    given = canned.connected(update=canned.update(stage, current=daemon), **more)
    given["status"] = msgspec.structs.replace(given["status"], version=daemon)
    return DesktopState(**given)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (state("committed", "1.3.0"), ""),
        (state("committed", "1.4.0"), "1.4.0"),
        (state("idle", "1.2.0"), "1.2.0"),
        (state("verifying", "1.4.0"), ""),
        (state("switching", "1.4.0"), ""),
        (DesktopState(link=LinkPhase.ABSENT), ""),
        (DesktopState(link=LinkPhase.TOO_NEW), "newer"),
    ],
)
def test_the_desktop_follows_when_it_is_decided(given: DesktopState, wanted: str) -> None:
    assert wanted_version(given, "1.3.0") == wanted


def starts(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("code", [EXIT_SAME, 1])
def test_a_new_desktop_that_does_not_come_up_is_tried_once(
    qtbot: QtBot, desk: Desk, tmp_path: Path, code: int
) -> None:
    log = tmp_path / "starts"
    script = f"import sys; open({str(log)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n'); sys.exit({code})"
    renewal = Renewal(desk.link, "1.3.0", [sys.executable, "-c", script], lambda: "history")
    desk.link.tell(**vars_of(state("verifying", "1.4.0")))
    assert not renewal.going_on
    desk.link.tell(**vars_of(state("committed", "1.4.0")))
    qtbot.waitUntil(lambda: bool(starts(log)) and not renewal.going_on, timeout=10_000)
    assert starts(log) == ["--take-over=1.3.0 --page=history"]
    desk.link.tell(**vars_of(state("idle", "1.4.0")))
    assert not renewal.going_on
    renewal.let_go()


def vars_of(given: DesktopState) -> dict[str, Any]:
    return {"link": given.link, "status": given.status, "update": given.update, "tasks": given.tasks}


def test_a_new_desktop_that_hangs_is_ended(qtbot: QtBot, desk: Desk) -> None:
    hang = [sys.executable, "-c", "import time; time.sleep(1000)"]
    renewal = Renewal(desk.link, "1.3.0", hang, lambda: "", patience_ms=50)
    assert renewal.start()
    qtbot.waitUntil(lambda: not renewal.going_on, timeout=10_000)


def test_without_a_launcher_nothing_is_started(qtbot: QtBot, desk: Desk) -> None:
    renewal = Renewal(desk.link, "1.3.0", [], lambda: "")
    desk.link.tell(**vars_of(state("committed", "1.4.0")))
    assert not renewal.going_on
    assert not renewal.start()


def test_a_place_that_nobody_has_is_taken_at_once_and_a_kept_one_is_not(qtbot: QtBot, desk: Desk) -> None:
    directories = desk.link.directories
    one, two = SingleInstance(directories), SingleInstance(directories)
    taking = TakingOver(one, desk.link, ready_ms=0, at_latest_ms=0)
    with qtbot.waitSignal(taking.taken):
        pass
    asked: list[str] = []
    one.asked.connect(asked.append)
    with qtbot.waitSignal(one.asked):
        two._patience.setInterval(200)  # the first one does not go
        two.ask_for_place(WISH)
    with qtbot.waitSignal(two.kept):
        pass
    assert asked == [WISH]
    with qtbot.waitSignal(two.given):
        two.ask_for_place(WISH)
        qtbot.waitUntil(lambda: len(asked) == 2)
        one.close()
        one.deleteLater()
    two.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    found = OstlerHome(tmp_path, claude=False)
    yield found
    found.close()


async def test_the_next_desktop_has_its_icon_before_the_old_one_goes(
    home: OstlerHome, tmp_path: Path
) -> None:
    """Two real desktops: at every moment at least one icon is with the host."""
    await asyncio.to_thread(home.start)
    with x_server() as display, session_bus(tmp_path) as address:
        host = await make_host(address)
        place = home.directories.checked_socket().with_name("desktop.sock")
        with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address) as old:
            await asyncio.wait_for(host.watcher.came.wait(), PATIENCE_S)
            await asyncio.to_thread(wait_until, place.exists, "the desktop")
            host.watcher.came.clear()
            new = await asyncio.to_thread(
                subprocess.Popen,
                [sys.executable, "-m", "desktop.app", "--background", "--take-over=0.0.1"],
                env={**home.environ, "QT_QPA_PLATFORM": "xcb", "DISPLAY": display,
                     "DBUS_SESSION_BUS_ADDRESS": address},
                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=PLACE,
            )  # fmt: skip
            try:
                await asyncio.wait_for(host.watcher.came.wait(), PATIENCE_S)
                assert old.poll() is None, "the old icon is there until the new one is"
                assert await asyncio.to_thread(old.wait, PATIENCE_S) == 0
                await host.until_row("Nothing is running")
                assert new.poll() is None

                def answers() -> bool:
                    done = subprocess.run(
                        [sys.executable, "-m", "desktop.app", "--background"],
                        env={**home.environ, "QT_QPA_PLATFORM": "offscreen"}, cwd=PLACE, check=False,
                    )  # fmt: skip
                    return done.returncode == 0

                assert await asyncio.to_thread(answers), "it is the only one, and others come to it"
            finally:
                new.terminate()
                await asyncio.to_thread(new.wait, 20)
                host.bus.disconnect()


def test_versions_without_notes_are_shown_as_well(desk: Desk, page: HealthPage) -> None:
    told(desk, UpdateView(stage="staged", current="1.3.0"))
    told(
        desk, UpdateView(stage="staged", current="1.3.0", ready=True, version=UpdateVersion(version="1.4.0"))
    )
    assert buttons(page) == ["Restart now", "Remind me in a week"]
    assert "What is new" not in texts(page)
