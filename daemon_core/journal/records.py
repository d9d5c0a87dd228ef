"""The rows of the journal as the rest of the daemon sees them."""

from __future__ import annotations

from typing import Literal

import msgspec

TaskState = Literal["claimed", "waiting_directory", "ready", "started", "ended"]
"""How far a task has got here. ``ready``: its directory is on disk, ``start`` may be asked of the server.
``started``: the server has accepted the start; a run is recorded. ``ended``: the result is durable."""

TaskOutcome = Literal["completed", "failed", "cancelled", "abandoned", "parked"]
"""``parked``: a limit of the account holds it up, it is handed out again later. ``cancelled``: the server
wanted it ended. ``abandoned``: the server had ended or lost it without us."""

RunState = Literal["created", "spawned", "ended", "lost"]

Delivery = Literal["pending", "delivered", "moot"]
"""``moot``: the server does not want the report any more (it ended or deleted the task itself)."""


class TaskRecord(msgspec.Struct, kw_only=True):
    """One task this daemon has taken on. ``key`` is ``<connection>/<task id>``; no field holds a secret."""

    key: str
    connection: str
    task_id: str
    runtime_id: str
    workspace_id: str
    provider: str
    kind: str = ""
    conversation_id: str = ""
    title: str = ""
    agent_id: str = ""
    agent_name: str = ""
    model: str = ""
    state: str = "claimed"
    slot: int = 0
    run_id: str = ""
    directory: str = ""
    """The user's own directory the task names, if any."""
    work_dir: str = ""
    next_seq: int = 1
    claimed_at: str = ""
    started_at: str = ""
    ended_at: str = ""
    outcome: str = ""
    failure_reason: str = ""
    error: str = ""
    output: str = ""
    session_id: str = ""
    usage: bytes = b"[]"
    """JSON array of ``protocol.wire.Usage``: the sum over the task's runs."""
    delivery: str = "pending"
    waiting_for: str = ""
    """Who holds the directory this task waits for, in words for the log."""
    requests: str = ""
    """JSON of ``tasks.requests.RequestBook``: what its agent waits to be answered. Empty: nothing was."""
    extended_until: str = ""
    """Until when the user has given a silent run more time."""
    warnings: str = "[]"
    """JSON array of texts: what was asked for and is not done, or done in another way."""
    remarks: str = "[]"
    """JSON array of ``Remark``: what of these has a code."""


class Remark(msgspec.Struct, frozen=True):
    """What a text of ``TaskRecord.warnings`` says, without words."""

    text: str
    code: str
    params: dict[str, str] = {}


class WorkDirRow(msgspec.Struct, kw_only=True, frozen=True):
    """The last task that worked in a directory, as far as clean-up and its report need it."""

    key: str
    connection: str
    task_id: str
    workspace_id: str
    kind: str
    conversation_id: str
    title: str
    work_dir: str
    ended_at: str
    """Empty: it has not ended."""


class RunRecord(msgspec.Struct, kw_only=True):
    """One run of a task."""

    run_id: str
    task_key: str
    number: int = 1
    """1 for the first run of the task, 2 for the one after a refused resume, ..."""
    state: str = "created"
    family: str = ""
    mark: str = ""
    stdout_offset: int = 0
    """Bytes of standard output whose messages are in the transcript."""
    reader: bytes = b""
    """The reader's snapshot that goes with ``stdout_offset``."""
    pid: int | None = None
    progress_at: str = ""
    """When its agent was last seen to get on, where its family tells."""
    resumed_session: str = ""
    started_at: str = ""
    ended_at: str = ""
    exit_code: int | None = None
    signal: int | None = None
    note: str = ""


class TranscriptChunk(msgspec.Struct, kw_only=True):
    """A stretch of transcript: ``body`` is a JSON array of ``protocol.wire.TaskMessage``."""

    first_seq: int
    last_seq: int
    at: str
    body: bytes


class Report(msgspec.Struct, kw_only=True):
    """A report that the server has not acknowledged yet. Reports of one task are sent in ``id`` order."""

    id: int
    task_key: str
    kind: str
    """``messages`` (body: a JSON array), ``session``, ``usage``, ``complete`` or ``fail`` (a JSON object)."""
    body: bytes
    first_seq: int = 0
    last_seq: int = 0
