"""The rules of conversations and tasks. Every function runs inside one transaction, in the database thread.

A local task is a conversation of the protocol's chat kind; each turn is a task of its own, and so is each
further attempt at a turn whose run was lost. Tasks of the other kinds (an issue's, an autopilot's) have a
conversation as their home, too, so what is said here holds for all. The rules kept here:

* The state of a task changes in :func:`move` alone, by the table of :mod:`daemon_core.hub.states`.
* A complete, fail or cancel that comes too late changes nothing and is no error; a start or wait is one.
* A complete overwrites session and directory of its task, also with nothing; a fail keeps what was pinned.
* The conversation's own pointer (session, directory, runtime) follows every ended turn whose session can be
  resumed. A session that ended in a way that cannot be resumed is forgotten; a directory never is.
* The tokens of a task are gone in the same transaction that ends it.
* A turn's prompt is what the user wrote for it. What trails when it is claimed is exactly that, because turns
  are answered one at a time and a cancelled turn takes its words with it.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from daemon_core.hub import agents, effects, members, registry, tokens
from daemon_core.hub.clock import SECOND, rfc3339
from daemon_core.hub.errors import ConflictError, InvalidInputError, NotFoundError
from daemon_core.hub.limits import Limits
from daemon_core.hub.rows import load_task, load_tasks
from daemon_core.hub.states import ACTIVE, FINAL, TaskEvent, TaskState, TransitionError, step
from daemon_core.hub.store import Hint, Tx
from daemon_core.hub.views import ChatMessage, Conversation, DeletedConversation, HubChange, HubTask, NewTask
from daemon_core.protocol import failures, wire

RETRYABLE: Final = frozenset(
    {
        failures.RUNTIME_OFFLINE,
        failures.RUNTIME_RECOVERY,
        failures.TIMEOUT,
        failures.CODEX_SEMANTIC_INACTIVITY,
        failures.AGENT_NETWORK,
        failures.SKILL_BUNDLE_UNAVAILABLE,
    }
)
"""Failures after which the hub tries the turn again by itself, while attempts are left."""
NETWORK_ATTEMPTS: Final = 3
"""Of a turn whose agent could not reach its model, where there is to be more than one."""
NETWORK_PAUSE: Final = 5 * SECOND
"""Before the last of them: a network that comes back needs a moment."""

TITLE_CHARS: Final = 80
ABOUT: Final = (
    "kind",
    "issue_id",
    "trigger_comment_id",
    "handoff_note",
    "squad_id",
    "autopilot_run_id",
    "initiator_type",
    "initiator_id",
    "request",
)
"""What a task is about: a further attempt and a retry are about the same."""
_RETENTION_LOOK: Final = 3600 * SECOND
ID_PREFIX_CHARS: Final = 4
_ID_ALPHABET: Final = frozenset("0123456789abcdef-")


class Completion(wire.CompleteRequest):
    """The report of a success, with what only a server keeps."""

    pr_url: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose hub this is, and which workspace of it is meant. ``own`` is the machine's own, if that is not."""

    workspace_id: str
    daemon_id: str
    limits: Limits
    own: str = ""

    @property
    def member_id(self) -> str:
        """The one user, as a member of every workspace."""
        return members.member_id(self.own or self.workspace_id)

    def within(self, workspace_id: str) -> Scope:
        """The same for another workspace."""
        return replace(self, workspace_id=workspace_id, own=self.own or self.workspace_id)


# --- asking for work ----------------------------------------------------------------------------------


