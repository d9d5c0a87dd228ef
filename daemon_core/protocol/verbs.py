"""What an agent can do at its server, as data: one table for the command line and for MCP tools.

A verb is one request with the task's own token (``mat_…``). Its parameters are named once; the command line
makes arguments and options of them, the MCP endpoint a JSON schema. Files (attachments) and repositories are
more than one request and are not here. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

import msgspec

Place = Literal["path", "query", "body"]
Kind = Literal["text", "integer", "flag", "list"]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a verb is told."""

    name: str
    """As in the command line's option, with underscores."""
    help: str
    place: Place = "body"
    wire: str = ""
    """Name on the wire, where it is another one."""
    kind: Kind = "text"
    required: bool = False
    positional: bool = False
    """On the command line: an argument, not an option."""
    choices: tuple[str, ...] = ()
    long: bool = False
    """A text that may be long: the command line takes it from a file, too."""
    implied: bool = False
    """Filled in from the task that asks (``implied`` of ``request_of``), never asked for."""

    @property
    def wire_name(self) -> str:
        return self.wire or self.name


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """One request that a task may make at its server.

    Attributes:
        name: Words of the command line below ``ostler``.
        path: With ``{name}`` for the parameters that belong into it.
        rows: Where the answer is (or holds) a list: the columns that people are shown.
        key: Member of the answer that holds that list, where it is not the answer itself.
        constant: Sent in every body.
        least: How many of the body's parameters have to be given at least.
    """

    name: tuple[str, ...]
    help: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    parameters: tuple[Parameter, ...] = ()
    rows: tuple[str, ...] = ()
    key: str = ""
    constant: dict[str, Any] = {}
    least: int = 0

    @property
    def tool(self) -> str:
        """Name as an MCP tool."""
        return "_".join(self.name).replace("-", "_")

    @property
    def safe(self) -> bool:
        """Whether asking twice does no harm."""
        return self.method == "GET"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What goes over the wire. ``body`` None: none."""

    method: str
    path: str
    body: dict[str, Any] | None = None


class VerbError(ValueError):
    """A verb was told too little or something that it does not know. Says what, for people."""


def request_of(verb: Verb, values: Mapping[str, Any], implied: Mapping[str, Any] | None = None) -> Request:
    """The request for a verb with these parameters; None and empty values count as not given.

    Args:
        implied: What the task itself says: ``workspace``; for a quick-create task ``origin_type``,
            ``origin_id`` and ``attachment``.

    Raises ``VerbError``.
    """
    known = {parameter.name for parameter in verb.parameters if not parameter.implied}
    if unknown := sorted(set(values) - known):
        raise VerbError(f"{verb.tool} does not know {', '.join(unknown)}")
    places: dict[Place, dict[str, Any]] = {"path": {}, "query": {}, "body": {}}
    for parameter in verb.parameters:
        value = values.get(parameter.name)
        if _is_absent(value):
            value = (implied or {}).get(parameter.name)
        if _is_absent(value) or (parameter.kind == "flag" and value is False):
            if parameter.required:
                raise VerbError(f"{parameter.name} is missing")
            continue
        places[parameter.place][parameter.wire_name] = _checked(parameter, value)
    path = verb.path.format_map({name: quote(str(each), safe="") for name, each in places["path"].items()})
    if places["query"]:
        query = [(name, "true" if each is True else str(each)) for name, each in places["query"].items()]
        path += "?" + urlencode(query)
    if verb.least and len(places["body"]) < verb.least:
        raise VerbError("nothing to change was named")
    body = {**verb.constant, **places["body"]} if verb.method not in ("GET", "DELETE") else None
    return Request(method=verb.method, path=path, body=body)


def schema_of(verb: Verb) -> dict[str, Any]:
    """The JSON schema of a verb's parameters."""
    types = {"text": "string", "integer": "integer", "flag": "boolean"}
    properties: dict[str, Any] = {}
    shown = [parameter for parameter in verb.parameters if not parameter.implied]
    for parameter in shown:
        if parameter.kind == "list":
            found: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
        else:
            found = {"type": types[parameter.kind]}
        if parameter.choices:
            found["enum"] = list(parameter.choices)
        properties[parameter.name] = {**found, "description": parameter.help}
    return {
        "type": "object",
        "properties": properties,
        "required": [parameter.name for parameter in shown if parameter.required],
        "additionalProperties": False,
    }


