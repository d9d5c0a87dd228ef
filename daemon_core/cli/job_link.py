"""Where questions about jobs go: inside a task to the loopback port with the task's token, else to the
control socket. Either way a daemon that restarts is waited for; what may be asked twice is asked again.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final, TypeVar

import msgspec

from daemon_core.cli.session import RESTART_S, Session
from daemon_core.cli.words import EXIT_UNREACHABLE, CliError
from daemon_core.control.client import DaemonUnreachableError
from daemon_core.control.errors import ControlError

TIMEOUT_S: Final = 60.0
"""For an answer: a start may have to wait for the disk, and a question waits up to 30 s for news."""
_RETRY_S: Final = 0.2
_ANSWER_LIMIT_BYTES: Final = 64 * 1024 * 1024

T = TypeVar("T")


class JobLink:
    """Asks the daemon about jobs.

    Attributes:
        inside: Whether this is asked from inside a task, for its conversation.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._url = os.environ.get("OSTLER_CONTROL_URL", "").rstrip("/")
        self._token = os.environ.get("OSTLER_TOKEN", "").strip()
        self.inside = session.inside_run and bool(self._url and self._token)
        self._reached = False

    def ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        body: Any = None,
        *,
        again: bool = True,
        deadline: float | None = None,
    ) -> T:
        """One question below ``/jobs`` and its answer.

        Args:
            again: It may be asked twice, so an answer that was lost on the way is asked for once more.
            deadline: On the monotonic clock: no further try after it.

        Raises:
            ControlError: A refusal.
            DaemonUnreachableError, CliError: No answer.
        """
        patient = self.inside or self._reached
        until = time.monotonic() + (RESTART_S if patient else 0.0)
        while True:
            try:
                found = self._once(kind, method, path, body)
            except DaemonUnreachableError as error:
                # Where nothing listened the request was not taken: that is never a second one.
                lost = error.why not in ("absent", "foreign")
                if error.why == "foreign" or (lost and not again):
                    raise
                if lost and not patient:
                    patient, until = True, time.monotonic() + RESTART_S
                failed: Exception = error
            except ControlError as error:
                if error.code != "not_ready":
                    raise
                failed = error
            else:
                self._reached = True
                return found
            now = time.monotonic()
            if now >= until or (deadline is not None and now >= deadline):
                raise failed
            time.sleep(_RETRY_S)

    def _once(self, kind: type[T], method: str, path: str, body: Any) -> T:
        if not self.inside:
            return self._session.client.call(kind, method, f"/v1{path}", body, timeout_s=TIMEOUT_S)
        import http.client
        from urllib.parse import urlsplit

        address = urlsplit(self._url)
        connection = http.client.HTTPConnection(
            address.hostname or "127.0.0.1", address.port, timeout=TIMEOUT_S
        )
        content = msgspec.json.encode(body) if body is not None else None
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, f"/v1/task{path}", content, headers)
            answer = connection.getresponse()
            status, said = answer.status, answer.read(_ANSWER_LIMIT_BYTES)
        except ConnectionRefusedError as error:
            raise DaemonUnreachableError("absent", str(error)) from error
        except TimeoutError as error:
            raise DaemonUnreachableError("timeout") from error
        except (OSError, http.client.HTTPException) as error:
            raise DaemonUnreachableError("broken", str(error)) from error
        finally:
            connection.close()
        if status >= 400:
            raise _refusal(status, said)
        try:
            return msgspec.json.decode(said, type=kind)
        except msgspec.MsgspecError as error:
            raise DaemonUnreachableError("broken", f"an answer that makes no sense: {error}") from error


def _refusal(status: int, said: bytes) -> Exception:
    try:
        error = msgspec.json.decode(said)["error"]
        code, params = str(error["code"]), dict(error.get("params") or {})
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        return CliError("bad_answer", f"The daemon answered {status}", "", EXIT_UNREACHABLE)
    if code == "refused_peer" and params.get("why") == "credential":
        return CliError(
            "refused",
            "The task that this belongs to has ended",
            "Its jobs go on; the user sees them with `ostler job list`",
            4,
        )
    return ControlError(code, params, status)
