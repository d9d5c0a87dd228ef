"""Schema and migrations. A migration only ever adds, so that the version before can go on with the result."""

from __future__ import annotations

import sqlite3

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE tasks(
        key TEXT PRIMARY KEY,
        connection TEXT NOT NULL,
        task_id TEXT NOT NULL,
        runtime_id TEXT NOT NULL,
        workspace_id TEXT NOT NULL,
        provider TEXT NOT NULL,
        kind TEXT NOT NULL DEFAULT '',
        conversation_id TEXT NOT NULL DEFAULT '',
        title TEXT NOT NULL DEFAULT '',
        agent_id TEXT NOT NULL DEFAULT '',
        agent_name TEXT NOT NULL DEFAULT '',
        model TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL,
        slot INTEGER NOT NULL DEFAULT 0,
        run_id TEXT NOT NULL DEFAULT '',
        directory TEXT NOT NULL DEFAULT '',
        work_dir TEXT NOT NULL DEFAULT '',
        next_seq INTEGER NOT NULL DEFAULT 1,
        claimed_at TEXT NOT NULL DEFAULT '',
        started_at TEXT NOT NULL DEFAULT '',
        ended_at TEXT NOT NULL DEFAULT '',
        outcome TEXT NOT NULL DEFAULT '',
        failure_reason TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT '',
        output TEXT NOT NULL DEFAULT '',
        session_id TEXT NOT NULL DEFAULT '',
        usage BLOB NOT NULL DEFAULT '[]',
        delivery TEXT NOT NULL DEFAULT 'pending',
        waiting_for TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX tasks_open ON tasks(claimed_at) WHERE state <> 'ended' OR delivery = 'pending';
    CREATE INDEX tasks_by_id ON tasks(task_id);
    CREATE INDEX tasks_ended ON tasks(ended_at);
    CREATE TABLE runs(
        run_id TEXT PRIMARY KEY,
        task_key TEXT NOT NULL REFERENCES tasks(key) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        state TEXT NOT NULL,
        family TEXT NOT NULL DEFAULT '',
        mark TEXT NOT NULL DEFAULT '',
        stdout_offset INTEGER NOT NULL DEFAULT 0,
        reader BLOB NOT NULL DEFAULT '',
        pid INTEGER,
        resumed_session TEXT NOT NULL DEFAULT '',
        started_at TEXT NOT NULL DEFAULT '',
        ended_at TEXT NOT NULL DEFAULT '',
        exit_code INTEGER,
        signal INTEGER,
        note TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX runs_by_task ON runs(task_key, number);
    CREATE TABLE transcript(
        task_key TEXT NOT NULL REFERENCES tasks(key) ON DELETE CASCADE,
        first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        at TEXT NOT NULL,
        body BLOB NOT NULL,
        UNIQUE(task_key, first_seq)
    );
    CREATE TABLE outbox(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        task_key TEXT NOT NULL REFERENCES tasks(key) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        first_seq INTEGER NOT NULL DEFAULT 0,
        last_seq INTEGER NOT NULL DEFAULT 0,
        body BLOB
    );
    CREATE INDEX outbox_by_task ON outbox(task_key, id);
    CREATE UNIQUE INDEX outbox_one_terminal ON outbox(task_key) WHERE kind IN ('complete', 'fail');
    """,
    """
    ALTER TABLE tasks ADD COLUMN requests TEXT NOT NULL DEFAULT '';
    ALTER TABLE tasks ADD COLUMN extended_until TEXT NOT NULL DEFAULT '';
    ALTER TABLE tasks ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]';
    """,
    """
    CREATE TABLE notices(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        dedup TEXT NOT NULL UNIQUE,
        conversation TEXT NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        body TEXT NOT NULL,
        wake INTEGER NOT NULL DEFAULT 1,
        created_at TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'pending',
        given_to TEXT NOT NULL DEFAULT '',
        given_turn INTEGER NOT NULL DEFAULT 0,
        given_at TEXT NOT NULL DEFAULT '',
        settled_at TEXT NOT NULL DEFAULT '',
        times INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX notices_open ON notices(conversation, id) WHERE state IN ('pending', 'given');
    CREATE INDEX notices_given ON notices(given_to) WHERE state = 'given';
    CREATE INDEX notices_settled ON notices(settled_at) WHERE settled_at <> '';
    CREATE INDEX IF NOT EXISTS tasks_of_conversation ON tasks(conversation_id);
    CREATE TABLE wakes(
        conversation TEXT PRIMARY KEY,
        count INTEGER NOT NULL DEFAULT 0,
        at TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE jobs(
        id TEXT PRIMARY KEY,
        conversation TEXT NOT NULL DEFAULT '',
        task_key TEXT NOT NULL DEFAULT '',
        run_id TEXT NOT NULL DEFAULT '',
        name TEXT NOT NULL DEFAULT '',
        command TEXT NOT NULL,
        cwd TEXT NOT NULL,
        terminal INTEGER NOT NULL DEFAULT 1,
        time_limit_s REAL NOT NULL DEFAULT 0,
        wake INTEGER NOT NULL DEFAULT 1,
        state TEXT NOT NULL,
        status TEXT NOT NULL DEFAULT 'running',
        exit_code INTEGER,
        signal INTEGER,
        error TEXT NOT NULL DEFAULT '',
        created_at TEXT NOT NULL,
        started_at TEXT NOT NULL DEFAULT '',
        ended_at TEXT NOT NULL DEFAULT '',
        pid INTEGER,
        stalled_at TEXT NOT NULL DEFAULT '',
        stalls INTEGER NOT NULL DEFAULT 0,
        followed_up_at TEXT NOT NULL DEFAULT '',
        mark TEXT NOT NULL DEFAULT '',
        removed INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX jobs_open ON jobs(created_at) WHERE state <> 'ended';
    CREATE INDEX jobs_of_conversation ON jobs(conversation, created_at);
    """,
    """
    CREATE TABLE delegations(
        conversation_id TEXT PRIMARY KEY,
        task_id TEXT NOT NULL,
        parent_key TEXT NOT NULL,
        parent_conversation TEXT NOT NULL,
        depth INTEGER NOT NULL DEFAULT 1,
        waiting_key TEXT NOT NULL DEFAULT '',
        told TEXT NOT NULL DEFAULT '',
        plan TEXT NOT NULL DEFAULT '[]',
        turns INTEGER NOT NULL DEFAULT 0,
        created_at TEXT NOT NULL DEFAULT '',
        ended_at TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE spend(
        task_key TEXT NOT NULL,
        day TEXT NOT NULL,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        connection TEXT NOT NULL DEFAULT '',
        agent TEXT NOT NULL DEFAULT '',
        input_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0,
        cache_read_tokens INTEGER NOT NULL DEFAULT 0,
        cache_write_tokens INTEGER NOT NULL DEFAULT 0,
        cost REAL NOT NULL DEFAULT 0,
        how TEXT NOT NULL DEFAULT 'unknown',
        PRIMARY KEY(task_key, day, provider, model)
    ) WITHOUT ROWID;
    CREATE INDEX spend_by_day ON spend(day);
    """,
    """
    ALTER TABLE runs ADD COLUMN progress_at TEXT NOT NULL DEFAULT '';
    ALTER TABLE tasks ADD COLUMN remarks TEXT NOT NULL DEFAULT '[]';
    """,
)

TABLES: tuple[str, ...] = (
    "meta",
    "tasks",
    "runs",
    "transcript",
    "outbox",
    "notices",
    "wakes",
    "jobs",
    "delegations",
    "spend",
)
"""In an order in which rows can be copied with foreign keys on."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date; a newer one is left as it is (it has only added)."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        # executescript commits what was open; one transaction around the script and its version.
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
