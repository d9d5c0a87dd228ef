"""The server of the task that this command runs in: asked directly, with the task's own token.

A task's token is all that is ever used here. There is no way back to a credential of the user's: a command
that an agent runs acts for its task or not at all.
"""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit

import msgspec

from daemon_core.cli.session import RESTART_S, Session
from daemon_core.cli.words import (
    EXIT_CONFLICT,
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    CliError,
)
from daemon_core.protocol.verbs import Request

TIMEOUT_S: Final = 30.0
ANSWER_LIMIT_BYTES: Final = 32 * 1024 * 1024
PIECE_BYTES: Final = 256 * 1024
TRIES: Final = 4
"""For what may be asked twice, and for what a busy server has not taken."""
_PAUSES_S: Final = (0.5, 2.0, 4.0)
_PAUSE_LIMIT_S: Final = 20.0
_RETRY_S: Final = 0.25
_EXITS: Final = {
    400: EXIT_USAGE,
    401: EXIT_REFUSED,
    403: EXIT_REFUSED,
    404: EXIT_NOT_FOUND,
    409: EXIT_CONFLICT,
    413: EXIT_USAGE,
    422: EXIT_USAGE,
}
_PASSING: Final = frozenset({408, 429, 502, 503, 504})
_NOT_TAKEN: Final = frozenset({429, 503})
_ELSEWHERE: Final = frozenset({301, 302, 303, 307, 308})
REDIRECTS: Final = 5
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Answer(msgspec.Struct, kw_only=True):
    """What a server said to a request that it took."""

    body: Any
    headers: dict[str, str]
    """Names in lower case."""


