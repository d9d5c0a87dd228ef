"""Settings over the control API: what is told, what is written, what is refused, who hears of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from daemon_core.control.settings_desk import SETTINGS_ROUTES, SettingsDesk
from daemon_core.control.views import ReloadAnswer
from daemon_core.settings import edit, file
from daemon_core.settings.errors import SettingsError
from daemon_core.settings.sections import Settings
from tests.control.memory_backend import MemoryBackend

TEXT = """# mine
[daemon]   # about the daemon
slots = 8  # the default, said all the same
name = "attic"
"""


@dataclass
class Taker:
    """Goes by a settings file as the daemon does."""

    path: Path
    environ: dict[str, str]
    settings: Settings = field(init=False)
    not_ours: set[str] = field(default_factory=set)
    desk: SettingsDesk | None = None

    def __post_init__(self) -> None:
        self.settings = self.read()

    def read(self) -> Settings:
        return file.load(self.path, self.environ, ["claude", "codex", "shell"], self.left_out)

    def left_out(self, mistake: SettingsError) -> bool:
        return mistake.key in self.not_ours

    async def reload(self) -> ReloadAnswer:
        assert self.desk is not None
        try:
            self.settings = await asyncio.to_thread(self.read)
        except SettingsError as error:
            self.desk.taken_over(error)
            raise
        self.desk.taken_over()
        return ReloadAnswer()


@pytest.fixture
def taker(tmp_path: Path, backend: MemoryBackend) -> Taker:
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    made = Taker(path, {"OSTLER_JOBS_STALL": "90s"})
    made.desk = backend.settings_desk = SettingsDesk(
        path,
        made.environ,
        backend.changes,
        in_force=lambda: made.settings,
        reload=made.reload,
        providers=lambda: ["claude", "codex", "shell"],
        present=lambda: ["claude"],
        not_ours=made.left_out,
    )
    return made


async def listed(http: aiohttp.ClientSession, query: str = "") -> dict[str, dict[str, Any]]:
    async with http.get(f"/v1/settings{query}") as answer:
        assert answer.status == 200
        return {each["key"]: each for each in (await answer.json())["settings"]}


async def put(http: aiohttp.ClientSession, key: str, **body: Any) -> tuple[int, dict[str, Any]]:
    async with http.put(f"/v1/settings/{key}", json=body) as answer:
        return answer.status, await answer.json()


async def test_every_setting_with_its_source(http: aiohttp.ClientSession, taker: Taker) -> None:
    found = await listed(http)
    assert {name for name in found if not name.startswith("agents.")} == {
        entry.name for entry in file.entries() if "<" not in entry.name
    }
    assert {name.split(".")[1] for name in found if name.startswith("agents.")} == {"claude"}
    assert found["daemon.slots"] | {"what": "", "why": ""} == {
        "key": "daemon.slots", "kind": "count", "value": 8, "default": 8, "written": 8, "source": "file",
        "variable": "", "what": "", "why": "", "least": 1, "most": 256, "choices": [], "live": True,
        "pending": False,
    }  # fmt: skip
    stall = found["jobs.stall"]
    assert (stall["source"], stall["variable"], stall["value"]) == (
        "environment",
        "OSTLER_JOBS_STALL",
        "1m30s",
    )
    assert found["retention.days"]["source"] == "default"
    assert found["permissions.default"]["choices"] == ["allow", "ask", "deny"]
    assert set(await listed(http, "?sections=hub,mcp")) == {"hub.enabled", "mcp.offer"}


async def test_a_change_keeps_the_rest_and_is_taken_over(http: aiohttp.ClientSession, taker: Taker) -> None:
    status, told = await put(http, "daemon.slots", value=3)
    assert (status, told["applied"], told["setting"]["value"]) == (200, True, 3)
    assert taker.path.read_text() == TEXT.replace("slots = 8", "slots = 3")
    assert taker.settings.daemon.slots == 3
    assert (await put(http, "agents.codex.model", value="a, b = c"))[0] == 200
    assert (await put(http, "limits.runtimes", text="claude=2"))[0] == 200
    assert (await put(http, "notifications.quiet_hours", value={"daily": "22:00-07:00"}))[0] == 200
    found = await listed(http)
    assert found["agents.codex.model"]["value"] == "a, b = c"
    assert taker.settings.limits.runtimes == {"claude": 2}
    async with http.delete("/v1/settings/daemon.slots") as answer:
        told = await answer.json()
    assert (told["setting"]["source"], told["setting"]["written"]) == ("default", None)
    assert "slots" not in taker.path.read_text()


async def test_what_needs_a_restart_says_so_until_it_is_back(
    http: aiohttp.ClientSession, taker: Taker
) -> None:
    _, told = await put(http, "daemon.name", value="cellar")
    assert (told["applied"], told["setting"]["pending"]) == (False, True)
    assert (await listed(http))["daemon.name"]["pending"] is True
    _, told = await put(http, "daemon.name", value="attic")
    assert (told["applied"], told["setting"]["pending"]) == (True, False)
    _, told = await put(http, "jobs.stall", value="10s")
    assert (told["applied"], told["setting"]["written"], told["setting"]["value"]) == (False, "10s", "1m30s")


@pytest.mark.parametrize(
    ("key", "body", "said"),
    [
        ("daemon.slots", {"value": 0}, "daemon.slots must be a whole number from 1 to 256, not 0"),
        ("daemon.slots", {"value": "many"}, 'daemon.slots must be a whole number from 1 to 256, not "many"'),
        ("daemon.slts", {"value": 1}, "there is no setting daemon.slts"),
        ("limits.runtimes", {"value": {"clude": 1}}, "limits.runtimes: there is no provider clude"),
        (
            "notifications.quiet_hours",
            {"value": {"daily": "late"}},
            "notifications.quiet_hours must be spans",
        ),
        ("notifications.quiet_hours", {"value": {"day": "off"}}, "notifications.quiet_hours must name days"),
    ],
)
async def test_a_wrong_value_is_refused_in_words(
    http: aiohttp.ClientSession, taker: Taker, key: str, body: dict[str, Any], said: str
) -> None:
    status, told = await put(http, key, **body)
    assert (status, told["error"]["code"]) == (400, "settings_invalid")
    assert told["error"]["params"]["what"].startswith(said)
    assert taker.path.read_text() == TEXT


@pytest.mark.parametrize("body", [{}, {"value": 1, "text": "1"}, {"valu": 1}])
async def test_a_change_without_a_value_is_none(
    http: aiohttp.ClientSession, taker: Taker, body: dict[str, Any]
) -> None:
    status, told = await put(http, "daemon.slots", **body)
    assert (status, told["error"]["code"]) == (400, "invalid_input")


async def test_a_damaged_file_is_told_and_never_written_into(
    http: aiohttp.ClientSession, taker: Taker
) -> None:
    await listed(http)
    damaged = TEXT + "[daemno]\nslots = 1\n"
    taker.path.write_text(damaged)
    async with http.get("/v1/settings") as answer:
        told = await answer.json()
    assert told["problem"]["line"] == 5
    assert told["problem"]["what"] == "there is no section daemno"
    assert told["problem"]["file"] == str(taker.path)
    name = next(each for each in told["settings"] if each["key"] == "daemon.name")
    assert (name["value"], name["source"]) == ("attic", "file"), "what was in force is so still"
    status, refused = await put(http, "daemon.slots", value=2)
    assert (status, refused["error"]["params"]["line"]) == (400, 5)
    assert taker.path.read_text() == damaged


async def event(stream: aiohttp.ClientResponse) -> bytes:
    """The next event; where the machine is slow there are signs of life before it."""
    while (found := await stream.content.readuntil(b"\n\n")).startswith(b":"):
        pass
    return found


async def test_readers_of_the_stream_hear_of_it(http: aiohttp.ClientSession, taker: Taker) -> None:
    async with http.get("/v1/events") as stream:
        await stream.content.readuntil(b"\n\n")
        await put(http, "daemon.slots", value=2)
        assert b"event: settings\n" in await event(stream)
        # and of a change that somebody else made and had taken over
        edit.set_value(taker.path, "daemon.slots", "4")
        await taker.reload()
        assert b"event: settings\n" in await event(stream)
    assert (await listed(http))["daemon.slots"]["value"] == 4


async def test_many_changes_at_once_lose_nothing(http: aiohttp.ClientSession, taker: Taker) -> None:
    wanted = {"daemon.slots": 5, "jobs.keep_open": False, "retention.days": 9, "log.files": 2}
    await asyncio.gather(*(put(http, key, value=value) for key, value in wanted.items()))
    found = await listed(http)
    assert {key: found[key]["value"] for key in wanted} == wanted


async def test_not_before_the_daemon_has_them(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/settings") as answer:
        assert answer.status == 503


def test_what_descends_from_a_run_may_look_and_change_nothing() -> None:
    assert {route.name: route.guarded for route in SETTINGS_ROUTES} == {
        "settings": False, "set_setting": True, "unset_setting": True,
    }  # fmt: skip


async def test_settings_of_a_newer_version_stay_and_lock_nothing(
    http: aiohttp.ClientSession, taker: Taker
) -> None:
    text = TEXT + '\n[weather]  # of a newer version\nrain = true\n\n[mcp]\nshape = "round"\n'
    taker.path.write_text(text)
    taker.not_ours = {"weather", "mcp.shape"}
    assert (await put(http, "daemon.slots", value=3))[0] == 200
    assert (await put(http, "mcp.offer", text="off"))[0] == 200
    async with http.delete("/v1/settings/daemon.slots") as answer:
        assert answer.status == 200
    left = taker.path.read_text()
    assert "[weather]  # of a newer version\nrain = true\n" in left
    assert 'shape = "round"\n' in left
    assert (taker.settings.daemon.slots, taker.settings.mcp.offer) == (8, False)
    async with http.get("/v1/settings?sections=mcp,weather") as answer:
        told = await answer.json()
    assert (told["problem"], [each["key"] for each in told["settings"]]) == (None, ["mcp.offer"])
    lines = left.splitlines()
    assert [(each["key"], lines[each["line"] - 1][:8]) for each in told["left_out"]] == [
        ("weather", "[weather"),
        ("mcp.shape", "shape = "),
    ]
    # A new mistake is one all the same.
    taker.path.write_text(left + "[daemno]\n")
    status, refused = await put(http, "daemon.slots", value=3)
    assert (status, refused["error"]["params"]["key"]) == (400, "daemno")
