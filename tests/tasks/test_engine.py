"""The life of a task in an engine: claim to report, and everything that can come in between."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon_core.journal import JournalError, RunRecord, TaskRecord
from daemon_core.processes.client import spawn
from daemon_core.processes.errors import SpawnError
from daemon_core.processes.state import RunPhase, read_state
from daemon_core.protocol.wire import Task
from daemon_core.tasks.barrier import BarrierState
from daemon_core.tasks.run import StopReason
from daemon_core.tasks.slots import Slots
from daemon_core.tasks.watchdog import WatchLimits
from daemon_core.workdirs import DirectoryLocks
from tests.support.fake_server import Delay, FakeTask, Hang, HangAfter, ResetAfter, Status, refuse
from tests.tasks.world import World

HELLO = {"text": "hello"}
UNTIL = "until [ -e {} ]; do sleep .01; done"


def waiting(path: Path) -> dict[str, Any]:
    return {"wait_for": str(path)}


# --- the straight way -----------------------------------------------------------------------------


async def test_claimed_run_and_completed(world: World) -> None:
    async with world.life():
        task = world.add(HELLO, {"tool": {"name": "Bash", "input": {"command": "ls"}, "output": "a"}})
        await world.finished(task)
        report = world.server.check(task.id)
        record = await world.record(task)
        await world.assert_idle()
    assert report.body["output"] == "hello"
    assert report.body["work_dir"] == record.work_dir == task.work_dir
    assert report.body["session_id"] == record.session_id
    assert [m["type"] for m in task.messages] == ["text", "tool_use", "tool_result"]
    assert task.usage
    assert task.starts == 1
    assert (record.state, record.outcome, record.delivery) == ("ended", "completed", "delivered")
    assert world.watching.ended == [(task.id, "completed")]
    run_dir = world.base / "runs" / record.run_id
    assert not (run_dir / "claim.json").exists()
    assert not list(run_dir.glob("spec*"))
    assert (Path(record.work_dir).parent / ".gc_meta.json").exists()


async def test_the_session_is_pinned_once(world: World) -> None:
    async with world.life():
        task = world.add(HELLO, {"text": "more"}, {"text": "end"})
        await world.finished(task)
        pins = world.server.seen("session")
        assert [pin.body for pin in pins] == [
            {"session_id": task.session_id, "work_dir": (await world.record(task)).work_dir}
        ]


async def test_the_shell_runs_a_command(world: World) -> None:
    async with world.life():
        good = world.server.add_task("shell", chat_session_id="c1", chat_message="echo one; echo two")
        bad = world.server.add_task("shell", chat_session_id="c2", chat_message="exit 3")
        await world.finished(good)
        await world.finished(bad, "failed")
        assert world.text(good) == "one\ntwo\n"
        assert "exit status 3" in world.server.check(bad.id).body["error"]


async def test_an_observer_that_fails_harms_no_task(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with world.life():
        world.watching.fails = True
        task = world.add(HELLO)
        await world.finished(task)
        world.server.check(task.id)
        await world.assert_idle()
    assert "an observer failed" in caplog.text


# --- the server's word -------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "outcome"), [("cancelled", "cancelled"), ("failed", "abandoned")])
async def test_a_server_that_ends_a_task_ends_its_run_and_the_result_stays_here(
    world: World, tmp_path: Path, status: str, outcome: str
) -> None:
    async with world.life():
        task = world.add(HELLO, waiting(tmp_path / "never"))
        life = await world.running(task)
        await world.until(lambda: task.messages)
        world.server.end_task(task.id, status)
        await world.settled(task)
        record = await world.record(task)
        assert record.outcome == outcome
        assert task.reports == []
        assert read_state(world.base / "runs" / life.run.run_id).phase is RunPhase.ENDED
        world.server.check_transcript(task.id)
        await world.assert_idle()


async def test_usage_is_sent_for_a_cancelled_task_too(world: World, tmp_path: Path) -> None:
    async with world.life():
        task = world.add(
            {"result": {"modelUsage": {"m": {"inputTokens": 5, "outputTokens": 1}}}},
            HELLO,
            waiting(tmp_path / "never"),
        )
        await world.running(task)
        await world.until(lambda: task.messages)
        world.server.end_task(task.id)
        await world.settled(task)
        assert [(entry["model"], entry["input_tokens"]) for entry in task.usage] == [("m", 5)]


async def test_a_task_that_the_server_deleted_ends_without_a_word(world: World, tmp_path: Path) -> None:
    async with world.life():
        task = world.add(HELLO, waiting(tmp_path / "never"))
        await world.running(task)
        del world.server.tasks[task.id]
        await world.settled(task)
        record = await world.record(task)
        assert (record.outcome, record.delivery) in (("abandoned", "moot"), ("abandoned", "delivered"))
        assert await world.journal.outbox_size() == 0
        await world.assert_idle()


async def test_other_answers_about_the_status_do_not_end_a_run(world: World, tmp_path: Path) -> None:
    world.server.script(
        "status", refuse(404, "not found"), refuse(404, "workspace not found"), refuse(500, "x"),
        refuse(403, "no"), ResetAfter(),
    )  # fmt: skip
    async with world.life():
        task = world.add(HELLO, waiting(tmp_path / "go"))
        await world.running(task)
        await world.until(lambda: len(world.server.seen("status")) > 6)
        (tmp_path / "go").touch()
        await world.finished(task)


async def test_a_task_that_ended_at_the_server_before_its_start_is_not_run(world: World) -> None:
    world.server.script("start", Delay(0.2))
    async with world.life():
        task = world.add({"count_start": str(world.base / "starts")})
        await world.until(lambda: world.server.seen("start"))
        world.server.end_task(task.id)
        await world.settled(task)
        assert (await world.record(task)).outcome == "cancelled"
        assert not (world.base / "starts").exists()
        assert task.reports == []
        await world.assert_idle()


async def test_a_start_that_was_heard_before_is_not_refused(world: World) -> None:
    """The server took the start, its answer was lost, and now it says that the task runs already."""
    world.server.script("start", ResetAfter())
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task)
        assert len(world.server.seen("start")) == 2
        world.server.check(task.id)


async def test_a_start_that_is_refused_for_good_fails_in_words(world: World) -> None:
    world.server.script("start", refuse(400, "no such thing"))
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task, "failed")
        assert "start task failed" in world.server.check(task.id).body["error"]
        await world.assert_idle()


async def test_a_start_that_a_proxy_answers_is_repeated(world: World) -> None:
    lost = Status(404, "404 page not found", "text/plain")
    world.server.script("start", lost, refuse(403, "account disabled"))
    world.server.script("status", lost, refuse(403, "account disabled"))
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task)
        world.server.check(task.id)
        assert len(world.server.seen("start")) == 3


async def test_a_start_that_is_forbidden_for_good_fails_in_words(world: World) -> None:
    world.server.always("start", refuse(403, "not for you"))
    async with world.life():
        task = world.add(HELLO)

        def failed() -> bool:
            world.engine.reconcile("srv")  # no pause between two tries is waited out
            return task.status == "failed"

        await world.until(failed)
        await world.settled(task)
        assert "not for you" in world.server.check(task.id).body["error"]


@pytest.mark.parametrize("answer", ["runtime not found", "not found"])
async def test_a_start_that_meets_another_loss_fails_in_words(world: World, answer: str) -> None:
    world.server.script("start", refuse(404, answer))
    world.server.script("status", *[refuse(404, answer)] * 3)
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task, "failed")
        world.server.check(task.id)
        await world.assert_idle()


async def test_the_start_is_repeated_until_the_server_hears_it_with_its_lease_kept(world: World) -> None:
    world.server.always("start", refuse(503, "later"))
    async with world.life():
        task = world.add(HELLO)
        await world.until(lambda: len(world.server.seen("start")) > 1 and task.leases > 2)
        world.server.heal("start")
        world.engine.reconcile("srv")
        await world.finished(task)
        world.server.check(task.id)


# --- claims ---------------------------------------------------------------------------------------


async def test_a_claim_whose_answer_was_lost_is_done_once_when_it_comes_again(world: World) -> None:
    world.server.script("claim", ResetAfter())
    starts = world.base / "starts"
    async with world.life(claim=False):
        task = world.add({"count_start": str(starts)}, HELLO)
        world.claim("claude")
        await world.until(lambda: task.status == "dispatched")
        world.server.redeliver(task.id)
        await world.finished(task)
        assert task.claims == 2
        assert len(starts.read_text().split()) == 1
        world.server.check(task.id)


async def test_a_task_that_is_handed_out_twice_runs_once(world: World) -> None:
    starts = world.base / "starts"
    world.server.always("start", refuse(503, "later"))
    async with world.life():
        task = world.add({"count_start": str(starts)}, {"dump": str(world.base / "dump")}, HELLO)
        await world.until(lambda: len(world.server.seen("start")) > 0)
        task.fields["auth_token"] = "mat_newer"
        world.server.redeliver(task.id)
        await world.until(lambda: task.claims == 2)
        life = world.engine.lives[f"srv/{task.id}"]
        await world.until(lambda: life.claim is not None and life.claim.auth_token == "mat_newer")
        world.server.heal("start")
        world.engine.reconcile("srv")
        await world.finished(task)
        assert len(starts.read_text().split()) == 1
        world.server.check(task.id)
        await world.assert_idle()
    assert json.loads((world.base / "dump").read_text())["environ"]["OSTLER_TOKEN"] == "mat_newer"


async def test_a_task_whose_result_is_on_its_way_is_not_done_again(world: World) -> None:
    """It failed here while the server could not be told, and the server hands it out again."""
    world.server.always("fail", refuse(503, "later"))
    async with world.life():
        task = world.add(HELLO, auth_token="", **world.in_directory("relative"))
        await world.until(lambda: world.server.seen("fail"))
        world.server.redeliver(task.id)
        await world.until(lambda: task.claims == 2)
        assert len(world.engine.deliveries) == 1
        world.server.heal("fail")
        world.engine.reconcile("srv")
        await world.finished(task, "failed")
        world.server.check(task.id)
        await world.assert_idle()


async def test_a_task_that_is_handed_out_twice_at_once_has_one_life(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second answer comes while the claim is recorded: by then nobody works on it yet."""
    async with world.life(claim=False) as engine:
        fake = world.add(HELLO)
        fake.status = "dispatched"
        task = msgspec.convert(fake.claimed(), Task)
        recorded, go_on = asyncio.Event(), asyncio.Event()
        add_task = world.journal.add_task

        async def slow(record: TaskRecord, run: RunRecord) -> bool:
            added = await add_task(record, run)
            if added:
                recorded.set()
                await go_on.wait()
            return added

        monkeypatch.setattr(world.journal, "add_task", slow)
        runtime = world.runtime("claude")
        slots = [await engine.slots.acquire("claude") for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            first = group.create_task(engine.accept(task, runtime, slots[0]))
            await recorded.wait()
            assert not await engine.accept(task, runtime, slots[1])
            slots[1].release()
            go_on.set()
        assert first.result()
        assert len(engine._delivery_nursery) == 1
        await world.finished(fake)
        world.server.check(fake.id)
        await world.until(lambda: len(engine._delivery_nursery) == 0)
        await world.assert_idle()


@pytest.mark.parametrize("signed_out", [False, True], ids=["back-off", "no credential"])
async def test_what_is_given_up_leaves_nothing_that_waits(world: World, signed_out: bool) -> None:
    world.server.always("complete", refuse(503, "later"))
    async with world.life() as engine:
        task = world.add(HELLO)
        key = f"srv/{task.id}"
        await world.until(lambda: key in engine.deliveries and key not in engine.lives)
        await world.until(lambda: engine.deliveries[key].trouble is not None and "srv" in engine._pauses)
        if signed_out:
            world.connection.sign_out("missing")
            engine.reconcile("srv")  # from the pause between two tries to the wait for a credential
            await world.until(lambda: len(world.server.seen("complete")) > 1)
        async with asyncio.timeout(20):
            assert await engine.give_up("srv", 0.05) == 1
        assert (await world.record(task)).delivery == "moot"
        await world.until(lambda: len(engine._delivery_nursery) == 0)
        assert await world.journal.outbox_size() == 0


async def test_a_task_counts_as_here_until_its_delivery_has_ended(world: World) -> None:
    """The journal knows first: whoever lets go of a connection must not go by it."""
    async with world.life() as engine:
        task = world.add(HELLO)
        life = await world.running(task)
        hold = threading.Event()
        busy: list[asyncio.Future[bool]] = []

        async def delivered(verdict: str) -> None:
            # Every thread of the event loop has something else to do.
            busy.extend(asyncio.get_running_loop().run_in_executor(None, hold.wait) for _ in range(64))
            await engine.delivered(life.record, verdict)

        life.delivery.on_done = delivered
        try:
            async with asyncio.timeout(20):
                while (await world.record(task)).delivery != "delivered":  # noqa: ASYNC110
                    await asyncio.sleep(0)  # the journal has a thread of its own
            assert engine.known_tasks("srv") == [task.id]
            assert len(engine._delivery_nursery) == 1
        finally:
            hold.set()
        await asyncio.gather(*busy)
        await world.settled(task)
        assert engine.known_tasks("srv") == []
        await world.until(lambda: len(engine._delivery_nursery) == 0)


async def test_a_server_that_is_stuck_with_one_task_is_not_asked_without_a_pause(world: World) -> None:
    world.server.always("start", refuse(503, "later"))
    async with world.life():
        task = world.add(HELLO)
        await world.until(lambda: task.claims == 1)
        before = world.claims()

        async def stuck() -> None:
            while not task.starts:
                world.server.redeliver(task.id)
                await asyncio.sleep(0)

        pushing = asyncio.get_running_loop().create_task(stuck())
        await asyncio.sleep(0.5)  # what must not happen has this long to happen
        assert world.claims() - before < 40
        world.server.heal("start")
        world.engine.reconcile("srv")
        await world.finished(task)
        await pushing


@pytest.mark.parametrize("told", ["its shim", "the agent"])
async def test_a_run_that_went_down_with_the_machine_is_recovered_and_not_the_agents_failure(
    world: World, told: str
) -> None:
    async with world.life():
        task = world.add(HELLO, waiting(world.base / "never"))
        life = await world.running(task)
        await world.until(lambda: task.messages)
        run_dir, info = life.run_dir, read_state(life.run_dir).info
        assert info is not None
    # An orderly shutdown asks everybody, in any order; by then there is no daemon.
    os.kill(info.pid if told == "its shim" else info.child_pid, signal.SIGTERM)
    await world.until(lambda: read_state(run_dir).phase is RunPhase.ENDED)
    if told == "the agent":
        shim = json.loads((run_dir / "shim.json").read_bytes())
        (run_dir / "shim.json").write_text(json.dumps({**shim, "boot_id": "an earlier one"}))
    async with world.life():
        await world.finished(task, "failed")
        report = world.server.check(task.id)
    assert report.body["failure_reason"] == "runtime_recovery"
    assert report.body["session_id"]


async def test_an_agent_that_a_signal_ends_has_failed(world: World) -> None:
    async with world.life():
        task = world.add(HELLO, {"die": int(signal.SIGTERM)})
        await world.finished(task, "failed")
        assert world.server.check(task.id).body["failure_reason"] == "agent_error.process_failure"


async def test_a_task_that_ended_here_and_is_handed_out_anew_begins_anew(world: World) -> None:
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task)
        again = FakeTask(task.id, "claude", "ws1", task.fields, messages=task.messages)
        world.server.tasks[task.id] = again
        await world.finished(again)
        assert [message["seq"] for message in again.messages] == [1, 2]
        assert len(await world.journal.runs(f"srv/{task.id}")) == 2
        world.server.check(task.id)


