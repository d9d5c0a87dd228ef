"""The lines of a task's transcript: taken in fast, each once, and given back in order.

A line is known by its task and number; a line that comes twice is refused without a word, so a daemon may
send a batch again whose answer it has not seen (promise P3).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from daemon_core.hub.clock import rfc3339
from daemon_core.hub.service import task_row
from daemon_core.hub.store import Tx
from daemon_core.hub.views import HubChange
from daemon_core.protocol import wire

PAGE: Final = 1000

Line = tuple[int, str, str | None, str | None, str | None, str | None]
"""seq, type, tool, content, input as JSON, output."""

_COLUMNS: Final = 8
_CHUNKS: Final = (100, 10, 1)
# Many rows a statement: SQLite's thread gives up the interpreter lock once a statement, and with a busy event
# loop beside it each return costs up to a switch interval.
_INSERTS: Final = {
    size: "INSERT OR IGNORE INTO message (task_no, seq, type, tool, content, input, output, created_at)"
    " VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * size)
    for size in _CHUNKS
}


class _Incoming(msgspec.Struct):
    """A line as it comes in; its ``input`` is not taken apart."""

    seq: int
    type: str
    tool: str | None = None
    content: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"null")
    output: str | None = None


class _Batch(msgspec.Struct):
    messages: list[_Incoming] | None = None


_decoder = msgspec.json.Decoder(_Batch)


def decode(body: bytes) -> list[Line]:
    """The lines of a request body.

    Raises:
        msgspec.DecodeError: no JSON, or of wrong types.
        ValueError: a number below 1 or too large.
    """
    lines: list[Line] = []
    for each in _decoder.decode(body).messages or ():
        if not 0 < each.seq < 1 << 62:
            raise ValueError(each.seq)
        raw = bytes(each.input)
        given = None if raw == b"null" else raw.decode()
        lines.append((each.seq, each.type, each.tool, each.content, given, each.output))
    return lines


def append(tx: Tx, task_id: str, lines: Sequence[Line]) -> None:
    """Store lines. Those of a task that is over are taken too: its last words may come late."""
    row = task_row(tx, task_id)
    task_no, now = row["no"], tx.now
    start = 0
    for size in _CHUNKS:
        while len(lines) - start >= size:
            values: list[object] = []
            for line in lines[start : start + size]:
                values += (task_no, *line, now)
            tx.db.execute(_INSERTS[size], values)
            start += size
    tx.changes.append(
        HubChange(
            kind="messages", task_id=task_id, conversation_id=row["conversation_id"], status=row["status"]
        )
    )


def page(tx: Tx, task_id: str, after: int, limit: int) -> list[wire.StoredMessage]:
    """Up to ``limit`` lines with a number above ``after``, in order."""
    task = task_row(tx, task_id)
    rows = tx.all(
        "SELECT * FROM message WHERE task_no = ? AND seq > ? ORDER BY seq LIMIT ?", (task["no"], after, limit)
    )
    return [_stored(task, row) for row in rows]


def _stored(task: sqlite3.Row, row: sqlite3.Row) -> wire.StoredMessage:
    return wire.StoredMessage(
        task_id=task["id"],
        issue_id=task["issue_id"],
        seq=row["seq"],
        type=row["type"],
        tool=row["tool"],
        content=row["content"],
        input=None if row["input"] is None else msgspec.json.decode(row["input"]),
        output=row["output"],
        created_at=rfc3339(row["created_at"]),
    )