def add_task(tx: Tx, scope: Scope, new: NewTask) -> HubTask:
    """Begin a conversation with its first turn."""
    prompt = check_prompt(new.prompt, scope.limits)
    if new.directory is not None and (not os.path.isabs(new.directory) or "\0" in new.directory):
        raise InvalidInputError("directory_not_absolute", directory=new.directory)
    if not 0 <= new.priority <= 4:
        raise InvalidInputError("priority_out_of_range", priority=new.priority)
    max_attempts = scope.limits.max_attempts if new.max_attempts is None else new.max_attempts
    if max_attempts < 1:
        raise InvalidInputError("max_attempts_out_of_range", max_attempts=max_attempts)
    agents.check_permissions(new.permissions)
    if new.repo_url is not None and new.directory is not None:
        raise InvalidInputError("repository_and_directory")
    for name in ("directory", "model", "thinking_level", "title", "repo_url", "repo_ref"):
        _checked_text(getattr(new, name), name)
    agent = agents.for_task(tx, new.agent, new.provider)
    conversation_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO conversation (id, workspace_id, title, provider, agent_id, agent_name, directory, model,"
        " thinking_level, priority, max_attempts, repo_url, repo_ref, permissions, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            conversation_id,
            scope.workspace_id,
            title_of(prompt, new.title),
            agent["provider"],
            agent["id"],
            agent["name"],
            new.directory,
            new.model,
            new.thinking_level,
            new.priority,
            max_attempts,
            new.repo_url,
            new.repo_ref,
            new.permissions,
            tx.now,
            tx.now,
        ),
    )
    return new_turn(tx, scope, conversation_id, prompt, model=new.model, fresh=False)


def reply(tx: Tx, scope: Scope, task_id: str, prompt: str, model: str | None) -> HubTask:
    """A new turn in the conversation of ``task_id``; it waits for the turns before it."""
    checked = check_prompt(prompt, scope.limits)
    _checked_text(model, "model")
    row = task_row(tx, task_id)
    if row["kind"] != "chat":
        raise ConflictError("not_a_conversation", task=task_id)
    return new_turn(tx, scope, row["conversation_id"], checked, model=model, fresh=False)


def retry(tx: Tx, scope: Scope, task_id: str, *, fresh: bool) -> HubTask:
    """The same prompt as a new turn; with ``fresh`` without the session and directory of before."""
    row = task_row(tx, task_id)
    if TaskState(row["status"]) not in FINAL:
        raise ConflictError("task_active", task=task_id, status=row["status"])
    return new_turn(
        tx,
        scope,
        row["conversation_id"],
        prompt_of(tx, row["turn_id"]),
        model=row["model"],
        fresh=fresh,
        about={name: row[name] for name in ABOUT},
    )


def new_turn(
    tx: Tx,
    scope: Scope,
    conversation_id: str,
    prompt: str,
    *,
    model: str | None = None,
    fresh: bool,
    about: Mapping[str, object] | None = None,
    role: str = "user",
) -> HubTask:
    """A task in a conversation, behind those that are there. ``about``: columns that say what it is about;
    ``role``: who says the prompt."""
    conversation = tx.one("SELECT * FROM conversation WHERE id = ?", (conversation_id,))
    assert conversation is not None, "a task without its conversation"
    agent = agents.of_conversation(tx, conversation)
    task_id = str(uuid.uuid4())
    tx.run(
        "INSERT INTO chat_message (conversation_id, turn_id, task_id, role, content, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (conversation_id, task_id, task_id, role, prompt, tx.now),
    )
    _enqueue(
        tx,
        {
            "id": task_id,
            "conversation_id": conversation_id,
            "turn_id": task_id,
            "agent_id": agent["id"],
            "agent_name": agent["name"],
            "provider": conversation["provider"],
            "runtime_id": registry.choose(
                tx, conversation["workspace_id"], conversation["provider"], agent["runtime_id"]
            ),
            "priority": conversation["priority"],
            "model": model or conversation["model"],
            "thinking_level": conversation["thinking_level"],
            "fresh": int(fresh),
            "max_attempts": conversation["max_attempts"],
            **(about or {}),
        },
    )
    tx.run("UPDATE conversation SET updated_at = ? WHERE id = ?", (tx.now, conversation_id))
    view = load_task(tx, task_id)
    assert view is not None
    return view


