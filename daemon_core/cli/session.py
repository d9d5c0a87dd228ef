"""One invocation: its options, its profile's directories, its line to the daemon, its way to print."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from daemon_core.cli.words import sentence

if TYPE_CHECKING:
    from daemon_core.control.client import ControlClient
    from daemon_core.settings.directories import Directories

RESTART_S: Final = 30.0
"""How long a command waits for a daemon that restarts, where it is known that there is one."""
_RETRY_S: Final = 0.1

_Answer = TypeVar("_Answer")


class Session:
    """State of one call of ``ostler``.

    Attributes:
        json: Whether ``--json`` was given: one document on stdout, everything for people on stderr.
        profile: The option's value; None: environment or default.
    """

    def __init__(self) -> None:
        self.json = False
        self.profile: str | None = None
        self._directories: Directories | None = None
        self._client: ControlClient | None = None

    @property
    def directories(self) -> Directories:
        if self._directories is None:
            from daemon_core.settings.directories import resolve

            self._directories = resolve(os.environ, self.profile)
        return self._directories

    @property
    def client(self) -> ControlClient:
        if self._client is None:
            from daemon_core.control.client import ControlClient

            self._client = ControlClient(self.directories.checked_socket())
        return self._client

    @property
    def inside_run(self) -> bool:
        """Whether this command was started by a task that Ostler runs."""
        return bool(os.environ.get("OSTLER_TASK_ID"))

    def call(
        self,
        kind: type[_Answer],
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_s: float | None = None,
    ) -> _Answer:
        """Ask the daemon. Inside a run there is one, so a missing one is waited for: it restarts."""
        return self.patiently(lambda: self.client.call(kind, method, path, body, timeout_s=timeout_s))

    def patiently(self, ask: Callable[[], _Answer], patience_s: float | None = None) -> _Answer:
        """``ask``, again and again while nothing listens: for ``patience_s``, or 30 s inside a run."""
        from daemon_core.control.client import DaemonUnreachableError
        from daemon_core.control.errors import ControlError

        if patience_s is None:
            patience_s = RESTART_S if self.inside_run else 0.0
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return ask()
            except DaemonUnreachableError as error:
                # Only where nothing listened: then the request was not taken, and asking again is no second
                # request.
                if error.why != "absent" or time.monotonic() >= deadline:
                    raise
            except ControlError as error:
                if error.code != "not_ready" or time.monotonic() >= deadline:
                    raise
            time.sleep(_RETRY_S)

    # --- printing ----------------------------------------------------------------------------------

    def document(self, value: Any) -> None:
        """Print the one JSON document."""
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))

    def line(self, value: Any) -> None:
        """Print one JSON object of a stream."""
        import msgspec

        click.echo(msgspec.json.encode(value))

    def say(self, message: str, hint: str = "") -> None:
        """Tell a person: on stdout, or on stderr where stdout belongs to JSON."""
        click.echo(sentence(message, hint), err=self.json)

    def note(self, message: str, hint: str = "") -> None:
        """Tell a person beside the result: always on stderr."""
        click.echo(sentence(message, hint), err=True)


def quoted(value: str) -> str:
    """A path segment for a request."""
    from urllib.parse import quote

    return quote(value, safe="")


def pages(path: str, **query: str | int | bool | None) -> str:
    """A path with its query; None and False are left out."""
    given = {name: value for name, value in query.items() if value not in (None, False)}
    if not given:
        return path
    return (
        path
        + "?"
        + "&".join(f"{name}={int(value) if value is True else value}" for name, value in given.items())
    )
