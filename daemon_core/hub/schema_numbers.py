"""Each workspace counts its issues by itself: what came with the hub's ninth version.

Before, one count went through all of them, and the table held every number to be the only one. It is made
anew without that. A version that counts as before can go on with it: its numbers are higher than any here.
"""

from __future__ import annotations

from typing import Final

_COLUMNS: Final = (
    "id, number, title, description, status, priority, assignee_type, assignee_id, creator_type, creator_id,"
    " parent_issue_id, project_id, stage, start_date, due_date, origin_type, origin_id, metadata, created_at,"
    " updated_at, prefix, workspace_id"
)

NUMBERS: Final = (
    """CREATE TABLE issue_counted (
        id TEXT PRIMARY KEY, number INTEGER NOT NULL, title TEXT NOT NULL, description TEXT,
        status TEXT NOT NULL, priority TEXT NOT NULL, assignee_type TEXT, assignee_id TEXT,
        creator_type TEXT NOT NULL, creator_id TEXT NOT NULL, parent_issue_id TEXT, project_id TEXT,
        stage INTEGER, start_date TEXT, due_date TEXT, origin_type TEXT, origin_id TEXT,
        metadata TEXT NOT NULL DEFAULT '{}', created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
        prefix TEXT, workspace_id TEXT
    ) STRICT""",
    f"INSERT INTO issue_counted ({_COLUMNS}) SELECT {_COLUMNS} FROM issue ORDER BY rowid",
    "DROP TABLE issue",
    "ALTER TABLE issue_counted RENAME TO issue",
    "CREATE UNIQUE INDEX issue_number ON issue (coalesce(workspace_id, ''), number)",
    "CREATE INDEX issue_parent ON issue (parent_issue_id) WHERE parent_issue_id IS NOT NULL",
    "CREATE INDEX issue_origin ON issue (origin_id) WHERE origin_id IS NOT NULL",
)
"""Comments refer to the table: whoever applies this must not have foreign keys heeded meanwhile, or they
would go with the table that is dropped."""