def _enqueue(tx: Tx, columns: dict[str, object]) -> None:
    """Insert a queued task; without a ``queue_no`` it goes behind all others of its priority. With a
    ``parked_until`` it is not handed out before."""
    names = [*columns, "status", "created_at"]
    values = [*columns.values(), TaskState.QUEUED, tx.now]
    if "queue_no" not in columns:
        names.append("queue_no")
        values.append(tx.db.execute("SELECT coalesce(max(no), 0) + 1 FROM task").fetchone()[0])
    marks = ", ".join("?" * len(names))
    tx.run(f"INSERT INTO task ({', '.join(names)}) VALUES ({marks})", values)
    task_id, runtime_id = str(columns["id"]), columns.get("runtime_id")
    tx.changes.append(
        HubChange(
            kind="task",
            task_id=task_id,
            conversation_id=str(columns["conversation_id"]),
            status=TaskState.QUEUED,
        )
    )
    not_before = columns.get("parked_until")
    if isinstance(not_before, int):
        tx.wake_at(not_before)
    elif runtime_id is not None:
        tx.hints.append(Hint("available", str(runtime_id), task_id))


def check_prompt(prompt: str, limits: Limits) -> str:
    """Give a prompt back that can be one; ``InvalidInputError`` otherwise."""
    _checked_text(prompt, "prompt")
    if not prompt.strip():
        raise InvalidInputError("prompt_empty")
    size = len(prompt.encode())
    if size > limits.prompt_bytes:
        raise InvalidInputError("prompt_too_long", size_bytes=size, limit_bytes=limits.prompt_bytes)
    return prompt


def _checked_text(text: str | None, name: str) -> None:
    """Refuse what is no Unicode text (bytes of a command line that were not UTF-8)."""
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError("not_text", field=name) from error


def title_of(text: str, given: str | None = None) -> str:
    """One line for a conversation: what was given, else the beginning of a text."""
    lines = (given or "").strip().splitlines() or text.strip().splitlines() or [""]
    title = " ".join(lines[0].split())
    return title if len(title) <= TITLE_CHARS else title[: TITLE_CHARS - 1].rstrip() + "…"


# --- looking ------------------------------------------------------------------------------------------


def find(tx: Tx, prefix: str) -> list[HubTask]:
    """Tasks by the beginning of their id, or of their conversation's (then its newest turn)."""
    wanted = prefix.strip().lower()
    if len(wanted) < ID_PREFIX_CHARS:
        raise InvalidInputError("id_too_short", prefix=prefix, minimum=ID_PREFIX_CHARS)
    if not _ID_ALPHABET.issuperset(wanted):
        return []
    end = wanted + "g"  # behind every character an id can have
    return load_tasks(
        tx,
        "WHERE t.id IN (SELECT id FROM task WHERE id >= ? AND id < ? UNION"
        " SELECT (SELECT id FROM task WHERE conversation_id = k.id ORDER BY no DESC LIMIT 1)"
        " FROM conversation AS k WHERE k.id >= ? AND k.id < ?) ORDER BY t.no DESC LIMIT 50",
        (wanted, end, wanted, end),
        cut=False,
    )


def list_tasks(tx: Tx, everything: bool, limit: int) -> list[HubTask]:
    """Newest first: every task, or the newest ``limit`` together with all that are not over."""
    if everything:
        return load_tasks(tx, "ORDER BY t.no DESC", cut=True)
    return load_tasks(
        tx,
        "WHERE t.no IN (SELECT no FROM (SELECT no FROM task ORDER BY no DESC LIMIT ?) UNION"
        " SELECT no FROM task WHERE status IN ('queued', 'dispatched', 'waiting_local_directory', 'running',"
        " 'parked')) ORDER BY t.no DESC",
        (max(limit, 0),),
        cut=True,
    )


def conversation(tx: Tx, conversation_id: str) -> Conversation | None:
    """A conversation with all its turns."""
    row = tx.one("SELECT * FROM conversation WHERE id = ?", (conversation_id,))
    if row is None:
        return None
    said = tx.all("SELECT * FROM chat_message WHERE conversation_id = ? ORDER BY no", (conversation_id,))
    return Conversation(
        id=row["id"],
        title=row["title"],
        provider=row["provider"],
        agent=row["agent_name"],
        created_at=rfc3339(row["created_at"]),
        updated_at=rfc3339(row["updated_at"]),
        directory=row["directory"],
        session_id=row["session_id"],
        work_dir=row["work_dir"],
        turns=load_tasks(tx, "WHERE t.conversation_id = ? ORDER BY t.no", (conversation_id,), cut=False),
        messages=[
            ChatMessage(
                task_id=line["task_id"],
                role=line["role"],
                content=line["content"],
                created_at=rfc3339(line["created_at"]),
                error=bool(line["is_error"]),
            )
            for line in said
        ],
    )


