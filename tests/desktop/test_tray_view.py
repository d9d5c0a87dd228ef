"""What the tray says in each state."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from daemon_core.control.views import Barrier, Condition, DaemonStatus, RuntimeView, TaskRow, UpdateView
from desktop.commands import Command
from desktop.models.state import DesktopState, LinkPhase, Supervision
from desktop.theme.mark import Shape
from desktop.tray.view import MOST_ROWS, Asked, Row, tray_view
from tests.desktop import canned

NOW = dt.datetime(2026, 1, 1, 12, 0, 0, tzinfo=dt.UTC)
READY = canned.update("staged")


def state(*tasks: TaskRow, **more: Any) -> DesktopState:
    status = more.pop("status", None) or DaemonStatus(
        status="running", barrier=more.pop("barrier", None), conditions=more.pop("conditions", [])
    )
    return DesktopState(
        link=more.pop("link", LinkPhase.CONNECTED),
        status=status,
        tasks={each.id: each for each in tasks},
        **more,
    )


def running(ident: str = "1", **more: Any) -> TaskRow:
    return TaskRow(
        id=ident, title=f"Task {ident}", status="running", runtime="claude",
        started_at="2026-01-01T11:47:19Z", **more,
    )  # fmt: skip


def flat(rows: tuple[Row, ...]) -> list[Row]:
    return [each for row in rows for each in (row, *flat(row.rows))]


CASES: list[tuple[DesktopState, Shape, str]] = [
    (state(), Shape.IDLE, "Ostler: Nothing is running."),
    (state(running()), Shape.WORKING, "Ostler: 1 task is running."),
    (state(running("1"), running("2")), Shape.WORKING, "Ostler: 2 tasks are running."),
    (state(running(needs_input=True), running("2")), Shape.NEEDS_YOU, "Ostler: 1 task needs you."),
    (state(barrier=Barrier()), Shape.PAUSED, "Ostler: Paused."),
    (
        state(running(), barrier=Barrier()),
        Shape.WORKING,
        "Ostler: 1 task is running; no new ones are taken.",
    ),
    (
        state(conditions=[Condition(code="disk_low", params={"path": "/home"})]),
        Shape.PROBLEM,
        "Ostler: Nothing is running. The disk of /home is nearly full: no tasks are taken.",
    ),
    (
        state(conditions=[Condition(code="server_unreachable", params={"server": "x"})]),
        Shape.IDLE,
        "Ostler: Nothing is running.",
    ),
    (DesktopState(link=LinkPhase.ABSENT), Shape.DISCONNECTED, "Ostler: Ostler's daemon is not running."),
    (
        DesktopState(link=LinkPhase.ABSENT, supervision=Supervision.STARTING),
        Shape.DISCONNECTED,
        "Ostler: Ostler is starting.",
    ),
    (
        DesktopState(link=LinkPhase.ABSENT, supervision=Supervision.GAVE_UP),
        Shape.PROBLEM,
        "Ostler: Ostler's daemon stopped several times in a row.",
    ),
    (DesktopState(link=LinkPhase.HUNG), Shape.PROBLEM, "Ostler: Ostler's daemon does not answer."),
]


@pytest.mark.parametrize(("given", "shape", "tooltip"), CASES, ids=[case[2] for case in CASES])
def test_shape_and_sentence(given: DesktopState, shape: Shape, tooltip: str) -> None:
    view = tray_view(given, now=NOW)
    assert (view.shape, view.tooltip) == (shape, tooltip)
    assert view.rows[0].text in tooltip


def test_a_task_can_be_opened_and_cancelled() -> None:
    rows = tray_view(state(running(last_action="Bash  npm test", directory="/home/me/api")), now=NOW).rows
    row = next(each for each in rows if each.text.startswith("Task 1"))
    assert row.text == "Task 1  12:41"
    assert row.rows[0].text == "claude · api · Bash npm test"
    assert [each.command for each in row.rows[1:]] == [
        Command("open_task", "1"),
        Command("cancel_task", "1"),
    ]


def top(rows: tuple[Row, ...]) -> list[Row]:
    return [row for row in rows if row.kind != "separator"]


@pytest.mark.parametrize("asking", [0, 1, 9])
@pytest.mark.parametrize("going", [0, 1, 3, 40])
def test_the_top_level_stays_short(asking: int, going: int) -> None:
    tasks = [running(str(number)) for number in range(going)]
    tasks += [running(f"n{number}", needs_input=True) for number in range(asking)]
    conditions = [Condition(code="signed_out", params={"server": str(n)}) for n in range(5)]
    for troubles, update, messages, held, snoozed in product((False, True), repeat=5):
        given = state(
            *tasks,
            conditions=conditions if troubles else [],
            update=READY if update else None,
            barrier=Barrier() if held else None,
        )
        until = "2026-01-01T13:00:00Z" if snoozed else ""
        rows = tray_view(given, now=NOW, messages=3 if messages else 0, snoozed_until=until).rows
        assert len(top(rows)) <= MOST_ROWS
        # Whatever comes together: nothing is lost, and what needs somebody is on top.
        commands = {row.command.name for row in flat(rows) if row.command is not None}
        assert {"new_task", "open", "show_logs", "snooze", "quit", "resume" if held else "pause"} <= commands
        assert ("update" in commands) is update
        shown = [row.text for row in top(rows) if row.text.startswith("Task ")]
        assert any(text.endswith("needs you") for text in shown) is bool(asking)
        more = next((row.text for row in top(rows) if row.text.endswith(("more task…", "more tasks…"))), "0")
        assert len(shown) + int(more.split()[0]) == asking + going


def test_with_little_to_say_everything_is_at_the_top() -> None:
    texts = [row.text for row in top(tray_view(state(running()), now=NOW).rows)]
    assert texts == [
        "1 task is running",
        "Task 1  12:41",
        "New task…",
        "No agent is ready",
        "Pause",
        "Open Ostler",
        "Settings…",
        "Show the log",
        "Quit…",
    ]


def test_what_a_task_asks_is_answered_in_the_menu() -> None:
    allow = Command("answer", "1", "R1", "allow")
    deny = replace(allow, choice="deny")
    asked = {"1": Asked("Wants to run `rm -rf build`", (("Allow once", allow), ("Deny", deny)))}
    rows = tray_view(state(running("1", needs_input=True)), asked=asked, now=NOW).rows
    (row,) = [each for each in rows if each.text == "Task 1: needs you"]
    assert [(each.text, each.command) for each in row.rows] == [
        ("Wants to run `rm -rf build`", None),
        ("Allow once", allow),
        ("Deny", deny),
        ("Open", Command("open_task", "1")),
        ("Cancel the task", Command("cancel_task", "1")),
    ]
    rows = tray_view(state(running("1", needs_input=True)), now=NOW).rows
    (row,) = [each for each in rows if each.text == "Task 1: needs you"]
    assert row.rows[1] == Row("action", "Answer…", Command("open_task", "1"))


def test_an_update_is_one_row_and_changes_no_shape() -> None:
    view = tray_view(state(running(), update=READY), now=NOW)
    assert view.shape is Shape.WORKING
    (row,) = [row for row in view.rows if "1.4.0" in row.text]
    assert row.text == "Restart to update to 1.4.0"
    assert [each.command for each in row.rows if each.kind == "action"] == [
        Command("update", "1.4.0"),
        Command("update_later", "1.4.0"),
        Command("open", "health"),
    ]
    assert any(each.text == "• The window opens in half the time." for each in row.rows)


@pytest.mark.parametrize(
    "update",
    [
        canned.update(),
        canned.update("checking"),
        canned.update("available"),
        canned.update("downloading"),
        canned.update("staged", waits_for="reminder", remind_at="2026-01-08T12:00:00Z"),
        canned.update("committed"),
        canned.update("failed"),
    ],
    ids=lambda update: str(update.stage),
)
def test_nothing_is_said_of_an_update_before_it_is_ready_or_after(update: UpdateView) -> None:
    assert tray_view(state(running(), update=update), now=NOW) == tray_view(state(running()), now=NOW)


@pytest.mark.parametrize("stage", ["switching", "restarting", "verifying"])
@pytest.mark.parametrize("link", [LinkPhase.CONNECTED, LinkPhase.ABSENT, LinkPhase.CONNECTING])
def test_the_daemon_is_away_for_an_update_and_nothing_looks_broken(stage: str, link: LinkPhase) -> None:
    given = state(running(), update=canned.update(stage), link=link, supervision=Supervision.NONE)
    view = tray_view(given)
    assert view.shape is Shape.WORKING
    assert view.rows[0].text == "Updating to 1.4.0; tasks go on"
    assert Command("start_daemon") not in [row.command for row in flat(view.rows)]
    assert not any("Restart to update" in row.text for row in view.rows)


def test_an_update_that_takes_too_long_hides_no_trouble() -> None:
    old = canned.update("restarting", since=canned.ago(1000))
    view = tray_view(state(running(), update=old, link=LinkPhase.ABSENT))
    assert (view.shape, view.rows[0].text) == (Shape.DISCONNECTED, "Ostler's daemon is not running")
    gave_up = state(
        update=canned.update("restarting"), link=LinkPhase.ABSENT, supervision=Supervision.GAVE_UP
    )
    assert tray_view(gave_up).shape is Shape.PROBLEM


def test_every_row_that_can_be_chosen_does_something() -> None:
    for given, _, _ in CASES:
        for row in flat(tray_view(given, now=NOW).rows):
            assert (row.kind == "action") == (row.command is not None)
            assert (row.kind == "menu") == bool(row.rows)


def test_runtimes_have_a_switch() -> None:
    runtimes = {
        "a": RuntimeView(id="a", provider="claude", name="Claude Code", version="2.1.0"),
        "b": RuntimeView(id="b", provider="codex", status="off"),
        "c": RuntimeView(id="c", provider="gemini", status="unusable"),
    }
    row = next(each for each in tray_view(state(runtimes=runtimes), now=NOW).rows if "ready" in each.text)
    assert row.text == "1 agent is ready"
    assert [each.text for each in row.rows if each.kind == "menu"] == [
        "Claude Code 2.1.0: ready",
        "codex: off",
    ]
    commands = [each.command for each in flat(row.rows) if each.command is not None]
    assert Command("runtime_off", "a") in commands
    assert Command("runtime_on", "b") in commands


def test_a_daemon_that_gave_up_can_be_started() -> None:
    rows = tray_view(DesktopState(link=LinkPhase.ABSENT, supervision=Supervision.GAVE_UP), now=NOW).rows
    assert Command("start_daemon") in [row.command for row in rows]
    assert Command("show_logs") in [row.command for row in rows]