async def test_never_more_runs_than_slots_nor_than_the_limit_of_a_provider(world: World) -> None:
    world.slots = Slots(3, {"claude": 2})
    go, log = world.base / "go", world.base / "log"
    begin, end = ({"append": {"path": str(log), "text": text}} for text in ("+\n", "-\n"))
    steps = [begin, waiting(go), end]
    async with world.life():
        tasks = [world.add(*steps, chat_session_id=str(number)) for number in range(5)]
        # Else the shell may be quicker and have two of the three.
        await world.until(lambda: log.exists() and log.read_text().count("+") == 2)
        tasks += [
            world.server.add_task("shell", chat_session_id=f"s{number}", chat_message=UNTIL.format(go))
            for number in range(2)
        ]
        await world.until(lambda: world.engine.active_runs() == 3)
        assert log.read_text().count("+") == 2
        assert world.slots.used == 3
        assert world.slots.in_group("claude") == 2
        go.touch()
        for task in tasks:
            await world.finished(task)
        await world.assert_idle()
    alive = most = 0
    for line in log.read_text().split():
        alive += 1 if line == "+" else -1
        most = max(most, alive)
    assert most == 2


async def test_no_claim_reaches_the_server_while_the_barrier_is_up(world: World) -> None:
    async with world.life():
        await world.until(lambda: world.claims() > 3)
        for round_ in range(10):
            world.server.script("claim", Delay(0.02))
            world.engine.barrier.hold("test")
            await world.engine.barrier.wait_up()
            before = world.claims()
            task = world.add(HELLO, chat_session_id=str(round_))
            world.engine.wake("srv")
            await asyncio.sleep(0.12)  # two polls: what must not happen has this long to happen
            assert world.claims() == before
            assert world.engine.barrier.state is BarrierState.UP
            world.engine.barrier.let_go("test")
            await world.finished(task)
            world.engine.barrier.assert_valid()


