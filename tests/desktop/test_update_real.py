"""An installed desktop and its daemon become the next version: published, fetched, chosen in the tray."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_core.upkeep import platform_name
from releasing import archives
from releasing.client import served
from tests.desktop.host import PATIENCE_S, make_host
from tests.desktop.screen import session_bus, until_running, x_server
from tests.end_to_end import test_updates as installed
from tests.end_to_end.home import check_transcript, wait_until
from tests.end_to_end.test_update_flow import VERSION, Published
from tests.updates.payloads import write_manifest, write_payload

DESKTOP = Path(__file__).parents[1] / "support" / "payload_desktop.py"


def program(version: str) -> str:
    return f'#!/bin/sh\nexec "{sys.executable}" "{DESKTOP}" {version} "$@"\n'


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Published]:
    home = installed.InstalledHome(tmp_path / "home")
    home.environ |= {"OSTLER_UPDATES_AUTOMATIC": "false", "OSTLER_TEST_SETTLE": "0.3"}
    seed = home.root / "installed" / "payload" / installed.OLD
    (seed / "ostler-desktop").write_text(program(installed.OLD))
    write_manifest(seed, installed.OLD)
    (tmp_path / "releases" / "repo").mkdir(parents=True)
    (home.root / "daemon.out").touch()  # here the desktop starts the daemon
    try:
        with served(tmp_path / "releases" / "repo") as url:
            yield Published(home, tmp_path / "releases", url)
    finally:
        home.close()


def publish(published: Published, version: str) -> None:
    programs = {**installed.programs(version, "good"), "ostler-desktop": program(version)}
    place = write_payload(published.releases.place / "made" / version, version, programs)
    about = {"format": 1, "version": version, "platform": platform_name(), "journal": 1}
    (place / "payload.json").write_text(json.dumps(about))
    write_manifest(place, version)
    archives.pack(place, published.releases.dist)
    published.releases.publish(version)


async def test_the_trays_entry_brings_daemon_and_desktop_to_the_next_version(
    published: Published, tmp_path: Path
) -> None:
    home = published.home
    with x_server() as display, session_bus(tmp_path) as address:
        host = await make_host(address)
        with open(home.root / "desktop.out", "ab") as log:
            old = await asyncio.to_thread(
                subprocess.Popen,
                [str(home.launcher / "ostler-desktop"), "--background"],
                env={**home.environ, "QT_QPA_PLATFORM": "xcb", "DISPLAY": display,
                     "DBUS_SESSION_BUS_ADDRESS": address},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            await asyncio.to_thread(until_running, home)
            task = await asyncio.to_thread(
                home.add,
                f"echo begun; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo ended",
                "shell",
            )
            await asyncio.to_thread(home.wait, task, "running")
            await host.until_row("1 task is running")
            await asyncio.to_thread(publish, published, VERSION)
            code, view = await asyncio.to_thread(published.ostler, "update", "check")
            assert code == 0, view
            await host.until_row(f"Restart to update to {VERSION}")
            assert len(host.watcher.items) == 1
            await host.click("Restart now; tasks go on")
            assert await asyncio.to_thread(old.wait, 2 * PATIENCE_S) == 0, "it has made room for the new one"
            assert len(host.watcher.items) == 2, "whose icon was there before"
            assert home.runs(VERSION)
            await host.until_row("1 task is running")
            assert not any(row.startswith("Restart to update") for row in await host.menu())
            (tmp_path / "go").touch()
            done = await asyncio.to_thread(home.wait, task)
            assert done["status"] == "completed", done["error"]
            check_transcript(home, task, "begun\nended\n")
            assert [line["result"] for line in published.update()["history"]] == ["committed"]
            await asyncio.to_thread(
                wait_until, lambda: not published.update()["notices"], "that the user was told"
            )
        finally:
            if old.poll() is None:
                old.kill()
                old.wait()
            host.bus.disconnect()
