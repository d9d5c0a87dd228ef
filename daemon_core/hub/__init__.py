"""The embedded server: the server side of the daemon protocol, on SQLite, in the daemon's own process.

It owns the machine's own workspace, and others that may be made beside it: conversations and their turns
(tasks), named agents, registered runtimes, task tokens and transcripts. It offers :class:`Hub`, whose async
methods are for the rooms that share its process, and :func:`routes`, the protocol over HTTP and websocket,
for the daemon's client like for any other. It knows ``daemon_core.protocol`` and nobody else; who runs the
tasks, and how, is none of its business.
"""

from daemon_core.hub.clock import Clock, SystemClock
from daemon_core.hub.errors import ConflictError, HubError, InvalidInputError, NotFoundError, StorageError
from daemon_core.hub.hub import Hub
from daemon_core.hub.limits import Limits
from daemon_core.hub.routes import routes
from daemon_core.hub.store import DamageReport
from daemon_core.hub.views import (
    AgentChanges,
    AgentSpec,
    AgentView,
    ChatMessage,
    Conversation,
    DeletedConversation,
    HubChange,
    HubRuntime,
    HubTask,
    NewTask,
)

__all__ = [
    "AgentChanges",
    "AgentSpec",
    "AgentView",
    "ChatMessage",
    "Clock",
    "ConflictError",
    "Conversation",
    "DamageReport",
    "DeletedConversation",
    "Hub",
    "HubChange",
    "HubError",
    "HubRuntime",
    "HubTask",
    "InvalidInputError",
    "Limits",
    "NewTask",
    "NotFoundError",
    "StorageError",
    "SystemClock",
    "routes",
]
