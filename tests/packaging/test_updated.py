"""Installed Ostler brings itself up to date, and no task notices: from the .deb and from the archive, by the
tray's entry, with versions that work and with versions that are broken in every way there is.

One build, stamped: the versions differ in what they say they are, and the broken ones in their daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from building import manifest
from building.installers import layout, linux
from releasing import archives, publishing
from tests.desktop.host import Host, make_host
from tests.desktop.screen import x_server
from tests.end_to_end.home import wait_until
from tests.packaging.conftest import Stamp, needs_root
from tests.packaging.machine import DebPackages, Tarball, User
from tests.packaging.releases import Releases
from tests.support.claude_cli import claude_env, require_claude
from tests.support.model_server import CallTool, ModelServer, Say
from tests.updates.mirror import Mirror

pytestmark = [
    pytest.mark.root, needs_root, pytest.mark.claude, pytest.mark.xdist_group("dpkg"),
    pytest.mark.timeout(900),
]  # fmt: skip

OLD, NEW = "1.0.0", "1.2.0"
BROKEN = {
    "crash": "1.1.1", "journal": "1.1.2", "late-crash": "1.1.3", "hang": "1.1.4", "no-health": "1.1.5",
}  # fmt: skip
PATIENCE_S = 120.0
TRIAL = {"healthy_s": 15.0, "settle_s": 8.0}
"""A version has this long here to prove itself."""
LATE_S = 4.0
"""A version that crashes late does so before it has settled, mostly after it was found healthy."""


@dataclass
class Story:
    """One user with Ostler installed at ``OLD``, its desktop, and two tasks that go on for long."""

    user: User
    ostler: str | Path
    releases: Releases
    stamped: Stamp
    host: Host
    door: Path
    tasks: dict[str, str]

    async def publish(self, version: str, broken: str | None = None) -> None:
        """Offer a version to everybody; a broken one comes without what only a desktop needs."""
        payload = await asyncio.to_thread(self.stamped, version, broken, LATE_S)
        if broken is not None:
            payload = await asyncio.to_thread(lean, payload)
        await asyncio.to_thread(partial(archives.pack, payload, self.releases.dist, fast=True))
        found = list(self.releases.dist.glob(f"*-{version}-*"))
        notes = {"en": [f"What is new in {version}."]}
        offer = partial(publishing.publish, self.releases.repository(), self.releases.ring(), version)
        await asyncio.to_thread(offer, found, notes, deltas_from=0)

    async def update(self, version: str) -> dict[str, Any]:
        """Update by the tray's entry; what became of it."""
        before = len((await self.status())["history"])
        await asyncio.to_thread(self.user.run, self.ostler, "update", "check")
        await self.host.until_row(f"Restart to update to {version}")
        await self.host.click("Restart now; tasks go on")
        return await self.until(lambda told: told["history"][: len(told["history"]) - before], "its end")

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = await asyncio.to_thread(self.user.json, self.ostler, "update", "status")
        return found

    async def until(self, found: Callable[[dict[str, Any]], list[Any]], what: str) -> dict[str, Any]:
        """The first of what is looked for, once the daemon of whatever version has it."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            told: dict[str, Any] = {}
            with contextlib.suppress(AssertionError):  # no daemon for a moment
                told = await self.status()
                if entries := found(told):
                    return dict(entries[0])
            assert asyncio.get_running_loop().time() < deadline, f"waited for {what}: {told}"
            await asyncio.sleep(0.2)

    def version(self) -> str:
        return str(self.user.json(self.ostler, "daemon", "status")["version"])

    def check_running(self) -> None:
        """Nothing of what goes on was touched."""
        for task in self.tasks.values():
            shown = self.user.json(self.ostler, "task", "show", task)
            assert shown["status"] == "running", shown
            assert len(shown["runs"]) == 1, shown

    def check_ended(self) -> None:
        """Both tasks end well, each told once, with every line."""
        self.door.touch()
        for task in self.tasks.values():
            shown = partial(self.user.json, self.ostler, "task", "show", task)
            wait_until(partial(_over, shown), f"task {task} to end", PATIENCE_S)
            found = shown()
            assert (found["status"], len(found["runs"])) == ("completed", 1), found
        lines = self.transcript(self.tasks["shell"])
        text = "".join(line.get("content", "") for line in lines).split("\n")
        told = [line for line in text if line.startswith("line ")]
        assert told == [f"line {number}" for number in range(1, len(told) + 1)]
        assert f"end {len(told)}" in text
        assert len(told) > 50
        claude = self.transcript(self.tasks["claude"])
        assert [line.get("output", "") for line in claude if line["type"] == "tool_result"] == [
            "through the door"
        ]
        assert [line["content"] for line in claude if line["type"] == "text"][-1] == "Nothing was lost."
        assert self.user.json(self.ostler, "daemon", "status")["undelivered"] == 0

    def transcript(self, task: str) -> list[dict[str, Any]]:
        said = self.user.run(self.ostler, "task", "logs", task, "--json")
        lines: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
        return lines


def _alone(user: User) -> bool:
    return len(user.processes("ostlerd")) == 1


def _over(shown: Callable[[], dict[str, Any]]) -> bool:
    return bool(shown()["status"] != "running")


def lean(payload: Path) -> Path:
    """The same version without Qt: its daemon is all that is tried."""
    out = payload.with_name(f"{payload.name}-lean")
    if not out.exists():
        without = shutil.ignore_patterns("PySide6", "shiboken6", "ostler-desktop", "manifest.json")
        shutil.copytree(payload, out, symlinks=True, copy_function=os.link, ignore=without)
        manifest.write_manifest(out)
    return out


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "releases").init()


@pytest.fixture
async def mirror(releases: Releases) -> AsyncIterator[Mirror]:
    async with Mirror(releases.place / "repo") as serving:
        yield serving


@pytest.fixture
def source(bundle: layout.Source, stamped: Stamp, releases: Releases, mirror: Mirror) -> layout.Source:
    """What the installers are made of: the old version, told where newer ones are."""
    return layout.Source(
        payload=stamped(OLD), launcher=bundle.launcher, trial=TRIAL, url=f"{mirror.url}/metadata",
        targets_url=f"{mirror.url}/targets", root=releases.place / "repo/metadata/1.root.json",
    )  # fmt: skip


@contextlib.asynccontextmanager
async def begun(
    user: User,
    ostler: str | Path,
    program: str | Path,
    releases: Releases,
    stamped: Stamp,
    model: ModelServer,
) -> AsyncIterator[Story]:
    """Start the desktop as this user does, and two tasks."""
    door = user.home / "door"
    claude = require_claude().resolve()
    (modules,) = [path for path in claude.parents if path.name == "node_modules"]
    shutil.copytree(modules, user.home / "node_modules", symlinks=True, copy_function=_share)
    bin_dir = user.home / "bin"
    bin_dir.mkdir()
    (bin_dir / "claude").symlink_to(user.home / "node_modules" / claude.relative_to(modules))
    name = f"update{os.getpid()}"
    found = claude_env(user.home / "unused", model.url(name))
    user.environ |= {key: value for key, value in found.items() if key not in ("PATH", "HOME")}
    user.environ["PATH"] = f"{bin_dir}:{user.environ['PATH']}"
    waits = f"while [ ! -e {door} ]; do sleep 0.1; done; echo through the door"
    model.scenario(name, [
        CallTool("Bash", {"command": waits, "timeout": 600_000}),
        Say("Nothing was lost."),
    ])  # fmt: skip
    with x_server() as display, user.bus() as address:
        host = await make_host(address)
        with user.desktop(program, "--background", display=display), _told(user):
            await host.until_row("Nothing is running")
            lines = f"i=0; while [ ! -e {door} ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo end $i"
            add = partial(user.json, ostler, "task", "add")
            tasks = {
                "shell": (await asyncio.to_thread(add, "--runtime", "shell", lines))["id"],
                "claude": (await asyncio.to_thread(add, "--runtime", "claude", "Wait at the door"))["id"],
            }
            await host.until_row("2 tasks are running")
            yield Story(user, ostler, releases, stamped, host, door, tasks)
            for process in user.processes("ostler-desktop"):
                process.terminate()
                await asyncio.to_thread(process.wait, PATIENCE_S)
        host.bus.disconnect()


@contextlib.contextmanager
def _told(user: User) -> Iterator[None]:
    """What the programs said goes with a failure: the home does not outlive it."""
    try:
        yield
    except BaseException as error:
        for path in (user.home / "desktop.out", user.state / "logs" / "daemon.log"):
            with contextlib.suppress(FileNotFoundError):
                error.add_note(f"{path.name}: {path.read_text()[-4000:]}")
        raise


def _share(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


async def test_versions_that_do_not_work_and_one_that_does_after_the_deb(
    debs: DebPackages,
    user: User,
    source: layout.Source,
    releases: Releases,
    stamped: Stamp,
    model: ModelServer,
) -> None:
    debs.install(await asyncio.to_thread(debs.make, source))
    async with begun(user, "ostler", "ostler-desktop", releases, stamped, model) as story:
        assert await asyncio.to_thread(story.version) == OLD
        for broken, version in BROKEN.items():
            await story.publish(version, broken)
            became = await story.update(version)
            assert (became["version"], became["result"]) == (version, "rolled_back"), (broken, became)
            await story.host.until_row("2 tasks are running")
            assert await asyncio.to_thread(story.version) == OLD
            # Desktop and guard may both have started one: the second finds the first and goes.
            await asyncio.to_thread(wait_until, partial(_alone, user), "one daemon", PATIENCE_S)
            await asyncio.to_thread(story.check_running)
        await story.publish(NEW)
        became = await story.update(NEW)
        assert (became["version"], became["result"]) == (NEW, "committed"), became
        await asyncio.to_thread(story.check_ended)


async def test_an_update_after_the_archive_takes_the_desktop_along(
    source: layout.Source, user: User, releases: Releases, stamped: Stamp, model: ModelServer, tmp_path: Path
) -> None:
    tarball = Tarball(user, await asyncio.to_thread(linux.tarball, source, tmp_path, fast=True))
    await asyncio.to_thread(tarball.install)
    program = tarball.program("ostler-desktop")
    async with begun(user, tarball.program(), program, releases, stamped, model) as story:
        (before,) = user.processes("ostler-desktop")
        await story.publish(NEW)
        became = await story.update(NEW)
        assert (became["version"], became["result"]) == (NEW, "committed"), became
        await asyncio.to_thread(before.wait, PATIENCE_S)  # the old desktop goes by itself
        (after,) = user.processes("ostler-desktop")
        assert Path(after.exe()).parent.name == NEW
        await story.host.until_row("2 tasks are running")
        await asyncio.to_thread(story.check_running)
        await asyncio.to_thread(story.check_ended)
        assert await asyncio.to_thread(story.version) == NEW
