"""Any order of tasks, cancels, kill -9 of daemon and shims at random moments and places, stops and starts:
the promises hold.

Checked after the last life against what the hub has: every task ended exactly once (P1), its agent was
started exactly once and outlived all daemons (P2), its lines are there without a hole or a double (P3), never
more agents at once than slots and never two in one directory (P5), and no process is left (P6). A task whose
shim was killed has failed for that reason, and what the hub begins in its place is held against the same.

``OSTLER_TEST_KILLS`` sets the number of stories (8 if unset): a few hundred make a soak test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from daemon_core.control.client import DaemonUnreachableError
from daemon_core.control.errors import ControlError
from daemon_core.processes import RunPhase, read_state
from tests.end_to_end.home import OstlerHome, check_transcript, wait_until
from tests.end_to_end.test_survival import PLACES
from tests.support.scripted_agent import script

SLOTS = 2


class Kills(RuleBasedStateMachine):
    """Drives one home through several lives of its daemon."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="ostler-kills-"))
        self.home = OstlerHome(self.root, environ={"OSTLER_DAEMON_SLOTS": str(SLOTS)})
        self.shared = self.root / "shared"
        self.shared.mkdir()
        self.log = self.root / "agents.log"
        self.tasks: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.made = 0
        self.shims_killed = 0

    @initialize()
    def begin(self) -> None:
        self.home.start()

    def alive(self) -> bool:
        return self.home.daemon is not None and self.home.daemon.poll() is None

    # Whether a daemon lives is no precondition of a rule: that depends on time, and what hypothesis draws
    # must not.

    @rule(
        lines=st.integers(1, 400),
        pause_ms=st.sampled_from([0, 0, 20, 150]),
        in_shared=st.booleans(),
        leaves_child=st.booleans(),
    )
    def add(self, lines: int, pause_ms: int, in_shared: bool, leaves_child: bool) -> None:
        if not self.alive():
            return
        number = self.made
        self.made += 1
        steps: list[dict[str, object]] = [
            {"append": {"path": str(self.log), "text": f"+ {number} {int(in_shared)}\n"}},
            {"lines": lines, "text": f"t{number} " + "{n}\n"},
            {"tool": {"name": "Bash", "input": {"command": "true"}, "output": "ok"}},
            {"sleep": pause_ms / 1000},
            {"lines": 3, "text": f"end{number} " + "{n}\n"},
            {"append": {"path": str(self.log), "text": f"- {number} {int(in_shared)}\n"}},
        ]
        if leaves_child:
            steps.insert(2, {"spawn": {"seconds": 600, "pid_file": str(self.root / f"child-{number}")}})
        more = {"directory": str(self.shared)} if in_shared else {}
        try:
            task = self.home.add(script(*steps), **more)
        except (DaemonUnreachableError, ControlError):
            return  # killed at its chosen place: the task was not taken, or its answer was lost
        text = [f"t{number} {n}\n" for n in range(1, lines + 1)] + [f"end{number} {n}\n" for n in range(1, 4)]
        self.tasks[task] = "".join(text)

    @rule(position=st.integers(0, 9))
    def cancel(self, position: int) -> None:
        if not self.tasks or not self.alive():
            return
        task = list(self.tasks)[position % len(self.tasks)]
        try:
            self.home.call("POST", f"/v1/tasks/{task}/cancel")
        except (DaemonUnreachableError, ControlError):
            return
        self.cancelled.add(task)

    @rule(after_ms=st.integers(0, 120))
    def kill(self, after_ms: int) -> None:
        time.sleep(after_ms / 1000)  # a random moment is the point, nothing is waited for
        if self.alive():
            self.home.kill()

    @rule(position=st.integers(0, 9), after_ms=st.integers(0, 60))
    def kill_shim(self, position: int, after_ms: int) -> None:
        time.sleep(after_ms / 1000)
        states = [read_state(path) for path in sorted(self.home.directories.runs.glob("*"))]
        alive = [state.info for state in states if state.phase is RunPhase.ALIVE and state.info is not None]
        if alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(alive[position % len(alive)].pid, signal.SIGKILL)
            self.shims_killed += 1

    @rule(place=st.sampled_from(["", *[p for p in PLACES if ":" not in p]]), visit=st.integers(1, 4))
    def start_or_stop(self, place: str, visit: int) -> None:
        if self.alive():
            self.stop()
            return
        daemon = self.home.launch(kill_at=f"{place}:{visit}" if place else "")
        wait_until(
            lambda: daemon.poll() is not None or self.home.status().get("status") == "running",
            "the daemon to run or to be killed",
        )
        assert daemon.poll() in (None, -signal.SIGKILL), self.home.said()

    def stop(self) -> None:
        daemon = self.home.daemon
        assert daemon is not None
        try:
            self.home.call("POST", "/v1/daemon/stop", {"runs": False})
        except DaemonUnreachableError:
            pass
        daemon.wait(30)
        assert daemon.returncode in (0, -signal.SIGKILL), self.home.said()

    def teardown(self) -> None:
        try:
            self.check()
        finally:
            self.home.close()
            shutil.rmtree(self.root, ignore_errors=True)

    def check(self) -> None:
        if self.alive():
            self.home.kill()
        self.home.start()
        # Tasks whose answer was lost are in the hub all the same: all of them have to end, and what the hub
        # tries again, too.
        everything: list[str] = []
        while left := [task for (task,) in self.home.hub("SELECT id FROM task") if task not in everything]:
            task = left[0]
            everything.append(task)
            self.home.wait(task)
            if self.home.journal("SELECT 1 FROM tasks WHERE task_id = ?", task):
                self.home.wait_delivered(task)
        wait_until(lambda: self.home.status()["active_runs"] == 0, "all runs to be over")
        wait_until(lambda: len(self.home.processes()) == 1, "nothing but the daemon to be left")
        for task in everything:
            found = self.home.task(task)
            status = found["status"]
            if status == "failed":
                assert self.shims_killed, found
                assert found["failure_reason"] == "runtime_recovery", found
            elif task in self.cancelled:
                assert status in ("cancelled", "completed")
            else:
                assert status == "completed", found
            check_transcript(self.home, task, self.tasks.get(task) if status == "completed" else None)
            (answers,) = self.home.hub(
                "SELECT count(*) FROM chat_message m WHERE m.role = 'assistant' AND m.task_id = ?", task
            )[0]
            assert answers == (1 if status == "completed" else 0) or status == "failed"
        self.check_concurrency()
        assert self.home.agent_starts() <= len(everything)

    def check_concurrency(self) -> None:
        """From the agents' own log: one that was cancelled or killed writes no end; its place is unknown."""
        if self.cancelled or self.shims_killed or not self.log.exists():
            return
        running: set[str] = set()
        shared: set[str] = set()
        begun: set[str] = set()
        for line in self.log.read_text().splitlines():
            sign, number, in_shared = line.split()
            if sign == "+":
                assert number not in begun, f"the agent of task {number} was started twice"
                begun.add(number)
                running.add(number)
                if in_shared == "1":
                    shared.add(number)
            else:
                running.discard(number)
                shared.discard(number)
            assert len(running) <= SLOTS
            assert len(shared) <= 1


TestKills = Kills.TestCase
TestKills.settings = settings(
    max_examples=int(os.environ.get("OSTLER_TEST_KILLS", "8")),
    stateful_step_count=14,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