async def test_the_barrier_waits_for_a_claim_until_it_is_in_the_journal(world: World) -> None:
    async with world.life(claim=False):
        world.server.script("claim", Delay(0.2))
        task = world.add(HELLO)
        world.claim("claude")
        await world.until(lambda: world.claims() == 1)
        world.engine.barrier.hold("test")
        assert world.engine.barrier.state is BarrierState.RAISING
        await world.engine.barrier.wait_up()
        assert f"srv/{task.id}" in world.engine.lives
        assert await world.journal.task(f"srv/{task.id}") is not None
        await world.finished(task)  # what was claimed goes on


async def test_a_runtime_that_goes_in_the_middle_of_a_claim_loses_no_task(world: World) -> None:
    world.server.script("claim", Delay(0.2))
    async with world.life(claim=False):
        task = world.add(HELLO)
        world.claim("claude")
        await world.until(lambda: world.claims() == 1)
        world.engine.set_runtimes([])
        await world.finished(task)
        assert task.claims == 1
        count = world.claims()
        await asyncio.sleep(0.15)  # three polls
        assert world.claims() == count


async def test_a_runtime_that_the_server_lost_is_told(world: World) -> None:
    async with world.life():
        await world.until(lambda: world.claims() > 1)
        del world.server.runtimes["claude"]
        await world.until(lambda: "claude" in world.gone)
        await world.assert_idle()


