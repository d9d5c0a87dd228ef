"""What is heard becomes what is told: from states and events, over restarts, with answers that count."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pytestqt.qtbot import QtBot

from daemon_core.control.settings_views import SettingsView, SettingView
from daemon_core.control.views import (
    Condition,
    JobView,
    TaskRow,
    UpdateNotice,
    UpdateVersion,
    UpdateView,
)
from desktop.commands import Command
from desktop.daemon.link import Link
from desktop.models.settings import SettingsStore
from desktop.models.state import LinkPhase, Supervision
from desktop.notifications import facts
from desktop.notifications.disturbance import Disturbance
from desktop.notifications.planner import SUMMARY_ID, Fact, Kind
from desktop.notifications.service import Notification, Service
from desktop.notifications.teller import Teller
from desktop.notifications.told import REPEAT_S, Told
from tests.desktop import canned
from tests.desktop.conftest import Desk

WAIT_MS = 10_000


class Screen(Service):
    """Shows nothing, and knows what it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, Notification] = {}
        self.said: list[Notification] = []

    def show(self, wanted: Notification) -> None:
        self.shown[wanted.ident] = wanted
        self.said.append(wanted)

    def withdraw(self, ident: str) -> None:
        self.shown.pop(ident, None)

    @property
    def texts(self) -> list[str]:
        return [f"{each.title}: {each.text}" for each in self.said]


class Moment(Disturbance):
    """A good or a bad moment."""

    quiet = False
    gone = False

    @property
    def silenced(self) -> bool:
        return self.quiet

    @property
    def away(self) -> bool:
        return self.gone

    def become(self, *, quiet: bool = False, gone: bool = False) -> None:
        self.quiet, self.gone = quiet, gone
        self.changed.emit()


class World:
    """One life of the desktop's telling after the other, over one link and one file."""

    def __init__(self, link: Link, root: Path) -> None:
        self.link = link
        self.path = root / "told.json"
        self.asked: list[Command] = []
        self.looked_at = ""
        self.begin()

    def begin(self) -> None:
        self.screen = Screen()
        self.moment = Moment()
        self.store = SettingsStore(self.link)
        self.teller = Teller(
            self.link, self.store, self.screen, self.moment, self.path, self.asked.append,
            lambda: self.looked_at, settle_ms=0,
        )  # fmt: skip
        self.teller.begin()

    def restart(self) -> None:
        """The desktop ends and is started again, while the daemon's state is not known."""
        self.teller.close()
        self.link.tell(link=LinkPhase.CONNECTING, tasks={})
        self.begin()

    def tell(self, *tasks: TaskRow, **more: Any) -> None:
        self.link.tell(**canned.connected(*tasks, **more))

    def set(self, **values: Any) -> None:
        views = [
            SettingView(key=f"notifications.{name}", kind="flag", value=value)
            for name, value in values.items()
        ]
        self.store.tell(SettingsView(settings=views))


@pytest.fixture
def world(desk: Desk, tmp_path: Path) -> Iterator[World]:
    made = World(desk.link, tmp_path)
    yield made
    made.teller.close()


@functools.cache
def failed(ident: str, title: str, seconds: float = 60.0) -> TaskRow:
    """A task that has failed: its end is told without asking the daemon anything."""
    times = {"started_at": later(seconds - 60), "ended_at": later(seconds)}
    return canned.row(ident, title, "failed", failure_reason="timeout", **times)


def later(seconds: float) -> str:
    return canned.ago(-seconds)


def test_an_end_is_told_once_over_changes_reconnections_and_restarts(world: World) -> None:
    world.tell(canned.row("a", "Flaky test hunt"))
    task = failed("a", "Flaky test hunt")
    world.tell(task)
    assert world.screen.texts == ["Flaky test hunt: Failed after 1 min: timed out"]
    world.tell(msgspec.structs.replace(task, tokens=12))
    world.link.tell(link=LinkPhase.ABSENT)
    world.tell(task)
    assert len(world.screen.said) == 1
    world.restart()
    world.tell(task)
    assert world.screen.said == []
    assert [fact.title for fact in world.teller.messages.facts] == ["Flaky test hunt"]