def rows_of(verb: Verb, answer: Any) -> list[dict[str, Any]] | None:
    """The list in an answer, wherever the server has put it; None if there is none."""
    if isinstance(answer, Mapping):
        for name in (verb.key, "items", "data"):
            if name and isinstance(answer.get(name), list):
                return [row for row in answer[name] if isinstance(row, dict)]
        return None
    if isinstance(answer, list):
        return [row for row in answer if isinstance(row, dict)]
    return None


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple) and not value)


def _checked(parameter: Parameter, value: Any) -> Any:
    match parameter.kind:
        case "text":
            if not isinstance(value, str):
                raise VerbError(f"{parameter.name} has to be a text")
            if parameter.choices and value not in parameter.choices:
                raise VerbError(f"{parameter.name} has to be one of {', '.join(parameter.choices)}")
        case "integer":
            if isinstance(value, bool) or not isinstance(value, int):
                raise VerbError(f"{parameter.name} has to be a whole number")
        case "flag":
            if value is not True:
                raise VerbError(f"{parameter.name} has to be true or false")
        case "list":
            if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
                raise VerbError(f"{parameter.name} has to be a list of texts")
            return list(value)
    return value


# --- the table -----------------------------------------------------------------------------------------


def _issue(help_text: str = "The issue: its key (ABC-12) or id.") -> Parameter:
    return Parameter(name="issue", help=help_text, place="path", required=True, positional=True)


def _query(name: str, help_text: str, **more: Any) -> Parameter:
    return Parameter(name=name, help=help_text, place="query", **more)


_WORKSPACE: Final = Parameter(
    name="workspace", place="path", required=True, implied=True, help="Id of the workspace."
)
_TITLE: Final = "One line."
_ASSIGNEE: Final = ("member", "agent", "squad")
_LIMIT: Final = _query("limit", "At most this many.", kind="integer")
_OFFSET: Final = _query("offset", "Leave out this many first.", kind="integer")

_STATUSES: Final = (
    "backlog, todo, in_progress, in_review, blocked, done or cancelled, or the key of one that the workspace"
    " has beside them."
)
_FIELDS: Final = (
    Parameter(name="description", help="Markdown.", long=True),
    Parameter(name="status", help=_STATUSES),
    Parameter(name="priority", help="none, low, medium, high or urgent."),
    Parameter(name="parent", wire="parent_issue_id", help="The issue that this one is a part of."),
    Parameter(name="project", wire="project_id", help="Id of a project."),
    Parameter(name="stage", kind="integer", help="A stage begins when the one before it is done."),
    Parameter(name="start_date", help="As 2026-01-31."),
    Parameter(name="due_date", help="As 2026-01-31."),
    Parameter(name="assignee_type", choices=_ASSIGNEE, help="What the assignee is."),
    Parameter(name="assignee_id", help="Id of the assignee."),
)
_ATTACHED: Final = Parameter(
    name="attachment", wire="attachment_ids", kind="list", help="Id of an uploaded file; may be repeated."
)
_ISSUE_ROWS: Final = ("identifier", "status", "priority", "title")

