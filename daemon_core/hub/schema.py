"""The tables of the hub's database. A migration only adds: the version before can go on with what is there.

Times are microseconds since 1970 (:mod:`daemon_core.hub.clock`). ``task.no`` is the short key that transcript
lines are stored under; ``task.turn_id`` is the id of the turn's first attempt, and ``queue_no`` its place in
the queue, which a later attempt inherits so that no later turn overtakes it.
"""

from __future__ import annotations

from typing import Final

from daemon_core.hub.schema_board import BOARD, BOARD_ORPHANS, BOARD_TABLES
from daemon_core.hub.schema_numbers import NUMBERS
from daemon_core.hub.schema_places import PLACES

_FIRST: Final = (
    "CREATE TABLE workspace (id TEXT PRIMARY KEY, name TEXT NOT NULL, created_at INTEGER NOT NULL) STRICT",
    """CREATE TABLE runtime_profile (
        id TEXT PRIMARY KEY, workspace_id TEXT NOT NULL, display_name TEXT NOT NULL,
        protocol_family TEXT NOT NULL, command_name TEXT NOT NULL, description TEXT,
        fixed_args TEXT NOT NULL DEFAULT '[]', enabled INTEGER NOT NULL DEFAULT 1,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE runtime (
        id TEXT PRIMARY KEY, workspace_id TEXT NOT NULL, daemon_id TEXT NOT NULL, provider TEXT NOT NULL,
        profile_id TEXT, name TEXT NOT NULL, version TEXT NOT NULL DEFAULT '',
        cli_version TEXT NOT NULL DEFAULT '', launched_by TEXT NOT NULL DEFAULT '',
        device_name TEXT NOT NULL DEFAULT '', status TEXT NOT NULL, offline_at INTEGER,
        legacy_ids TEXT NOT NULL DEFAULT '[]', failure TEXT, created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL
    ) STRICT""",
    "CREATE UNIQUE INDEX runtime_plain ON runtime (workspace_id, daemon_id, provider)"
    " WHERE profile_id IS NULL",
    "CREATE UNIQUE INDEX runtime_of_profile ON runtime (workspace_id, daemon_id, profile_id)"
    " WHERE profile_id IS NOT NULL",
    """CREATE TABLE agent (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, name_key TEXT NOT NULL UNIQUE, provider TEXT NOT NULL,
        instructions TEXT NOT NULL DEFAULT '', model TEXT, thinking_level TEXT,
        custom_env TEXT NOT NULL DEFAULT '{}', custom_args TEXT NOT NULL DEFAULT '[]', mcp_config TEXT,
        max_concurrent_tasks INTEGER NOT NULL DEFAULT 0, is_default INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
    ) STRICT""",
    "CREATE UNIQUE INDEX agent_default ON agent (provider) WHERE is_default",
    """CREATE TABLE conversation (
        id TEXT PRIMARY KEY, workspace_id TEXT NOT NULL, title TEXT NOT NULL, provider TEXT NOT NULL,
        agent_id TEXT NOT NULL, agent_name TEXT NOT NULL, directory TEXT, model TEXT, thinking_level TEXT,
        priority INTEGER NOT NULL DEFAULT 0, max_attempts INTEGER NOT NULL DEFAULT 2,
        session_id TEXT, work_dir TEXT, session_runtime_id TEXT,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX conversation_age ON conversation (updated_at)",
    """CREATE TABLE task (
        no INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
        conversation_id TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
        turn_id TEXT NOT NULL, parent_task_id TEXT, agent_id TEXT NOT NULL, agent_name TEXT NOT NULL,
        provider TEXT NOT NULL, runtime_id TEXT, status TEXT NOT NULL, priority INTEGER NOT NULL DEFAULT 0,
        queue_no INTEGER NOT NULL, model TEXT, thinking_level TEXT, fresh INTEGER NOT NULL DEFAULT 0,
        attempt INTEGER NOT NULL DEFAULT 1, max_attempts INTEGER NOT NULL DEFAULT 2,
        created_at INTEGER NOT NULL, dispatched_at INTEGER, started_at INTEGER, ended_at INTEGER,
        lease_until INTEGER, session_id TEXT, work_dir TEXT, output TEXT, branch_name TEXT, error TEXT,
        failure_reason TEXT, wait_detail TEXT, progress TEXT
    ) STRICT""",
    "CREATE INDEX task_conversation ON task (conversation_id, no)",
    "CREATE INDEX task_parent ON task (parent_task_id) WHERE parent_task_id IS NOT NULL",
    "CREATE INDEX task_queue ON task (runtime_id, priority DESC, queue_no) WHERE status = 'queued'",
    "CREATE INDEX task_active ON task (conversation_id)"
    " WHERE status IN ('dispatched', 'waiting_local_directory', 'running')",
    "CREATE INDEX task_of_runtime ON task (runtime_id)"
    " WHERE status IN ('dispatched', 'waiting_local_directory', 'running')",
    "CREATE INDEX task_of_agent ON task (agent_id)"
    " WHERE status IN ('queued', 'dispatched', 'waiting_local_directory', 'running')",
    """CREATE TABLE chat_message (
        no INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation_id TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
        turn_id TEXT NOT NULL, task_id TEXT NOT NULL, role TEXT NOT NULL, content TEXT NOT NULL,
        is_error INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX chat_message_turn ON chat_message (turn_id, no)",
    "CREATE INDEX chat_message_conversation ON chat_message (conversation_id, no)",
    # No reference to the task: it would be checked for every line. A line is only written in the transaction
    # that has seen its task, and removed by the one that removes it.
    """CREATE TABLE message (
        task_no INTEGER NOT NULL, seq INTEGER NOT NULL, type TEXT NOT NULL, tool TEXT, content TEXT,
        input TEXT, output TEXT, created_at INTEGER NOT NULL, PRIMARY KEY (task_no, seq)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE usage (
        task_no INTEGER NOT NULL REFERENCES task (no) ON DELETE CASCADE,
        provider TEXT NOT NULL, model TEXT NOT NULL, input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL, cache_read_tokens INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL, PRIMARY KEY (task_no, provider, model)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE token (
        hash BLOB PRIMARY KEY, task_no INTEGER NOT NULL REFERENCES task (no) ON DELETE CASCADE,
        expires_at INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX token_task ON token (task_no)",
    "CREATE INDEX token_due ON token (expires_at)",
)

_REPOSITORIES: Final = (
    "ALTER TABLE conversation ADD COLUMN repo_url TEXT",
    "ALTER TABLE conversation ADD COLUMN repo_ref TEXT",
)

_SKILLS: Final = ("ALTER TABLE agent ADD COLUMN skills TEXT NOT NULL DEFAULT '[]'",)

_PARKING: Final = (
    "ALTER TABLE task ADD COLUMN parked_until INTEGER",
    "ALTER TABLE task ADD COLUMN goes_on INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE task ADD COLUMN gone_on INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX task_parked ON task (parked_until) WHERE status = 'parked'",
    "ALTER TABLE conversation ADD COLUMN permissions TEXT",
    "ALTER TABLE agent ADD COLUMN permissions TEXT",
    "ALTER TABLE agent ADD COLUMN resume_after_limit INTEGER",
)

_WAKING: Final = ("ALTER TABLE task ADD COLUMN woken INTEGER NOT NULL DEFAULT 0",)

_DELEGATION: Final = (
    "ALTER TABLE conversation ADD COLUMN parent_key TEXT",
    "ALTER TABLE conversation ADD COLUMN parent_conversation TEXT",
    "ALTER TABLE conversation ADD COLUMN parent_home TEXT",
    "ALTER TABLE conversation ADD COLUMN delegation_depth INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE conversation ADD COLUMN delegation_request TEXT",
    "CREATE INDEX conversation_parent ON conversation (parent_conversation)"
    " WHERE parent_conversation IS NOT NULL",
    "CREATE INDEX conversation_home ON conversation (parent_home) WHERE parent_home IS NOT NULL",
    "CREATE INDEX conversation_parent_key ON conversation (parent_key) WHERE parent_key IS NOT NULL",
    "CREATE UNIQUE INDEX conversation_request ON conversation (delegation_request)"
    " WHERE delegation_request IS NOT NULL",
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    _FIRST,
    _REPOSITORIES,
    _SKILLS,
    BOARD,
    _PARKING,
    _WAKING,
    _DELEGATION,
    PLACES,
    NUMBERS,
)
"""One entry a version: ``user_version`` counts how many have been applied."""

TABLES: Final[tuple[tuple[str, str], ...]] = (
    ("workspace", "rowid"),
    ("runtime_profile", "rowid"),
    ("runtime", "rowid"),
    ("agent", "rowid"),
    ("conversation", "rowid"),
    ("task", "rowid"),
    ("chat_message", "rowid"),
    ("usage", "task_no"),
    ("token", "rowid"),
    ("message", "task_no"),
    *BOARD_TABLES,
)
"""Every table, those referred to first, with a column that orders it: what a salvage copies."""

ORPHANS: Final[tuple[str, ...]] = (
    "DELETE FROM task WHERE conversation_id NOT IN (SELECT id FROM conversation)",
    "DELETE FROM chat_message WHERE conversation_id NOT IN (SELECT id FROM conversation)",
    "DELETE FROM usage WHERE task_no NOT IN (SELECT no FROM task)",
    "DELETE FROM token WHERE task_no NOT IN (SELECT no FROM task)",
    "DELETE FROM message WHERE task_no NOT IN (SELECT no FROM task)",
    *BOARD_ORPHANS,
)
"""What a salvage removes of rows whose parent was lost."""
