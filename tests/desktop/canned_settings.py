"""Settings and connections as a daemon would tell them: made by the daemon's own desk from a real file."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import msgspec

from daemon_core.control.changes import ChangeLog
from daemon_core.control.connection_views import ConnectionDetail, CredentialView, WorkspaceView
from daemon_core.control.settings_desk import SettingsDesk
from daemon_core.control.settings_views import SettingsView
from daemon_core.control.views import (
    AgentView,
    CleanItem,
    CleanRound,
    DaemonStatus,
    DiskReport,
    DiskSpace,
    ReloadAnswer,
    SpendView,
    UpdateVersion,
    UpdateView,
)
from daemon_core.settings import file
from daemon_core.settings.errors import SettingsError
from tests.desktop.canned import ago

TEXT = """
[daemon]
slots = 4
name = "attic"
[limits]
runtimes = { claude = 2 }
[permissions]
default = "ask"
[watchdog]
idle = "45m"
[notifications]
quiet_hours = { daily = "22:00-07:00", sat = "23:30-10:00", sun = "off" }
finished = false
[repositories]
urls = ["https://github.com/example/a-rather-long-name-of-a-repository-that-has-to-go-somewhere.git", \
"https://git.example.org/team/project"]
[environment]
set = { EDITOR = "true", HTTPS_PROXY = "http://proxy.internal.example.org:3128/with/a/long/path" }
[agents.claude]
permissions = "ask"
model = "claude-opus-4-8-with-a-name-that-does-not-end-soon-20260401"
"""


def settings(
    place: Path, text: str = TEXT, environ: dict[str, str] | None = None, not_ours: Collection[str] = ()
) -> SettingsView:
    """What the daemon tells of a file with this text; a damaged one with what held before. ``not_ours`` are
    settings that it goes without."""
    path = place / "config.toml"
    path.write_text("" if "[daemno]" in text else text)
    environ = environ if environ is not None else {"OSTLER_JOBS_STALL": "90s"}

    def left_out(mistake: SettingsError) -> bool:
        return mistake.key in not_ours

    in_force = file.load(path, environ, unknown=left_out)

    async def reload() -> ReloadAnswer:
        return ReloadAnswer()

    desk = SettingsDesk(
        path, environ, ChangeLog(), in_force=lambda: in_force, reload=reload,
        providers=lambda: ["claude", "codex", "gemini", "shell"], present=lambda: ["claude", "codex"],
        not_ours=left_out,
    )  # fmt: skip
    path.write_text(text)
    return asyncio.run(desk.view())


def agents() -> dict[str, AgentView]:
    found = [
        AgentView(id="a1", name="reviewer", runtime="claude", model="opus", permissions="ask",
                  instructions="Read the diff. Say what breaks, not what you would have written instead."),
        AgentView(id="a2", name="The one with a name that goes on for much longer than anybody would think",
                  runtime="codex", thinking="high"),
        AgentView(id="a3", name="night shift", runtime="claude", resume_after_limit=True),
    ]  # fmt: skip
    return {each.name: each for each in found}


def connections() -> list[ConnectionDetail]:
    return [
        ConnectionDetail(name="hub", url="http://127.0.0.1:20111", status="connected", since=ago(9000),
                         websocket=True, runtimes=3, embedded=True),
        ConnectionDetail(
            name="agents.example.org", url="https://agents.example.org", status="connected",
            since=ago(90_000), websocket=True,
            workspaces=[WorkspaceView(id="w1", name="Shop"), WorkspaceView(id="w2", name="Ops")],
            runtimes=6, tasks=3, undelivered=2, renewed_at=ago(7000), expires_at=ago(-6_000_000),
            credential=CredentialView(place="keyring", detail="GNOME Keyring"),
        ),
        ConnectionDetail(
            name="lab", url="https://lab.internal.example.org:8443/a/long/way/to/it", status="unreachable",
            reason="server_unreachable", reason_params={"server": "lab", "reason": "refused"},
            since=ago(4000), next_try_at=ago(-40), credential=CredentialView(
                place="file", detail="/home/me/.local/state/ostler/credentials/lab"),
        ),
        ConnectionDetail(
            name="old", url="https://old.example.org", status="signed_out", reason="signed_out",
            reason_params={"server": "old", "reason": "token_refused"}, since=ago(200_000),
            credential=CredentialView(place="keyring", detail="GNOME Keyring"),
        ),
    ]  # fmt: skip


def status(base: DaemonStatus) -> DaemonStatus:
    spend = SpendView(spent=8.214, limit=10.0, unknown_tasks=2)
    return msgspec.structs.replace(base, spend=spend)


def update() -> UpdateView:
    return UpdateView(
        stage="waiting", current="1.0.0", version=UpdateVersion(version="1.1.0"), ready=True,
        checked_at=ago(5000), next_check_at=ago(-9000),
    )  # fmt: skip


def disk(*, low: bool = False) -> DiskReport:
    free = 1_100_000_000 if low else 81_000_000_000
    return DiskReport(
        total_bytes=4_812_000_000,
        spaces=[
            DiskSpace(path="/home", free=free, total=500_000_000_000, floor=2**31, low=low)
        ],
        last_clean=CleanRound(
            at=ago(7300), freed_bytes=1_240_000_000, tasks=12, runs=31,
            items=[CleanItem(path=f"/d/{number}", action="delete", reason="age") for number in range(4)],
        ),
    )  # fmt: skip


def offer() -> CleanRound:
    items = [CleanItem(path="/d/1", action="delete", reason="age", bytes=812_000_000)]
    return CleanRound(dry_run=True, items=items, freed_bytes=812_000_000, runs=3)
