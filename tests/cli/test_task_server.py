"""What a task says to its server, and what an agent sees of the answers: a real command, a real socket."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ostler

TOKEN = "mat_" + "0" * 40


class Server:
    """Answers what it was told to, and keeps what it was asked.

    Attributes:
        answers: (status, headers, body) by method and path.
        asked: (method, target, headers) of each request.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                server.asked.append(
                    (self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
                )
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                found = server.answers.get(f"{self.command} {self.path}", [])
                status, headers, body = (
                    (found.pop(0) if len(found) > 1 else found[0]) if found else (404, {}, b"")
                )
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_CONNECT = _any  # noqa: N815 - names that are looked for

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def say(self, request: str, body: Any, status: int = 200, **headers: str) -> None:
        """One answer more to a request; the last one is given again and again."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.setdefault(request, []).append((status, headers, content))

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def inside(ostler: Ostler, server: Server) -> Ostler:
    """The command line as an agent of a task at ``server`` has it."""
    ostler.environ = {
        "OSTLER_TASK_ID": "t",
        "OSTLER_SERVER_URL": server.url,
        "OSTLER_TOKEN": TOKEN,
        "OSTLER_WORKSPACE_ID": "w",
    }
    return ostler


async def test_notes_and_files_are_shown_without_json_too(inside: Ostler, server: Server) -> None:
    server.say(
        "GET /api/issues/A-1/metadata", {"metadata": {"pr": 12, "waits on": "Ann", "deep": {"a": [1]}}}
    )
    done = await inside("issue", "metadata", "list", "A-1")
    assert done.err == ""
    assert done.out == 'metadata:\n  pr: 12\n  waits on: Ann\n  deep: {"a":[1]}\n'
    server.say("GET /api/issues/A-2/metadata", {"metadata": {}})
    assert (await inside("issue", "metadata", "list", "A-2")).out == "Nothing is there.\n"
    issue = {
        "identifier": "A-1",
        "title": "Mend it",
        "metadata": {},
        "attachments": [{"id": "f-1", "filename": "door.png", "size_bytes": 3}],
        "description": "It squeaks.",
    }
    server.say("GET /api/issues/A-1", issue)
    done = await inside("issue", "get", "A-1")
    assert "attachments:\n  f-1  door.png\n" in done.out
    assert done.out.endswith("\n\nIt squeaks.\n")
    assert "metadata" not in done.out


@pytest.mark.parametrize(
    "line", [{"role": "user", "content": "Hello."}, {"author": "Ann", "text": "Hello.", "ts": "1.2"}]
)
async def test_a_chat_is_read_whatever_its_channel_calls_things(
    inside: Ostler, server: Server, line: dict[str, str]
) -> None:
    server.say("GET /api/chat/history", {"messages": [line]})
    assert (await inside("chat", "history")).out.splitlines()[-1] == "Hello."


async def test_a_rerun_may_name_its_run(inside: Ostler, server: Server) -> None:
    server.say("POST /api/issues/A-1/rerun", {"id": "n"}, 202)
    server.say("GET /api/projects/p/resources", {"resources": [
        {"id": "r", "resource_type": "github_repo", "resource_ref": {"url": "https://example.org/a.git"}}
    ]})  # fmt: skip
    assert (await inside("issue", "rerun", "A-1", "--task", "t-1")).code == 0
    assert "https://example.org/a.git" in (await inside("project", "resources", "p")).out


async def test_another_who_adds_a_repository_meanwhile_loses_nothing(inside: Ostler, server: Server) -> None:
    server.say("GET /api/workspaces/w", {"repos": []})
    server.say("GET /api/workspaces/w", {"repos": [{"url": "https://example.org/b"}]})
    server.say("PATCH /api/workspaces/w", {"error": "repositories are missing"}, 409)
    server.say("PATCH /api/workspaces/w", {"repos": []})
    assert (await inside("repo", "add", "https://example.org/a")).out == "Added.\n"
    assert [method for method, _, _ in server.asked] == ["GET", "PATCH", "GET", "PATCH"]


# --- files ------------------------------------------------------------------------------------------------


async def test_a_download_is_followed_and_the_token_is_not_taken_along(
    inside: Ostler, server: Server, tmp_path: Path
) -> None:
    store = Server()
    try:
        server.say("GET /api/attachments/f", {"id": "f", "filename": "a.bin", "download_url": "/files/f"})
        server.say("GET /files/f", b"", 302, Location=f"{store.url}/there?x=1")
        store.say("GET /there?x=1", b"\x00content")
        done = await inside("attachment", "download", "f", "-o", str(tmp_path / "a.bin"))
        assert done.code == 0, done.err
        assert (tmp_path / "a.bin").read_bytes() == b"\x00content"
        assert server.asked[-1][2]["authorization"] == f"Bearer {TOKEN}"
        ((_, _, headers),) = store.asked
        assert "authorization" not in headers
    finally:
        store.close()


async def test_a_download_that_is_sent_round_and_round_ends(
    inside: Ostler, server: Server, tmp_path: Path
) -> None:
    server.say("GET /api/attachments/f", {"id": "f", "filename": "a.bin", "download_url": "/files/f"})
    server.say("GET /files/f", b"", 302, Location="/files/f")
    done = await inside("attachment", "download", "f", "-o", str(tmp_path / "a.bin"))
    assert (done.code, list(tmp_path.glob("*.bin*"))) == (1, [])
    assert "from one place to the next" in done.err


# --- proxies ----------------------------------------------------------------------------------------------


async def test_a_proxy_that_the_environment_names_is_gone_through(inside: Ostler, server: Server) -> None:
    proxy = server  # it answers for everybody
    proxy.say("GET http://tasks.example/api/issues", {"issues": [], "total": 0})
    inside.environ |= {
        "OSTLER_SERVER_URL": "http://tasks.example",
        "http_proxy": proxy.url.replace("//", "//ann:p%40ss@"),
        "no_proxy": "other.example",
    }
    done = await inside("issue", "list")
    assert (done.code, done.out) == (0, "Nothing found.\n"), done.err
    ((_, _, headers),) = proxy.asked
    assert headers["proxy-authorization"] == "Basic " + base64.b64encode(b"ann:p@ss").decode()
    assert headers["host"] == "tasks.example"


async def test_a_secure_server_is_reached_through_a_tunnel(inside: Ostler, server: Server) -> None:
    inside.environ |= {"OSTLER_SERVER_URL": "https://tasks.example", "https_proxy": server.url}
    done = await inside("issue", "status", "A-1", "done")
    assert done.code == 3, "the proxy lets nobody through"
    ((method, target, headers),) = server.asked
    assert (method, target) == ("CONNECT", "tasks.example:443")
    assert "authorization" not in headers, "what is for the server is not for the proxy"


async def test_a_server_on_this_machine_needs_no_proxy(inside: Ostler, server: Server) -> None:
    server.say("GET /api/issues", {"issues": []})
    inside.environ["http_proxy"] = "http://127.0.0.1:1"
    assert (await inside("issue", "list")).code == 0
