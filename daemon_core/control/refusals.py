"""The hub's refusals in the control API's codes: one place knows both."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from daemon_core.control.errors import ControlError
from daemon_core.hub import ConflictError, HubError, InvalidInputError, NotFoundError, StorageError

T = TypeVar("T")


async def asked(answer: Awaitable[T]) -> T:
    """The hub's answer. Raises ``ControlError`` where the hub refuses."""
    try:
        return await answer
    except HubError as error:
        raise refusal_of(error) from error


def refusal_of(error: HubError) -> ControlError:
    """What a refusal of the hub is to a client of the control API."""
    params = dict(error.params)
    match error:
        case NotFoundError(code="unknown_agent"):
            return ControlError("no_such_agent", {"agent": params.get("agent"), "known": params.get("known")})
        case NotFoundError():
            return ControlError("not_found", {"kind": "task", "id": params.get("task", "")})
        case ConflictError(code="agent_exists"):
            return ControlError("agent_exists", {"agent": params.get("agent", params.get("name"))})
        case ConflictError(code="agent_in_use"):
            return ControlError("busy", {"kind": "agent", "id": params.get("agent", params.get("name"))})
        case ConflictError(code="task_active"):
            return ControlError("conflict", {"what": "task_not_ended", "id": params.get("task", "")})
        case ConflictError():
            return ControlError("conflict", {"what": error.code, **params})
        case InvalidInputError(code="prompt_empty"):
            return ControlError("invalid_input", {"field": "prompt", "why": "empty"})
        case InvalidInputError(code="id_too_short"):
            return ControlError("invalid_input", {"field": "id", "why": "too_short", **params})
        case InvalidInputError():
            field = str(params.get("field", error.code.partition("_")[0]))
            return ControlError("invalid_input", {"field": field, "why": error.code, **params})
        case StorageError(code="storage_failed"):
            return ControlError("internal", {"detail": f"{params.get('path')}: {params.get('detail')}"})
        case _:
            return ControlError("internal")
