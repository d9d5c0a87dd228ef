"""Comments of issues: written, read in threads, settled. What a comment sets off is not known here.

A thread is a comment without a parent (its root) and everything below it, however deep.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from daemon_core.hub import attachments
from daemon_core.hub.clock import SECOND, rfc3339, rfc3339_or_none
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.store import Tx

LIST_LIMIT: Final = 2000
SUMMARY_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """Which comments of an issue, and how much of them."""

    since: int | None = None
    thread: str | None = None
    tail: int = 0
    """Of a thread: its root and this many of its last replies."""
    recent: int = 0
    """This many threads, those with the newest comments."""
    before: int | None = None
    before_id: str | None = None
    roots_only: bool = False
    summary: bool = False
    fold: bool = False
    """Of a settled thread only the root, shortened."""


@dataclass(frozen=True, slots=True)
class Page:
    """Comments in the order they were written, and where those before them begin."""

    comments: list[dict[str, object]]
    next_before: str | None = None
    next_before_id: str | None = None


def parse_time(given: str, name: str) -> int:
    """A time of a query as it is stored."""
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise RefusedError(400, f"invalid {name} parameter; expected RFC3339 format")
    return int(moment.timestamp() * SECOND)


def require(tx: Tx, comment_id: str) -> sqlite3.Row:
    """The row of a comment of the transaction's workspace."""
    row = tx.one(
        "SELECT comment.* FROM comment JOIN issue ON issue.id = comment.issue_id"
        " WHERE comment.id = ? AND issue.workspace_id IS ?",
        (comment_id, tx.place),
    )
    if row is None:
        raise RefusedError(404, "comment not found")
    return row


def insert(
    tx: Tx,
    issue_id: str,
    author: tuple[str, str],
    content: str,
    *,
    parent: sqlite3.Row | None = None,
    kind: str = "comment",
    task_id: str | None = None,
) -> sqlite3.Row:
    """Write a comment. A reply opens a settled thread again."""
    comment_id = str(uuid.uuid4())
    root_id = comment_id if parent is None else parent["root_id"]
    tx.run(
        "INSERT INTO comment (id, issue_id, parent_id, root_id, author_type, author_id, content, type,"
        " task_id, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            comment_id,
            issue_id,
            None if parent is None else parent["id"],
            root_id,
            *author,
            content,
            kind,
            task_id,
            tx.now,
            tx.now,
        ),
    )
    if parent is not None:
        _settle(tx, root_id, None)
    tx.run("UPDATE issue SET updated_at = ? WHERE id = ?", (tx.now, issue_id))
    return _row(tx, comment_id)


def _row(tx: Tx, comment_id: str) -> sqlite3.Row:
    row = tx.one("SELECT * FROM comment WHERE id = ?", (comment_id,))
    assert row is not None, "a comment that is there"
    return row


def edit(tx: Tx, comment_id: str, content: str) -> sqlite3.Row:
    """Change what it says."""
    tx.run("UPDATE comment SET content = ?, updated_at = ? WHERE id = ?", (content, tx.now, comment_id))
    return require(tx, comment_id)


def delete(tx: Tx, comment_id: str) -> list[str]:
    """Take it away with everything below it; gives all their ids."""
    gone = [require(tx, comment_id)["id"]]
    for each in gone:  # grows while it is walked
        gone += [row["id"] for row in tx.all("SELECT id FROM comment WHERE parent_id = ?", (each,))]
    for each in gone:
        tx.run("DELETE FROM attachment WHERE comment_id = ?", (each,))
        tx.run("DELETE FROM comment WHERE id = ?", (each,))
    return gone


def resolve(tx: Tx, comment_id: str, by: tuple[str, str] | None) -> sqlite3.Row:
    """Settle the thread of a comment (``by``: who), or open it again."""
    _settle(tx, require(tx, comment_id)["root_id"], by)
    return require(tx, comment_id)


def _settle(tx: Tx, root_id: str, by: tuple[str, str] | None) -> None:
    tx.run(
        "UPDATE comment SET resolved_at = ?, resolved_by_type = ?, resolved_by_id = ? WHERE id = ?",
        (None if by is None else tx.now, *(by or (None, None)), root_id),
    )


def written_since(tx: Tx, issue_id: str, agent_id: str, since: int) -> bool:
    """Whether an agent has written to an issue since then."""
    row = tx.one(
        "SELECT 1 FROM comment WHERE issue_id = ? AND author_type = 'agent' AND author_id = ?"
        " AND created_at >= ? LIMIT 1",
        (issue_id, agent_id, since),
    )
    return row is not None


# --- reading ----------------------------------------------------------------------------------------------


