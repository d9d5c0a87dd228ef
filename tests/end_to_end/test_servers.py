"""Servers beside the hub: signing in and out, several at once, and what is owed to each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from daemon_core.control.client import ControlClient
from daemon_core.settings.directories import resolve
from tests.end_to_end.home import PATIENCE_S, OstlerHome, wait_until
from tests.end_to_end.servers_world import TREE, ServersWorld, aside, name_of
from tests.support.fake_server import TOKEN, FakeServer, Hang, Says, Status, refuse
from tests.support.keyring_service import KeyringService, keyring_service

OTHER = "mul_" + "cd" * 20


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as made:
        made.add_workspace("Team")
        yield made


@pytest.fixture
async def second() -> AsyncIterator[FakeServer]:
    async with FakeServer() as made:
        made.add_workspace("Club")
        yield made


@pytest.fixture
def world(home: OstlerHome) -> ServersWorld:
    return ServersWorld(home)


async def test_tasks_of_two_servers_and_the_hub_run_side_by_side(
    world: ServersWorld, server: FakeServer, second: FakeServer
) -> None:
    await world.start()
    done = await world.login(server)
    assert done["added"] is True
    assert done["connection"]["name"] == name_of(server)
    assert [each["name"] for each in done["connection"]["workspaces"]] == ["Team"]
    await world.login(second)
    one, two = await world.add(server, "echo one"), await world.add(second, "echo two")
    own = await aside(lambda: world.home.add("echo own", "shell"))
    await world.ended(server, one)
    await world.ended(second, two)
    assert server.check(one.id).body["output"] == "one"
    assert second.check(two.id).body["output"] == "two"
    assert (await aside(lambda: world.home.wait(own)))["result"] == "own"
    # As the protocol has it: the token is renewed before anything else is asked.
    assert server.requests[0].route == "renew"
    assert {each["name"] for each in (await aside(world.home.status))["connections"]} == {
        "hub", name_of(server), name_of(second),
    }  # fmt: skip


async def test_a_dead_server_delays_neither_the_start_nor_another_one(
    world: ServersWorld, server: FakeServer, second: FakeServer
) -> None:
    await world.start()
    await world.login(server)
    await world.login(second)
    for route in ("renew", "workspaces", "register", "heartbeat", "claim"):
        server.always(route, Hang())
    await second.stop()
    await world.restart()
    assert (await aside(world.home.status))["status"] == "running"
    own = await aside(lambda: world.home.add("echo own", "shell"))
    assert (await aside(lambda: world.home.wait(own)))["result"] == "own"
    dead = await world.wait_status(name_of(second), "unreachable")
    assert dead["reason"] == "server_unreachable"
    assert dead["next_try_at"]
    rows = await aside(lambda: world.home.call("GET", "/v1/runtimes"))
    assert {row["status"] for row in rows if row["connection"] == "hub"} == {"online"}
    await second.start()
    await aside(lambda: world.home.call("POST", "/v1/connections/try-again", {}))
    task = await world.add(second, "echo again")
    await world.ended(second, task)
    assert second.check(task.id).body["output"] == "again"


async def test_without_the_hub_servers_alone_make_it_run(world: ServersWorld, server: FakeServer) -> None:
    await world.start(OSTLER_HUB_ENABLED="false")
    await world.login(server)
    task = await world.add(server, "echo only")
    await world.ended(server, task)
    assert server.check(task.id).body["output"] == "only"
    await server.stop()
    await aside(world.home.kill)
    await world.start(OSTLER_HUB_ENABLED="false")  # a server that is down is no reason to wait for ever
    found = await world.wait_status(name_of(server), "unreachable")
    assert found["reason"] == "server_unreachable"


async def test_a_result_waits_for_the_next_sign_in_and_is_delivered_once(
    world: ServersWorld, server: FakeServer, tmp_path: Path
) -> None:
    await world.start()
    await world.login(server)
    go = tmp_path / "go"
    task = await world.add(server, f"echo before; while [ ! -e {go} ]; do sleep 0.05; done; echo after")
    await server.until(lambda: task.status == "running", 40)
    server.tokens = {OTHER}  # revoked in the middle
    server.drop_sockets()
    out = await world.wait_status(name_of(server), "signed_out")
    assert (out["reason"], out["reason_params"]["reason"]) == ("signed_out", "token_refused")
    assert out["next_try_at"] is not None  # one question now and then
    condition = next(
        each for each in (await aside(world.home.status))["conditions"] if each["code"] == "signed_out"
    )
    assert condition["action"] == "sign_in"
    server.tokens = {TOKEN}  # a server that was wrong about it: somebody who asks again is heard
    assert (await world.ostler("connections", "--retry")).code == 0
    await world.wait_status(name_of(server), "connected")
    server.tokens = {OTHER}
    server.drop_sockets()
    await world.wait_status(name_of(server), "signed_out")
    rows = await aside(lambda: world.home.call("GET", "/v1/runtimes"))
    shown = {(row["status"], row["reason"]) for row in rows if row["connection"] == name_of(server)}
    assert shown == {("offline", "signed_out")}
    go.touch()
    key = f"{name_of(server)}/{task.id}"
    await aside(lambda: _until_journal(world.home, key, "ended"))
    # It survives the daemon, too; signed out it asks the server for nothing.
    await world.restart()
    await world.wait_status(name_of(server), "signed_out")
    assert task.status == "running"
    refused = await world.ostler("logout", "--json")
    assert (refused.code, refused.error["code"]) == (6, "conflict")
    again = await world.login(server, OTHER)
    assert again["added"] is False
    await world.ended(server, task)
    assert server.check(task.id).body["output"] == "before\nafter"
    await aside(lambda: world.home.wait_delivered(task.id))
    assert len(task.reports) == 1
    await world.wait_status(name_of(server), "connected")


def _until_journal(home: OstlerHome, key: str, state: str) -> None:
    wait_until(
        lambda: home.journal("SELECT 1 FROM tasks WHERE key = ? AND state = ?", key, state), f"{key} {state}"
    )


async def test_signing_out_removes_server_credential_and_runtimes(
    world: ServersWorld, server: FakeServer
) -> None:
    await world.start()
    done = await world.login(server)
    kept = Path(done["connection"]["credential"]["detail"])
    assert done["connection"]["credential"]["place"] == "file"
    assert done["why_file"] == "keyring_absent"
    assert (kept.read_text().strip(), stat.S_IMODE(kept.stat().st_mode)) == (TOKEN, 0o600)
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    checks = {
        check["name"]: check["detail"]
        for check in (await world.ostler("doctor", "--json")).document["checks"]
    }
    assert checks[f"server {name_of(server)}"].endswith(f"{server.url}; token in the file {kept}")
    shown = await world.ostler("connections")
    assert f"The token of {name_of(server)} is kept in the file {kept}" in shown.err
    runtime = await world.runtime(server)
    said = await world.ostler("logout", "--server", server.url)
    assert (said.code, said.out) == (
        0, f"Signed out of {server.url}; its token is removed from this machine.\n",
    )  # fmt: skip
    assert not kept.exists()
    assert not server.runtimes[runtime.id].online
    assert [each["name"] for each in (await world.ostler("connections", "--json")).document] == ["hub"]
    beats = len(server.requests)
    await world.restart()
    assert [each["name"] for each in (await world.ostler("connections", "--json")).document] == ["hub"]
    assert len(server.requests) == beats
    nobody = await world.ostler("logout")
    assert nobody.code == 5


async def test_a_forced_sign_out_ends_runs_and_reports_what_the_server_takes(
    world: ServersWorld, server: FakeServer, second: FakeServer
) -> None:
    await world.start()
    await world.login(server)
    await world.login(second)
    alive = await world.add(server, "trap 'echo told' INT TERM; echo up; while :; do sleep 1; done")
    deaf = await world.add(second, "sleep 600")
    await server.until(lambda: bool(alive.messages), 40)
    await second.until(lambda: deaf.status == "running", 40)
    assert (await world.ostler("logout", "--server", server.url)).code == 6
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(world.ostler("logout", "--server", name_of(server), "--force", "--json"))
        await server.until(lambda: any("told" in line["content"] for line in alive.messages), 40)
        # While that takes its time, nothing more is claimed from there, whatever happens at other servers.
        late = await world.add(server, "echo late")
        more = second.add_workspace("More")
        second.push("daemon:workspaces_changed", {})
        await second.until(lambda: any(each.workspace_id == more for each in second.runtimes.values()), 40)
        assert not leaving.done()
    said = leaving.result()
    assert (said.code, said.document["given_up"]) == (0, 0)
    assert server.check(alive.id).kind == "fail"
    assert (late.status, late.claims) == ("queued", 0)
    await second.stop()
    said = await world.ostler("logout", "--server", name_of(second), "--force", "--json")
    assert (said.code, said.document["given_up"]) == (0, 1)
    rows = world.home.journal("SELECT state, delivery FROM tasks ORDER BY claimed_at")
    assert sorted(rows) == [("ended", "delivered"), ("ended", "moot")]


async def test_the_token_is_nowhere_but_in_its_place(world: ServersWorld, server: FakeServer) -> None:
    await world.start()
    done = await world.login(server)
    task = await world.add(server, "env; cat /proc/$PPID/cmdline")
    await world.ended(server, task)
    kept = Path(done["connection"]["credential"]["detail"])
    pid = (await aside(world.home.status))["pid"]
    found = [
        path
        for path in world.home.root.rglob("*")
        if path.is_file() and path != kept and TOKEN.encode() in path.read_bytes()
    ]
    assert found == []
    assert TOKEN.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert TOKEN not in "".join(str(message) for message in task.messages)


async def test_a_run_may_not_sign_in_or_out(world: ServersWorld, server: FakeServer) -> None:
    await world.start()
    await world.login(server)
    socket = world.home.directories.control_socket
    command = (
        f"curl -s --unix-socket {socket} -X POST http://ostler/v1/connections/sign-out -d '{{}}'"
        if os.path.exists("/usr/bin/curl")
        else f"{sys.executable} -m daemon_core.cli logout --json"
    )
    task = await world.add(server, command)
    await world.ended(server, task)
    assert "refused_from_run" in "".join(str(message) for message in task.messages)
    assert (await world.connection(name_of(server)))["status"] == "connected"


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "words"),
    [
        (["--server", "ftp://host"], TOKEN, 2, "no address of a server"),
        (["--server", "https://me:secret@host"], TOKEN, 2, "must not contain a user name"),
        (["--server", "nonsense"], TOKEN, 2, "no address of a server"),
        (["--server", ""], TOKEN, 2, "address of the server is empty"),
        (["--server", "http://127.0.0.1:1"], "", 2, "no token on standard input"),
        (["--server", "http://127.0.0.1:1"], "mat_" + "ab" * 20, 4, "token of a task"),
        (["--server", "http://127.0.0.1:1"], "mul_ü", 2, "characters that no token has"),
        (["--server", "http://127.0.0.1:1"], TOKEN, 1, "nothing listens there"),
        (["--server", "http://nowhere.invalid"], TOKEN, 1, "its name was not found"),
    ],
)
async def test_what_cannot_be_signed_in_at_is_said_in_words(
    world: ServersWorld, arguments: list[str], stdin: str, code: int, words: str
) -> None:
    await world.start()
    said = await world.ostler("login", *arguments, "--token-stdin", stdin=stdin)
    assert said.code == code, said
    assert words in said.err
    assert said.err.count("\n") == 1
    assert "secret" not in said.err.replace("user name or password", "")
    assert [each["name"] for each in (await world.ostler("connections", "--json")).document] == ["hub"]


async def test_what_answers_and_is_not_the_server_is_said_in_words(
    world: ServersWorld, server: FakeServer
) -> None:
    await world.start()

    async def refused(*arguments: str) -> tuple[int, str]:
        said = await world.ostler(
            "login", "--server", server.url, "--token-stdin", "--json", *arguments, stdin=TOKEN
        )
        return said.code, said.error["message"]

    server.tokens = {OTHER}
    assert await refused() == (4, f"127.0.0.1:{server.url.rpartition(':')[2]} refuses the token")
    server.tokens = {TOKEN}
    server.script("renew", Status(404, "404 page not found", "text/plain"))
    server.script("workspaces", Status(404, "404 page not found", "text/plain"))
    assert "is no Multica server" in (await refused())[1]
    server.script("renew", Says("<html>hotel wifi</html>", "text/html"))
    assert "is no Multica server" in (await refused())[1]
    server.script("renew", Status(301, "", headers=(("Location", "https://elsewhere"),)))
    assert "sends requests elsewhere" in (await refused())[1]
    server.script("workspaces", refuse(403, "account disabled"))
    code, message = await refused()
    assert (code, "account disabled" in message) == (4, True)
    server.script("workspaces", Status(502, "<html>bad gateway</html>", "text/html"))
    assert await refused() == (
        1, f"127.0.0.1:{server.url.rpartition(':')[2]} answers with status 502 (<html>bad gateway</html>)",
    )  # fmt: skip
    server.script("renew", Status(400, '{"error":"only personal access tokens can be renewed"}'))
    await world.login(server)  # a token of another kind: good all the same
    assert (await world.connection(name_of(server)))["tasks"] == 0


async def test_no_daemon_no_sign_in(world: ServersWorld, server: FakeServer) -> None:
    said = await world.ostler("login", "--server", server.url, "--token-stdin", stdin=TOKEN)
    assert said.code == 3
    assert "`ostler daemon start`" in said.err


async def test_a_lost_list_of_servers_keeps_their_tasks_until_somebody_signs_in_again(
    world: ServersWorld, server: FakeServer, tmp_path: Path
) -> None:
    await world.start()
    await world.login(server)
    go = tmp_path / "go"
    task = await world.add(server, f"while [ ! -e {go} ]; do sleep 0.05; done; echo done")
    key = f"{name_of(server)}/{task.id}"
    await aside(lambda: _until_journal(world.home, key, "started"))
    await aside(world.home.kill)
    world.home.directories.servers_file.write_text("{ nonsense")
    await world.start()
    found = await world.wait_status(name_of(server), "signed_out")
    assert (found["reason_params"]["reason"], found["tasks"]) == ("not_listed", 1)
    status = await aside(world.home.status)
    assert "servers_damaged" in {each["code"] for each in status["conditions"]}
    assert status["active_runs"] == 1  # attached, and in its slot
    go.touch()
    await world.login(server)
    await world.ended(server, task)
    assert server.check(task.id).body["output"] == "done"


@pytest.fixture
def keyring() -> Iterator[KeyringService]:
    with keyring_service() as running:
        yield running


def _bus(keyring: KeyringService) -> dict[str, str]:
    """What leads the daemon to the keyring."""
    return {name: keyring.environ[name] for name in ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR")}


async def test_the_keyring_has_the_token_and_a_restarted_daemon_gets_it_there(
    world: ServersWorld, server: FakeServer, keyring: KeyringService
) -> None:
    await world.start(**_bus(keyring))
    done = await world.login(server)
    assert done["connection"]["credential"] == {"place": "keyring", "detail": "SecretService Keyring"}
    assert done["why_file"] == ""
    assert not world.home.directories.credentials.exists()
    assert "object path" in await aside(keyring.items)
    await aside(world.home.kill)
    await world.start(**_bus(keyring))
    await world.wait_status(name_of(server), "connected")
    task = await world.add(server, "echo kept; env")
    await world.ended(server, task)
    assert "kept" in server.check(task.id).body["output"]
    said = await world.ostler("logout")
    assert said.code == 0, said
    assert "object path" not in await aside(keyring.items)


async def test_a_locked_keyring_is_said_and_what_waits_stays(
    world: ServersWorld, server: FakeServer, keyring: KeyringService
) -> None:
    await world.start(**_bus(keyring))
    await world.login(server)
    await aside(world.home.kill)
    await aside(keyring.lock)
    await world.start(**_bus(keyring))
    found = await world.wait_status(name_of(server), "signed_out")
    assert found["reason_params"]["reason"] == "keyring_locked"
    assert found["next_try_at"] is not None
    told = await world.ostler("daemon", "status")
    assert f"Signed out of {name_of(server)}: the keyring with its token is locked" in told.out
    said = await world.ostler("login", "--server", server.url, "--token-stdin", stdin=TOKEN)
    assert said.code == 1
    assert said.err == (
        "The token cannot be stored in the system keyring: it is locked. "
        "Unlock it and try again, or keep the token in a file with `--store file`.\n"
    )
    said = await world.ostler(
        "login", "--server", server.url, "--token-stdin", "--store", "file", stdin=TOKEN
    )
    assert said.code == 0, said
    assert "which only you can read" in said.out
    await world.wait_status(name_of(server), "connected")


async def test_the_prompt_hides_what_is_typed(world: ServersWorld, server: FakeServer) -> None:
    await world.start()

    def typed() -> tuple[int, str]:
        import pty

        terminal, end = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon_core.cli", "login", "--server", server.url],
            stdin=end, stdout=end, stderr=end, start_new_session=True, cwd=TREE, env=world.home.environ,
        )  # fmt: skip
        os.close(end)
        shown = b""
        with os.fdopen(terminal, "r+b", buffering=0) as line:
            while b": " not in shown:
                shown += line.read(4096)
            line.write(TOKEN.encode() + b"\n")
            with contextlib.suppress(OSError):  # how a terminal ends
                while piece := line.read(4096):
                    shown += piece
        return process.wait(PATIENCE_S), shown.decode()

    code, shown = await aside(typed)
    assert code == 0, shown
    assert f"Access token for {server.url}: " in shown
    assert f"Signed in at {server.url}" in shown
    assert TOKEN not in shown


async def test_without_a_terminal_nobody_is_asked(world: ServersWorld, server: FakeServer) -> None:
    said = await world.ostler("login", "--server", server.url, "--json", stdin=TOKEN)
    assert (said.code, said.error["code"]) == (2, "usage")
    assert "--token-stdin" in said.error["hint"]


async def test_the_doctor_knows_where_the_token_is_with_no_daemon(
    world: ServersWorld, server: FakeServer
) -> None:
    await world.start()
    await world.login(server)
    await aside(world.home.stop)
    said = await world.ostler("doctor", "--json")
    checks = {check["name"]: check for check in said.document["checks"]}
    path = world.home.directories.credentials / f"{name_of(server)}.token"
    assert checks["servers"]["detail"] == f"{name_of(server)} (token in the file {path})"
    assert not any(runtime.online for runtime in server.runtimes.values())  # a real stop says so


async def test_a_workspace_that_joins_and_one_that_leaves(world: ServersWorld, server: FakeServer) -> None:
    server.later = True
    await world.start()
    await world.login(server)
    await world.runtime(server)
    server.script("register", refuse(402, "a seat is missing"))
    more = server.add_workspace("More")
    server.push("daemon:workspaces_changed", {})

    def refused() -> bool:
        found = world.home.call("GET", "/v1/connections")[1]["workspaces"]
        return {"id": more, "name": "More", "problem": "a seat is missing"} in found

    await aside(lambda: wait_until(refused, "the refusal to be known"))
    shown = await world.ostler("connections")
    assert "does not take this machine's agents in More: a seat is missing" in shown.err
    server.push("daemon:workspaces_changed", {})
    await server.until(lambda: any(each.workspace_id == more for each in server.runtimes.values()), 40)
    task = await world.add(server, "sleep 1; echo stays")
    await server.until(lambda: task.status == "running", 40)
    del server.workspaces[task.workspace_id]
    server.push("daemon:workspaces_changed", {})
    await world.ended(server, task)  # what began is brought to its end as long as the server takes it
    assert server.check(task.id).body["output"] == "stays"

    def left() -> bool:
        workspaces = {each["id"] for each in world.home.call("GET", "/v1/connections")[1]["workspaces"]}
        return workspaces == {more}

    await aside(lambda: wait_until(left, "one workspace to be left"))
    assert not server.seen("workspaces")[1:]  # the first look was the sign-in's


async def test_two_profiles_at_one_server_are_two_daemons(
    world: ServersWorld, server: FakeServer, tmp_path: Path
) -> None:
    await world.start()
    await world.login(server)
    await world.runtime(server)
    other = ServersWorld(OstlerHome(tmp_path / "other", environ={"OSTLER_PROFILE": "work"}))
    other.home.environ["OSTLER_HOME"] = world.home.environ["OSTLER_HOME"]
    other.home.directories = resolve(other.home.environ)
    other.home.client = ControlClient(other.home.directories.control_socket)
    try:
        await other.start()
        await other.login(server)
        await server.until(lambda: len({each.daemon_id for each in server.runtimes.values()}) == 2, 40)
        registered = [request.body for request in server.seen("register")]
        assert all(body["legacy_daemon_ids"] in ([], None) for body in registered)
        assert all(body["launched_by"] == "desktop" for body in registered)
        said = await other.ostler("logout")
        assert said.code == 0, said
        assert (await world.connection(name_of(server)))["status"] == "connected"
    finally:
        await aside(other.home.close)


async def test_a_list_that_cannot_be_read_is_said_in_words(world: ServersWorld) -> None:
    world.home.directories.servers_file.mkdir(parents=True)
    daemon = await aside(world.home.launch)
    assert await aside(lambda: daemon.wait(PATIENCE_S)) == 1
    assert "the list of servers cannot be read" in world.home.said()
