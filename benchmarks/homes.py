"""A daemon of its own for a benchmark."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon_core.runtimes.providers import builtin
from tests.end_to_end.home import PATIENCE_S, OstlerHome
from tests.support.scripted_agent import install_scripted_agent

LAUNCH = Path(__file__).with_name("launch.py")
LONG_S = 120.0


class BenchHome(OstlerHome):
    """Like the tests' home, with a daemon that tells when it began."""

    def launch(self, *, kill_at: str = "", **environ: str) -> subprocess.Popen[bytes]:
        assert not kill_at
        with open(self.root / "daemon.out", "ab") as log:
            self.daemon = subprocess.Popen(
                [sys.executable, str(LAUNCH), str(self.marks)],
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,
            )
        return self.daemon

    @property
    def marks(self) -> Path:
        return self.root / "marks"

    def began(self) -> tuple[int, int]:
        """When the daemon's Python began, and its ``main`` (ns since 1970)."""
        python, entered = self.marks.read_text().split()
        return int(python), int(entered)

    @property
    def pid(self) -> int:
        assert self.daemon is not None
        return self.daemon.pid

    def install(self, count: int) -> None:
        """Stand-ins for the first so many providers, the shell apart (which is there in any case)."""
        for provider in [each for each in builtin() if each.id != "shell"][:count]:
            install_scripted_agent(self.bin, provider.executables[0])

    def add_provider(self, name: str) -> None:
        """A provider of the user's own: a program that is driven as Claude Code is."""
        file = self.directories.providers / f"{name}.toml"
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(f'extends = "claude"\nname = "{name}"\nexecutables = ["{name}"]\n')

    def set(self, toml: str) -> None:
        """Write the settings."""
        file = self.directories.config_file
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(toml)

    def all_delivered(self) -> bool:
        """Whether every report has reached the hub."""
        waiting = self.journal("SELECT 1 FROM tasks WHERE state <> 'ended' OR delivery = 'pending' LIMIT 1")
        return not waiting and not self.journal("SELECT 1 FROM outbox LIMIT 1")

    def settle(self, tasks: int, patience_s: float = LONG_S) -> None:
        """Wait until so many tasks have ended at the hub and nothing is on its way. Looks at the files, not
        at the daemon, and not often: it shall not be disturbed."""
        deadline = time.monotonic() + patience_s
        while not (
            self.hub("SELECT count(*) FROM task WHERE ended_at IS NOT NULL") >= [(tasks,)]
            and self.all_delivered()
        ):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{tasks} tasks did not end in {patience_s:.0f} s: {self.said()[-1500:]}")
            time.sleep(0.05)

    def task_times(self, task_id: str) -> dict[str, int]:
        """The hub's times of a task, in µs since 1970."""
        names = ("created_at", "dispatched_at", "started_at", "ended_at")
        (row,) = self.hub(f"SELECT {', '.join(names)} FROM task WHERE id = ?", task_id)
        return dict(zip(names, row, strict=True))


@contextlib.contextmanager
def home(**more: Any) -> Iterator[BenchHome]:
    """A home that is gone afterwards, with everything that ran in it."""
    with tempfile.TemporaryDirectory(prefix="ost-bench-") as folder:
        made = BenchHome(Path(folder), **more)
        try:
            yield made
        finally:
            made.close()


__all__ = ["LONG_S", "PATIENCE_S", "BenchHome", "home"]
