"""Handing on tasks as tools for agents."""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from daemon_core.control.delegation_desk import WAIT_LIMIT_S, DelegationDesk
from daemon_core.control.delegation_views import DelegationAdd
from daemon_core.control.errors import ControlError
from daemon_core.control.mcp import Tool, ToolError, still_there
from daemon_core.control.views import DelegationView

if TYPE_CHECKING:
    from daemon_core.tasks.life import TaskLife

T = TypeVar("T")

WAIT_S: Final = 50.0
"""How long a tool waits unless it is told otherwise: clients give up on a tool after a minute."""
LONGEST_WAIT_S: Final = 6 * 3600.0
_ID: Final = {"type": "string", "description": "The task's id, or its first characters (at least four)."}
_WAIT: Final = {
    "type": "boolean",
    "description": "Whether to wait for its end (false if left out). Otherwise you are told of it when it"
    " comes.",
}
_TIMEOUT: Final = {
    "type": "number",
    "description": f"Longest wait in seconds ({WAIT_S:.0f} if left out); the task goes on after it.",
}


def _schema(required: Sequence[str] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _text(what: str) -> dict[str, Any]:
    return {"type": "string", "description": what}


_DELEGATE: Final = _schema(
    ("prompt",),
    prompt=_text(
        "What is to be done. The other agent knows nothing of your conversation: say all that it needs."
    ),
    agent=_text("A named agent of the user's."),
    runtime=_text("A kind of agent, such as claude or codex; your own if neither is given."),
    model=_text("A model of it."),
    title=_text("A short title, shown to the user."),
    directory=_text(
        "A directory to work in, which must be free; left out: one of its own, with a work tree of your"
        " repository where there is one."
    ),
    wait=_WAIT,
    timeout=_TIMEOUT,
)
_RESULT: Final = _schema(("id",), id=_ID, wait=_WAIT, timeout=_TIMEOUT)
_ONE: Final = _schema(("id",), id=_ID)

_WHY: Final = {
    "depth": "this task was handed on itself, and may not hand on more (limit {limit})",
    "open": "{limit} tasks that you have handed on are not over yet: wait for one of them",
    "used_up": "you have handed on {limit} tasks, and more are not allowed",
}


class DelegationTools:
    """The tools of tasks that may hand on work."""

    def __init__(self, desk: DelegationDesk) -> None:
        self._desk = desk

    def tools_of(self, life: TaskLife) -> Sequence[Tool]:
        desk = self._desk

        async def delegate(given: dict[str, Any]) -> Any:
            wait, limit_s = _waiting(given)
            wanted = _request(given)
            made = await _asked(desk.add(life, wanted))
            return await self._waited(life, made, limit_s) if wait else _shown(made)

        async def result(given: dict[str, Any]) -> Any:
            wait, limit_s = _waiting(given)
            found = await _asked(desk.get(life, _id(given)))
            return await self._waited(life, found, limit_s if wait else 0.0)

        async def list_(given: dict[str, Any]) -> Any:
            return {"delegations": [_shown(each) for each in await _asked(desk.children(life))]}

        async def cancel(given: dict[str, Any]) -> Any:
            return _shown(await _asked(desk.cancel(life, _id(given))))

        tools = [
            Tool(
                name="delegate",
                description=(
                    "Hand a part of the work to another agent of this machine, as a task of its own. You are"
                    " told of its end, or wait for it here."
                ),
                schema=_DELEGATE,
                call=delegate,
            )
        ]
        if not desk.may_hand_on(life):
            tools = []
            if not desk.has_handed_on(life):
                return tools
        return [
            *tools,
            Tool(
                name="delegation_list",
                description="The tasks that you have handed on, and how far they are.",
                schema=_schema(),
                call=list_,
                read_only=True,
            ),
            Tool(
                name="delegation_result",
                description="How a task that you have handed on is, and its result once it is over.",
                schema=_RESULT,
                call=result,
                read_only=True,
            ),
            Tool(
                name="delegation_cancel",
                description="End a task that you have handed on, and what it has handed on.",
                schema=_ONE,
                call=cancel,
            ),
        ]

    async def _waited(self, life: TaskLife, view: DelegationView, limit_s: float) -> dict[str, Any]:
        """Wait for an end, and count it as told if who asked is there to hear it."""
        left_s = limit_s
        while left_s > 0 and not view.over and still_there():
            stretch_s = min(left_s, WAIT_LIMIT_S)
            view = await _asked(self._desk.wait(life, view.id, stretch_s))
            left_s -= stretch_s
        if view.over and still_there():
            await _asked(self._desk.heard(life, view.id))
        elif limit_s > 0:
            await _asked(self._desk.leave(life, view.id))
        return _shown(view)


def _shown(view: DelegationView) -> dict[str, Any]:
    """A child, without what says nothing."""
    found: dict[str, Any] = msgspec.to_builtins(view)
    kept = {name: value for name, value in found.items() if value not in ("", None, [])}
    if not view.over:
        kept["note"] = "It goes on. You are told of its end; do not ask again and again."
    return kept


def _request(given: dict[str, Any]) -> DelegationAdd:
    names = ("prompt", "agent", "runtime", "model", "title", "directory")
    try:
        wanted = {name: given[name] for name in names if name in given}
        return msgspec.convert({**wanted, "request": uuid.uuid4().hex}, DelegationAdd)
    except msgspec.ValidationError as error:
        raise ToolError(f"the arguments do not fit: {error}") from error


def _waiting(given: dict[str, Any]) -> tuple[bool, float]:
    wait, limit_s = given.get("wait", False), given.get("timeout", WAIT_S)
    if not isinstance(wait, bool):
        raise ToolError("wait has to be true or false")
    if isinstance(limit_s, bool) or not isinstance(limit_s, int | float) or not math.isfinite(limit_s):
        raise ToolError("timeout has to be a number of seconds")
    return wait, min(max(float(limit_s), 0.1), LONGEST_WAIT_S)


def _id(given: dict[str, Any]) -> str:
    found = given.get("id")
    if not isinstance(found, str) or not found.strip():
        raise ToolError("id has to be a text")
    return found


async def _asked(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except ControlError as error:
        raise ToolError(_words(error)) from error


_WORDS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "delegation_limit": lambda p: _WHY[str(p.get("why"))].format(limit=p.get("limit")),
    "directory_taken": lambda p: f"the directory {p.get('path')} is in use by another task",
    "no_such_agent": lambda p: f"there is no agent {p.get('agent')}; there are: {_joined(p.get('known'))}",
    "unknown_runtime": lambda p: (
        f"there is no runtime {p.get('runtime')}; there are: {_joined(p.get('known'))}"
    ),
    "runtime_unusable": lambda p: f"the runtime {p.get('runtime')} cannot be used: {p.get('reason')}",
    "not_found": lambda p: f"you have handed on no task {p.get('id')}",
    "ambiguous_id": lambda p: f"{p.get('id')} is the beginning of several: {_joined(p.get('candidates'))}",
    "barrier_up": lambda p: "nothing is begun just now; try again in a minute",
    "not_ready": lambda p: "the daemon is starting; try again in a moment",
    "hub_disabled": lambda p: "the embedded server is off, so nothing can be handed on",
}


def _words(error: ControlError) -> str:
    words = _WORDS.get(error.code)
    return words(error.params) if words is not None else f"that was refused: {error}"


def _joined(known: object) -> str:
    return ", ".join(str(each) for each in known) if isinstance(known, list | tuple) and known else "none"
