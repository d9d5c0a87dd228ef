"""A token for a running hub: ``python -m daemon_core.hub.mint HUB.DB [--days N]`` prints one.

It is written into the database, where the hub looks whenever one is shown to it; whoever can write there is
the user. Without ``--days`` it is good for one day. With ``--daemon ID`` it is that daemon's, for the daemon
routes alone.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from daemon_core.hub.access_tokens import add
from daemon_core.hub.clock import SystemClock
from daemon_core.hub.store import Store


async def mint(database: Path, days: int, daemon_id: str | None) -> str:
    """A new token in an existing database.

    Raises:
        StorageError: it cannot be opened or written.
    """
    store = Store(database, SystemClock(), lambda tx: None)
    await store.open()
    try:
        token, _row = await store.write(lambda tx: add(tx, "made by hand", days=days, daemon_id=daemon_id))
        return token
    finally:
        await store.close()


def main(arguments: list[str] | None = None) -> int:
    """Print a token; 1 where there is no database."""
    parser = argparse.ArgumentParser(prog="python -m daemon_core.hub.mint", description="A token for a hub.")
    parser.add_argument("database", type=Path, help="the hub's database, hub.db in Ostler's data directory")
    parser.add_argument("--days", type=int, default=1, help="how long it is good for (default: 1)")
    parser.add_argument("--daemon", metavar="ID", help="make it the token of one daemon")
    given = parser.parse_args(arguments)
    if not given.database.is_file():
        sys.stderr.write(f"There is no file {given.database}.\n")
        return 1
    sys.stdout.write(asyncio.run(mint(given.database, max(given.days, 1), given.daemon)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