def prompt_of(tx: Tx, turn_id: str) -> str:
    """What the user wrote for a turn (or what it was begun to tell), its messages joined by a blank line."""
    rows = tx.all(
        "SELECT content FROM chat_message WHERE turn_id = ? AND role IN ('user', 'notice') ORDER BY no",
        (turn_id,),
    )
    return "\n\n".join(row["content"] for row in rows)


def task_row(tx: Tx, task_id: str) -> sqlite3.Row:
    """The row of a task.

    Raises:
        NotFoundError: ``unknown_task``.
    """
    row = tx.one("SELECT * FROM task WHERE id = ?", (task_id,))
    if row is None:
        raise NotFoundError("unknown_task", task=task_id)
    return row


# --- the life of a task -------------------------------------------------------------------------------


def move(tx: Tx, row: sqlite3.Row, event: TaskEvent, **columns: object) -> None:
    """Apply ``event`` to a task, with the columns that change along with its state.

    Raises:
        TransitionError: the task's state does not allow it.
    """
    state = step(TaskState(row["status"]), event)
    columns["status"] = state
    if state in FINAL:
        columns |= {"ended_at": tx.now, "lease_until": None, "wait_detail": None}
        tokens.revoke(tx.db, row["no"])
        tx.wake_at(tx.now + _RETENTION_LOOK)  # a sweep then finds when retention is due
    assignments = ", ".join(f"{name} = ?" for name in columns)
    tx.run(f"UPDATE task SET {assignments} WHERE no = ?", (*columns.values(), row["no"]))
    tx.changes.append(
        HubChange(kind="task", task_id=row["id"], conversation_id=row["conversation_id"], status=state)
    )


def prepare_lease(tx: Tx, scope: Scope, runtime_id: str, task_id: str) -> sqlite3.Row:
    """Keep a claimed task from being handed out again while it is prepared."""
    row = task_row(tx, task_id)
    if row["runtime_id"] != runtime_id:
        raise NotFoundError("unknown_task", task=task_id)
    if row["status"] not in (TaskState.DISPATCHED, TaskState.WAITING) or row["started_at"] is not None:
        raise ConflictError("task_not_preparing", status=row["status"])
    tx.run(
        "UPDATE task SET lease_until = ? WHERE no = ?",
        (tx.now + int(scope.limits.lease_s * SECOND), row["no"]),
    )
    return task_row(tx, task_id)


def wait_for_directory(tx: Tx, task_id: str, reason: str) -> sqlite3.Row:
    """The task's directory is taken; ``reason`` says by whom, in the daemon's words."""
    move(tx, task_row(tx, task_id), TaskEvent.WAIT, wait_detail=reason)
    return task_row(tx, task_id)


def start(tx: Tx, task_id: str) -> sqlite3.Row:
    """The task's directory is on disk and its run is about to be."""
    row = task_row(tx, task_id)
    move(tx, row, TaskEvent.START, started_at=tx.now, lease_until=None, wait_detail=None)
    effects.started(tx, row)
    return task_row(tx, task_id)


def pin_session(tx: Tx, task_id: str, session_id: str, work_dir: str) -> None:
    """Remember session and directory while the task runs, so that a lost run can be resumed."""
    row = task_row(tx, task_id)
    if row["status"] in (TaskState.DISPATCHED, TaskState.RUNNING):
        tx.run(
            "UPDATE task SET session_id = coalesce(nullif(?, ''), session_id),"
            " work_dir = coalesce(nullif(?, ''), work_dir) WHERE no = ?",
            (session_id, work_dir, row["no"]),
        )
        tx.changes.append(
            HubChange(
                kind="task", task_id=task_id, conversation_id=row["conversation_id"], status=row["status"]
            )
        )


def progress(tx: Tx, task_id: str, summary: str) -> None:
    """Where the run is, in the daemon's words."""
    tx.run("UPDATE task SET progress = ? WHERE no = ?", (summary, task_row(tx, task_id)["no"]))


