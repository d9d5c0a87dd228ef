"""A database of before the board is taken over; one that was damaged is saved with the board."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from daemon_core.hub import NewTask
from daemon_core.hub.schema import MIGRATIONS
from tests.hub.world import DAEMON_ID, World


async def test_a_database_of_before_goes_on(tmp_path: Path) -> None:
    database = tmp_path / "hub.db"
    db = sqlite3.connect(database, isolation_level=None)
    for statements in MIGRATIONS[:3]:
        for statement in statements:
            db.execute(statement)
    db.execute("PRAGMA user_version = 3")
    workspace, chat, task, runtime = (
        f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3, 4)
    )
    db.execute("INSERT INTO workspace (id, name, created_at) VALUES (?, 'Local', 1)", (workspace,))
    db.execute(
        "INSERT INTO runtime (id, workspace_id, daemon_id, provider, name, status, created_at, updated_at)"
        " VALUES (?, ?, ?, 'shell', 'Shell', 'online', 1, 1)",
        (runtime, workspace, DAEMON_ID),
    )
    db.execute(
        "INSERT INTO agent (id, name, name_key, provider, is_default, created_at, updated_at)"
        " VALUES ('a', 'shell', 'shell', 'shell', 1, 1, 1)"
    )
    db.execute(
        "INSERT INTO conversation (id, workspace_id, title, provider, agent_id, agent_name, session_id,"
        " session_runtime_id, work_dir, created_at, updated_at)"
        " VALUES (?, ?, 'Old', 'shell', 'a', 'shell', 's', ?, '/w', 1, 1)",
        (chat, workspace, runtime),
    )
    db.execute(
        "INSERT INTO task (id, conversation_id, turn_id, agent_id, agent_name, provider, runtime_id, status,"
        " queue_no, created_at) VALUES (?, ?, ?, 'a', 'shell', 'shell', ?, 'queued', 1, 1)",
        (task, chat, task, runtime),
    )
    db.execute(
        "INSERT INTO chat_message (conversation_id, turn_id, task_id, role, content, created_at)"
        " VALUES (?, ?, ?, 'user', 'Hello', 1)",
        (chat, task, task),
    )
    db.close()
    world = World(database)
    await world.open()
    assert world.hub.workspace_id == workspace
    shown = await world.hub.get(task)
    assert shown is not None
    assert (shown.kind, shown.prompt, shown.issue_id) == ("chat", "Hello", None)
    await world.register("shell")
    claimed = await world.claim()
    assert (claimed["id"], claimed["kind"], claimed["chat_message"]) == (task, "chat", "Hello")
    assert (claimed["prior_session_id"], claimed["prior_work_dir"]) == ("s", "/w")
    await world.run(task)
    assert (await world.post("/api/issues", {"title": "New"})).body["identifier"] == "LOC-1"
    await world.close()


async def test_comments_stay_when_issues_come_to_be_counted_by_workspace(tmp_path: Path) -> None:
    """The table of issues is made anew, and comments hang on it."""
    database = tmp_path / "hub.db"
    db = sqlite3.connect(database, isolation_level=None)
    for statements in MIGRATIONS[:8]:
        for statement in statements:
            db.execute(statement)
    db.execute("PRAGMA user_version = 8")
    own, other, issue, comment = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3, 4))
    db.execute("INSERT INTO workspace (id, name, issue_count, created_at) VALUES (?, 'Local', 7, 1)", (own,))
    db.execute(
        "INSERT INTO workspace (id, name, slug, issue_prefix, issue_count, created_at)"
        " VALUES (?, 'Side', 'side', 'SID', 7, 1)",
        (other,),
    )
    for id_, number, place in ((issue, 5, None), (comment[:-1] + "9", 7, other)):
        db.execute(
            "INSERT INTO issue (id, number, title, status, priority, creator_type, creator_id, created_at,"
            " updated_at, workspace_id) VALUES (?, ?, 'Old', 'todo', 'none', 'member', 'm', 1, 1, ?)",
            (id_, number, place),
        )
    db.execute(
        "INSERT INTO comment (id, issue_id, root_id, author_type, author_id, content, type, created_at,"
        " updated_at) VALUES (?, ?, ?, 'member', 'm', 'Kept.', 'comment', 1, 1)",
        (comment, issue, comment),
    )
    db.close()
    world = World(database)
    await world.open()
    (said,) = (await world.get(f"/api/issues/{issue}/comments")).body
    assert said["content"] == "Kept."
    assert (await world.get("/api/issues/LOC-5")).body["id"] == issue
    assert (await world.post("/api/issues", {"title": "New"})).body["identifier"] == "LOC-8"
    assert (await world.call("DELETE", f"/api/issues/{issue}")).status < 300
    assert (await world.get(f"/api/issues/{issue}/comments")).status == 404
    await world.close()
    with sqlite3.connect(database) as found:
        # Comments go with their issue again.
        assert found.execute("SELECT count(*) FROM comment").fetchone() == (0,)
    found.close()


async def test_the_board_is_saved_from_a_damaged_file(tmp_path: Path) -> None:
    world = World(tmp_path / "hub.db")
    await world.open()
    await world.register("shell")
    issue = (await world.post("/api/issues", {"title": "Mend the door"})).body
    await world.post(f"/api/issues/{issue['id']}/comments", {"content": "It squeaks."})
    await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.close()
    with sqlite3.connect(world.database) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        (size,) = db.execute("PRAGMA page_size").fetchone()
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'inbox_item'").fetchone()
    db.close()
    assert pages > root
    with world.database.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    again = World(tmp_path / "hub.db")
    await again.open()
    assert again.hub.damage is not None
    assert "inbox_item" in again.hub.damage.incomplete
    found = (await again.get(f"/api/issues/{issue['id']}")).body
    assert found["title"] == "Mend the door"
    (said,) = (await again.get(f"/api/issues/{issue['id']}/comments")).body
    assert said["content"] == "It squeaks."
    assert (await again.post("/api/issues", {"title": "Another"})).body["identifier"] == "LOC-2"
    await again.close()
