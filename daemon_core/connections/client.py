"""The daemon's HTTP client of one server: every daemon route, typed, with one family of errors.

    ServerError                    (protocol.errors)
    └── TransientError
        └── NoAnswerError          no usable answer arrived; ``code`` says how, ``maybe_applied`` whether the
            │                      server may have acted on the request all the same
            └── UnreadableTaskError  a claim was answered with a task that cannot be understood

Rules kept here: headers of every request; error bodies of at most 4096
bytes; time-outs by kind of call; ``Retry-After`` with a limit; unknown fields and nulls pass. Redirects are
not followed and an HTML page is no success: both are what a captive portal answers, and taking them for
"accepted" would lose reports. The credential is in one request header and nowhere else: not in a URL, a log
line or the text of an exception (P7).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import errno
import io
import ssl
import sys
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_origin

import aiohttp
import msgspec
import yarl

from daemon_core.connections import timing
from daemon_core.connections.decoding import decode
from daemon_core.connections.resolver import OwnThreadsResolver
from daemon_core.protocol import errors, wire

T = TypeVar("T")
TokenSource = str | Callable[[], str]
"""The credential, or a function that gives the present one; asked at every request. Empty: no header."""

NoAnswerCode = Literal[
    "name_not_resolved",
    "network_unreachable",
    "refused",
    "connect_failed",
    "connect_timeout",
    "tls",
    "timeout",
    "cut_off",
    "reset",
    "unreadable",
    "too_large",
    "not_the_server",
    "closed",
]
GcSubject = Literal["issues", "chat-sessions", "autopilot-runs", "tasks"]
ActionRoute = Literal["update", "models", "local-skills", "local-skills/import"]

_OS_NAMES: Final = {"darwin": "macos", "win32": "windows"}
_NETWORK_ERRNOS: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}
)
_KEEP_ALIVE_S: Final = 30.0
"""Longer than the time between two heartbeats, or each would make a connection of its own."""
_RAW_BODY_LIMIT_BYTES: Final = 1 << 20
"""aiohttp wants larger bodies as a stream, so that one write does not hold up the loop."""


class NoAnswerError(errors.TransientError):
    """No usable answer. Not applied for certain only where the connection was never made."""

    def __init__(
        self, method: str, path: str, code: NoAnswerCode, cause: str, *, maybe_applied: bool, status: int = 0
    ) -> None:
        super().__init__(method, path, status, body=cause if status else "", cause=cause)
        self.code = code
        self.maybe_applied = maybe_applied


class UnreadableTaskError(NoAnswerError):
    """The server handed out ``task_id`` in a form this daemon does not understand.

    It would be handed out again and again; whoever claims can fail it in words.
    """

    def __init__(self, method: str, path: str, task_id: str, problem: str) -> None:
        super().__init__(method, path, "unreadable", problem, maybe_applied=True)
        self.task_id = task_id


class RuntimeProfile(wire.Wire):
    """A custom runtime profile as the server lists it."""

    id: str
    workspace_id: str = ""
    display_name: str = ""
    protocol_family: str = ""
    command_name: str = ""
    description: str | None = None
    fixed_args: list[str] = msgspec.field(default_factory=list)
    visibility: str = ""
    enabled: bool = True


class _Profiles(wire.Wire):
    runtime_profiles: list[RuntimeProfile] | None = None


class _TaskRow(wire.Wire):
    """What is read of a task that a state change answers with: a daemon needs no more of it."""

    status: str = ""


class GcCheck(wire.Wire):
    """What a server says about the thing that a directory belongs to."""

    status: str = ""
    updated_at: str | None = None
    completed_at: str | None = None


class _Bundles(wire.Wire):
    bundles: list[wire.Skill] | None = None


def normalise_base_url(url: str) -> str:
    """The base URL for a configured server.

    Raises:
        ValueError: not an HTTP or websocket URL, or one with a user name or password in it.
    """
    try:
        parts = urllib.parse.urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a server URL: {error}") from error
    scheme = {"ws": "http", "wss": "https", "http": "http", "https": "https"}.get(parts.scheme.lower())
    if scheme is None or not parts.hostname:
        raise ValueError("a server URL looks like https://host or http://host:port")
    if "@" in parts.netloc:
        raise ValueError("a server URL must not contain a user name or password")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/")
    if path == "/ws" or path.endswith("/ws"):
        path = path[: -len("/ws")].rstrip("/")
    named = port is not None and port != {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{host}{f':{port}' if named else ''}{path}"


def os_name() -> str:
    """The value of ``X-Client-OS`` on this machine."""
    return _OS_NAMES.get(sys.platform, sys.platform)


class ServerClient:
    """Every route of the daemon protocol as a method. An async context manager; usable inside it only.

    Methods raise subclasses of :class:`~daemon_core.protocol.errors.ServerError` and nothing else.
    Cancelling one is safe; whether the server acted on it is then unknown.

    Args:
        base_url: as configured; normalised here.
        token: see :data:`TokenSource`.
        version: version string of the daemon, for ``X-Client-Version``; empty leaves the header out.
        os: value of ``X-Client-OS``; default this machine's.
        timeouts: longest duration of an attempt.
        unix_socket: path of a socket to use instead of TCP.
        tls: context for https with a CA of one's own.
        proxy: URL of an HTTP proxy. The environment is not consulted here.
        needs_token: while the credential is empty, calls fail here as refused instead of being made without.
        skill_bundles: whether skill references can be resolved; only then is that capability advertised,
            otherwise servers hand out whole skills. (That several comments of one run are understood as a
            list is always said.)
    """

    def __init__(
        self,
        base_url: str,
        token: TokenSource,
        *,
        version: str = "",
        os: str | None = None,
        timeouts: timing.Timeouts | None = None,
        unix_socket: str | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        needs_token: bool = False,
        skill_bundles: bool = False,
    ) -> None:
        self.base_url = normalise_base_url(base_url)
        self.timeouts = timeouts or timing.Timeouts()
        self._token = token
        self._unix_socket = unix_socket
        self._tls = tls
        self._proxy = proxy
        self._needs_token = needs_token
        self._pool: _Pool | None = None
        self._resolver = OwnThreadsResolver()
        self._client_headers = {
            "X-Client-Platform": "daemon",
            "X-Client-OS": os if os is not None else os_name(),
        }
        if version:
            self._client_headers["X-Client-Version"] = version
        # Only what is done here: a server hands out what it would not hand out to others.
        offered = (
            (wire.SKILL_BUNDLES, wire.COALESCED_COMMENTS) if skill_bundles else (wire.COALESCED_COMMENTS,)
        )
        self._capabilities = ",".join(offered)
        self._settles_cancels = True
        """False once the server has shown that it has no route for acknowledged cancellations."""

    def readdress(self, base_url: str, proxy: str | None) -> None:
        """The server is at another address from now on; what is under way goes on at the old one."""
        self.base_url = normalise_base_url(base_url)
        self._proxy = proxy

    @property
    def host(self) -> str:
        """Host and port of the server, for display."""
        return urllib.parse.urlsplit(self.base_url).netloc

    async def __aenter__(self) -> ServerClient:
        if self._pool is not None:
            raise RuntimeError("the client is open already")
        self._pool = self._new_pool()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.session.close()
        await self._resolver.close()

    @property
    def is_open(self) -> bool:
        """Whether calls can be made."""
        return self._pool is not None

    async def drop_idle(self) -> None:
        """Give up pooled connections: after failures or a sleep they may be dead without saying so.

        Requests and websockets that are going on keep theirs.
        """
        old = self._pool
        if old is None:
            return
        self._pool = self._new_pool()
        old.retired = True
        if old.users == 0:
            await old.session.close()

    # --- identity and workspaces -------------------------------------------------------------------

    async def renew_token(self) -> wire.RenewResponse:
        """Ask for a longer life of the token; the token stays the same."""
        return await self._ask(
            wire.RenewResponse, "/api/tokens/current/renew", timeout_s=self.timeouts.renew_s
        )

    async def workspaces(self) -> list[wire.Workspace]:
        """The workspaces of this credential."""
        return await self._get(list[wire.Workspace], "/api/workspaces", timeout_s=self.timeouts.workspaces_s)

    async def daemon_workspaces(self, etag: str = "") -> tuple[list[wire.Workspace] | None, str]:
        """The workspaces by the daemon's own route, which earlier servers lack (404).

        Args:
            etag: of the list known already; empty asks for the list in any case.

        Returns:
            The list, or None if it is still the one with ``etag``; and the ``ETag`` of the present one.
        """
        path = "/api/daemon/workspaces"
        answer = await self._exchange(
            "GET", path, None, timeout_s=self.timeouts.workspaces_s, etag=etag or None
        )
        if answer.status == 304:
            return None, etag
        return _decoded("GET", path, answer.data, list[wire.Workspace]), answer.etag

    async def workspace_repos(self, workspace_id: str) -> wire.WorkspaceRepos:
        """Repositories and settings of a workspace."""
        path = f"/api/daemon/workspaces/{_segment(workspace_id)}/repos"
        return await self._get(wire.WorkspaceRepos, path)

    async def runtime_profiles(self, workspace_id: str) -> list[RuntimeProfile]:
        """Custom runtime profiles of a workspace; servers without the route answer 404."""
        path = f"/api/daemon/workspaces/{_segment(workspace_id)}/runtime-profiles"
        return (await self._get(_Profiles, path)).runtime_profiles or []

    # --- runtimes ----------------------------------------------------------------------------------

    async def register(self, request: wire.RegisterRequest) -> wire.RegisterResponse:
        """Register runtimes in a workspace; the same request again changes nothing."""
        body = msgspec.to_builtins(request)
        for entry in body["runtimes"] or []:  # the structure leaves defaults out, the protocol wants them
            entry.setdefault("version", "")
            entry.setdefault("status", "online")
        return await self._ask(wire.RegisterResponse, "/api/daemon/register", body)

    async def deregister(
        self, runtime_ids: Iterable[str], reasons: Mapping[str, wire.OfflineReason] | None = None
    ) -> None:
        """Show these runtimes offline. Their tasks are not touched.

        Args:
            reasons: why, by runtime id; earlier servers pass that over.
        """
        request = wire.DeregisterRequest(runtime_ids=list(runtime_ids))
        if reasons:
            request.offline_reasons = dict(reasons)
        await self._tell("/api/daemon/deregister", request, timeout_s=self.timeouts.deregister_s)

    async def heartbeat(self, runtime_id: str) -> wire.HeartbeatResponse:
        """One beat over HTTP."""
        request = wire.HeartbeatRequest(runtime_id=runtime_id)
        return await self._ask(wire.HeartbeatResponse, "/api/daemon/heartbeat", request)

    async def report_action(self, runtime_id: str, route: ActionRoute, request_id: str, result: Any) -> None:
        """The result of a pending action; ``result`` is its JSON object."""
        path = f"{_runtime(runtime_id)}/{route}/{_segment(request_id)}/result"
        await self._tell(path, result)

    async def recover_orphans(self, runtime_id: str) -> wire.OrphansResponse:
        """Fail every task that the server believes this runtime has. Only if none of them can be alive."""
        return await self._ask(wire.OrphansResponse, f"{_runtime(runtime_id)}/recover-orphans")

    # --- claim and preparation ---------------------------------------------------------------------

    async def claim(self, runtime_id: str) -> wire.Task | None:
        """Claim one task, or None. Raises as ``claim_of_hub``."""
        return (await self.claim_of_hub(runtime_id, wire.ClaimWish())).task

    async def claim_of_hub(self, runtime_id: str, wish: wire.ClaimWish) -> wire.ClaimResponse:
        """Claim one task of those that are wished for; only the embedded hub understands a wish.

        Raises:
            TransientError: with ``maybe_applied`` a task may have been handed out whose answer was lost: the
                server hands it out again after its redelivery time.
            UnreadableTaskError: a task was handed out in a shape that is not understood.
        """
        path = f"{_runtime(runtime_id)}/tasks/claim"
        body = msgspec.json.encode(wish)
        answer = await self._exchange("POST", path, body, limit_bytes=timing.LARGE_ANSWER_LIMIT_BYTES)
        return _claimed(path, answer.data, wire.ClaimResponse)

    async def claim_any(self, daemon_id: str, runtime_ids: Iterable[str]) -> wire.Task | None:
        """Claim one task of any of these runtimes, or None. Only later servers know how (others: 404).

        Runtimes that the server does not know are passed over without a word. Raises as ``claim_of_hub``.
        """
        path = "/api/daemon/tasks/claim"
        wish = wire.ClaimManyRequest(daemon_id=daemon_id, runtime_ids=list(runtime_ids), max_tasks=1)
        body = msgspec.json.encode(wish)
        answer = await self._exchange("POST", path, body, limit_bytes=timing.LARGE_ANSWER_LIMIT_BYTES)
        tasks = _claimed(path, answer.data, wire.ClaimManyResponse).tasks
        return tasks[0] if tasks else None

    async def prepare_lease(self, runtime_id: str, task_id: str) -> None:
        """Keep a claimed task ours for another 45 s while it is prepared."""
        path = f"{_runtime(runtime_id)}/tasks/{_segment(task_id)}/prepare-lease"
        await self._tell(path, timeout_s=self.timeouts.lease_s)

    async def resolve_skill(self, runtime_id: str, task_id: str, ref: wire.SkillRef) -> wire.Skill:
        """The skill behind a reference; its hash may be newer than the one asked for."""
        path = f"{_runtime(runtime_id)}/tasks/{_segment(task_id)}/skill-bundles/resolve"
        limits = self.timeouts
        wanted_s = ref.size_bytes / limits.transfer_bytes_per_s
        answer = await self._ask(
            _Bundles,
            path,
            {"skills": [ref]},
            timeout_s=min(max(wanted_s, limits.skill_min_s), limits.skill_max_s),
            limit_bytes=timing.LARGE_ANSWER_LIMIT_BYTES,
        )
        bundles = answer.bundles or []
        if len(bundles) != 1:
            problem = f"{len(bundles)} skill bundles instead of one"
            raise NoAnswerError("POST", path, "unreadable", problem, maybe_applied=True)
        return bundles[0]

    async def wait_local_directory(self, task_id: str, reason: str) -> str:
        """Say that the task waits for a directory. Returns the task's status."""
        request = wire.WaitRequest(reason=reason)
        return (await self._ask(_TaskRow, f"{_task(task_id)}/wait-local-directory", request)).status

    async def start(self, task_id: str) -> str:
        """The work directory is ready, the run begins. Returns the task's status.

        Raises:
            PermanentError: 400, the task is not waiting to be started: ask for its status.
        """
        return (await self._ask(_TaskRow, f"{_task(task_id)}/start")).status

    # --- a running task ----------------------------------------------------------------------------

    async def status(self, task_id: str) -> str:
        """The task's status; any unknown one means: keep running."""
        return (await self._get(wire.TaskStatusResponse, f"{_task(task_id)}/status")).status

    async def progress(self, task_id: str, summary: str, step: int, total: int) -> None:
        """Where the run is. Of no consequence if it is lost."""
        request = wire.ProgressRequest(summary=summary, step=step, total=total)
        await self._tell(f"{_task(task_id)}/progress", request)

    async def send_messages(self, task_id: str, encoded: bytes) -> None:
        """Send lines of the transcript. ``encoded`` is a JSON array of messages, sent as it is.

        Raises:
            TransientError: with ``maybe_applied`` the server may have stored the batch and does not refuse
                doubles: ask :meth:`messages_since` before sending it again.
        """
        limits = self.timeouts
        await self._tell(
            f"{_task(task_id)}/messages",
            encoded=b'{"messages":' + encoded + b"}",
            timeout_s=limits.messages_s + len(encoded) / limits.transfer_bytes_per_s,
        )

    async def messages_since(self, task_id: str, since: int) -> list[wire.StoredMessage]:
        """What the server has of the transcript after ``since``."""
        return await self._get(
            list[wire.StoredMessage],
            f"{_task(task_id)}/messages?since={int(since)}",
            limit_bytes=timing.LARGE_ANSWER_LIMIT_BYTES,
        )

    async def pin_session(self, task_id: str, session_id: str | None, work_dir: str | None) -> None:
        """Tell session and directory as soon as they are known, so that a later run can resume."""
        if not session_id and not work_dir:
            raise ValueError("nothing to pin")
        request = wire.SessionRequest(session_id=session_id or None, work_dir=work_dir or None)
        await self._tell(f"{_task(task_id)}/session", request, timeout_s=self.timeouts.pin_s)

    async def usage(self, task_id: str, usage: list[wire.Usage]) -> None:
        """Tokens by model; the same again replaces, it does not add."""
        await self._tell(f"{_task(task_id)}/usage", wire.UsageRequest(usage=usage))

    async def complete(self, task_id: str, result: wire.CompleteRequest) -> str:
        """Report success. Returns the status that the task then has: another one if it was not running."""
        return (await self._ask(_TaskRow, f"{_task(task_id)}/complete", result)).status

    async def fail(self, task_id: str, result: wire.FailRequest) -> str:
        """Report a failure. Returns the status that the task then has."""
        return (await self._ask(_TaskRow, f"{_task(task_id)}/fail", result)).status

    async def cancel_ack(self, task_id: str, request: wire.CancelAckRequest) -> None:
        """The run of a cancelled task is over, nothing more comes. Not said again to a server without it."""
        if not self._settles_cancels:
            return
        try:
            await self._tell(f"{_task(task_id)}/cancel-ack", request)
        except errors.PermanentError as error:
            if error.status not in (404, 405):
                raise
            if '"error"' not in error.body:  # else it knows the route and will not tell us of the task
                self._settles_cancels = False  # an earlier server, which does not wait for it

    # --- clean-up ----------------------------------------------------------------------------------

    async def gc_check(self, subject: GcSubject, ident: str) -> GcCheck:
        """Whether an issue, a conversation, an autopilot's run or a task goes on.

        Raises:
            ServerError: with status 404 the server does not have it, or not for us.
        """
        return await self._get(GcCheck, f"/api/daemon/{subject}/{_segment(ident)}/gc-check")

    # --- websocket ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def websocket(
        self, runtime_ids: Iterable[str], *, handshake_s: float, close_s: float, limit_bytes: int
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """An open websocket for these runtimes, closed at the end of the block. Pings are the caller's.

        Raises:
            ServerError: the handshake failed (refused: by its HTTP status).
        """
        path = "/api/daemon/ws"
        query = urllib.parse.quote(",".join(sorted(runtime_ids)), safe=",")
        token = self._credential("GET", path)
        pool = self._take("GET", path)
        try:
            try:
                async with asyncio.timeout(handshake_s):
                    socket = await pool.session.ws_connect(
                        yarl.URL(f"{self.base_url}{path}?runtime_ids={query}", encoded=True),
                        headers=self._headers(token),
                        timeout=aiohttp.ClientWSTimeout(ws_close=close_s),
                        autoping=False,
                        max_msg_size=limit_bytes + 1,  # aiohttp refuses at the limit, the protocol above it
                        proxy=self._proxy,
                    )
            except aiohttp.WSServerHandshakeError as error:
                if error.status >= 400:
                    patience = error.headers.get("Retry-After") if error.headers else None
                    raise _refusal("GET", path, error.status, "", patience) from None
                cause = f"no websocket: status {error.status}"
                raise NoAnswerError("GET", path, "not_the_server", cause, maybe_applied=False) from None
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise _no_answer("GET", path, error, handshake_s) from error
            try:
                yield socket
            finally:
                await _close_quietly(socket, close_s)
        finally:
            await self._give_back(pool)

    # --- transport ---------------------------------------------------------------------------------

    async def _get(
        self,
        kind: type[T],
        path: str,
        *,
        timeout_s: float | None = None,
        limit_bytes: int = timing.ANSWER_LIMIT_BYTES,
    ) -> T:
        answer = await self._exchange("GET", path, None, timeout_s=timeout_s, limit_bytes=limit_bytes)
        return _decoded("GET", path, answer.data, kind)

    async def _ask(
        self,
        kind: type[T],
        path: str,
        request: Any = None,
        *,
        timeout_s: float | None = None,
        limit_bytes: int = timing.ANSWER_LIMIT_BYTES,
    ) -> T:
        body = b"{}" if request is None else msgspec.json.encode(request)
        answer = await self._exchange("POST", path, body, timeout_s=timeout_s, limit_bytes=limit_bytes)
        return _decoded("POST", path, answer.data, kind)

    async def _tell(
        self, path: str, request: Any = None, *, encoded: bytes | None = None, timeout_s: float | None = None
    ) -> None:
        """A POST whose answer is drained and not needed."""
        body = encoded
        if body is None:
            body = b"{}" if request is None else msgspec.json.encode(request)
        await self._exchange("POST", path, body, timeout_s=timeout_s)

    async def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        *,
        timeout_s: float | None = None,
        limit_bytes: int = timing.ANSWER_LIMIT_BYTES,
        etag: str | None = None,
    ) -> _Answer:
        total_s = timeout_s if timeout_s is not None else self.timeouts.control_s
        token = self._credential(method, path)
        headers = self._headers(token)
        if self._capabilities:
            headers[wire.CAPABILITIES_HEADER] = self._capabilities
        if etag is not None:
            headers["If-None-Match"] = etag
        content: bytes | io.BytesIO | None = body
        if body is not None:
            headers["Content-Type"] = "application/json"
            if len(body) > _RAW_BODY_LIMIT_BYTES:
                content = io.BytesIO(body)
        pool = self._take(method, path)
        try:
            async with pool.session.request(
                method,
                yarl.URL(self.base_url + path, encoded=True),
                data=content,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy,
                # Connecting has to fail first: only then is it certain that nothing was sent.
                timeout=aiohttp.ClientTimeout(
                    total=total_s, connect=min(self.timeouts.connect_s, total_s * 0.8)
                ),
            ) as answer:
                if answer.status >= 400:
                    text = await _error_text(answer)
                    if token:
                        text = text.replace(token, "…")  # a server may quote what it refuses
                    raise _refusal(method, path, answer.status, text, answer.headers.get("Retry-After"))
                if answer.status == 304 and etag is not None:
                    return _Answer(304, b"", etag)
                if answer.status >= 300:
                    raise NoAnswerError(
                        method,
                        path,
                        "not_the_server",
                        "sent elsewhere",
                        maybe_applied=False,
                        status=answer.status,
                    )
                data = await _limited(answer, limit_bytes)
                if data is None:
                    cause = f"an answer of more than {limit_bytes} bytes"
                    raise NoAnswerError(method, path, "too_large", cause, maybe_applied=True)
                if answer.content_type == "text/html":
                    cause = "an HTML page instead of an answer"
                    raise NoAnswerError(method, path, "not_the_server", cause, maybe_applied=True)
                return _Answer(answer.status, data, answer.headers.get("ETag", ""))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _no_answer(method, path, error, total_s) from error
        finally:
            await self._give_back(pool)

    def _credential(self, method: str, path: str) -> str:
        token = (self._token if isinstance(self._token, str) else self._token()).strip()
        if not token and self._needs_token:
            raise errors.UnauthorizedError(method, path, cause="there is no token")
        if not token.isascii() or not token.isprintable() or " " in token:
            raise errors.UnauthorizedError(method, path, cause="the token has characters that no token has")
        return token

    def _headers(self, token: str) -> dict[str, str]:
        headers = dict(self._client_headers)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _new_pool(self) -> _Pool:
        connector: aiohttp.BaseConnector
        # No limit on connections: slots bound the work, and a hanging request must not hold up a heartbeat.
        if self._unix_socket is not None:
            connector = aiohttp.UnixConnector(self._unix_socket, limit=0)
        else:
            connector = aiohttp.TCPConnector(
                limit=0,
                ssl=self._tls if self._tls is not None else True,
                resolver=self._resolver,
                keepalive_timeout=_KEEP_ALIVE_S,
            )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        return _Pool(session)

    def _take(self, method: str, path: str) -> _Pool:
        if self._pool is None:
            raise NoAnswerError(method, path, "closed", "the connection is closed", maybe_applied=False)
        self._pool.users += 1
        return self._pool

    async def _give_back(self, pool: _Pool) -> None:
        pool.users -= 1
        if pool.retired and pool.users == 0:
            await pool.session.close()


