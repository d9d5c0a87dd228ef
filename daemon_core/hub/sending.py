"""A task's transcript as an answer."""

from __future__ import annotations

import msgspec
from aiohttp import web

from daemon_core.hub import transcripts
from daemon_core.hub.answering import answer
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.hub import Hub


async def send_messages(hub: Hub, request: web.Request, task_id: str) -> web.StreamResponse:
    """The lines after ``since`` as one array, sent page by page so that memory stays flat."""
    since = request.query.get("since", "") or "0"
    if not since.isdecimal() or len(since) > 18:
        raise RefusedError(400, "invalid since parameter")
    after = int(since)
    page = await hub.messages(task_id, after, transcripts.PAGE)
    if len(page) < transcripts.PAGE:
        return answer(page)
    response = web.StreamResponse()
    response.content_type = "application/json"
    await response.prepare(request)
    opening = b"["
    while page:
        await response.write(opening + msgspec.json.encode(page)[1:-1])
        opening = b","
        page = await hub.messages(task_id, page[-1].seq, transcripts.PAGE)
    await response.write(b"]")
    await response.write_eof()
    return response
