"""The transcript on the screen: long ones, growing ones, folded and searched ones."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from daemon_core.control.views import TranscriptLine
from desktop.models.transcript import Kind, Transcript
from desktop.theme.palette import Theme
from desktop.windows.transcript_view import KEPT, TranscriptView
from tests.desktop import canned
from tests.desktop.hands import click, press

pytestmark = [
    pytest.mark.qt_log_level_fail("WARNING"),
    pytest.mark.qt_log_ignore("This plugin does not support"),  # the offscreen platform has no window manager
]


def many(count: int, first: int = 1) -> list[TranscriptLine]:
    """Text, calls and errors in turn."""
    made = []
    for seq in range(first, first + count):
        match seq % 5:
            case 0:
                made.append(TranscriptLine(seq=seq, type="text", content=f"Line {seq} with **words**."))
            case 1 | 3:
                made.append(
                    TranscriptLine(seq=seq, type="tool_use", tool="Bash", input={"command": f"c{seq}"})
                )
            case 2 | 4:
                made.append(TranscriptLine(seq=seq, type="tool_result", tool="Bash", output=f"out {seq}"))
    return made


@pytest.fixture
def view(qtbot: QtBot, theme: Theme) -> TranscriptView:
    made = TranscriptView(theme.colours)
    qtbot.addWidget(made)
    made.resize(800, 500)
    made.show()
    return made


def filled(view: TranscriptView, count: int) -> Transcript:
    made = Transcript()
    made.take(many(count))
    view.show_transcript(made)
    return made


def test_of_two_hundred_thousand_lines_only_the_seen_are_laid_out(view: TranscriptView) -> None:
    filled(view, 200_000)
    assert len(view._laid) < 60
    bar = view.verticalScrollBar()
    assert bar.maximum() > 1_000_000
    for place in range(0, bar.maximum(), bar.maximum() // 40):
        bar.setValue(place)
        view.grab()
    assert len(view._laid) <= KEPT


def test_the_end_is_followed_until_one_scrolls_away(qtbot: QtBot, view: TranscriptView) -> None:
    made = filled(view, 3_000)
    bar = view.verticalScrollBar()
    assert view.following
    view.grown(made.take(many(500, 3_001)))
    assert bar.value() == bar.maximum()
    with qtbot.waitSignal(view.following_changed):
        bar.setValue(bar.maximum() // 2)
    index, inside = view._anchor
    for first in range(3_501, 6_001, 500):
        view.grown(made.take(many(500, first)))
    assert view._anchor == (index, inside)
    view.follow()
    assert bar.value() == bar.maximum()


def test_scrolling_to_the_end_by_hand_follows_again(view: TranscriptView) -> None:
    filled(view, 1_000)
    view.verticalScrollBar().setValue(10)
    assert not view.following
    view.verticalScrollBar().setValue(view.verticalScrollBar().maximum())
    assert view.following


def test_scrolling_up_and_down_by_steps_comes_back(view: TranscriptView) -> None:
    filled(view, 2_000)
    view.verticalScrollBar().setValue(view.verticalScrollBar().maximum() // 3)
    before = view._anchor
    for _step in range(30):
        view._scroll_by(-37)
    for _step in range(30):
        view._scroll_by(37)
    assert view._anchor[0] == before[0]
    assert abs(view._anchor[1] - before[1]) < 1


def test_the_whole_takes_the_place_of_the_end_without_a_jump(view: TranscriptView) -> None:
    end = Transcript()
    end.last_seq = 9_600
    end.take(many(400, 9_601))
    view.show_transcript(end)
    view.verticalScrollBar().setValue(view.verticalScrollBar().maximum() // 2)
    seq = view.transcript.items[view._anchor[0]].seq
    whole = Transcript()
    whole.take(many(10_000))
    view.show_transcript(whole, view.measure(whole))
    assert abs(view.transcript.items[view._anchor[0]].seq - seq) <= 5


def test_a_click_opens_a_run_of_calls_and_then_one(qtbot: QtBot, view: TranscriptView) -> None:
    made = Transcript()
    made.take(canned.transcript(running=False))
    made.end()
    view.resize(800, 1200)
    view.show_transcript(made)
    steps = next(item for item in made.items if len(item.steps) == 3)
    assert steps.folded

    def row_of(number: int) -> QPoint:
        for y in range(0, view.viewport().height(), 4):
            point = QPoint(200, y)
            if view.item_at(point) is steps:
                return QPoint(200, y + 14 + number * 28)
        raise AssertionError("not on the screen")

    click(view.viewport(), row_of(0))
    assert steps.open
    click(view.viewport(), row_of(1))
    assert steps.steps[0].open
    view.grab()


def test_search_finds_what_is_folded_and_opens_it(qtbot: QtBot, view: TranscriptView) -> None:
    made = filled(view, 5_000)
    with qtbot.waitSignal(view.found, check_params_cb=lambda hit, hits: hit == 1 and hits == 1):
        view.search("OUT 2502")
    item = made.items[view._current]
    assert item.kind is Kind.STEPS
    assert item.open
    assert [step.open for step in item.steps if step.output == "out 2502"] == [True]
    with qtbot.waitSignal(view.found, check_params_cb=lambda hit, hits: hits == 0):
        view.search("nowhere to be found")


def long_call(view: TranscriptView, lines: int) -> Transcript:
    made = Transcript()
    made.take([
        TranscriptLine(seq=1, type="tool_use", tool="Bash", input={"command": "seq"}),
        TranscriptLine(seq=2, type="tool_result", tool="Bash",
                       output="\n".join(f"number {n}" for n in range(lines))),
        TranscriptLine(seq=3, type="text", content="Words to be marked\n\n```\ncode\n```\n\nand more"),
    ])  # fmt: skip
    made.end()
    view.show_transcript(made)
    return made


def test_of_a_long_output_more_can_be_shown(qtbot: QtBot, view: TranscriptView) -> None:
    made = long_call(view, 300)
    step = made.items[0].steps[0]
    view._current = 0
    press(view, Qt.Key.Key_Return)
    assert step.open
    [more] = [piece for piece in view._lay(0).pieces if piece.what == "more"]
    assert more.row is not None
    assert more.row.summary == "Show 240 more lines"
    view.show_item(1)
    view._scroll_by(-260)
    left, _width = view._column()
    _index, inside = view._anchor
    click(view.viewport(), QPoint(left + 40, round(more.rect.center().y() - inside)))
    assert step.whole
    assert not [piece for piece in view._lay(0).pieces if piece.what == "more"]


def test_what_is_found_deep_in_an_output_is_shown(qtbot: QtBot, view: TranscriptView) -> None:
    made = long_call(view, 300)
    with qtbot.waitSignal(view.found, check_params_cb=lambda hit, hits: hit == 1 and hits == 1):
        view.search("number 222")
    assert made.items[0].steps[0].whole


def test_marking_text_folds_nothing_on_the_way(view: TranscriptView) -> None:
    made = long_call(view, 5)
    left, _width = view._column()
    view.grab()
    text = QPoint(left + 30, view._lay(0).height + 8)
    row = QPoint(left + 30, 10)
    QTest.mousePress(view.viewport(), Qt.MouseButton.LeftButton, pos=text)
    QTest.mouseRelease(view.viewport(), Qt.MouseButton.LeftButton, pos=row)
    assert not made.items[0].steps[0].open
    QTest.mouseDClick(view.viewport(), Qt.MouseButton.LeftButton, pos=text)
    view.copy()
    assert QGuiApplication.clipboard().text() == "Words"
    view.copy_all()
    assert QGuiApplication.clipboard().text().startswith("Bash\nseq\nnumber 0")
    click(view.viewport(), row)
    assert made.items[0].steps[0].open


def test_it_is_mirrored_where_reading_begins_at_the_right(qtbot: QtBot, theme: Theme) -> None:
    both = []
    for direction in (Qt.LayoutDirection.LeftToRight, Qt.LayoutDirection.RightToLeft):
        holder = QWidget()
        holder.setLayoutDirection(direction)
        view = TranscriptView(theme.colours, holder)
        view.recolour(theme.colours)
        qtbot.addWidget(holder)
        view.resize(600, 400)
        holder.show()
        made = long_call(view, 3)
        made.items[0].steps[0].open = True
        view._changed(0)
        both.append(view._lay(0).pieces)
        assert view.grab().toImage() is not None
    width = both[0][0].rect.width()
    for one, other in zip(*both, strict=True):
        assert other.rect.left() == width - one.rect.left() - one.rect.width()
        assert other.rect.size() == one.rect.size()


def test_errors_are_gone_through_in_turn(view: TranscriptView) -> None:
    made = Transcript()
    for seq in range(1, 301):
        kind = "error" if seq in (100, 200) else "text"
        made.take([TranscriptLine(seq=seq, type=kind, content=f"{kind} {seq}")])
    view.show_transcript(made)
    seen = []
    for _round in range(3):
        view.next_error()
        seen.append(made.items[view._current].text)
    assert seen == ["error 100", "error 200", "error 100"]


def test_the_current_item_is_copied(qtbot: QtBot, view: TranscriptView) -> None:
    filled(view, 10)
    press(view, Qt.Key.Key_Up)
    press(view, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert "c1" in QGuiApplication.clipboard().text()


def test_no_timer_runs_while_it_is_hidden(view: TranscriptView) -> None:
    made = Transcript()
    made.take(canned.transcript(running=True))
    view.show_transcript(made)
    view.grown(0)
    assert view._tick.isActive()
    view.hide()
    assert not view._tick.isActive()


def test_what_an_agent_writes_opens_no_file(view: TranscriptView, tmp_path: object) -> None:
    made = Transcript()
    text = f"![x](file://{tmp_path}/secret.png) <img src='{tmp_path}/a.png'> [here](file:///etc/passwd)"
    made.take([TranscriptLine(seq=1, type="text", content=text)])
    view.show_transcript(made)
    view.grab()
    piece = view._lay(0).pieces[0]
    for x in range(0, 700, 5):
        found = view._piece_at(QPoint(x, 8).toPointF())
        assert found is None or view._link_at(piece, found[3]) == ""
