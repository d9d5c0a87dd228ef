"""HTTP over the daemon's local socket with Qt's own network stack: no thread, nothing waits.

A request is one ``Call``; its answer comes by one of two callbacks, once, and never after ``cancel`` or after
the receiver is gone. Streams keep a connection each and have an access manager of their own, so that an open
transcript never holds up a click.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
from PySide6.QtCore import QByteArray, QObject, QUrl, Signal
from PySide6.QtNetwork import QNetworkAccessManager, QNetworkReply, QNetworkRequest

from daemon_core.control import pipes
from daemon_core.control.errors import ControlError

T = TypeVar("T")

TIMEOUT_MS: Final = 5_000
"""For an answer to anything that the daemon has at hand. One that does not come in that time: it hangs."""
WORK_TIMEOUT_MS: Final = 60_000
LINE_LIMIT_BYTES: Final = 64 * 1024 * 1024

Why = Literal["absent", "timeout", "broken", "foreign"]


class Unreachable(Exception):  # noqa: N818 - a value that is handed over, not only raised
    """No answer came. ``why``: nothing listens, nothing came in time, it broke off, it is not our daemon."""

    def __init__(self, why: Why, detail: str = "") -> None:
        super().__init__(why, detail)
        self.why = why
        self.detail = detail


Failure = Unreachable | ControlError


_NOT_CONNECTED: Final = frozenset(
    {
        QNetworkReply.NetworkError.ConnectionRefusedError,
        QNetworkReply.NetworkError.HostNotFoundError,
        QNetworkReply.NetworkError.RemoteHostClosedError,
        QNetworkReply.NetworkError.UnknownNetworkError,
    }
)


class Call(Generic[T]):
    """One request on its way. No ``QObject``: PySide mixes up the slots of generic ones."""

    def __init__(
        self,
        reply: QNetworkReply,
        kind: type[T],
        done: Callable[[T], None] | None,
        failed: Callable[[Failure], None] | None,
        over: Callable[[Call[Any]], None],
    ) -> None:
        self._reply = reply
        self._kind = kind
        self._done = done
        self._failed = failed
        self._over = over
        reply.finished.connect(self._on_finished)

    def cancel(self) -> None:
        """Want no answer any more; the daemon may do what was asked all the same."""
        self._done = self._failed = None
        if self._reply.isRunning():
            self._reply.abort()

    def _on_finished(self) -> None:
        done, failed = self._done, self._failed
        self._done = self._failed = None
        reply = self._reply
        try:
            answer = self._answer(reply)
        except (Unreachable, ControlError) as failure:
            if failed is not None:
                failed(failure)
        else:
            if done is not None:
                done(answer)
        finally:
            self._over(self)
            reply.deleteLater()

    def _answer(self, reply: QNetworkReply) -> T:
        status = status_of(reply)
        if status is None or reply.error() is QNetworkReply.NetworkError.OperationCanceledError:
            raise failure_of(reply)
        raw = bytes(reply.readAll().data())
        if status >= 400:
            raise refusal_of(status, raw)
        try:
            return msgspec.json.decode(raw or b"null", type=self._kind)
        except msgspec.MsgspecError as error:
            raise Unreachable("broken", f"an answer that makes no sense: {error}") from error


class LocalHttp(QObject):
    """Requests to one daemon."""

    def __init__(self, socket_path: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.socket_path = socket_path
        self._address = pipes.address(socket_path)
        self._manager = QNetworkAccessManager(self)
        self._calls: set[Call[Any]] = set()

    def call(
        self,
        kind: type[T],
        method: str,
        path: str,
        body: Any = None,
        *,
        done: Callable[[T], None] | None = None,
        failed: Callable[[Failure], None] | None = None,
        timeout_ms: int = TIMEOUT_MS,
    ) -> Call[T]:
        """Ask. ``kind`` is what the answer is decoded as; the callbacks run on the Qt thread."""
        request = self.request(path)
        request.setTransferTimeout(timeout_ms)
        data = QByteArray()
        if body is not None:
            request.setHeader(QNetworkRequest.KnownHeaders.ContentTypeHeader, "application/json")
            data = QByteArray(msgspec.json.encode(body))
        reply = self._manager.sendCustomRequest(request, QByteArray(method.encode()), data)
        reply.errorOccurred.connect(self._on_error)
        made = Call(reply, kind, done, failed, self._calls.discard)
        self._calls.add(made)
        return made

    def forget(self) -> None:
        """Connect anew for what is asked next."""
        self._manager.clearConnectionCache()

    def _on_error(self, error: QNetworkReply.NetworkError) -> None:
        # WORKAROUND for Qt 6.11: each refused connection to a local socket keeps one of a host's six channels
        # for ever, and the seventh request is never sent.
        if error in _NOT_CONNECTED:
            self._manager.clearConnectionCache()

    def stream(self, path: str, parent: QObject) -> LineStream:
        """A streamed answer, line by line, until it ends or ``parent`` goes."""
        return LineStream(self.request(path), parent)

    def request(self, path: str) -> QNetworkRequest:
        """A request for a path of the control API, over its socket."""
        local = "local+http" if sys.platform == "win32" else "unix+http"
        request = QNetworkRequest(QUrl(f"{local}://ostler{path}"))
        request.setAttribute(QNetworkRequest.Attribute.FullLocalServerNameAttribute, self._address)
        request.setRawHeader(b"Host", b"ostler")
        return request


class LineStream(QObject):
    """A streamed answer.

    Signals:
        lines(list[bytes]): Whole lines without their ends, as they come.
        ended(object): The stream is over: None where it is complete, else a ``Failure``.
    """

    lines = Signal(list)
    ended = Signal(object)

    def __init__(self, request: QNetworkRequest, parent: QObject) -> None:
        super().__init__(parent)
        manager = QNetworkAccessManager(self)
        self._rest = b""
        self._open = True
        self._reply = manager.get(request)
        self._reply.readyRead.connect(self._on_ready)
        self._reply.finished.connect(self._on_finished)

    def close(self) -> None:
        """End it from here; nothing is emitted any more."""
        if self._open:
            self._open = False
            self._reply.abort()
            self.deleteLater()

    def _on_ready(self) -> None:
        if not self._open or (status_of(self._reply) or 0) >= 400:
            return
        *whole, self._rest = (self._rest + bytes(self._reply.readAll().data())).split(b"\n")
        if len(self._rest) > LINE_LIMIT_BYTES:
            self._end(Unreachable("broken", "a line without an end"))
        elif whole:
            self.lines.emit(whole)

    def _on_finished(self) -> None:
        if not self._open:
            return
        status = status_of(self._reply)
        if status is None:
            self._end(failure_of(self._reply))
        elif status >= 400:
            self._end(refusal_of(status, bytes(self._reply.readAll().data())))
        elif self._reply.error() is not QNetworkReply.NetworkError.NoError:
            self._end(failure_of(self._reply))
        else:
            self._on_ready()
            self._end(None)

    def _end(self, failure: Failure | None) -> None:
        if self._open:
            self._open = False
            self.ended.emit(failure)
            self.deleteLater()


def status_of(reply: QNetworkReply) -> int | None:
    """The HTTP status; None where no answer came."""
    status = reply.attribute(QNetworkRequest.Attribute.HttpStatusCodeAttribute)
    return status if isinstance(status, int) else None


def failure_of(reply: QNetworkReply) -> Unreachable:
    """Why no answer came."""
    error = reply.error()
    names = QNetworkReply.NetworkError
    if error in (names.ConnectionRefusedError, names.HostNotFoundError):
        return Unreachable("absent", reply.errorString())
    if error in (names.TimeoutError, names.OperationCanceledError):
        return Unreachable("timeout", reply.errorString())
    return Unreachable("broken", reply.errorString())


def refusal_of(status: int, raw: bytes) -> Failure:
    """The refusal in an answer; one that is none comes from something that is not our daemon."""
    try:
        found = msgspec.json.decode(raw)
        error = found["error"]
        return ControlError(str(error["code"]), dict(error.get("params") or {}))
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return Unreachable("foreign", f"an answer {status} that is not the daemon's")
