"""The updater from end to end: real signed metadata, a real server, real versions, a real switch and trial.

Only the process that is to be replaced is none: it is ended and started as the launcher would.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon_core.updates import staging
from daemon_core.updates.history import ServerWish
from daemon_core.updates.offers import Problem
from daemon_core.updates.stages import HERE, Stage
from daemon_core.updates.updater import WishError
from releasing import deltas
from tests.updates.mirror import PLATFORM, Cut, Stall, Status, made_payload, pack
from tests.updates.updater_world import Process, World, pointer_of

FULL = f"ostler-1.1.0-{PLATFORM}.tar.xz"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as world:
        yield world


async def next_process(old: Process, profile: str = "default") -> Process:
    """The old process has made way: what the launcher starts then."""
    await old.until_way_made()
    await old.die()
    return await old.world.start(profile)


async def test_from_the_server_to_the_new_version_by_itself(world: World) -> None:
    world.ask_in_a_process = True
    world.publish("1.1.0")
    first = await world.start()
    first.set_busy(True)
    await first.until_stage(Stage.WAITING)
    assert first.book.state.whole
    assert not first.way_made.is_set()
    first.set_busy(False)  # the quiet moment
    second = await next_process(first)
    assert second.version == "1.1.0"
    assert second.stage is Stage.VERIFYING
    await second.prove()
    await second.until_stage(Stage.COMMITTED)
    assert pointer_of(world).version == "1.1.0"
    (line,) = second.book.history
    assert (line.version, line.from_version, line.result, line.asked_by) == (
        "1.1.0", "1.0.0", "committed", "automatic",
    )  # fmt: skip
    (notice,) = second.book.notices
    assert (notice.kind, notice.version) == ("updated", "1.1.0")
    assert notice.notes["de"] == ["Was neu ist in 1.1.0"]
    await second.updater.told("updated", "1.1.0")
    assert second.book.notices == []
    assert second.updater.previous == "1.0.0"
    await second.until(lambda: os.listdir(world.app / "downloads") == [])
    await second.die()
    third = await world.start()  # a plain start tells nothing again
    assert (third.version, third.book.notices) == ("1.1.0", [])


async def test_a_limit_ends_the_wait_for_a_quiet_moment(world: World) -> None:
    world.publish("1.1.0")
    first = await world.start()
    first.set_busy(True)
    await first.until_stage(Stage.WAITING)
    world.offset = dt.timedelta(hours=25)
    first.updater.look()
    await first.until_way_made()


async def test_where_the_user_decides_nothing_happens_by_itself(world: World) -> None:
    world.rules = dataclasses.replace(world.rules, automatic=False)
    world.publish("1.1.0")
    first = await world.start()
    await first.until(lambda: [each.kind for each in first.book.notices] == ["ready"])
    assert first.stage is Stage.STAGED
    assert first.book.notices[0].notes["en"] == ["What is new in 1.1.0"]
    await first.updater.told("ready", "1.1.0")
    await first.die()
    again = await world.start()
    assert (again.stage, again.book.notices) == (Stage.STAGED, [])  # told once, also after a start

    await again.updater.remind_later(3600)
    world.rules = dataclasses.replace(world.rules, automatic=True)  # switched on: it waits all the same
    again.updater.look()
    await again.until(lambda: again.updater.rules.automatic)
    assert again.stage is Stage.STAGED
    world.rules = dataclasses.replace(world.rules, automatic=False)
    world.offset = dt.timedelta(hours=2)
    again.updater.look()
    await again.until(lambda: [each.kind for each in again.book.notices] == ["ready"])
    await again.updater.apply()
    second = await next_process(again)
    await second.prove()
    await second.until_stage(Stage.COMMITTED)
    assert second.book.history[0].asked_by == "user"


async def test_a_version_that_does_not_work_is_told_once_and_left_alone(world: World) -> None:
    world.publish("1.1.0")
    first = await world.start()
    second = await next_process(first)
    await second.fail()
    await second.die()
    world.offset = dt.timedelta(hours=2)  # the next check is due
    third = await world.start()
    assert third.version == "1.0.0"
    assert third.stage is Stage.ROLLED_BACK
    (notice,) = third.book.notices
    assert (notice.kind, notice.version, notice.from_version) == ("rolled_back", "1.1.0", "1.0.0")
    assert notice.problem is not None
    assert (notice.problem.code, notice.problem.params["detail"]) == ("unhealthy", "no such luck")
    await third.until(lambda: third.updater.passed_over == ("1.1.0", "bad"))  # the next check
    await third.until_stage(Stage.IDLE)
    assert [line.result for line in third.book.history] == ["rolled_back"]

    # A newer one is taken by itself.
    world.publish("1.1.1")
    await third.updater.check()
    fourth = await next_process(third)
    assert fourth.version == "1.1.1"


async def test_the_user_may_try_a_failed_version_again(world: World) -> None:
    world.publish("1.1.0")
    second = await next_process(await world.start())
    await second.fail()
    await second.die()
    third = await world.start()
    await third.updater.apply("1.1.0")
    fourth = await next_process(third)
    assert fourth.version == "1.1.0"
    await fourth.prove()
    await fourth.until_stage(Stage.COMMITTED)
    assert pointer_of(world).bad == {}


async def test_who_asks_what_there_is_does_not_ask_for_what_has_failed(world: World) -> None:
    world.publish("1.1.0")
    second = await next_process(await world.start())
    await second.fail()
    await second.die()
    third = await world.start()
    await third.updater.told("rolled_back", "1.1.0")
    await third.updater.check()
    await third.until_stage(Stage.STAGED)
    assert (third.book.state.target, third.stage, third.book.notices) == ("1.1.0", Stage.STAGED, [])
    assert [line.result for line in third.book.history] == ["rolled_back"]
    await third.updater.apply()
    fourth = await next_process(third)
    assert fourth.version == "1.1.0"


async def test_back_to_the_version_before(world: World) -> None:
    world.publish("1.1.0")
    first = await world.start()
    with pytest.raises(WishError, match="no_previous"):
        await first.updater.rollback()
    second = await next_process(first)
    await second.prove()
    await second.until_stage(Stage.COMMITTED)
    await second.updater.rollback()
    third = await next_process(second)
    assert third.version == "1.0.0"
    await third.prove()
    await third.until_stage(Stage.COMMITTED)
    line = third.book.history[0]
    assert (line.version, line.from_version, line.result) == ("1.1.0", "1.0.0", "rolled_back")
    assert line.problem is not None
    assert line.problem.code == "asked"
    assert pointer_of(world).bad["1.1.0"].reason == "asked"
    await third.updater.check()
    await third.until_stage(Stage.AVAILABLE, *HERE, Stage.DOWNLOADING)  # somebody asked: it is offered
    assert third.book.state.target == "1.1.0"


async def test_the_way_back_needs_no_address(world: World) -> None:
    world.publish("1.1.0")
    second = await next_process(await world.start())
    await second.prove()
    await second.until_stage(Stage.COMMITTED)
    await second.die()
    world.write_install(url="")
    third = await world.start()
    assert third.updater.place.why_not is not None
    await third.updater.rollback()
    fourth = await next_process(third)
    assert fourth.version == "1.0.0"
    await fourth.prove()
    await fourth.until_stage(Stage.COMMITTED)
    (world.place / "lib" / "owned-by-package-manager").touch()
    fourth.updater.look()
    await fourth.until(lambda: fourth.updater.place.why_not == Problem(code="package_manager"))
    with pytest.raises(WishError, match="off"):
        await fourth.updater.rollback()


async def test_no_network_is_no_noise(world: World) -> None:
    world.mirror.always("timestamp", Status(503))
    first = await world.start()
    await first.until(lambda: first.book.failing_since is not None)
    await first.until_stage(Stage.IDLE)
    assert first.book.check_problem is not None
    assert first.book.check_problem.code == "server_error"
    assert first.book.notices == []
    assert first.blocked is None
    with pytest.raises(WishError) as caught:
        await first.updater.apply()
    assert (caught.value.code, caught.value.problem) == ("not_known", first.book.check_problem)
    world.offset = dt.timedelta(days=15)
    first.updater.look()
    await first.until(lambda: first.blocked is not None)
    world.mirror.always("timestamp", None)
    world.publish("1.1.0")
    world.offset = dt.timedelta()
    await first.updater.check()
    await first.until(lambda: first.blocked is None)
    assert first.book.checked_at is not None


async def test_a_network_that_comes_back_is_used(world: World) -> None:
    world.publish("1.1.0")
    world.mirror.always("timestamp", Status(503))
    first = await world.start()
    await first.until(lambda: first.book.failing_since is not None)
    await first.until_stage(Stage.IDLE)
    asked = len(world.mirror.asked_for("timestamp"))
    world.mirror.always("timestamp", None)

    def waits() -> bool:
        at = first.updater.next_check_at
        return at is not None and at - first.updater.now > dt.timedelta(seconds=10)

    await first.until(waits)
    first.updater.network_changed()  # a moment after the failure: that network may be none
    assert waits()
    first.updater._timing = dataclasses.replace(first.updater._timing, retry_first_s=0.0)
    first.updater.network_changed()
    await first.until_way_made()
    assert len(world.mirror.asked_for("timestamp")) == asked + 1


async def test_expired_metadata_blocks_updates_and_nothing_else(world: World) -> None:
    world.publish("1.1.0")
    world.repo.expire("timestamp")
    first = await world.start()
    await first.until(lambda: first.book.check_problem is not None)
    assert first.book.check_problem is not None
    assert first.book.check_problem.code == "expired"
    await first.until_stage(Stage.IDLE)


async def test_a_death_in_a_download_costs_nothing(tmp_path: Path) -> None:
    async with World(tmp_path, filler=600_000) as world:
        world.publish("1.1.0")
        world.mirror.script(FULL, Stall(400_000))
        first = await world.start()
        await first.until(lambda: (first.updater.progress or ("", 0, 0))[1] >= 100_000)
        await first.die()
        assert first.stage is Stage.DOWNLOADING
        again = await world.start()
        await again.until_way_made()
        ranges = world.mirror.asked_for(FULL)
        assert ranges[0] == ""
        assert ranges[1].startswith("bytes=")


async def test_a_connection_that_breaks_is_put_off_and_taken_up(tmp_path: Path) -> None:
    async with World(tmp_path, filler=600_000) as world:
        world.publish("1.1.0")
        world.mirror.always(FULL, Cut(1000))
        first = await world.start()
        await first.until(lambda: first.book.state.next_try_at is not None)
        state = first.book.state
        assert state.stage is Stage.AVAILABLE
        assert state.problem is not None
        assert state.problem.code == "cut_off"
        world.mirror.always(FULL, None)
        await first.updater.apply()  # somebody is in a hurry: no pause
        await first.until_way_made()


async def test_a_full_disk_says_what_is_missing(world: World) -> None:
    world.publish("1.1.0", unpacked_bytes=2**50)
    first = await world.start()
    await first.until(lambda: first.book.state.problem is not None)
    problem = first.book.state.problem
    assert problem is not None
    assert problem.code == "disk_full"
    assert problem.params["needed"] > problem.params["free"]
    assert world.mirror.asked_for(FULL) == []


async def test_a_wrong_file_is_not_fetched_over_and_over(world: World) -> None:
    world.publish("1.1.0", payload_sha256="0" * 64)
    first = await world.start()
    await first.until_stage(Stage.FAILED)
    assert first.book.state.problem is not None
    assert first.book.state.problem.code == "manifest"
    assert first.book.notices == []  # nobody asked, and nothing has changed
    asked = len(world.mirror.asked_for(FULL))
    await first.updater.check()
    await first.until_stage(Stage.AVAILABLE)
    assert first.book.state.next_try_at is not None
    assert len(world.mirror.asked_for(FULL)) == asked
    # Mended under the same number, it is taken at once.
    del world.repo.custom("1.1.0")["payload_sha256"]
    archive = world.repo.directory / "made" / FULL
    pack(made_payload(world.place / "mended", "1.1.0", filler=64), archive, "1.1.0")
    world.repo.add_file(archive, version="1.1.0", kind="full")
    world.repo.publish()
    await first.updater.check()
    await first.until_way_made()


async def test_a_withdrawn_version_is_not_put_in_place(world: World) -> None:
    world.rules = dataclasses.replace(world.rules, automatic=False)
    world.publish("1.1.0")
    first = await world.start()
    await first.until_stage(Stage.STAGED)
    world.repo.custom("1.1.0")["withdrawn"] = True
    world.repo.publish()
    await first.updater.check()
    assert first.stage is Stage.IDLE
    assert first.book.notices == []
    with pytest.raises(WishError, match="none"):
        await first.updater.apply()
    await first.until(lambda: world.store().names() == ["1.0.0"])


async def test_a_newer_version_takes_the_place_of_a_ready_one(world: World) -> None:
    world.rules = dataclasses.replace(world.rules, automatic=False)
    world.publish("1.1.0")
    first = await world.start()
    await first.until(lambda: bool(first.book.notices))
    world.publish("1.2.0")
    await first.updater.check()
    await first.until(lambda: [each.version for each in first.book.notices] == ["1.2.0"])
    assert first.book.state.target == "1.2.0"


async def test_a_delta_that_does_not_fit_costs_nothing(world: World) -> None:
    world.publish("1.1.0")
    world.publish_delta("1.0.0", "1.1.0", b"no delta at all")
    first = await world.start()
    await first.until_way_made()
    assert len(world.mirror.asked_for(".delta")) == 1
    assert len(world.mirror.asked_for(FULL)) == 1


async def test_a_delta_is_enough(world: World) -> None:
    world.publish("1.1.0")
    content = world.place / "made.delta"
    deltas.make(world.place / "lib" / "payload" / "1.0.0", world.place / "payloads" / "1.1.0", content)
    world.publish_delta("1.0.0", "1.1.0", content.read_bytes())
    first = await world.start()
    await first.until_way_made()
    assert world.mirror.asked_for(FULL) == []
    assert world.store().complete() == ["1.0.0", "1.1.0"]


# --- servers ----------------------------------------------------------------------------------------------


def wish(request_id: str, version: str = "") -> ServerWish:
    return ServerWish(connection="hub", runtime_id="r", request_id=request_id, version=version)


async def test_what_a_server_asked_for_is_answered_by_the_new_version(world: World) -> None:
    world.rules = dataclasses.replace(world.rules, automatic=False, check=False)
    world.publish("1.1.0")
    first = await world.start()
    assert await first.updater.server_wants(wish("u1", "1.1.0")) is None
    second = await next_process(first)
    assert second.settled == []
    await second.prove()
    await second.until(lambda: second.settled != [])
    assert second.settled == [("u1", None, "1.1.0")]
    await second.updater.forget_wish(wish("u1"))
    assert second.book.wishes == []
    assert second.book.history[0].asked_by == "server"


async def test_a_server_hears_that_it_did_not_work(world: World) -> None:
    world.rules = dataclasses.replace(world.rules, automatic=False, check=False)
    world.publish("1.1.0")
    first = await world.start()
    assert await first.updater.server_wants(wish("u0", "1.0.0")) is None
    assert first.settled == [("u0", None, "1.0.0")]  # it runs already
    problem = await first.updater.server_wants(wish("u1", "7.7.7"))
    assert problem is not None
    assert problem.code == "none"
    assert first.book.wishes == []
    assert await first.updater.server_wants(wish("u2")) is None
    second = await next_process(first)
    await second.fail()
    await second.die()
    third = await world.start()
    await third.until(lambda: third.settled != [])
    request, why, running = third.settled[0]
    assert (request, running) == ("u2", "1.0.0")
    assert why is not None
    assert why.code == "unhealthy"


async def test_a_server_hears_of_a_download_that_broke_off(world: World) -> None:
    world.rules = dataclasses.replace(world.rules, check=False)
    world.publish("1.1.0")
    world.mirror.always(FULL, Cut(10))
    first = await world.start()
    assert await first.updater.server_wants(wish("u1")) is None
    await first.until(lambda: first.settled != [])
    (_, problem, _) = first.settled[0]
    assert problem is not None
    assert problem.code == "cut_off"
    assert not first.book.state.at_once


# --- others -----------------------------------------------------------------------------------------------


async def test_two_daemons_one_of_which_looks_after_it(world: World) -> None:
    world.publish("1.1.0")
    first = await world.start()
    other = await world.start(profile="other")
    assert (first.updater.elsewhere, other.updater.elsewhere) == (False, True)
    with pytest.raises(WishError, match="off"):
        await other.updater.check()
    second = await next_process(first)
    await second.prove()
    await second.until_stage(Stage.COMMITTED)
    other.updater.look()  # it notices what runs now, and follows
    await other.until_way_made()
    assert other.book.state.target == "1.1.0"


async def test_a_package_that_was_installed_is_told_too(world: World) -> None:
    first = await world.start()
    await first.until(lambda: first.book.running == "1.0.0")
    await first.die()
    made_payload(world.place / "lib" / "payload" / "1.3.0", "1.3.0")
    world.write_install(version="1.3.0", seed="payload/1.3.0")
    world.write_install(version="1.3.0", seed="payload/1.3.0", trial={"settle_s": 0.01})
    second = await world.start()
    assert second.version == "1.3.0"
    assert second.book.history == [], "it has to prove itself, too"
    await second.prove()
    await second.until(lambda: bool(second.book.history))
    (line,) = second.book.history
    assert (line.version, line.from_version, line.asked_by) == ("1.3.0", "1.0.0", "installer")


async def test_a_package_that_does_not_work_here_is_told_and_left_alone(world: World) -> None:
    await (await world.start()).die()
    made_payload(world.place / "lib" / "payload" / "1.3.0", "1.3.0")
    world.write_install(version="1.3.0", seed="payload/1.3.0")
    second = await world.start()
    assert second.version == "1.3.0"
    await second.fail()
    await second.die()
    third = await world.start()
    assert third.version == "1.0.0", "the version before was kept"
    (line,) = third.book.history
    assert (line.version, line.from_version, line.result) == ("1.3.0", "1.0.0", "rolled_back")
    (notice,) = third.book.notices
    assert (notice.kind, notice.version) == ("rolled_back", "1.3.0")
    await third.updater.told("rolled_back", "1.3.0")
    await third.updater._notice_others()
    assert third.stage not in (Stage.STAGED, Stage.WAITING, Stage.SWITCHING)
    await third.die()
    fourth = await world.start()
    assert fourth.version == "1.0.0"
    assert (len(fourth.book.history), fourth.book.notices) == (1, []), "told once"


async def test_what_fails_with_another_profile_is_told_there_and_left_alone(world: World) -> None:
    world.publish("1.1.0")
    first = await world.start()
    other = await world.start(profile="other")
    second = await next_process(first)
    await second.prove()
    await second.until_stage(Stage.COMMITTED)
    other.updater.look()
    await other.until_way_made()
    await other.die()
    tried = await world.start(profile="other")
    assert tried.version == "1.1.0"
    await tried.fail()
    await tried.die()
    after = await world.start(profile="other")
    assert after.version == "1.0.0"
    assert [(line.version, line.result) for line in after.book.history][:1] == [("1.1.0", "rolled_back")]
    await after.updater._notice_others()
    assert after.stage is Stage.IDLE
    assert pointer_of(world).version == "1.1.0", "the others keep it"

    # Once nobody else looks after the updates, it is asked for here.
    await second.die()
    after.updater.look()
    await after.until(lambda: not after.updater.elsewhere)
    await after.updater.apply()
    again = await next_process(after, profile="other")
    assert again.version == "1.1.0"
    await again.prove()
    await again.until_stage(Stage.COMMITTED)


async def test_a_package_that_is_installed_while_it_runs_is_restarted_into(world: World) -> None:
    first = await world.start()
    made_payload(world.place / "lib" / "payload" / "1.3.0", "1.3.0")
    world.write_install(version="1.3.0", seed="payload/1.3.0")
    first.updater.look()
    second = await next_process(first)
    assert second.version == "1.3.0"


async def test_a_fault_of_the_program_is_no_storm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(staging, "check_space", broken)
    world.publish("1.1.0")
    first = await world.start()
    await first.until(lambda: first.book.state.problem is not None)
    assert first.book.state.problem is not None
    assert first.book.state.problem.code == "internal"
    assert first.book.state.next_try_at is not None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda world: world.environ.pop("OSTLER_LAUNCHER"), "source"),
        (lambda world: (world.place / "lib" / "owned-by-package-manager").touch(), "package_manager"),
        (lambda world: (world.place / "lib" / "root.json").unlink(), "no_trust"),
        (lambda world: (world.launcher / "ostler").unlink(), "launcher_gone"),
        (lambda world: world.write_install(url="nowhere"), "no_address"),
    ],
    ids=["source", "package manager", "no root", "no launcher", "no address"],
)
async def test_where_there_are_no_updates_it_says_why(world: World, change: object, code: str) -> None:
    world.publish("1.1.0")
    assert callable(change)
    store = world.store()
    store.install_seed()
    change(world)
    process = Process(world, "1.0.0", "", "default")
    world.processes.append(process)
    await process.begin()
    place = process.updater.place
    assert place.source is None
    assert place.why_not is not None
    assert place.why_not.code == code
    with pytest.raises(WishError, match="off"):
        await process.updater.check()
    assert world.mirror.requests == []


async def test_a_package_manager_that_takes_over_is_noticed(world: World) -> None:
    world.rules = dataclasses.replace(world.rules, check=False)
    first = await world.start()
    assert first.updater.place.source is not None
    marker = world.place / "lib" / "owned-by-package-manager"
    marker.touch()
    first.updater.look()
    await first.until(lambda: first.updater.place.source is None)
    marker.unlink()
    first.updater.look()
    await first.until(lambda: first.updater.place.source is not None)


async def test_settings_count_at_once(world: World) -> None:
    world.rules = dataclasses.replace(world.rules, check=False)
    world.publish("1.1.0")
    first = await world.start()
    assert first.updater.next_check_at is None
    world.write_install(url="http://127.0.0.1:1/metadata/")
    world.rules = dataclasses.replace(world.rules, check=True, url=f"{world.mirror.url}/metadata")
    first.updater.look()
    await first.until_way_made()
