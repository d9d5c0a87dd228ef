"""Clean-up over 5,000 work directories: the scan with its verdicts, the sizes, and taking them apart."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.rows import Row, median, spread
from daemon_core.workdirs import cleanup
from daemon_core.workdirs.cleanup import Answer
from daemon_core.workdirs.directories import Stamp
from daemon_core.workdirs.disk import tree_size
from daemon_core.workdirs.trash import Removed, Trash

ENVIRONMENTS = 5_000
FILES = 10
ROUNDS = 5

T = TypeVar("T")


def measure() -> list[Row]:
    """On the temporary directory's file system, warm."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as place:
        root = Path(place) / "workspaces"
        _make(root)
        now = time.time()
        answer = Answer(found=True, status="active", at=now)

        def look() -> int:
            verdicts = [cleanup.judge(each, answer, now) for each in cleanup.scan(root)]
            return len(verdicts)

        looks = [_timed(look) for _ in range(ROUNDS)]
        assert all(count == ENVIRONMENTS for _, count in looks)
        sizes, _ = _timed(lambda: sum(tree_size(each.path).total_bytes for each in cleanup.scan(root)))
        trash = Trash(root)
        began = time.perf_counter()
        for each in list(cleanup.scan(root)):
            trash.put(each.path)
        thrown = time.perf_counter() - began
        emptied, removed = _timed(trash.empty)
        assert isinstance(removed, Removed)
        assert not removed.left
    seconds = [took for took, _ in looks]
    files = ENVIRONMENTS * FILES
    return [
        Row(f"scan and verdicts, {ENVIRONMENTS:,} directories", median(seconds), "s", "< 1",
            spread(seconds, "s")),
        Row(f"sizes of all ({files:,} files)", sizes, "s", "", "once each: they are remembered"),
        Row("into the trash, each (on the event loop)", thrown / ENVIRONMENTS * 1e6, "µs", "< 1000"),
        Row("taking all of it apart", emptied, "s", "", "in a thread"),
    ]  # fmt: skip


def _make(root: Path) -> None:
    stamp = Stamp(kind="chat", chat_session_id="c", task_id="t", completed_at="2026-01-01T00:00:00Z")
    for number in range(ENVIRONMENTS):
        environment = root / f"ws-{number % 5}" / f"{number:08x}"
        inside = environment / "workdir" / "src"
        inside.mkdir(parents=True)
        for name in range(FILES):
            (inside / f"{name}.txt").write_text("x" * 100)
        cleanup.write_stamp(environment, stamp)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found
