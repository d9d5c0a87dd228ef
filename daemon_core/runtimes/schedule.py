"""When a workspace whose runtimes a server has lost is registered again."""

from __future__ import annotations


class RecoverySchedule:
    """When to register a workspace again whose runtimes are gone. Pure: times are handed in (monotonic)."""

    def __init__(self, window_s: float, retry_s: float) -> None:
        self._window_s = window_s
        self._retry_s = retry_s
        self._registered_at: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def gone(self, workspace_id: str, asked_at: float, now: float) -> bool:
        """Word of a loss, by a request that began at ``asked_at``. False: stale, means nothing."""
        if asked_at <= self._registered_at.get(workspace_id, float("-inf")):
            return False
        self._due.setdefault(workspace_id, max(now, self._not_before.get(workspace_id, now)))
        return True

    def registered(self, workspace_id: str, now: float, *, recovery: bool = False) -> None:
        """A registration succeeded; only one that was a recovery opens the window."""
        self._registered_at[workspace_id] = now
        self._due.pop(workspace_id, None)
        if recovery:
            self._not_before[workspace_id] = now + self._window_s

    def failed(self, workspace_id: str, now: float) -> None:
        """A recovery failed: it stays due, later."""
        self._not_before[workspace_id] = self._due[workspace_id] = now + self._retry_s

    def forget(self, workspace_id: str) -> None:
        """The workspace is no longer ours."""
        for times in (self._registered_at, self._not_before, self._due):
            times.pop(workspace_id, None)

    def due(self, now: float) -> list[str]:
        """The workspaces to register now, longest due first."""
        return [id_ for id_, at in sorted(self._due.items(), key=lambda item: item[1]) if at <= now]

    def pending(self, workspace_id: str) -> bool:
        """Whether a recovery of this workspace is going to be due."""
        return workspace_id in self._due

    def next_at(self) -> float | None:
        """When :meth:`due` will next have something; None: not before another loss."""
        return min(self._due.values(), default=None)
