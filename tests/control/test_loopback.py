"""The loopback application: ``/health`` for this user or the token, nothing for web pages."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yarl
from aiohttp import web

from daemon_core.control import peers
from daemon_core.control.loopback import LoopbackServer, build_app, make_token
from daemon_core.settings.directories import resolve
from daemon_core.settings.ports import open_loopback
from tests.control.memory_backend import MemoryBackend

ASK = """
import encodings.idna, os, sys, urllib.request, urllib.error
os.setgroups([]); os.setgid(65534); os.setuid(65534)
request = urllib.request.Request(sys.argv[1], headers=dict(h.split("=", 1) for h in sys.argv[2:]))
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


@pytest.fixture
async def token(tmp_path: Path) -> str:
    return make_token(tmp_path / "control.token")


@pytest.fixture
async def url(token: str, tmp_path: Path) -> AsyncIterator[str]:
    async def extra(request: web.Request) -> web.Response:
        return web.json_response({"mounted": True})

    directories = resolve({"OSTLER_HOME": str(tmp_path)})
    directories.ensure()
    app = build_app(MemoryBackend(), token, routes=[web.get("/api/extra", extra)])
    server = LoopbackServer(app, open_loopback(directories))
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    await server.close()
    await server.close()


async def test_health_is_told_to_this_user(url: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/health") as response:
        assert response.status == 200
        health = await response.json()
    assert {"status", "pid", "os", "uptime", "daemon_id", "device_name", "server_url"} <= set(health)
    assert {"cli_version", "active_task_count", "agents", "workspaces"} <= set(health)
    assert {"version", "active_runs", "barrier"} <= set(health)
    assert {"profile", "launched_by", "running_task_count", "resource_wait_task_count"} <= set(health)


async def test_mounted_routes_are_behind_the_same_guard(url: str) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/api/extra") as response:
            assert await response.json() == {"mounted": True}
        for headers in (
            {"Host": "evil.example"},
            {"Origin": "http://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
        ):
            for path in ("/health", "/api/extra", "/nothing"):
                async with http.get(url + path, headers=headers) as response:
                    assert response.status == 403, (headers, path)
                    assert (await response.json())["error"]["code"] == "refused_peer"


async def test_a_request_writes_no_lines_of_its_own_into_the_log(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = yarl.URL(f"{url}/x%0A2026-01-01%20CRITICAL%20forged", encoded=True)
    async with aiohttp.ClientSession() as http, http.get(path, headers={"Host": "evil.example"}) as response:
        assert response.status == 403
    (record,) = [each for each in caplog.records if each.name == "ostler.control"]
    assert record.getMessage().endswith("GET /x%0A2026-01-01%20CRITICAL%20forged")


async def test_without_the_kernels_word_the_token_decides(
    url: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "tcp_peer_uid", lambda local, remote: None)
    async with aiohttp.ClientSession() as http:
        for given, status in ((token, 200), (token[:-1], 403), ("", 403), ("\u00fc", 403)):
            headers = {"Authorization": f"Bearer {given}"}
            async with http.get(f"{url}/health", headers=headers) as response:
                assert response.status == status, given
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    bare = (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\r\nConnection: close\r\n\r\n"
    )
    writer.write(bare)  # bytes that are no text
    assert (await reader.read()).startswith(b"HTTP/1.1 403 ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_another_user_needs_the_token(url: str, token: str) -> None:
    async def ask(*headers: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ASK, f"{url}/health", *headers, stdout=subprocess.PIPE
        )
        return (await process.communicate())[0]

    assert await ask() == b'403 {"error":{"code":"refused_peer","params":{"why":"credential"}}}\n'
    assert await ask(f"Authorization=Bearer {token}") == b"200\n"


async def test_the_token_is_this_users_alone_and_new_in_every_life(tmp_path: Path) -> None:
    path = tmp_path / "token"
    first, second = make_token(path), make_token(path)
    assert first != second
    assert path.read_text() == f"{second}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