async def test_a_task_that_is_not_understood_is_failed_in_words(world: World) -> None:
    async with world.life(claim=False):
        task = world.add(HELLO, agent="not an object")
        world.claim("claude")
        await world.finished(task, "failed")
        assert "does not understand" in world.server.check_terminal(task.id).body["error"]
        await world.assert_idle()


async def test_a_poller_survives_anything(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("daemon_core.tasks.owned.RESTART_FIRST_S", 0.01)
    async with world.life(claim=False) as engine:
        accept, broken = engine.accept, [RuntimeError("a bug"), RuntimeError("another")]

        async def sometimes(*args: Any) -> bool:
            if broken:
                raise broken.pop()
            return await accept(*args)

        monkeypatch.setattr(engine, "accept", sometimes)
        tasks = [world.add(HELLO, chat_session_id=str(number)) for number in range(3)]
        world.claim("claude")
        await world.finished(tasks[2])
        for task in tasks[:2]:
            world.server.redeliver(task.id)
        for task in tasks:
            await world.finished(task)
        await world.assert_idle()
    assert "a bug" in caplog.text


async def test_a_claim_that_cannot_be_kept_is_failed_in_words(world: World) -> None:
    async with world.life(claim=False):
        (world.base / "runs").write_text("in the way")
        task = world.add(HELLO)
        world.claim("claude")
        await world.finished(task, "failed")
        assert "cannot be kept" in world.server.check_terminal(task.id).body["error"]
        await world.assert_idle()
        (world.base / "runs").unlink()


async def test_nothing_is_claimed_while_the_disk_is_full_and_the_one_in_hand_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon_core.tasks.patience.FIRST_RETRY_S", 0.01)
    monkeypatch.setattr("daemon_core.tasks.patience.RETRY_LIMIT_S", 0.01)
    room = False
    async with world.life(claim=False):
        add_task = world.journal.add_task

        async def add(*args: Any) -> bool:
            if not room:
                raise JournalError("no room", full=True)
            return await add_task(*args)

        monkeypatch.setattr(world.journal, "add_task", add)
        tasks = [world.add(HELLO, chat_session_id=str(number)) for number in range(2)]
        world.claim("claude", "shell")
        await world.until(lambda: world.watching.trouble == [True])
        await world.until(lambda: not world.engine.claims_held or world.claims())
        count = world.claims()
        await asyncio.sleep(0.15)  # three polls
        assert world.claims() - count <= 1
        room = True
        for task in tasks:
            await world.finished(task)
        assert world.watching.trouble == [True, False]
        await world.assert_idle()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_that_is_full_at_the_spawn_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("daemon_core.tasks.patience.FIRST_RETRY_S", 0.01)
    monkeypatch.setattr("daemon_core.tasks.patience.RETRY_LIMIT_S", 0.01)
    tries = 0
    room = False

    async def full(spec: Any) -> Any:
        nonlocal tries
        tries += 1
        if not room:
            raise SpawnError(spec.run_dir, number, "prepare", "spec")
        return await spawn(spec)

    monkeypatch.setattr("daemon_core.tasks.spawning.spawn", full)
    async with world.life():
        task = world.add(HELLO)
        await world.until(lambda: tries > 2)
        assert world.watching.trouble == [True]
        room = True
        await world.finished(task)
        assert world.text(task) == "hello"
        assert world.watching.trouble == [True, False]
        room = False
        other = world.add(HELLO)
        await world.until(lambda: world.watching.trouble[-1])
        other.status = "cancelled"
        await world.settled(other)
        await world.until(lambda: not world.watching.trouble[-1])
        await world.assert_idle()


async def test_the_branch_of_a_task_is_reported_with_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("daemon_core.tasks.ending.branch_of", lambda _, task_id: f"agent/a/{task_id[:8]}")
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task)
        assert world.server.check(task.id).body["branch_name"] == f"agent/a/{task.id[:8]}"
        (tmp_path / "mine").mkdir()
        other = world.add(HELLO, chat_session_id="c2", **world.in_directory(tmp_path / "mine"))
        await world.finished(other)
        assert not world.server.check(other.id).body.get("branch_name")
        await world.assert_idle()


