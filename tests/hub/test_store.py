"""What survives: a new start, a kill, a damaged file, a database of another version, a full disk."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon_core.hub import Hub, NewTask, StorageError, store
from daemon_core.hub.schema import MIGRATIONS, TABLES
from daemon_core.hub.store import Store, Tx
from tests.hub.test_states import WIRE_STATES, bring_to
from tests.hub.world import DAEMON_ID, World


async def test_everything_is_there_after_a_new_start(world: World) -> None:
    tasks = {}
    for state in reversed(WIRE_STATES):
        tasks[state] = await bring_to(world, state)
        line = {"seq": 1, "type": "text", "content": state}
        await world.task(tasks[state], "messages", {"messages": [line]})
    usage = {"usage": [{"provider": "p", "model": "m", "input_tokens": 3}]}
    await world.task(tasks[WIRE_STATES[3]], "usage", usage)
    token = (await bring_and_claim(world))[1]
    before = {state: await world.hub.get(task_id) for state, task_id in tasks.items()}
    await world.reopen()
    await world.register("shell", "claude")
    for state, task_id in tasks.items():
        assert await world.hub.get(task_id) == before[state]
        assert [each.content for each in await world.hub.messages(task_id, 0, 10)] == [state]
    assert (await world.get("/api/agents", token=token)).status == 200
    assert world.hub.damage is None


async def bring_and_claim(world: World) -> tuple[str, str]:
    added = await world.hub.add_task(NewTask(prompt="x", provider="claude"))
    return added.id, (await world.claim("claude"))["auth_token"]


_VICTIM = """
import asyncio, pathlib, sys
from datetime import timedelta
from daemon_core.hub import Hub, NewTask
async def main():
    hub = await Hub.open(pathlib.Path(sys.argv[1]), daemon_id="d", retention=timedelta(0))
    while True:
        task = await hub.add_task(NewTask(prompt="x", provider="shell"))
        print(task.id, flush=True)
