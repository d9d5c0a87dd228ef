"""Delivery: whatever the server does, each line arrives once and the last word is said once (P1, P3)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon_core.connections.client import ServerClient
from daemon_core.connections.timing import Timeouts
from daemon_core.journal import Journal, JournalError, RunRecord, Stretch, TaskRecord
from daemon_core.protocol.wire import CompleteRequest, FailRequest, SessionRequest, Usage, UsageRequest
from daemon_core.tasks import delivery as delivery_module
from daemon_core.tasks.delivery import Delivery
from daemon_core.tasks.owned import Nursery
from daemon_core.tasks.patience import Patience
from tests.support.fake_server import (
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
    eventually,
    html_502,
    refuse,
    too_many,
)

KEY = "srv/t1"
# Where something hangs on purpose; a busy machine alone can use this up, so nothing else has it.
FAST = Timeouts(control_s=0.4, connect_s=0.3, messages_s=0.4, pin_s=0.4)


@dataclass
class Desk:
    """One task with its outbox, its server, and a delivery that pauses for no time at all."""

    journal: Journal
    server: FakeServer
    client: ServerClient
    task: FakeTask
    nursery: Nursery
    token: list[str]
    delays: list[float] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    gone: int = 0
    seq: int = 1
    hold: asyncio.Event | None = None

    def delivery(self, *, fresh: bool = True) -> Delivery:
        made = Delivery(
            self.journal, self.client, KEY, self.task.id, "r1",
            fresh=fresh, patience=Patience(lambda error: None), pause=self.pause, on_done=self.done,
            on_gone=self.on_gone,
        )  # fmt: skip
        self.nursery.start(made.run(), "delivery")
        return made

    async def pause(self, delay_s: float) -> None:
        self.delays.append(delay_s)
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(0)

    async def done(self, verdict: str) -> None:
        self.verdicts.append(verdict)

    def on_gone(self) -> None:
        self.gone += 1

    async def say(self, count: int, *, chunk: int = 3, text: str = "line") -> None:
        """Lines into journal and outbox, in chunks."""
        chunks = []
        first = self.seq
        for start in range(first, first + count, chunk):
            stop = min(start + chunk, first + count)
            lines = [{"seq": seq, "type": "text", "content": f"{text} {seq}"} for seq in range(start, stop)]
            chunks.append((start, stop - 1, msgspec.json.encode(lines)))
        self.seq = first + count
        await self.journal.commit_stretch(
            Stretch(
                run_id="run1", task_key=KEY, stdout_offset=self.seq, reader=b"", next_seq=self.seq, at="now",
                chunks=chunks,
            )
        )  # fmt: skip

    async def report(self, *reports: tuple[str, msgspec.Struct]) -> None:
        await self.journal.commit_stretch(
            Stretch(
                run_id="run1", task_key=KEY, stdout_offset=self.seq, reader=b"", next_seq=self.seq, at="now",
                reports=[(kind, msgspec.json.encode(body)) for kind, body in reports],
            )
        )  # fmt: skip

    async def end(self, *reports: tuple[str, msgspec.Struct]) -> None:
        """The task has ended with these last reports."""
        await self.journal.end_task(
            KEY, {"outcome": "completed"}, [(kind, msgspec.json.encode(body)) for kind, body in reports]
        )

    async def delivered(self, made: Delivery, verdict: str = "delivered") -> None:
        made.ended()
        await eventually(lambda: bool(self.verdicts))
        assert self.verdicts == [verdict]
        assert await self.journal.outbox_size() == 0

    def numbers(self) -> list[int]:
        return [message["seq"] for message in self.task.messages]


COMPLETE = ("complete", CompleteRequest(output="done", session_id="s", work_dir="/w"))
FAIL = ("fail", FailRequest(error="broken", failure_reason="agent_error.unknown"))


@pytest.fixture
async def desk(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    timeouts: Timeouts = getattr(request, "param", Timeouts())
    journal = await Journal.open(tmp_path / "journal.db")
    await journal.add_task(
        TaskRecord(
            key=KEY, connection="srv", task_id="t1", runtime_id="r1", workspace_id="w", provider="claude",
            run_id="run1",
        ),
        RunRecord(run_id="run1", task_key=KEY),
    )  # fmt: skip
    nursery = Nursery("test")
    token = [TOKEN]
    async with (
        FakeServer() as server,
        ServerClient(server.url, lambda: token[0], timeouts=timeouts) as client,
    ):
        task = server.add_task("r1", id_="t1")
        task.status = "running"
        yield Desk(journal, server, client, task, nursery, token)
        await nursery.close()
    await journal.close()


async def test_lines_session_usage_and_the_last_word_come_in_this_order(desk: Desk) -> None:
    made = desk.delivery()
    await desk.say(7)
    await desk.report(("session", SessionRequest(session_id="s1", work_dir="/w")))
    await desk.say(2)
    await desk.end(
        ("usage", UsageRequest(usage=[Usage(provider="claude", model="m", input_tokens=3)])), COMPLETE
    )
    await desk.delivered(made)
    desk.server.check(desk.task.id)
    assert [request.route for request in desk.server.requests] == [
        "messages", "session", "messages", "usage", "complete",
    ]  # fmt: skip
    assert len(desk.task.messages) == 9
    assert desk.task.usage[0]["input_tokens"] == 3
    assert (desk.task.session_id, desk.task.status) == ("s", "completed")


FAULTS: dict[str, Callable[[], Sequence[Fault]]] = {
    "answer lost": lambda: [ResetAfter()],
    "answer never comes": lambda: [HangAfter()],
    "request never answered": lambda: [Hang()],
    "cut off": lambda: [CutOff()],
    "truncated": lambda: [Truncated()],
    "reset before": lambda: [ResetBefore()],
    "500": lambda: [refuse(500, "failed to persist")],
    "proxy page": lambda: [html_502()],
    "captive portal": lambda: [Says(b"<html>login</html>", "text/html")],
    "408": lambda: [refuse(408, "too slow")],
    "several": lambda: [refuse(503, "no"), ResetAfter(), ResetBefore(), CutOff()],
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("desk", [FAST], indirect=True, ids=["short patience"])
async def test_no_fault_loses_or_doubles_anything(desk: Desk, fault: str) -> None:
    for route in ("messages", "session", "usage", "complete"):
        desk.server.script(route, *FAULTS[fault]())
    made = desk.delivery()
    await desk.say(5)
    await desk.report(("session", SessionRequest(session_id="s1")))
    await desk.say(5)
    await desk.end(("usage", UsageRequest(usage=[Usage(provider="c", model="m", input_tokens=1)])), COMPLETE)
    await desk.delivered(made)
    desk.server.check(desk.task.id)
    assert desk.numbers() == list(range(1, 11))
    assert len(desk.task.usage) == 1


async def test_a_batch_that_was_stored_in_part_is_completed(desk: Desk) -> None:
    desk.task.messages.extend({"seq": seq, "type": "text", "content": "x"} for seq in (1, 2))
    desk.server.script("messages", ResetBefore())
    made = desk.delivery()
    await desk.say(6)
    await desk.end(COMPLETE)
    await desk.delivered(made)
    desk.server.check(desk.task.id)


async def test_another_process_asks_first_and_goes_on_asking_while_the_server_is_ahead(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal was lost: everything is read again, and the server has more than the first batch."""
    monkeypatch.setattr(delivery_module, "BATCH_MESSAGES", 4)
    desk.task.messages.extend({"seq": seq, "type": "text", "content": "x"} for seq in range(1, 11))
    made = desk.delivery(fresh=False)
    await desk.say(15)
    await desk.end(COMPLETE)
    await desk.delivered(made)
    desk.server.check(desk.task.id)
    assert len(desk.server.seen("messages_since")) == 1


