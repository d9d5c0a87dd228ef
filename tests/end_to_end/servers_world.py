"""A home with the real daemon and command line, and servers of the protocol on real sockets beside it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.end_to_end.home import PATIENCE_S, OstlerHome, wait_until
from tests.support.fake_server import TOKEN, FakeRuntime, FakeServer, FakeTask
from tests.support.fault_proxy import FaultProxy

T = TypeVar("T")

TREE = Path(__file__).parents[2]


@dataclass
class Said:
    """What a call of the command line did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """Of ``{"error": …}``."""
        found: dict[str, str] = self.document["error"]
        return found


async def aside(work: Callable[[], T]) -> T:
    """Something that blocks, while the servers go on."""
    return await asyncio.to_thread(work)


class ServersWorld:
    """The home's own functions block: call them through ``aside``."""

    def __init__(self, home: OstlerHome) -> None:
        self.home = home

    async def start(self, **environ: str) -> None:
        await aside(lambda: self.home.start(**environ))

    async def restart(self) -> None:
        await aside(self.home.kill)
        await self.start()

    async def ostler(self, *arguments: str, stdin: str = "", **environ: str) -> Said:
        """Call the command line."""

        def call() -> Said:
            done = subprocess.run(
                [sys.executable, "-m", "daemon_core.cli", *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                env={**self.home.environ, **environ},
                cwd=TREE,
                check=False,
            )
            return Said(done.returncode, done.stdout, done.stderr)

        return await aside(call)

    async def login(self, server: FakeServer, token: str = TOKEN) -> dict[str, Any]:
        """Sign in; gives the answer's document."""
        said = await self.ostler("login", "--server", server.url, "--token-stdin", "--json", stdin=token)
        assert said.code == 0, said
        found: dict[str, Any] = said.document
        return found

    async def connection(self, name: str) -> dict[str, Any]:
        """One of ``/v1/connections``."""
        found = await aside(lambda: self.home.call("GET", "/v1/connections"))
        (one,) = [each for each in found if each["name"] == name]
        return dict(one)

    async def wait_status(self, name: str, status: str) -> dict[str, Any]:
        """Wait until a connection has this status; gives it."""

        def reached() -> dict[str, Any] | None:
            for each in self.home.call("GET", "/v1/connections"):
                if each["name"] == name and each["status"] == status:
                    return dict(each)
            return None

        found: dict[str, Any] = await aside(
            lambda: wait_until(reached, f"{name} to be {status}: {self.home.said()[-1500:]}")
        )
        return found

    async def runtime(self, server: FakeServer, provider: str = "shell") -> FakeRuntime:
        """Wait until a provider is registered; gives its runtime."""

        def there() -> list[FakeRuntime]:
            return [each for each in server.runtimes.values() if each.provider == provider and each.online]

        await server.until(lambda: bool(there()), PATIENCE_S)
        return there()[0]

    async def add(self, server: FakeServer, command: str) -> FakeTask:
        """A task of a server for the shell."""
        runtime = await self.runtime(server)
        number = len(server.tasks) + 1
        return server.add_task(runtime.id, chat_session_id=f"chat-{number}", chat_message=command)

    async def ended(self, server: FakeServer, task: FakeTask) -> None:
        await server.until(lambda: task.status in ("completed", "failed"), PATIENCE_S)


def name_of(server: FakeServer | FaultProxy) -> str:
    """What the connection to a server of the tests, or to what stands before it, is called."""
    return "127.0.0.1-" + server.url.rpartition(":")[2]
