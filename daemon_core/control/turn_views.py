"""What ``/v1/tasks/{id}/turns`` tells."""

from __future__ import annotations

from daemon_core.control.views import View


class TurnView(View, frozen=True, kw_only=True):
    """One task of a conversation. ``prompt`` is cut."""

    id: str
    status: str
    prompt: str = ""
    created_at: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    failure_reason: str = ""
    attempt: int = 1
    tokens: int = 0
    cost: float | None = None
    """As ``TaskRow.cost``."""
    cost_how: str = ""
