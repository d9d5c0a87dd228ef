"""Jobs and residents in the window: output as lines, the list, and the page against a real daemon."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PySide6.QtCore import Qt
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from daemon_core.control.views import JobView
from desktop.daemon.stats import StatsFeed
from desktop.models.jobs import JobsModel, entries_of
from desktop.models.output import KEPT_LINES, MOST_LINES, Look, Output
from desktop.theme.palette import Theme
from desktop.windows.jobs import JobsPage, jobs_sentence
from desktop.windows.main import MainWindow
from tests.desktop import canned
from tests.desktop.conftest import Desk
from tests.desktop.hands import click, press
from tests.desktop.test_window_daemon import WAIT_MS, LiveDesk, live_at
from tests.end_to_end.home import OstlerHome

pytestmark = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),  # the offscreen platform has no window manager
    pytest.mark.skipif(sys.platform == "win32", reason="the control API is a unix socket here"),
]


def texts(output: Output) -> list[str]:
    return [line.text for line in output.lines]


def made(data: bytes, offset: int = 0) -> Output:
    output = Output()
    output.begin(data, offset)
    return output


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\r\ntwo\n", ["one", "two", ""]),
        (b"10 %\r50 %\r100 %\n", ["100 %", ""]),
        (b"a longer one\rshort\x1b[K\n", ["short", ""]),
        (b"first\nsecond\x1b[1A\rFIRST\n", ["FIRST", "second"]),
        (b"\x1b]0;a title\x07\x1b[?25lx\x1b(By\n", ["xy", ""]),
        (b"a\tb\n", ["a       b", ""]),
        (b"ab\b\bc\n", ["cb", ""]),
        ("schön 漢字\n".encode(), ["schön 漢字", ""]),
        (b"\xff\xfe\n", ["��", ""]),
        (b"old\n\x1b[2J\x1b[Hnew", ["old", "new"]),
    ],
)
def test_a_terminal_as_lines(data: bytes, lines: list[str]) -> None:
    assert texts(made(data)) == lines


@given(st.lists(st.integers(1, 9), max_size=30))
@settings(max_examples=40, deadline=None)
def test_pieces_make_no_difference(cuts: list[int]) -> None:
    data = canned.JOB_OUTPUT + "é漢\x1b[38;5;196mred\x1b[48;2;1;2;3mx\x1b[0m\r\n".encode() * 3
    whole = made(data)
    output = Output()
    place = 0
    for cut in cuts:
        output.feed(data[place : place + cut])
        place += cut
    output.feed(data[place:])
    assert [(line.text, line.spans) for line in output.lines] == [
        (line.text, line.spans) for line in whole.lines
    ]
    assert output.next == len(data)


def test_colours_are_kept_and_overwritten_ones_go() -> None:
    output = made(b"\x1b[1;31mbad\x1b[0m good\rB")
    assert output.lines[0].text == "Bad good"
    assert output.lines[0].spans == [(1, 3, Look("red", strong=True))]


def test_a_question_is_the_last_paragraph() -> None:
    assert made(canned.JOB_OUTPUT).tail() == (
        "The database has 3 migrations that were not applied.\nApply them now? [y/N]"
    )


def test_only_so_much_is_held_and_the_rest_comes_back() -> None:
    lines = [b"line %d\n" % number for number in range(MOST_LINES + 500)]
    data = b"".join(lines)
    output = made(b"")
    for place in range(0, len(data), 40_000):
        output.feed(data[place : place + 40_000])
    gone = output.trim()
    assert gone
    assert KEPT_LINES - 5_000 <= len(output.lines) <= MOST_LINES
    assert data[output.start :].startswith(output.lines[0].text.encode() + b"\n")
    first = output.lines[0].text
    begin = max(0, output.start - 3_000)
    came = output.put_before(data[begin : output.start], begin)
    assert came
    assert output.lines[came].text == first
    assert data[output.start :].startswith(output.lines[0].text.encode() + b"\n")
    number = int(output.lines[0].text.split()[1])
    assert [line.text for line in output.lines[:came]] == [
        f"line {at}" for at in range(number, number + came)
    ]


def test_one_huge_line_stays_bounded() -> None:
    output = made(b"x" * 5_000_000)
    assert len(output.lines[0].text) < 20_000


def test_the_list_changes_row_by_row(qtmodeltester: ModelTester) -> None:
    model = JobsModel()
    qtmodeltester.check(model)  # type: ignore[no-untyped-call]
    jobs, residents = canned.jobs(), canned.residents()
    model.show_entries(entries_of(jobs.values(), residents.values()))
    headings = [entry.heading for entry in model.entries if entry.heading]
    assert headings == ["Waits for you", "Running", "Residents", "Ended"]
    resets: list[int] = []
    model.modelReset.connect(lambda: resets.append(1))
    answered = msgspec.structs.replace(jobs["j1" * 16], stalled=False, ended_at=canned.ago(1), status="done")
    jobs = {**jobs, answered.id: answered}
    del jobs["j5" * 16]
    wanted = entries_of(jobs.values(), residents.values())
    model.show_entries(wanted)
    assert model.entries == wanted
    model.show_entries([])
    assert model.rowCount() == 0
    assert not resets


def test_the_page_says_what_it_is_for(qtbot: QtBot, desk: Desk) -> None:
    window = MainWindow(desk.context, desk.settings)
    qtbot.addWidget(window)
    desk.link.tell(**canned.connected())
    window.open_page("jobs")
    window.show()
    page = window.page("jobs")
    assert isinstance(page, JobsPage)
    assert page.detail.currentWidget() is page.empty
    assert not page.list.isVisible()
    desk.link.tell(jobs=canned.jobs(), residents=canned.residents())
    assert page.job.job is not None
    assert page.job.job.stalled
    assert page._sentence.text == "1 job waits for an answer"
    page.choose("resident cron")
    assert page.detail.currentWidget() is page.resident
    assert page.resident._why.text().startswith("/home/me/.config/ostler/residents/cron.yaml:7: ")
    assert not page.resident.start.isVisible()
    # what is chosen stays chosen while the list moves about it
    desk.link.tell(jobs={})
    assert page.resident.resident is not None
    assert page.resident.resident.id == "cron"
    state = desk.link.state
    assert jobs_sentence(state) == "1 resident is running"
    assert jobs_sentence(replace(state, residents={})) == "No job is running"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    opened = OstlerHome(tmp_path, environ={"OSTLER_JOBS_STALL": "1s"})
    yield opened
    opened.close()


@pytest.fixture
def live(qtbot: QtBot, home: OstlerHome, theme: Theme) -> Iterator[LiveDesk]:
    with live_at(qtbot, home, theme, "jobs") as opened:
        yield opened


def test_a_job_from_the_box_to_its_end(qtbot: QtBot, live: LiveDesk, tmp_path: Path) -> None:
    page = live.windows.main.page("jobs")
    assert isinstance(page, JobsPage)
    click(page.new)
    page.new_job.command.setPlainText(
        "printf '\\033[32mgreen\\033[0m\\n'; printf 'Go on? [y/N] '; read answer; echo got $answer;"
        " seq 1 30000; sleep 600"
    )
    page.new_job.directory.setText(str(tmp_path))
    press(page.new_job.command, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: page.detail.currentWidget() is page.job, timeout=WAIT_MS)
    qtbot.waitUntil(page.job.question.isVisible, timeout=WAIT_MS)
    assert page.job._question_text.text().endswith("Go on? [y/N]")
    assert live.windows.main.rail.buttons["jobs"]._count == 1
    output = page.job.output.feed.output
    assert output.lines[0].text == "green"
    assert output.lines[0].spans == [(0, 5, Look("green"))]
    page.job.input.setText("yes")
    press(page.job.input, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: not page.job.question.isVisible(), timeout=WAIT_MS)

    def last() -> str:
        lines = [line.text for line in page.job.output.feed.output.lines if line.text]
        return lines[-1] if lines else ""

    qtbot.waitUntil(lambda: last() == "30000", timeout=WAIT_MS)
    assert "got yes" in texts(page.job.output.feed.output)
    assert page.job.output.view.following
    job = page.job.job
    assert job is not None
    click(page.job.kill)
    qtbot.waitUntil(lambda: live.link.state.jobs[job.id].ended_at is not None, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: page.job.job is not None and page.job.job.status == "killed", timeout=WAIT_MS)
    qtbot.waitUntil(lambda: page.job.output.feed.over, timeout=WAIT_MS)
    assert not page.job.input.isVisible()


def test_a_resident_is_started_watched_and_stopped(qtbot: QtBot, live: LiveDesk) -> None:
    page = live.windows.main.page("jobs")
    assert isinstance(page, JobsPage)
    place = live.home.directories.config / "residents"
    place.mkdir(parents=True, exist_ok=True)
    (place / "bad.yaml").write_text("id: bad\nname: Bad\nno_such_key: 1\n")
    (place / "clock.yaml").write_text(
        "id: clock\nname: Clock\ncommand: [sh, -c, 'echo tick; sleep 600']\nenabled: false\n"
    )
    live.home.call("GET", "/v1/residents")
    qtbot.waitUntil(lambda: page.model.row_of("resident clock") >= 0, timeout=WAIT_MS)
    invalid = next(each for each in live.link.state.residents.values() if each.state == "invalid")
    page.choose(f"resident {invalid.id}")
    assert "bad.yaml:" in page.resident._why.text()
    page.choose("resident clock")
    click(page.resident.start)
    qtbot.waitUntil(lambda: live.link.state.residents["clock"].state == "running", timeout=WAIT_MS)
    qtbot.waitUntil(lambda: "tick" in texts(page.resident.output.feed.output), timeout=WAIT_MS)
    stats = StatsFeed.of(live.link)
    qtbot.waitUntil(lambda: stats.series("resident", "clock") is not None, timeout=WAIT_MS)
    qtbot.waitUntil(page.resident.line.isVisible, timeout=WAIT_MS)
    page.resident.enabled.click()
    qtbot.waitUntil(lambda: live.link.state.residents["clock"].enabled, timeout=WAIT_MS)
    assert "enabled: true" in (place / "clock.yaml").read_text()
    click(page.resident.stop)
    qtbot.waitUntil(lambda: live.link.state.residents["clock"].state == "stopped", timeout=WAIT_MS)
    # nobody looks: nothing is asked
    live.windows.main.open_page("history")
    assert not stats.asking


def test_a_refused_job_keeps_what_was_written(qtbot: QtBot, live: LiveDesk) -> None:
    page = live.windows.main.page("jobs")
    assert isinstance(page, JobsPage)
    page.begin_job()
    page.new_job.command.setPlainText("true")
    page.new_job.directory.setText("/no/such/place")
    click(page.new_job.button)
    qtbot.waitUntil(page.new_job._refusal.isVisible, timeout=WAIT_MS)
    assert page.new_job._refusal.text() == "This directory is not there."
    assert page.new_job.command.toPlainText() == "true"
    assert page.new_job.button.isEnabled()
    jobs: list[JobView] = msgspec.convert(live.home.call("GET", "/v1/jobs"), list[JobView])
    assert jobs == []


def test_what_was_dropped_of_an_output_is_said_and_the_beginning_can_be_had(
    qtbot: QtBot, live: LiveDesk, tmp_path: Path
) -> None:
    live.home.call("PUT", "/v1/settings/jobs.output_limit", {"value": "1MiB"})
    wanted = {"command": "seq -w 1 300000", "directory": str(tmp_path)}
    ident = live.home.call("POST", "/v1/jobs", wanted)["id"]
    qtbot.waitUntil(
        lambda: ident in live.link.state.jobs and live.link.state.jobs[ident].ended_at is not None,
        timeout=WAIT_MS,
    )
    page = live.windows.main.page("jobs")
    assert isinstance(page, JobsPage)
    page.choose_job(ident)
    feed = page.job.output.feed
    qtbot.waitUntil(lambda: feed.over, timeout=WAIT_MS)
    while feed.output.start:
        with qtbot.waitSignal(feed.went, timeout=WAIT_MS):
            feed.ask_earlier()
    lines = [text for text in texts(feed.output) if text]
    assert lines[0] == "000001"
    assert lines[-1] == "300000"
    (hole,) = [place for place, text in enumerate(lines) if text.startswith("[…")]
    assert "longer than is kept" in lines[hole]
    whole = lines[: hole - 1] + lines[hole + 2 :]  # at its edges lines are cut
    assert all(text.isdecimal() and len(text) == 6 for text in whole)
    assert whole == sorted(whole)
