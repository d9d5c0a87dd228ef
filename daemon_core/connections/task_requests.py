"""Requests at a server on behalf of one task, with the task's own token and never with the daemon's."""

from __future__ import annotations

import os
from typing import Any, Final

import aiohttp
import msgspec

from daemon_core.protocol.verbs import Request
from daemon_core.settings.proxies import proxy_for

TIMEOUT_S: Final = 30.0
ANSWER_LIMIT_BYTES: Final = 8 * 1024 * 1024


class TaskRequestError(Exception):
    """A request that was refused or not answered; the text says how. ``status`` 0: there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class TaskIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """For whom is asked."""

    base_url: str
    token: str
    workspace_id: str
    agent_id: str
    task_id: str


async def ask_as_task(identity: TaskIdentity, request: Request) -> Any:
    """The decoded answer; None where it is empty. Raises ``TaskRequestError``. Safe to cancel."""
    headers = {
        "Authorization": f"Bearer {identity.token}",
        "X-Client-Platform": "cli",
        "X-Workspace-ID": identity.workspace_id,
        "X-Agent-ID": identity.agent_id,
        "X-Task-ID": identity.task_id,
    }
    data = None
    if request.body is not None:
        data = msgspec.json.encode(request.body)
        headers["Content-Type"] = "application/json"
    # One connection for one request: tools are called seldom, and an idle pool would have to be looked after.
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(
                request.method,
                identity.base_url + request.path,
                data=data,
                headers={name: value for name, value in headers.items() if value},
                allow_redirects=False,
                proxy=proxy_for(identity.base_url, os.environ),
            ) as answer,
        ):
            said = await answer.content.read(ANSWER_LIMIT_BYTES + 1)
            while len(said) <= ANSWER_LIMIT_BYTES and (more := await answer.content.read(ANSWER_LIMIT_BYTES)):
                said += more
            status = answer.status
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        why = str(error) or type(error).__name__
        raise TaskRequestError(f"the server does not answer: {why}") from error
    if len(said) > ANSWER_LIMIT_BYTES:
        raise TaskRequestError("the server's answer is too large to take", status)
    if status >= 300:
        raise TaskRequestError(f"the server answered {status}: {_reason(said)}", status)
    if not said.strip():
        return None
    try:
        return msgspec.json.decode(said)
    except ValueError as error:
        raise TaskRequestError("the server's answer cannot be read", status) from error


def _reason(said: bytes) -> str:
    try:
        found = msgspec.json.decode(said)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "no reason was given"
    text = found.get("error") if isinstance(found, dict) else None
    return " ".join(text.split())[:600] if isinstance(text, str) and text.strip() else "no reason was given"
