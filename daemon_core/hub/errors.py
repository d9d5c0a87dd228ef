"""What can go wrong when another room asks the hub for something.

    HubError
    ├── NotFoundError       no such thing
    ├── ConflictError       not in this state
    ├── InvalidInputError   the request itself is wrong
    └── StorageError        the database could not do it (disk full, I/O error): later, perhaps

Each carries a ``code`` and ``params``; the words are made by whoever shows them.
"""

from __future__ import annotations


class HubError(Exception):
    """Root of the hub's errors."""

    def __init__(self, code: str, **params: object) -> None:
        self.code = code
        self.params = params
        super().__init__(code, params)

    def __str__(self) -> str:
        details = ", ".join(f"{name}={value!r}" for name, value in self.params.items())
        return f"{self.code} ({details})" if details else self.code


class NotFoundError(HubError):
    """``unknown_task``, ``unknown_conversation``, ``unknown_runtime``, ``unknown_agent`` with ``known``."""


class ConflictError(HubError):
    """``task_active``, ``agent_exists``, ``agent_in_use``, ``agent_removed``, ``invalid_transition``, …"""


class InvalidInputError(HubError):
    """``prompt_empty``, ``prompt_too_long``, ``directory_not_absolute``, ``id_too_short``, …"""


class StorageError(HubError):
    """``storage_failed``: SQLite refused; the cause is chained."""


class RefusedError(Exception):
    """A request over the wire is refused, in the protocol's own words. Never leaves the hub's routes."""

    def __init__(self, status: int, text: str, **more: object) -> None:
        self.status = status
        self.text = text
        self.more = more
        """Members of the answer beside ``error``."""
        super().__init__(status, text)