class TaskServer:
    """The server of the task around this command.

    Attributes:
        implied: What the task itself says to a verb, see ``protocol.verbs.request_of``.
    """

    def __init__(self, url: str, token: str, environ: Mapping[str, str]) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._headers = {"Authorization": f"Bearer {token}", "X-Client-Platform": "cli"}
        self.implied: dict[str, Any] = {"workspace": environ.get("OSTLER_WORKSPACE_ID", "")}
        for header, name in (
            ("X-Workspace-ID", "OSTLER_WORKSPACE_ID"),
            ("X-Agent-ID", "OSTLER_AGENT_ID"),
            ("X-Task-ID", "OSTLER_TASK_ID"),
        ):
            if value := environ.get(name, ""):
                self._headers[header] = value
        if made_for := environ.get("OSTLER_QUICK_CREATE_TASK_ID", ""):
            self.implied |= {"origin_type": "quick_create", "origin_id": made_for}
            attached = environ.get("OSTLER_QUICK_CREATE_ATTACHMENT_IDS", "") or "[]"
            try:
                self.implied["attachment"] = msgspec.json.decode(attached, type=list[str])
            except ValueError as error:
                raise CliError(
                    "environment", f"OSTLER_QUICK_CREATE_ATTACHMENT_IDS cannot be read: {error}"
                ) from error

    def ask(self, request: Request) -> Answer:
        """Send a request and take its answer. Raises ``CliError``."""
        body = None if request.body is None else msgspec.json.encode(request.body)
        kind = {} if body is None else {"Content-Type": "application/json"}
        return self._ask(request.method, request.path, body, kind, again=request.method == "GET")

    def upload(self, path: str, name: str, data: bytes, fields: Mapping[str, str]) -> Answer:
        """Send a file as a form. Raises ``CliError``."""
        boundary = f"ostler-{secrets.token_hex(16)}"
        parts: list[bytes] = []
        for field, value in fields.items():
            parts.append(
                f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
            )
        shown = "".join(c for c in name if c not in '"\\\r\n') or "file"
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{shown}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode()
        )
        parts += [data, f"\r\n--{boundary}--\r\n".encode()]
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self._ask("POST", path, b"".join(parts), kind, again=False)

    def fetch(self, url: str, into: int, limit_bytes: int, *, sent_on: int = 0) -> int:
        """Write what is at a URL (of this server, or wherever it keeps files) to a descriptor; its size.

        The token goes to this server and nowhere else, wherever we are sent on to. Raises ``CliError``, and
        ``OSError`` where the descriptor takes no more.
        """
        full = url if "://" in url else f"{self.url}/{url.lstrip('/')}"
        own = _origin(full) == _origin(self.url)
        address = urlsplit(full)
        if address.scheme not in ("http", "https"):
            raise CliError("bad_answer", f"The server named a download address of the kind {address.scheme}")
        way = _Way(full)
        connection = way.connection
        taken = 0
        disk: OSError | None = None
        try:
            where = (address.path or "/") + (f"?{address.query}" if address.query else "")
            headers = {**way.headers, **self._headers} if own else way.headers
            connection.request("GET", way.before + where, headers=headers)
            answer = connection.getresponse()
            if answer.status in _ELSEWHERE and (place := answer.headers.get("Location")):
                if sent_on >= REDIRECTS:
                    raise CliError("bad_answer", "The server sends the download from one place to the next")
                return self.fetch(urljoin(full, place), into, limit_bytes, sent_on=sent_on + 1)
            if answer.status != 200:
                raise _refused(answer.status, answer.read(4096))
            while piece := answer.read(PIECE_BYTES):
                taken += len(piece)
                if taken > limit_bytes:
                    raise CliError("too_large", f"The file is larger than {limit_bytes} bytes")
                try:
                    while piece:
                        piece = piece[os.write(into, piece) :]
                except OSError as error:
                    disk = error
                    raise
        except (OSError, http.client.HTTPException) as error:
            if error is disk:
                raise
            raise _unreachable(full, error) from error
        finally:
            connection.close()
        return taken

    def _ask(
        self, method: str, path: str, body: bytes | None, more: Mapping[str, str], *, again: bool
    ) -> Answer:
        # The hub goes away with the daemon for a moment, whenever that restarts.
        absent_until = time.monotonic() + (RESTART_S if urlsplit(self.url).hostname in _LOOPBACK else 0.0)
        tries = 0
        while True:
            try:
                status, headers, said = self._once(method, path, body, {**self._headers, **more})
            except ConnectionRefusedError as error:  # nobody has taken it: asking again is no second request
                if time.monotonic() >= absent_until:
                    raise _unreachable(self.url, error) from error
                time.sleep(_RETRY_S)
                continue
            except (OSError, http.client.HTTPException) as error:
                tries += 1
                if not again or tries >= TRIES:
                    raise _unreachable(self.url, error, sent=not again) from error
                time.sleep(_PAUSES_S[tries - 1])
                continue
            if status < 400:
                return Answer(body=_decoded(said), headers=headers)
            tries += 1
            if tries >= TRIES or status not in (_PASSING if again else _NOT_TAKEN):
                raise _refused(status, said)
            time.sleep(_pause(headers, tries))

    def _once(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        way = _Way(self.url)
        connection = way.connection
        try:
            where = way.before + urlsplit(self.url).path + path
            connection.request(method, where, body, {**way.headers, **headers})
            answer = connection.getresponse()
            said = answer.read(ANSWER_LIMIT_BYTES + 1)
        finally:
            connection.close()
        if len(said) > ANSWER_LIMIT_BYTES:
            raise CliError("too_large", "The server's answer is too large to take")
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, said


def task_server(session: Session) -> TaskServer:
    """The server of the task around this command. Raises ``CliError`` outside a task."""
    url, token = (os.environ.get(name, "").strip() for name in ("OSTLER_SERVER_URL", "OSTLER_TOKEN"))
    if not session.inside_run or not url or not token:
        raise CliError(
            "not_in_a_task",
            "This works inside a task only: it acts for the task at its server",
            "Outside, use the server's own interface",
            EXIT_USAGE,
        )
    if not token.startswith("mat_"):
        raise CliError("refused", "OSTLER_TOKEN is not a task's token", "", EXIT_REFUSED)
    return TaskServer(url, token, os.environ)


class _Way:
    """How a server is reached: straight, or through the proxy that the environment names, as by the daemon.

    Attributes:
        connection: Not open yet.
        before: Goes before the path of a request.
        headers: For the proxy.
    """

    def __init__(self, url: str) -> None:
        from daemon_core.settings.proxies import proxy_for

        address = urlsplit(url)
        host, port = address.hostname or "127.0.0.1", address.port
        secure = address.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self.before = ""
        self.headers: dict[str, str] = {}
        found = proxy_for(url, os.environ)
        if found is None:
            self.connection = kind(host, port, timeout=TIMEOUT_S)
            return
        proxy = urlsplit(found)
        self.connection = kind(proxy.hostname or "", proxy.port or 80, timeout=TIMEOUT_S)
        known = {}
        if proxy.username:
            login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            known["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        if secure:
            self.connection.set_tunnel(host, port, known)
        else:
            self.before, self.headers = f"http://{address.netloc}", known


def _origin(url: str) -> tuple[str, str | None, int | None]:
    address = urlsplit(url)
    port = address.port or {"http": 80, "https": 443}.get(address.scheme)
    return address.scheme, address.hostname, port


def _decoded(said: bytes) -> Any:
    if not said.strip():
        return None
    try:
        return msgspec.json.decode(said)
    except ValueError as error:
        raise CliError("bad_answer", f"The server's answer cannot be read: {error}") from error


def _pause(headers: Mapping[str, str], tries: int) -> float:
    after = headers.get("retry-after", "")
    return min(float(after), _PAUSE_LIMIT_S) if after.isdigit() else _PAUSES_S[tries - 1]


def _refused(status: int, said: bytes) -> CliError:
    try:
        found = msgspec.json.decode(said)
        text = found.get("error") if isinstance(found, dict) else ""
    except (msgspec.MsgspecError, UnicodeDecodeError):
        text = ""  # a page of a proxy, say
    if not isinstance(text, str) or not text.strip():
        text = "no reason was given"
    code = {401: "refused", 403: "refused", 404: "not_found", 409: "conflict"}.get(status, "server_refused")
    message = f"The server answered {status}: {' '.join(text.split())[:600]}"
    hint = "The task may have ended at its server" if status == 401 else ""
    return CliError(code, message, hint, _EXITS.get(status, EXIT_FAILED))


def _unreachable(url: str, error: Exception, *, sent: bool = False) -> CliError:
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    hint = "It may have been done all the same: look before you try again" if sent else "Try again later"
    return CliError(
        "server_unreachable",
        f"The server {urlsplit(url).netloc} does not answer: {what}",
        hint,
        EXIT_UNREACHABLE,
    )
