"""Jobs as tools for agents: a command that goes on when the turn has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from daemon_core.control.errors import ControlError
from daemon_core.control.job_desk import JobDesk
from daemon_core.control.job_views import JobInput, JobRun
from daemon_core.control.mcp import Tool, ToolError
from daemon_core.control.views import JobView
from daemon_core.jobs import output

if TYPE_CHECKING:
    from daemon_core.tasks.life import TaskLife

T = TypeVar("T")

_ID: Final = {"type": "string", "description": "The job's id, or its first characters (at least four)."}


def _schema(required: Sequence[str] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_RUN: Final = _schema(
    ("command",),
    command={"type": "string", "description": "As typed at a shell (bash); may be several lines."},
    name={"type": "string", "description": "A short name, shown to the user."},
    directory={
        "type": "string",
        "description": "The task's directory or one below it; left out: the task's directory.",
    },
    time_limit={"type": "number", "description": "Seconds after which it is ended; an hour if left out."},
    terminal={
        "type": "boolean",
        "description": "Whether it gets a terminal, so that its questions show (true if left out). False"
        " keeps standard error apart.",
    },
    wake={
        "type": "boolean",
        "description": "Whether you are called again when it ends (true if left out); false for a server that"
        " stays up.",
    },
)
_OUTPUT: Final = _schema(
    ("id",),
    id=_ID,
    offset={
        "type": "integer",
        "description": "The first byte to read; left out: beginning and end of all of it.",
    },
    limit={"type": "integer", "description": "Most bytes to read from the offset on (16000 if left out)."},
    stream={
        "type": "string",
        "enum": list(output.STREAMS),
        "description": "stderr only where there is no terminal.",
    },
)
_INPUT: Final = _schema(
    ("id",),
    id=_ID,
    text={"type": "string", "description": "What to type."},
    newline={"type": "boolean", "description": "Whether Enter follows (true if left out)."},
    eof={"type": "boolean", "description": "Whether the input ends here."},
)
_ONE: Final = _schema(("id",), id=_ID)

_REFUSALS: Final = {
    "not_found": "there is no such job in this conversation",
    "ambiguous_id": "several jobs begin with that id; give more of it",
    "barrier_up": "Ostler is about to restart for an update; try again in a minute",
    "not_ready": "Ostler is starting; try again in a moment",
    "directory_outside": "the directory is not inside the task's directory",
    "directory_not_found": "the directory does not exist",
    "job_ended": "the job has ended",
    "task_ended": "your task is being ended",
    "job_input_closed": "the job takes no more input",
    "job_unreachable": "the job does not answer at present; try again",
}


class JobTools:
    """Gives the tools for jobs; they act on the jobs of the task's conversation alone."""

    def __init__(self, desk: JobDesk) -> None:
        self._desk = desk

    def tools_of(self, life: TaskLife) -> Sequence[Tool]:
        if life.claim is None:
            return ()
        desk = self._desk

        async def run(given: dict[str, Any]) -> Any:
            wanted = _converted(given, JobRun)
            return _told(await desk.run(life, msgspec.structs.replace(wanted, id="", fallback=False)))

        async def list_(given: dict[str, Any]) -> Any:
            return {"jobs": [_told(job) for job in await desk.jobs(life)]}

        async def read(given: dict[str, Any]) -> Any:
            return await self._read(life, given)

        async def say(given: dict[str, Any]) -> Any:
            ident = _ident(given)
            rest = {name: value for name, value in given.items() if name != "id"}
            return _told(await desk.input(life, ident, _converted(rest, JobInput)))

        async def kill(given: dict[str, Any]) -> Any:
            return _told(await desk.kill(life, _ident(given)))

        return [
            Tool(
                name="job_run",
                description=(
                    "Start a command in the background. It goes on when your turn has ended, and you are"
                    " called again when it is done. For what takes more than a few minutes, and for servers."
                ),
                schema=_RUN,
                call=_explained(run),
            ),
            Tool(
                name="job_list",
                description="The background commands of this conversation.",
                schema=_schema(),
                call=_explained(list_),
                read_only=True,
            ),
            Tool(
                name="job_output",
                description="The output of a background command, also while it runs.",
                schema=_OUTPUT,
                call=_explained(read),
                read_only=True,
            ),
            Tool(
                name="job_input",
                description="Type something into a background command that waits for input.",
                schema=_INPUT,
                call=_explained(say),
            ),
            Tool(
                name="job_kill",
                description="End a background command with everything that it has started.",
                schema=_ONE,
                call=_explained(kill),
            ),
        ]

    async def _read(self, life: TaskLife, given: dict[str, Any]) -> dict[str, Any]:
        ident, stream = _ident(given), str(given.get("stream") or "")
        offset, limit = given.get("offset"), given.get("limit")
        if offset is None and limit is None:
            found = await self._desk.digest(life, ident, stream)
            return {
                "text": found.text,
                "size": found.size,
                "shortened": found.shortened,
                "ended": found.ended,
            }
        for value in (offset, limit):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise ToolError("offset and limit have to be whole numbers")
        piece = await self._desk.output(
            life,
            ident,
            offset=offset or 0,
            limit=min(limit or output.DIGEST_LIMIT_CHARS, output.DIGEST_LIMIT_CHARS),
            stream=stream,
            wait_s=0,
        )
        told = {
            "text": output.plain(
                piece.data, cut_start=piece.offset > 0, cut_end=piece.next_offset < piece.size
            ),
            "offset": piece.offset,
            "next_offset": piece.next_offset,
            "size": piece.size,
            "ended": piece.ended,
        }
        if piece.dropped_from is not None and piece.dropped_to is not None:
            told["note"] = (
                f"Bytes {piece.dropped_from} to {piece.dropped_to} were dropped, since the output is"
                f" longer than is kept; it goes on at {piece.dropped_to}."
            )
        return told


def _explained(
    call: Callable[[dict[str, Any]], Awaitable[Any]],
) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    """``call``, with refusals in words for an agent."""

    async def explained(given: dict[str, Any]) -> Any:
        try:
            return await call(given)
        except ControlError as error:
            code = str(error.params.get("what") or error.code)
            words = _REFUSALS.get(code)
            if words is None:
                detail = error.params.get("detail") or error.params.get("why") or code
                words = f"{error.params.get('field', 'this')} cannot be used: {detail}"
            raise ToolError(words) from error

    return explained


def _converted(given: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(given, type=kind)
    except msgspec.ValidationError as error:
        raise ToolError(str(error)) from error


def _ident(given: dict[str, Any]) -> str:
    found = given.get("id")
    if not isinstance(found, str):
        raise ToolError("id has to be the id of a job")
    return found


def _told(job: JobView) -> dict[str, Any]:
    """A job as an agent needs it."""
    found: dict[str, Any] = {
        "id": job.id,
        "status": job.status,
        "command": job.command,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "exit_code": job.exit_code,
        "output_path": job.output_path,
        "output_bytes": job.output_bytes,
        "stalled": job.stalled,
    }
    if job.name:
        found["name"] = job.name
    if job.signal is not None:
        found["signal"] = job.signal
    if job.error:
        found["error"] = job.error
    return found