# --- what cannot be run ---------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "   ", "mul_daemon", "mdt_x"])
async def test_without_a_task_token_the_task_fails_after_its_start(world: World, token: str) -> None:
    async with world.life():
        task = world.add({"count_start": str(world.base / "starts")}, auth_token=token)
        await world.finished(task, "failed")
        assert task.starts == 1
        assert "token" in world.server.check(task.id).body["error"]
        assert not (world.base / "starts").exists()
        await world.assert_idle()


async def test_an_agent_that_is_not_there_any_more(world: World) -> None:
    async with world.life() as engine:
        del engine.launchers["claude"]
        task = world.add(HELLO)
        await world.finished(task, "failed")
        body = world.server.check(task.id).body
        assert body["failure_reason"] == "agent_error.runtime_missing_executable"
        await world.assert_idle()


async def test_an_executable_that_vanished(world: World) -> None:
    os.unlink(world.executable)
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task, "failed")
        body = world.server.check(task.id).body
        assert body["failure_reason"] == "agent_error.runtime_missing_executable"
        await world.assert_idle()


async def test_an_argument_that_no_program_can_be_given(world: World) -> None:
    async with world.life():
        task = world.add(HELLO, agent={"id": "a", "name": "A", "custom_args": ["--x=a\0b"]})
        await world.finished(task, "failed")
        assert "null byte" in world.server.check(task.id).body["error"]
        await world.assert_idle()


async def test_a_task_without_a_workspace(world: World) -> None:
    async with world.life():
        task = world.add(HELLO, workspace_id="")
        await world.finished(task, "failed")
        assert task.starts == 0
        assert "workspace" in world.server.check(task.id).body["error"]


# --- when something here fails --------------------------------------------------------------------


