"""What servers ask of a runtime in the answer to a heartbeat, and how the results get back.

Each action is a task of its own: a slow one delays neither beats nor other actions. One that is told twice
(over the link and over HTTP, or alone and in a list) is done once. A result is reported up to four times; a
refusal of the server ends that.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from daemon_core.connections.client import ActionRoute
from daemon_core.connections.connection import Connection
from daemon_core.connections.timing import RESULT_RETRIES_S
from daemon_core.protocol import errors, wire
from daemon_core.runtimes import local_skills
from daemon_core.runtimes.registration import RegisteredRuntime

log = logging.getLogger(__name__)

ACTIONS_LIMIT: Final = 64
"""Actions under way on one connection; further ones are left to time out at the server."""
MODELS_LIMIT_S: Final = 55.0
"""A server waits for 60 s."""
_REMEMBERED: Final = 256
DISK_AT_ONCE: Final = 2
"""Actions that read from the disk, over all connections: a home on a dead network drive would otherwise take
all threads of the daemon."""

ActionKind = Literal["update", "model_list", "local_skills", "local_skill_import"]
_ROUTES: Final[dict[ActionKind, ActionRoute]] = {
    "update": "update",
    "model_list": "models",
    "local_skills": "local-skills",
    "local_skill_import": "local-skills/import",
}


@dataclass(frozen=True, slots=True)
class PendingAction:
    """Something a server asks of a runtime. ``argument`` is the version or the skill key, if there is one."""

    kind: ActionKind
    runtime_id: str
    request_id: str
    argument: str = ""


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The models of an agent; ``models`` are as the wire has them. ``error``: they could not be had."""

    models: list[dict[str, Any]] = []
    supported: bool = True
    error: str = ""


ActionHandler = Callable[[PendingAction], Awaitable[dict[str, Any] | None]]
"""Does an action and returns the JSON object to report; None reports nothing."""
ModelLister = Callable[[RegisteredRuntime], Awaitable[ModelAnswer]]


def actions_of(runtime_id: str, answer: wire.HeartbeatResponse) -> list[PendingAction]:
    """What an answer asks for. The single import repeats the first of the list and is then ignored."""
    actions: list[PendingAction] = []
    if (update := answer.pending_update) is not None:
        actions.append(PendingAction("update", runtime_id, update.id, update.target_version))
    if (models := answer.pending_model_list) is not None:
        actions.append(PendingAction("model_list", runtime_id, models.id))
    if (skills := answer.pending_local_skills) is not None:
        actions.append(PendingAction("local_skills", runtime_id, skills.id))
    imports = answer.pending_local_skill_imports or []
    if not imports and answer.pending_local_skill_import is not None:
        imports = [answer.pending_local_skill_import]
    actions += [PendingAction("local_skill_import", runtime_id, item.id, item.skill_key) for item in imports]
    return actions


async def refuse_action(action: PendingAction) -> dict[str, Any]:
    """The answer where an action cannot be done here."""
    match action.kind:
        case "update":
            wanted = f" to {action.argument}" if action.argument else ""
            text = (
                f"This daemon is Ostler. It keeps itself up to date and cannot be updated{wanted} from here."
            )
            return {"status": "failed", "error": text}
        case "model_list":
            text = "This daemon cannot list the models of its agents."
            return {"status": "failed", "models": [], "supported": False, "error": text}
        case "local_skills":
            return {"status": "completed", "skills": [], "supported": False}
        case "local_skill_import":
            return {"status": "failed", "error": "This daemon cannot import local skills."}


