"""The HTTP client against a real socket: every route, every class of error, every way to lose an answer."""

from __future__ import annotations

import asyncio
import datetime
import errno
import json
import logging
import os
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from daemon_core.connections.client import (
    NoAnswerError,
    ServerClient,
    UnreadableTaskError,
    normalise_base_url,
    os_name,
    parse_retry_after,
)
from daemon_core.connections.timing import Timeouts
from daemon_core.protocol import errors, wire
from tests.support.fake_server import (
    ROUTES,
    TOKEN,
    CutOff,
    Duplicate,
    FakeServer,
    FakeTask,
    Fault,
    Hang,
    HangAfter,
    ResetAfter,
    ResetBefore,
    Says,
    Status,
    Truncated,
    html_502,
    refuse,
    too_many,
)

SHORT = Timeouts(
    control_s=0.3,
    connect_s=0.3,
    lease_s=0.3,
    messages_s=0.3,
    pin_s=0.3,
    renew_s=0.3,
    workspaces_s=0.3,
    deregister_s=0.3,
    skill_min_s=0.3,
    skill_max_s=0.3,
)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        server.add_workspace(id_="ws-1")
        yield server


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[ServerClient]:
    async with ServerClient(server.url, TOKEN, version="1.2.3", os="linux") as client:
        yield client


@pytest.fixture
async def hasty(server: FakeServer) -> AsyncIterator[ServerClient]:
    """A client for requests that get no answer: it gives up soon. On a busy machine it may always do."""
    async with ServerClient(server.url, TOKEN, timeouts=SHORT) as client:
        yield client


@pytest.fixture
async def task(server: FakeServer, client: ServerClient) -> FakeTask:
    return server.add_task(await _register(client))


async def _register(client: ServerClient) -> str:
    request = wire.RegisterRequest(
        workspace_id="ws-1",
        daemon_id="d-1",
        runtimes=[wire.RuntimeEntry(name="Claude (box)", type="claude", version="2.0.0")],
    )
    (runtime,) = (await client.register(request)).runtimes or []
    return runtime.id


# --- base URL and headers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("ws://localhost:8080/ws", "http://localhost:8080"),
        ("wss://api.example.com/ws/", "https://api.example.com"),
        ("https://example.com/multica/ws?x=1#y", "https://example.com/multica"),
        (" HTTP://Example.com:80/ ", "http://example.com"),
        ("wss://example.com:443/ws", "https://example.com"),
        ("https://example.com:80", "https://example.com:80"),
        ("http://[::1]:9/news", "http://[::1]:9/news"),
    ],
)
def test_a_base_url_is_normalised(given: str, base: str) -> None:
    assert normalise_base_url(given) == base


@pytest.mark.parametrize(
    "given", ["", "localhost:8080", "ftp://x", "https://", "http://u:p@x", "http://x:port", "http://[::1"]
)
def test_what_is_no_server_url_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="server URL"):
        normalise_base_url(given)


async def test_every_request_carries_the_headers(client: ServerClient, server: FakeServer) -> None:
    await client.workspaces()
    await client.renew_token()
    get, post = server.requests
    for request in (get, post):
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert request.headers["X-Client-Platform"] == "daemon"
        assert request.headers["X-Client-Version"] == "1.2.3"
        assert request.headers["X-Client-OS"] == "linux"
        assert request.headers["X-Client-Capabilities"] == "coalesced-comments-v1"
    assert "Content-Type" not in get.headers
    assert post.headers["Content-Type"] == "application/json"
    assert post.raw == b"{}"


async def test_skill_bundles_are_advertised_only_if_they_can_be_resolved(server: FakeServer) -> None:
    async with ServerClient(server.url, lambda: TOKEN, skill_bundles=True) as client:
        await client.workspaces()
    said = server.requests[0].headers["X-Client-Capabilities"]
    assert said == "skill-bundles-v1,coalesced-comments-v1"
    assert "X-Client-Version" not in server.requests[0].headers
    assert server.requests[0].headers["X-Client-OS"] == os_name()


async def test_a_server_that_does_not_wait_for_the_end_of_a_cancelled_run_is_asked_once(
    client: ServerClient, server: FakeServer
) -> None:
    request = wire.CancelAckRequest(durable_work_dir="/w")
    server.later = True
    with pytest.raises(errors.TaskGoneError):
        await client.cancel_ack("t", request)
    server.script("cancel_ack", refuse(404, "not found"), refuse(500, "failed to settle"))
    await client.cancel_ack("t", request)
    with pytest.raises(errors.TransientError):
        await client.cancel_ack("t", request)
    server.later = False
    for _ in range(3):
        await client.cancel_ack("t", request)
    assert len(server.seen("cancel_ack")) == 4


