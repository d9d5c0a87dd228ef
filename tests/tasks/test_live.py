"""A run while it goes on: requests and answers, warnings of the watchdog, plans, limits of an account."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon_core.agents.claude import ClaudeFamily
from daemon_core.agents.events import Limit
from daemon_core.agents.text import TextFamily
from daemon_core.tasks import clock
from daemon_core.tasks.accounts import AccountLimits
from daemon_core.tasks.launch import Launcher
from daemon_core.tasks.life import TaskLife
from daemon_core.tasks.watchdog import WatchLimits
from tests.support.fake_server import FakeTask
from tests.tasks.world import World

HELLO = {"text": "hello"}
ASK = {"ask": {"tool": "Bash", "input": {"command": "ls"}}}
ASKING: dict[str, Any] = {"permissions": lambda provider: "ask"}


async def asked(world: World, task: FakeTask) -> TaskLife:
    """Wait until a task has a request open."""
    life = await world.running(task)
    await world.until(lambda: life.driver is not None and life.driver.requests.open)
    return life


async def answer(life: TaskLife, decision: Any = "allow", text: str = "") -> bool:
    assert life.driver is not None
    return await life.driver.answer("ask-1", decision, text)


# --- requests ---------------------------------------------------------------------------------------


async def test_what_waits_for_the_user_is_not_silent_and_its_budget_begins_with_the_answer(
    world: World, tmp_path: Path
) -> None:
    world.limits = WatchLimits(idle_s=0.6, tool_s=0.6)
    async with world.life(**ASKING):
        task = world.add(ASK, {"wait_for": str(tmp_path / "go")}, HELLO)
        life = await asked(world, task)
        assert life.driver is not None
        assert life.driver.shim is not None
        while (await life.driver.shim.status()).idle_s < 1.0:  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.05)
        assert life.driver.watchdog.view().ends_at == ""
        assert await answer(life)
        assert not await answer(life, "deny")
        await asyncio.sleep(0.2)
        assert task.status == "running"
        (tmp_path / "go").touch()
        await world.finished(task)


async def test_an_unanswered_request_can_have_an_end(world: World, tmp_path: Path) -> None:
    world.limits = WatchLimits(idle_s=60, tool_s=60, request_s=0.4)
    async with world.life(**ASKING):
        wanted = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {}}
        line = {"type": "control_request", "request_id": "r", "request": wanted}
        raw = {"raw": msgspec.json.encode(line).decode() + "\n"}
        task = world.add(raw, {"wait_for": str(tmp_path / "never")})
        await world.finished(task, "failed")
        assert world.server.check(task.id).body["failure_reason"] == "idle_watchdog"
        assert (await world.record(task)).state == "ended"
        await world.assert_idle()


async def test_a_request_is_there_again_after_a_restart_and_its_slot_with_it(world: World) -> None:
    async with world.life(**ASKING):
        task = world.add(ASK, HELLO)
        life = await asked(world, task)
        assert life.driver is not None
        (before,) = life.driver.requests.open
    async with world.life(claim=False, **ASKING):
        life = await world.running(task)
        assert life.driver is not None
        assert life.driver.requests.open == [before]
        assert world.slots.used == 1
        assert await answer(life, "deny", "no")
        await world.finished(task)
        assert "deny" in world.text(task)
        world.server.check(task.id)


async def test_an_answer_to_a_run_that_is_being_ended_is_refused(world: World) -> None:
    async with world.life(**ASKING):
        task = world.add(ASK, HELLO)
        life = await asked(world, task)
        task.status = "cancelled"
        await world.until(lambda: life.server_status == "cancelled")
        assert life.driver is None or not await answer(life)
        await world.settled(task)
        await world.assert_idle()


async def test_a_policy_that_an_agent_cannot_be_run_under_is_said_in_words(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launchers() -> dict[str, Launcher]:
        return {"claude": Launcher(provider="claude", executable=world.executable, family=TextFamily())}

    monkeypatch.setattr(world, "launchers", launchers)
    async with world.life(**ASKING):
        task = world.add(HELLO)
        await world.finished(task, "failed")
        body = world.server.check(task.id).body
        assert "permission policy 'ask'" in body["error"]
        assert body["failure_reason"] == "agent_error.missing_config"


async def test_while_the_user_wants_to_be_asked_another_family_may_drive(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Launcher(
        provider="claude", executable=world.executable, family=TextFamily(), ask_family=ClaudeFamily()
    )
    monkeypatch.setattr(world, "launchers", lambda: {"claude": made})
    async with world.life(**ASKING):
        task = world.add(ASK, HELLO)
        assert await answer(await asked(world, task))
        await world.finished(task)


async def test_another_server_does_not_decide_what_an_agent_may(world: World) -> None:
    async with world.life(**ASKING):
        task = world.add(ASK, HELLO, agent={"id": "a", "name": "a", "permissions": "allow"})
        assert await answer(await asked(world, task))
        await world.finished(task)


# --- the watchdog ------------------------------------------------------------------------------------


async def test_the_end_is_announced_and_more_time_holds_over_a_restart(world: World, tmp_path: Path) -> None:
    world.limits = WatchLimits(idle_s=1.0)
    async with world.life():
        task = world.add(HELLO, {"wait_for": str(tmp_path / "go")})
        life = await world.running(task)
        watchdog = life.driver.watchdog if life.driver is not None else None
        assert watchdog is not None
        await world.until(lambda: watchdog.warned)
        assert task.status == "running"
        ends = clock.parse(watchdog.view().ends_at)
        assert ends is not None
        assert 0 < (ends - dt.datetime.now(dt.UTC)).total_seconds() < 0.3
        assert await life.extend(60)
        assert not watchdog.warned
    async with world.life():
        life = await world.running(task)
        assert life.driver is not None
        assert life.driver.shim is not None
        while (await life.driver.shim.status()).idle_s < 1.5:  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.05)
        assert task.status == "running"
        (tmp_path / "go").touch()
        await world.finished(task)


async def test_output_takes_a_warning_back(world: World, tmp_path: Path) -> None:
    world.limits = WatchLimits(idle_s=1.0)
    async with world.life():
        task = world.add(HELLO, {"sleep": 0.9}, HELLO, {"wait_for": str(tmp_path / "go")})
        life = await world.running(task)
        watchdog = life.driver.watchdog if life.driver is not None else None
        assert watchdog is not None
        await world.until(lambda: watchdog.warned)
        await world.until(lambda: not watchdog.warned)
        (tmp_path / "go").touch()
        await world.finished(task)


# --- what is shown ------------------------------------------------------------------------------------


async def test_plan_and_tokens_are_shown_while_it_runs_and_are_no_transcript(
    world: World, tmp_path: Path
) -> None:
    todos = {"todos": [{"content": "look", "status": "completed"}, {"content": "do", "status": "pending"}]}
    usage = {"input_tokens": 7, "output_tokens": 1}
    message = {"id": "m1", "model": "m", "content": [{"type": "text", "text": "hi"}], "usage": usage}
    said = msgspec.json.encode({"type": "assistant", "message": message}).decode() + "\n"
    async with world.life():
        task = world.add(
            {"tool": {"name": "TodoWrite", "input": todos}},
            {"raw": said},
            {"wait_for": str(tmp_path / "go")},
        )
        life = await world.running(task)
        await world.until(lambda: life.progress.usage)
        assert [(entry.text, entry.status) for entry in life.progress.plan] == [
            ("look", "completed"),
            ("do", "pending"),
        ]
        assert life.progress.usage[0].input_tokens == 7
        (tmp_path / "go").touch()
        await world.finished(task)
        kinds = [line["type"] for line in world.server.check_transcript(task.id)]
        assert set(kinds) <= {"text", "tool_use", "tool_result"}


# --- limits of the account ----------------------------------------------------------------------------


class Kept:
    """Where the limits are kept, and what was told of them."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.told: list[tuple[str, bool]] = []

    async def keep(self, text: str) -> None:
        self.text = text

    def limits(self) -> AccountLimits:
        made = AccountLimits(self.keep, lambda provider, held: self.told.append((provider, held is not None)))
        made.restore(self.text)
        return made


