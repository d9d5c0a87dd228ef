"""``/v1/residents…``: long-lived agent processes that files describe.

For persons alone: a caller that descends from a run is refused, also where it only asks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control.errors import ControlError
from daemon_core.control.resident_desk import ResidentDesk
from daemon_core.control.resident_views import (
    ResidentClear,
    ResidentCleared,
    ResidentLogLine,
    ResidentRestart,
    ResidentsAnswer,
    ResidentsStats,
    ResidentStart,
    ResidentStats,
)
from daemon_core.control.route import Query, Route
from daemon_core.control.views import ResidentView
from daemon_core.control.web import answer, body, flag, number

TAIL_LINES: Final = 200
TAIL_LIMIT: Final = 100_000

_NAMED: Final = ("not_found", "ambiguous_id", "not_ready")
_START: Final = (
    *_NAMED,
    "barrier_up",
    "resident_unusable",
    "resident_elsewhere",
    "resident_outside",
    "resident_not_outside",
)
_LOG_QUERY: Final = (
    Query("tail", "So many of the last lines first; left out: 200.", "integer"),
    Query("follow", "Go on with what is added.", "boolean"),
)

RESIDENT_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "list_residents",
        "GET",
        "/v1/residents",
        "All residents; looks at their files first. A file with a mistake is one of state `invalid`.",
        list[ResidentView],
        guarded=True,
        refusals=("not_ready",),
    ),
    Route(
        "get_resident",
        "GET",
        "/v1/residents/{id}",
        "One resident.",
        ResidentView,
        guarded=True,
        refusals=_NAMED,
    ),
    Route(
        "start_resident",
        "POST",
        "/v1/residents/{id}/start",
        "Start a resident; one that runs is left alone.",
        ResidentView,
        ResidentStart,
        guarded=True,
        refusals=_START,
    ),
    Route(
        "stop_resident",
        "POST",
        "/v1/residents/{id}/stop",
        "Ask a resident to end, and end it if it does not. It stays so until it is started.",
        ResidentView,
        guarded=True,
        refusals=_NAMED,
    ),
    Route(
        "kill_resident",
        "POST",
        "/v1/residents/{id}/kill",
        "End a resident at once, with everything that it has started.",
        ResidentView,
        guarded=True,
        refusals=_NAMED,
    ),
    Route(
        "restart_resident",
        "POST",
        "/v1/residents/{id}/restart",
        "Stop a resident where it runs, and start it.",
        ResidentView,
        ResidentRestart,
        guarded=True,
        refusals=_START,
    ),
    Route(
        "enable_resident",
        "POST",
        "/v1/residents/{id}/enable",
        "Have it started with the daemon: changes that one value in its file. Does not start it.",
        ResidentView,
        guarded=True,
        refusals=(*_NAMED, "resident_file"),
    ),
    Route(
        "disable_resident",
        "POST",
        "/v1/residents/{id}/disable",
        "Do not have it started with the daemon any more. Does not stop it.",
        ResidentView,
        guarded=True,
        refusals=(*_NAMED, "resident_file"),
    ),
    Route(
        "clear_resident",
        "POST",
        "/v1/residents/{id}/clear",
        "Empty the memory or cache directories that its file names. It must not run.",
        ResidentCleared,
        ResidentClear,
        guarded=True,
        refusals=(*_NAMED, "invalid_input", "resident_at_work", "resident_clear", "resident_file"),
    ),
    Route(
        "resident_stats",
        "GET",
        "/v1/residents/{id}/stats",
        "What a resident uses now, with everything that it has started.",
        ResidentStats,
        guarded=True,
        refusals=_NAMED,
    ),
    Route(
        "resident_log",
        "GET",
        "/v1/residents/{id}/log",
        "Its output, of all starts that are kept, one JSON object a line.",
        ResidentLogLine,
        query=_LOG_QUERY,
        stream="lines",
        guarded=True,
        refusals=(*_NAMED, "invalid_input"),
    ),
    Route(
        "start_residents",
        "POST",
        "/v1/residents/start",
        "Start all that are enabled.",
        ResidentsAnswer,
        guarded=True,
        refusals=("not_ready",),
    ),
    Route(
        "stop_residents",
        "POST",
        "/v1/residents/stop",
        "Stop all that run.",
        ResidentsAnswer,
        guarded=True,
        refusals=("not_ready",),
    ),
    Route(
        "residents_stats",
        "GET",
        "/v1/resident-stats",
        "What each uses, and all together.",
        ResidentsStats,
        guarded=True,
        refusals=("not_ready",),
    ),
    Route(
        "residents_log",
        "GET",
        "/v1/resident-log",
        "The output of all, each line with whose it is.",
        ResidentLogLine,
        query=_LOG_QUERY,
        stream="lines",
        guarded=True,
        refusals=("not_ready", "invalid_input"),
    ),
)


class HasResidents(Protocol):
    """What the routes need of the daemon."""

    @property
    def resident_desk(self) -> ResidentDesk | None: ...


def resident_handlers(backend: HasResidents) -> Mapping[str, Handler]:
    """The answering functions by the name of their route."""
    encoder = msgspec.json.Encoder()

    def desk() -> ResidentDesk:
        if backend.resident_desk is None:
            raise ControlError("not_ready")
        return backend.resident_desk

    def named(request: web.Request) -> str:
        return request.match_info["id"]

    async def list_all(request: web.Request) -> web.Response:
        return answer(await desk().everyone())

    async def get(request: web.Request) -> web.Response:
        return answer(await desk().get(named(request)))

    async def start(request: web.Request) -> web.Response:
        return answer(await desk().start(named(request), await body(request, ResidentStart)))

    async def stop(request: web.Request) -> web.Response:
        return answer(await desk().stop(named(request)))

    async def kill(request: web.Request) -> web.Response:
        return answer(await desk().stop(named(request), kill=True))

    async def restart(request: web.Request) -> web.Response:
        return answer(await desk().restart(named(request), await body(request, ResidentRestart)))

    async def enable(request: web.Request) -> web.Response:
        return answer(await desk().switch(named(request), on=True))

    async def disable(request: web.Request) -> web.Response:
        return answer(await desk().switch(named(request), on=False))

    async def clear(request: web.Request) -> web.Response:
        return answer(await desk().clear(named(request), await body(request, ResidentClear)))

    async def stats(request: web.Request) -> web.Response:
        return answer(await desk().stats(named(request)))

    async def start_all(request: web.Request) -> web.Response:
        return answer(await desk().start_all())

    async def stop_all(request: web.Request) -> web.Response:
        return answer(await desk().stop_all())

    async def all_stats(request: web.Request) -> web.Response:
        return answer(await desk().all_stats())

    async def log(request: web.Request) -> web.StreamResponse:
        tail = number(request, "tail")
        count = min(tail if tail is not None else TAIL_LINES, TAIL_LIMIT)
        found = desk().log(request.match_info.get("id", ""), count, follow=flag(request, "follow"))
        async with contextlib.aclosing(found):
            # The first stretch before the answer begins: what is refused is refused in time.
            first = await anext(found, None) if not flag(request, "follow") else None
            if flag(request, "follow") and "id" in request.match_info:
                await desk().get(named(request))
            response = web.StreamResponse(
                headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
            )
            response.enable_chunked_encoding()
            await response.prepare(request)
            if first is not None:
                await response.write(encoder.encode_lines(first))
            async for lines in found:
                if lines:
                    await response.write(encoder.encode_lines(lines))
                elif request.transport is None or request.transport.is_closing():
                    break
            return response

    return {
        "list_residents": list_all,
        "get_resident": get,
        "start_resident": start,
        "stop_resident": stop,
        "kill_resident": kill,
        "restart_resident": restart,
        "enable_resident": enable,
        "disable_resident": disable,
        "clear_resident": clear,
        "resident_stats": stats,
        "resident_log": log,
        "start_residents": start_all,
        "stop_residents": stop_all,
        "residents_stats": all_stats,
        "residents_log": log,
    }
