"""What Codex asks of whoever drives it: may it run this, may it change that, what do you say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from daemon_core.agents import events as ev
from daemon_core.agents.codex_items import OUTPUT_LIMIT_BYTES, ident, plain_command, text_of
from daemon_core.agents.lines import cut_output
from daemon_core.agents.rpc import Request, RequestId

TITLE_LIMIT_BYTES: Final = 400
OPTIONS_LIMIT: Final = 32
INPUT_LIMIT_BYTES: Final = 128 * 1024

_COMMAND: Final = ("item/commandExecution/requestApproval", "execCommandApproval")
_CHANGE: Final = ("item/fileChange/requestApproval", "applyPatchApproval")
_OLD: Final = ("execCommandApproval", "applyPatchApproval")
_PERMISSIONS: Final = "item/permissions/requestApproval"
_ELICITATION: Final = "mcpServer/elicitation/request"
_INPUT: Final = "item/tool/requestUserInput"

_DECISIONS: Final[Mapping[str, str]] = {
    "allow": "accept",
    "allow-task": "acceptForSession",
    "deny": "decline",
}
_OLD_DECISIONS: Final[Mapping[str, str]] = {
    "allow": "approved",
    "allow-task": "approved_for_session",
    "deny": "denied",
}


class Asked(msgspec.Struct):
    """A request that is open: what it is for people, and what its answer needs.

    Attributes:
        asked: As events have it.
        id: The request's own.
        permissions: Those asked for.
        fields: The names of what is to be filled in; an answer goes into each.
        kinds: The type of each field.
    """

    asked: ev.PermissionRequest
    id: RequestId
    method: str
    permissions: dict[str, Any] = {}
    fields: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


def understood(request: Request, calls: Mapping[str, str]) -> Asked | None:
    """What is asked, or None for a request that is none of these.

    Args:
        calls: Tools in flight by their id; a request may name one.
    """
    params = request.params
    key = f"{'s' if isinstance(request.id, str) else ''}{request.id}"
    item = ident(params.get("itemId")) or ident(params.get("callId"))
    reason = text_of(params.get("reason"))
    if request.method in _COMMAND:
        found = params.get("command")
        command = plain_command(found) if isinstance(found, str) else _words(found)
        given: dict[str, Any] = {"command": cut_output(command, OUTPUT_LIMIT_BYTES)}
        network = params.get("networkApprovalContext")
        if isinstance(network, dict):
            given["network"] = network
        if isinstance(params.get("cwd"), str):
            given["cwd"] = params["cwd"]
        asked = _request(key, calls.get(item, "exec_command"), given, reason or command)
        return Asked(asked, request.id, request.method)
    if request.method in _CHANGE:
        files = params.get("fileChanges")
        named = sorted(path for path in files if isinstance(path, str)) if isinstance(files, dict) else []
        given = {"files": named[:OPTIONS_LIMIT]} if named else {}
        if isinstance(params.get("grantRoot"), str):
            given["root"] = params["grantRoot"]
        asked = _request(key, calls.get(item, "apply_patch"), given, reason or ", ".join(named))
        return Asked(asked, request.id, request.method)
    if request.method == _PERMISSIONS:
        wanted = _kept(params.get("permissions"))
        asked = _request(key, "request_permissions", {"permissions": wanted}, reason)
        return Asked(asked, request.id, request.method, permissions=wanted)
    if request.method == _ELICITATION:
        return _elicitation(key, request)
    if request.method == _INPUT:
        return _input(key, request)
    return None


def answer_of(asked: Asked, decision: str, text: str) -> Any:
    """The result that answers a request."""
    yes = decision in ("allow", "allow-task")
    if asked.method in _OLD:
        return {"decision": _OLD_DECISIONS.get(decision, "denied")}
    if asked.method == _PERMISSIONS:
        scope = "session" if decision == "allow-task" else "turn"
        return {"permissions": asked.permissions if yes else {}, "scope": scope}
    if asked.method == _INPUT:
        return {"answers": {name: {"answers": [text] if yes and text else []} for name in asked.fields}}
    if asked.method == _ELICITATION:
        content = _content(asked, text) if yes and asked.fields else None
        if not yes or (asked.fields and content is None):
            return {"action": "decline", "content": None, "_meta": None}
        meta = {"persist": "session"} if decision == "allow-task" and not asked.fields else None
        return {"action": "accept", "content": content, "_meta": meta}
    return {"decision": _DECISIONS.get(decision, "decline")}


def _elicitation(key: str, request: Request) -> Asked:
    """An MCP server asks: whether a tool may be used (nothing to fill in), or for something."""
    params = request.params
    server = ident(params.get("serverName"))
    message = text_of(params.get("message")) or text_of(params.get("title"))
    tool = f"mcp__{server}" if server else "mcp"
    schema = params.get("requestedSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    given: dict[str, Any] = {"message": cut_output(message, OUTPUT_LIMIT_BYTES)}
    meta = params.get("_meta")
    if isinstance(meta, dict) and "tool_params" in meta:
        given["arguments"] = meta["tool_params"]
    if isinstance(params.get("url"), str):
        given["url"] = params["url"]
    if not isinstance(properties, dict) or not properties:
        return Asked(_request(key, tool, given, message), request.id, request.method)
    fields = tuple(name for name in properties if isinstance(name, str))[:OPTIONS_LIMIT]
    found = [properties[name] if isinstance(properties[name], dict) else {} for name in fields]
    given["fields"] = {
        name: text_of(each.get("description")) for name, each in zip(fields, found, strict=True)
    }
    options: tuple[str, ...] = ()
    if len(fields) == 1:
        listed = found[0].get("enum")
        if isinstance(listed, list):
            options = tuple(each for each in listed if isinstance(each, str))[:OPTIONS_LIMIT]
        elif found[0].get("type") == "boolean":
            options = ("yes", "no")
    asked = _request(key, tool, given, message, kind="question", options=options)
    kinds = tuple(ident(each.get("type")) for each in found)
    return Asked(asked, request.id, request.method, fields=fields, kinds=kinds)


def _input(key: str, request: Request) -> Asked:
    """The agent itself asks the user."""
    listed = request.params.get("questions")
    questions = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    questions = questions[:OPTIONS_LIMIT]
    texts = [text_of(each.get("question")) for each in questions]
    options: tuple[str, ...] = ()
    if len(questions) == 1 and isinstance(questions[0].get("options"), list):
        offered = [each.get("label") for each in questions[0]["options"] if isinstance(each, dict)]
        options = tuple(label for label in offered if isinstance(label, str))[:OPTIONS_LIMIT]
    asked = _request(
        key, "request_user_input", {"questions": texts}, " / ".join(texts), kind="question", options=options
    )
    fields = tuple(ident(each.get("id")) for each in questions)
    return Asked(asked, request.id, request.method, fields=fields)


def _content(asked: Asked, text: str) -> dict[str, Any] | None:
    """What is filled in: one text for all fields, each in its type; None where it does not fit."""
    filled: dict[str, Any] = {}
    for name, kind in zip(asked.fields, asked.kinds, strict=True):
        value: Any = text
        if kind == "boolean":
            value = text.strip().lower() in ("yes", "true", "y", "1", "on")
        elif kind in ("integer", "number"):
            try:
                value = int(text) if kind == "integer" else float(text)
            except ValueError:
                return None
        elif kind == "array":
            value = [text]
        elif not text:
            return None
        filled[name] = value
    return filled


def _request(
    key: str,
    tool: str,
    given: dict[str, Any],
    title: str,
    *,
    kind: str = "permission",
    options: Sequence[str] = (),
) -> ev.PermissionRequest:
    lines = title.strip().splitlines()
    return ev.PermissionRequest(
        request_id=key,
        tool=tool,
        input=_kept(given),
        kind=kind,
        title=cut_output(lines[0], TITLE_LIMIT_BYTES) if lines else "",
        options=tuple(options),
    )


def _kept(given: Any) -> dict[str, Any]:
    """What can be part of a snapshot; everything else is left out."""
    if not isinstance(given, dict):
        return {}
    try:
        fits = len(msgspec.json.encode(given)) <= INPUT_LIMIT_BYTES
    except (ValueError, TypeError, RecursionError, OverflowError):
        return {}
    return given if fits else {}


def _words(found: Any) -> str:
    return " ".join(word for word in found if isinstance(word, str)) if isinstance(found, list) else ""