def test_what_ended_before_the_first_start_is_no_news(world: World) -> None:
    world.tell(canned.row("a", "Old", "failed", ended_at=canned.ago(3600)))
    assert world.screen.said == []


def test_what_was_missed_comes_as_one_summary(world: World) -> None:
    world.tell()
    world.restart()
    world.tell(failed("a", "One"), failed("b", "Two", 62), failed("c", "Three", 63))
    assert [(each.ident, each.title, each.text) for each in world.screen.said] == [
        (SUMMARY_ID, "3 failed", "One · Two · Three")
    ]
    assert len(world.teller.messages.news) == 3
    world.screen.opened.emit(SUMMARY_ID, "")
    assert world.asked == [Command("open", "messages")]
    assert world.screen.shown == {}
    assert len(world.teller.messages.news) == 3  # until they are handled


def test_what_an_agent_has_handed_on_and_what_was_cancelled_is_no_news(world: World) -> None:
    world.tell()
    child = msgspec.structs.replace(failed("a", "Child"), parent_id="p", depth=1)
    world.tell(child, canned.row("b", "Cancelled", "cancelled", ended_at=later(1)))
    assert world.screen.said == []


def test_a_task_that_is_looked_at_is_not_told_of(world: World) -> None:
    world.tell(canned.row("a", "A"))
    world.looked_at = "a"
    world.tell(failed("a", "A"))
    assert world.screen.said == []
    assert world.teller.messages.facts == ()


def test_a_message_is_handled_by_opening_its_task_or_putting_it_away(world: World) -> None:
    world.tell()
    world.tell(failed("a", "A"))
    world.tell(failed("a", "A"), failed("b", "B"))
    world.teller.handled("a")
    assert [fact.task for fact in world.teller.messages.facts] == ["b"]
    assert list(world.screen.shown) == [facts.task_subject("b")]
    world.teller.messages.put_all_away()
    assert world.teller.messages.facts == ()
    assert world.screen.shown == {}


def test_parked_and_silent_are_told_and_taken_back(world: World) -> None:
    world.tell()
    until = later(3600)
    world.tell(canned.row("a", "A", "parked", parked_until=until))
    assert "Usage limit" in world.screen.texts[0]
    world.tell(canned.row("a", "A"))
    assert world.screen.shown == {}
    world.tell(canned.row("a", "A", "parked", parked_until=until))  # the same wait
    assert len(world.screen.said) == 1
    silent = Condition(code="silent", since=canned.ago(600), next_try_at=later(300))
    world.tell(canned.row("a", "A", notice=silent))
    assert [button.text for button in world.screen.said[-1].buttons] == ["Give it more time", "Cancel it"]
    world.screen.pressed.emit("task:a", "0", "")
    assert world.asked == [Command("extend_task", "a")]
    assert world.screen.shown == {}


def test_a_job_that_waits_for_input_is_told(world: World) -> None:
    world.tell()
    job = JobView(id="j", status="running", command="apt install x", stalled=True, stalled_at=canned.ago(1))
    world.tell(jobs={"j": job})
    assert world.screen.texts == ["apt install x: Seems to wait for input"]
    world.tell(jobs={"j": msgspec.structs.replace(job, stalled=False)})
    assert world.screen.shown == {}


def ended_job(ident: str = "j", **more: object) -> JobView:
    given = {"status": "done", "command": "make all", "exit_code": 0, "started_at": canned.ago(700),
             "ended_at": later(1), **more}  # fmt: skip
    return JobView(id=ident, **given)  # type: ignore[arg-type]


def test_the_end_of_a_persons_job_is_told_once(world: World) -> None:
    world.tell()
    running = ended_job(status="running", exit_code=None, ended_at=None)
    world.tell(jobs={"j": running})
    assert world.screen.said == []
    over = ended_job()
    world.tell(jobs={"j": over})
    assert [text.partition(" in ")[0] for text in world.screen.texts] == ["make all: Done"]
    world.tell()
    world.tell(jobs={"j": over})
    assert len(world.screen.said) == 1
    world.restart()
    world.tell(jobs={"j": over})
    assert world.screen.said == []  # neither again nor by the next desktop
    assert [fact.subject for fact in world.teller.messages.facts] == ["job:j"]
    world.teller.open(world.teller.messages.facts[0])
    assert world.asked == [Command("open", "jobs", "j")]