async def test_a_server_with_more_than_can_be_asked_for_gets_nothing_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "BATCH_MESSAGES", 4)
    monkeypatch.setattr("daemon_core.connections.timing.LARGE_ANSWER_LIMIT_BYTES", 700)
    desk.task.messages.extend({"seq": seq, "type": "text", "content": "x" * 40} for seq in range(1, 13))
    made = desk.delivery(fresh=False)
    await desk.say(14)
    await desk.end(COMPLETE)
    await desk.delivered(made)
    desk.server.check(desk.task.id)


async def test_a_fresh_delivery_does_not_ask_what_is_there(desk: Desk) -> None:
    made = desk.delivery()
    await desk.say(4)
    await desk.end(COMPLETE)
    await desk.delivered(made)
    assert not desk.server.seen("messages_since")


async def test_too_many_requests_is_waited_out_as_the_server_asks(desk: Desk) -> None:
    desk.server.script("messages", too_many("7"))
    made = desk.delivery()
    await desk.say(1)
    await desk.end(COMPLETE)
    await desk.delivered(made)
    assert desk.delays == [7.0]
    desk.server.check(desk.task.id)


async def test_pauses_grow_and_begin_anew_after_a_success(desk: Desk) -> None:
    desk.server.script("messages", *[refuse(500, "no")] * 4)
    made = desk.delivery()
    await desk.say(1)
    await eventually(lambda: len(desk.task.messages) == 1)
    assert len(desk.delays) == 4
    assert desk.delays[3] > desk.delays[0] * 3
    desk.server.script("messages", refuse(500, "no"))
    await desk.say(1)
    made.wake()
    await eventually(lambda: len(desk.task.messages) == 2)
    assert desk.delays[4] < 1.0
    await desk.end(COMPLETE)
    await desk.delivered(made)


