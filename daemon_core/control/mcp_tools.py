"""The tools that agents get over MCP: what the command line does inside a task, as one table more.

Verbs of the task's server come from ``protocol.verbs``; a repository is checked out by the same code as
``ostler repo checkout`` uses. Tools for jobs and delegation are sources of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from daemon_core.connections.task_requests import TaskIdentity, TaskRequestError, ask_as_task
from daemon_core.control.mcp import Tool, ToolError
from daemon_core.protocol.verbs import VERBS, Verb, VerbError, request_of, schema_of
from daemon_core.tasks.prompts import kind_of
from daemon_core.workdirs.repository_errors import RepositoryError

if TYPE_CHECKING:
    from daemon_core.tasks.engine import Engine
    from daemon_core.tasks.life import TaskLife

_CHECKOUT_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "description": "Address of the repository."},
        "ref": {"type": "string", "description": "Branch, tag or commit; otherwise the default branch."},
    },
    "required": ["url"],
    "additionalProperties": False,
}


class VerbTools:
    """What a task can do at its server: issues, comments, projects, chats."""

    def tools_of(self, life: TaskLife) -> Sequence[Tool]:
        if life.claim is None:
            return ()
        kind = kind_of(life.claim)
        if life.connection.timing.loopback and kind == "chat":
            return ()  # a conversation on this machine: there is nothing at the server but itself
        wanted = [verb for verb in VERBS if _is_of(verb, kind)]
        return [
            Tool(
                name=verb.tool,
                description=verb.help,
                schema=schema_of(verb),
                call=_caller(life, verb),
                read_only=verb.safe,
            )
            for verb in wanted
        ]


def _is_of(verb: Verb, kind: str) -> bool:
    """Whether a verb is of use for a kind of task: fewer tools are easier to choose from."""
    if kind == "quick_create":
        return verb.name in (("issue", "create"), ("issue", "get"), ("issue", "search")) or (
            verb.name[0] == "workspace"
        )
    return verb.name[0] != "chat" or kind == "chat"


def _caller(life: TaskLife, verb: Verb) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    async def call(given: dict[str, Any]) -> Any:
        claim = life.claim
        if claim is None:
            raise ToolError("the task is over")
        implied: dict[str, Any] = {"workspace": claim.workspace_id}
        if claim.quick_create_prompt:
            implied |= {
                "origin_type": "quick_create",
                "origin_id": claim.id,
                "attachment": claim.quick_create_attachment_ids or [],
            }
        try:
            request = request_of(verb, given, implied)
            identity = TaskIdentity(
                base_url=life.connection.client.base_url,
                token=claim.auth_token.strip(),
                workspace_id=claim.workspace_id,
                agent_id=claim.agent_id,
                task_id=claim.id,
            )
            found = await ask_as_task(identity, request)
        except (VerbError, TaskRequestError) as error:
            raise ToolError(str(error)) from error
        return "Done." if found is None else found

    return call


class CheckoutTool:
    """A repository in the task's directory."""

    def __init__(self, engine: Callable[[], Engine | None]) -> None:
        self._engine = engine

    def tools_of(self, life: TaskLife) -> Sequence[Tool]:
        async def call(given: dict[str, Any]) -> Any:
            return await self._checkout(life, given)

        return [
            Tool(
                name="repo_checkout",
                description=(
                    "Get a repository as a work tree on a branch of its own, below the task's directory."
                ),
                schema=_CHECKOUT_SCHEMA,
                call=call,
            )
        ]

    async def _checkout(self, life: TaskLife, given: dict[str, Any]) -> dict[str, Any]:
        engine, url, ref = self._engine(), given.get("url"), given.get("ref") or ""
        if not isinstance(url, str) or not url.strip() or not isinstance(ref, str):
            raise ToolError("url has to be the address of a repository, ref a text")
        if engine is None or engine.repositories is None or life.claim is None:
            raise ToolError("repositories cannot be checked out now")
        name = life.claim.agent.name if life.claim.agent is not None else ""
        try:
            done = await engine.repositories.checkout(
                life, life.claim, url.strip(), ref.strip(), Path(life.record.work_dir), agent_name=name
            )
        except RepositoryError as error:
            raise ToolError(str(error)) from error
        except OSError as error:
            raise ToolError(f"the work tree cannot be written: {error.strerror}") from error
        return {
            "path": str(done.path),
            "branch": done.branch,
            "commit": done.commit,
            "notices": [notice.message for notice in done.notices],
        }
