"""``POST /repo/checkout`` on the loopback port: an agent gets a repository into its task's directory.

The route of the daemon protocol (with the checks of its later versions): errors are plain text, success
is ``{path, branch_name}`` and more. Who asks has to have the task's own token and acts for that task alone.
One exception: the older command line of a Multica server sends no token. It is answered only where the kernel
says that this user asks, and only for task and directory of a run of such a server that is going on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from daemon_core.control.loopback import own_user
from daemon_core.control.task_token import has_token
from daemon_core.tasks.repositories import lies_inside
from daemon_core.workdirs.repository_errors import (
    RepositoryBusyError,
    RepositoryError,
    RepositoryInputError,
)

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine
    from daemon_core.tasks.life import TaskLife

log = logging.getLogger("ostler.control")

PATH: Final = "/repo/checkout"
CODE_HEADER: Final = "X-Ostler-Error"
_BODY_LIMIT_BYTES: Final = 64 * 1024


class CheckoutRequest(msgspec.Struct, kw_only=True):
    """Unknown fields are ignored: newer command lines send more."""

    url: str = ""
    workspace_id: str = ""
    workdir: str = ""
    ref: str | None = None
    agent_name: str = ""
    task_id: str = ""
    in_task_directory: bool = False
    """Of Ostler's own command line: the work tree belongs in the task's directory, wherever it asks from."""


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def checkout_route(engine: Callable[[], Engine | None], own_token: str) -> web.AbstractRouteDef:
    """The route. ``engine`` gives None until the daemon has taken up its runs."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await _checkout(request, engine(), own_token)
        except _RefusedError as error:
            return _plain(error.status, str(error), error.code)
        except RepositoryBusyError as error:
            answer = _plain(503, str(error), error.code)
            answer.headers["X-Multica-Retryable"] = "repo-busy"
            answer.headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
            return answer
        except RepositoryInputError as error:
            return _plain(400, str(error), error.code)
        except RepositoryError as error:
            log.warning("a repository could not be checked out: %s", error)
            return _plain(500, str(error), error.code)
        except OSError as error:
            log.warning("a repository could not be checked out: %s", error)
            return _plain(500, f"the work tree cannot be written: {error.strerror}", "system")

    return web.route("*", PATH, handle)


def _plain(status: int, text: str, code: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers={CODE_HEADER: code})


async def _checkout(request: web.Request, engine: Engine | None, own_token: str) -> web.Response:
    if request.method != "POST":
        raise _RefusedError(405, "method not allowed", "usage")
    asked = await _asked(request)
    if engine is None or engine.repositories is None:
        raise _RefusedError(503, "the daemon is starting; try again in a moment", "not_ready")
    life = _allowed_life(request, engine, asked, own_token)
    claim = life.claim
    if claim is None:
        raise _RefusedError(403, "this task was taken over without what shows who it is", "refused")
    task_dir = life.record.work_dir
    if asked.in_task_directory:
        work_dir = task_dir
    else:
        work_dir = asked.workdir
        if not await asyncio.to_thread(lies_inside, work_dir, task_dir):
            raise _RefusedError(403, "workdir is not inside the task's directory", "refused")
    done = await engine.repositories.checkout(
        life, claim, asked.url, (asked.ref or "").strip(), Path(work_dir), agent_name=asked.agent_name
    )
    answer: dict[str, Any] = {
        "path": str(done.path),
        "branch_name": done.branch,
        "commit": done.commit,
        "notices": [{"code": notice.code, "message": notice.message} for notice in done.notices],
    }
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


async def _asked(request: web.Request) -> CheckoutRequest:
    try:
        raw = await request.read()
        if len(raw) > _BODY_LIMIT_BYTES:
            raise _RefusedError(400, "invalid request body", "usage")
        asked = msgspec.json.decode(raw, type=CheckoutRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError, web.HTTPRequestEntityTooLarge) as error:
        raise _RefusedError(400, "invalid request body", "usage") from error
    for name in ("url", "workspace_id", "workdir"):
        if not getattr(asked, name).strip():
            raise _RefusedError(400, f"{name} is required", "usage")
    return asked


def _allowed_life(request: web.Request, engine: Engine, asked: CheckoutRequest, own_token: str) -> TaskLife:
    """The task that is asked for, if the caller may act for it."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if token:
        life = next((life for life in engine.lives.values() if has_token(life, token)), None)
        if scheme.lower() != "bearer" or life is None:
            raise _RefusedError(401, "invalid token", "refused")
        if asked.task_id and asked.task_id != life.record.task_id:
            raise _RefusedError(403, "the token belongs to another task", "refused")
        if asked.workspace_id != life.record.workspace_id:
            raise _RefusedError(403, "the task belongs to another workspace", "refused")
        return life
    for life in engine.lives.values():
        if (
            life.record.task_id == asked.task_id
            and life.record.workspace_id == asked.workspace_id
            and life.record.state == "started"
            and not life.connection.timing.loopback
            and not asked.in_task_directory
            and own_user(request, own_token)
        ):
            return life
    raise _RefusedError(401, "a task token is required", "refused")
