"""A whole Ostler of its own in a temporary directory: daemon processes, their API, and the facts on disk.

The daemon is the real one in a process of its own, killed and started again as a test likes; the checks of
the promises read the hub's database, which is what a server has, not what the daemon believes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from daemon_core.control.client import ControlClient, DaemonUnreachableError
from daemon_core.control.errors import ControlError
from daemon_core.settings.directories import Directories, resolve
from tests.support.scripted_agent import install_scripted_agent

PATIENCE_S = 60.0
PATIENT = {"OSTLER_DISCOVERY_TIMEOUT": "60s"}
"""For programs that take seconds to tell their version where everybody wants the processor."""
TERMINAL = ("completed", "failed", "cancelled")


def wait_until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The first true value of a condition. What is waited for is outside of this process, so it is looked at
    again and again; the patience only bounds a failing test."""
    deadline = time.monotonic() + patience_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for: {what}"
        time.sleep(0.01)


def wait_gone(*pids: int) -> None:
    """Wait until processes have ended."""
    for pid in pids:
        wait_until(_absent(pid), f"{pid} to end")


def _absent(pid: int) -> Callable[[], bool]:
    return lambda: not Path(f"/proc/{pid}").exists()


def holding(root: Path, secret: str | bytes) -> list[Path]:
    """The files below a directory that have a secret in them, files that vanish meanwhile apart."""
    wanted = secret.encode() if isinstance(secret, str) else secret
    found = []
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink() and wanted in path.read_bytes():
                    found.append(path)
    return found


def reserve_port(port_file: Path) -> None:
    """A stored port of this home's own, as after an earlier start: tests that run side by side would take
    each other's default port while one of them has no daemon."""
    port_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = os.getpid() * 37 + int.from_bytes(os.urandom(2), "big")
    while True:
        port = 24000 + number % 8000
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                port_file.write_text(f"{port}\n")
                return
        number += 1


