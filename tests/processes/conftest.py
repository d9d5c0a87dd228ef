"""A place for runs, with real shims and real children, that leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon_core.processes import RunPhase, RunSpec, Shim, end_survivors, read_state, spawn
from daemon_core.processes.tree import Identity, identify, send

PYTHON = [sys.executable, "-I", "-S", "-c"]


class Stage:
    """Makes runs below one directory, and ends them all."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.prefix = f"t{secrets.token_hex(5)}"
        self.shims: list[Shim] = []
        self.specs: list[RunSpec] = []

    def spec(self, *argv: str, run_dir: Path | None = None, **options: Any) -> RunSpec:
        """A spec for a fresh run directory."""
        mark = f"{self.prefix}-{len(self.specs)}"
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.base), **options.pop("env", {})}
        spec = RunSpec(
            run_dir=run_dir or self.base / "runs" / mark,
            argv=argv,
            env=environment,
            mark=options.pop("mark", mark),
            cwd=options.pop("cwd", self.base),
            socket_dir=options.pop("socket_dir", self.base / "run"),
            **options,
        )
        self.specs.append(spec)
        return spec

    async def spawn(self, *argv: str, **options: Any) -> Shim:
        """Starts a run."""
        return self.keep(await spawn(self.spec(*argv, **options)))

    async def python(self, code: str, **options: Any) -> Shim:
        """Starts a run of Python code."""
        return await self.spawn(*PYTHON, code, **options)

    def keep(self, shim: Shim) -> Shim:
        self.shims.append(shim)
        return shim

    async def close(self) -> None:
        for shim in self.shims:
            await shim.close()
        for spec in self.specs:
            state = read_state(spec.run_dir)
            if state.phase is RunPhase.ALIVE and state.info is not None:
                send(Identity(state.info.pid, state.info.started), signal.SIGTERM)
                send(Identity(state.info.child_pid, state.info.child_started), signal.SIGKILL)
                await until_not_alive(spec.run_dir)
                state = read_state(spec.run_dir)
            if state.phase is RunPhase.LOST:
                end_survivors(spec.mark, state.info.cgroup if state.info else None)


async def until_not_alive(run_dir: Path) -> None:
    await until(lambda: read_state(run_dir).phase is not RunPhase.ALIVE)


async def until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    """Waits for a condition; the test fails if it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


def marked_processes(prefix: str) -> list[str]:
    """The command lines of living processes whose mark begins with ``prefix``."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"OSTLER_MARK={prefix}".encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_text(errors="replace").replace("\0", " "))
        except OSError:
            pass
    return found


def shims_below(base: Path) -> list[int]:
    """The living processes whose working directory is below ``base`` and that are shims."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_text(errors="replace")  # those of others may be no text
            if str(base) in command and "shim" in command:
                found.append(int(path.name))
        except OSError:
            pass
    return found


def is_gone(pid: int) -> bool:
    return identify(pid) is None


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory with a short name: pytest's own are too long for a socket."""
    path = Path(tempfile.mkdtemp(prefix="ost-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def stage(base: Path) -> AsyncIterator[Stage]:
    stage = Stage(base)
    yield stage
    await stage.close()
    await until(lambda: not shims_below(base))
    assert marked_processes(stage.prefix) == []
    cgroups = Path("/sys/fs/cgroup")
    assert list(cgroups.glob(f"ostler-{stage.prefix}*")) == []
    assert list(cgroups.glob(f"*/ostler-{stage.prefix}*")) == []


needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="needs root for a second user, a mount or a cgroup",
)