async def test_the_token_is_asked_for_at_every_request(server: FakeServer) -> None:
    tokens = iter([TOKEN, ""])
    async with ServerClient(server.url, lambda: next(tokens)) as client:
        await client.workspaces()
        with pytest.raises(errors.UnauthorizedError, match="missing authorization"):
            await client.workspaces()


@pytest.mark.parametrize("token", ["mul_a\r\nX-Evil: 1", "mul_ü", "mul_a b"])
async def test_a_token_that_cannot_be_one_is_not_sent(server: FakeServer, token: str) -> None:
    async with ServerClient(server.url, token) as client:
        with pytest.raises(errors.UnauthorizedError):
            await client.workspaces()
    assert server.requests == []


# --- every method ----------------------------------------------------------------------------------


async def test_workspaces_and_registration(client: ServerClient, server: FakeServer) -> None:
    server.repos["ws-1"] = [{"url": "https://x/r.git"}]
    server.settings["ws-1"] = {"github_enabled": False}
    assert (await client.renew_token()).expires_at == ""
    assert [w.id for w in await client.workspaces()] == ["ws-1"]
    runtime_id = await _register(client)
    assert server.runtimes[runtime_id].name == "Claude (box)"
    repos = await client.workspace_repos("ws-1")
    assert [r.url for r in repos.repos] == ["https://x/r.git"]
    assert repos.settings == {"github_enabled": False}
    assert await client.runtime_profiles("ws-1") == []
    assert (await client.heartbeat(runtime_id)).status == "ok"
    assert server.seen("heartbeat")[0].body == {"runtime_id": runtime_id, "supports_batch_import": True}
    assert (await client.recover_orphans(runtime_id)).orphaned == 0
    await client.report_action(runtime_id, "local-skills/import", "q", {"status": "failed"})
    assert server.results == [("local-skills/import", "q", {"status": "failed"})]
    await client.deregister([runtime_id])
    assert not server.runtimes[runtime_id].online


async def test_the_life_of_a_task(client: ServerClient, server: FakeServer, task: FakeTask) -> None:
    claimed = await client.claim(task.runtime_id)
    assert claimed is not None
    assert (claimed.id, claimed.auth_token[:4]) == (task.id, "mat_")
    assert await client.claim(task.runtime_id) is None
    await client.prepare_lease(task.runtime_id, task.id)
    assert await client.wait_local_directory(task.id, "local_directory /x") == "waiting_local_directory"
    assert await client.start(task.id) == "running"
    assert await client.status(task.id) == "running"
    await client.progress(task.id, "going", 1, 2)
    lines = [wire.TaskMessage(seq=1, type="text", content="é"), wire.TaskMessage(seq=2, type="error")]
    await client.send_messages(task.id, msgspec.json.encode(lines))
    stored = await client.messages_since(task.id, 1)
    assert [(m.seq, m.type, m.task_id) for m in stored] == [(2, "error", task.id)]
    await client.pin_session(task.id, "s-1", None)
    await client.usage(task.id, [wire.Usage(provider="claude", model="m", input_tokens=3)])
    result = wire.CompleteRequest(output="done", session_id="s-1", work_dir="/w")
    assert await client.complete(task.id, result) == "completed"
    assert await client.fail(task.id, wire.FailRequest(error="late")) == "completed"
    assert (task.leases, task.starts, task.wait_reason) == (1, 1, "local_directory /x")
    assert task.usage[0]["input_tokens"] == 3
    assert (task.session_id, task.work_dir) == ("s-1", "/w")
    assert [r.effective for r in task.reports] == [True, False]


async def test_a_batch_goes_out_as_it_was_encoded(
    client: ServerClient, server: FakeServer, task: FakeTask
) -> None:
    encoded = b'[{"seq":1,"type":"text","content":"  \xc3\xa9 "} ]'
    await client.send_messages(task.id, encoded)
    assert server.seen("messages")[0].raw == b'{"messages":' + encoded + b"}"


async def test_a_large_batch_goes_through(client: ServerClient, server: FakeServer, task: FakeTask) -> None:
    lines = [wire.TaskMessage(seq=n, type="text", content="x" * 1000) for n in range(1, 3001)]
    await client.send_messages(task.id, msgspec.json.encode(lines))
    assert len(server.check_transcript(task.id)) == 3000


