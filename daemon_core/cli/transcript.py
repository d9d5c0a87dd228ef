"""A transcript in a terminal: following it over restarts of the daemon, and what each line looks like."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from daemon_core.cli.session import RESTART_S, pages, quoted
from daemon_core.cli.show import one_line, safe, width
from daemon_core.cli.words import EXIT_TIMEOUT, CliError
from daemon_core.control.client import DaemonUnreachableError
from daemon_core.control.errors import ControlError
from daemon_core.control.views import TranscriptLine

if TYPE_CHECKING:
    from daemon_core.cli.session import Session

_RETRY_S: Final = 0.2
_LINE: Final = msgspec.json.Decoder(TranscriptLine)
# What tells a call best, in the order of preference; otherwise its whole input is shown.
_TELLING: Final = ("command", "file_path", "path", "pattern", "url", "query", "description", "prompt")


class WaitedTooLongError(CliError):
    """``--timeout`` ran out; the task goes on."""

    def __init__(self, ident: str) -> None:
        super().__init__(
            "wait_timeout",
            "The time is up; the task goes on",
            f"`ostler task logs -f {ident}` shows it, `ostler task cancel {ident}` ends it",
            EXIT_TIMEOUT,
        )


def raw_lines(
    session: Session,
    ident: str,
    *,
    after: int = 0,
    follow: bool,
    deadline: float | None = None,
    reached: bool = False,
) -> Iterator[bytes]:
    """The transcript's lines as JSON, each once and in order.

    A daemon that goes away in between is waited for (30 s), and the stream taken up where it broke off.

    Args:
        deadline: On the monotonic clock.
        reached: Whether the daemon answered just before; one that never did is not waited for.

    Raises:
        WaitedTooLongError: The deadline has passed.
        DaemonUnreachableError, ControlError: As the client has them.
    """
    lost_at: float | None = None
    while True:
        path = pages(f"/v1/tasks/{quoted(ident)}/transcript", after=after, follow=follow)
        left = None if deadline is None else max(0.001, deadline - time.monotonic())
        try:
            for line in session.client.lines(path, timeout_s=left):
                after, lost_at, reached = _LINE.decode(line).seq, None, True
                yield line
                if deadline is not None and time.monotonic() >= deadline:
                    raise WaitedTooLongError(ident)
            return
        except DaemonUnreachableError as error:
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise WaitedTooLongError(ident) from error
            lost_at = lost_at or now
            reached = reached or error.why == "broken"
            patient = (follow and reached) or session.inside_run
            if not patient or error.why == "foreign" or now - lost_at >= RESTART_S:
                raise
        except ControlError as error:
            if error.code != "not_ready" or not follow:
                raise
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at >= RESTART_S:
                raise
        time.sleep(_RETRY_S)


class Printer:
    """Prints lines for a person. The output of the shell runtime is passed on as it came."""

    def __init__(self, runtime: str) -> None:
        self._raw = runtime == "shell"
        self._at_line_start = True

    def show(self, raw: bytes) -> None:
        line = _LINE.decode(raw)
        match line.type:
            case "text" if self._raw:
                self._write(safe(line.content or "", colours=True))
            case "text":
                self._own_line(safe(line.content or "").strip("\n"))
            case "thinking":
                self._own_line(f"  thinking: {one_line(line.content or '', width() - 14)}")
            case "tool_use":
                self._own_line(
                    f"> {line.tool or 'tool'}  {one_line(_telling(line.input), width() - 20)}".rstrip()
                )
            case "tool_result":
                self._own_line(f"  {_result(line.output or '')}")
            case "error":
                self._own_line(f"error: {safe(line.content or '').strip()}")
            case other:
                self._own_line(f"{other}: {one_line(line.content or '', width() - len(other) - 4)}")

    def end(self) -> None:
        """What follows begins on a line of its own."""
        if not self._at_line_start:
            click.echo()
            self._at_line_start = True

    def _own_line(self, text: str) -> None:
        self.end()
        if text.strip():
            self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        if text:
            click.echo(text, nl=False)
            self._at_line_start = text.endswith("\n")


def _telling(value: Any) -> str:
    if isinstance(value, dict):
        for name in _TELLING:
            if isinstance(value.get(name), str):
                return str(value[name])
    if value in (None, "", {}):
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _result(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    if not lines:
        return "(no output)"
    more = f" (+{len(lines) - 1} more)" if len(lines) > 1 else ""
    return one_line(lines[0], max(20, width() - 4 - len(more))) + more