def record_usage(tx: Tx, task_id: str, entries: Sequence[wire.Usage]) -> None:
    """Set the tokens of each model; entries of zero are not kept, counts never go below it."""
    task_no = task_row(tx, task_id)["no"]
    for entry in entries:
        counts = [
            max(0, count)
            for count in (
                entry.input_tokens,
                entry.output_tokens,
                entry.cache_read_tokens,
                entry.cache_write_tokens,
            )
        ]
        if any(counts):
            tx.run(
                "INSERT OR REPLACE INTO usage VALUES (?, ?, ?, ?, ?, ?, ?)",
                (task_no, entry.provider, entry.model, *counts),
            )


def complete(tx: Tx, task_id: str, report: Completion) -> sqlite3.Row:
    """The run succeeded. Counts only for a running task; any other is answered unchanged."""
    row = task_row(tx, task_id)
    session_id, work_dir = report.session_id or None, report.work_dir or None
    try:
        move(
            tx,
            row,
            TaskEvent.COMPLETE,
            output=report.output,
            branch_name=report.branch_name or None,
            pr_url=report.pr_url or None,
            session_id=session_id,
            work_dir=work_dir,
        )
    except TransitionError:
        return row
    _retire(tx, row, report.retired_session_id)
    point(tx, row, session_id, work_dir)
    _answer(tx, row, report.output, is_error=False)
    effects.completed(tx, row, report.output)
    let_next_go(tx, row)
    return task_row(tx, task_id)


def fail(tx: Tx, task_id: str, report: wire.FailRequest) -> sqlite3.Row:
    """The run failed. Counts for a claimed task that is not over; any other is answered unchanged."""
    row = task_row(tx, task_id)
    reason = (report.failure_reason or "").strip() or failures.classify(report.error)
    try:
        _fail(tx, row, reason, report.error, report.session_id or None, report.work_dir or None)
    except TransitionError:
        return row
    _retire(tx, row, report.retired_session_id)
    if report.branch_name:
        tx.run("UPDATE task SET branch_name = ? WHERE no = ?", (report.branch_name, row["no"]))
    return task_row(tx, task_id)


def recover_orphans(tx: Tx, runtime_id: str) -> wire.OrphansResponse:
    """Fail everything that the runtime had claimed. Asked for only when nothing of it can be running."""
    rows = tx.all(
        "SELECT * FROM task WHERE runtime_id = ?"
        " AND status IN ('dispatched', 'waiting_local_directory', 'running') ORDER BY no",
        (runtime_id,),
    )
    retried = 0
    for row in rows:
        error = "The runtime was restarted while the task was with it."
        retried += _fail(tx, row, failures.RUNTIME_RECOVERY, error, None, None, lost=True)
    return wire.OrphansResponse(orphaned=len(rows), retried=retried)


def fail_unknown(tx: Tx, known: frozenset[str]) -> int:
    """Fail what is recorded as running and is not among the tasks that the daemon has."""
    rows = tx.all("SELECT * FROM task WHERE status IN ('running', 'waiting_local_directory') ORDER BY no")
    lost = [row for row in rows if row["id"] not in known]
    for row in lost:
        error = "The daemon was restarted and its record of the run is gone."
        _fail(tx, row, failures.RUNTIME_RECOVERY, error, None, None, lost=True)
    return len(lost)


def _fail(
    tx: Tx,
    row: sqlite3.Row,
    reason: str,
    error: str,
    session_id: str | None,
    work_dir: str | None,
    *,
    lost: bool = False,
) -> bool:
    """End a task as failed; True when another attempt has been queued. ``lost``: no daemon has said so."""
    session_id = session_id or row["session_id"]
    work_dir = work_dir or row["work_dir"]
    move(
        tx,
        row,
        TaskEvent.FAIL,
        error=error,
        failure_reason=reason,
        session_id=session_id,
        work_dir=work_dir,
    )
    resumable = failures.resumable(reason, error)
    point(tx, row, session_id if resumable else None, work_dir)
    if not resumable:
        tx.run(
            "UPDATE conversation SET session_id = NULL WHERE id = ? AND session_id = ?",
            (row["conversation_id"], session_id),
        )
    most = row["max_attempts"]
    if reason == failures.AGENT_NETWORK and most > 1:
        most = max(most, NETWORK_ATTEMPTS)
    again = reason in RETRYABLE and row["attempt"] < most and row["kind"] not in ("autopilot", "quick_create")
    if again:
        last = reason == failures.AGENT_NETWORK and row["attempt"] + 1 == most
        not_before = tx.now + NETWORK_PAUSE if last else None
        _queue_attempt(tx, row, reason, session_id, work_dir, not_before=not_before)
    else:
        _answer(tx, row, error, is_error=True)
        effects.failed(tx, row, error, lost=lost)
    let_next_go(tx, row)
    return again