async def test_a_skill_is_resolved(client: ServerClient, server: FakeServer, task: FakeTask) -> None:
    server.skills["s"] = {"id": "s", "name": "deploy", "content": "main", "hash": "sha256:x"}
    skill = await client.resolve_skill(task.runtime_id, task.id, wire.SkillRef(id="s", hash="sha256:old"))
    assert (skill.name, skill.hash) == ("deploy", "sha256:x")
    server.script("skills", Says({"bundles": []}))
    with pytest.raises(NoAnswerError, match="0 skill bundles"):
        await client.resolve_skill(task.runtime_id, task.id, wire.SkillRef(id="s"))


async def test_pinning_nothing_is_a_mistake(client: ServerClient) -> None:
    with pytest.raises(ValueError, match="nothing to pin"):
        await client.pin_session("t", None, "")


async def test_ids_cannot_leave_their_place_in_the_path(client: ServerClient, server: FakeServer) -> None:
    with pytest.raises(errors.TaskGoneError):
        await client.status("../../x?y#z")
    (request,) = server.seen("status")
    assert request.parameters == {"tid": "../../x?y#z"}
    assert request.query == {}


# --- classes of error ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (refuse(401, "invalid token"), errors.UnauthorizedError),
        (refuse(404, "Workspace not found"), errors.WorkspaceGoneError),
        (refuse(404, "runtime not found"), errors.RuntimeGoneError),
        (refuse(404, "task not found"), errors.TaskGoneError),
        (refuse(404, "not found"), errors.PermanentError),
        (refuse(400, "invalid task_id"), errors.PermanentError),
        (refuse(402, "pay"), errors.PermanentError),
        (refuse(403, "disabled"), errors.PermanentError),
        (refuse(409, "task is not preparing"), errors.PermanentError),
        (refuse(422, "no"), errors.PermanentError),
        (refuse(408, "slow"), errors.TransientError),
        (refuse(429, "slow down"), errors.TransientError),
        (refuse(500, "store"), errors.TransientError),
        (html_502(), errors.TransientError),
        (refuse(503, "later"), errors.TransientError),
    ],
)
async def test_a_status_becomes_its_class(
    client: ServerClient, server: FakeServer, fault: Status, kind: type[errors.ServerError]
) -> None:
    server.script("status", fault)
    with pytest.raises(errors.ServerError) as caught:
        await client.status("t")
    assert type(caught.value) is kind
    assert caught.value.status == fault.status
    assert caught.value.body == fault.body


async def test_an_error_body_is_cut_at_4096_bytes(client: ServerClient, server: FakeServer) -> None:
    server.script("status", Status(500, "x" * 1_000_000))
    with pytest.raises(errors.TransientError) as caught:
        await client.status("t")
    assert len(caught.value.body) == 4096
    with pytest.raises(errors.TaskGoneError):
        await client.status("t")


async def test_the_servers_wish_to_be_left_alone_is_known(client: ServerClient, server: FakeServer) -> None:
    server.script("claim", too_many("7"), too_many("100000"), refuse(503, "later"))
    found = []
    for _ in range(3):
        with pytest.raises(errors.TransientError) as caught:
            await client.claim("r")
        found.append((caught.value.retry_after_s, caught.value.maybe_applied))
    assert found == [(7.0, False), (300.0, False), (None, True)]


def test_retry_after_is_a_number_or_a_date() -> None:
    now = datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.UTC)
    assert parse_retry_after("Thu, 01 Jan 2026 12:00:09 GMT", now) == 9
    assert parse_retry_after("Thu, 01 Jan 2026 11:00:00 GMT", now) == 0
    assert parse_retry_after("1.5", now) == 1.5
    assert [parse_retry_after(text, now) for text in (None, "", "soon", "nan")] == [None] * 4
    assert parse_retry_after("inf", now) == 300