asyncio.run(main())
"""


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    database = tmp_path / "hub.db"
    with subprocess.Popen(
        [sys.executable, "-c", _VICTIM, str(database)], stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        told = [victim.stdout.readline().strip() for _ in range(50)]
        os.kill(victim.pid, signal.SIGKILL)
        told += [line.strip() for line in victim.stdout if len(line.strip()) == 36]

    async def look() -> None:
        hub = await Hub.open(database, daemon_id="d")
        assert hub.damage is None
        stored = {task.id for task in await hub.list(all=True)}
        assert set(told) <= stored
        await hub.close()

    asyncio.run(look())


async def test_the_file_is_for_its_owner_alone(world: World) -> None:
    await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    files = list(world.database.parent.iterdir())
    assert len(files) >= 2
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


async def fill(world: World, count: int = 60) -> list[str]:
    ids = []
    for _ in range(count):
        added = await world.hub.add_task(NewTask(prompt="p" * 3000, provider="shell"))
        await world.claim()
        lines = [{"seq": n, "type": "text", "content": "c" * 500} for n in range(1, 20)]
        await world.task(added.id, "messages", {"messages": lines})
        await world.run(added.id)
        ids.append(added.id)
    return ids


async def test_a_file_that_is_no_database_is_set_aside(world: World) -> None:
    await world.close()
    world.database.write_bytes(b"this is not a database" * 1000)
    for suffix in ("-wal", "-shm"):
        Path(f"{world.database}{suffix}").unlink(missing_ok=True)
    await world.open()
    damage = world.hub.damage
    assert damage is not None
    assert damage.set_aside.read_bytes().startswith(b"this is not")
    assert damage.set_aside.name.startswith("hub.db.damaged-2")
    assert sum(damage.saved.values()) == 0
    await world.register("shell")
    await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    assert await world.claim() is not None
    await world.reopen()
    assert world.hub.damage is None
    assert len(await world.hub.list()) == 1


async def test_what_can_be_read_of_a_damaged_file_is_kept(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = world.hub.workspace_id
    ids = await fill(world)
    await world.hub.store.write(lambda tx: None)
    await world.close()
    size = world.database.stat().st_size
    chance = random.Random(7)
    with world.database.open("r+b") as file:
        for _ in range(6):
            file.seek(4096 * chance.randrange(size // 4096 // 2, size // 4096))
            file.write(os.urandom(4096))
    await world.open()
    damage = world.hub.damage
    assert damage is not None
    assert damage.incomplete
    assert world.hub.workspace_id == workspace
    kept = await world.hub.list(all=True)
    assert {task.id for task in kept} <= set(ids)
    assert kept
    for task in kept:
        await world.hub.messages(task.id, 0, 1000)
    assert any("database was damaged" in record.message for record in caplog.records)
    check = await world.hub.store.read(lambda tx: tx.all("PRAGMA integrity_check")[0][0])
    assert check == "ok"
    broken = await world.hub.store.read(lambda tx: tx.all("PRAGMA foreign_key_check"))
    assert broken == []


async def test_a_copy_that_cannot_be_made_leaves_the_damaged_file_in_its_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(world)
    await world.close()
    with world.database.open("r+b") as file:
        file.seek(world.database.stat().st_size // 2)
        file.write(b"\xff" * 8192)
    salvaged = store._salvage

    def no_room(source: Path, fresh: sqlite3.Connection) -> tuple[dict[str, int], tuple[str, ...]]:
        fresh.execute("PRAGMA max_page_count = 1").fetchone()
        return salvaged(source, fresh)

    with monkeypatch.context() as patched:
        patched.setattr(store, "_salvage", no_room)
        with pytest.raises(StorageError) as refused:
            await world.open()
    assert "full" in str(refused.value)
    assert not list(world.database.parent.glob("*.damaged-*"))
    await world.open()  # with more room
    assert world.hub.damage is not None
    assert await world.hub.list(all=True)


async def test_damage_that_shows_while_running_is_mended_at_once(world: World) -> None:
    ids = await fill(world, 20)
    await world.hub.store.write(lambda tx: None)
    await world.hub.store.read(lambda tx: tx.all("PRAGMA wal_checkpoint(TRUNCATE)"))
    root = await world.hub.store.read(
        lambda tx: tx.all("SELECT rootpage FROM sqlite_master WHERE name = 'task_queue'")[0][0]
    )
    with world.database.open("r+b") as file:
        file.seek(4096 * (root - 1))
        file.write(b"\xff" * 4096)
    await world.hub.store.read(lambda tx: tx.all("PRAGMA shrink_memory"))
    await world.hub.add_task(NewTask(prompt="goes on", provider="shell"))
    assert world.hub.damage is not None
    assert {task.id for task in await world.hub.list(all=True)} > set(ids)
    assert (await world.claim())["chat_message"] == "goes on"


async def test_a_truncated_file_is_set_aside(world: World) -> None:
    await fill(world, 5)
    await world.close()
    with world.database.open("r+b") as file:
        file.truncate(5000)
    await world.open()
    assert world.hub.damage is not None
    assert world.hub.damage.set_aside.exists()


async def test_what_is_left_of_a_truncated_file_is_kept(world: World) -> None:
    ids = await fill(world, 5)
    await world.close()
    with world.database.open("r+b") as file:
        file.truncate(world.database.stat().st_size * 9 // 10)
    await world.open()
    assert world.hub.damage is not None
    kept = {task.id for task in await world.hub.list(all=True)}
    assert kept
    assert kept <= set(ids)


async def test_a_database_of_a_newer_version_is_gone_on_with(world: World) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.close()
    with sqlite3.connect(world.database) as db:
        db.execute("ALTER TABLE task ADD COLUMN invented_later TEXT NOT NULL DEFAULT ''")
        db.execute("CREATE TABLE invented (x)")
        db.execute("PRAGMA user_version = 99")
    db.close()
    await world.open()
    await world.register("shell")
    assert (await world.claim())["id"] == task.id
    await world.hub.add_task(NewTask(prompt="y", provider="shell"))
    await world.close()
    db = sqlite3.connect(world.database)
    assert db.execute("PRAGMA user_version").fetchone() == (99,)
    db.close()
    await world.open()


async def test_a_salvage_knows_every_table(world: World) -> None:
    rows = await world.hub.store.read(
        lambda tx: tx.all("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    )
    assert {row["name"] for row in rows} == {name for name, _order in TABLES}
    version = await world.hub.store.read(lambda tx: tx.all("PRAGMA user_version")[0][0])
    assert version == len(MIGRATIONS)


async def test_a_full_database_refuses_and_goes_on_when_there_is_room(world: World) -> None:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    await world.task(added.id, "start")

    def limit(pages: int) -> Any:
        return world.hub.store.read(lambda tx: tx.all(f"PRAGMA max_page_count = {pages}"))

    await limit(1)  # SQLite makes it as small as the file is
    lines = {"messages": [{"seq": 1, "type": "text", "content": "x" * 500_000}]}
    assert await world.task(added.id, "messages", lines) == (500, {"error": "failed to persist task message"})
    with pytest.raises(StorageError) as refused:
        await world.hub.add_task(NewTask(prompt="x" * 500_000, provider="shell"))
    assert "full" in str(refused.value)
    assert await world.hub.messages(added.id, 0, 10) == []
    await limit(1 << 20)
    assert (await world.task(added.id, "messages", lines)).status == 200
    assert world.hub.damage is None


async def test_a_database_that_cannot_be_made_is_an_error_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as refused:
        await Hub.open(tmp_path / "file" / "hub.db", daemon_id=DAEMON_ID)
    assert "hub.db" in str(refused.value)


async def test_a_rule_that_raises_leaves_nothing_behind(world: World) -> None:
    def rule(tx: Tx) -> None:
        tx.run("DELETE FROM workspace")
        raise KeyError("x")

    with pytest.raises(KeyError):
        await world.hub.store.write(rule)
    assert (await world.get("/api/workspaces")).body[0]["created_at"] is not None


async def test_a_cancelled_caller_does_not_undo_what_is_committed(world: World) -> None:
    world.changes.clear()
    call = asyncio.create_task(world.hub.add_task(NewTask(prompt="x", provider="shell")))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    stored = await world.hub.list()
    await asyncio.sleep(0)
    told = [change.task_id for change in world.changes if change.kind == "task"]
    assert told == [task.id for task in stored]


async def test_closing_twice_is_fine_and_nothing_works_afterwards(tmp_path: Path) -> None:
    hub = await Hub.open(tmp_path / "hub.db", daemon_id=DAEMON_ID)
    await hub.close()
    await hub.close()
    with pytest.raises(StorageError) as refused:
        await hub.list()
    assert refused.value.code == "storage_closed"


async def test_a_copy_of_the_files_is_a_database(world: World, tmp_path: Path) -> None:
    task = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    copy = tmp_path / "copy"
    shutil.copytree(world.database.parent, copy)
    other = Store(copy / "hub.db", world.clock, lambda tx: None)
    await other.open()
    rows = await other.read(lambda tx: tx.all("SELECT id FROM task"))
    assert [row["id"] for row in rows] == [task.id]
    await other.close()


async def test_a_file_that_was_lost_is_told_from_one_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    for begun in (True, False):
        hub = await Hub.open(path, daemon_id=DAEMON_ID)
        assert hub.begun is begun
        await hub.close()
    path.write_bytes(b"")
    path.with_name("hub.db-wal").unlink(missing_ok=True)
    hub = await Hub.open(path, daemon_id=DAEMON_ID)
    assert hub.begun
    await hub.close()