def _queue_attempt(
    tx: Tx,
    row: sqlite3.Row,
    reason: str,
    session_id: str | None,
    work_dir: str | None,
    *,
    not_before: int | None,
) -> None:
    """The next attempt at a lost turn, at the place of the one before in the queue."""
    fresh = reason == failures.CODEX_SEMANTIC_INACTIVITY or bool(row["fresh"] and not session_id)
    _enqueue(
        tx,
        {
            "id": str(uuid.uuid4()),
            "parent_task_id": row["id"],
            "attempt": row["attempt"] + 1,
            "max_attempts": max(row["max_attempts"], row["attempt"] + 1),
            "session_id": None if fresh else session_id,
            "work_dir": None if fresh else work_dir,
            "fresh": int(fresh),
            "parked_until": not_before,
            **{
                name: row[name]
                for name in (
                    "conversation_id",
                    "turn_id",
                    "agent_id",
                    "agent_name",
                    "provider",
                    "runtime_id",
                    "priority",
                    "queue_no",
                    "model",
                    "thinking_level",
                    "woken",
                    *ABOUT,
                )
            },
        },
    )


def cancel(tx: Tx, task_id: str) -> sqlite3.Row:
    """The user does not want it any more. A task that is over is answered unchanged."""
    row = task_row(tx, task_id)
    try:
        move(tx, row, TaskEvent.CANCEL, failure_reason=failures.CANCELLED)
    except TransitionError:
        return row
    effects.cancelled(tx, row)
    # The agent may have got as far as a session: the next turn goes on from there.
    point(tx, row, row["session_id"], row["work_dir"])
    if row["status"] in ACTIVE:
        tx.hints.append(Hint("changed", row["runtime_id"], task_id, TaskState.CANCELLED))
    let_next_go(tx, row)
    return task_row(tx, task_id)


def acknowledge_cancel(tx: Tx, task_id: str, branch_name: str, work_dir: str, detail: str) -> None:
    """The daemon has sent the last of a cancelled run, and where its work is. Of any other task: nothing."""
    row = task_row(tx, task_id)
    if row["status"] == TaskState.CANCELLED:
        tx.run(
            "UPDATE task SET cancel_ack = ?, branch_name = coalesce(nullif(?, ''), branch_name),"
            " work_dir = coalesce(nullif(?, ''), work_dir), error = coalesce(error, nullif(?, ''))"
            " WHERE no = ?",
            (rfc3339(tx.now), branch_name, work_dir, detail, row["no"]),
        )


def _retire(tx: Tx, row: sqlite3.Row, session_id: str | msgspec.UnsetType) -> None:
    """A session that its agent does not know any more is not handed out again."""
    if isinstance(session_id, str) and session_id:
        named = (row["conversation_id"], session_id)
        tx.run("UPDATE conversation SET session_id = NULL WHERE id = ? AND session_id = ?", named)
        tx.run("UPDATE task SET session_id = NULL WHERE conversation_id = ? AND session_id = ?", named)


def point(tx: Tx, row: sqlite3.Row, session_id: str | None, work_dir: str | None) -> None:
    """Let the conversation point at what its next turn resumes; what is None stays as it was."""
    tx.run("UPDATE conversation SET updated_at = ? WHERE id = ?", (tx.now, row["conversation_id"]))
    if session_id:
        tx.run(
            "UPDATE conversation SET session_id = ?, session_runtime_id = ? WHERE id = ?",
            (session_id, row["runtime_id"], row["conversation_id"]),
        )
    if work_dir:
        tx.run("UPDATE conversation SET work_dir = ? WHERE id = ?", (work_dir, row["conversation_id"]))