async def test_that_a_limit_is_over_is_told_although_nobody_asks() -> None:
    kept = Kept()
    await kept.limits().met("claude", Limit("usage", in_s(0.2)))
    async with asyncio.timeout(5):
        while kept.told[-1] != ("claude", False):  # noqa: ASYNC110 - what is told is looked at
            await asyncio.sleep(0.01)


def in_s(seconds: float) -> str:
    return clock.text(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds))


async def test_another_server_is_told_the_time_and_nothing_more_is_claimed_until_then(world: World) -> None:
    text = f"usage limit reached|{int(time.time()) + 3600}"
    accounts = Kept().limits()
    async with world.life(accounts=accounts):
        task = world.add({"error": 429, "message": text})
        await world.finished(task, "failed")
        body = world.server.check(task.id).body
        assert body["failure_reason"] == "agent_error.provider_quota_limit"
        assert "the limit resets at 20" in body["error"]
        assert "parked" not in body
        other = world.add(HELLO)
        shell = world.add(provider="shell", chat_message="true")
        await world.finished(shell)
        assert other.status == "queued"
        await accounts.lift("claude")
        await world.finished(other)


async def test_an_agent_with_an_account_of_its_own_holds_nobody_up(world: World) -> None:
    accounts = Kept().limits()
    agent = {"id": "a", "name": "a", "custom_env": {"ANTHROPIC_API_KEY": "k"}}
    async with world.life(accounts=accounts):
        task = world.add({"error": 429, "message": "usage limit reached, resets in 2 hours"}, agent=agent)
        await world.finished(task, "failed")
        assert accounts.held("claude") is None
        await world.finished(world.add(HELLO))


