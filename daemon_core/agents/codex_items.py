"""What Codex tells of the things it does: a turn's items, as tool calls with their results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

from daemon_core.agents import events as ev
from daemon_core.agents.lines import cut_output

ID_LIMIT_CHARS: Final = 256
CHANGES_LIMIT: Final = 256
OUTPUT_LIMIT_BYTES: Final = 64 * 1024
SHELL_LIMIT_CHARS: Final = 64 * 1024
COUNT_LIMIT: Final = 2**53

_NAMES: Final[Mapping[str, str]] = {
    "commandExecution": "exec_command",
    "fileChange": "apply_patch",
    "webSearch": "web_search",
    "imageView": "view_image",
    "imageGeneration": "image_generation",
}
_NAMED_BY_ITEM: Final = ("mcpToolCall", "dynamicToolCall", "collabAgentToolCall")

TOLD_AT_THE_END: Final = frozenset({"webSearch", "imageView", "imageGeneration"})
"""Their beginning says nothing yet: the call is told together with its result."""


def ident(value: Any) -> str:
    """A name or an id, within bounds."""
    return value[:ID_LIMIT_CHARS] if isinstance(value, str) else ""


def count(value: Any) -> int:
    """A count, whatever was given; never below zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value < COUNT_LIMIT else 0


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def is_call(item: Mapping[str, Any]) -> bool:
    """Whether an item is something that the agent does with a tool."""
    kind = item.get("type")
    return isinstance(kind, str) and (kind in _NAMES or kind in _NAMED_BY_ITEM)


def call_of(item: Mapping[str, Any]) -> ev.ToolUse:
    """The call that an item is."""
    kind = text_of(item.get("type"))
    call_id = ident(item.get("id"))
    given: Any
    match kind:
        case "commandExecution":
            given = {"command": plain_command(text_of(item.get("command")))}
            if isinstance(item.get("cwd"), str):
                given["cwd"] = item["cwd"]
        case "fileChange":
            given = {"changes": changes(item.get("changes"))}
        case "mcpToolCall" | "dynamicToolCall":
            given = item.get("arguments")
        case "collabAgentToolCall":
            given = {"prompt": item.get("prompt")}
        case "webSearch":
            given = {"query": text_of(item.get("query"))}
        case _:
            given = {"path": text_of(item.get("path"))}
    return ev.ToolUse(call_id, tool_name(item), given)


def tool_name(item: Mapping[str, Any]) -> str:
    kind = text_of(item.get("type"))
    if kind in _NAMES:
        return _NAMES[kind]
    tool = ident(item.get("tool")) or "tool"
    return f"mcp__{ident(item.get('server'))}__{tool}" if kind == "mcpToolCall" else tool


def result_of(item: Mapping[str, Any], tool: str) -> ev.ToolResult:
    """How the call of an item ended."""
    status = text_of(item.get("status"))
    failed = status in ("failed", "declined", "interrupted")
    match item.get("type"):
        case "commandExecution":
            output = text_of(item.get("aggregatedOutput"))
            code = item.get("exitCode")
            if isinstance(code, int) and code != 0:
                failed = True
                output = _joined(output, f"exit status {code}")
        case "fileChange":
            made = [f"{change['kind']} {change['path']}" for change in changes(item.get("changes"))]
            output = "\n".join(made)
        case "mcpToolCall":
            output, wrong = _mcp_output(item)
            failed = failed or wrong
        case "dynamicToolCall":
            output = parts_text(item.get("contentItems"))
            failed = failed or item.get("success") is False
        case _:
            output = ""
    if status == "declined":
        output = _joined(output, "declined")
    return ev.ToolResult(ident(item.get("id")), tool, cut_output(output, OUTPUT_LIMIT_BYTES), failed)


def plain_command(command: str) -> str:
    """A command without the login shell that it is wrapped in."""
    if len(command) > SHELL_LIMIT_CHARS or " -lc " not in command[:80]:
        return command
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    return words[2] if len(words) == 3 and words[1] == "-lc" else command


def changes(found: Any) -> list[dict[str, str]]:
    """The files that a change touches, each with what becomes of it and the difference."""
    made = []
    for change in found if isinstance(found, list) else ():
        if isinstance(change, dict):
            kind = change.get("kind")
            named = kind.get("type") if isinstance(kind, dict) else kind
            entry = {"path": text_of(change.get("path")), "kind": ident(named) or "change"}
            if isinstance(change.get("diff"), str):
                entry["diff"] = cut_output(change["diff"], OUTPUT_LIMIT_BYTES)
            made.append(entry)
        if len(made) >= CHANGES_LIMIT:
            break
    return made


def parts_text(parts: Any) -> str:
    """Parts of a content as text: texts joined, everything else named."""
    if isinstance(parts, str):
        return parts
    found: list[str] = []
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            found.append(part["text"])
        elif isinstance(part, dict):
            found.append(f"[{ident(part.get('type')) or 'part'}]")
    return "\n".join(found)


def _mcp_output(item: Mapping[str, Any]) -> tuple[str, bool]:
    error = item.get("error")
    if isinstance(error, dict):
        return text_of(error.get("message")) or "failed", True
    result = item.get("result")
    if not isinstance(result, dict):
        return "", False
    return parts_text(result.get("content")), result.get("isError") is True


def _joined(output: str, last: str) -> str:
    if not output:
        return last
    # The end tells what went wrong, so it must be within what is kept.
    head = cut_output(output, OUTPUT_LIMIT_BYTES - 64)
    return f"{head}{'' if head.endswith(chr(10)) else chr(10)}{last}"