async def test_a_refused_credential_loses_nothing(desk: Desk) -> None:
    desk.hold = asyncio.Event()
    desk.token[0] = "mul_another"
    made = desk.delivery()
    await desk.say(3)
    await desk.end(COMPLETE)
    made.ended()
    await eventually(lambda: made.trouble is not None)
    desk.token[0] = TOKEN
    desk.hold.set()
    await desk.delivered(made)
    desk.server.check(desk.task.id)
    assert made.trouble is None


async def test_a_task_that_the_server_lost_is_moot_and_told_once(desk: Desk) -> None:
    made = desk.delivery()
    del desk.server.tasks[desk.task.id]
    await desk.say(3)
    made.wake()
    await eventually(lambda: desk.gone == 1)
    await desk.say(3)
    await desk.end(COMPLETE)
    await desk.delivered(made, "moot")
    assert desk.gone == 1


async def test_a_complete_that_is_refused_for_good_becomes_a_failure_in_words(desk: Desk) -> None:
    desk.server.always("complete", refuse(400, "invalid output"))
    made = desk.delivery()
    await desk.end(COMPLETE)
    await desk.delivered(made)
    report = desk.server.check_terminal(desk.task.id)
    assert report.kind == "fail"
    assert len(desk.server.seen("complete")) == delivery_module.REFUSED_TRIES
    assert "complete task failed" in report.body["error"]
    assert "invalid output" in report.body["error"]
    assert (report.body["session_id"], report.body["work_dir"]) == ("s", "/w")


@pytest.mark.parametrize("word", [COMPLETE, FAIL], ids=["complete", "fail"])
async def test_a_server_that_answers_400_to_its_own_trouble_gets_the_last_word_later(
    desk: Desk, word: tuple[str, Any]
) -> None:
    desk.server.script(word[0], *[refuse(400, "failed to end the task")] * 3)
    made = desk.delivery()
    await desk.end(word)
    await desk.delivered(made)
    report = desk.server.check_terminal(desk.task.id)
    assert (report.kind, report.body) == (word[0], msgspec.to_builtins(word[1]))


STRANGERS = {
    "a proxy that lost its server": Status(404, "404 page not found", "text/plain"),
    "a firewall": Status(403, "<html>This page is blocked</html>", "text/html"),
    "an account that may do nothing": refuse(403, "account disabled"),
}


@pytest.mark.parametrize("who", STRANGERS)
async def test_what_refuses_everything_is_waited_out(desk: Desk, who: str) -> None:
    routes = ("messages", "messages_since", "session", "usage", "complete", "status")
    for route in routes:
        desk.server.always(route, STRANGERS[who])
    made = desk.delivery(fresh=False)
    await desk.say(5)
    await desk.report(("session", SessionRequest(session_id="s1")))
    await desk.end(("usage", UsageRequest(usage=[Usage(provider="c", model="m", input_tokens=1)])), COMPLETE)
    made.ended()
    await eventually(lambda: len(desk.delays) > 3 * delivery_module.REFUSED_TRIES)
    assert made.trouble is not None
    desk.server.heal()
    await desk.delivered(made)
    assert desk.server.check(desk.task.id).kind == "complete"
    assert (desk.numbers(), len(desk.task.usage)) == ([1, 2, 3, 4, 5], 1)


