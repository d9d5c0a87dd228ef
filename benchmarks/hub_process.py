"""A hub as a server in a process of its own: ``python -m benchmarks.hub_process DATABASE``.

Prints its address and a user's token, then serves until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.support.hub_server import HubServer


async def _serve(database: Path) -> None:
    async with HubServer(database) as hub:
        print(hub.url, hub.token, hub.hub.workspace_id, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
