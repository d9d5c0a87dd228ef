"""The real desktop, a real daemon, real tasks and a notification server on a bus of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.desktop.notices import Notice, NotificationServer
from tests.desktop.screen import desktop, until_running
from tests.end_to_end.home import OstlerHome, wait_until
from tests.support.scripted_agent import script


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    made = OstlerHome(tmp_path, environ={"OSTLER_PERMISSIONS_DEFAULT": "ask"})
    (tmp_path / "daemon.out").touch()
    yield made
    made.close()


@pytest.fixture
def server(address: str) -> Iterator[NotificationServer]:
    made = NotificationServer(address)
    yield made
    made.close()


def windows(display: str, title: str) -> list[str]:
    """Windows with this in their title that can be seen."""
    found = subprocess.run(
        ["xdotool", "search", "--onlyvisible", "--name", title],
        env={"DISPLAY": display, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.split()


def titles(server: NotificationServer) -> list[str]:
    return [notice.title for notice in server.record.notices]


def test_a_question_is_answered_by_a_button_and_news_come_once(
    home: OstlerHome, display: str, address: str, server: NotificationServer, tmp_path: Path
) -> None:
    """One story, since every start costs seconds: a question answered on its notification, its end told with
    what was changed, a click that opens the task, a restart of desktop and daemon that says nothing again."""
    home.start()
    place = tmp_path / "project"
    place.mkdir()
    with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address):
        asks = script(
            {"ask": {"tool": "Bash", "input": {"command": "git push"}}},
            {"write": {"path": str(place / "a.txt"), "text": "one"}},
        )
        task = home.add(asks, title="Fix login", directory=str(place))
        asked = server.wait_for("Fix login")
        assert asked.text == "Wants to run `git push`"
        assert set(asked.buttons) == {"Allow once", "For this task", "Deny"}
        server.press(asked.number, asked.buttons["Allow once"])
        assert home.wait(task)["status"] == "completed"
        assert "allow" in home.text(task)

        def told(record: Any) -> Notice | None:
            return next((each for each in record.shown.values() if each.text.startswith("Done")), None)

        done = server.wait(told, "the end")
        assert done.title == "Fix login"
        assert done.text.endswith("1 file changed")
        assert asked.number in server.record.withdrawn
        failing = home.add(script({"exit": 3}), title="Flaky test hunt")
        home.wait(failing, "failed")
        server.wait_for("Flaky test hunt")

        assert not windows(display, "Fix login")
        server.press(done.number, "default")
        wait_until(lambda: windows(display, "Fix login · Ostler"), "the task's window")
    assert server.wait(lambda record: not record.shown, "nothing left behind when the desktop ends")

    # While nobody looks: two ends and a question.
    said = len(server.record.notices)
    for title in ("Second", "Third"):
        home.wait(home.add("hello", title=title), "completed")
    home.add(script({"ask": {"tool": "Bash", "input": {"command": "rm -rf build"}}}), title="Fourth")
    home.kill()
    home.start()
    with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address) as process:
        asked = server.wait_for("Fourth")
        summary = server.wait_for("2 tasks are done")
        assert summary.text == "Second · Third"
        shown = home.directories.state / "desktop-shown.json"
        wait_until(lambda: shown.exists() and shown.read_bytes().count(b"ask:") == 1, "its number kept")
        process.kill()
        process.wait(20)

    # It crashed: its buttons are dead, and the question still waits.
    with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address):
        dead = asked.number
        server.wait(lambda record: dead in record.withdrawn, "what is dead taken back")
        asked = server.wait(
            lambda record: next(
                (
                    each
                    for each in list(record.shown.values())
                    if each.number > dead and each.title == "Fourth"
                ),
                None,
            ),
            "the question once more",
        )
        server.press(asked.number, asked.buttons["Deny"])
        server.wait(lambda record: asked.number in record.withdrawn, "the answered question withdrawn")
        server.wait(
            lambda record: [
                each for each in record.notices if each.title == "Fourth" and each.text != asked.text
            ],
            "the end of the fourth",
        )
    assert sorted(set(titles(server)[said:])) == ["2 tasks are done", "Fourth"]


def test_a_real_server_shows_it(home: OstlerHome, display: str, address: str, tmp_path: Path) -> None:
    """dunst, whose menu of actions is told what to choose: for this task."""
    chooser = tmp_path / "choose"
    chooser.write_text("#!/bin/sh\ngrep 'For this task' | head -1\n")
    chooser.chmod(0o755)
    config = tmp_path / "dunstrc"
    config.write_text(f"[global]\ndmenu = {chooser}\n")
    environ = {**home.environ, "DISPLAY": display, "DBUS_SESSION_BUS_ADDRESS": address}
    with open(tmp_path / "dunst.out", "wb") as log:
        dunst = subprocess.Popen(["dunst", "-conf", str(config)], env=environ, stdout=log, stderr=log)

    def control(*arguments: str) -> str:
        answer = subprocess.run(
            ["dunstctl", *arguments], env=environ, capture_output=True, text=True, check=False
        )
        return answer.stdout.strip()

    try:
        wait_until(lambda: control("count", "displayed") == "0", "dunst")
        with desktop(home, DISPLAY=display, DBUS_SESSION_BUS_ADDRESS=address):
            until_running(home)
            asks = {"ask": {"tool": "Bash", "input": {"command": "git push"}}}
            task = home.add(script(asks), title="Fix login")
            wait_until(lambda: control("count", "displayed") == "1", "the question")
            control("context")
            home.wait(task, "completed")
            wait_until(lambda: control("count", "displayed") == "1", "the end in the question's place")
            # Do not disturb: what ends meanwhile is told afterwards, in one.
            control("close-all")
            wait_until(lambda: control("count", "displayed") == "0", "an empty screen")
            control("set-paused", "true")
            for title in ("Second", "Third"):
                home.wait(home.add("hello", title=title), "completed")
            told = home.directories.state / "desktop-told.json"
            wait_until(lambda: "Third" in told.read_text(), "the desktop to know of it")
            assert control("count", "waiting") == "0"
            control("set-paused", "false")
            wait_until(lambda: control("count", "displayed") == "1", "the summary")
            control("close-all")
            wait_until(lambda: "2 tasks are done" in control("history"), "what the summary said")
    finally:
        dunst.terminate()
        dunst.wait(20)