async def test_an_unexpected_error_ends_the_run_and_fails_the_task_in_words(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.life():
        child, go = world.base / "child", world.base / "go"
        task = world.add(
            {"spawn": {"seconds": 600, "pid_file": str(child)}}, HELLO, waiting(go), HELLO,
            waiting(world.base / "never"),
        )  # fmt: skip
        life = await world.running(task)
        await world.until(lambda: task.messages)
        assert life.driver is not None

        def broken(made: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(life.driver, "on_stretch", broken)
        go.touch()
        await world.finished(task, "failed")
        assert "a bug" in world.server.check(task.id).body["error"]
        assert not Path(f"/proc/{int(child.read_text())}").exists()
        assert read_state(life.run_dir).phase is RunPhase.ENDED
        await world.assert_idle()
    assert "cannot go on" in caplog.text


async def test_output_that_was_cut_from_outside_does_not_hang_the_task(world: World, tmp_path: Path) -> None:
    async with world.life():
        task = world.add({"lines": 50, "text": "x{n} "}, waiting(tmp_path / "go"), {"text": "end"})
        life = await world.running(task)
        await world.until(lambda: len(task.messages) == 50)
        os.truncate(life.run_dir / "stdout", 0)
        (tmp_path / "go").touch()
        await world.finished(task, "failed")
        assert "cut or removed" in world.server.check(task.id).body["error"]
        assert read_state(life.run_dir).phase is RunPhase.ENDED
        await world.assert_idle()


async def test_a_full_journal_holds_a_run_up_and_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("daemon_core.tasks.patience.FIRST_RETRY_S", 0.01)
    monkeypatch.setattr("daemon_core.tasks.patience.RETRY_LIMIT_S", 0.01)
    room = True
    async with world.life() as engine:
        transaction = world.journal._transaction

        async def full(work: Any) -> Any:
            if not room:
                raise JournalError("no room", full=True)
            return await transaction(work)

        monkeypatch.setattr(world.journal, "_transaction", full)
        task = world.add(HELLO, waiting(tmp_path / "go"), {"lines": 500, "text": "{n} "})
        await world.running(task)
        await world.until(lambda: task.messages)
        room = False
        (tmp_path / "go").touch()
        await world.until(lambda: world.watching.trouble == [True])
        await world.until(lambda: engine.claims_held)
        room = True
        await world.finished(task)
        await world.until(lambda: world.watching.trouble[-1] is False)
        assert world.text(task) == "hello" + "".join(f"{n} " for n in range(1, 501))
        await world.until(lambda: not engine.claims_held)
        world.server.check(task.id)


async def test_a_damaged_journal_leaves_the_run_alive_for_the_next_start(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.life() as engine:
        task = world.add(HELLO, waiting(tmp_path / "go"), {"text": " world"})
        life = await world.running(task)
        await world.until(lambda: task.messages)

        async def damaged(stretch: object) -> None:
            raise JournalError("malformed", damaged=True)

        monkeypatch.setattr(world.journal, "commit_stretch", damaged)
        (tmp_path / "go").touch()
        await world.until(lambda: not engine.lives)
        assert engine.claims_held
        assert world.watching.trouble == [True]
        assert task.reports == []
        async with asyncio.timeout(10):
            assert await engine.give_up("srv", 0.1) is None, "it is the next start's, so nothing is let go of"
        run_dir = life.run_dir
    assert read_state(run_dir).phase in (RunPhase.ALIVE, RunPhase.ENDED)
    async with world.life():
        await world.finished(task)
        assert world.text(task) == "hello world"
        world.server.check(task.id)
    assert "left as it is" in caplog.text


# --- user directories -----------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "place"
    path.mkdir()
    return path


async def test_a_user_directory_is_used_and_nothing_is_left_in_it(world: World, place: Path) -> None:
    async with world.life():
        task = world.add({"dump": str(world.base / "dump")}, HELLO, **world.in_directory(place))
        await world.finished(task)
        assert json.loads((world.base / "dump").read_text())["cwd"] == str(place)
        assert list(place.iterdir()) == []
        assert list(place.parent.glob(".gc_meta*")) == []
        await world.assert_idle()


async def test_two_tasks_in_one_directory_run_one_after_the_other(world: World, place: Path) -> None:
    link = place.parent / "link"
    link.symlink_to(place)
    go, log = world.base / "go", world.base / "log"
    begin, end = ({"append": {"path": str(log), "text": text}} for text in ("+\n", "-\n"))
    steps = [begin, waiting(go), end]
    async with world.life():
        first = world.add(*steps, **world.in_directory(place), chat_session_id="1")
        await world.running(first)
        second = world.add(*steps, **world.in_directory(link), chat_session_id="2")
        await world.until(lambda: second.status == "waiting_local_directory")
        assert second.wait_reason == f"local_directory {link} (held by task {first.id[:8]})"
        leases = second.leases
        await world.until(lambda: second.leases > leases + 2)  # kept while it waits
        assert (await world.record(second)).state == "waiting_directory"
        assert world.engine.waiting_for_resources() == 1
        go.touch()
        await world.finished(first)
        await world.finished(second)
        assert log.read_text().split() == ["+", "-", "+", "-"]
        await world.assert_idle()


async def test_a_task_that_is_cancelled_while_it_waits_for_a_directory_leaves_no_place_taken(
    world: World, place: Path
) -> None:
    go = world.base / "go"
    world.slots = Slots(3)
    async with world.life():
        first = world.add(waiting(go), **world.in_directory(place), chat_session_id="1")
        await world.running(first)
        second = world.add(HELLO, **world.in_directory(place), chat_session_id="2")
        await world.until(lambda: second.status == "waiting_local_directory")
        third = world.add(HELLO, **world.in_directory(place), chat_session_id="3")
        await world.until(lambda: third.status == "waiting_local_directory")
        world.server.end_task(second.id)
        await world.settled(second)
        assert (await world.record(second)).outcome == "cancelled"
        await world.until(lambda: world.slots.used == 2)
        go.touch()
        await world.finished(first)
        await world.finished(third)
        await world.assert_idle()


BAD_RESOURCES: dict[str, list[Any]] = {
    "not an object": ["text"],
    "no daemon": [{"local_path": "/x"}],
    "no daemon of another": [{"local_path": "/x", "daemon_id": "z"}, {"local_path": "/x", "daemon_id": " "}],
    "two here": [{"local_path": "/x", "daemon_id": "HERE"}, {"local_path": "/y", "daemon_id": " HERE "}],
    "no path": [{"daemon_id": "HERE"}],
    "relative": [{"local_path": "x/y", "daemon_id": "HERE"}],
    "protected": [{"local_path": "/etc", "daemon_id": "HERE"}],
    "missing": [{"local_path": "/nowhere/at/all", "daemon_id": "HERE"}],
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_RESOURCES)
async def test_directories_that_cannot_be_used(world: World, case: str) -> None:
    refs = json.loads(json.dumps(BAD_RESOURCES[case]).replace("HERE", "0198-daemon"))
    resources = [{"id": "x", "resource_type": "local_directory", "resource_ref": ref} for ref in refs]
    async with world.life():
        task = world.add(HELLO, project_resources=resources)
        await world.finished(task, "failed")
        body = world.server.check(task.id).body
        assert body["failure_reason"] == "local_directory_error"
        assert body["error"]
        assert task.starts == 0
        await world.assert_idle()


async def test_a_directory_of_another_machine_does_not_concern_us(world: World, place: Path) -> None:
    async with world.life():
        task = world.add(HELLO, **world.in_directory(place, daemon_id="somebody-else"))
        await world.finished(task)
        assert (await world.record(task)).directory == ""


# --- sessions -------------------------------------------------------------------------------------


async def turn(world: World, *steps: dict[str, Any], **more: Any) -> tuple[FakeTask, list[str]]:
    dump = world.base / "dump"
    task = world.add({"dump": str(dump)}, *steps, **more)
    await world.finished(task)
    argv: list[str] = json.loads(dump.read_text())["argv"]
    return task, argv


async def test_a_session_is_resumed_in_its_own_directory_alone(world: World) -> None:
    async with world.life():
        first, argv = await turn(world, HELLO)
        assert "--resume" not in argv
        prior = {"prior_session_id": first.session_id, "prior_work_dir": first.work_dir}
        second, argv = await turn(world, HELLO, **prior)
        assert argv[argv.index("--resume") + 1] == first.session_id
        assert (second.session_id, second.work_dir) == (first.session_id, first.work_dir)
        third, argv = await turn(world, HELLO, **{**prior, "prior_work_dir": "/somewhere/else"})
        assert "--resume" not in argv
        assert third.work_dir != first.work_dir


async def test_a_task_that_begins_anew_under_its_id_may_resume(world: World) -> None:
    async with world.life():
        task, _ = await turn(world, HELLO)
        fields = {**task.fields, "prior_session_id": task.session_id, "prior_work_dir": task.work_dir}
        again = FakeTask(task.id, "claude", "ws1", fields, messages=task.messages)
        world.server.tasks[task.id] = again
        await world.finished(again)
        assert "--resume" in json.loads((world.base / "dump").read_text())["argv"]


async def test_a_session_that_is_gone_is_begun_afresh_with_numbers_going_on(world: World) -> None:
    world.environ["SCRIPTED_AGENT_SESSIONS"] = str(world.base / "sessions")
    starts = world.environ["SCRIPTED_AGENT_STARTS"] = str(world.base / "starts")
    async with world.life():
        work_dir = world.engine.task_directories.prepare("ws1", "00000000-1", "")
        task = world.add(HELLO, {"text": "end"}, prior_session_id="lost", prior_work_dir=str(work_dir))
        await world.finished(task)
        report = world.server.check(task.id)
        assert report.body["session_id"] != "lost"
        assert report.body["retired_session_id"] == "lost"
        assert "session_rollout_missing" not in report.body, "the new one can be gone on with"
        assert report.body["output"] == "end"
        assert len(Path(starts).read_text().split()) == 2
        runs = await world.journal.runs(f"srv/{task.id}")
        assert [(run.number, run.resumed_session) for run in runs] == [(1, "lost"), (2, "")]
        for run in runs:
            names = {path.name for path in (world.base / "runs" / run.run_id).iterdir()}
            assert not names & {"claim.json", "retry.json", "spec"}
        await world.assert_idle()


async def test_a_session_that_is_gone_is_tried_afresh_once(world: World) -> None:
    world.environ["SCRIPTED_AGENT_STARTS"] = str(world.base / "starts")
    async with world.life():
        work_dir = world.engine.task_directories.prepare("ws1", "00000000-1", "")
        refusal = {"raw": ""}, {"stderr": "No conversation found with session ID: lost"}, {"exit": 1}
        task = world.add(*refusal, prior_session_id="lost", prior_work_dir=str(work_dir))
        await world.finished(task, "failed")
        assert len((world.base / "starts").read_text().split()) <= 2
        world.server.check(task.id)


# --- watching -------------------------------------------------------------------------------------


async def test_a_silent_agent_is_ended(world: World, tmp_path: Path) -> None:
    world.limits = WatchLimits(idle_s=0.4, tool_s=60)
    async with world.life():
        task = world.add(HELLO, waiting(tmp_path / "never"))
        await world.finished(task, "failed")
        body = world.server.check(task.id).body
        assert body["failure_reason"] == "idle_watchdog"
        assert "silent" in body["error"]
        await world.assert_idle()


async def test_a_tool_at_work_has_a_budget_of_its_own(world: World, tmp_path: Path) -> None:
    world.limits = WatchLimits(idle_s=0.3, tool_s=60)
    async with world.life():
        task = world.add({"tool_start": {"name": "Bash"}}, {"sleep": 1.0}, {"tool_end": {}}, HELLO)
        await world.finished(task)
    world.limits = WatchLimits(idle_s=60, tool_s=0.4)
    async with world.life():
        task = world.add({"tool_start": {"name": "Bash"}}, waiting(tmp_path / "never"))
        await world.finished(task, "failed")
        assert world.server.check(task.id).body["failure_reason"] == "idle_watchdog"


async def test_no_limit_is_no_limit(world: World) -> None:
    world.limits = WatchLimits(idle_s=0, tool_s=0, run_s=0)
    async with world.life():
        task = world.add({"sleep": 0.3}, HELLO)
        await world.finished(task)


async def test_a_silent_agent_can_be_given_more_time(world: World, tmp_path: Path) -> None:
    world.limits = WatchLimits(idle_s=0.5)
    async with world.life():
        task = world.add(HELLO, waiting(tmp_path / "go"))
        life = await world.running(task)
        assert await life.extend(60)
        shim = life.driver.shim if life.driver is not None else None
        assert shim is not None
        while (await shim.status()).idle_s < 0.8:  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.05)
        assert task.status == "running"
        (tmp_path / "go").touch()
        await world.finished(task)


async def test_a_run_has_a_time_limit_however_busy_it_is(world: World) -> None:
    world.limits = WatchLimits(run_s=0.5)
    async with world.life():
        task = world.add(*[step for _ in range(200) for step in (HELLO, {"sleep": 0.05})])
        await world.finished(task, "failed")
        body = world.server.check(task.id).body
        assert (body["failure_reason"], body["error"]) == ("timeout", "timed out after 0 s")
        await world.assert_idle()


# --- stop and restart -----------------------------------------------------------------------------


async def test_a_stop_with_runs_fails_what_runs_and_what_waits(world: World, place: Path) -> None:
    async with world.life() as engine:
        first = world.add(waiting(place / "never"), **world.in_directory(place), chat_session_id="1")
        await world.running(first)
        second = world.add(HELLO, **world.in_directory(place), chat_session_id="2")
        await world.until(lambda: second.status == "waiting_local_directory")
        assert await engine.stop(end_runs=True, deadline_s=20) == 0
        for task in (first, second):
            report = world.server.check(task.id)
            assert (report.kind, report.body["failure_reason"]) == ("fail", "cancelled")
        await world.assert_idle()


async def test_a_stop_leaves_runs_alive_and_the_next_life_takes_them_up(world: World, place: Path) -> None:
    starts, go = world.base / "starts", place / "go"
    async with world.life() as engine:
        task = world.add(
            {"count_start": str(starts)}, {"lines": 30, "text": "{n} "}, waiting(go), {"text": "end"},
            **world.in_directory(place),
        )  # fmt: skip
        life = await world.running(task)
        await world.until(lambda: len(task.messages) == 30)
        number = life.slot.number
        assert await engine.stop(end_runs=False, deadline_s=5) == 1
    async with world.life(claim=False) as engine:
        life = await world.running(task)
        assert (world.slots.used, life.slot.number) == (1, number)
        assert engine.directory_locks.holder_of(place) == task.id
        other = world.add(HELLO, **world.in_directory(place), chat_session_id="2")
        world.claim()
        await world.until(lambda: other.status == "waiting_local_directory")
        go.touch()
        await world.finished(task)
        await world.finished(other)
        assert world.text(task) == "".join(f"{n} " for n in range(1, 31)) + "end"
        assert len(starts.read_text().split()) == 1
        world.server.check(task.id)
        await world.assert_idle()


async def cut_short(world: World, monkeypatch: pytest.MonkeyPatch, place_name: str) -> None:
    """One life that ends at a place as by kill -9, as far as the engine is concerned."""
    reached = asyncio.Event()

    def reach(name: str) -> None:
        if name == place_name:
            reached.set()
            raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        for room in ("life", "readying", "spawning"):
            patched.setattr(f"daemon_core.tasks.{room}.reach", reach)
        async with world.life():
            await asyncio.wait_for(reached.wait(), 10)


@pytest.mark.parametrize("where", ["prepared", "before_start", "start_accepted", "started", "before_spawn"])
async def test_after_a_death_before_the_spawn_a_directory_is_locked_again_before_anything_starts(
    world: World, monkeypatch: pytest.MonkeyPatch, place: Path, where: str
) -> None:
    """No shim holds the lock: somebody else may have taken the directory while no daemon lived (P5)."""
    starts = world.base / "starts"
    task = world.add({"count_start": str(starts)}, HELLO, **world.in_directory(place))
    await cut_short(world, monkeypatch, where)
    monkeypatch.setattr("daemon_core.workdirs.locks.RETRY_S", 0.02)
    elsewhere = DirectoryLocks(world.base / "locks")
    foreign = elsewhere.try_acquire(place, "of another profile")
    assert foreign is not None
    async with world.life():
        key = f"srv/{task.id}"
        await world.until(lambda: key in world.engine.lives)
        await asyncio.sleep(0.3)  # what must not happen has this long to happen
        assert not starts.exists()
        foreign.release()
        await world.finished(task)
        assert len(starts.read_text().split()) == 1
        world.server.check(task.id)
        await world.assert_idle()


async def test_a_run_that_ended_without_a_journal_is_still_reported_once(world: World) -> None:
    """The journal is lost while the run ends: its directory says whose it was."""
    go = world.base / "go"
    async with world.life():
        done = world.add(HELLO, chat_session_id="1")
        await world.finished(done)
        task = world.add(
            {"lines": 40, "text": "{n} "}, waiting(go), {"text": "end"}, {"result": {}}, {"exit": 0},
            chat_session_id="2",
        )  # fmt: skip
        life = await world.running(task)
        await world.until(lambda: len(task.messages) == 40)
        run_dir = life.run_dir
    go.touch()
    await world.until(lambda: read_state(run_dir).phase is RunPhase.ENDED)
    for path in world.base.glob("journal.db*"):
        path.unlink()
    async with world.life():
        await world.finished(task)
        assert world.text(task) == "".join(f"{n} " for n in range(1, 41)) + "end"
        world.server.check(task.id)
        assert len(done.reports) == 1
        assert [name for name, _ in world.watching.ended] == [task.id]
        await world.assert_idle()


async def test_a_strangers_directory_that_cannot_be_read_does_not_stop_the_start(world: World) -> None:
    broken = world.base / "runs" / "x"
    broken.mkdir(parents=True)
    (broken / "lock").mkdir()
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task)
    (broken / "lock").rmdir()


async def test_a_server_that_hangs_holds_nothing_but_its_own_claim(world: World) -> None:
    world.server.script("claim", Hang())
    world.server.script("status", HangAfter())
    async with world.life():
        task = world.add(HELLO)
        await world.finished(task)


async def test_a_stop_is_not_held_up_by_a_server_that_does_not_answer(world: World, tmp_path: Path) -> None:
    async with world.life() as engine:
        task = world.add(HELLO, waiting(tmp_path / "go"))
        life = await world.running(task)
        await world.until(lambda: task.messages)
        world.server.always("messages", Hang())
        world.server.always("fail", Hang())
        life.stop(StopReason.DAEMON)
        async with asyncio.timeout(15):
            await engine.stop(end_runs=True, deadline_s=5)
        world.server.heal()
    async with world.life():
        await world.finished(task, "failed")
        world.server.check(task.id)