def test_a_question_of_a_job_makes_way_for_its_end(world: World) -> None:
    world.tell()
    asking = ended_job(status="running", ended_at=None, stalled=True, stalled_at=canned.ago(1))
    world.tell(jobs={"j": asking})
    world.tell(jobs={"j": ended_job(status="failed", exit_code=3)})
    assert list(world.screen.shown) == ["job:j"]
    assert world.screen.said[-1].text.endswith("ended with code 3")
    assert world.screen.said[-1].text.startswith("Failed after")


@pytest.mark.parametrize(
    ("more", "began_s"),
    [
        ({"task_id": "t1"}, 700),  # its agent hears of it
        ({"conversation": "c1"}, 700),
        ({"status": "killed"}, 700),  # whoever did that knows
        ({}, 3),  # over while whoever began it still looks
    ],
)
def test_ends_of_jobs_that_are_no_news(world: World, more: dict[str, str], began_s: float) -> None:
    world.tell()
    world.tell(jobs={"j": ended_job(started_at=canned.ago(began_s), **more)})
    assert world.screen.said == []


def test_the_end_of_a_job_that_is_looked_at_or_not_wanted_is_not_told(world: World) -> None:
    world.tell()
    jobs = {ident: ended_job(ident) for ident in "jkl"}
    world.looked_at = "job:j"
    world.tell(jobs={"j": jobs["j"]})
    world.looked_at = ""
    world.set(job=False)
    world.tell(jobs={"j": jobs["j"], "k": jobs["k"]})
    assert world.screen.said == []
    world.set(job=True)
    world.tell(jobs=jobs)
    assert list(world.screen.shown) == ["job:l"]


def test_jobs_and_tasks_that_ended_unseen_are_one_summary(world: World) -> None:
    world.tell()
    world.restart()
    done = canned.row("a", "A", "completed", ended_at=later(1))
    world.tell(done, jobs={"j": ended_job(), "k": ended_job("k")})
    assert [each.ident for each in world.screen.said] == [SUMMARY_ID]


def test_trouble_is_told_once_however_often_it_comes_back(qtbot: QtBot, world: World) -> None:
    world.tell()
    trouble = Condition(code="disk_low", params={"path": "/home"})
    for _round in range(3):
        world.tell(conditions=(trouble,))
        world.tell()
    assert world.screen.texts == ["Ostler needs a hand: The disk of /home is nearly full: no tasks are taken"]
    assert world.screen.shown == {}
    world.restart()
    world.tell(conditions=(trouble,))
    assert world.screen.said == []
    other = Condition(code="disk_low", params={"path": "/srv"})
    world.tell(conditions=(trouble, other))
    assert len(world.screen.said) == 1


def test_trouble_that_passes_at_once_is_none(qtbot: QtBot, world: World) -> None:
    world.teller._settle_s = 0.2
    world.tell()
    trouble = Condition(code="signed_out", params={"server": "s"})
    world.tell(conditions=(trouble,))
    world.tell()
    assert world.screen.said == []
    world.tell(conditions=(trouble,))
    qtbot.waitUntil(lambda: len(world.screen.said) == 1, timeout=WAIT_MS)


def test_a_daemon_that_gives_up_is_told_and_taken_back(qtbot: QtBot, world: World) -> None:
    world.tell()
    world.link.tell(link=LinkPhase.ABSENT, supervision=Supervision.GAVE_UP)
    assert world.screen.said[-1].title == "Ostler's daemon stopped several times in a row"
    world.link.tell(supervision=Supervision.STARTING)
    assert world.screen.shown != {}
    world.tell(supervision=Supervision.NONE)
    assert world.screen.shown == {}


