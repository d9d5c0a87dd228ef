"""The lines of a transcript, each once and in order."""

from __future__ import annotations

from typing import Any

import pytest

from daemon_core.hub import NewTask, NotFoundError
from tests.hub.world import NOWHERE, World


async def claimed(world: World) -> str:
    added = await world.hub.add_task(NewTask(prompt="x", provider="shell"))
    await world.claim()
    return added.id


def line(seq: int, content: str = "", **more: Any) -> dict[str, Any]:
    return {"seq": seq, "type": "text", "content": content or f"line {seq}", **more}


async def send(world: World, task_id: str, *lines: dict[str, Any]) -> Any:
    return await world.task(task_id, "messages", {"messages": list(lines)})


async def test_every_kind_of_line_comes_back_as_it_was(world: World) -> None:
    task_id = await claimed(world)
    lines = [
        line(1, "häßlich \U0001f40e \0 \n"),
        {"seq": 2, "type": "thinking", "content": "hm"},
        {"seq": 3, "type": "tool_use", "tool": "Bash", "input": {"command": "ls", "n": [1, None, 1.5]}},
        {"seq": 4, "type": "tool_result", "tool": "Bash", "output": "x" * 8192},
        {"seq": 5, "type": "error", "content": "boom", "surprise": True},
        {"seq": 6, "type": "some_new_type"},
    ]
    assert await send(world, task_id, *lines) == (200, {"status": "ok"})
    answer = await world.get(f"/api/daemon/tasks/{task_id}/messages")
    lines[4].pop("surprise")
    for given, stored in zip(lines, answer.body, strict=True):
        assert stored.pop("task_id") == task_id
        assert stored.pop("created_at").endswith("Z")
        assert stored == given
    tail = (await world.get(f"/api/tasks/{task_id}/messages?since=5")).body
    assert [(each["seq"], each["type"]) for each in tail] == [(6, "some_new_type")]


async def test_a_line_that_comes_twice_is_kept_once_and_as_it_was_first(world: World) -> None:
    task_id = await claimed(world)
    await send(world, task_id, line(1), line(2))
    again = await send(world, task_id, line(1, "other"), line(2, "other"), line(3), line(3, "other"))
    assert again == (200, {"status": "ok"})
    stored = await world.hub.messages(task_id, 0, 100)
    assert [(each.seq, each.content) for each in stored] == [(n, f"line {n}") for n in (1, 2, 3)]


async def test_numbers_belong_to_their_task(world: World) -> None:
    one, two = await claimed(world), await claimed(world)
    await send(world, one, line(1, "a"))
    await send(world, two, line(1, "b"))
    assert [(await world.hub.messages(each, 0, 10))[0].content for each in (one, two)] == ["a", "b"]


async def test_lines_out_of_order_come_back_in_order(world: World) -> None:
    task_id = await claimed(world)
    await send(world, task_id, line(3), line(1))
    await send(world, task_id, line(2))
    assert [each.seq for each in await world.hub.messages(task_id, 0, 10)] == [1, 2, 3]


async def test_a_long_transcript_is_answered_whole_and_in_pages_inside(world: World) -> None:
    task_id = await claimed(world)
    for start in range(1, 3500, 500):
        await send(world, task_id, *(line(n) for n in range(start, start + 500)))
    for since, expected in ((0, 3500), (500, 3000), (1000, 2500), (2500, 1000), (2501, 999), (3500, 0)):
        answer = await world.get(f"/api/daemon/tasks/{task_id}/messages?since={since}")
        assert [each["seq"] for each in answer.body] == list(range(since + 1, 3501)), since
        assert len(answer.body) == expected
    page = await world.hub.messages(task_id, 10, 5)
    assert [each.seq for each in page] == [11, 12, 13, 14, 15]


@pytest.mark.parametrize("since", ["-1", "x", "1.5", "9" * 30, "²"])
async def test_a_since_that_is_no_number_is_refused(world: World, since: str) -> None:
    task_id = await claimed(world)
    assert await world.get(f"/api/daemon/tasks/{task_id}/messages?since={since}") == (
        400,
        {"error": "invalid since parameter"},
    )


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"messages": {}}',
        b'{"messages": [{}]}',
        b'{"messages": [{"seq": "1", "type": "text"}]}',
        b'{"messages": [{"seq": 0, "type": "text"}]}',
        b'{"messages": [{"seq": -4, "type": "text"}]}',
        b'{"messages": [{"seq": 9223372036854775808, "type": "text"}]}',
        b'{"messages": [{"seq": 1, "type": "text", "content": 5}]}',
        b'{"messages": [{"seq": 1, "type": "text", "content": "\\ud800"}]}',
        b'{"messages": [{"seq": 1, "type": "tool_use", "input": {]}]}',
        b'{"messages": [{"seq": 1, "type": "text", "content": "\xff"}]}',
    ],
)
async def test_nonsense_is_refused_and_nothing_of_it_is_kept(world: World, body: bytes) -> None:
    task_id = await claimed(world)
    assert await world.task(task_id, "messages", body) == (400, {"error": "invalid request body"})
    assert await world.hub.messages(task_id, 0, 10) == []


@pytest.mark.parametrize("body", [b"", b"{}", b'{"messages": null}', b'{"messages": []}'])
async def test_nothing_to_say_is_fine(world: World, body: bytes) -> None:
    task_id = await claimed(world)
    assert await world.task(task_id, "messages", body) == (200, {"status": "ok"})


async def test_nulls_are_as_good_as_absent(world: World) -> None:
    task_id = await claimed(world)
    await send(world, task_id, line(1, tool=None, input=None, output=None))
    assert (await world.hub.messages(task_id, 0, 10))[0].input is None


async def test_the_last_words_of_a_task_that_is_over_are_taken(world: World) -> None:
    task_id = await claimed(world)
    await world.hub.cancel(task_id)
    assert (await send(world, task_id, line(1))).status == 200
    assert len(await world.hub.messages(task_id, 0, 10)) == 1


async def test_a_batch_of_fifteen_megabytes_is_taken_and_a_larger_one_refused(world: World) -> None:
    task_id = await claimed(world)
    assert (await send(world, task_id, line(1, "x" * (15 << 20)))).status == 200
    assert (await send(world, task_id, line(2, "x" * (17 << 20)))).status == 413
    assert [len(each.content or "") for each in await world.hub.messages(task_id, 0, 10)] == [15 << 20]


async def test_lines_of_an_unknown_task_are_refused(world: World) -> None:
    assert await send(world, NOWHERE, line(1)) == (404, {"error": "task not found"})
    with pytest.raises(NotFoundError):
        await world.hub.messages(NOWHERE, 0, 10)


async def test_new_lines_are_told_in_the_process(world: World) -> None:
    task_id = await claimed(world)
    world.changes.clear()
    await send(world, task_id, line(1))
    assert [(each.kind, each.task_id) for each in world.changes] == [("messages", task_id)]