def _answer(tx: Tx, row: sqlite3.Row, text: str, *, is_error: bool) -> None:
    tx.run(
        "INSERT INTO chat_message (conversation_id, turn_id, task_id, role, content, is_error, created_at)"
        " VALUES (?, ?, ?, 'assistant', ?, ?, ?)",
        (row["conversation_id"], row["turn_id"], row["id"], text, int(is_error), tx.now),
    )


def let_next_go(tx: Tx, row: sqlite3.Row) -> None:
    """A place in the conversation or at the agent is free: whoever waited for it may be claimed now."""
    waiting = tx.all(
        "SELECT id, runtime_id FROM task WHERE conversation_id = ? AND status = 'queued'"
        " AND runtime_id IS NOT NULL UNION SELECT id, runtime_id FROM task WHERE agent_id = ?"
        " AND status = 'queued' AND runtime_id IS NOT NULL AND EXISTS"
        " (SELECT 1 FROM agent WHERE agent.id = task.agent_id AND max_concurrent_tasks > 0)",
        (row["conversation_id"], row["agent_id"]),
    )
    if row["kind"] == "quick_create":
        waiting += tx.all(
            "SELECT id, runtime_id FROM task WHERE agent_id = ? AND kind = 'quick_create'"
            " AND status = 'queued' AND runtime_id IS NOT NULL",
            (row["agent_id"],),
        )
    for runtime_id, task_id in {each["runtime_id"]: each["id"] for each in waiting}.items():
        tx.hints.append(Hint("available", runtime_id, task_id))


# --- the end of a conversation ------------------------------------------------------------------------


def delete(tx: Tx, conversation_id: str) -> DeletedConversation:
    """Take a conversation away with everything of it; runs that are going on are told to end."""
    row = tx.one("SELECT * FROM conversation WHERE id = ?", (conversation_id,))
    if row is None:
        raise NotFoundError("unknown_conversation", conversation=conversation_id)
    tasks = tx.all("SELECT * FROM task WHERE conversation_id = ? ORDER BY no", (conversation_id,))
    work_dirs = {task["work_dir"]: None for task in tasks if task["work_dir"]}
    if row["work_dir"]:
        work_dirs[row["work_dir"]] = None
    for task in tasks:
        if task["status"] in ACTIVE:
            tx.hints.append(Hint("changed", task["runtime_id"], task["id"], "deleted"))
        tx.run("DELETE FROM message WHERE task_no = ?", (task["no"],))
    tx.run("DELETE FROM attachment WHERE conversation_id = ?", (conversation_id,))
    tx.run("DELETE FROM conversation WHERE id = ?", (conversation_id,))
    tx.changes.append(
        HubChange(kind="conversation_deleted", conversation_id=conversation_id, task_id=tasks[-1]["id"])
        if tasks
        else HubChange(kind="conversation_deleted", conversation_id=conversation_id)
    )
    return DeletedConversation(
        conversation_id=conversation_id,
        task_ids=[task["id"] for task in tasks],
        work_dirs=list(work_dirs),
        directory=row["directory"],
    )


def delete_oldest(tx: Tx, ended_before: int) -> DeletedConversation | None:
    """Delete one conversation without a turn to come that was last touched before a time."""
    row = tx.one(
        "SELECT id FROM conversation AS c WHERE updated_at <= ? AND NOT EXISTS (SELECT 1 FROM task"
        " WHERE conversation_id = c.id AND status NOT IN ('completed', 'failed', 'cancelled'))"
        " ORDER BY updated_at LIMIT 1",
        (ended_before,),
    )
    return None if row is None else delete(tx, row["id"])


def oldest_ended(tx: Tx) -> int | None:
    """When the conversation that has been over for longest was last touched."""
    row = tx.one(
        "SELECT updated_at FROM conversation AS c WHERE NOT EXISTS (SELECT 1 FROM task"
        " WHERE conversation_id = c.id AND status NOT IN ('completed', 'failed', 'cancelled'))"
        " ORDER BY updated_at LIMIT 1"
    )
    return None if row is None else int(row["updated_at"])
