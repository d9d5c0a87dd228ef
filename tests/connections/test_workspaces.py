"""The list of workspaces: by the cheapest way that the server has, and what joined and left."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from daemon_core.connections.client import ServerClient
from daemon_core.connections.workspaces import WorkspaceList
from daemon_core.protocol import errors
from tests.support.fake_server import TOKEN, FakeServer, refuse


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as made:
        yield made


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[ServerClient]:
    async with ServerClient(server.url, TOKEN) as made:
        yield made


async def test_joined_and_left(server: FakeServer, client: ServerClient) -> None:
    known = WorkspaceList(client)
    assert await known.look() == type(await known.look())((), (), ())
    one = server.add_workspace("One")
    two = server.add_workspace("Two")
    found = await known.look()
    assert [each.name for each in found.joined] == ["One", "Two"]
    del server.workspaces[one]
    found = await known.look()
    assert [each.id for each in found.left] == [one]
    assert [each.id for each in found.current] == [two]
    assert list(known.known) == [two]


async def test_an_unchanged_list_of_a_later_server_costs_an_empty_answer(
    server: FakeServer, client: ServerClient
) -> None:
    server.later = True
    one = server.add_workspace("One")
    known = WorkspaceList(client)
    await known.look()
    again = await known.look()
    assert ([each.id for each in again.current], again.joined, again.left) == ([one], (), ())
    asked = server.asked_own_list
    assert "If-None-Match" not in asked[0]
    assert asked[1]["If-None-Match"].startswith('W/"')
    server.add_workspace("Two")
    assert [each.name for each in (await known.look()).joined] == ["Two"]
    assert server.seen("workspaces") == []


async def test_an_earlier_server_is_asked_the_earlier_way_until_it_may_be_another(
    server: FakeServer, client: ServerClient
) -> None:
    server.add_workspace("One")
    known = WorkspaceList(client)
    await known.look()
    await known.look()
    assert (len(server.asked_own_list), len(server.seen("workspaces"))) == (1, 2)
    server.later = True
    known.forget_way()
    assert (await known.look()).left == ()
    assert (len(server.asked_own_list), len(server.seen("workspaces"))) == (2, 2)


async def test_a_failed_look_leaves_what_was_known(server: FakeServer, client: ServerClient) -> None:
    one = server.add_workspace("One")
    known = WorkspaceList(client)
    await known.look()
    for fault in (refuse(500, "store"), refuse(401, "invalid token"), refuse(403, "disabled")):
        server.script("workspaces", fault)
        with pytest.raises(errors.ServerError):
            await known.look()
        assert list(known.known) == [one]


async def test_a_server_that_is_known_to_lack_the_later_way_is_not_asked(
    server: FakeServer, client: ServerClient
) -> None:
    known = WorkspaceList(client, own_route=False)
    await known.look()
    known.forget_way()
    await known.look()
    assert server.asked_own_list == []