class RuntimeActions:
    """Does the actions of one connection's runtimes. An instance is an :data:`ActionHandler`.

    Args:
        runtime: the registered runtime of an id, or None.
        environ: the daemon's environment, for the user's home.
        skill_places: where a provider (by name) looks for its user's skills, best first; empty: nowhere.
        models: lists the models of a runtime; None: nobody can.
        disk: bounds what reads from the disk at once; the same for all connections.
        update: has this machine updated; None: it is refused in words.
    """

    def __init__(
        self,
        runtime: Callable[[str], RegisteredRuntime | None],
        environ: Mapping[str, str],
        skill_places: Callable[[str], Sequence[str]],
        models: ModelLister | None = None,
        *,
        disk: asyncio.Semaphore,
        update: ActionHandler | None = None,
    ) -> None:
        self._runtime = runtime
        self._update = update or refuse_action
        self._environ = environ
        self._skill_places = skill_places
        self._models = models
        self._disk = disk

    async def __call__(self, action: PendingAction) -> dict[str, Any] | None:
        runtime = self._runtime(action.runtime_id)
        if action.kind == "update":
            return await self._update(action)
        if runtime is None:
            return None  # gone meanwhile, and whoever asked sees that it is offline
        match action.kind:
            case "model_list":
                return await self._list_models(action, runtime)
            case "local_skills":
                return await self._list_skills(runtime.provider)
            case "local_skill_import":
                return await self._import(runtime.provider, action.argument)

    async def _list_models(self, action: PendingAction, runtime: RegisteredRuntime) -> dict[str, Any]:
        if self._models is None:
            return await refuse_action(action)
        try:
            async with asyncio.timeout(MODELS_LIMIT_S):
                found = await self._models(runtime)
        except TimeoutError:
            found = ModelAnswer(error="The agent did not tell its models in time.")
        answer: dict[str, Any] = {
            "status": "failed" if found.error else "completed",
            "models": found.models,
            "supported": found.supported,
        }
        if found.error:
            answer["error"] = found.error
        return answer

    async def _list_skills(self, provider: str) -> dict[str, Any]:
        places = self._skill_places(provider)
        async with self._disk:
            found = await asyncio.to_thread(local_skills.list_skills, provider, places, self._environ)
        return {"status": "completed", "skills": found or [], "supported": found is not None}

    async def _import(self, provider: str, key: str) -> dict[str, Any]:
        places = self._skill_places(provider)
        try:
            async with self._disk:
                skill = await asyncio.to_thread(local_skills.bundle, provider, places, key, self._environ)
        except local_skills.LocalSkillError as error:
            return {"status": "failed", "error": str(error)}
        return {"status": "completed", "skill": skill}


class ActionDesk:
    """Takes the actions of one connection's beats, has them done and reports their results."""

    def __init__(self, connection: Connection, act: ActionHandler) -> None:
        self._connection = connection
        self._act = act
        self._seen: collections.OrderedDict[str, None] = collections.OrderedDict()
        """Actions taken on lately, so that one that is told twice is done once."""
        self._acting = 0

    def take(self, group: asyncio.TaskGroup, runtime_id: str, answer: wire.HeartbeatResponse) -> None:
        """Begin what an answer asks for, as tasks of ``group``."""
        for action in actions_of(runtime_id, answer):
            if action.request_id in self._seen:
                continue
            if self._acting >= ACTIONS_LIMIT:
                log.warning("%s: too many actions at once", self._connection.name)
                return
            self._seen[action.request_id] = None
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            self._acting += 1
            group.create_task(self._do(action), name=f"{action.kind} {action.request_id}")

    async def _do(self, action: PendingAction) -> None:
        try:
            try:
                result = await self._act(action)
                msgspec.json.encode(result)  # what cannot be sent is to fail here
            except Exception:  # the boundary of an action: whatever it is, the server is told
                log.exception("%s: %s failed", self._connection.name, action.kind)
                result = {"status": "failed", "error": "This failed inside the daemon; its log has more."}
            if result is not None:
                await report_result(self._connection, action, result)
        finally:
            self._acting -= 1


async def report_result(connection: Connection, action: PendingAction, result: dict[str, Any]) -> bool:
    """Tell a server what became of an action: attempts after 0, 0.5, 2 and 4 s; any 4xx ends them.

    Returns:
        Whether the server has heard it, or does not want to.
    """
    for pause_s in RESULT_RETRIES_S:
        if pause_s:
            await asyncio.sleep(pause_s)
        try:
            await connection.client.report_action(
                action.runtime_id, _ROUTES[action.kind], action.request_id, result
            )
        except errors.ServerError as error:
            log.info("%s: result of %s: %s", connection.name, action.kind, error)
            if 400 <= error.status < 500:
                connection.report(error)
                return True
        else:
            return True
    return False