def view(tx: Tx, row: sqlite3.Row, names: dict[tuple[str, str], str]) -> dict[str, object]:
    """A comment as it is shown; ``names`` of authors, by kind and id."""
    return {
        "id": row["id"],
        "issue_id": row["issue_id"],
        "author_type": row["author_type"],
        "author_id": row["author_id"],
        "author_name": names.get((row["author_type"], row["author_id"]), ""),
        "content": row["content"],
        "type": row["type"],
        "parent_id": row["parent_id"],
        "thread_id": row["root_id"],
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
        "resolved_at": rfc3339_or_none(row["resolved_at"]),
        "resolved_by_type": row["resolved_by_type"],
        "resolved_by_id": row["resolved_by_id"],
        "reactions": [],
        "attachments": attachments.of(tx, "comment_id", row["id"]),
    }


def listing(tx: Tx, issue_id: str, choice: Choice, names: dict[tuple[str, str], str]) -> Page:
    """Comments of an issue, oldest first."""
    if choice.thread is not None:
        rows, cursor = _thread(tx, issue_id, choice)
    elif choice.recent or choice.before is not None:
        rows, cursor = _recent(tx, issue_id, choice)
    else:
        # Where there are too many, the newest: the others can be had by threads.
        rows = tx.all(
            "SELECT * FROM comment WHERE issue_id = ? AND created_at > ?"
            f"{' AND parent_id IS NULL' if choice.roots_only else ''} ORDER BY no DESC LIMIT ?",
            (issue_id, -1 if choice.since is None else choice.since, LIST_LIMIT),
        )[::-1]
        cursor = None
    if choice.since is not None:
        rows = [row for row in rows if row["created_at"] > choice.since]
    shown = _shown(tx, rows, choice, names)
    if cursor is None:
        return Page(shown)
    return Page(shown, rfc3339(cursor[0]), cursor[1])


def _thread(tx: Tx, issue_id: str, choice: Choice) -> tuple[list[sqlite3.Row], tuple[int, str] | None]:
    """A thread by any of its comments: its root, then its replies, the last of them where ``tail`` says."""
    any_of_it = require(tx, choice.thread or "")
    if any_of_it["issue_id"] != issue_id:
        raise RefusedError(404, "comment not found")
    rows = tx.all("SELECT * FROM comment WHERE root_id = ? ORDER BY no", (any_of_it["root_id"],))
    roots = [row for row in rows if row["parent_id"] is None]
    replies = [] if choice.roots_only else [row for row in rows if row["parent_id"] is not None]
    if choice.before is not None:
        key = (choice.before, choice.before_id or "")
        replies = [row for row in replies if (row["created_at"], row["id"]) < key]
    cursor = None
    if choice.tail and len(replies) > choice.tail:
        replies = replies[-choice.tail :]
        cursor = (replies[0]["created_at"], replies[0]["id"])
    return roots + replies, cursor


def _recent(tx: Tx, issue_id: str, choice: Choice) -> tuple[list[sqlite3.Row], tuple[int, str] | None]:
    """Whole threads, those with the newest comments, of before a cursor where there is one."""
    threads = tx.all(
        "SELECT root_id, max(created_at) AS last FROM comment WHERE issue_id = ? GROUP BY root_id"
        " ORDER BY last DESC, root_id DESC",
        (issue_id,),
    )
    if choice.before is not None:
        key = (choice.before, choice.before_id or "")
        threads = [each for each in threads if (each["last"], each["root_id"]) < key]
    count = choice.recent or LIST_LIMIT
    chosen, cursor = threads[:count], None
    if len(threads) > count:
        cursor = (chosen[-1]["last"], chosen[-1]["root_id"])
    rows: list[sqlite3.Row] = []
    for each in chosen:
        rows += tx.all("SELECT * FROM comment WHERE root_id = ?", (each["root_id"],))
    if choice.roots_only:
        rows = [row for row in rows if row["parent_id"] is None]
    return sorted(rows, key=lambda row: int(row["no"])), cursor


def _shown(
    tx: Tx, rows: Sequence[sqlite3.Row], choice: Choice, names: dict[tuple[str, str], str]
) -> list[dict[str, object]]:
    settled = _settled(tx, {row["root_id"] for row in rows}) if choice.fold else {}
    shown = []
    for row in rows:
        folded = settled.get(row["root_id"], False)
        if folded and row["parent_id"] is not None:
            continue
        made = view(tx, row, names)
        if row["parent_id"] is None:
            made["reply_count"] = tx.db.execute(
                "SELECT count(*) FROM comment WHERE root_id = ? AND parent_id IS NOT NULL", (row["id"],)
            ).fetchone()[0]
        if folded or choice.summary:
            made["content"] = _short(row["content"])
        if folded:
            made["folded"] = True
        shown.append(made)
    return shown


def _settled(tx: Tx, roots: Iterable[str]) -> dict[str, bool]:
    return {root: _row(tx, root)["resolved_at"] is not None for root in roots}


def _short(content: str) -> str:
    text = " ".join(content.split())
    return text if len(text) <= SUMMARY_CHARS else text[: SUMMARY_CHARS - 1].rstrip() + "…"
