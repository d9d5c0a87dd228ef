"""What a task asks, in words, and answers as they travel in commands. No Qt."""

from __future__ import annotations

import msgspec

from daemon_core.control.views import RequestView
from desktop.models.transcript import Step
from desktop.text import _


def request_sentence(request: RequestView) -> str:
    """What is asked, in a sentence."""
    if request.kind == "question":
        return request.title or _("It has a question")
    return _("Wants to use {tool}", tool=request.tool or _("a tool"))


def request_in_short(request: RequestView) -> str:
    """What is asked, with the one thing of it that tells most."""
    detail = "" if request.kind == "question" else Step(tool=request.tool, input=request.input).summary
    if not detail:
        return request_sentence(request)
    if request.tool in ("Bash", "shell", "exec_command"):
        return _("Wants to run `{command}`", command=detail)
    return _("Wants to use {tool}: {detail}", tool=request.tool or _("a tool"), detail=detail)


def encode_answer(choice: str, words: str) -> str:
    """A choice with its words, as it travels in a command."""
    return choice if not words else f"{choice} {msgspec.json.encode(words).decode()}"


def decode_answer(packed: str) -> tuple[str, str]:
    """The choice and the words of it."""
    choice, _space, words = packed.partition(" ")
    return choice, msgspec.json.decode(words, type=str) if words else ""
