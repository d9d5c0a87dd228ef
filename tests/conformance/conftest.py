"""Which server is asked: a hub of its own for each test, or the one that the environment names.

``OSTLER_CONFORMANCE_SERVER`` and ``OSTLER_CONFORMANCE_TOKEN`` (a user's, ``mul_…``) name a server;
``OSTLER_CONFORMANCE_WORKSPACE`` a workspace of it, where none may be created. What the tests make there
stays.
"""

from __future__ import annotations

import collections
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from daemon_core.hub import Hub, routes
from tests.conformance.target import Scene, Target

_DAEMONS_OWN = (
    "4 Configuration and every timing constant",
    "5 Daemon life cycle",
    "21 Execution environment on disk",
    "22 Runtime brief and prompts",
    "23 Agent process environment",
    "24 Loopback endpoints and repository checkout",
    "26 Self-update",
)
_counts: collections.Counter[tuple[str, str]] = collections.Counter()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "section(number, title): what of the protocol a test is about")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            marks = [mark.args for mark in item.iter_markers("section")]
            assert marks, f"{item.nodeid} names no section"
            for number, title in marks:
                _counts[number, title] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if "OSTLER_CONFORMANCE_REPORT" not in os.environ:
        return
    terminalreporter.section("tests by section of the protocol")
    for (number, title), count in sorted(_counts.items(), key=lambda each: float(each[0][0])):
        terminalreporter.line(f"{count:4}  {number} {title}")
    for title in _DAEMONS_OWN:
        terminalreporter.line(f"   -  {title} (of the daemon alone: no server shows it)")


class ShiftedClock:
    """The real time, moved on as the test says."""

    def __init__(self) -> None:
        self._shift_s = 0.0

    def advance(self, seconds: float) -> None:
        self._shift_s += seconds

    def now(self) -> int:
        return time.time_ns() // 1000 + int(self._shift_s * 1_000_000)

    def monotonic(self) -> float:
        return time.monotonic() + self._shift_s


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    """The server under test."""
    named = os.environ.get("OSTLER_CONFORMANCE_SERVER", "")
    if named:
        made = Target(named, os.environ.get("OSTLER_CONFORMANCE_TOKEN", ""))
        async with aiohttp.ClientSession() as made.http:
            made.workspace_id = os.environ.get("OSTLER_CONFORMANCE_WORKSPACE", "") or await _workspace(made)
            yield made
        return
    clock = ShiftedClock()
    hub = await Hub.open(tmp_path / "hub.db", daemon_id="", clock=clock)
    hub.start_timers()
    application = web.Application()
    application.add_routes(routes(hub))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    made = Target(f"http://{host}:{port}", hub.credential)

    async def advance(seconds: float) -> None:
        clock.advance(seconds)
        await hub.sweep()

    async def daemon_token(daemon_id: str, workspace_id: str) -> str:
        return await hub.add_daemon_token(daemon_id, workspace_id=workspace_id)

    made.advance = advance
    made.mint_daemon_token = daemon_token
    async with aiohttp.ClientSession() as made.http:
        made.workspace_id = await _workspace(made)
        yield made
    await hub.close()
    await runner.cleanup()


async def _workspace(target: Target) -> str:
    """A workspace of the tests' own where one may be created, else the first there is."""
    listed = (await target.get("/api/workspaces")).ok()
    for each in listed:
        if each["name"] == "Conformance":
            return str(each["id"])
    made = await target.post("/api/workspaces", {"name": "Conformance", "slug": "conformance"})
    if made.status in (200, 201):
        return str(made.body["id"])
    if not listed:
        pytest.exit(f"the server has no workspace and lets none be created ({made.status})")
    return str(listed[0]["id"])


@pytest.fixture
async def scene(target: Target) -> AsyncIterator[Scene]:
    """What one test sets up."""
    made = Scene(target)
    yield made
    await made.close()