# --- lost answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "applied"),
    [
        (Hang(), "timeout", False),
        (HangAfter(), "timeout", True),
        (ResetBefore(), "reset", False),
        (ResetAfter(), "reset", True),
        (CutOff(), "cut_off", True),
        (Truncated(), "unreadable", True),
        (Says([1, 2]), "unreadable", True),
        (Says(b"\xff\xfe"), "unreadable", True),
        (Says(b"<html>sign in to the network</html>", "text/html"), "not_the_server", True),
    ],
)
async def test_a_lost_answer_may_have_been_acted_upon(
    client: ServerClient,
    hasty: ServerClient,
    server: FakeServer,
    task: FakeTask,
    fault: Fault,
    code: str,
    applied: bool,
) -> None:
    await client.claim(task.runtime_id)
    server.script("start", fault)
    with pytest.raises(NoAnswerError) as caught:
        await (hasty if code == "timeout" else client).start(task.id)
    assert caught.value.code == code
    assert caught.value.maybe_applied
    assert caught.value.retry_after_s is None
    assert (task.status == "running") is applied
    assert await client.status(task.id) == ("running" if applied else "dispatched")  # still usable


@pytest.mark.parametrize("fault", [ResetAfter(), HangAfter(), Truncated(), CutOff()])
async def test_a_claim_whose_answer_is_lost_is_handed_out_again(
    client: ServerClient, hasty: ServerClient, server: FakeServer, task: FakeTask, fault: Fault
) -> None:
    server.script("claim", fault)
    with pytest.raises(errors.TransientError) as caught:
        await (hasty if isinstance(fault, HangAfter) else client).claim(task.runtime_id)
    assert caught.value.maybe_applied
    assert task.status == "dispatched"
    assert await client.claim(task.runtime_id) is None
    server.redeliver(task.id)
    claimed = await client.claim(task.runtime_id)
    assert claimed is not None
    assert claimed.id == task.id


async def test_a_post_is_never_repeated_by_the_transport(
    client: ServerClient, server: FakeServer, task: FakeTask
) -> None:
    await client.status(task.id)  # a pooled connection is what a transport would retry on
    server.script("messages", ResetAfter())
    with pytest.raises(NoAnswerError):
        await client.send_messages(task.id, b'[{"seq":1,"type":"text"}]')
    assert len(server.seen("messages")) == 1
    assert [m.seq for m in await client.messages_since(task.id, 0)] == [1]


async def test_a_doubled_request_shows_in_what_the_server_has(
    client: ServerClient, server: FakeServer, task: FakeTask
) -> None:
    server.script("messages", Duplicate())
    await client.send_messages(task.id, b'[{"seq":1,"type":"text"}]')
    assert [m.seq for m in await client.messages_since(task.id, 0)] == [1, 1]
    with pytest.raises(AssertionError, match="transcript"):
        server.check_transcript(task.id)


async def test_a_redirect_and_a_portal_are_no_success(client: ServerClient, server: FakeServer) -> None:
    server.script("complete", Status(302, "", headers=(("Location", "/login"),)))
    server.script("messages", Says(b"<html>", "text/html"))
    with pytest.raises(NoAnswerError) as caught:
        await client.complete("t", wire.CompleteRequest(output="x"))
    assert (caught.value.code, caught.value.status) == ("not_the_server", 302)
    server.tasks["t"] = FakeTask("t", "r", "ws-1", {})
    with pytest.raises(NoAnswerError, match="HTML"):
        await client.send_messages("t", b"[]")


