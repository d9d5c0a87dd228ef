"""What a click can ask for, as values: the tray, the windows and the notifications all speak this.

A command is made by whoever shows it and done by ``app`` alone, so a menu can be compared, tested and sent
over D-Bus without anything behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Name = Literal[
    "open",  # the window, at a page: subject = now, history, runtimes, jobs, health, settings
    "open_task",
    "new_task",
    "cancel_task",
    "extend_task",
    "retry_task",
    "open_directory",
    "answer",  # subject = task, detail = request, choice = allow | allow-task | deny
    "pause",  # detail = 1h | tomorrow | until_resumed
    "resume",
    "runtime_on",
    "runtime_off",
    "runtime_restart",
    "sign_in",
    "start_daemon",
    "restart_daemon",
    "retry_now",
    "update",
    "show_logs",
    "quit",
]


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to do. ``subject`` is the id of what it is about."""

    name: Name
    subject: str = ""
    detail: str = ""
    choice: str = ""
