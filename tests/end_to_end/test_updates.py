"""An installed daemon becomes the next version while tasks run, and goes back where that does not work."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_core.updates.pointer import Pointer
from daemon_core.updates.versions import Store
from tests.end_to_end.home import PATIENCE_S, OstlerHome, check_transcript, wait_until
from tests.support.scripted_agent import script
from tests.updates.payloads import write_installation, write_payload

OLD, NEW = "1.0", "1.1"
DAEMON = Path(__file__).parents[1] / "support" / "payload_daemon.py"


class InstalledHome(OstlerHome):
    """A home whose daemon is started through the launcher of an installation."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.wish = root / "wish"
        self.environ |= {"OSTLER_TEST_APPLY": str(self.wish), "PYTHONPATH": str(Path(__file__).parents[2])}
        self.launcher = write_installation(root / "installed", OLD, programs(OLD, "good"))
        self.store = Store(self.directories.app, str(root / "installed" / "payload" / OLD))

    def launch(self, *, kill_at: str = "", **environ: str) -> subprocess.Popen[bytes]:
        with open(self.root / "daemon.out", "ab") as log:
            self.daemon = subprocess.Popen(
                [str(self.launcher / "ostlerd")],
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.daemon

    def put(self, version: str, variant: str) -> None:
        place = write_payload(self.root / "made" / version, version, programs(version, variant))
        with self.store.staging() as staging:
            shutil.copytree(place, staging.path, symlinks=True, dirs_exist_ok=True)
            assert staging.publish(version)

    def apply(self, version: str, healthy_s: float = PATIENCE_S) -> None:
        self.wish.write_text(f"{version} {healthy_s}")
        os.kill(self.status()["pid"], signal.SIGUSR2)

    def runs(self, version: str) -> bool:
        status = self.status()
        return status.get("version") == version and status.get("status") == "running"

    def pointer(self) -> Pointer:
        return self.store.pointer()


def programs(version: str, variant: str) -> dict[str, str]:
    return {"ostlerd": f'#!/bin/sh\nexec "{sys.executable}" "{DAEMON}" {version} {variant} "$@"\n'}


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[InstalledHome]:
    home = InstalledHome(tmp_path)
    try:
        yield home
    finally:
        home.close()


def begin_tasks(home: InstalledHome, go: Path) -> tuple[str, str]:
    """One task of a shell and one of an agent that talks, both running and waiting for a file."""
    shell = home.add(f"echo begun; while [ ! -e {go} ]; do sleep 0.02; done; echo ended", runtime="shell")
    agent = home.add(
        script(
            {"lines": 200, "text": "first {n}\n"},
            {"wait_for": str(go)},
            {"lines": 200, "text": "second {n}\n"},
        )
    )
    for task, words in ((shell, "begun"), (agent, "first 200")):
        home.wait(task, "running")
        wait_until(lambda task=task, words=words: words in home.text(task), f"{task} to begin")  # type: ignore[misc]
    return shell, agent


def check_tasks(home: InstalledHome, tasks: tuple[str, str], go: Path) -> None:
    """Both end well, reported once, with whole transcripts."""
    go.touch()
    shell, agent = tasks
    for task in tasks:
        done = home.wait(task)
        assert done["status"] == "completed", done["error"]
        home.wait_delivered(task)
    assert home.task(shell)["result"].split() == ["begun", "ended"]
    check_transcript(home, shell)
    check_transcript(
        home, agent, "".join(f"{part} {n}\n" for part in ("first", "second") for n in range(1, 201))
    )
    assert home.agent_starts() == 1
    ended = home.hub("SELECT 1 FROM task WHERE status = 'completed'")
    assert len(home.hub("SELECT 1 FROM chat_message WHERE role = 'assistant'")) == len(ended)


def test_an_update_while_tasks_run_costs_nothing(installed: InstalledHome, tmp_path: Path) -> None:
    home, go = installed, tmp_path / "go"
    home.start()
    assert home.daemon is not None
    pid = home.daemon.pid
    tasks = begin_tasks(home, go)
    shims = [home.shim(task)["pid"] for task in tasks]
    home.put(NEW, "good")
    # A file that nobody could start with, saved while the daemon goes by what it read before.
    settings = home.directories.config_file
    settings.write_text("[daemon]\nslots = many\n")
    home.apply(NEW)
    refused = home.wish.with_suffix(".refused")
    wait_until(lambda: refused.exists() and refused.read_text() == "settings", "the refusal")
    assert home.status()["barrier"] is None
    settings.unlink()
    home.apply(NEW)
    wait_until(lambda: home.runs(NEW), "the new version to run")
    assert home.status()["pid"] == pid, "for whoever watches the process nothing has happened"
    wait_until(lambda: home.pointer().version == NEW, "the commit")
    wait_until(lambda: home.status()["barrier"] is None, "claims to be possible")
    assert [home.shim(task)["pid"] for task in tasks] == shims
    assert home.wait(home.add("echo after", runtime="shell"))["status"] == "completed"
    # What runs has its version on the disk for as long as it runs.
    assert home.store.in_use(OLD)
    home.store.change(lambda pointer: pointer._replace(previous=None))
    assert home.store.remove_unused() == []
    check_tasks(home, tasks, go)
    wait_until(lambda: not home.store.in_use(OLD), "the old version's last run to end")
    assert home.store.remove_unused() == [OLD]
    home.stop()
    assert home.pointer().bad == {}


VARIANTS = {
    "crash": ("crashed", PATIENCE_S),
    "crash_later": ("crashed", PATIENCE_S),
    "no_settings": ("unhealthy", PATIENCE_S),
    "no_journal": ("unhealthy", PATIENCE_S),
    "no_shim": ("unhealthy", PATIENCE_S),
    "hang_later": ("hung", PATIENCE_S),
    "hang": ("hung", 1.0),
}
"""How a version is broken, what it is marked with then, and how long it may take to come up."""


def test_updates_that_do_not_work_are_undone_and_cost_no_task(
    installed: InstalledHome, tmp_path: Path
) -> None:
    home, go = installed, tmp_path / "go"
    home.start()
    tasks = begin_tasks(home, go)
    for number, (variant, (reason, healthy_s)) in enumerate(VARIANTS.items(), 1):
        version = f"1.{number}"
        home.put(version, variant)
        home.apply(version, healthy_s)
        wait_until(lambda version=version: version in home.pointer().bad, f"{variant} to be given up")  # type: ignore[misc]
        wait_until(lambda: home.runs(OLD), f"the old version to run after {variant}")
        pointer = home.pointer()
        assert (pointer.version, pointer.trial) == (OLD, None)
        assert pointer.bad[version].reason == reason, variant
        assert pointer.bad[version].detail
    home.apply("1.1")
    refused = home.wish.with_suffix(".refused")
    wait_until(lambda: refused.exists() and refused.read_text() == "version_bad", "the refusal")
    assert home.status()["barrier"] is None
    check_tasks(home, tasks, go)


def test_a_power_cut_or_a_stop_in_the_middle_goes_on_with_the_trial_and_the_user_can_go_back(
    installed: InstalledHome,
) -> None:
    home = installed
    home.environ["OSTLER_TEST_SETTLE"] = "1.5"
    home.start()
    home.put(NEW, "good")
    home.apply(NEW)
    wait_until(lambda: (trial := home.pointer().trial) is not None and trial.healthy, "it to be healthy")
    assert home.daemon is not None
    guard = [pid for pid in home.processes() if b"--guard" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for pid in [*guard, home.daemon.pid]:
        os.kill(pid, signal.SIGKILL)
    home.daemon.wait()
    home.start()
    wait_until(lambda: (trial := home.pointer().trial) is not None and trial.starts == 2, "the second start")
    home.stop()
    trial = home.pointer().trial
    assert trial is not None
    assert (trial.starts, trial.stopped) == (1, True)
    home.start()
    wait_until(lambda: home.pointer().version == NEW, "the commit")
    home.apply("back")
    wait_until(lambda: home.pointer().version == OLD, "the way back")
    wait_until(lambda: home.runs(OLD), "the old version")
    assert home.pointer().bad[NEW].reason == "asked"