async def test_an_endless_answer_is_not_read(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon_core.connections.timing.LARGE_ANSWER_LIMIT_BYTES", 1000)
    server.script("claim", Says({"task": None, "x": "y" * 5000}))
    async with ServerClient(server.url, TOKEN) as client:
        with pytest.raises(NoAnswerError) as caught:
            await client.claim("r")
        assert caught.value.code == "too_large"
        assert await client.workspaces()


async def test_an_accepted_change_without_a_word_is_accepted(
    client: ServerClient, server: FakeServer
) -> None:
    server.script("start", Says(b""))
    server.tasks["t"] = FakeTask("t", "r", "ws-1", {}, status="dispatched")
    assert await client.start("t") == ""


async def test_null_lists_are_empty(client: ServerClient, server: FakeServer) -> None:
    server.script("workspaces", Says(None))
    server.script("profiles", Says({"runtime_profiles": None}))
    assert await client.workspaces() == []
    assert await client.runtime_profiles("ws-1") == []


@pytest.mark.parametrize(
    ("answer", "task_id"),
    [
        ({"task": {"id": "t-9", "attempt": "two"}}, "t-9"),
        ({"task": {"id": 9}}, None),
        ({"task": "t-9"}, None),
        (["task"], None),
    ],
)
async def test_a_task_that_is_not_understood_can_be_named(
    client: ServerClient, server: FakeServer, task: FakeTask, answer: object, task_id: str | None
) -> None:
    server.script("claim", Says(answer))
    with pytest.raises(NoAnswerError) as caught:
        await client.claim(task.runtime_id)
    assert caught.value.code == "unreadable"
    if task_id is None:
        assert not isinstance(caught.value, UnreadableTaskError)
    else:
        assert isinstance(caught.value, UnreadableTaskError)
        assert caught.value.task_id == task_id
        assert "attempt" in caught.value.cause


# --- no connection at all --------------------------------------------------------------------------


async def test_a_refused_connection_was_certainly_not_acted_upon(server: FakeServer) -> None:
    async with ServerClient(server.url, TOKEN) as client:
        await server.stop()
        with pytest.raises(NoAnswerError) as caught:
            await client.claim("r")
        assert (caught.value.code, caught.value.maybe_applied) == ("refused", False)
        await server.start()
        assert await client.workspaces()


async def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    async with ServerClient("http://no-such-host.invalid", TOKEN) as client:
        with pytest.raises(NoAnswerError) as caught:
            await client.claim("r")
    assert (caught.value.code, caught.value.maybe_applied) == ("name_not_resolved", False)


async def test_an_unreachable_network(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> object:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", fail)
    async with ServerClient("http://127.0.0.1:9", TOKEN) as client:
        with pytest.raises(NoAnswerError) as caught:
            await client.claim("r")
    assert (caught.value.code, caught.value.maybe_applied) == ("network_unreachable", False)


async def test_a_connection_that_is_never_accepted() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.socket() as first, socket.socket() as second:  # fill the backlog
            for filler in (first, second):
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            async with ServerClient(f"http://127.0.0.1:{port}", TOKEN, timeouts=SHORT) as client:
                with pytest.raises(NoAnswerError) as caught:
                    await client.claim("r")
    assert (caught.value.code, caught.value.maybe_applied) == ("connect_timeout", False)


async def test_https_to_something_else_is_a_tls_failure(server: FakeServer) -> None:
    async with ServerClient(server.url.replace("http:", "https:"), TOKEN) as client:
        with pytest.raises(NoAnswerError) as caught:
            await client.claim("r")
    assert (caught.value.code, caught.value.maybe_applied) == ("tls", False)


async def test_an_untrusted_certificate_is_a_tls_failure_and_a_trusted_one_works(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def workspaces(_: web.Request) -> web.Response:
        return web.json_response([{"id": "w"}])

    app = web.Application()
    app.router.add_get("/api/workspaces", workspaces)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        async with ServerClient(url, TOKEN) as client:
            with pytest.raises(NoAnswerError) as caught:
                await client.workspaces()
        assert (caught.value.code, caught.value.maybe_applied) == ("tls", False)
        trusting = ssl.create_default_context(cafile=str(certificate))
        async with ServerClient(url, TOKEN, tls=trusting) as client:
            assert [w.id for w in await client.workspaces()] == ["w"]
    finally:
        await runner.cleanup()


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    async def workspaces(_: web.Request) -> web.Response:
        return web.json_response([{"id": "w"}])

    app = web.Application()
    app.router.add_get("/api/workspaces", workspaces)
    runner = web.AppRunner(app)
    await runner.setup()
    path = str(tmp_path / "hub.sock")
    async with ServerClient("http://hub", TOKEN, unix_socket=path) as client:
        with pytest.raises(NoAnswerError) as caught:
            await client.workspaces()
        assert (caught.value.code, caught.value.maybe_applied) == ("refused", False)
        await web.UnixSite(runner, path).start()
        try:
            assert [w.id for w in await client.workspaces()] == ["w"]
        finally:
            await runner.cleanup()


# --- life of the client ----------------------------------------------------------------------------


async def test_outside_its_block_a_client_says_so(server: FakeServer) -> None:
    client = ServerClient(server.url, TOKEN)
    for _ in range(2):
        with pytest.raises(NoAnswerError) as caught:
            await client.workspaces()
        assert (caught.value.code, caught.value.maybe_applied) == ("closed", False)
        async with client:
            await client.workspaces()
            with pytest.raises(RuntimeError):
                await client.__aenter__()


async def test_dropping_idle_connections_spares_those_in_use(
    client: ServerClient, server: FakeServer
) -> None:
    runtime_id = await _register(client)
    async with client.websocket([runtime_id], handshake_s=1, close_s=0.1, limit_bytes=1000) as link:
        await client.drop_idle()
        await client.drop_idle()
        assert await client.workspaces()
        await server.until(lambda: bool(server.sockets))
        server.push("x", {})
        assert json.loads((await link.receive(1)).data) == {"type": "x", "payload": {}}


async def test_a_request_under_way_survives_a_drop_and_can_be_cancelled(
    client: ServerClient, server: FakeServer
) -> None:
    server.always("workspaces", Hang())
    async with asyncio.TaskGroup() as group:
        hanging = group.create_task(client.workspaces())
        await server.until(lambda: bool(server.seen("workspaces")))
        await client.drop_idle()
        hanging.cancel()
    assert hanging.cancelled()


CALLS: list[Callable[[ServerClient], Awaitable[object]]] = [
    lambda c: c.renew_token(),
    lambda c: c.workspaces(),
    lambda c: c.workspace_repos("w"),
    lambda c: c.runtime_profiles("w"),
    lambda c: c.register(wire.RegisterRequest()),
    lambda c: c.deregister(["r"]),
    lambda c: c.heartbeat("r"),
    lambda c: c.report_action("r", "update", "u", {}),
    lambda c: c.recover_orphans("r"),
    lambda c: c.claim("r"),
    lambda c: c.prepare_lease("r", "t"),
    lambda c: c.resolve_skill("r", "t", wire.SkillRef(id="s")),
    lambda c: c.wait_local_directory("t", "x"),
    lambda c: c.start("t"),
    lambda c: c.status("t"),
    lambda c: c.progress("t", "x", 1, 2),
    lambda c: c.send_messages("t", b"[]"),
    lambda c: c.messages_since("t", 0),
    lambda c: c.pin_session("t", "s", None),
    lambda c: c.usage("t", []),
    lambda c: c.complete("t", wire.CompleteRequest()),
    lambda c: c.fail("t", wire.FailRequest()),
]


@pytest.mark.parametrize("fault", [Hang(), ResetBefore(), html_502(), Status(401, f"no: {TOKEN}")])
async def test_no_method_leaks_another_kind_of_error_or_the_token(
    hasty: ServerClient, server: FakeServer, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for route in ROUTES:
        server.always(route, fault)

    async def call(make: Callable[[ServerClient], Awaitable[object]]) -> None:
        with pytest.raises(errors.ServerError) as caught:
            await make(hasty)
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caught.value.body
        assert TOKEN not in told

    await asyncio.gather(*(call(make) for make in CALLS))
    assert TOKEN not in caplog.text


async def test_without_a_token_nothing_is_asked_where_one_is_needed(server: FakeServer) -> None:
    token = ""
    async with ServerClient(server.url, lambda: token, needs_token=True) as client:
        with pytest.raises(errors.UnauthorizedError):
            await client.workspaces()
        with pytest.raises(errors.UnauthorizedError):
            async with client.websocket(["r"], handshake_s=1, close_s=0.1, limit_bytes=1024):
                pass
        assert server.requests == []
        assert server.handshakes == []
        token = TOKEN
        assert [workspace.id for workspace in await client.workspaces()] == list(server.workspaces)


async def test_a_client_can_be_sent_to_another_address(server: FakeServer) -> None:
    async with ServerClient("http://unknown.invalid", TOKEN) as client:
        client.readdress(server.url + "/", None)
        assert client.base_url == server.url
        assert [workspace.id for workspace in await client.workspaces()] == list(server.workspaces)


@pytest.mark.parametrize(
    ("status", "body", "by_server", "verdict", "said"),
    [
        (400, '{"error":"invalid task_id"}', True, True, "invalid task_id"),
        (404, '{"error":"not found"}', True, True, "not found"),
        (403, '{"error":"account\\n disabled"}', True, False, "account disabled"),
        (409, '{"error":{"code":1}}', True, True, "status 409"),
        (404, "404 page not found", False, False, "status 404"),
        (403, "<html>blocked by <b>policy</b></html>", False, False, "status 403"),
        (404, '{"message":"no Route matched with those values"}', False, False, "status 404"),
        (405, "", False, False, "status 405"),
    ],
)
async def test_whose_word_a_refusal_is(
    server: FakeServer, status: int, body: str, by_server: bool, verdict: bool, said: str
) -> None:
    server.script("status", Status(status, body, "text/plain"))
    async with ServerClient(server.url, TOKEN) as client:
        with pytest.raises(errors.PermanentError) as caught:
            await client.status("t")
    assert (caught.value.by_server, caught.value.is_verdict, caught.value.said) == (by_server, verdict, said)
