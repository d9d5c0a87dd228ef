"""The journal: transactions, order, migrations, damage."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from daemon_core.journal import Journal, JournalError, RunRecord, Stretch, TaskRecord
from daemon_core.journal.schema import MIGRATIONS


def task(key: str = "hub/t1", **changes: object) -> TaskRecord:
    connection, _, task_id = key.partition("/")
    record = TaskRecord(
        key=key, connection=connection, task_id=task_id, runtime_id="r", workspace_id="w", provider="shell",
        run_id="run1", claimed_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def run(run_id: str = "run1", key: str = "hub/t1") -> RunRecord:
    return RunRecord(run_id=run_id, task_key=key, mark=run_id)


def stretch(first: int, last: int, offset: int, key: str = "hub/t1", run_id: str = "run1") -> Stretch:
    body = msgspec.json.encode(
        [{"seq": seq, "type": "text", "content": "x"} for seq in range(first, last + 1)]
    )
    return Stretch(
        run_id=run_id, task_key=key, stdout_offset=offset, reader=b"state", next_seq=last + 1,
        at="2026-01-01T00:00:01Z", chunks=[(first, last, body)],
    )  # fmt: skip


async def test_a_stretch_is_committed_as_a_whole(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    assert await journal.add_task(task(), run())
    await journal.commit_stretch(stretch(1, 3, 100))
    with pytest.raises(JournalError):
        await journal.commit_stretch(
            stretch(1, 5, 200)
        )  # numbers that are there already: nothing of it stays
    record = await journal.task("hub/t1")
    assert record is not None
    assert record.next_seq == 4
    assert (await journal.runs("hub/t1"))[0].stdout_offset == 100
    assert [report.last_seq for report in await journal.reports("hub/t1", 100, 1 << 20)] == [3]
    await journal.close()


async def test_reports_come_in_order_and_messages_are_joined_up_to_the_limits(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.add_task(task(), run())
    for first in (1, 4, 7):
        await journal.commit_stretch(stretch(first, first + 2, first * 10))
    await journal.end_task("hub/t1", {"outcome": "completed"}, [("usage", b"{}"), ("complete", b"{}")])
    batch = await journal.reports("hub/t1", 6, 1 << 20)
    assert [(report.kind, report.first_seq) for report in batch] == [("messages", 1), ("messages", 4)]
    await journal.acknowledge([report.id for report in batch])
    rest = []
    while found := await journal.reports("hub/t1", 6, 1 << 20):
        rest += [report.kind for report in found]
        await journal.acknowledge([report.id for report in found])
    assert rest == ["messages", "usage", "complete"]
    await journal.close()


async def test_one_terminal_report_and_one_result(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.add_task(task(), run())
    await journal.end_task("hub/t1", {"outcome": "completed", "output": "first"}, [("complete", b"1")])
    await journal.end_task("hub/t1", {"outcome": "failed", "output": "second"}, [("fail", b"2")])
    record = await journal.task("hub/t1")
    assert record is not None
    assert (record.outcome, record.output) == ("completed", "first")
    assert [report.kind for report in await journal.reports("hub/t1", 9, 99)] == ["complete"]
    await journal.close()


async def test_a_task_that_is_here_is_not_added_twice_but_an_ended_one_begins_anew(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    assert await journal.add_task(task(), run())
    assert not await journal.add_task(task(), run("run2"))
    await journal.commit_stretch(stretch(1, 3, 10))
    await journal.end_task("hub/t1", {"outcome": "failed"}, [("fail", b"{}")])
    again = task(run_id="run2")
    assert await journal.add_task(again, run("run2"))
    record = await journal.task("hub/t1")
    assert record is not None
    assert (record.state, record.next_seq, record.run_id) == ("claimed", 4, "run2")
    assert [found.number for found in await journal.runs("hub/t1")] == [1, 2]
    await journal.close()


async def test_a_transcript_is_read_from_any_line(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.add_task(task(), run())
    for first in (1, 4, 7):
        await journal.commit_stretch(stretch(first, first + 2, first * 10))
    assert [chunk.first_seq for chunk in await journal.transcript("hub/t1", 0, 10)] == [1, 4, 7]
    assert [chunk.first_seq for chunk in await journal.transcript("hub/t1", 3, 10)] == [4, 7]
    assert [chunk.first_seq for chunk in await journal.transcript("hub/t1", 4, 10)] == [4, 7]
    assert [chunk.first_seq for chunk in await journal.transcript("hub/t1", 9, 10)] == []
    await journal.close()


async def test_what_was_committed_survives_kill_9(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, signal, sys
sys.path.insert(0, {os.getcwd()!r})
from pathlib import Path
from daemon_core.journal import Journal
from tests.journal.test_journal import task, run, stretch
async def main():
    journal = await Journal.open(Path({str(tmp_path / "journal.db")!r}))
    await journal.add_task(task(), run())
    for number in range(1, 200):
        await journal.commit_stretch(stretch(number, number, number))
        print(number, flush=True)
        if number == 50:
            os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    said = [int(line) for line in done.stdout.split()]
    assert said[-1] == 50, done.stderr
    journal = await Journal.open(tmp_path / "journal.db")
    record = await journal.task("hub/t1")
    assert record is not None
    assert record.next_seq == 51
    await journal.close()


async def test_files_are_private(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.add_task(task(), run())
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    await journal.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "page"])
async def test_a_damaged_journal_is_set_aside_and_what_is_readable_carried_over(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "50% of #1?" / "journal.db"  # a home that has to be quoted in an address
    path.parent.mkdir()
    journal = await Journal.open(path)
    for number in range(300):
        key = f"hub/t{number}"
        await journal.add_task(task(key, run_id=f"run{number}"), run(f"run{number}", key))
        await journal.commit_stretch(stretch(1, 30, 10, key, f"run{number}"))
    await journal.close()
    size = path.stat().st_size
    with open(path, "r+b") as stream:
        if damage == "garbage":
            stream.write(b"this was never a database" * 100)
        elif damage == "truncated":
            stream.truncate(size // 2)
        else:
            stream.seek(size // 2)
            stream.write(b"\xff" * 8192)
    again = await Journal.open(path)
    assert again.set_aside is not None
    assert again.set_aside.exists()
    assert again.set_aside.stat().st_size > 0
    if damage != "garbage":
        assert again.salvaged["tasks"] > 0
        assert len(await again.recent(1000)) == again.salvaged["tasks"]
    assert await again.add_task(task("hub/new", run_id="new"), run("new", "hub/new"))
    await again.close()
    # The new one is sound.
    third = await Journal.open(path)
    assert third.set_aside is None
    await third.close()


async def test_a_place_that_cannot_be_written_is_said_and_not_taken_for_damage(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(JournalError) as refused:
        await Journal.open(tmp_path / "journal.db")
    assert not refused.value.damaged


async def test_a_newer_journal_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = await Journal.open(path)
    await journal.add_task(task(), run())
    await journal.close()
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE tasks ADD COLUMN something_new TEXT NOT NULL DEFAULT ''")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 3}")
    db.close()
    again = await Journal.open(path)
    assert await again.task("hub/t1") is not None
    await again.update_task("hub/t1", state="ready")
    await again.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 3,)
    db.close()


async def test_pruning_takes_delivered_old_tasks_alone(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    for name, ended, delivery in (
        ("old", "2026-01-01T00:00:00Z", "delivered"),
        ("waiting", "2026-01-01T00:00:00Z", "pending"),
        ("new", "2026-03-01T00:00:00Z", "delivered"),
    ):
        key = f"hub/{name}"
        await journal.add_task(task(key, run_id=name), run(name, key))
        await journal.end_task(key, {"outcome": "completed", "ended_at": ended}, [])
        await journal.update_task(key, delivery=delivery)
    await journal.add_task(task("hub/going", run_id="going"), run("going", "hub/going"))
    assert await journal.prune("2026-02-01T00:00:00Z") == ["old"]
    assert {record.task_id for record in await journal.recent(10)} == {"waiting", "new", "going"}
    await journal.close()


async def test_runs_and_directories_are_found_for_clean_up(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.add_task(task(work_dir="/w/1", title="first"), run())
    await journal.add_task(
        task("hub/t2", run_id="run2", work_dir="/w/1", title="second", claimed_at="2026-01-02T00:00:00Z"),
        run("run2", "hub/t2"),
    )
    await journal.update_run("run1", ended_at="2026-01-01T00:00:05Z")
    assert await journal.runs_ended_before("2026-02-01T00:00:00Z") == []
    await journal.end_task("hub/t1", {"ended_at": "2026-01-01T00:00:05Z"}, [])
    assert await journal.runs_ended_before("2026-02-01T00:00:00Z") == ["run1"]
    assert await journal.runs_ended_before("2026-01-01T00:00:00Z") == []
    assert {path: row.title for path, row in (await journal.work_dirs()).items()} == {"/w/1": "second"}
    assert await journal.task_keys() == {"hub/t1", "hub/t2"}
    await journal.close()
