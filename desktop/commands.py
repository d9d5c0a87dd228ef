"""What a click can ask for, as values: the tray, the windows and the notifications all speak this.

A command is made by whoever shows it and done by ``app`` alone, so a menu can be compared, tested and sent
over D-Bus without anything behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Name = Literal[
    "open",  # the window, at a page: subject = now, history, runtimes, jobs, messages, health, settings
    "open_task",
    "new_task",
    "cancel_task",
    "extend_task",
    "retry_task",
    "open_directory",
    "open_terminal",
    "open_editor",
    "answer",  # subject = task, detail = request, choice = allow | allow-task | deny
    "pause",  # detail = 1h | tomorrow | until_resumed
    "resume",
    "snooze",  # notifications; detail = 1h | tomorrow | off
    "first_run",
    "spend_continue",  # take tasks again today, beyond the limit of the day
    "runtime_on",
    "runtime_off",
    "runtime_restart",
    "sign_in",
    "start_daemon",
    "restart_daemon",
    "restart_desktop",  # this program, so that the version that is installed now runs
    "reconnect",  # look for the daemon now instead of at the next try
    "retry_now",
    "update",  # subject = the version that the user was shown
    "update_later",
    "update_check",
    "update_rollback",
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
