"""How a process ended, in words that every family uses alike."""

from __future__ import annotations

import signal as signals
from collections.abc import Callable, Mapping

from daemon_core.protocol import failures

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


def without_result(
    exit_code: int | None,
    signal: int | None,
    said: str,
    *,
    reason_of: Callable[[str], str] = failures.classify,
    exit_reasons: Mapping[int, str] | None = None,
) -> tuple[str, str]:
    """Error and reason where a program has not told how it ended.

    Args:
        said: its last words, which become part of the error.
        reason_of: what they tell, for where the way it ended tells nothing.
        exit_reasons: the program's own exit codes.
    """
    error = f"the agent gave no result: {exit_text(exit_code, signal)}"
    if said:
        error += f": {said}"
    if exit_code == 0 and not signal:
        return error, failures.AGENT_EMPTY
    if exit_code is not None and exit_reasons and exit_code in exit_reasons:
        return error, exit_reasons[exit_code]
    if signal_of(exit_code, signal) is not None or exit_code is None:
        return error, failures.AGENT_PROCESS
    reason = reason_of(said)
    return error, failures.AGENT_PROCESS if reason == failures.AGENT_UNKNOWN else reason
