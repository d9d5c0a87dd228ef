"""``/v1/jobs…`` on the control socket for persons, ``/v1/task/jobs…`` on the loopback port for tasks.

The same answers twice. Persons' routes are refused to callers that descend from a run; on the loopback port
the task's own token says whose jobs are meant.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.errors import ControlError
from daemon_core.control.job_desk import JobDesk
from daemon_core.control.job_views import JobDigest, JobInput, JobOutput, JobRun
from daemon_core.control.route import Query, Route
from daemon_core.control.task_token import life_of_token
from daemon_core.control.views import JobView
from daemon_core.control.web import answer, body, number

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine
    from daemon_core.tasks.life import TaskLife

TASK_PREFIX: Final = "/v1/task"

_ID: Final = ("not_found", "ambiguous_id", "invalid_input", "not_ready")
_STREAM: Final = Query("stream", "stdout (also what a terminal shows) or stderr.", "string")

JOB_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "run_job",
        "POST",
        "/v1/jobs",
        "Start a command in the background.",
        JobView,
        JobRun,
        guarded=True,
        refusals=(
            "invalid_input",
            "directory_not_found",
            "directory_not_a_directory",
            "directory_not_absolute",
            "directory_outside",
            "barrier_up",
            "conflict",
            "not_ready",
        ),
        status=201,
    ),
    Route(
        "list_jobs",
        "GET",
        "/v1/jobs",
        "Jobs, newest first.",
        list[JobView],
        query=(Query("task", "Only those of this task's conversation, by its whole id.", "string"),),
        guarded=True,
        refusals=("not_found", "not_ready"),
    ),
    Route("get_job", "GET", "/v1/jobs/{id}", "One job.", JobView, guarded=True, refusals=_ID),
    Route(
        "wait_job",
        "GET",
        "/v1/jobs/{id}/wait",
        "The job when it has ended, or as it is when the time is up (at most 30 s; ask again).",
        JobView,
        query=(Query("seconds", "Longest wait.", "number"),),
        guarded=True,
        refusals=_ID,
    ),
    Route(
        "job_output",
        "GET",
        "/v1/jobs/{id}/output",
        "Output from an offset on, also while it runs.",
        JobOutput,
        query=(
            Query("offset", "The first byte wanted.", "integer"),
            Query("limit", "Most bytes at once; at most 1 MiB.", "integer"),
            _STREAM,
            Query("wait", "Where there is nothing yet: wait so many seconds for it (at most 30).", "number"),
        ),
        guarded=True,
        refusals=_ID,
    ),
    Route(
        "job_digest",
        "GET",
        "/v1/jobs/{id}/digest",
        "Beginning and end of the output as plain text: at most 16,000 characters.",
        JobDigest,
        query=(_STREAM,),
        guarded=True,
        refusals=_ID,
    ),
    Route(
        "job_input",
        "POST",
        "/v1/jobs/{id}/input",
        "Say something to a job that waits for input.",
        JobView,
        JobInput,
        guarded=True,
        refusals=(*_ID, "conflict"),
    ),
    Route(
        "kill_job",
        "POST",
        "/v1/jobs/{id}/kill",
        "End a job with everything that it has started.",
        JobView,
        guarded=True,
        refusals=_ID,
    ),
    Route(
        "heard_job",
        "POST",
        "/v1/jobs/{id}/heard",
        "Its end has been seen: its agent is not told of it once more.",
        JobView,
        guarded=True,
        refusals=_ID,
    ),
    Route(
        "kill_jobs_of_task",
        "POST",
        "/v1/tasks/{id}/jobs/kill",
        "End the jobs of the task's conversation that go on.",
        list[JobView],
        guarded=True,
        refusals=("not_found", "not_ready"),
    ),
)


class HasJobs(Protocol):
    """What the routes need of the daemon."""

    @property
    def job_desk(self) -> JobDesk | None: ...


_Ask = Callable[[web.Request, JobDesk, "TaskLife | None"], Awaitable[web.Response]]


async def _run(request: web.Request, desk: JobDesk, life: TaskLife | None) -> web.Response:
    return answer(await desk.run(life, await body(request, JobRun)), 201)


async def _list(request: web.Request, desk: JobDesk, life: TaskLife | None) -> web.Response:
    return answer(await desk.jobs(life, request.query.get("task", "")))


async def _get(request: web.Request, desk: JobDesk, life: TaskLife | None) -> web.Response:
    return answer(await desk.get(life, request.match_info["id"]))


async def _wait(request: web.Request, desk: JobDesk, life: TaskLife | None) -> web.Response:
    return answer(await desk.wait(life, request.match_info["id"], _seconds(request, "seconds")))


async def _output(request: web.Request, desk: JobDesk, life: TaskLife | None) -> web.Response:
    return answer(
        await desk.output(
            life,
            request.match_info["id"],
            offset=number(request, "offset") or 0,
            limit=number(request, "limit") or 0,
            stream=request.query.get("stream", ""),
            wait_s=_seconds(request, "wait"),
        )
    )


async def _digest(request: web.Request, desk: JobDesk, life: TaskLife | None) -> web.Response:
    return answer(await desk.digest(life, request.match_info["id"], request.query.get("stream", "")))


async def _input(request: web.Request, desk: JobDesk, life: TaskLife | None) -> web.Response:
    return answer(await desk.input(life, request.match_info["id"], await body(request, JobInput)))


async def _kill(request: web.Request, desk: JobDesk, life: TaskLife | None) -> web.Response:
    return answer(await desk.kill(life, request.match_info["id"]))


async def _heard(request: web.Request, desk: JobDesk, life: TaskLife | None) -> web.Response:
    return answer(await desk.heard(life, request.match_info["id"]))


async def _kill_of_task(request: web.Request, desk: JobDesk, life: TaskLife | None) -> web.Response:
    return answer(await desk.kill_of_task(request.match_info["id"]))


def _seconds(request: web.Request, name: str) -> float:
    text = request.query.get(name) or "0"
    if not _SECONDS.fullmatch(text):
        raise ControlError("invalid_input", {"field": name, "why": "not_a_number", "given": text[:40]})
    return float(text)


_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_ASKS: Final[Mapping[str, _Ask]] = {
    "run_job": _run,
    "list_jobs": _list,
    "get_job": _get,
    "wait_job": _wait,
    "job_output": _output,
    "job_digest": _digest,
    "job_input": _input,
    "kill_job": _kill,
    "heard_job": _heard,
    "kill_jobs_of_task": _kill_of_task,
}


def job_handlers(backend: HasJobs) -> Mapping[str, Handler]:
    """The answering functions of the control socket by the name of their route."""

    def of(ask: _Ask) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if backend.job_desk is None:
                raise ControlError("not_ready")
            return await ask(request, backend.job_desk, None)

        return handle

    return {name: of(ask) for name, ask in _ASKS.items()}


def task_job_routes(engine: Callable[[], Engine | None], desk: JobDesk) -> list[web.AbstractRouteDef]:
    """The routes of the loopback port. ``engine`` gives None until the daemon has taken up its runs."""

    def of(ask: _Ask) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            found = engine()
            if found is None or desk.keeper is None:
                raise ControlError("not_ready")
            life = life_of_token(found, request)
            if life is None:
                raise ControlError("refused_peer", {"why": "credential"})
            return await ask(request, desk, life)

        return handle

    return [
        web.route(route.method, route.path.replace("/v1", TASK_PREFIX, 1), of(_ASKS[route.name]))
        for route in JOB_ROUTES
        if route.path.startswith("/v1/jobs")
    ]
