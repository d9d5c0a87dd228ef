"""What all routes of the hub share: bodies, answers, refusals, and who asks.

The kinds of tokens and what they open:

=========  ==============================================  ===============  ==============
begins     whose                                           ``/api/daemon``  other ``/api``
=========  ==============================================  ===============  ==============
``mul_``   the user: the hub's own credential, or one      yes              yes
           made by ``POST /api/tokens``
``mdt_``   one daemon, in one workspace                    yes              no (401)
``mat_``   an agent, for one task until that ends          no (401)         yes, as the agent
=========  ==============================================  ===============  ==============

A request of a user is about the workspace that its path or its header ``X-Workspace-ID`` names, and without
those about the machine's own; one of an agent is about that of its task. What is in another workspace is not
found.
"""

from __future__ import annotations

import functools
import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from daemon_core.hub import access_tokens, places, tokens
from daemon_core.hub.errors import ConflictError, HubError, NotFoundError, RefusedError, StorageError
from daemon_core.hub.hub import Hub
from daemon_core.hub.service import Scope
from daemon_core.hub.states import TransitionError
from daemon_core.hub.store import Tx
from daemon_core.protocol import wire

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Api = TypeVar("_Api", bound="Api")

OK: Final = {"status": "ok"}
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_GONE: Final = {
    "unknown_task": "task not found",
    "unknown_runtime": "runtime not found",
    "unknown_conversation": "chat session not found",
    "unknown_agent": "agent not found",
}

_WHERE: Final = {
    "rid": "SELECT workspace_id FROM runtime WHERE id = ?",
    "tid": "SELECT c.workspace_id FROM task AS t JOIN conversation AS c ON c.id = t.conversation_id"
    " WHERE t.id = ?",
    "iid": "SELECT workspace_id FROM issue WHERE id = ?",
    "cid": "SELECT workspace_id FROM conversation WHERE id = ?",
    "run": "SELECT a.workspace_id FROM autopilot_run AS r JOIN autopilot AS a ON a.id = r.autopilot_id"
    " WHERE r.id = ?",
}
"""By part of a path: where the thing that it names is. No workspace: the machine's own."""

