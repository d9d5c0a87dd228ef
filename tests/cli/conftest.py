"""The real command as a child process, against a control server whose daemon is in memory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import daemon_core
from daemon_core.control.server import ControlServer
from daemon_core.settings.directories import Directories, resolve
from daemon_core.settings.lock import DaemonLock
from tests.control.memory_backend import MemoryBackend

ROOT = Path(daemon_core.__file__).parents[1]


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        found: dict[str, str] = self.document["error"]
        assert set(found) == {"code", "message", "hint"}
        return found


@dataclass
class Ostler:
    """``ostler`` with a home of its own."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def directories(self) -> Directories:
        return resolve({"OSTLER_HOME": str(self.home)})

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OSTLER_")}
        return {**kept, "OSTLER_HOME": str(self.home), "COLUMNS": "100", **self.environ}

    async def begin(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "daemon_core.cli",
            *arguments,
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> Done:
        return await end(await self.begin(*arguments), stdin)


async def end(process: asyncio.subprocess.Process, stdin: bytes = b"") -> Done:
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def interrupt(process: asyncio.subprocess.Process) -> Done:
    process.send_signal(signal.SIGINT)
    return await end(process)


@pytest.fixture
def ostler(tmp_path: Path) -> Ostler:
    """No daemon."""
    return Ostler(tmp_path)


@pytest.fixture
async def backend(ostler: Ostler) -> AsyncIterator[MemoryBackend]:
    """A daemon in memory, serving ``ostler``'s home, with its lock held; it stops when asked to."""
    directories = ostler.directories
    directories.ensure()
    backend = MemoryBackend()
    lock = DaemonLock.acquire(directories.lock_file)
    server = ControlServer(backend, directories.control_socket)
    await server.start()

    async def stop() -> None:
        await backend.stopped.wait()
        await server.close()
        lock.release()

    stopping = asyncio.create_task(stop())
    yield backend
    backend.stopped.set()
    await stopping
