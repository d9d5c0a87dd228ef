"""The desktop's windows, drawn offscreen in a process of their own: frames of long lists and transcripts.

A frame here is everything that the Qt thread does for it: taking what came, laying out and painting.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.rows import Row

if TYPE_CHECKING:
    from PySide6.QtWidgets import QWidget

    from daemon_core.control.views import TranscriptLine

LINES: Final = 200_000
TASKS: Final = 50_000
A_SECOND: Final = 5_000
"""Lines that come in a second while following."""
FRAMES: Final = 30
"""In that second."""
Frame = tuple[float, float]
"""Milliseconds that it took, and that the processor worked for it."""


def measure() -> list[Row]:
    """Frames in milliseconds."""
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return [Row(*each) for each in json.loads(done.stdout)]


def _frames(name: str, frames: list[Frame]) -> list[Row]:
    times, worked = sorted(wall for wall, _cpu in frames), sorted(cpu for _wall, cpu in frames)
    most = worked[int(len(worked) * 0.95)]
    # On a machine that others use too, the second number is the one that says something.
    note = f"{len(times)} frames; processor {most:.1f} ms in 95 % of them, {worked[-1]:.1f} in the longest"
    return [
        Row(f"{name}, median frame", times[len(times) // 2], "ms", "", note),
        Row(f"{name}, 95 % of frames", times[int(len(times) * 0.95)], "ms", "< 33", note),
        Row(f"{name}, longest frame", times[-1], "ms", "", note),
    ]


def _lines(count: int, first: int) -> Iterator[TranscriptLine]:
    from daemon_core.control.views import TranscriptLine

    text = "The **redirect** lost `next`.\n\n- one\n- two\n\n```python\nreturn 1\n```\nSee [this](https://x.org)."
    for seq in range(first, first + count):
        at = f"2026-01-01T10:{seq // 60 % 60:02d}:{seq % 60:02d}Z"
        match seq % 11:
            case 1 | 2 | 3:
                yield TranscriptLine(seq=seq, type="text", content=f"Line {seq}: {text}", at=at)
            case 4:
                yield TranscriptLine(seq=seq, type="thinking", content="What holds the session? " * 5, at=at)
            case 5 | 7 | 9:
                command = f"npm test -- --watch=false src/a/long/path/{seq}.test.ts"
                yield TranscriptLine(seq=seq, type="tool_use", tool="Bash", input={"command": command}, at=at)
            case 6 | 8 | 10:
                yield TranscriptLine(seq=seq, type="tool_result", tool="Bash", output="ok\n" * 5, at=at)
            case _:
                kind = "error" if seq % 110 == 0 else "text"
                yield TranscriptLine(seq=seq, type=kind, content=f"Finished {seq}", at=at)


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def _drawn(widget: QWidget, act: Callable[[], object]) -> float:
    def both() -> None:
        act()
        widget.grab()

    return _timed(both)


def _frame(widget: QWidget, act: Callable[[], object]) -> Frame:
    began = time.process_time()
    wall = _drawn(widget, act)
    return wall, (time.process_time() - began) * 1000


def _transcript() -> list[Row]:
    from desktop.models.transcript import Transcript
    from desktop.theme import tokens
    from desktop.windows.transcript_view import TranscriptView

    view = TranscriptView(tokens.LIGHT)
    view.resize(960, 640)
    view.show()
    view.grab()
    end = Transcript()
    end.last_seq = LINES - 400
    tail = list(_lines(400, LINES - 399))

    def open_end() -> None:
        end.take(tail)
        view.show_transcript(end)

    rows = [Row("transcript of 200,000 lines, its end on the screen", _drawn(view, open_end), "ms", "< 100")]
    everything = list(_lines(LINES, 1))
    whole, heights, taken, slices = Transcript(), view.measure(Transcript()), 0, []
    while taken < LINES:

        def take() -> None:
            nonlocal taken
            view.measure(whole, whole.take(everything[taken : taken + 512]), heights)
            taken += 512

        slices.append(_timed(take))
    rows.append(Row("the whole of it read beside that", sum(slices) / 1000, "s", "", "in slices"))
    rows.append(
        Row("the whole takes its place", _drawn(view, lambda: view.show_transcript(whole, heights)), "ms")
    )
    bar = view.verticalScrollBar()
    top = bar.maximum()
    jumps = [_frame(view, partial(bar.setValue, place)) for place in range(0, top, top // 150)]
    rows += _frames("jumping through it", jumps)
    bar.setValue(top // 2)
    rows += _frames(
        "scrolling it by wheel", [_frame(view, lambda: bar.setValue(bar.value() + 60)) for _ in range(300)]
    )
    view.follow()

    def follow(at: int) -> None:
        view.grown(whole.take(more[at : at + each]))

    more, each = list(_lines(A_SECOND, LINES + 1)), A_SECOND // FRAMES
    appended = [_frame(view, partial(follow, at)) for at in range(0, A_SECOND, each)]
    rows += _frames("following 5,000 lines a second", appended)
    view.close()
    return rows


def _history() -> list[Row]:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from PySide6.QtWidgets import QApplication

    from daemon_core.control.views import TaskRow
    from daemon_core.settings.directories import resolve
    from desktop.daemon.link import Link
    from desktop.theme.palette import Theme
    from desktop.windows.context import Context
    from desktop.windows.history import HistoryPage

    app = QApplication.instance()
    assert isinstance(app, QApplication)
    with TemporaryDirectory() as home:
        directories = resolve({"OSTLER_HOME": home, "HOME": str(Path(home))}, None)
        directories.ensure()
        link = Link(directories)
        page = HistoryPage(Context(link, Theme(app, "light"), lambda _command: None))
        page.resize(960, 640)
        page.show()
        at = "2026-01-01T10:00:00Z"
        tasks = [
            TaskRow(id=str(number), title=f"Task {number}", status="completed", runtime="x", created_at=at,
                    started_at=at, ended_at=at)
            for number in range(TASKS)
        ]  # fmt: skip
        rows = [
            Row("history of 50,000 tasks shown", _drawn(page, lambda: page.model.show_tasks(tasks)), "ms")
        ]
        bar = page.list.verticalScrollBar()
        page.list.doItemsLayout()
        top = bar.maximum()
        jumps = [_frame(page, partial(bar.setValue, place)) for place in range(0, top, top // 150)]
        rows += _frames("jumping through it", jumps)
        page.close()
        link.stop()
    return rows


def main() -> None:
    from PySide6.QtWidgets import QApplication

    app = QApplication(["benchmark"])
    rows = _transcript() + _history()
    json.dump([[row.name, row.value, row.unit, row.aim, row.note] for row in rows], sys.stdout)
    app.quit()


if __name__ == "__main__":
    main()
