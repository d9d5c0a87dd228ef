"""A journal in trouble: no room, damage while it is open, a copy that cannot be made."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import msgspec
import pytest

from daemon_core.journal import Journal, JournalError, RunRecord, salvage
from daemon_core.protocol.wire import Usage
from tests.journal.test_journal import run, stretch, task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_no_room_is_told_as_what_passes_and_leaves_nothing_half_done(path: Path) -> None:
    journal = await Journal.open(path)
    await journal.add_task(task(), run())
    (pages,) = await journal._transaction(lambda db: db.execute("PRAGMA page_count").fetchone())
    await journal._run(lambda: _limit(journal, pages))
    big = stretch(1, 3000, 100)
    with pytest.raises(JournalError) as error:
        await journal.commit_stretch(big)
    assert (error.value.full, error.value.damaged) == (True, False)
    record = await journal.task("hub/t1")
    assert record is not None
    assert record.next_seq == 1
    assert await journal.outbox_size() == 0
    await journal._run(lambda: _limit(journal, 1 << 30))
    await journal.commit_stretch(big)
    assert await journal.outbox_size() == 1
    await journal.close()


def _limit(journal: Journal, pages: int) -> None:
    assert journal._connection is not None
    journal._connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()


async def test_a_rule_of_the_schema_that_is_broken_is_neither(path: Path) -> None:
    journal = await Journal.open(path)
    with pytest.raises(JournalError) as error:
        await journal.commit_stretch(stretch(1, 3, 100))  # of a task that is not there
    assert (error.value.full, error.value.damaged) == (False, False)
    await journal.close()


async def test_damage_that_shows_while_it_is_open_is_mended_at_the_next_start_whatever_its_size(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon_core.journal.store.QUICK_CHECK_LIMIT_BYTES", 0)  # too large to be checked
    journal = await Journal.open(path)
    for number in range(200):
        key = f"hub/t{number}"
        await journal.add_task(task(key, run_id=f"run{number}"), run(f"run{number}", key))
        await journal.commit_stretch(stretch(1, 30, 10, key, f"run{number}"))
    await journal.close()
    with open(path, "r+b") as stream:
        stream.seek(40 * 4096)  # the schema stays readable
        stream.write(b"\xff" * (path.stat().st_size - 41 * 4096))
    again = await Journal.open(path)
    assert again.set_aside is None  # nobody has looked
    with pytest.raises(JournalError) as error:
        await again.recent(1000)
    assert error.value.damaged
    await again.close()
    third = await Journal.open(path)
    assert third.set_aside is not None
    assert await third.add_task(task("hub/new", run_id="new"), run("new", "hub/new"))
    await third.close()
    fourth = await Journal.open(path)
    assert fourth.set_aside is None
    assert not path.with_name("journal.db.check").exists()
    await fourth.close()


async def test_a_copy_that_cannot_be_made_leaves_the_damaged_journal_in_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await Journal.open(path)
    for number in range(300):
        key = f"hub/t{number}"
        await journal.add_task(task(key, run_id=f"run{number}", title="x" * 2000), run(f"run{number}", key))
    await journal.close()
    with open(path, "r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(b"\xff" * 8192)
    damaged = path.read_bytes()
    copy = salvage.copy_readable

    def no_room(source: Path, fresh: sqlite3.Connection) -> dict[str, int]:
        fresh.execute("PRAGMA max_page_count = 12").fetchone()
        return copy(source, fresh)

    with monkeypatch.context() as patched:
        patched.setattr("daemon_core.journal.salvage.copy_readable", no_room)
        with pytest.raises(JournalError) as error:
            await Journal.open(path)
    assert error.value.full
    assert path.read_bytes() == damaged
    assert not list(path.parent.glob("*.damaged-*"))
    again = await Journal.open(path)  # with more room
    assert again.salvaged["tasks"] > 0
    await again.close()


async def test_a_further_run_and_what_the_one_before_used_are_recorded_together(path: Path) -> None:
    journal = await Journal.open(path)
    await journal.add_task(task(session_id="s1"), run())
    usage = msgspec.json.encode([Usage(provider="claude", model="m", input_tokens=4)])
    further = RunRecord(run_id="run2", task_key="hub/t1", number=2)
    await journal.add_run(further, usage=usage, session_id="")
    found = await journal.task("hub/t1")
    assert found is not None
    assert (found.run_id, found.usage, found.session_id) == ("run2", usage, "")
    with pytest.raises(JournalError):  # the same run again: nothing of it
        await journal.add_run(further, usage=b"[]")
    found = await journal.task("hub/t1")
    assert found is not None
    assert found.usage == usage
    await journal.close()


async def test_pruning_takes_runs_transcript_and_outbox_along_and_nothing_of_others(path: Path) -> None:
    journal = await Journal.open(path)
    for name, ended in (("old", "2026-01-01T00:00:00Z"), ("new", "2026-03-01T00:00:00Z")):
        key = f"hub/{name}"
        await journal.add_task(task(key, run_id=name), run(name, key))
        await journal.add_run(RunRecord(run_id=f"{name}2", task_key=key, number=2))
        await journal.commit_stretch(stretch(1, 3, 10, key, f"{name}2"))
        await journal.end_task(key, {"outcome": "failed", "ended_at": ended}, [("fail", b"{}")])
        await journal.update_task(key, delivery="moot")
    assert sorted(await journal.prune("2026-02-01T00:00:00Z")) == ["old", "old2"]
    assert await journal.known_runs() == {"new", "new2"}
    assert await journal.transcript("hub/old", 0, 10) == []
    assert len(await journal.transcript("hub/new", 0, 10)) == 1
    assert await journal.outbox_size() == 2
    assert await journal.prune("2026-02-01T00:00:00Z") == []
    await journal.close()


async def test_what_is_asked_of_a_task_that_is_not_there(path: Path) -> None:
    journal = await Journal.open(path)
    await journal.update_task("hub/gone", state="ready")
    await journal.end_task("hub/gone", {"outcome": "failed"}, [("fail", b"{}")])
    assert await journal.task("hub/gone") is None
    assert await journal.outbox_size() == 0
    await journal.close()


async def test_a_salvaged_row_of_a_newer_version_keeps_what_this_one_knows(path: Path) -> None:
    journal = await Journal.open(path)
    await journal.add_task(task(), run())
    await journal.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE tasks ADD COLUMN newer TEXT NOT NULL DEFAULT 'x'")
        db.commit()
    fresh_path = path.with_name("fresh.db")
    fresh = await Journal.open(fresh_path)
    await fresh.close()
    with contextlib.closing(sqlite3.connect(fresh_path, isolation_level=None)) as db:
        copied = salvage.copy_readable(path, db)
    assert (copied["tasks"], copied["runs"]) == (1, 1)
