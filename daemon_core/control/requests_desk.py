"""Answers to what running tasks ask, and more time for those that are silent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.backend import resolve_id
from daemon_core.control.errors import ControlError
from daemon_core.control.live_views import open_requests
from daemon_core.control.route import Route
from daemon_core.control.views import TaskAnswer, TaskExtend, TaskView
from daemon_core.control.web import answer, body
from daemon_core.tasks.life import TaskLife
from daemon_core.tasks.requests import OpenRequest, RequestBook

TEXT_LIMIT_CHARS: Final = 64 * 1024
EXTEND_LIMIT_S: Final = 7 * 86400.0

_ID: Final = ("not_found", "ambiguous_id", "invalid_input", "conflict", "not_ready")

REQUEST_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "answer_request",
        "POST",
        "/v1/tasks/{id}/requests/{request}/answer",
        "Answer an open permission request or question of a running task.",
        TaskView,
        TaskAnswer,
        guarded=True,
        refusals=_ID,
    ),
    Route(
        "extend_task",
        "POST",
        "/v1/tasks/{id}/extend",
        "Give a silent run more time.",
        TaskView,
        TaskExtend,
        guarded=True,
        refusals=_ID,
    ),
)


class Tasks(Protocol):
    """What the desk needs of the daemon."""

    async def get_task(self, task_id: str) -> TaskView: ...

    def life_of(self, view: TaskView) -> TaskLife | None:
        """The task's life, while it is worked on here."""
        ...

    async def request_book(self, view: TaskView) -> RequestBook:
        """What the journal has of the task's requests."""
        ...


class RequestsDesk:
    """Implements the routes above."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    async def answer(self, task_id: str, request_id: str, wanted: TaskAnswer) -> TaskView:
        """Answer an open request; the answer is durable when this returns.

        Raises:
            ControlError: not_found, ambiguous_id; conflict (request_settled with ``decision``; task_ended);
                invalid_input (a question without an answer).
        """
        view = await self._tasks.get_task(task_id)
        life = self._tasks.life_of(view)
        driver = life.driver if life is not None else None
        book = driver.requests if driver is not None else await self._tasks.request_book(view)
        known = [each.id for each in book.open] + [each.id for each in book.settled]
        if driver is None and not known:
            self._running(view)
        found_id = request_id if request_id in known else resolve_id("request", request_id, known)
        request = next((each for each in book.open if each.id == found_id), None)
        if request is not None and driver is not None:
            _check(request, wanted)
            if await driver.answer(found_id, wanted.decision, wanted.text):
                return await self._tasks.get_task(view.id)
        decision = book.decision(found_id) or "withdrawn"
        if driver is None and decision == "withdrawn":
            self._running(view)
        raise ControlError(
            "conflict", {"what": "request_settled", "id": found_id, "decision": decision, "task": view.id}
        )

    async def extend(self, task_id: str, wanted: TaskExtend) -> TaskView:
        """More time before silence ends the run. Raises ``ControlError`` as ``answer``."""
        if not math.isfinite(wanted.seconds) or not 0 < wanted.seconds <= EXTEND_LIMIT_S:
            raise ControlError("invalid_input", {"field": "seconds", "why": "out_of_range"})
        view = await self._tasks.get_task(task_id)
        if not await self._running(view).extend(wanted.seconds):
            raise ControlError("conflict", {"what": "task_not_running", "id": view.id})
        return await self._tasks.get_task(view.id)

    def _running(self, view: TaskView) -> TaskLife:
        life = self._tasks.life_of(view)
        if life is None or life.driver is None:
            ended = view.status in ("completed", "failed", "cancelled")
            what = "task_ended" if ended else "task_not_running"
            raise ControlError("conflict", {"what": what, "id": view.id, "status": view.status})
        return life


def _check(request: OpenRequest, wanted: TaskAnswer) -> None:
    if len(wanted.text) > TEXT_LIMIT_CHARS:
        raise ControlError("invalid_input", {"field": "text", "why": "too_long"})
    if request.kind == "question" and wanted.decision != "deny" and not wanted.text.strip():
        raise ControlError("invalid_input", {"field": "text", "why": "answer_missing"})


class HasRequests(Protocol):
    """What the routes need of the daemon."""

    @property
    def requests(self) -> RequestsDesk | None: ...


def request_handlers(backend: HasRequests) -> Mapping[str, Handler]:
    """The answering functions by the name of their route."""

    def desk() -> RequestsDesk:
        if backend.requests is None:
            raise ControlError("not_ready")
        return backend.requests

    async def answer_request(request: web.Request) -> web.Response:
        task_id, request_id = request.match_info["id"], request.match_info["request"]
        return answer(await desk().answer(task_id, request_id, await body(request, TaskAnswer)))

    async def extend_task(request: web.Request) -> web.Response:
        return answer(await desk().extend(request.match_info["id"], await body(request, TaskExtend)))

    return {"answer_request": answer_request, "extend_task": extend_task}


def waiting_tasks(lives: Mapping[str, TaskLife]) -> int:
    """How many running tasks wait for an answer."""
    return sum(1 for life in lives.values() if open_requests(life))
