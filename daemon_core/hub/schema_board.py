"""The tables of what a workspace is about: issues, comments, files, projects, squads, autopilots, skills.

They came with the hub's fourth version. A task of an issue has a conversation as its home, one for each agent
on each issue, so that turns, sessions and serialisation are the same for every kind of task.
"""

from __future__ import annotations

from typing import Final

BOARD: Final = (
    "ALTER TABLE workspace ADD COLUMN description TEXT",
    "ALTER TABLE workspace ADD COLUMN context TEXT",
    "ALTER TABLE workspace ADD COLUMN settings TEXT",
    "ALTER TABLE workspace ADD COLUMN repos TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE workspace ADD COLUMN issue_count INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE workspace ADD COLUMN updated_at INTEGER",
    "ALTER TABLE agent ADD COLUMN description TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE agent ADD COLUMN runtime_id TEXT",
    "ALTER TABLE conversation ADD COLUMN kind TEXT NOT NULL DEFAULT 'chat'",
    "ALTER TABLE conversation ADD COLUMN issue_id TEXT",
    "ALTER TABLE conversation ADD COLUMN archived_at INTEGER",
    "CREATE INDEX conversation_issue ON conversation (issue_id) WHERE issue_id IS NOT NULL",
    "ALTER TABLE task ADD COLUMN kind TEXT NOT NULL DEFAULT 'chat'",
    "ALTER TABLE task ADD COLUMN issue_id TEXT",
    "ALTER TABLE task ADD COLUMN trigger_comment_id TEXT",
    "ALTER TABLE task ADD COLUMN handoff_note TEXT",
    "ALTER TABLE task ADD COLUMN squad_id TEXT",
    "ALTER TABLE task ADD COLUMN squad_outcome TEXT",
    "ALTER TABLE task ADD COLUMN autopilot_run_id TEXT",
    "ALTER TABLE task ADD COLUMN initiator_type TEXT",
    "ALTER TABLE task ADD COLUMN initiator_id TEXT",
    "ALTER TABLE task ADD COLUMN request TEXT",
    "ALTER TABLE task ADD COLUMN pr_url TEXT",
    "ALTER TABLE task ADD COLUMN cancel_ack TEXT",
    "CREATE INDEX task_issue ON task (issue_id) WHERE issue_id IS NOT NULL",
    """CREATE TABLE issue (
        id TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, title TEXT NOT NULL, description TEXT,
        status TEXT NOT NULL, priority TEXT NOT NULL, assignee_type TEXT, assignee_id TEXT,
        creator_type TEXT NOT NULL, creator_id TEXT NOT NULL, parent_issue_id TEXT, project_id TEXT,
        stage INTEGER, start_date TEXT, due_date TEXT, origin_type TEXT, origin_id TEXT,
        metadata TEXT NOT NULL DEFAULT '{}', created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX issue_parent ON issue (parent_issue_id) WHERE parent_issue_id IS NOT NULL",
    "CREATE INDEX issue_origin ON issue (origin_id) WHERE origin_id IS NOT NULL",
    """CREATE TABLE comment (
        no INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
        issue_id TEXT NOT NULL REFERENCES issue (id) ON DELETE CASCADE,
        parent_id TEXT, root_id TEXT NOT NULL, author_type TEXT NOT NULL, author_id TEXT NOT NULL,
        content TEXT NOT NULL, type TEXT NOT NULL, task_id TEXT, resolved_at INTEGER,
        resolved_by_type TEXT, resolved_by_id TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX comment_issue ON comment (issue_id, no)",
    "CREATE INDEX comment_root ON comment (root_id, no)",
    """CREATE TABLE attachment (
        id TEXT PRIMARY KEY, filename TEXT NOT NULL, content_type TEXT NOT NULL, size_bytes INTEGER NOT NULL,
        content BLOB NOT NULL, issue_id TEXT, comment_id TEXT, conversation_id TEXT, task_id TEXT,
        uploader_type TEXT NOT NULL, uploader_id TEXT NOT NULL, created_at INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX attachment_issue ON attachment (issue_id) WHERE issue_id IS NOT NULL",
    "CREATE INDEX attachment_comment ON attachment (comment_id) WHERE comment_id IS NOT NULL",
    "CREATE INDEX attachment_task ON attachment (task_id) WHERE task_id IS NOT NULL",
    """CREATE TABLE project (
        id TEXT PRIMARY KEY, title TEXT NOT NULL, description TEXT, status TEXT NOT NULL,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE project_resource (
        id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE,
        resource_type TEXT NOT NULL, resource_ref TEXT NOT NULL, label TEXT, created_at INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX project_resource_of ON project_resource (project_id)",
    """CREATE TABLE squad (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL DEFAULT '',
        instructions TEXT NOT NULL DEFAULT '', leader_id TEXT NOT NULL,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE squad_member (
        squad_id TEXT NOT NULL REFERENCES squad (id) ON DELETE CASCADE, member_type TEXT NOT NULL,
        member_id TEXT NOT NULL, role TEXT NOT NULL DEFAULT '', PRIMARY KEY (squad_id, member_type, member_id)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE autopilot (
        id TEXT PRIMARY KEY, title TEXT NOT NULL, description TEXT, agent_id TEXT NOT NULL,
        execution_mode TEXT NOT NULL, status TEXT NOT NULL,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE autopilot_run (
        id TEXT PRIMARY KEY, autopilot_id TEXT NOT NULL REFERENCES autopilot (id) ON DELETE CASCADE,
        source TEXT NOT NULL, status TEXT NOT NULL, payload TEXT, issue_id TEXT, task_id TEXT,
        failure_reason TEXT, created_at INTEGER NOT NULL, completed_at INTEGER
    ) STRICT""",
    "CREATE INDEX autopilot_run_of ON autopilot_run (autopilot_id)",
    """CREATE TABLE skill (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT NOT NULL, content TEXT NOT NULL,
        files TEXT NOT NULL DEFAULT '[]', created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE inbox_item (
        id TEXT PRIMARY KEY, type TEXT NOT NULL, title TEXT NOT NULL, body TEXT, issue_id TEXT, task_id TEXT,
        read INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE access_token (
        id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, name TEXT NOT NULL, prefix TEXT NOT NULL,
        daemon_id TEXT, expires_at INTEGER, last_used_at INTEGER, created_at INTEGER NOT NULL
    ) STRICT""",
)
"""What the fourth version adds. ``access_token.daemon_id`` is set for a token that is one daemon's alone."""

BOARD_TABLES: Final = (
    ("issue", "rowid"),
    ("comment", "rowid"),
    ("attachment", "rowid"),
    ("project", "rowid"),
    ("project_resource", "rowid"),
    ("squad", "rowid"),
    ("squad_member", "squad_id"),
    ("autopilot", "rowid"),
    ("autopilot_run", "rowid"),
    ("skill", "rowid"),
    ("inbox_item", "rowid"),
    ("access_token", "rowid"),
)

BOARD_ORPHANS: Final = (
    "DELETE FROM comment WHERE issue_id NOT IN (SELECT id FROM issue)",
    "DELETE FROM project_resource WHERE project_id NOT IN (SELECT id FROM project)",
    "DELETE FROM squad_member WHERE squad_id NOT IN (SELECT id FROM squad)",
    "DELETE FROM autopilot_run WHERE autopilot_id NOT IN (SELECT id FROM autopilot)",
)
