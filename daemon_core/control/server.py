"""The control API on a unix socket: ``/v1`` over HTTP, for this user's own programs alone (promise P9).

The socket is 0600 in a 0700 directory, and every request is checked again: the peer's user by the kernel's
word, then ``Host``, ``Origin`` and ``Sec-Fetch-Site``. What stops, pauses or re-configures is refused to
callers that descend from a run. An idle server wakes up for nobody; with a client on the event stream once a
minute.

On Windows it is a named pipe (**written, not yet tried there**). A file with the pipe's name stands in the
socket's place, for programs that wait for the daemon to appear.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from daemon_core.control import peers, pipes
from daemon_core.control.backend import Backend
from daemon_core.control.connection_routes import connection_handlers
from daemon_core.control.delegation_routes import delegation_handlers
from daemon_core.control.errors import ControlError
from daemon_core.control.history_desk import history_handlers
from daemon_core.control.job_routes import job_handlers
from daemon_core.control.models_desk import model_handlers
from daemon_core.control.requests_desk import request_handlers
from daemon_core.control.resident_routes import resident_handlers
from daemon_core.control.routes import ROUTES, Route
from daemon_core.control.runtime_routes import runtime_handlers
from daemon_core.control.settings_desk import settings_handlers
from daemon_core.control.spend_desk import spend_handlers
from daemon_core.control.stats_desk import stats_handlers
from daemon_core.control.turns_desk import turn_handlers
from daemon_core.control.update_routes import update_handlers
from daemon_core.control.views import (
    AgentAdd,
    AgentEdit,
    ChangeEvent,
    CleanRequest,
    Pause,
    Snapshot,
    Stop,
    TaskAdd,
    TaskReply,
)
from daemon_core.control.web import BODY_LIMIT_BYTES, answer, body, errors, flag, guard, number
from daemon_core.settings.directories import make_private

HOSTS: Final = frozenset({"", "localhost", "127.0.0.1", "ostler"})
"""What stands in ``Host`` on a unix socket is the client's invention; these are the ones in use."""
KEEP_ALIVE_S: Final = 60.0
PAGE: Final = 1000
"""Lines of a transcript that are in memory at once for one reader."""
_SHUTDOWN_S: Final = 2.0


