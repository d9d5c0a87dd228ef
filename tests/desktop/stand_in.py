"""A daemon of another version: it speaks the control API as far as a desktop needs it to see that.

``python -m tests.desktop.stand_in HOME OLDEST NEWEST``: it holds the lock, says that it speaks these versions
of the API, and answers ``stop`` by ending. ``garbage`` in place of the versions: it has no lock, and what it
says nobody understands.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import msgspec
from aiohttp import web

from daemon_core.control.views import DaemonStatus, Snapshot, StopAnswer
from daemon_core.settings.directories import resolve
from daemon_core.settings.lock import DaemonLock


def main() -> None:
    home, *api = sys.argv[1:]
    directories = resolve({"OSTLER_HOME": home, "HOME": home}, None)
    directories.ensure()
    path = str(directories.checked_socket())
    app = web.Application()

    async def snapshot(_request: web.Request) -> web.Response:
        status = DaemonStatus(
            status="running", version="9.9.9", pid=os.getpid(), api=(int(api[0]), int(api[1]))
        )
        return answer(Snapshot(revision=1, status=status))

    async def stop(_request: web.Request) -> web.Response:
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
        return answer(StopAnswer(pid=os.getpid()))

    async def nonsense(_request: web.Request) -> web.Response:
        return web.Response(text="<h1>It works!</h1>", content_type="text/html")

    def answer(value: object) -> web.Response:
        return web.Response(body=msgspec.json.encode(value), content_type="application/json")

    if api == ["garbage"]:
        app.router.add_route("*", "/{path:.*}", nonsense)
        web.run_app(app, path=path, print=None)
        return
    app.router.add_get("/v1/snapshot", snapshot)
    app.router.add_post("/v1/daemon/stop", stop)
    with DaemonLock.acquire(directories.lock_file):
        web.run_app(app, path=path, print=None)


if __name__ == "__main__":
    main()
