"""The service under systemd's own manager of a user's services: no restart and no update costs a run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from building.installers import layout, linux
from tests.end_to_end.home import wait_until as wait_patiently
from tests.packaging.conftest import Stamp, needs_root
from tests.packaging.machine import Tarball, User
from tests.packaging.test_installed import one_waits
from tests.packaging.test_updated import lean

pytestmark = [pytest.mark.root, needs_root, pytest.mark.timeout(600)]

VERSION, BROKEN = "1.0.0", "1.1.0"
MANAGER = "systemd --user --unit=basic.target"
wait_until = partial(wait_patiently, patience_s=120.0)
CGROUPS = Path("/sys/fs/cgroup")


@contextmanager
def manager(user: User) -> Iterator[None]:
    """systemd's manager of a user's services, in control groups of its own; the machine's first process need
    not be systemd. Skips the test where it cannot run."""
    missing = [name for name in ("systemd", "systemctl", "setpriv", "unshare") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    groups: list[Path] = []
    process: subprocess.Popen[bytes] | None = None
    log = user.home / "manager.out"
    try:
        try:
            # Where systemd keeps its groups: all alike, or one of both kinds.
            for tree in (CGROUPS, CGROUPS / "unified", CGROUPS / "systemd"):
                if (tree / "cgroup.procs").exists():
                    groups.append(tree / user.name)
                    groups[-1].mkdir()
                    for path in (groups[-1], *groups[-1].glob("cgroup.[pt]*"), *groups[-1].glob("tasks")):
                        os.chown(path, user.uid, user.gid)
        except OSError as error:
            pytest.skip(f"no control groups can be made here: {error}")
        if not groups:
            pytest.skip("there are no control groups here")
        enter = "".join(f"echo $$ >{group}/cgroup.procs && " for group in groups)
        # It runs only where this directory says that systemd is the first process; nobody else may think so.
        booted = "mkdir -p /run/systemd && mount -t tmpfs none /run/systemd && mkdir /run/systemd/system && "
        become = f"exec setpriv --reuid={user.uid} --regid={user.gid} --clear-groups"
        with open(log, "wb") as said:
            process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", f"{enter}{booted}{become} {MANAGER}"],
                env=user.environ, cwd=user.home, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )  # fmt: skip
        running = partial(
            user.run, "systemctl", "--user", "show", "--property=SystemState", "--value", code=None
        )
        begun = process
        wait_until(
            lambda: running().strip() in ("running", "degraded") or begun.poll() is not None, "the manager"
        )
        if process.poll() is not None:
            pytest.skip(f"systemd cannot manage a user's services here: {log.read_text()[-500:]}")
        yield
    except AssertionError as error:
        state = user.run("systemctl", "--user", "status", "--full", "ostler", code=None)
        error.add_note(f"{state}\n{user.run('ps', '-u', user.name, '-o', 'pid,args', code=None)}")
        raise
    finally:
        if process is not None:
            process.kill()
            process.wait()
        user.end_processes()
        for group in groups:
            wait_until(partial(_removed, group), f"{group} to be empty")


def _removed(group: Path) -> bool:
    """Take a control group away; what has just ended may be in it for a moment longer."""
    try:
        for inner in sorted(group.rglob("*"), reverse=True):
            if inner.is_dir():
                inner.rmdir()
        group.rmdir()
    except FileNotFoundError:
        return not group.exists()
    except OSError:
        return False
    return True


def service(user: User, *arguments: str, code: int | None = 0) -> str:
    return user.run("systemctl", "--user", *arguments, code=code).strip()


def main_pid(user: User) -> int:
    """The process that systemd takes for the daemon; 0: none."""
    return int(service(user, "show", "--property=MainPID", "--value", "ostler"))


def is_up(user: User, ostler: Path, version: str) -> bool:
    """Whether the service is a daemon of this version that answers, and the only one."""
    pid = main_pid(user)
    if not pid or [process.pid for process in user.processes("ostlerd")] != [pid]:
        return False
    said = user.run(ostler, "daemon", "status", "--json", code=None)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        told = json.loads(said)
        return bool(told["pid"] == pid and told["version"] == version and told["status"] == "running")
    return False


def on_trial(user: User, payload: Path) -> Path:
    """Bring a version here and put it on trial, as an update does; the pointer."""
    app = user.home / ".local/share/ostler/app"
    place = app / "versions" / BROKEN
    shutil.copytree(payload, place, symlinks=True, copy_function=_share)
    pointer = app / "current.json"
    written = json.loads(pointer.read_bytes())
    written["trial"] = {"version": BROKEN, "id": "t", "healthy_s": 15.0, "settle_s": 5.0}
    pointer.write_text(json.dumps(written))
    for path in (place, *(path for path in place.rglob("*") if path.is_dir())):
        os.chown(path, user.uid, user.gid)
    return pointer


def _share(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def test_the_service_is_restarted_updated_and_stopped_and_its_runs_go_on(
    bundle: layout.Source, user: User, stamped: Stamp, tmp_path: Path
) -> None:
    source = layout.Source(payload=lean(stamped(VERSION)), launcher=bundle.launcher)
    tarball = Tarball(user, linux.tarball(source, tmp_path, fast=True))
    tarball.install()
    ostler = tarball.program()
    unit = user.home / ".local/share/systemd/user/ostler.service"
    with manager(user):
        assert user.run("systemd-analyze", "--user", "--man=no", "verify", unit) == ""
        service(user, "enable", "--now", "ostler")
        up = partial(is_up, user, ostler, VERSION)
        wait_until(up, "the service")
        first = main_pid(user)
        waiting = one_waits(user, ostler)
        shims = {process.pid for process in user.processes("ostler-shim")}

        service(user, "restart", "ostler")
        wait_until(up, "the service after a restart")
        assert main_pid(user) != first
        assert {process.pid for process in user.processes("ostler-shim")} == shims, "the run goes on"

        # A version that crashes at once: its guard goes back, and systemd starts the one before.
        pointer = on_trial(user, lean(stamped(BROKEN, "crash")))
        service(user, "restart", "ostler")
        wait_until(lambda: BROKEN in json.loads(pointer.read_bytes())["bad"], "the end of the trial")
        wait_until(up, "the version before, as the service")
        assert service(user, "is-active", "ostler") == "active"
        assert user.json(ostler, "task", "show", waiting.task)["status"] == "running"

        service(user, "stop", "ostler")
        assert not user.processes("ostlerd")
        assert {process.pid for process in user.processes("ostler-shim")} == shims
        waiting.goes_on()
        service(user, "start", "ostler")
        wait_until(up, "the service")
        shown = partial(user.json, ostler, "task", "show", waiting.task)
        wait_until(lambda: shown()["status"] == "completed", "the report")
        assert len(shown()["runs"]) == 1
        tarball.uninstall("--keep-data")
        assert not user.processes("ostlerd"), "the service is stopped"
        assert not list((user.home / ".config/systemd").rglob("ostler.service"))
