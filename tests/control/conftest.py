"""A control server over a real socket, with everything behind it in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from daemon_core.control.server import ControlServer
from tests.control.memory_backend import MemoryBackend


@pytest.fixture
async def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
async def server(backend: MemoryBackend, tmp_path: Path) -> AsyncIterator[ControlServer]:
    served = ControlServer(backend, tmp_path / "control.sock", keep_alive_s=0.1)
    await served.start()
    yield served
    await served.close()


@pytest.fixture
async def http(server: ControlServer) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(str(server.socket_path))
    async with aiohttp.ClientSession("http://ostler", connector=connector) as session:
        yield session
