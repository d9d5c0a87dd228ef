"""Refusals of the control API: a code and parameters; the words are made by whoever shows them.

On the wire: ``{"error": {"code": …, "params": {…}}}`` with the status of the table below.
"""

from __future__ import annotations

from typing import Any, Final

STATUS: Final[dict[str, int]] = {
    "not_found": 404,  # kind, id
    "ambiguous_id": 409,  # kind, id, candidates
    "conflict": 409,  # what (task_ended, task_not_ended, no_session, agent_in_use, …), id
    "barrier_up": 409,  # reason, until
    "busy": 409,  # kind, id
    "invalid_input": 400,  # field, why (empty, too_long, too_short, schema, past, provider_missing, …)
    "unknown_runtime": 404,  # runtime, known
    "runtime_unusable": 409,  # runtime, reason, reason_params
    "no_agent": 409,  # known: none was named and none but the shell is usable
    "no_such_agent": 404,  # agent, known
    "agent_exists": 409,  # agent
    "directory_not_found": 400,  # path
    "directory_not_a_directory": 400,  # path
    "directory_not_writable": 400,  # path
    "directory_not_readable": 400,  # path
    "directory_protected": 400,  # path
    "directory_not_absolute": 400,  # path
    "directory_outside": 400,  # path, work_dir
    "repository_refused": 400,  # why (a code of the repositories), detail
    "hub_disabled": 409,
    "delegation_limit": 409,  # why (depth, open, used_up), limit
    "directory_taken": 409,  # path
    "resident_unusable": 409,  # id, reason, reason_params
    "resident_elsewhere": 409,  # id, holder: another daemon of this user keeps it
    "resident_outside": 409,  # id, pid, command: it runs and was not started here
    "resident_not_outside": 409,  # id
    "resident_at_work": 409,  # id
    "resident_file": 409,  # id, file, detail
    "resident_clear": 409,  # id, path, why (outside, protected, link, not_a_directory, mount, unreadable)
    "sign_in_failed": 409,  # why (a code of connections.sign_in), server, and what the words need
    "credential_store": 409,  # why (a code of settings.credentials), detail, action (keep, remove)
    "updates_off": 409,  # reason (a code of UpdateView.why_not), reason_params
    "update_conflict": 409,  # stage: another step of an update goes on
    "no_update": 409,  # why (none, not_known, passed_over, no_previous), version, reason, reason_params
    "settings_invalid": 400,  # what, hint, file, line, key
    "refused_from_run": 403,  # action
    "refused_peer": 403,  # why: "user" | "host" | "origin" | "credential"
    "no_such_route": 404,  # method, path
    "too_large": 413,  # limit_bytes
    "not_ready": 503,  # the daemon is starting or stopping
    "internal": 500,  # detail: what a disk or a database said, if it was that; the log has the rest
}
"""Every code with its HTTP status; behind it the names of its parameters."""


class ControlError(Exception):
    """A request was understood and refused, or could not be done.

    Raised by the backend, sent by the server, raised again by the client.
    """

    def __init__(
        self, code: str, params: dict[str, Any] | None = None, http_status: int | None = None
    ) -> None:
        self.code = code
        self.params = params or {}
        self.http_status = http_status if http_status is not None else STATUS.get(code, 400)
        super().__init__(code, self.params)

    def __str__(self) -> str:
        return f"{self.code} {self.params}" if self.params else self.code