VERBS: Final[tuple[Verb, ...]] = (
    Verb(name=("issue", "get"), help="Show an issue.", method="GET", path="/api/issues/{issue}",
         parameters=(_issue(),)),
    Verb(name=("issue", "list"), help="List issues.", method="GET", path="/api/issues",
         parameters=(
             _query("status", "Only with this status."),
             _query("priority", "Only with this priority."),
             _query("assignee", "Only of this assignee (id).", wire="assignee_id"),
             _query("project", "Only of this project (id).", wire="project_id"),
             _LIMIT, _OFFSET,
         ), rows=_ISSUE_ROWS, key="issues"),
    Verb(name=("issue", "search"), help="Find issues by their text.", method="GET",
         path="/api/issues/search",
         parameters=(
             _query("text", "What to look for.", wire="q", required=True, positional=True),
             _query("include_closed", "Also what is done or cancelled.", kind="flag"),
             _LIMIT,
         ), rows=_ISSUE_ROWS, key="issues"),
    Verb(name=("issue", "children"), help="List an issue's sub-issues.", method="GET",
         path="/api/issues/{issue}/children", parameters=(_issue(),), rows=_ISSUE_ROWS, key="issues"),
    Verb(name=("issue", "create"), help="Create an issue.", method="POST", path="/api/issues",
         parameters=(
             Parameter(name="title", help=_TITLE, required=True), *_FIELDS, _ATTACHED,
             Parameter(name="allow_duplicate", kind="flag", help="Also if one like it exists."),
             Parameter(name="origin_type", implied=True, help="What it came from."),
             Parameter(name="origin_id", implied=True, help="The task that it came from."),
         )),
    Verb(name=("issue", "update"), help="Change an issue.", method="PUT", path="/api/issues/{issue}",
         parameters=(_issue(), Parameter(name="title", help=_TITLE), *_FIELDS), least=1),
    Verb(name=("issue", "status"), help="Set an issue's status.", method="PUT", path="/api/issues/{issue}",
         parameters=(
             _issue(),
             Parameter(name="status", required=True, positional=True,
                       help=_STATUSES),
         )),
    Verb(name=("issue", "assign"), help="Give an issue to somebody.", method="PUT",
         path="/api/issues/{issue}",
         parameters=(
             _issue(),
             Parameter(name="assignee_type", required=True, choices=_ASSIGNEE, help="What the assignee is."),
             Parameter(name="assignee_id", required=True, positional=True, help="Id of the assignee."),
         )),
    Verb(name=("issue", "runs"), help="List what agents did on an issue.", method="GET",
         path="/api/issues/{issue}/task-runs", parameters=(_issue(),),
         rows=("id", "status", "kind", "created_at"), key="tasks"),
    Verb(name=("issue", "messages"), help="Show the transcript of a run.", method="GET",
         path="/api/tasks/{task}/messages",
         parameters=(
             Parameter(name="task", place="path", required=True, positional=True, help="Id of the run."),
             _query("since", "Only after this number.", kind="integer"),
         ), rows=("seq", "type", "tool", "content"), key="messages"),
    Verb(name=("issue", "cancel"), help="Cancel a run.", method="POST", path="/api/tasks/{task}/cancel",
         parameters=(
             Parameter(name="task", place="path", required=True, positional=True, help="Id of the run."),
         )),
    Verb(name=("issue", "rerun"), help="Let the assignee start again, or the agent of a run.", method="POST",
         path="/api/issues/{issue}/rerun",
         parameters=(
             _issue(),
             Parameter(name="task", wire="task_id", help="Id of the run that is to be done again."),
         )),
    Verb(name=("issue", "comment", "list"), help="Read an issue's comments.", method="GET",
         path="/api/issues/{issue}/comments",
         parameters=(
             _issue(),
             _query("since", "Only newer than this time (RFC 3339)."),
             _query("thread", "Only this thread: id of its first comment."),
             _query("tail", "Of a thread: its first comment and this many of its last.", kind="integer"),
             _query("recent", "The threads with the newest comments, this many.", kind="integer"),
             _query("before", "Threads before this time; from the answer before."),
             _query("before_id", "Goes with --before."),
             _query("roots_only", "Only the first comment of each thread.", kind="flag"),
             _query("summary", "Shortened.", kind="flag"),
             _query("fold", "Settled threads shortened.", kind="flag"),
         ), rows=("id", "author_name", "created_at", "content"), key="comments"),
    Verb(name=("issue", "comment", "add"), help="Write a comment.", method="POST",
         path="/api/issues/{issue}/comments",
         parameters=(
             _issue(),
             Parameter(name="content", required=True, long=True, help="Markdown."),
             Parameter(name="parent", wire="parent_id", help="The comment that this one answers."),
             _ATTACHED,
         )),
    Verb(name=("issue", "comment", "delete"), help="Delete a comment.", method="DELETE",
         path="/api/comments/{comment}",
         parameters=(
             Parameter(name="comment", place="path", required=True, positional=True, help="Id of a comment."),
         )),
    Verb(name=("issue", "comment", "resolve"), help="Mark a thread as settled.", method="POST",
         path="/api/comments/{comment}/resolve",
         parameters=(
             Parameter(name="comment", place="path", required=True, positional=True, help="Id of a comment."),
         )),
    Verb(name=("issue", "comment", "reopen"), help="Mark a thread as not settled.", method="DELETE",
         path="/api/comments/{comment}/resolve",
         parameters=(
             Parameter(name="comment", place="path", required=True, positional=True, help="Id of a comment."),
         )),
    Verb(name=("issue", "metadata", "list"), help="Read an issue's notes.", method="GET",
         path="/api/issues/{issue}/metadata", parameters=(_issue(),)),
    Verb(name=("issue", "metadata", "set"), help="Write a note on an issue.", method="PUT",
         path="/api/issues/{issue}/metadata/{key}",
         parameters=(
             _issue(),
             Parameter(name="key", place="path", required=True, positional=True, help="Name of the note."),
             Parameter(name="value", required=True, positional=True, help="What it says."),
         )),
    Verb(name=("issue", "metadata", "delete"), help="Remove a note from an issue.", method="DELETE",
         path="/api/issues/{issue}/metadata/{key}",
         parameters=(
             _issue(),
             Parameter(name="key", place="path", required=True, positional=True, help="Name of the note."),
         )),
    Verb(name=("squad", "activity"), help="Record what a squad's leader decided.", method="POST",
         path="/api/issues/{issue}/squad-evaluated",
         parameters=(
             _issue(),
             Parameter(name="outcome", required=True, positional=True,
                       choices=("action", "no_action", "failed"), help="What came of it."),
             Parameter(name="reason", help="Why, in a sentence."),
         )),
    Verb(name=("workspace", "show"), help="Show the workspace.", method="GET",
         path="/api/workspaces/{workspace}",
         parameters=(_WORKSPACE,)),
    Verb(name=("workspace", "members"), help="List the workspace's members.", method="GET",
         path="/api/workspaces/{workspace}/members",
         parameters=(_WORKSPACE,),
         rows=("id", "name", "role"), key="members"),
    Verb(name=("workspace", "agents"), help="List the workspace's agents.", method="GET", path="/api/agents",
         rows=("id", "name", "description"), key="agents"),
    Verb(name=("workspace", "squads"), help="List the workspace's squads.", method="GET",
         path="/api/squads", rows=("id", "name", "description"), key="squads"),
    Verb(name=("project", "list"), help="List the workspace's projects.", method="GET",
         path="/api/projects", rows=("id", "status", "title"), key="projects"),
    Verb(name=("project", "show"), help="Show a project.", method="GET", path="/api/projects/{project}",
         parameters=(
             Parameter(name="project", place="path", required=True, positional=True, help="Id of a project."),
         )),
    Verb(name=("project", "resources"), help="List a project's repositories and directories.", method="GET",
         path="/api/projects/{project}/resources",
         parameters=(
             Parameter(name="project", place="path", required=True, positional=True, help="Id of a project."),
         ), rows=("id", "resource_type", "label", "resource_ref"), key="resources"),
    Verb(name=("autopilot", "show"), help="Show an autopilot.", method="GET",
         path="/api/autopilots/{autopilot}",
         parameters=(
             Parameter(name="autopilot", place="path", required=True, positional=True,
                       help="Id of an autopilot."),
         )),
    Verb(name=("chat", "history"), help="Read the chat that this task belongs to.", method="GET",
         path="/api/chat/history",
         parameters=(_query("id", "Id of a chat."), _LIMIT, _query("before", "Only before this time or id.")),
         rows=("id", "role", "created_at", "content"), key="messages"),
    Verb(name=("chat", "thread"), help="Read the thread that this task belongs to.", method="GET",
         path="/api/chat/thread",
         parameters=(
             _query("id", "Id of a thread."), _LIMIT, _query("before", "Only before this time or id."),
         ), rows=("id", "role", "created_at", "content"), key="messages"),
)  # fmt: skip


def verbs_below(*words: str) -> tuple[Verb, ...]:
    """The verbs whose name begins with these words, in order."""
    return tuple(verb for verb in VERBS if verb.name[: len(words)] == words)