Method = Callable[[_Api, web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: the user (``member``) or an agent in one of its tasks.

    ``task`` has the columns that :func:`daemon_core.hub.tokens.find` gives.
    """

    type: str
    id: str
    task: sqlite3.Row | None = None


ACTOR: Final = web.RequestKey("actor", Actor)
DAEMON: Final = web.RequestKey("daemon", str)
"""The daemon whose own token was given; absent where a user's was."""
WORKSPACE: Final = web.RequestKey("workspace", str)
"""The workspace that a request is about; absent on a daemon's routes where a user's token was given, since
that opens all of them."""


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A body of JSON."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json", headers=headers
    )


def refusal(status: int, text: str) -> web.Response:
    """A refusal as clients expect it."""
    return answer(wire.ErrorBody(error=text), status)


def checked_id(given: str, name: str) -> str:
    """An id in its usual form."""
    lowered = given.lower()
    if _UUID.fullmatch(lowered) is None:
        raise RefusedError(400, f"invalid {name}")
    return lowered


def path_id(request: web.Request, part: str, name: str) -> str:
    """A path's id in its usual form."""
    return checked_id(request.match_info[part], name)


def is_id(given: str) -> bool:
    """Whether it has the form of an id."""
    return _UUID.fullmatch(given.lower()) is not None


def number(request: web.Request, name: str, default: int, *, most: int | None = None) -> int:
    """A whole number of the query."""
    given = request.query.get(name, "")
    if not given:
        return default
    if not given.isdecimal() or len(given) > 18:
        raise RefusedError(400, f"invalid {name} parameter")
    return int(given) if most is None else min(int(given), most)


def flag(request: web.Request, name: str) -> bool:
    """Whether a switch of the query is on."""
    return request.query.get(name, "").lower() in ("1", "true", "yes")


async def body_of(request: web.Request, limit: int) -> bytes:
    """The body, without any of the protocol's tokens in it."""
    if (request.content_length or 0) > limit:
        raise RefusedError(413, "request body too large")
    parts: list[bytes] = []
    size = 0
    while part := await request.content.readany():
        size += len(part)
        if size > limit:
            raise RefusedError(413, "request body too large")
        parts.append(part)
    return tokens.redact(b"".join(parts))


async def decode(request: web.Request, kind: type[_T], limit: int) -> _T:
    """The body as a structure. An empty body is an empty object; null and absent mean the same, except for
    a member that tells them apart."""
    body = await body_of(request, limit) or b"{}"
    try:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError:
            return msgspec.convert(_without_nulls(msgspec.json.decode(body)), kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise RefusedError(400, "invalid request body") from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def _bearer(request: web.Request, *, missing: str, malformed: str) -> str:
    header = request.headers.get("Authorization", "")
    if not header.strip():
        raise RefusedError(401, missing)
    kind, _, token = header.partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise RefusedError(401, malformed)
    return token.strip()


class Api:
    """Base of the handlers of one part of the routes."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.limits = hub.scope.limits

    async def authorize_daemon(self, request: web.Request) -> None:
        """Let a user's token pass, or a daemon's own (then ``request[DAEMON]``)."""
        token = _bearer(
            request, missing="missing authorization header", malformed="invalid authorization format"
        )
        if tokens.same(token, self.hub.credential):
            return
        if token.startswith(tokens.DAEMON_PREFIX):
            found = await self._find(token)
            if found is None or found["daemon_id"] is None:
                raise RefusedError(401, "invalid daemon token")
            request[DAEMON] = found["daemon_id"]
            request[WORKSPACE] = found["workspace_id"] or self.hub.workspace_id
            await self._check_reach(request)
            return
        if token.startswith(tokens.HUB_PREFIX) and await self._find(token) is not None:
            return
        raise RefusedError(401, "invalid token")

    async def authorize_member(self, request: web.Request) -> None:
        """Let a user's token pass, or that of a task that is not over; ``request[ACTOR]`` is who it is."""
        token = _bearer(request, missing="missing authorization", malformed="invalid token")
        if token.startswith(tokens.TASK_PREFIX):
            task = await self.hub.store.read(lambda tx: tokens.find(tx.db, token, tx.now))
            if task is not None:
                # What the request says about agent, task and workspace counts for nothing: the token does.
                request[ACTOR] = Actor("agent", task["agent_id"], task)
                request[WORKSPACE] = task["workspace_id"]
                return
        elif tokens.same(token, self.hub.credential) or (
            token.startswith(tokens.HUB_PREFIX) and await self._find(token) is not None
        ):
            request[ACTOR] = Actor("member", self.hub.scope.member_id)
            named = request.headers.get("X-Workspace-ID", "").lower() or self.hub.workspace_id
            await self._check_workspace(named)
            request[WORKSPACE] = named
            return
        raise RefusedError(401, "invalid token")

    async def _check_workspace(self, workspace_id: str) -> None:
        if workspace_id != self.hub.workspace_id:
            await self.hub.store.read(lambda tx: places.require(tx, workspace_id))

    async def _check_reach(self, request: web.Request) -> None:
        """Refuse a daemon's own token for what is in another workspace, if it is anywhere."""
        given = {name: value.lower() for name, value in request.match_info.items() if is_id(value)}

        def rule(tx: Tx) -> set[str]:
            found: set[str] = set()
            for name, query in _WHERE.items():
                row = tx.one(query, (given[name],)) if name in given else None
                if row is not None:
                    found.add(row["workspace_id"] or self.hub.workspace_id)
            return found

        if given and not await self.hub.store.read(rule) <= {request[WORKSPACE]}:
            raise RefusedError(404, "not found")

    def reaches(self, request: web.Request, runtime_id: str) -> bool:
        """Whether a runtime is in a workspace that the request's token opens, or is not there at all."""
        where = self.hub.workspace_of_runtime(runtime_id)
        return where is None or request.get(WORKSPACE, where) == where

    async def _find(self, token: str) -> sqlite3.Row | None:
        def look(tx: Tx) -> tuple[sqlite3.Row | None, bool]:
            row = access_tokens.find(tx, token)
            return row, row is not None and access_tokens.use_is_old(row, tx.now)

        found, is_old = await self.hub.store.read(look)
        if found is not None and is_old:
            try:
                await self.hub.store.write(lambda tx: access_tokens.used(tx, found["id"]))
            except StorageError as error:  # a full disk refuses nobody
                _log.warning("When a token was used last could not be kept: %s", error)
        return found

    async def path_workspace(self, request: web.Request) -> str:
        """The workspace of the path: the request is about that one. It has to be there, and an agent's or a
        daemon's token has to be of it."""
        workspace_id = path_id(request, "ws", "workspace_id")
        bound = DAEMON in request or (ACTOR in request and request[ACTOR].type != "member")
        if bound and workspace_id != request[WORKSPACE]:
            raise RefusedError(404, "workspace not found")
        await self._check_workspace(workspace_id)
        request[WORKSPACE] = workspace_id
        return workspace_id

    def scope(self, request: web.Request) -> Scope:
        """The hub's, for the workspace that a request is about."""
        return self.hub.scope.within(request[WORKSPACE])

    def _place(self, request: web.Request) -> str | None:
        return None if request[WORKSPACE] == self.hub.workspace_id else request[WORKSPACE]

    async def read(self, request: web.Request, rule: Callable[[Tx], _T]) -> _T:
        """Look for something in the workspace that a request is about."""
        return await self.hub.store.read(rule, self._place(request))

    async def write(self, request: web.Request, rule: Callable[[Tx], _T]) -> _T:
        """Change something in the workspace that a request is about."""
        return await self.hub.store.write(rule, self._place(request))

    def member_only(self, request: web.Request) -> None:
        """Refuse agents: this is for people."""
        if request[ACTOR].type != "member":
            raise RefusedError(403, "this needs a person")


def _answering(method: Method[_Api], failure: str) -> Method[_Api]:
    """Turn what a handler raises into the answer for it."""

    @functools.wraps(method)
    async def answered(api: _Api, request: web.Request) -> web.StreamResponse:
        try:
            return await method(api, request)
        except RefusedError as error:
            return answer({"error": error.text, **error.more}, error.status)
        except NotFoundError as error:
            return refusal(404, _GONE.get(error.code, "not found"))
        except TransitionError as error:
            return refusal(400, str(error))
        except ConflictError as error:
            return refusal(400, error.code.replace("_", " "))
        except OverflowError:
            return refusal(400, "number out of range")
        except StorageError as error:
            _log.error("%s %s: %s", request.method, request.raw_path, error)
            return refusal(500, failure)
        except HubError as error:
            return refusal(400, str(error))
        except (web.HTTPException, ConnectionError):
            raise
        except Exception:  # noqa: BLE001 - the boundary: one request fails, in the form clients expect
            _log.exception("%s %s failed.", request.method, request.raw_path)
            return refusal(500, failure)

    return answered


def for_daemon(failure: str = "internal error") -> Callable[[Method[_Api]], Method[_Api]]:
    """A route for daemons: a user's or a daemon's token, never a task's."""

    def decorate(method: Method[_Api]) -> Method[_Api]:
        async def checked(api: _Api, request: web.Request) -> web.StreamResponse:
            await api.authorize_daemon(request)
            return await method(api, request)

        return _answering(checked, failure)

    return decorate


def for_member(failure: str = "internal error") -> Callable[[Method[_Api]], Method[_Api]]:
    """A route for users and agents: ``request[ACTOR]`` tells who it is."""

    def decorate(method: Method[_Api]) -> Method[_Api]:
        async def checked(api: _Api, request: web.Request) -> web.StreamResponse:
            await api.authorize_member(request)
            return await method(api, request)

        return _answering(checked, failure)

    return decorate


def for_person(failure: str = "internal error") -> Callable[[Method[_Api]], Method[_Api]]:
    """A route for users alone: an agent gets 403."""

    def decorate(method: Method[_Api]) -> Method[_Api]:
        async def checked(api: _Api, request: web.Request) -> web.StreamResponse:
            await api.authorize_member(request)
            api.member_only(request)
            return await method(api, request)

        return _answering(checked, failure)

    return decorate


def for_anybody(failure: str = "internal error") -> Callable[[Method[_Api]], Method[_Api]]:
    """A route that checks by itself who asks."""

    def decorate(method: Method[_Api]) -> Method[_Api]:
        return _answering(method, failure)

    return decorate
