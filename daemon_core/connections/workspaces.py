"""The workspaces of one connection: fetched, compared with what was known, by the cheapest way there is.

:meth:`WorkspaceList.look` is the one primitive. It asks the server for the list and says what joined and what
left since the look before. Whoever registers runtimes gets the answer through
``ConnectionListener.workspaces_synced`` and keeps to it: a workspace that *joined* is registered, one that
*left* is dropped here without a word there (its tasks go on and report as long as the server takes it).

Later servers answer the daemon's own route, with an ``ETag``: an unchanged list then costs an empty answer.
A server that lacks the route (404, 405) is asked for it again after :meth:`WorkspaceList.forget_way`, which
the connection calls whenever it comes back: it may have been upgraded meanwhile.

Nothing but a whole list counts: a failed look leaves what was known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon_core.connections.client import ServerClient
from daemon_core.protocol import errors, wire


@dataclass(frozen=True, slots=True)
class WorkspaceSync:
    """What a look at the list of workspaces found. ``left`` ones are dropped here without a word there."""

    current: tuple[wire.Workspace, ...]
    joined: tuple[wire.Workspace, ...]
    left: tuple[wire.Workspace, ...]


class WorkspaceList:
    """See the module.

    Args:
        client: of the server.
        own_route: whether the daemon's own route is tried at all; not for a server known to lack it.
    """

    def __init__(self, client: ServerClient, *, own_route: bool = True) -> None:
        self._client = client
        self._own_route = own_route
        self._try_own = own_route
        self._etag = ""
        self._known: dict[str, wire.Workspace] = {}
        self.own_route_known = False
        """Whether the server has the daemon's own route, as far as is known: only later ones do."""

    @property
    def known(self) -> Mapping[str, wire.Workspace]:
        """The workspaces as of the last look, by id."""
        return self._known

    async def look(self) -> WorkspaceSync:
        """Fetch the list and compare.

        Raises:
            ServerError: there was no list; what is known stays.
        """
        listed = await self._fetch()
        before = self._known
        found = before if listed is None else {entry.id: entry for entry in listed if entry.id}
        self._known = found
        return WorkspaceSync(
            current=tuple(found.values()),
            joined=tuple(entry for id_, entry in found.items() if id_ not in before),
            left=tuple(entry for id_, entry in before.items() if id_ not in found),
        )

    def forget_way(self) -> None:
        """The server may be another one by now, or the credential: find out anew how to ask it."""
        self._try_own = self._own_route
        self._etag = ""

    async def _fetch(self) -> list[wire.Workspace] | None:
        """The list, or None for "as before"."""
        if self._try_own:
            try:
                listed, self._etag = await self._client.daemon_workspaces(self._etag)
            except errors.ServerError as error:
                if error.status not in (404, 405):
                    raise
                self._try_own = self.own_route_known = False
                self._etag = ""
            else:
                self.own_route_known = True
                return listed
        return await self._client.workspaces()
