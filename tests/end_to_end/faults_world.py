"""A home whose daemon has short periods towards servers, and what is true after any fault."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.end_to_end.home import OstlerHome, wait_until
from tests.end_to_end.servers_world import ServersWorld, aside
from tests.support.fake_server import TOKEN, FakeServer, FakeTask

HURRIED = Path(__file__).parents[1] / "support" / "hurried_daemon.py"


class HurriedHome(OstlerHome):
    """Polls, beats and retries every second or so instead of every half minute."""

    def launch(self, *, kill_at: str = "", **environ: str) -> subprocess.Popen[bytes]:
        env = {**self.environ, **environ}
        if kill_at:
            env["OSTLER_TEST_KILL_AT"] = kill_at
        with open(self.root / "daemon.out", "ab") as log:
            self.daemon = subprocess.Popen(
                [sys.executable, str(HURRIED)], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self.daemon


class FaultsWorld(ServersWorld):
    """One machine and what its tasks have written about themselves.

    A task of :meth:`add_logged` notes its begin and its end in a file, which tells who ran beside whom.
    """

    def __init__(self, home: HurriedHome) -> None:
        super().__init__(home)
        self.log = home.root / "tasks.log"

    async def sign_in(self, url: str, token: str = TOKEN) -> str:
        """Sign in; gives the connection's name."""
        said = await self.ostler("login", "--server", url, "--token-stdin", "--json", stdin=token)
        assert said.code == 0, said
        return str(said.document["connection"]["name"])

    def command(self, mark: str, seconds: float = 0.0, lines: int = 3) -> str:
        """A shell command that logs itself and says some lines."""
        said = f"for n in $(seq {lines}); do echo {mark} $n; done"
        return f"echo + {mark} >> {self.log}; {said}; sleep {seconds}; echo - {mark} >> {self.log}"

    def add_logged(
        self,
        server: FakeServer,
        runtime_id: str,
        mark: str,
        seconds: float = 0.0,
        lines: int = 3,
        *,
        hint: bool = True,
    ) -> FakeTask:
        """A task of a server for the shell that runs :meth:`command`."""
        said = self.command(mark, seconds, lines)
        return server.add_task(runtime_id, hint=hint, chat_session_id=f"chat-{mark}", chat_message=said)

    def check_log(self, slots: int) -> set[str]:
        """Promise P5, and no task begun twice; gives the marks of those that have begun."""
        running: set[str] = set()
        begun: set[str] = set()
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            sign, mark = line.split()
            if sign == "+":
                assert mark not in begun, f"{mark} was run twice"
                begun.add(mark)
                running.add(mark)
                assert len(running) <= slots, f"{len(running)} tasks at once with {slots} slots"
            else:
                running.discard(mark)
        return begun

    async def status(self) -> dict[str, Any]:
        return await aside(self.home.status)

    async def at_rest(self) -> None:
        """Wait until the daemon has nothing to do any more and no report is left.

        The journal says of a task that it is delivered a moment before the daemon is done with it. So the
        daemon is asked last: what it counts as here has an asyncio task of its own.
        """

        def rest() -> bool:
            return (
                self.home.status().get("active_runs") == 0
                and not self.home.journal(
                    "SELECT 1 FROM tasks WHERE state <> 'ended' OR delivery = 'pending'"
                )
                and not self.home.journal("SELECT 1 FROM outbox")
                and len(self.home.processes()) == 1
                and not any(each["tasks"] for each in self.home.call("GET", "/v1/connections"))
            )

        await aside(lambda: wait_until(rest, "the daemon to be at rest", 90))

    async def every_state_has_a_reason(self) -> None:
        """What is not green says why, since when, and what comes next."""
        for each in await aside(lambda: self.home.call("GET", "/v1/connections")):
            assert each["status"] in ("connected", "connecting") or each["reason"], each
            assert each["since"], each
        for runtime in await aside(lambda: self.home.call("GET", "/v1/runtimes")):
            assert runtime["status"] in ("online", "starting") or runtime["reason"], runtime


def check_served(
    server: FakeServer, tasks: Iterable[FakeTask], doubled: frozenset[str] = frozenset()
) -> None:
    """Promises P1 and P3 at the server.

    Args:
        doubled: ids of tasks whose messages were sent twice on the way: a server that refuses no doubles has
            them twice, and nobody here can help that.
    """
    for task in tasks:
        server.check_terminal(task.id)
        numbers = [message["seq"] for message in task.messages]
        if task.id in doubled:
            numbers = sorted(set(numbers))
        assert numbers == list(range(1, len(numbers) + 1)), f"{task.id}: {numbers}"
