"""From a published release to the daemon that runs: release tool, server, updater, launcher, commands."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon_core.upkeep import platform_name
from releasing import archives
from releasing.client import served
from tests.end_to_end.home import check_transcript, wait_until
from tests.end_to_end.test_updates import OLD, InstalledHome, programs
from tests.packaging import releases
from tests.updates.payloads import write_manifest, write_payload

VERSION = "1.1"


class Published:
    """A home whose installation gets its updates from a repository that the release tool has made."""

    def __init__(self, home: InstalledHome, place: Path, url: str) -> None:
        self.home = home
        self.releases = releases.Releases(place).init()
        installed = home.root / "installed"
        about = json.loads((installed / "install.json").read_text())
        about["url"] = f"{url}/metadata/"
        (installed / "install.json").write_text(json.dumps(about))
        (installed / "root.json").write_bytes((place / "repo/metadata/1.root.json").read_bytes())

    def publish(self, version: str, variant: str) -> None:
        place = write_payload(self.releases.place / "made" / version, version, programs(version, variant))
        about = {"format": 1, "version": version, "platform": platform_name(), "journal": 1}
        (place / "payload.json").write_text(json.dumps(about))
        write_manifest(place, version)
        archives.pack(place, self.releases.dist)
        self.releases.publish(version)

    def ostler(self, *arguments: str) -> tuple[int, Any]:
        """The command line, in JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "daemon_core.cli", "--json", *arguments],
            env=self.home.environ, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout)

    def update(self) -> dict[str, Any]:
        found: dict[str, Any] = self.home.call("GET", "/v1/update")
        return found


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Published]:
    home = InstalledHome(tmp_path / "home")
    home.environ |= {"OSTLER_UPDATES_AUTOMATIC": "false", "OSTLER_UPDATES_CHECK": "false"}
    home.environ["OSTLER_TEST_SETTLE"] = "0.3"
    (tmp_path / "releases" / "repo").mkdir(parents=True)
    try:
        with served(tmp_path / "releases" / "repo") as url:
            yield Published(home, tmp_path / "releases", url)
    finally:
        home.close()


@contextmanager
def waiting_task(home: InstalledHome, go: Path) -> Iterator[None]:
    """A task that runs from before to after; it ends well."""
    task = home.add(f"echo begun; while [ ! -e {go} ]; do sleep 0.02; done; echo ended", runtime="shell")
    home.wait(task, "running")
    yield
    go.touch()
    done = home.wait(task)
    assert done["status"] == "completed", done["error"]
    check_transcript(home, task, "begun\nended\n")


class Person:
    """Whoever uses the hub's own page, with a token made by hand."""

    def __init__(self, home: InstalledHome) -> None:
        self._home = home
        minted = subprocess.run(
            [sys.executable, "-m", "daemon_core.hub.mint", str(home.directories.hub_file)],
            env=home.environ, capture_output=True, check=True, timeout=60,
        )  # fmt: skip
        self._token = minted.stdout.decode().strip()

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._home.status()['port']}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            found: dict[str, Any] = json.loads(response.read())
        return found


def test_published_applied_taken_back_and_asked_for_again(published: Published, tmp_path: Path) -> None:
    home = published.home
    home.start()
    assert home.daemon is not None
    pid = home.daemon.pid
    code, view = published.ostler("update", "check")
    assert (code, view["stage"], view["version"]) == (0, "idle", None)
    published.publish(VERSION, "good")
    with waiting_task(home, tmp_path / "go"):
        code, view = published.ostler("update", "apply", "--wait")
        assert (code, view["stage"], view["current"]) == (0, "committed", VERSION), view
        assert home.status()["pid"] == pid
        (notice,) = view["notices"]
        assert (notice["kind"], notice["version"], notice["from_version"]) == ("updated", VERSION, OLD)
        assert notice["notes"]["en"] == [f"What is new in {VERSION}."]
        published.home.call("POST", "/v1/update/told", {"kind": "updated", "version": VERSION})

        code, view = published.ostler("update", "rollback", "--wait")
        assert (code, view["current"]) == (0, OLD), view
        assert [line["result"] for line in view["history"]] == ["rolled_back", "committed"]
        assert view["history"][0]["reason"]["code"] == "asked"

        # A server asks for it, and is answered by the version that it wanted.
        person = Person(home)
        runtime = next(each for each in home.call("GET", "/v1/runtimes") if each["provider"] == "shell")
        path = f"/api/runtimes/{runtime['id']}/update"
        made = person.ask("POST", path, {"target_version": VERSION})
        wait_until(lambda: home.runs(VERSION), "the version that the server asked for")
        asked = f"{path}/{made['id']}"
        wait_until(lambda: person.ask("GET", asked)["status"] == "completed", "the answer")
        assert VERSION in person.ask("GET", asked)["output"]
        assert published.update()["history"][0]["asked_by"] == "server"
    # A Multica server's version is none of ours: it is refused in words.
    asked = f"{path}/{person.ask('POST', path, {'target_version': 'v0.4.24'})['id']}"
    wait_until(lambda: person.ask("GET", asked)["status"] == "failed", "the refusal")
    assert person.ask("GET", asked)["error"]


def test_a_broken_release_is_undone_and_said(published: Published, tmp_path: Path) -> None:
    home = published.home
    home.start()
    published.publish(VERSION, "crash")
    with waiting_task(home, tmp_path / "go"):
        code, view = published.ostler("update", "apply", "--wait")
        assert (code, view["stage"], view["current"]) == (1, "rolled_back", OLD), view
        (notice,) = view["notices"]
        assert (notice["kind"], notice["reason"]["code"]) == ("rolled_back", "crashed")
        code, view = published.ostler("update", "check")
        assert view["version"]["version"] == VERSION, "whoever asks may try it again"
        code, view = published.ostler("update", "status")
        assert view["history"][0]["result"] == "rolled_back"
