"""The protocol over HTTP: every route of the hub.

Who may ask what is in :mod:`daemon_core.hub.answering`. All bodies are JSON (but for uploads and downloads),
a refusal is ``{"error": text}``. ``{issue}`` is an id or a key (``LOC-12``); lists are bare arrays unless a
member is named. Which workspace is meant is in ``answering``, too.

For daemons (``mul_``, ``mdt_``), :mod:`~daemon_core.hub.daemon_routes`, below ``/api/daemon``::

    POST register, deregister, heartbeat        GET ws                          GET workspaces (ETag)
    GET  workspaces/{ws}/repos                  GET workspaces/{ws}/runtime-profiles
    POST tasks/claim, claim (batches)           POST runtimes/{rid}/tasks/claim
    GET  runtimes/{rid}/tasks/pending           POST runtimes/{rid}/recover-orphans
    POST runtimes/{rid}/tasks/{tid}/prepare-lease, …/skill-bundles/resolve
    POST tasks/{tid}/start, wait-local-directory, progress, messages, session, usage, complete, fail,
         cancel-ack
    GET  tasks/{tid}/status, messages?since=, gc-check
    GET  issues/{id}/gc-check, chat-sessions/{id}/gc-check, autopilot-runs/{id}/gc-check
    POST workspaces/{ws}/issues/gc-check
    POST runtimes/{rid}/update/{req}/result, models/{req}/result, local-skills/{req}/result,
         local-skills/import/{req}/result       (:mod:`~daemon_core.hub.runtime_routes`)

For people and agents (``mul_``, ``mat_``), below ``/api``; * is for people alone::

    GET  issues?status,priority,assignee_id,project_id,limit,offset      -> {issues, total}
    GET  issues/search?q,include_closed,limit                            -> {issues, total}
    POST issues {title, description, status, priority, parent_issue_id, project_id, stage, start_date,
                 due_date, assignee_type, assignee_id, handoff_note, allow_duplicate, origin_type,
                 attachment_ids}                                         -> 201
    POST issues/quick-create {prompt, agent_id | squad_id, …}            -> 202 {task_id}
    GET, PUT, DELETE* issues/{issue}            GET issues/{issue}/children -> {issues, total}
    GET  issues/{issue}/comments?since,thread,tail,recent,before,before_id,roots_only,summary,fold
    POST issues/{issue}/comments {content, parent_id, attachment_ids}    -> 201
    PUT, DELETE comments/{id}                   POST, DELETE comments/{id}/resolve
    GET  issues/{issue}/metadata -> {metadata}  PUT {value}, DELETE issues/{issue}/metadata/{key}
    POST issues/{issue}/squad-evaluated {outcome, reason}
    GET  issues/{issue}/task-runs, attachments  POST issues/{issue}/rerun {task_id} -> 202
    POST issues/{issue}/tasks/{tid}/cancel, tasks/{tid}/cancel           GET tasks/{tid}/messages?since=
    GET  chat/history?limit,before, chat/thread (agents alone)           -> {messages, next_cursor}
    GET*, POST* chat/sessions                   GET*, PATCH*, DELETE* chat/sessions/{id}
    GET*, POST* chat/sessions/{id}/messages     GET* chat/sessions/{id}/pending-task
    POST upload-file (multipart: file, issue_id, comment_id, chat_session_id)
    GET, DELETE attachments/{id}                GET attachments/{id}/content (or its signed download_url)
    GET, POST projects -> {projects}            GET, PUT, DELETE* projects/{id}
    GET  projects/{id}/resources -> {resources} POST*, DELETE* projects/{id}/resources[/{id}]
    GET, POST* squads                           GET, PUT*, DELETE* squads/{id}, …/members
    GET, POST* autopilots -> {autopilots}       GET, PATCH*, DELETE* autopilots/{id}
    GET  autopilots/{id}/runs -> {runs}         POST* autopilots/{id}/trigger {source, payload}
    GET, POST* agents                           GET, PUT* agents/{id}           PUT* agents/{id}/skills
    GET, POST* skills                           GET, PUT*, DELETE* skills/{id}
    GET, POST* workspaces                       GET, PATCH, DELETE* workspaces/{ws} (agents: more repos alone)
    GET  workspaces/{ws}/members                GET, POST*, PATCH*, DELETE* workspaces/{ws}/runtime-profiles
    GET* runtimes                               DELETE* runtimes/{rid}
    POST*, GET* runtimes/{rid}/update, models, local-skills, local-skills/import [/{req}]
    POST tokens/current/renew                   GET*, POST*, DELETE* tokens     GET* inbox
"""

from __future__ import annotations

from aiohttp import web

from daemon_core.hub.answering import Api, for_daemon, for_member
from daemon_core.hub.chat_routes import ChatApi
from daemon_core.hub.daemon_routes import DaemonApi
from daemon_core.hub.errors import RefusedError
from daemon_core.hub.hub import Hub
from daemon_core.hub.issue_routes import IssueApi
from daemon_core.hub.runtime_routes import RuntimeApi
from daemon_core.hub.workspace_routes import WorkspaceApi


def routes(hub: Hub) -> list[web.RouteDef]:
    """The routes of a hub, ``/api/…``, for the application that carries it. They bring their own auth."""
    nothing = _Nothing(hub)
    return [
        *DaemonApi(hub).routes(),
        *RuntimeApi(hub).routes(),
        *WorkspaceApi(hub).routes(),
        *IssueApi(hub).routes(),
        *ChatApi(hub).routes(),
        web.route("*", "/api/daemon/{rest:.*}", nothing.for_daemons),
        web.route("*", "/api/{rest:.*}", nothing.for_members),
    ]


class _Nothing(Api):
    """What is said to a route that is not there: nothing to strangers, not even that."""

    @for_daemon()
    async def for_daemons(self, request: web.Request) -> web.StreamResponse:
        raise RefusedError(404, "not found")

    @for_member()
    async def for_members(self, request: web.Request) -> web.StreamResponse:
        raise RefusedError(404, "not found")