def test_an_update_is_told_until_it_is_there(world: World) -> None:
    world.tell()
    notice = UpdateNotice(kind="ready", version="1.4.0")
    ready = UpdateView(stage="staged", ready=True, version=UpdateVersion(version="1.4.0"), notices=[notice])
    world.tell(update=ready)
    assert world.screen.said[-1].title == "Ostler 1.4.0 is ready"
    world.tell(update=msgspec.structs.replace(ready, notices=[]))  # the daemon knows that it was told
    assert list(world.screen.shown) == ["update:ready:1.4.0"]
    world.tell(update=UpdateView())
    assert world.screen.shown == {}


def test_quiet_moments_keep_it_for_one_summary(world: World) -> None:
    world.tell()
    world.moment.become(gone=True)
    world.tell(failed("a", "A"))
    world.tell(failed("a", "A"), failed("b", "B"))
    assert world.screen.said == []
    assert len(world.teller.messages.facts) == 2
    world.moment.become()
    assert [each.title for each in world.screen.said] == ["2 failed"]


def test_do_not_disturb_is_heeded_unless_it_shall_not(world: World) -> None:
    world.tell()
    world.moment.become(quiet=True)
    world.tell(failed("a", "A"))
    assert world.screen.said == []
    world.set(respect_do_not_disturb=False)
    assert [each.title for each in world.screen.said] == ["A"]


def test_kinds_are_switched_off_and_everything_can_be(world: World) -> None:
    world.tell()
    world.set(failed=False)
    world.tell(failed("a", "A"))
    assert not world.teller.messages.facts
    world.set(failed=True, enabled=False)
    world.tell(failed("a", "A"), failed("b", "B"))
    assert [fact.title for fact in world.teller.messages.facts] == ["B"]
    assert world.screen.said == []


