"""How a process ended, in words that every family uses alike."""

from __future__ import annotations

import signal as signals

_SHELL_SIGNAL_BASE = 128
"""Programs that end themselves after a signal exit with this plus its number."""


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15; ``signal 99`` for what has no name."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def signal_of(exit_code: int | None, signal: int | None) -> int | None:
    """The signal that ended a process, also where the process turned it into an exit code (128 + number)."""
    if signal:
        return signal
    if exit_code is not None and _SHELL_SIGNAL_BASE < exit_code <= _SHELL_SIGNAL_BASE + 64:
        return exit_code - _SHELL_SIGNAL_BASE
    return None


def exit_text(exit_code: int | None, signal: int | None) -> str:
    """One phrase: ``exit status 3``, ``ended by signal 9 (SIGKILL)``, or that nobody knows."""
    if signal:
        return f"ended by signal {signal} ({signal_name(signal)})"
    if exit_code is None:
        return "ended, and its exit status is not known"
    return f"exit status {exit_code}"
