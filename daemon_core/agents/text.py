"""The family "plain-text": an agent that prints its answer as text. Its arguments are all in its entry.

- ``{prompt}`` in the entry's arguments is where the prompt goes; without it, the prompt is standard input.
- The session's id may be in a file that the program leaves in the run's directory (``session_file``), where
  an expression with one group finds it (``session_pattern``). It is known once the program has ended.
- A success is exit code 0 with an answer that is neither empty nor poison. There is nothing else to go by.
- It asks nobody for permission.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from daemon_core.agents import events as ev
from daemon_core.agents.events import Event, Outcome
from daemon_core.agents.family import LaunchError, LaunchPlan, LaunchRequest, Reader, StdinWrite
from daemon_core.agents.launching import (
    allowed_args,
    check_mode,
    chosen,
    prompt_argument,
    prompt_bytes,
    prompt_text,
    warn_without_mcp,
)
from daemon_core.agents.placeholders import filled, named_in
from daemon_core.agents.shell import ShellReader
from daemon_core.agents.verdicts import Said, judge
from daemon_core.agents.writes import Writes, WritesState
from daemon_core.protocol import failures

FAMILY_NAME: Final = "plain-text"
ID_LIMIT_CHARS: Final = 512


class TextFamily:
    """Starts a program that prints text, and reads it."""

    name = FAMILY_NAME
    cut_by_time = True

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say how to start it. Raises ``LaunchError`` for a policy or a prompt that it cannot take."""
        drive = request.drive
        check_mode(request, "allow")
        warnings: list[str] = []
        as_argument = _takes_argument(request)
        if as_argument:
            prompt_argument(request)
        _expression(str(drive.options.get("session_pattern", "")))
        extra, dropped = allowed_args(request.extra_args, drive.blocked)
        led = msgspec.structs.replace(request, prompt=prompt_text(request), instructions="")
        argv = [request.executable, *extra, *filled(drive.args, led)]
        argv += chosen(request, warnings)
        warn_without_mcp(request, warnings)
        return LaunchPlan(
            argv=tuple(argv),
            env=dict(drive.env),
            drop_env=drive.drop_env,
            stdin=None if as_argument else prompt_bytes(request),
            dropped_args=dropped,
            warnings=tuple(warnings),
        )

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A new reader. Raises ``ValueError`` for a snapshot that is none."""
        return TextReader(request, snapshot)


class _State(msgspec.Struct, kw_only=True):
    consumed: int = 0
    tail: str = ""
    resume: str = ""
    session_id: str = ""
    session_file: str = ""
    session_pattern: str = ""
    writes: WritesState = msgspec.field(default_factory=WritesState)


class TextReader(ShellReader):
    """Plain text into ``Text`` events. See ``family.Reader`` and ``family.HearsFiles``."""

    def __init__(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> None:
        state = _State()
        if snapshot is not None:
            try:
                state = msgspec.json.decode(snapshot, type=_State)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ValueError("not a snapshot of a plain-text reader") from error
        elif request is not None:
            options = request.drive.options
            state.resume = request.resume_session_id
            state.session_file = str(options.get("session_file", ""))
            state.session_pattern = str(options.get("session_pattern", ""))
        super().__init__(msgspec.json.encode({"consumed": state.consumed, "tail": state.tail}))
        self._state = state
        self._writes = Writes(state.writes)
        self.session_id = state.session_id
        if snapshot is None and request is not None and not _takes_argument(request):
            self._writes.close()

    @property
    def files_at_end(self) -> Sequence[str]:
        return (self._state.session_file,) if self._state.session_file else ()

    def hear_file(self, name: str, data: bytes) -> Sequence[Event]:
        """The beginning of a file that the program has left."""
        state = self._state
        expression = _expression(state.session_pattern)
        if name != state.session_file or expression is None:
            return ()
        match = expression.search(data.decode("utf-8", "replace"))
        session = (match[1] or "")[:ID_LIMIT_CHARS] if match is not None else ""
        if not session or session == state.session_id:
            return ()
        self.session_id = state.session_id = session
        return [ev.SessionStarted(session)]

    def pending_writes(self) -> Sequence[StdinWrite]:
        return self._writes.pending()

    def acknowledged(self, number: int) -> None:
        self._writes.acknowledged(number)

    def outcome(self, exit_code: int | None, signal: int | None, stderr_tail: str) -> Outcome:
        shown = super().outcome(exit_code, signal, stderr_tail)
        answer = shown.output.strip()
        state = self._state
        said = Said(answer=answer, session_id=state.session_id, resume=state.resume, progress=bool(answer))
        if shown.success and answer:
            said.end = "success"
        elif shown.success:
            said.error = "the agent returned empty output"
            said.reason = failures.AGENT_EMPTY
        elif answer:
            # What went wrong may be in either place.
            said.error = f"{stderr_tail.strip()}\n{answer}".strip()[-2000:]
        return judge(said, exit_code, signal, stderr_tail, {})

    def snapshot(self) -> bytes:
        state = self._state
        shown = msgspec.json.decode(super().snapshot(), type=_State)
        state.consumed, state.tail = shown.consumed, shown.tail
        state.writes = self._writes.state()
        return msgspec.json.encode(state)


def _takes_argument(request: LaunchRequest) -> bool:
    return any("prompt" in named_in(arg) for arg in request.drive.args)


def _expression(pattern: str) -> re.Pattern[str] | None:
    """The expression of an entry. Raises ``LaunchError`` for one that is none."""
    if not pattern:
        return None
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise LaunchError(
            f"the session_pattern of this agent is wrong: {error}", failures.AGENT_CONFIG
        ) from error
    if found.groups != 1:
        raise LaunchError("the session_pattern of this agent must have one group", failures.AGENT_CONFIG)
    return found
