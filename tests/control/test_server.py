"""The control API over a real socket: answers, refusals, who may ask, streams."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import resource
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from daemon_core.cli import words
from daemon_core.control.refusals import refusal_of
from daemon_core.control.routes import ROUTES
from daemon_core.control.server import ControlServer
from daemon_core.control.views import TranscriptLine
from daemon_core.hub import StorageError
from daemon_core.journal import JournalError
from tests.control.memory_backend import MemoryBackend
from tests.settings.another_user import open_place

ASK = """
import os, socket, sys
if len(sys.argv) > 4:
    os.setgroups([]); os.setgid(int(sys.argv[4])); os.setuid(int(sys.argv[4]))
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(f"{sys.argv[2]} {sys.argv[3]} HTTP/1.1\\r\\nHost: ostler\\r\\n".encode())
s.sendall(b"Connection: close\\r\\n\\r\\n")
data = b""
while piece := s.recv(65536): data += piece
print(data.decode())
"""


async def add(http: aiohttp.ClientSession, **fields: Any) -> dict[str, Any]:
    async with http.post("/v1/tasks", json={"prompt": "do it", **fields}) as response:
        assert response.status == 201, await response.text()
        made: dict[str, Any] = await response.json()
        return made


async def refused(response: aiohttp.ClientResponse) -> tuple[int, str, dict[str, Any]]:
    error = (await response.json())["error"]
    assert set(error) == {"code", "params"}
    return response.status, error["code"], error["params"]


async def ask_as(server: ControlServer, method: str, path: str, *user: str, **options: Any) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ASK,
        str(server.socket_path),
        method,
        path,
        *user,
        stdout=subprocess.PIPE,
        **options,
    )
    out, _ = await process.communicate()
    return out.decode()


async def test_status_and_snapshot_carry_the_documented_fields(http: aiohttp.ClientSession) -> None:
    made = await add(http)
    async with http.get("/v1/snapshot") as response:
        snapshot = await response.json()
    documented = {
        "status",
        "pid",
        "version",
        "uptime",
        "port",
        "active_runs",
        "slots",
        "barrier",
        "connections",
        "runtimes",
    }
    assert documented <= set(snapshot["status"])
    assert [row["id"] for row in snapshot["tasks"]] == [made["id"]]
    assert snapshot["revision"] > 0
    async with http.get(f"/v1/events?since={snapshot['revision']}") as response:
        assert response.status == 200


async def test_the_socket_is_for_its_owner_alone(server: ControlServer) -> None:
    assert stat.S_IMODE(os.stat(server.socket_path).st_mode) == 0o600


async def test_a_second_start_takes_over_what_a_dead_daemon_left(
    backend: MemoryBackend, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    first = ControlServer(backend, path)
    await first.start()
    second = ControlServer(MemoryBackend(), path)
    await second.start()
    await first.close()
    assert path.exists(), "closing the old one must not take the new one's socket away"
    await second.close()
    assert not path.exists()
    await second.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://localhost"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_what_a_web_page_may_have_sent_is_refused(
    http: aiohttp.ClientSession, backend: MemoryBackend, headers: dict[str, str]
) -> None:
    async with http.post("/v1/tasks", json={"prompt": "x"}, headers=headers) as response:
        assert (await refused(response))[:2] == (403, "refused_peer")
    assert not backend.tasks


async def test_what_local_programs_send_as_host_is_accepted(http: aiohttp.ClientSession) -> None:
    for host in ("localhost", "localhost:80", "127.0.0.1", "ostler", ""):
        async with http.get("/v1/status", headers={"Host": host}) as response:
            assert response.status == 200, host


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_another_user_is_refused_even_with_access_to_the_socket(backend: MemoryBackend) -> None:
    with open_place() as place:
        server = ControlServer(backend, place / "control.sock")
        await server.start()
        place.chmod(0o755)  # the server has made it private: as if that had failed
        os.chmod(server.socket_path, 0o666)
        answer = await ask_as(server, "GET", "/v1/status", "65534")
        await server.close()
    assert " 403 " in answer.splitlines()[0]
    assert '"why":"user"' in answer


async def test_a_run_cannot_stop_or_pause_its_keeper(server: ControlServer, backend: MemoryBackend) -> None:
    backend.own_marks.add("abc")
    marked = {**os.environ, "OSTLER_MARK": "abc"}
    guarded = [route for route in ROUTES if route.guarded]
    assert {"stop", "pause", "resume", "reload_settings"} <= {route.name for route in guarded}
    for route in guarded:
        path = re.sub(r"\{\w+\}", "x", route.path)
        answer = await ask_as(server, route.method, path, env=marked)
        assert "refused_from_run" in answer, route
    assert "running" in await ask_as(server, "GET", "/v1/status", env=marked)
    assert not backend.stopped.is_set()


async def test_a_run_is_known_by_its_ancestors_too(server: ControlServer, backend: MemoryBackend) -> None:
    backend.own_marks.add("abc")
    inner = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {ASK!r}, *sys.argv[1:]], env={{}})"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        inner,
        str(server.socket_path),
        "POST",
        "/v1/daemon/stop",
        env={**os.environ, "OSTLER_MARK": "abc"},
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert b"refused_from_run" in out
    assert not backend.stopped.is_set()


async def test_the_mark_of_another_daemons_run_is_no_obstacle(
    server: ControlServer, backend: MemoryBackend
) -> None:
    answer = await ask_as(server, "POST", "/v1/daemon/stop", env={**os.environ, "OSTLER_MARK": "another"})
    assert " 202 " in answer.splitlines()[0]
    assert backend.stopped.is_set()


async def test_bad_input_is_refused_with_a_code(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    cases: list[tuple[str, str, Any, int, str]] = [
        ("POST", "/v1/tasks", {"prompt": " \n"}, 400, "invalid_input"),
        ("POST", "/v1/tasks", {"prompt": "a\0b"}, 400, "invalid_input"),
        ("POST", "/v1/tasks", {"prompt": 3}, 400, "invalid_input"),
        ("POST", "/v1/tasks", {"prompt": "x", "promt": "y"}, 400, "invalid_input"),
        ("POST", "/v1/tasks", {"prompt": "x", "runtime": "cladue"}, 404, "unknown_runtime"),
        ("POST", "/v1/tasks", {"prompt": "x", "agent": "bob"}, 404, "no_such_agent"),
        ("POST", "/v1/tasks", {"prompt": "x", "directory": "relative"}, 400, "directory_not_absolute"),
        ("POST", "/v1/tasks", {"prompt": "x", "directory": str(tmp_path / "no")}, 400, "directory_not_found"),
        ("GET", "/v1/tasks/00000099", None, 404, "not_found"),
        ("GET", "/v1/tasks/000", None, 400, "invalid_input"),
        ("GET", "/v1/nothing", None, 404, "no_such_route"),
        ("PUT", "/v1/status", None, 405, "no_such_route"),
        ("GET", "/v1/events?since=soon", None, 400, "invalid_input"),
        ("GET", "/v1/agents/bob", None, 404, "no_such_agent"),
    ]
    for method, path, body, status, code in cases:
        async with http.request(method, path, json=body) as response:
            assert (await refused(response))[:2] == (status, code), (path, body)
    async with http.post("/v1/tasks", data=b'{"prompt": "\xff"}') as response:
        assert (await refused(response))[1] == "invalid_input"


async def test_an_ambiguous_id_names_the_candidates(http: aiohttp.ClientSession) -> None:
    ids = [(await add(http))["id"] for _ in range(2)]
    async with http.get("/v1/tasks/0000") as response:
        status, code, params = await refused(response)
    assert (status, code) == (409, "ambiguous_id")
    assert params["candidates"] == sorted(ids)
    async with http.get("/v1/tasks/00000002") as response:
        assert (await response.json())["id"] == ids[1]


async def test_a_megabyte_of_prompt_is_taken_and_seventeen_are_not(http: aiohttp.ClientSession) -> None:
    large = json.dumps({"prompt": "\x01" * 1_000_000, "title": "t"}).encode()
    assert len(large) > 6_000_000
    async with http.post("/v1/tasks", data=io.BytesIO(large)) as response:
        assert len((await response.json())["prompt"]) == 1_000_000
    larger = json.dumps({"prompt": "x" * (17 * 2**20)}).encode()
    async with http.post("/v1/tasks", data=io.BytesIO(larger)) as response:
        assert (await refused(response))[:2] == (413, "too_large")


async def test_a_fault_of_the_backend_is_answered_without_its_text(
    http: aiohttp.ClientSession, backend: MemoryBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> Any:
        raise RuntimeError("a secret")

    backend.status = broken  # type: ignore[method-assign]
    async with http.get("/v1/status") as response:
        assert await refused(response) == (500, "internal", {})
        assert "secret" not in await response.text()
    assert "a request failed: GET /v1/status" in caplog.text


@pytest.mark.parametrize("which", ["journal", "hub"])
async def test_what_a_disk_says_is_told(
    http: aiohttp.ClientSession, backend: MemoryBackend, which: str
) -> None:
    said = "/here.db: database or disk is full"

    async def full() -> Any:
        if which == "journal":
            raise JournalError(said, full=True)
        failed = StorageError("storage_failed", path="/here.db", detail="database or disk is full")
        raise refusal_of(failed) from failed

    backend.status = full  # type: ignore[method-assign]
    async with http.get("/v1/status") as response:
        assert await refused(response) == (500, "internal", {"detail": said})
    told = words.refusal("internal", {"detail": said})
    assert told.message == f"The daemon could not do this: {said}"
    assert told.hint == "Check the disk and its permissions"


async def test_agents_are_added_changed_and_removed(http: aiohttp.ClientSession) -> None:
    wanted = {"name": "bob", "runtime": "claude", "env": {"TOKEN": "secret"}, "model": "opus"}
    async with http.post("/v1/agents", json=wanted) as response:
        assert response.status == 201
        assert "secret" not in await response.text()
    async with http.patch("/v1/agents/bob", json={"model": "sonnet"}) as response:
        changed = await response.json()
    assert (changed["model"], changed["env_names"]) == ("sonnet", ["TOKEN"])
    async with http.post("/v1/agents", json=wanted) as response:
        assert (await refused(response))[1] == "agent_exists"
    async with http.delete("/v1/agents/bob") as response:
        assert response.status == 200


# --- streams ---------------------------------------------------------------------------------------


async def event(response: aiohttp.ClientResponse) -> tuple[str, dict[str, Any]]:
    """The next event, comments passed over."""
    fields: dict[str, str] = {}
    while True:
        line = (await response.content.readline()).decode()
        assert line, "the stream ended"
        if line == "\n":
            if fields:
                data = json.loads(fields["data"])
                assert fields["id"] == str(data["revision"])
                assert fields["event"] == data["kind"]
                return fields["event"], data
        elif not line.startswith(":"):
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name] = value


async def test_changes_arrive_and_a_reader_that_was_away_gets_what_it_missed(
    http: aiohttp.ClientSession, backend: MemoryBackend
) -> None:
    async with http.get("/v1/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        kind, hello = await event(response)
        assert kind == "hello"
        made = await add(http)
        kind, first = await event(response)
        assert (kind, first["data"]["id"]) == ("task", made["id"])
    await backend.finish(made["id"])
    for options in (
        {"params": {"since": str(first["revision"])}},
        {"headers": {"Last-Event-ID": str(first["revision"])}},
    ):
        async with http.get("/v1/events", **options) as response:  # type: ignore[arg-type]
            assert (await event(response))[0] == "hello"
            kind, second = await event(response)
            assert second["data"]["status"] == "completed"
            assert second["revision"] > first["revision"] > hello["revision"]


async def test_a_revision_from_before_is_answered_with_reset(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/events?since=5") as response:
        assert (await event(response))[0] == "hello"
        kind, data = await event(response)
        assert (kind, data["data"]) == ("reset", {"reason": "too_old"})


async def test_a_quiet_stream_is_kept_alive_with_comments(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/events") as response:
        await event(response)
        assert (await response.content.readline()).startswith(b":")


async def test_a_reader_that_goes_away_is_no_fault(
    server: ControlServer, backend: MemoryBackend, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(server.socket_path))
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: ostler\r\n\r\n")
    await reader.readuntil(b"hello")
    writer.transport.abort()
    deadline = asyncio.get_running_loop().time() + 10
    while backend.changes.readers:
        backend.changes.publish("status", "status", {"n": 1})
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_reader_that_does_not_read_costs_bounded_memory(
    server: ControlServer, backend: MemoryBackend
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(server.socket_path), limit=4096)
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: ostler\r\n\r\n")
    await reader.readuntil(b"hello")
    for number in range(20_000):
        backend.changes.publish("task", f"task:{number}", {"id": "x" * 200})
        if number % 500 == 0:
            await asyncio.sleep(0)
    (subscription,) = backend.changes._subscriptions
    assert len(subscription._waiting) <= 1024
    last = backend.changes.publish("status", "status", {"last": True})
    data = b""
    while f'"revision":{last}'.encode() not in data:
        data = data[-200:] + await reader.read(65536)
    writer.close()
    await writer.wait_closed()


async def test_a_transcript_is_streamed_until_the_task_has_ended(
    http: aiohttp.ClientSession, backend: MemoryBackend
) -> None:
    made = await add(http)
    await backend.text(made["id"], "one")
    async with http.get(f"/v1/tasks/{made['id'][:8]}/transcript?follow=1") as response:
        assert json.loads(await response.content.readline()) == {
            "seq": 1,
            "type": "text",
            "content": "one",
            "at": "2026-05-04T10:00:00Z",
        }
        await asyncio.sleep(0.25)  # over two keep-alive periods: nothing is written into a transcript
        await backend.text(made["id"], "two")
        assert json.loads(await response.content.readline())["content"] == "two"
        await backend.finish(made["id"])
        assert await response.content.read() == b""
    async with http.get(f"/v1/tasks/{made['id']}/transcript?after=1") as response:
        assert [json.loads(line)["seq"] for line in (await response.text()).splitlines()] == [2]


async def test_a_transcript_of_an_unknown_task_is_refused_before_it_begins(
    http: aiohttp.ClientSession,
) -> None:
    async with http.get("/v1/tasks/ffffffff/transcript") as response:
        assert (await refused(response))[:2] == (404, "not_found")


async def test_200000_lines_pass_with_flat_memory(
    http: aiohttp.ClientSession, backend: MemoryBackend
) -> None:
    made = await add(http)
    line = TranscriptLine(seq=1, type="text", content="x" * 100)
    backend.lines[made["id"]] = [
        TranscriptLine(seq=seq, type="text", content=line.content) for seq in range(1, 200_001)
    ]
    await backend.finish(made["id"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 0
    async with http.get(f"/v1/tasks/{made['id']}/transcript") as response:
        async for _ in response.content:
            count += 1
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert count == 200_000
    assert grown_kib < 8 * 1024


async def test_closing_ends_open_streams_at_once(
    server: ControlServer, http: aiohttp.ClientSession, backend: MemoryBackend
) -> None:
    made = await add(http)
    loop = asyncio.get_running_loop()
    async with (
        http.get("/v1/events") as events,
        http.get(f"/v1/tasks/{made['id']}/transcript?follow=1") as transcript,
    ):
        await event(events)
        began = loop.time()
        await server.close()
        assert loop.time() - began < 1.5
        assert await events.content.read() == b""
        with pytest.raises(aiohttp.ClientPayloadError):
            await transcript.content.read()  # cut off: the reader can tell that there is more
    assert backend.changes.readers == 0
