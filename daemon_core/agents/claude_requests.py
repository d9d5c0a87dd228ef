"""What Claude Code asks over its control protocol, and the answers to it.

Learned from the real program (2.1.197): permission to use a tool is asked with ``can_use_tool``; an answer
that allows must repeat the whole input; the questions of ``AskUserQuestion`` come the same way, and their
answers go back inside the input. Rules of the program's own ("do not ask again") are not used: they are
written into files of the user, and do not hold for much of what a shell does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from daemon_core.agents.events import PermissionRequest

QUESTION_TOOL: Final = "AskUserQuestion"
TITLE_LIMIT_CHARS: Final = 500
OPTIONS_LIMIT: Final = 20
ID_LIMIT_CHARS: Final = 256


class Asked(msgspec.Struct):
    """A request that waits for its answer; part of the reader's snapshot."""

    request_id: str
    tool: str
    input: dict[str, Any] = {}
    """Whole, since the answer repeats it."""
    title: str = ""
    kind: str = "permission"
    options: tuple[str, ...] = ()

    def event(self) -> PermissionRequest:
        """As the daemon tells it."""
        return PermissionRequest(
            request_id=self.request_id,
            tool=self.tool,
            input=self.input,
            kind=self.kind,
            title=self.title,
            options=self.options,
        )


def asked_of(request_id: str, request: Mapping[str, Any]) -> Asked:
    """A ``can_use_tool`` request."""
    tool = _text(request.get("tool_name"), ID_LIMIT_CHARS) or "tool"
    given = request.get("input")
    found = Asked(request_id=request_id, tool=tool, input=given if isinstance(given, dict) else {})
    if tool == QUESTION_TOOL:
        questions = _questions(found.input)
        if questions:
            found.kind = "question"
            found.title = _text(" / ".join(questions), TITLE_LIMIT_CHARS)
            found.options = _options(found.input, questions[0]) if len(questions) == 1 else ()
            return found
    title = request.get("title") or request.get("description") or ""
    found.title = " ".join(_text(title, TITLE_LIMIT_CHARS).split())
    return found


def allowed(asked: Asked, text: str = "") -> dict[str, Any]:
    """The answer that lets it happen; of a question: ``text`` is what the user says.

    Of several questions each line of the text (or each entry of a JSON object) answers one.
    """
    given = dict(asked.input)
    if asked.kind == "question":
        given["answers"] = _answers(_questions(asked.input), text)
    return {"behavior": "allow", "updatedInput": given}


def denied(asked: Asked, text: str = "") -> dict[str, Any]:
    """The answer that does not."""
    if asked.kind == "question":
        message = text or "The user does not want to answer. Go on without."
    else:
        message = text or f"The user does not allow this use of {asked.tool}."
    return {"behavior": "deny", "message": message}


def _questions(given: Mapping[str, Any]) -> list[str]:
    found = given.get("questions")
    if not isinstance(found, list):
        return []
    texts = [entry.get("question") for entry in found if isinstance(entry, dict)]
    return [text for text in texts if isinstance(text, str) and text]


def _options(given: Mapping[str, Any], asked: str) -> tuple[str, ...]:
    """The labels offered for the only question that asks anything."""
    entries = (entry for entry in given["questions"] if isinstance(entry, dict))
    options = next(entry.get("options") for entry in entries if entry.get("question") == asked)
    labels = [entry.get("label") for entry in options or () if isinstance(entry, dict)] if isinstance(
        options, list
    ) else []  # fmt: skip
    return tuple(label for label in labels if isinstance(label, str) and label)[:OPTIONS_LIMIT]


def _answers(questions: list[str], text: str) -> dict[str, str]:
    if len(questions) > 1:
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            told = None
        if isinstance(told, dict):
            return {question: str(told.get(question, "")) for question in questions}
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if len(lines) == len(questions):
            return dict(zip(questions, lines, strict=True))
    return dict.fromkeys(questions, text)


def _text(value: Any, limit: int) -> str:
    return value[:limit] if isinstance(value, str) else ""
