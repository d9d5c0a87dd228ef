"""The table of ``/v1``: the server is built from it and the OpenAPI file is written from it."""

from __future__ import annotations

from typing import Final

from daemon_core.control import views
from daemon_core.control.connection_routes import CONNECTION_ROUTES
from daemon_core.control.delegation_routes import DELEGATION_ROUTES
from daemon_core.control.history_desk import HISTORY_ROUTES
from daemon_core.control.job_routes import JOB_ROUTES
from daemon_core.control.models_desk import MODEL_ROUTES
from daemon_core.control.requests_desk import REQUEST_ROUTES
from daemon_core.control.resident_routes import RESIDENT_ROUTES
from daemon_core.control.route import Query, Route
from daemon_core.control.runtime_routes import RUNTIME_ROUTES
from daemon_core.control.settings_desk import SETTINGS_ROUTES
from daemon_core.control.spend_desk import SPEND_ROUTES
from daemon_core.control.stats_desk import STATS_ROUTES
from daemon_core.control.turns_desk import TURN_ROUTES
from daemon_core.control.update_routes import UPDATE_ROUTES

__all__ = ["ROUTES", "Query", "Route"]

_ID: Final = ("not_found", "ambiguous_id", "invalid_input")
_ADD: Final = (
    "invalid_input",
    "unknown_runtime",
    "runtime_unusable",
    "no_agent",
    "no_such_agent",
    "directory_not_found",
    "directory_not_a_directory",
    "directory_not_writable",
    "directory_not_readable",
    "directory_protected",
    "directory_not_absolute",
    "repository_refused",
    "hub_disabled",
    "too_large",
    "not_ready",
)

ROUTES: Final[tuple[Route, ...]] = (
    Route("status", "GET", "/v1/status", "What the daemon does. Answers at any time.", views.DaemonStatus),
    Route("snapshot", "GET", "/v1/snapshot", "The whole state at one revision.", views.Snapshot),
    Route(
        "events",
        "GET",
        "/v1/events",
        "Changes after a revision, as server-sent events; `Last-Event-ID` works like `since`.",
        views.ChangeEvent,
        query=(Query("since", "Revision known already; left out: from now on.", "integer"),),
        stream="events",
    ),
    Route(
        "runtimes",
        "GET",
        "/v1/runtimes",
        "All agents found, the unusable ones with their reason.",
        list[views.RuntimeView],
        query=(Query("refresh", "Look for agents again first.", "boolean"),),
    ),
    Route(
        "add_task",
        "POST",
        "/v1/tasks",
        "Start a conversation.",
        views.TaskView,
        views.TaskAdd,
        refusals=_ADD,
        status=201,
    ),
    Route(
        "list_tasks",
        "GET",
        "/v1/tasks",
        "Tasks, newest first.",
        list[views.TaskRow],
        query=(Query("all", "Also those that ended long ago.", "boolean"),),
    ),
    Route("get_task", "GET", "/v1/tasks/{id}", "One task.", views.TaskView, refusals=_ID),
    Route(
        "delete_task",
        "DELETE",
        "/v1/tasks/{id}",
        "Delete the task's conversation and its own directory, never the user's.",
        views.Deleted,
        refusals=(*_ID, "conflict"),
    ),
    Route(
        "reply",
        "POST",
        "/v1/tasks/{id}/reply",
        "Continue the conversation in the same directory.",
        views.TaskView,
        views.TaskReply,
        refusals=(*_ID, "conflict", "runtime_unusable", "too_large"),
        status=201,
    ),
    Route(
        "cancel",
        "POST",
        "/v1/tasks/{id}/cancel",
        "End the task.",
        views.TaskView,
        refusals=(*_ID, "conflict"),
    ),
    Route(
        "retry",
        "POST",
        "/v1/tasks/{id}/retry",
        "Do an ended task again, as a new one.",
        views.TaskView,
        refusals=(*_ID, "conflict"),
        status=201,
    ),
    Route(
        "transcript",
        "GET",
        "/v1/tasks/{id}/transcript",
        "The transcript, one JSON object a line.",
        views.TranscriptLine,
        query=(
            Query("after", "Only lines with a greater seq.", "integer"),
            Query("follow", "Go on until the task has ended.", "boolean"),
        ),
        stream="lines",
        refusals=_ID,
    ),
    Route(
        "task_changes",
        "GET",
        "/v1/tasks/{id}/changes",
        "What the task changed in its directory; of a running one, so far.",
        views.TaskChanges,
        query=(Query("stat", "Leave the diffs out.", "boolean"),),
        refusals=_ID,
    ),
    Route("disk", "GET", "/v1/disk", "What is used by what, and why it is kept.", views.DiskReport),
    Route(
        "clean_disk",
        "POST",
        "/v1/disk/clean",
        "Remove now what may go.",
        views.CleanRound,
        views.CleanRequest,
        guarded=True,
    ),
    Route("agents", "GET", "/v1/agents", "The named agents.", list[views.AgentView]),
    Route(
        "add_agent",
        "POST",
        "/v1/agents",
        "Add a named agent.",
        views.AgentView,
        views.AgentAdd,
        guarded=True,
        refusals=("invalid_input", "agent_exists", "unknown_runtime"),
        status=201,
    ),
    Route(
        "get_agent",
        "GET",
        "/v1/agents/{name}",
        "One agent, by name or id.",
        views.AgentView,
        refusals=("no_such_agent",),
    ),
    Route(
        "edit_agent",
        "PATCH",
        "/v1/agents/{name}",
        "Change an agent; fields left out stay.",
        views.AgentView,
        views.AgentEdit,
        guarded=True,
        refusals=("no_such_agent", "agent_exists", "invalid_input", "unknown_runtime"),
    ),
    Route(
        "remove_agent",
        "DELETE",
        "/v1/agents/{name}",
        "Remove an agent.",
        views.AgentView,
        guarded=True,
        refusals=("no_such_agent", "busy"),
    ),
    Route(
        "pause",
        "POST",
        "/v1/daemon/pause",
        "Take no tasks until a time, or until `resume`.",
        views.DaemonStatus,
        views.Pause,
        guarded=True,
        refusals=("invalid_input",),
    ),
    Route(
        "resume",
        "POST",
        "/v1/daemon/resume",
        "Take tasks again.",
        views.DaemonStatus,
        guarded=True,
        refusals=("barrier_up",),
    ),
    Route(
        "stop",
        "POST",
        "/v1/daemon/stop",
        "Stop the daemon; runs go on unless they are to end too.",
        views.StopAnswer,
        views.Stop,
        guarded=True,
        status=202,
    ),
    Route(
        "reload_settings",
        "POST",
        "/v1/settings/reload",
        "Read the settings file again.",
        views.ReloadAnswer,
        guarded=True,
        refusals=("settings_invalid",),
    ),
    *CONNECTION_ROUTES,
    *DELEGATION_ROUTES,
    *HISTORY_ROUTES,
    *JOB_ROUTES,
    *MODEL_ROUTES,
    *REQUEST_ROUTES,
    *RESIDENT_ROUTES,
    *RUNTIME_ROUTES,
    *SETTINGS_ROUTES,
    *SPEND_ROUTES,
    *STATS_ROUTES,
    *TURN_ROUTES,
    *UPDATE_ROUTES,
)