class OstlerHome:
    """One OSTLER_HOME with an own HOME and PATH."""

    def __init__(self, root: Path, *, environ: dict[str, str] | None = None, claude: bool = True) -> None:
        self.root = root
        self.bin = root / "bin"
        self.user_home = root / "user"
        self.user_home.mkdir(parents=True, exist_ok=True)
        self.bin.mkdir(exist_ok=True)
        self.starts = root / "agent-starts"
        self.environ = {
            "OSTLER_HOME": str(root / "o"),
            "HOME": str(self.user_home),
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "SCRIPTED_AGENT_STARTS": str(self.starts),
            **{
                name: value
                for name, value in os.environ.items()
                if name.startswith("COVERAGE_") or name in ("PYTHONPATH", "TMPDIR")
            },
            **(environ or {}),
        }
        if claude:
            install_scripted_agent(self.bin)
        self.daemon: subprocess.Popen[bytes] | None = None
        reserve_port(root / "o" / "state" / "port")
        self.directories: Directories = resolve(self.environ)
        self.client = ControlClient(self.directories.control_socket)

    # --- the daemon ------------------------------------------------------------------------------

    def launch(self, *, kill_at: str = "", **environ: str) -> subprocess.Popen[bytes]:
        """Start a daemon and do not wait for it."""
        env = {**self.environ, **environ}
        if kill_at:
            env["OSTLER_TEST_KILL_AT"] = kill_at
        log = open(self.root / "daemon.out", "ab")  # noqa: SIM115 - handed to the child
        with log:
            self.daemon = subprocess.Popen(
                [sys.executable, "-m", "daemon_core.app"],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
        return self.daemon

    def start(self, *, kill_at: str = "", **environ: str) -> None:
        """Start a daemon and wait until it says ``running``."""
        daemon = self.launch(kill_at=kill_at, **environ)

        def running() -> bool:
            assert daemon.poll() is None, f"the daemon ended with {daemon.returncode}: {self.said()}"
            return self.status().get("status") == "running"

        wait_until(running, "the daemon to run")

    def said(self) -> str:
        """What all daemons of this home wrote to standard error, and the end of the log."""
        with contextlib.suppress(FileNotFoundError):
            log = self.directories.log_file.read_text()[-4000:]
            return (self.root / "daemon.out").read_text()[-4000:] + log
        return (self.root / "daemon.out").read_text()

    def kill(self) -> None:
        """kill -9 the daemon."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def wait_dead(self) -> None:
        """Wait until the daemon has ended by itself (killed at a chosen place)."""
        assert self.daemon is not None
        self.daemon.wait(PATIENCE_S)

    def stop(self, *, runs: bool = False) -> dict[str, Any]:
        """Stop the daemon in order."""
        assert self.daemon is not None
        answer: dict[str, Any] = self.call("POST", "/v1/daemon/stop", {"runs": runs})
        self.daemon.wait(PATIENCE_S)
        assert self.daemon.returncode == 0, self.said()
        return answer

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(DaemonUnreachableError):
            found: dict[str, Any] = self.call("GET", "/v1/status")
            return found
        return {}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return self.client.call(Any, method, path, body, timeout_s=30)

    def close(self) -> None:
        """End everything of this home: daemon, shims, agents."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        wait_until(self._none_left, "the processes of the home to end")

    def _none_left(self) -> bool:
        """Kill what is there; a daemon killed in mid-start may have left something that begins late."""
        found = self.processes()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    # --- tasks -----------------------------------------------------------------------------------

    def add(self, prompt: str, runtime: str = "claude", **more: Any) -> str:
        """Start a task; gives its id."""
        task = self.call("POST", "/v1/tasks", {"prompt": prompt, "runtime": runtime, **more})
        return str(task["id"])

    def task(self, task_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/v1/tasks/{task_id}")
        return found

    def wait(self, task_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until a task has one of these statuses (default: has ended); gives it."""
        wanted = statuses or TERMINAL

        def reached() -> dict[str, Any] | None:
            try:
                task = self.task(task_id)
            except (DaemonUnreachableError, ControlError):
                return None
            assert task["status"] in wanted or task["status"] not in TERMINAL, task
            return task if task["status"] in wanted else None

        task: dict[str, Any] = wait_until(reached, f"task {task_id} to be {wanted}: {self.said()[-800:]}")
        return task

    def wait_delivered(self, task_id: str) -> None:
        """Wait until everything about a task has reached the hub."""

        def delivered() -> bool:
            rows = self.journal("SELECT delivery FROM tasks WHERE task_id = ?", task_id)
            return rows == [("delivered",)] and not self.journal("SELECT 1 FROM outbox")

        wait_until(delivered, f"the reports of {task_id} to be delivered")

    def transcript(self, task_id: str) -> list[dict[str, Any]]:
        """The transcript as the control API tells it."""
        return [
            msgspec.json.decode(line) for line in self.client.lines(f"/v1/tasks/{task_id}/transcript") if line
        ]

    def text(self, task_id: str) -> str:
        """All of its text together."""
        return "".join(line.get("content") or "" for line in self.transcript(task_id))

    # --- facts on disk ---------------------------------------------------------------------------

    def hub(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the hub's database: what the server has."""
        return _ask(self.directories.hub_file, query, parameters)

    def journal(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the journal."""
        return _ask(self.directories.journal_file, query, parameters)

    def server_messages(self, task_id: str) -> list[tuple[int, str, str]]:
        """(seq, type, content or output) of every line that the server has."""
        return [
            (seq, kind, content or output or "")
            for seq, kind, content, output in self.hub(
                "SELECT m.seq, m.type, m.content, m.output FROM message m JOIN task t ON t.no = m.task_no"
                " WHERE t.id = ? ORDER BY m.seq",
                task_id,
            )
        ]

    def run_dir(self, task_id: str) -> Path:
        (run_id,) = self.journal(
            "SELECT r.run_id FROM runs r JOIN tasks t ON t.key = r.task_key AND t.run_id = r.run_id"
            " WHERE t.task_id = ?",
            task_id,
        )[0]
        return self.directories.runs / str(run_id)

    def shim(self, task_id: str) -> dict[str, Any]:
        """``shim.json`` of a task's run, once it is there."""
        path = self.run_dir(task_id) / "shim.json"
        wait_until(path.exists, "the run to begin")
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        return found

    def agent_starts(self) -> int:
        """How often the scripted agent was started for a run."""
        return len(self.starts.read_text().split()) if self.starts.exists() else 0

    def processes(self) -> list[int]:
        """Living processes (zombies apart) that have this home in their environment, tests' own apart."""
        mark = f"OSTLER_HOME={self.environ['OSTLER_HOME']}".encode()
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            try:
                environ = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark in environ and state != "Z":
                found.append(int(name))
        return found


def _ask(path: Path, query: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
        return db.execute(query, parameters).fetchall()


def check_transcript(home: OstlerHome, task_id: str, expected_text: str | None = None) -> None:
    """Promise P3 at the server: numbers from 1 without a hole, nothing twice, the text as it was said."""
    messages = home.server_messages(task_id)
    assert [seq for seq, _, _ in messages] == list(range(1, len(messages) + 1))
    if expected_text is not None:
        assert "".join(content for _, kind, content in messages if kind == "text") == expected_text


@contextlib.contextmanager
def busy_port() -> Iterator[int]:
    """A port of 127.0.0.1 that something else listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])
