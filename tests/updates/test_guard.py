"""A trial with real processes: the launcher, its guard, and stand-ins for the daemon (promise P8)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon_core.updates import guard as guarding
from daemon_core.updates import pointer as deciding
from daemon_core.updates.files import is_free
from daemon_core.updates.launcher import choose_for_daemon
from daemon_core.updates.pointer import Pointer, Trial
from daemon_core.updates.versions import Store, lock_file
from tests.end_to_end.home import wait_until
from tests.updates.faulty_files import Fault, FaultyFiles
from tests.updates.payloads import write_installation, write_payload

STAND_IN = Path(__file__).with_name("stand_in.py")
OLD, NEW = "1.0", "1.1"


class World:
    """An installation whose daemons are stand-ins."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log"
        self.environ = {
            **os.environ,
            "OSTLER_HOME": str(root / "o"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self.launcher = write_installation(root / "installed", OLD, self.programs(OLD, "good"))
        self.store = Store(root / "o" / "data" / "app", str(root / "installed" / "payload" / OLD))
        self.daemon_lock = str(root / "o" / "state" / "daemon.lock")
        self.children: list[subprocess.Popen[bytes]] = []

    def programs(self, version: str, behaviour: str) -> dict[str, str]:
        call = f'exec "{sys.executable}" "{STAND_IN}" {version} {behaviour} "{self.log}" "$@"'
        return {"ostlerd": f"#!/bin/sh\n{call}\n"}

    def put(self, behaviour: str, programs: dict[str, str] | None = None) -> None:
        place = write_payload(self.root / "made", NEW, programs or self.programs(NEW, behaviour))
        with self.store.staging() as staging:
            shutil.copytree(place, staging.path, symlinks=True, dirs_exist_ok=True)
            assert staging.publish(NEW)

    def begin(self, **more: float) -> None:
        times = {"healthy_s": 1.0, "settle_s": 0.3, "slack_s": 0.5, "revive_s": 0.2, **more}
        self.store.begin_trial(Trial(version=NEW, id="t1", **times))  # type: ignore[arg-type]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(self.launcher / "ostlerd"), *arguments]
        child = subprocess.Popen(command, env=self.environ, start_new_session=True)
        self.children.append(child)
        return child

    def start_directly(self, behaviour: str) -> subprocess.Popen[bytes]:
        """A daemon of the new version that no guard looks after."""
        child = subprocess.Popen(
            [sys.executable, str(STAND_IN), NEW, behaviour, str(self.log)],
            env={**self.environ, "OSTLER_LAUNCHER": str(self.launcher)},
        )
        self.children.append(child)
        return child

    def starts(self) -> list[tuple[str, str]]:
        """(version, trial or plain) of each start of a daemon so far."""
        if not self.log.exists():
            return []
        return [(words[0], words[2]) for words in map(str.split, self.log.read_text().splitlines())]

    def pids(self) -> list[int]:
        return [int(line.split()[1]) for line in self.log.read_text().splitlines()]

    def pointer(self) -> Pointer:
        return self.store.pointer()

    def old_runs_again(self) -> bool:
        started = self.starts()
        return bool(started) and started[-1] == (OLD, "plain") and not is_free(self.daemon_lock)

    def guards(self) -> list[int]:
        return [
            pid
            for pid, words in self.processes()
            if b"--guard" in words and self.environ["OSTLER_HOME"].encode() in _environ(pid)
        ]

    def processes(self) -> Iterator[tuple[int, list[bytes]]]:
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    yield int(name), Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
        mark = f"OSTLER_HOME={self.environ['OSTLER_HOME']}".encode()

        def none_left() -> bool:
            found = [pid for pid, _ in self.processes() if mark in _environ(pid) and pid != os.getpid()]
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not found

        wait_until(none_left, "all processes to end")


def _environ(pid: int) -> bytes:
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return b""
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    found.store.change(lambda pointer: pointer)
    found.store.install_seed()
    try:
        yield found
    finally:
        found.close()


def test_a_version_that_works_is_committed_by_itself_and_the_guard_goes(world: World) -> None:
    world.put("good")
    world.begin()
    daemon = world.start()
    wait_until(lambda: world.pointer().version == NEW, "the commit")
    wait_until(lambda: not world.guards(), "the guard to end")
    assert world.pointer().previous == OLD
    assert world.pointer().bad == {}
    assert daemon.poll() is None
    assert world.pids()[-1] == daemon.pid, "the process is the same from launcher to daemon"


BROKEN: dict[str, tuple[str, Callable[[World], dict[str, str] | None]]] = {
    "crash": (deciding.CRASHED, lambda world: None),
    "crash_later": (deciding.CRASHED, lambda world: None),
    "hang": (deciding.HUNG, lambda world: None),
    "stuck": (deciding.HUNG, lambda world: None),
    "silent": (deciding.HUNG, lambda world: None),
    "unhealthy": (deciding.UNHEALTHY, lambda world: None),
    "missing library": (deciding.CRASHED, lambda world: {"ostlerd": "#!/bin/sh\nexit 127\n"}),
    "no program": (deciding.FILES, lambda world: {"ostlerd": "#!/nowhere/interpreter\n"}),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_version_that_does_not_work_gives_way_to_the_one_before(world: World, how: str) -> None:
    reason, programs = BROKEN[how]
    world.put(how, programs(world))
    # One that has come up and does not show any more that it lives is not waited for until it is to be kept.
    world.begin(settle_s=3600.0 if how == "silent" else 0.3)
    world.start()
    wait_until(world.old_runs_again, f"the old version after: {how}")
    wait_until(lambda: not world.guards(), "the guard to end")
    pointer = world.pointer()
    assert (pointer.version, pointer.trial) == (OLD, None)
    assert pointer.bad[NEW].reason == reason
    assert pointer.bad[NEW].detail
    assert [start for start in world.starts() if start[1] == "trial"] in ([], [(NEW, "trial")])
    assert world.old_runs_again()


def test_without_its_guard_the_starts_are_counted_and_then_it_is_over(world: World) -> None:
    world.put("hang")
    world.begin(healthy_s=60.0)
    for number in range(1, 4):
        daemon = world.start()
        wait_until(lambda number=number: world.starts().count((NEW, "trial")) == number, "the start")  # type: ignore[misc]
        for pid in wait_until(world.guards, "the guard"):
            os.kill(pid, signal.SIGKILL)
        daemon.kill()
        daemon.wait()
        wait_until(lambda: is_free(world.daemon_lock), "the lock")
        trial = world.pointer().trial
        assert trial is not None
        assert trial.starts == number
    world.start()
    wait_until(world.old_runs_again, "the old version")
    assert world.pointer().bad[NEW].reason == deciding.STARTS


def test_an_orderly_stop_is_nothing_against_it(world: World) -> None:
    world.put("stopped")
    world.begin()
    for _ in range(5):
        assert world.start().wait() == 0
        wait_until(lambda: not world.guards(), "the guard to end")
    trial = world.pointer().trial
    assert trial is not None
    assert (trial.starts, trial.stopped) == (0, True)
    assert world.pointer().bad == {}


def test_a_quick_restart_is_no_crash(world: World) -> None:
    """The guard of the first start sees the end of its process when the second start is counted already."""
    world.put("hang")
    world.begin(healthy_s=60.0)
    first = world.start()
    wait_until(lambda: not is_free(world.daemon_lock), "the daemon's lock")
    (guard,) = wait_until(world.guards, "the guard")
    os.kill(guard, signal.SIGSTOP)
    world.store.of_trial("t1", deciding.stopped)
    first.kill()
    first.wait()
    world.start()
    wait_until(lambda: world.starts().count((NEW, "trial")) == 2, "the second start")
    os.kill(guard, signal.SIGCONT)
    wait_until(lambda: guard not in world.guards(), "the first guard to end")
    trial = world.pointer().trial
    assert trial is not None
    assert trial.starts == 1
    assert world.pointer().bad == {}


def test_a_guard_that_is_told_to_go_goes_and_decides_nothing(world: World) -> None:
    world.put("hang")
    world.begin(healthy_s=60.0)
    daemon = world.start()
    (guard,) = wait_until(world.guards, "the guard")
    os.kill(guard, signal.SIGTERM)
    wait_until(lambda: not world.guards(), "the guard to end")
    daemon.kill()
    daemon.wait()
    assert world.pointer().trial is not None
    assert world.pointer().bad == {}


def test_a_second_daemon_during_a_trial_is_no_failure_of_it(world: World) -> None:
    world.put("good")
    world.begin(settle_s=1.0)
    world.start()
    wait_until(lambda: (NEW, "trial") in world.starts(), "the trial")
    wait_until(lambda: not is_free(world.daemon_lock), "the daemon's lock")
    assert world.start().wait() == 6, "one runs already"
    wait_until(lambda: world.pointer().version == NEW, "the commit")
    assert world.pointer().bad == {}


def test_of_two_starts_at_once_the_one_that_stays_is_guarded(world: World) -> None:
    """The desktop, say, starts a daemon before the one that was on its way has its lock."""
    world.put("hang")
    world.begin(healthy_s=5.0)
    place = Path(world.daemon_lock)
    place.parent.mkdir(parents=True, exist_ok=True)
    first = world.start()
    wait_until(lambda: not is_free(world.daemon_lock), "the daemon's lock")
    # As the second start leaves it: counted, with its own mark, and gone since the lock is taken.
    world.store.of_trial("t1", lambda pointer: deciding.started(pointer, "default", "second", "")[0])
    wait_until(world.old_runs_again, "the old version")
    assert first.wait() == -signal.SIGKILL
    assert world.pointer().bad[NEW].reason == deciding.HUNG


def test_what_systemd_starts_again_is_left_to_it() -> None:
    """Its unit waits for five seconds; a daemon that the guard starts would not be the unit's."""
    trial = Trial(version=NEW, id="t", revive_s=0.2)
    assert guarding.revive_limit_s(trial, 7, {"SYSTEMD_EXEC_PID": "7"}) > 5.0
    assert guarding.revive_limit_s(trial, 7, {"SYSTEMD_EXEC_PID": "8"}) == 0.2
    assert guarding.revive_limit_s(None, 7, {}) == Trial("", "").revive_s


def test_a_process_of_which_a_thread_is_left_has_not_ended(tmp_path: Path) -> None:
    """Its first thread is a zombie then, to the process list, and its files are still open."""
    code = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        process = guarding.Process(child.pid, guarding.started_at(child.pid))
        stat = Path(f"/proc/{child.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", "its first thread to end")
        assert process.is_alive()
        assert process.kill()
        assert not process.is_alive()
    finally:
        child.kill()
        child.wait()
    later = guarding.Process(os.getpid(), "another start")
    assert not later.is_alive(), "never another one that has its pid"


def test_time_that_the_machine_slept_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.25, 7200.0, 7200.25, 7200.5])
    monkeypatch.setattr("daemon_core.updates.guard.time.monotonic", lambda: next(times))
    patience = guarding._Patience()
    trial = Trial(version=NEW, id="t", healthy_s=3.0)
    assert [patience.over(trial, 0) for _ in range(4)] == ["", "", "", ""]


def test_another_profiles_daemon_takes_no_part(world: World) -> None:
    world.put("good")
    world.begin()
    world.start("--profile", "work")
    wait_until(lambda: len(world.starts()) >= 1 and world.starts()[-1] == (OLD, "plain"), "the other daemon")
    trial = world.pointer().trial
    assert trial is not None
    assert trial.starts == 0


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("crash", deciding.CRASHED),
        ("unhealthy", deciding.UNHEALTHY),
        ("good", ""),
    ],
)
def test_what_works_with_one_profile_and_not_with_another_is_undone_there(
    world: World, how: str, reason: str
) -> None:
    """Profiles share the versions, and each has a journal of its own."""
    about = world.root / "installed" / "install.json"
    times = {"trial": {"healthy_s": 1.0, "settle_s": 0.3}}
    about.write_text(json.dumps({**json.loads(about.read_bytes()), **times}))
    work = lock_file(world.environ, "work")
    first = world.start("--profile", "work")
    wait_until(lambda: not is_free(work), "the daemon of the other profile")
    first.kill()
    first.wait()
    assert world.starts() == [(OLD, "plain")]

    world.put(f"{how}@work")
    world.begin()
    world.start()
    wait_until(lambda: world.pointer().version == NEW, "the commit")
    assert world.store.remove_unused() == []
    wait_until(lambda: is_free(work), "the lock")
    world.start("--profile", "work")
    if how == "good":
        wait_until(lambda: world.pointer().own["work"].version == NEW, "its own commit")
        wait_until(lambda: not world.guards(), "the guards to end")
        assert world.starts() == [(OLD, "plain"), (NEW, "trial"), (NEW, "trial")]
        return
    wait_until(lambda: world.starts()[-1] == (OLD, "plain") and not is_free(work), "the version before")
    wait_until(lambda: not world.guards(), "the guards to end")
    pointer = world.pointer()
    assert (pointer.version, pointer.bad, pointer.trial) == (NEW, {}, None), "the others keep it"
    assert pointer.own["work"].bad[NEW].reason == reason
    assert pointer.own["work"].trial is None
    assert pointer.own["default"].version == NEW
    assert world.starts().count((NEW, "trial")) == 2, "it is not tried again by itself"
    again = choose_for_daemon(world.store, "work", {**world.environ, "OSTLER_HOME": str(world.root / "x")})
    assert (again.version, again.trial) == (OLD, None)
    world.store.remove_unused()
    assert world.store.is_complete(OLD), "it is needed"


def test_on_a_full_disk_the_old_version_runs(world: World) -> None:
    """What the guard cannot write down ends the process all the same, and what cannot be counted is not
    tried."""
    world.put("hang")
    world.begin(healthy_s=0.1)
    daemon = world.start_directly("hang")
    full = Store(world.store.app_dir, world.store.seed_dir, FaultyFiles(Fault(0, "ENOSPC", times=10**9)))
    process = guarding.Process(daemon.pid, guarding.started_at(daemon.pid))
    guard = guarding.Guard(full, process, world.daemon_lock, trial_id="t1", start="", version=NEW)
    guard.write_limit_s = 0.3
    assert guard.watch()
    assert daemon.wait() == -signal.SIGKILL
    chosen = choose_for_daemon(full, "default", world.environ)
    assert (chosen.version, chosen.trial) == (OLD, None)