@pytest.mark.parametrize("who", ["a proxy that lost its server", "a firewall"])
async def test_a_stranger_that_refuses_now_and_then_takes_nothing_away(desk: Desk, who: str) -> None:
    for route in ("messages", "messages_since", "session", "usage", "complete"):
        desk.server.script(route, *[STRANGERS[who]] * 2)
    made = desk.delivery(fresh=False)
    await desk.say(5)
    await desk.report(("session", SessionRequest(session_id="s1")))
    await desk.end(("usage", UsageRequest(usage=[Usage(provider="c", model="m", input_tokens=1)])), COMPLETE)
    await desk.delivered(made)
    assert desk.server.check(desk.task.id).kind == "complete"
    assert (desk.numbers(), len(desk.task.usage), desk.task.session_id) == ([1, 2, 3, 4, 5], 1, "s")


async def test_a_filter_between_makes_nothing_arrive_twice(desk: Desk) -> None:
    """The server has taken lines and its answer was lost; then somebody in between refuses all questions."""
    blocked = STRANGERS["a firewall"]
    desk.server.script("messages", ResetAfter(), blocked, blocked)
    desk.server.script("messages_since", blocked, blocked)
    made = desk.delivery()
    await desk.say(4)
    await eventually(lambda: len(desk.task.messages) == 4)
    await desk.say(4)
    await desk.end(COMPLETE)
    await desk.delivered(made)
    assert desk.server.check(desk.task.id).kind == "complete"
    assert desk.numbers() == list(range(1, 9))


async def test_a_filter_that_dislikes_the_words_of_a_failure_gets_plain_ones(desk: Desk) -> None:
    blocked = STRANGERS["a firewall"]
    desk.server.script("fail", *[blocked] * delivery_module.REFUSED_TRIES)
    made = desk.delivery()
    await desk.end(FAIL)
    await desk.delivered(made)
    body = desk.server.check_terminal(desk.task.id).body
    assert "refused the text" in body["error"]
    assert body["failure_reason"] == FAIL[1].failure_reason


