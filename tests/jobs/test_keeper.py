"""Jobs with real commands under real shims: started once, ended rightly, found again after every death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon_core.jobs import output
from daemon_core.jobs.keeper import TakenError
from daemon_core.jobs.retention import KeepRules
from daemon_core.jobs.store import JobStore
from daemon_core.processes import OUTPUT_KEEP_LEAST_BYTES, read_state
from daemon_core.tasks.barrier import BarrierUpError
from tests.jobs.world import CONVERSATION, JobWorld


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[JobWorld]:
    made = JobWorld(tmp_path)
    await made.begin()
    yield made
    await made.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- start and end -------------------------------------------------------------------------------


async def test_a_job_runs_in_its_directory_and_its_end_is_told(world: JobWorld) -> None:
    job = await world.start('pwd; echo "it\'s $((1+1))"; exit 0', name="adding")
    done = await world.ended(job.id)
    assert (done.status, done.exit_code, done.signal) == ("done", 0, None)
    assert world.output(job.id) == f"{world.work}\r\nit's 2\r\n".encode()
    (notice,) = await world.of(job.id)
    assert (notice.kind, notice.conversation, notice.wake) == ("job_ended", CONVERSATION, True)
    for fact in (job.id[:8], "adding", "exit code 0", "it's 2", "stdout"):
        assert fact in notice.body
    assert world.told[-1] == CONVERSATION
    assert world.changes[-1] == (job.id, "done")


@pytest.mark.parametrize(
    ("command", "status", "code", "number"),
    [
        ("exit 3", "failed", 3, None),
        ("kill -SEGV $$", "failed", None, int(signal.SIGSEGV)),
        ("no-such-command-here", "failed", 127, None),
    ],
)
async def test_a_failure_is_told_with_how(
    world: JobWorld, command: str, status: str, code: int | None, number: int | None
) -> None:
    job = await world.start(command)
    done = await world.ended(job.id)
    assert (done.status, done.exit_code, done.signal) == (status, code, number)
    (notice,) = await world.of(job.id)
    assert str(code if code is not None else number) in notice.body


async def test_what_cannot_be_started_has_failed_and_says_why(world: JobWorld) -> None:
    job = await world.start("true", cwd=world.root / "gone")
    assert job.ended
    assert job.status == "failed"
    assert "directory" in job.error
    (notice,) = await world.of(job.id)
    assert "could not be started" in notice.body


async def test_streams_are_apart_without_a_terminal(world: JobWorld) -> None:
    job = await world.start("echo out; echo err >&2; tty; exit 1", terminal=False)
    await world.ended(job.id)
    assert world.output(job.id) == b"out\nnot a tty\n"
    assert world.output(job.id, "stderr") == b"err\n"
    (notice,) = await world.of(job.id)
    assert "standard error" in notice.body


async def test_the_time_limit_ends_the_whole_tree_and_is_told(world: JobWorld) -> None:
    job = await world.start("sleep 600 & echo $!; wait", time_limit_s=0.5)
    await world.says(job.id, b"\n")
    done = await world.ended(job.id)
    assert done.status == "timed_out"
    assert not alive(int(world.output(job.id)))
    (notice,) = await world.of(job.id)
    assert notice.kind == "job_timed_out"


async def test_a_persons_job_tells_no_agent(world: JobWorld) -> None:
    job = await world.start("true", conversation="")
    await world.ended(job.id)
    assert await world.of(job.id) == []


async def test_no_wake_is_told_at_the_next_turn_alone(world: JobWorld) -> None:
    job = await world.start("true", wake=False)
    await world.ended(job.id)
    (notice,) = await world.of(job.id)
    assert notice.wake is False
    assert await world.keeper.outstanding(CONVERSATION) == 0


async def test_asking_twice_starts_once(world: JobWorld) -> None:
    job_id = "a" * 32
    command = f"echo x >> {world.root}/times; sleep 600"
    both = await asyncio.gather(*(world.start(command, id=job_id) for _ in range(5)))
    assert {job.id for job in both} == {job_id}
    again = await world.start(command, id=job_id)
    assert again.status == "running"
    await world.until(lambda: (world.root / "times").exists(), "the command to begin")
    assert (world.root / "times").read_text() == "x\n"
    with pytest.raises(TakenError):
        await world.start(command, id=job_id, conversation="hub/another")
    with pytest.raises(TakenError):
        await world.start("something else", id=job_id)


async def test_an_update_holds_starts_and_the_users_pause_does_not(world: JobWorld) -> None:
    world.barrier.hold("user")
    job = await world.start("true")
    assert (await world.ended(job.id)).status == "done"
    world.barrier.hold("update")
    with pytest.raises(BarrierUpError):
        await world.start("true")
    assert len(await world.keeper.jobs()) == 1
    world.barrier.let_go("update")
    await world.start("true")


async def test_nothing_secret_stays(world: JobWorld) -> None:
    job = await world.start("echo $MY_TOKEN | wc -c", env={"MY_TOKEN": "sesame-open-yourself"})
    await world.ended(job.id)
    place = world.root / "jobs" / job.id
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    for file in place.iterdir():
        assert b"sesame" not in file.read_bytes(), file
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert b"sesame" not in (world.root / "journal.db").read_bytes()


# --- kill ----------------------------------------------------------------------------------------


async def test_killed_is_killed_with_everything_and_tells_nobody(world: JobWorld) -> None:
    script = (
        "trap '' TERM; (trap '' TERM; sleep 601) & echo $!;"
        " setsid sleep 602 & echo $!; (setsid sh -c 'sleep 603 & echo $!' &); sleep 0.2; echo ready;"
        " sleep 600"
    )
    job = await world.start(script)
    await world.says(job.id, b"ready")
    pids = [int(word) for word in world.output(job.id).split() if word.isdigit()]
    assert len(pids) == 3
    found = await world.keeper.kill(job.id)
    assert found is not None
    assert found.status == "killed"
    done = await world.ended(job.id)
    assert done.status == "killed"
    assert [pid for pid in pids if alive(pid)] == []
    assert await world.of(job.id) == []
    assert await world.keeper.outstanding(CONVERSATION) == 0
    again = await world.keeper.kill(job.id)
    assert again is not None
    assert again.ended_at == done.ended_at


async def test_a_late_exit_does_not_change_that_it_was_killed(world: JobWorld) -> None:
    job = await world.start("trap 'sleep 0.3; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    await world.says(job.id, b"ready")
    await world.keeper.kill(job.id)
    done = await world.ended(job.id)
    assert (done.status, done.exit_code) == ("killed", 0)
    assert await world.of(job.id) == []


async def test_what_is_ended_from_outside_was_killed_by_nobody_and_is_told(world: JobWorld) -> None:
    job = await world.start("sleep 600")
    info = read_state(world.root / "jobs" / job.id).info
    assert info is not None
    os.kill(info.pid, signal.SIGTERM)  # as at the end of a login session
    done = await world.ended(job.id)
    assert (done.status, done.signal) == ("failed", signal.SIGTERM)
    (notice,) = await world.of(job.id)
    assert "ended from outside" in notice.body
    assert notice.wake


async def test_killing_one_that_has_ended_changes_nothing(world: JobWorld) -> None:
    job = await world.start("true")
    await world.ended(job.id)
    found = await world.keeper.kill(job.id)
    assert found is not None
    assert found.status == "done"
    (notice,) = await world.of(job.id)
    assert notice.state == "pending"


async def test_a_kill_takes_the_question_nobody_was_told_of_with_it(world: JobWorld) -> None:
    world.stall_s = 0.3
    job = await world.start("read -p 'Password: ' x")
    await world.until(lambda: _stalled(world, job.id), "the stall")
    await world.keeper.kill(job.id)
    (notice,) = await world.of(job.id)  # at once: nobody is to be woken for it while it ends
    assert (notice.kind, notice.state) == ("job_stalled", "dropped")
    await world.ended(job.id)
    assert len(await world.of(job.id)) == 1


# --- stalls and input ----------------------------------------------------------------------------


async def _stalled(world: JobWorld, job_id: str) -> bool:
    job = await world.keeper.job(job_id)
    return job is not None and bool(job.stalled_at)


async def test_a_question_is_told_once_and_again_for_the_next_one(world: JobWorld) -> None:
    world.stall_s = 0.4
    job = await world.start("read -p 'Name? ' n; read -s -p 'Password: ' p; echo; echo \"$n $p\"; sleep 1")
    await world.until(lambda: _stalled(world, job.id), "the first stall")
    await asyncio.sleep(1.2)  # three times as long as it takes: nothing more may be said
    (first,) = await world.of(job.id)
    assert first.kind == "job_stalled"
    assert "Name?" in first.body
    assert f"ostler job input {job.id[:8]}" in first.body
    await world.keeper.lives[job.id].say(b"Ann\n")
    await world.says(job.id, b"Password")
    await world.until(lambda: _told(world, job.id, 2), "the second stall")
    _, second = await world.of(job.id)
    assert "Do not guess" in second.body
    await world.keeper.lives[job.id].say(b"secret\n")
    done = await world.ended(job.id)
    assert done.status == "done"
    assert done.stalled_at == ""
    assert world.output(job.id).endswith(b"Ann secret\r\n")
    kinds = [notice.kind for notice in await world.of(job.id)]
    assert kinds == ["job_stalled", "job_stalled", "job_ended"]


async def _told(world: JobWorld, job_id: str, count: int) -> bool:
    return len(await world.of(job_id)) == count


async def test_silence_without_a_question_is_no_stall(world: JobWorld) -> None:
    world.stall_s = 0.3
    job = await world.start("echo working; sleep 1.5")
    await world.ended(job.id)
    assert [notice.kind for notice in await world.of(job.id)] == ["job_ended"]


async def test_a_pager_is_told_and_can_be_left(world: JobWorld) -> None:
    world.stall_s = 0.4
    (world.work / "long.txt").write_text("".join(f"line {number}\n" for number in range(500)))
    job = await world.start("less long.txt; echo left")
    await world.until(lambda: _stalled(world, job.id), "the stall")
    (notice,) = await world.of(job.id)
    assert "pager" in notice.body
    await world.keeper.lives[job.id].say(b"q")
    assert (await world.ended(job.id)).status == "done"
    assert b"left" in world.output(job.id)


async def test_a_password_of_a_program_that_opens_the_terminal_itself(world: JobWorld) -> None:
    world.stall_s = 0.4
    ask = "import getpass; print('got', len(getpass.getpass(\"ann@host's password: \")))"
    job = await world.start(f"{sys.executable} -c {ask!r}".replace("\\'", "'\"'\"'"), time_limit_s=60)
    await world.until(lambda: _stalled(world, job.id), "the stall")
    await world.keeper.lives[job.id].say(b"12345\n")
    assert (await world.ended(job.id)).status == "done"
    assert world.output(job.id).endswith(b"got 5\r\n")
    assert b"12345" not in world.output(job.id)  # it was not echoed


async def test_a_stall_outlasts_the_daemon_and_is_not_told_twice(world: JobWorld) -> None:
    world.stall_s = 0.4
    job = await world.start("read -p 'Name? ' n; read -p 'Age? ' a")
    await world.until(lambda: _stalled(world, job.id), "the stall")
    await world.leave()
    # The machine slept meanwhile: hours of the wall clock, and no time that anything was silent.
    os.utime(world.root / "jobs" / job.id / "stdout", (0, 1_700_000_000))
    with contextlib.closing(sqlite3.connect(world.root / "journal.db")) as db, db:
        db.execute("UPDATE jobs SET stalled_at = '2024-01-01T00:00:00.000Z'")
    await world.begin()
    await world.until(
        lambda: job.id in world.keeper.lives and world.keeper.lives[job.id].shim, "the job again"
    )
    await asyncio.sleep(1.2)  # nothing may be said in this time
    assert len(await world.of(job.id)) == 1
    assert await _stalled(world, job.id)
    await world.keeper.lives[job.id].say(b"Ann\n")
    await world.until(lambda: _told(world, job.id, 2), "the second stall")


async def test_the_input_ends_for_a_program_without_a_terminal(world: JobWorld) -> None:
    job = await world.start("wc -c; sleep 600", terminal=False)
    life = world.keeper.lives[job.id]
    await life.say(b"12345")
    await life.say(None)
    with pytest.raises(ValueError):
        await life.say(b"more")
    await world.until(lambda: world.output(job.id).strip() == b"5", "the count")


# --- deaths of the daemon and of the shim ----------------------------------------------------------


async def test_a_job_goes_on_without_the_daemon_and_is_found_again(world: JobWorld) -> None:
    job = await world.start(f"while [ ! -e {world.root}/go ]; do sleep 0.02; done; echo went; exit 4")
    await world.leave()
    await world.begin()
    assert job.id in world.keeper.lives
    assert await world.keeper.outstanding(CONVERSATION) == 1
    (world.root / "go").touch()
    done = await world.ended(job.id)
    assert (done.status, done.exit_code, done.pid) == ("failed", 4, job.pid)
    assert len(await world.of(job.id)) == 1


async def test_what_ended_while_no_daemon_lived_is_told_once(world: JobWorld) -> None:
    job = await world.start(f"while [ ! -e {world.root}/go ]; do sleep 0.02; done; exit 0")
    place = world.root / "jobs" / job.id
    await world.leave()
    (world.root / "go").touch()
    await world.until(lambda: (place / "exit.json").exists(), "the end")
    await world.begin()
    done = await world.ended(job.id)
    assert done.status == "done"
    await world.leave()
    await world.begin()
    assert len(await world.of(job.id)) == 1


@pytest.mark.parametrize("daemon_lives", [True, False])
async def test_a_job_that_has_lost_its_shim_is_lost_and_nothing_of_it_lives(
    world: JobWorld, daemon_lives: bool
) -> None:
    job = await world.start("setsid sleep 611 & echo $!; echo ready; sleep 612")
    await world.says(job.id, b"ready")
    left = [int(world.output(job.id).split()[0]), job.pid]
    info = read_state(world.root / "jobs" / job.id).info
    assert info is not None
    if not daemon_lives:
        await world.leave()
    os.kill(info.pid, signal.SIGKILL)
    if not daemon_lives:
        await world.begin()
    done = await world.ended(job.id)
    assert done.status == "lost"
    assert [pid for pid in left if pid and alive(pid)] == []
    (notice,) = await world.of(job.id)
    assert "lost" in notice.body
    assert not list((world.root / "jobs" / job.id).glob("spec*"))


async def test_a_kill_that_a_crash_has_cut_off_is_done(world: JobWorld) -> None:
    job = await world.start("trap '' TERM; sleep 600")
    # As before a crash: recorded, and no more.
    await JobStore(world.journal).mark_killed(job.id, "2026-01-01T00:00:00.000Z")
    await world.leave()
    await world.begin()
    done = await world.ended(job.id)
    assert done.status == "killed"
    assert await world.of(job.id) == []


async def test_a_lost_journal_does_not_lose_a_job(world: JobWorld) -> None:
    job = await world.start(f"while [ ! -e {world.root}/go ]; do sleep 0.02; done; exit 0", name="kept")
    over = await world.start("exit 5")
    await world.ended(over.id)
    await world.leave()
    for path in world.root.glob("journal.db*"):
        path.unlink()
    await world.begin()
    found = await world.keeper.job(job.id)
    assert found is not None
    assert (found.name, found.conversation, found.status) == ("kept", CONVERSATION, "running")
    (world.root / "go").touch()
    assert (await world.ended(job.id)).status == "done"
    assert (await world.ended(over.id)).exit_code == 5


async def test_a_directory_that_nothing_was_started_in_is_removed(world: JobWorld) -> None:
    place = world.root / "jobs" / ("b" * 32)
    place.mkdir(mode=0o700, parents=True)
    (place / "spec.job").write_text("{}")
    await world.leave()
    await world.begin()
    assert not place.exists()


# --- the end of a conversation, retention ------------------------------------------------------------


async def test_a_deleted_conversation_takes_its_jobs_with_it(world: JobWorld) -> None:
    going = await world.start("trap '' TERM; sleep 600")
    over = await world.start("true")
    other = await world.start("sleep 600", conversation="hub/other")
    await world.ended(over.id)
    assert await world.keeper.end_conversation(CONVERSATION) == 2
    assert await world.keeper.end_conversation(CONVERSATION) == 0  # nothing is left to be begun
    assert await world.keeper.job(going.id) is None
    assert await world.keeper.jobs(CONVERSATION) == []
    await world.keeper.settled(CONVERSATION)
    assert going.pid is not None
    assert not alive(going.pid)
    await world.until(lambda: not (world.root / "jobs" / going.id).exists(), "its files to go")
    await world.until(lambda: not (world.root / "jobs" / over.id).exists(), "its files to go")
    assert sorted(world.removed) == sorted([going.id, over.id])
    found = await world.keeper.job(other.id)
    assert found is not None
    assert found.status == "running"


async def test_the_end_of_a_conversation_goes_on_after_a_crash(world: JobWorld) -> None:
    job = await world.start("trap '' TERM; sleep 600")
    await JobStore(world.journal).give_up(CONVERSATION)
    await world.leave()
    world.rules = KeepRules(told_s=0.01)
    await world.begin()
    await world.until(lambda: not (world.root / "jobs" / job.id).exists(), "its files to go")
    assert job.pid is not None
    assert not alive(job.pid)


async def test_ended_jobs_go_with_their_files_and_running_ones_stay(world: JobWorld) -> None:
    told = await world.start("echo told")
    untold = await world.start("echo untold")
    going = await world.start("sleep 600")
    await world.ended(told.id)
    await world.ended(untold.id)
    await world.keeper.heard(told.id)
    assert [notice.state for notice in await world.of(told.id)] == ["dropped"]
    world.rules = KeepRules(told_s=0.0)
    await world.keeper.prune()
    assert await world.keeper.job(told.id) is None
    assert not (world.root / "jobs" / told.id).exists()
    assert await world.keeper.job(untold.id) is not None
    world.rules = KeepRules(told_s=0.0, untold_s=0.0)
    await world.keeper.prune()
    assert [job.id for job in await world.keeper.jobs()] == [going.id]
    assert os.listdir(world.root / "jobs") == [going.id]


@pytest.mark.parametrize("terminal", [True, False])
async def test_output_without_end_does_not_fill_the_disk(world: JobWorld, terminal: bool) -> None:
    """The command goes on unharmed, beginning and end stay, the true size is told; also after a restart."""
    world.keep_bytes = 1  # the least there is takes its place
    size = 6 * OUTPUT_KEEP_LEAST_BYTES
    job = await world.start(
        f"head -c {size} /dev/zero | tr '\\0' x; echo; echo at the end", terminal=terminal
    )
    await world.leave()
    await world.begin()
    done = await world.ended(job.id)
    assert (done.status, done.exit_code) == ("done", 0)
    place = world.keeper.files.of(job.id)
    whole = size + len("\nat the end\n") + 2 * terminal
    assert output.size_of(place) == whole
    assert world.keeper.files.used_bytes(job.id) < 1.3 * OUTPUT_KEEP_LEAST_BYTES
    digest = output.digest(place)
    assert digest.text.startswith("xxxx")
    assert digest.text.endswith("at the end\n")
    assert f"{whole:,} bytes in all; bytes " in digest.text
    assert digest.gap is not None
    inside = output.read_piece(place, "stdout", digest.gap.start + 1000, 4)
    assert (inside.offset, inside.data, inside.size) == (digest.gap.end, b"xxxx", whole)
    edge = output.read_piece(place, "stdout", digest.gap.start - 3, 100)
    assert (edge.offset, edge.data, edge.gap) == (digest.gap.start - 3, b"xxx", digest.gap)
    (notice,) = await world.of(job.id)
    assert "any part that is left" in notice.body
    assert "were dropped" in notice.body


async def test_beyond_their_room_ended_jobs_go_and_running_ones_stay(world: JobWorld) -> None:
    over = await world.start("head -c 3000000 /dev/zero", terminal=False)
    await world.ended(over.id)
    going = await world.start("head -c 3000000 /dev/zero; sleep 600", terminal=False)
    await world.until(lambda: len(world.output(going.id)) == 3_000_000, "its output")
    world.rules = KeepRules(budget_bytes=1_000_000)
    await world.keeper.prune()
    assert [job.id for job in await world.keeper.jobs()] == [going.id]