def test_a_snooze_is_kept_over_a_restart_and_ends(world: World) -> None:
    world.tell()
    world.teller.snooze(dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    world.restart()
    assert world.teller.snooze_until
    world.tell(failed("a", "A"))
    assert world.screen.said == []
    world.teller.snooze(None)
    assert [each.title for each in world.screen.said] == ["A"]
    assert not world.teller.snooze_until


def test_sounds_are_few_and_none_where_they_are_not_wanted(world: World) -> None:
    world.tell()
    rows = [failed(name, name) for name in "abc"]
    for count in range(1, 4):
        world.tell(*rows[:count])
    assert [bool(each.sound) for each in world.screen.said] == [True, False, False]
    world.teller._sounded = -100.0
    world.set(sound=False)
    world.tell(*rows, failed("d", "d"))
    assert not world.screen.said[-1].sound


def test_a_test_notification_tells_what_became_of_it(world: World) -> None:
    came: list[str] = []
    world.teller.messages.test_came.connect(came.append)
    world.teller.messages.test()
    world.screen.opened.emit("test", "")
    world.teller.messages.test()
    world.screen.failed.emit("test")
    assert came == ["opened", "failed"]


def test_nothing_is_told_before_it_begins(desk: Desk, tmp_path: Path) -> None:
    """A desktop that takes over from another one hears everything, and says nothing until it has."""
    screen = Screen()
    store = SettingsStore(desk.link)
    path = tmp_path / "told.json"
    teller = Teller(desk.link, store, screen, Moment(), path, lambda _command: None, lambda: "", settle_ms=0)
    desk.link.tell(**canned.connected())
    desk.link.tell(**canned.connected(failed("a", "A")))
    assert screen.said == []
    assert not path.exists()
    teller.begin()
    teller.close()


def test_what_was_told_survives_files_that_make_no_sense(tmp_path: Path) -> None:
    path = tmp_path / "told.json"
    path.write_bytes(b'{"format": 1, "said": 7')
    assert Told(path).fresh
    told = Told(path)
    told.say("task:a", "failed x")
    told.save([Fact(Kind.FAILED, "task:a", "A", "x", command=Command("open_task", "a"))])
    data = msgspec.json.decode(path.read_bytes())
    data["open"].append({"kind": "of a newer version"})
    data["newer"] = True
    path.write_bytes(msgspec.json.encode(data))
    again = Told(path)
    assert again.knows("task:a", "failed x")
    assert not again.knows("task:a", "failed y")
    assert [fact.title for fact in again.open] == ["A"]
    assert again.since == told.since


def test_trouble_may_be_told_again_after_a_while(tmp_path: Path) -> None:
    told = Told(tmp_path / "told.json")
    told.say("condition:x", "on")
    assert told.over("condition:x")
    assert told.knows("condition:x", "on")
    assert not told.knows("condition:x", "on", repeat_s=0.0)
    assert told.standing("condition:") == []
    assert told.holds("condition:x")
    assert told.knows("condition:x", "on", repeat_s=REPEAT_S)


def test_a_place_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    told = Told(tmp_path / "not" / "there" / "told.json")
    told.say("task:a", "x")
    told.save([])
    assert told.knows("task:a", "x")


def test_an_answer_that_does_not_get_through_brings_the_question_back(qtbot: QtBot, world: World) -> None:
    world.tell(canned.asking())
    world.teller._take_questions(canned.asking_view(canned.permission()))
    (asked,) = world.screen.said
    assert [button.text for button in asked.buttons] == ["Allow once", "For this task", "Deny"]
    assert asked.stays
    world.screen.pressed.emit(asked.ident, "0", "")  # there is no daemon
    qtbot.waitUntil(lambda: len(world.screen.said) == 2, timeout=WAIT_MS)
    assert world.screen.said[1].text == f"Your answer did not get through. {asked.text}"
    assert world.screen.said[1].ident == asked.ident
    world.teller._take_questions(canned.asking_view())
    assert world.screen.shown == {}
    assert world.teller.messages.facts == ()


def test_a_question_with_a_few_answers_has_them_as_buttons(world: World) -> None:
    world.tell(canned.asking())
    world.teller._take_questions(canned.asking_view(canned.question()))
    (asked,) = world.screen.said
    assert asked.text == "Which database should the tests use?"
    assert [button.text for button in asked.buttons] == ["SQLite", "Postgres in a container"]
    assert not asked.reply
    open_question = msgspec.structs.replace(canned.question(), id="q3", options=[])
    world.teller._take_questions(canned.asking_view(open_question))
    assert world.screen.said[-1].reply == "Your answer"
    assert list(world.screen.shown) == [facts.ask_subject("a1", "q3")]


def test_a_question_that_a_crash_took_from_the_screen_is_asked_once_more(world: World) -> None:
    world.tell(canned.asking())
    world.teller._take_questions(canned.asking_view(canned.permission()))
    (asked,) = world.screen.said
    world.restart()
    world.screen.left.emit(frozenset({asked.ident, "task:of long ago"}))
    world.tell(canned.asking())
    world.teller._take_questions(canned.asking_view(canned.permission()))
    assert [each.text for each in world.screen.said] == [asked.text]
    world.teller._take_questions(canned.asking_view(canned.permission()))
    assert len(world.screen.said) == 1


def test_nobody_answers_while_the_screen_is_locked(world: World) -> None:
    world.tell(canned.asking())
    world.teller._take_questions(canned.asking_view(canned.permission()))
    (asked,) = world.screen.said
    world.moment.become(gone=True)
    world.screen.pressed.emit(asked.ident, "0", "")
    assert world.screen.said[-1].text == f"The screen was locked: please answer again. {asked.text}"
    assert len(world.screen.said) == 2  # and nothing was asked of the daemon, which would be a third
    assert len(world.teller.messages.facts) == 1


def test_a_quiet_time_that_ended_while_the_machine_slept_is_over(world: World) -> None:
    world.teller.snooze(dt.datetime.now(dt.UTC) + dt.timedelta(hours=8))
    for ident in ("a", "b"):
        world.tell(failed(ident, f"Task {ident}"))
    assert world.screen.said == []
    past = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=30)
    world.teller._told.snooze_until = past.isoformat()
    world.teller._due = past  # timers stood still
    world.tell(failed("a", "Task a"), failed("b", "Task b"), revision=2)
    assert [each.ident for each in world.screen.said] == [SUMMARY_ID]
