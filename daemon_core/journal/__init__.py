"""The journal: what the daemon must remember over its own death. One SQLite file, one writer thread.

It owns the schema and its migrations (which only add), the tasks and runs the daemon has taken on, the
transcript, and the outbox of reports that no server has acknowledged yet. The rule that everything else
stands on: what was read from an agent's output and the offset it was read up to are committed in one
transaction (promises P1 and P3). It knows no server, no agent and no process; secrets never come here.
"""

from daemon_core.journal.records import Report, RunRecord, TaskRecord, TranscriptChunk, WorkDirRow
from daemon_core.journal.store import Journal, JournalError, Stretch

__all__ = [
    "Journal",
    "JournalError",
    "Report",
    "RunRecord",
    "Stretch",
    "TaskRecord",
    "TranscriptChunk",
    "WorkDirRow",
]