async def test_a_last_word_that_is_refused_in_any_form_is_moot(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.server.always("complete", refuse(400, "no"))
    desk.server.always("fail", refuse(403, "no"))
    made = desk.delivery()
    await desk.end(COMPLETE)
    await desk.delivered(made, "moot")
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


async def test_a_runtime_that_is_gone_does_not_end_the_delivery(desk: Desk) -> None:
    desk.server.script("complete", refuse(404, "runtime not found"))
    made = desk.delivery()
    await desk.end(COMPLETE)
    await desk.delivered(made)
    assert desk.server.check_terminal(desk.task.id).kind == "fail"


async def test_a_refusal_is_not_final_before_the_server_has_said_what_the_task_is(desk: Desk) -> None:
    desk.server.script("complete", refuse(400, "hiccup"))
    desk.server.script("status", refuse(500, "hiccup"))
    made = desk.delivery()
    await desk.end(COMPLETE)
    await desk.delivered(made)
    assert desk.server.check_terminal(desk.task.id).kind == "complete"


async def test_a_complete_of_a_task_that_was_set_back_is_started_again_first(desk: Desk) -> None:
    desk.task.status = "dispatched"
    made = desk.delivery()
    await desk.end(COMPLETE)
    await desk.delivered(made)
    assert [request.route for request in desk.server.requests] == ["complete", "start", "complete"]
    assert desk.task.status == "completed"


@pytest.mark.parametrize("status", ["cancelled", "failed"])
async def test_a_server_that_ended_it_first_hears_the_usage_and_keeps_its_word(
    desk: Desk, status: str
) -> None:
    desk.task.status = status
    made = desk.delivery()
    await desk.say(2)
    await desk.end(("usage", UsageRequest(usage=[Usage(provider="c", model="m", input_tokens=1)])), COMPLETE)
    await desk.delivered(made)
    assert desk.task.status == status
    assert desk.task.usage
    assert [report.effective for report in desk.task.reports] == [False]


async def test_a_proxy_that_repeats_a_last_word_does_no_harm(desk: Desk) -> None:
    desk.server.script("fail", Duplicate())
    made = desk.delivery()
    await desk.end(FAIL)
    await desk.delivered(made)
    assert desk.server.check_terminal(desk.task.id).kind == "fail"


async def test_one_line_that_the_server_refuses_takes_no_other_with_it(desk: Desk) -> None:
    class Picky(FakeServer):
        def _messages(self, request: Any) -> tuple[int, Any]:
            if any("line 4" in message.get("content", "") for message in request.body["messages"]):
                return 400, {"error": "line 4 is not to be had"}
            return super()._messages(request)

    async with Picky() as server, ServerClient(server.url, TOKEN) as client:
        desk.server, desk.client = server, client
        desk.task = server.add_task("r1", id_="t1")
        desk.task.status = "running"
        made = desk.delivery()
        await desk.say(8)
        await desk.end(COMPLETE)
        await desk.delivered(made)
        lines = server.check_transcript(desk.task.id)
        assert [line["type"] for line in lines] == ["text"] * 3 + ["error"] + ["text"] * 4
        assert server.check_terminal(desk.task.id).kind == "complete"
        await desk.nursery.close()


async def test_a_server_that_refuses_all_lines_still_gets_the_last_word(desk: Desk) -> None:
    desk.server.always("messages", refuse(413, "too large"))
    made = desk.delivery()
    await desk.say(200)
    await desk.end(COMPLETE)
    await desk.delivered(made)
    assert desk.server.check_terminal(desk.task.id).kind == "complete"
    assert len(desk.server.seen("messages")) < 20


async def test_a_damaged_report_does_not_hold_up_the_rest(desk: Desk, tmp_path: Path) -> None:
    await desk.say(2)
    await desk.report(("session", SessionRequest(session_id="s1")))
    await desk.end(COMPLETE)
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute("UPDATE outbox SET body = X'00FF' WHERE kind <> 'messages'")
        db.commit()
    made = desk.delivery()
    await desk.delivered(made)
    report = desk.server.check(desk.task.id)
    assert report.kind == "fail"
    assert "damaged" in report.body["error"]


async def test_what_was_sent_is_not_sent_again_because_the_disk_was_full(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon_core.tasks.patience.FIRST_RETRY_S", 0.001)
    acknowledge, full = desk.journal.acknowledge, [JournalError("full", full=True)] * 3

    async def sometimes(ids: Sequence[int]) -> None:
        if full:
            raise full.pop()
        await acknowledge(ids)

    monkeypatch.setattr(desk.journal, "acknowledge", sometimes)
    made = desk.delivery()
    await desk.say(5)
    await desk.end(COMPLETE)
    await desk.delivered(made)
    desk.server.check(desk.task.id)
    assert len(desk.server.seen("messages")) == 1


async def test_an_unexpected_error_does_not_end_a_delivery(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("daemon_core.tasks.owned.RESTART_FIRST_S", 0.001)
    send, broken = desk.client.send_messages, [RuntimeError("a bug")]

    async def sometimes(task_id: str, encoded: bytes) -> None:
        await send(task_id, encoded)
        if broken:
            raise broken.pop()

    monkeypatch.setattr(desk.client, "send_messages", sometimes)
    made = desk.delivery()
    await desk.say(3)
    await desk.end(COMPLETE)
    await desk.delivered(made)
    desk.server.check(desk.task.id)
    assert "a bug" in caplog.text


async def test_status_of_an_empty_answer_counts_as_taken(desk: Desk) -> None:
    desk.server.script("complete", Says(b"", "application/json"))
    made = desk.delivery()
    await desk.end(COMPLETE)
    await desk.delivered(made)
    assert desk.server.check_terminal(desk.task.id).kind == "complete"


async def test_a_bare_not_found_is_no_reason_to_drop_the_rest(desk: Desk) -> None:
    desk.server.script("session", Status(404, '{"error":"not found"}'))
    made = desk.delivery()
    await desk.report(("session", SessionRequest(session_id="s1")))
    await desk.say(2)
    await desk.end(COMPLETE)
    await desk.delivered(made)
    assert desk.server.check(desk.task.id).kind == "complete"
    assert desk.gone == 0
