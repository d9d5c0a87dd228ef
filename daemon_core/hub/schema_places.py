"""Several workspaces: what came with the hub's eighth version.

A row of the machine's own workspace has no ``workspace_id`` in these tables, as before; one of another
workspace has its id. So nothing had to be rewritten, and a version that knows one workspace alone goes on
with what it has made itself. The machine's own workspace is the one without a ``slug``.
"""

from __future__ import annotations

from typing import Final

OF_WORKSPACE: Final = (
    "agent",
    "issue",
    "project",
    "squad",
    "autopilot",
    "inbox_item",
    "attachment",
    "access_token",
)
"""Tables that had no workspace; ``skill`` is one of them, too, and was made anew."""

PLACES: Final = (
    "ALTER TABLE workspace ADD COLUMN slug TEXT",
    "ALTER TABLE workspace ADD COLUMN issue_prefix TEXT",
    "ALTER TABLE issue ADD COLUMN prefix TEXT",
    *(f"ALTER TABLE {table} ADD COLUMN workspace_id TEXT" for table in OF_WORKSPACE),
    "CREATE UNIQUE INDEX workspace_slug ON workspace (slug) WHERE slug IS NOT NULL",
    # A name is taken in its own workspace alone: the table without what made it unique in all of them.
    """CREATE TABLE skill_placed (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL, content TEXT NOT NULL,
        files TEXT NOT NULL DEFAULT '[]', created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
        workspace_id TEXT
    ) STRICT""",
    "INSERT INTO skill_placed (id, name, description, content, files, created_at, updated_at)"
    " SELECT id, name, description, content, files, created_at, updated_at FROM skill",
    "DROP TABLE skill",
    "ALTER TABLE skill_placed RENAME TO skill",
    "CREATE UNIQUE INDEX skill_name ON skill (coalesce(workspace_id, ''), name)",
)
"""``issue.prefix`` is its workspace's; without one it is the machine's own."""