class _Answer(NamedTuple):
    """A success of the server, as it came."""

    status: int
    data: bytes
    etag: str


class _Pool:
    """A session with its connections. A retired one is closed by its last user."""

    __slots__ = ("retired", "session", "users")

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.users = 0
        self.retired = False


def _segment(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _runtime(runtime_id: str) -> str:
    return f"/api/daemon/runtimes/{_segment(runtime_id)}"


def _task(task_id: str) -> str:
    return f"/api/daemon/tasks/{_segment(task_id)}"


def _claimed(path: str, data: bytes, kind: type[T]) -> T:
    """The answer to a claim. Raises as ``ServerClient.claim_of_hub``."""
    try:
        return decode(data, kind)
    except msgspec.ValidationError as error:
        with contextlib.suppress(msgspec.DecodeError, AttributeError, LookupError, TypeError):
            said = msgspec.json.decode(data)
            task_id = (said.get("task") or said["tasks"][0]).get("id")
            if isinstance(task_id, str) and task_id:
                raise UnreadableTaskError("POST", path, task_id, str(error)) from error
        raise _unreadable("POST", path, error) from error
    except msgspec.DecodeError as error:
        raise _unreadable("POST", path, error) from error


def _decoded(method: str, path: str, data: bytes, kind: type[T]) -> T:
    if kind is _TaskRow and not data.strip():
        return kind()  # accepted without a word
    if get_origin(kind) is list and data.strip() == b"null":
        return kind()  # null arrays equal empty ones
    try:
        return decode(data, kind)
    except msgspec.DecodeError as error:
        raise _unreadable(method, path, error) from error


def _unreadable(method: str, path: str, error: msgspec.DecodeError) -> NoAnswerError:
    return NoAnswerError(method, path, "unreadable", f"not understood: {error}", maybe_applied=True)


async def _limited(answer: aiohttp.ClientResponse, limit_bytes: int) -> bytes | None:
    """The body, or None if it is larger than the limit (the connection is then not used again)."""
    parts: list[bytes] = []
    size = 0
    while part := await answer.content.readany():
        size += len(part)
        if size > limit_bytes:
            answer.close()
            return None
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _error_text(answer: aiohttp.ClientResponse) -> str:
    """The first 4096 bytes of an error's body; of a broken one what there is."""
    data = b""
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        while len(data) < errors.BODY_LIMIT_BYTES and (part := await answer.content.readany()):
            data += part
        if len(data) >= errors.BODY_LIMIT_BYTES:
            answer.close()
    return data[: errors.BODY_LIMIT_BYTES].decode("utf-8", "replace")


def _refusal(method: str, path: str, status: int, text: str, retry_after: str | None) -> errors.ServerError:
    error = errors.from_status(method, path, status, text)
    if isinstance(error, errors.TransientError):
        error.retry_after_s = parse_retry_after(retry_after, datetime.datetime.now(datetime.UTC))
        error.maybe_applied = status != 429
    return error


def parse_retry_after(value: str | None, now: datetime.datetime) -> float | None:
    """Seconds to wait by a ``Retry-After`` header (a number or a date), at most five minutes."""
    if not value:
        return None
    try:
        wanted_s = float(value)
    except ValueError:
        try:
            at = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        if at.tzinfo is None:
            at = at.replace(tzinfo=datetime.UTC)
        wanted_s = (at - now).total_seconds()
    if wanted_s != wanted_s:  # not a number
        return None
    return min(max(wanted_s, 0.0), timing.RETRY_AFTER_LIMIT_S)


def _no_answer(method: str, path: str, error: Exception, total_s: float) -> NoAnswerError:
    """What happened, in words of our own: a library's text may quote a request."""
    code, cause, maybe_applied = _diagnosis(error, total_s)
    return NoAnswerError(method, path, code, cause, maybe_applied=maybe_applied)


def _diagnosis(error: Exception, total_s: float) -> tuple[NoAnswerCode, str, bool]:
    # Order matters: the connect errors of aiohttp are OSErrors, its connect time-out is a TimeoutError.
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "name_not_resolved", f"the name {error.host} was not found", False
        case aiohttp.ClientConnectorCertificateError():
            return "tls", f"the certificate of {error.host} is not valid", False
        case aiohttp.ClientSSLError():
            return "tls", f"no secure connection to {error.host}", False
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno
            if number in _NETWORK_ERRNOS:
                return "network_unreachable", "the network cannot be reached", False
            if number in (errno.ECONNREFUSED, errno.ENOENT):
                return "refused", "connection refused", False
            return "connect_failed", "the connection failed", False
        case aiohttp.ClientHttpProxyError() | aiohttp.InvalidURL() | aiohttp.ServerFingerprintMismatch():
            return "connect_failed", "the connection failed", False
        case aiohttp.ConnectionTimeoutError():
            return "connect_timeout", "no connection in time", False
        case TimeoutError():
            return "timeout", f"no answer within {total_s:g} s", True
        case aiohttp.ClientPayloadError():
            return "cut_off", "the answer was cut off", True
        case aiohttp.ClientConnectionError() | OSError():
            return "reset", "the connection was lost before the answer", True
        case _:
            return "unreadable", "the answer is not HTTP", True


async def _close_quietly(socket: aiohttp.ClientWebSocketResponse, close_s: float) -> None:
    """Say goodbye, but not for long: the peer may be gone. A second cancellation just drops the socket."""
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(close_s * 2):
            await socket.close()