async def test_limits_are_kept_over_a_restart_and_end_by_the_clock() -> None:
    kept = Kept()
    accounts = kept.limits()
    await accounts.met("claude", Limit("usage", in_s(0.3)))
    accounts.close()
    again = kept.limits()
    held = again.held("claude")
    assert held is not None
    async with asyncio.timeout(5):
        await again.wait("claude")
    assert again.held("claude") is None
    assert kept.told == [("claude", True), ("claude", True), ("claude", False)]


@pytest.mark.parametrize(
    ("limit", "least_s", "most_s"),
    [
        (Limit("usage", ""), 600, 1000),
        (Limit("usage", in_s(30 * 86400)), 11 * 3600, 12 * 3600),
        (Limit("rate", in_s(86400)), 3000, 3600),
        (Limit("rate", ""), 0, 0),
        (Limit("usage", in_s(-5)), 0, 0),
    ],
)
async def test_how_long_claims_are_held_is_bounded(limit: Limit, least_s: float, most_s: float) -> None:
    accounts = Kept().limits()
    await accounts.met("claude", limit)
    held = accounts.held("claude")
    if not most_s:
        assert held is None
        return
    assert held is not None
    until = clock.parse(held.until)
    assert until is not None
    assert least_s <= (until - dt.datetime.now(dt.UTC)).total_seconds() <= most_s


async def test_a_clock_that_was_set_back_holds_nothing_for_ever() -> None:
    kept = Kept()
    kept.text = msgspec.json.encode(
        {"claude": {"kind": "usage", "until": in_s(90000), "since": in_s(86400)}}
    ).decode()
    assert kept.limits().held("claude") is None


@pytest.mark.parametrize("text", ["{", '{"claude": {"kind": "usage", "until": "soon", "since": "x"}}'])
async def test_what_was_kept_and_cannot_be_read_holds_nothing(text: str) -> None:
    kept = Kept()
    kept.text = text
    assert kept.limits().held("claude") is None