class ControlServer:
    """Serves one backend on one socket.

    Attributes:
        socket_path: Where it listens between ``start`` and ``close``.
    """

    def __init__(self, backend: Backend, socket_path: Path, *, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self.socket_path = socket_path
        self._backend = backend
        self._keep_alive_s = keep_alive_s
        self._encoder = msgspec.json.Encoder()
        self._followers: set[asyncio.Task[object]] = set()
        self._transports: set[asyncio.Transport] = set()
        self._runner: web.AppRunner | None = None
        self._own: tuple[int, int] | None = None
        self._made_directory = False
        self._elsewhere = {
            **connection_handlers(backend),
            **delegation_handlers(backend),
            **history_handlers(backend),
            **job_handlers(backend),
            **model_handlers(backend),
            **request_handlers(backend),
            **resident_handlers(backend),
            **runtime_handlers(backend),
            **settings_handlers(backend),
            **spend_handlers(backend),
            **stats_handlers(backend),
            **turn_handlers(backend),
            **update_handlers(backend),
        }
        """Answering functions that are in modules of their own, by the name of their route."""
        self.app = web.Application(
            middlewares=[errors, self._check_user, guard(HOSTS)], client_max_size=BODY_LIMIT_BYTES
        )
        for route in ROUTES:
            self.app.router.add_route(route.method, route.path, self._handler(route))

    async def start(self) -> None:
        """Listen. The daemon's lock is held, so a socket file that is already there is a dead daemon's.

        Raises:
            OSError: The socket cannot be bound; on Windows also: another program has taken the pipe's name.
            SettingsError: Its directory is not this user's own.
        """
        self._made_directory = not self.socket_path.parent.exists()
        make_private(self.socket_path.parent)
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        if sys.platform == "win32":
            await _serve_pipe(runner, self.socket_path)
            self._runner = runner
            self._remember_own()
            return
        listener = _listen(self.socket_path)
        self._remember_own()
        self._runner = runner
        await runner.setup()
        await web.SockSite(runner, listener).start()

    def _remember_own(self) -> None:
        facts = os.lstat(self.socket_path)
        self._own = (facts.st_dev, facts.st_ino)

    async def close(self) -> None:
        """Refuse new requests, end the streams, give requests in flight two seconds. May be called again."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        try:
            facts = os.lstat(self.socket_path)
            if (facts.st_dev, facts.st_ino) == self._own:
                os.unlink(self.socket_path)
                if self._made_directory:
                    os.rmdir(self.socket_path.parent)  # below /tmp: nothing is left behind
        except OSError:
            pass  # gone already, or the directory is: nobody can be misled by it
        self._backend.changes.close()
        for follower in self._followers:
            follower.cancel()
        await runner.cleanup()
        for transport in self._transports:
            transport.abort()  # its reader does not read: what is left would wait for ever

    @web.middleware
    async def _check_user(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        peer = _peer(request)
        if peer is None or peer.uid != peers.own_uid():
            raise ControlError("refused_peer", {"why": "user"})
        return await handler(request)

    def _handler(self, route: Route) -> Handler:
        answering: Handler = self._elsewhere.get(route.name) or getattr(self, f"_{route.name}")
        if not route.guarded:
            return answering

        async def guarded(request: web.Request) -> web.StreamResponse:
            peer = _peer(request)
            if peer is None or peers.descends_from_run(peer.pid, self._backend.owns_mark):
                raise ControlError("refused_from_run", {"action": route.name})
            return await answering(request)

        return guarded

    # --- daemon ------------------------------------------------------------------------------------

    async def _status(self, request: web.Request) -> web.Response:
        return answer(await self._backend.status())

    async def _snapshot(self, request: web.Request) -> web.Response:
        # The revision first: a change in between is then told once more rather than missed.
        revision = self._backend.changes.revision
        return answer(
            Snapshot(
                revision=revision,
                status=await self._backend.status(),
                runtimes=await self._backend.runtimes(False),
                tasks=await self._backend.list_tasks(False),
                agents=await self._backend.agents(),
                jobs=await self._backend.job_desk.snapshot() if self._backend.job_desk is not None else [],
                residents=self._backend.resident_desk.snapshot() if self._backend.resident_desk else [],
                update=self._backend.update_desk.view() if self._backend.update_desk else None,
            )
        )

    async def _pause(self, request: web.Request) -> web.Response:
        return answer(await self._backend.pause(await body(request, Pause)))

    async def _resume(self, request: web.Request) -> web.Response:
        return answer(await self._backend.resume())

    async def _stop(self, request: web.Request) -> web.Response:
        return answer(await self._backend.stop(await body(request, Stop)), 202)

    async def _reload_settings(self, request: web.Request) -> web.Response:
        return answer(await self._backend.reload_settings())

    # --- runtimes and agents -----------------------------------------------------------------------

    async def _runtimes(self, request: web.Request) -> web.Response:
        return answer(await self._backend.runtimes(flag(request, "refresh")))

    async def _agents(self, request: web.Request) -> web.Response:
        return answer(await self._backend.agents())

    async def _get_agent(self, request: web.Request) -> web.Response:
        wanted = request.match_info["name"]
        agents = await self._backend.agents()
        for agent in agents:
            if wanted in (agent.name, agent.id):
                return answer(agent)
        raise ControlError("no_such_agent", {"agent": wanted, "known": [agent.name for agent in agents]})

    async def _add_agent(self, request: web.Request) -> web.Response:
        wanted = await body(request, AgentAdd)
        if not wanted.name.strip():
            raise ControlError("invalid_input", {"field": "name", "why": "empty"})
        return answer(await self._backend.add_agent(wanted), 201)

    async def _edit_agent(self, request: web.Request) -> web.Response:
        wanted = await body(request, AgentEdit)
        return answer(await self._backend.edit_agent(request.match_info["name"], wanted))

    async def _remove_agent(self, request: web.Request) -> web.Response:
        return answer(await self._backend.remove_agent(request.match_info["name"]))

    # --- tasks -------------------------------------------------------------------------------------

    async def _add_task(self, request: web.Request) -> web.Response:
        wanted = await body(request, TaskAdd)
        _check_prompt(wanted.prompt)
        if wanted.directory and not os.path.isabs(wanted.directory):
            raise ControlError("directory_not_absolute", {"path": wanted.directory})
        return answer(await self._backend.add_task(wanted), 201)

    async def _reply(self, request: web.Request) -> web.Response:
        wanted = await body(request, TaskReply)
        _check_prompt(wanted.prompt)
        return answer(await self._backend.reply(request.match_info["id"], wanted), 201)

    async def _list_tasks(self, request: web.Request) -> web.Response:
        return answer(await self._backend.list_tasks(flag(request, "all")))

    async def _get_task(self, request: web.Request) -> web.Response:
        return answer(await self._backend.get_task(request.match_info["id"]))

    async def _cancel(self, request: web.Request) -> web.Response:
        return answer(await self._backend.cancel(request.match_info["id"]))

    async def _retry(self, request: web.Request) -> web.Response:
        return answer(await self._backend.retry(request.match_info["id"]), 201)

    async def _delete_task(self, request: web.Request) -> web.Response:
        return answer(await self._backend.delete(request.match_info["id"]))

    async def _task_changes(self, request: web.Request) -> web.Response:
        found = await self._backend.task_changes(request.match_info["id"], flag(request, "stat"))
        return answer(found)

    # --- disk --------------------------------------------------------------------------------------

    async def _disk(self, request: web.Request) -> web.Response:
        return answer(await self._backend.disk())

    async def _clean_disk(self, request: web.Request) -> web.Response:
        return answer(await self._backend.clean_disk(await body(request, CleanRequest)))

    # --- streams -----------------------------------------------------------------------------------

    async def _transcript(self, request: web.Request) -> web.StreamResponse:
        after, follow = number(request, "after") or 0, flag(request, "follow")
        # The full id first: it refuses what is unknown, and a prefix may become ambiguous while we stream.
        task_id = (await self._backend.get_task(request.match_info["id"])).id
        page = await self._backend.transcript(task_id, after, PAGE)
        async with self._stream(request, "application/x-ndjson") as response:
            while True:
                if page.lines:
                    await response.write(self._encoder.encode_lines(page.lines))
                    after = page.lines[-1].seq
                if page.ended or (not page.lines and not follow):
                    return response
                if not page.lines:
                    await self._wait_transcript(request, task_id, after)
                page = await self._backend.transcript(task_id, after, PAGE)

    async def _wait_transcript(self, request: web.Request, task_id: str, after: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._followers.add(task)  # waiting for a line that may never come: ``close`` ends it
        try:
            await self._next_line(request, task_id, after)
        finally:
            self._followers.discard(task)

    async def _next_line(self, request: web.Request, task_id: str, after: int) -> None:
        while True:
            try:
                await asyncio.wait_for(self._backend.wait_transcript(task_id, after), self._keep_alive_s)
                return
            except TimeoutError:
                if request.transport is None or request.transport.is_closing():
                    raise ConnectionResetError from None

    async def _events(self, request: web.Request) -> web.StreamResponse:
        since = number(request, "since")
        if since is None and request.headers.get("Last-Event-ID", "").isdigit():
            since = int(request.headers["Last-Event-ID"][:18])
        changes = self._backend.changes
        with changes.subscribe(since) as subscription:
            hello = ChangeEvent(revision=since if since is not None else changes.revision, kind="hello")
            async with self._stream(request, "text/event-stream") as response:
                await response.write(self._event(hello))
                while not subscription.closed:
                    found = await subscription.next(self._keep_alive_s)
                    if found:
                        # Written one by one: a slow reader waits here, and what comes meanwhile is merged.
                        for event in found:
                            await response.write(self._event(event))
                    elif not subscription.closed:
                        await response.write(b": still here\n\n")
                return response

    def _event(self, event: ChangeEvent) -> bytes:
        data = self._encoder.encode(event)
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.revision, event.kind.encode(), data)

    @asynccontextmanager
    async def _stream(self, request: web.Request, content_type: str) -> AsyncIterator[web.StreamResponse]:
        """A response that is sent piece by piece."""
        response = web.StreamResponse(headers={"Content-Type": content_type, "Cache-Control": "no-store"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        self._transports.add(transport)
        try:
            yield response
        except asyncio.CancelledError:
            raise  # by close: the transport stays in the set until it is aborted
        except BaseException:
            self._transports.discard(transport)
            raise
        self._transports.discard(transport)


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise ControlError("invalid_input", {"field": "prompt", "why": "empty"})
    if "\0" in prompt:
        raise ControlError("invalid_input", {"field": "prompt", "why": "nul"})


def _peer(request: web.Request) -> peers.Peer | None:
    transport = request.transport
    if transport is None:
        return None
    if sys.platform == "win32":
        from daemon_core.control.pipes_windows import client_of

        try:
            return client_of(transport.get_extra_info("pipe").fileno())
        except ValueError:
            return None  # closed meanwhile
    connection = transport.get_extra_info("socket")
    return peers.unix_peer(connection) if connection is not None else None


async def _serve_pipe(runner: web.AppRunner, path: Path) -> None:
    name = pipes.address(path)
    await runner.setup()
    try:
        try:
            await web.NamedPipeSite(runner, name).start()
        except PermissionError as error:
            # The daemon's lock is held, and a pipe ends with the process that made it: nobody of ours has it.
            raise OSError(errno.EADDRINUSE, f"another program has taken the pipe {name}") from error
        path.write_text(name, "utf-8")
    except BaseException:
        await runner.cleanup()
        raise


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        listener.bind(os.fspath(path))
        os.chmod(path, 0o600)
        listener.listen(128)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
