"""The protocol families that Ostler can drive, by name. A provider's entry names its family.

A family's module is loaded when it is asked for first: most machines have two or three kinds of agent, and
what the others need would stay in the daemon's memory for nothing.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Mapping
from typing import Final

from daemon_core.agents.family import Family
from daemon_core.protocol import first_use

CODEX: Final = "codex-app-server"
TIERED: Final = frozenset({CODEX})
"""Whose programs can ask their model's server for a service tier."""

_ROOM: Final = "daemon_core.agents."
_CLASSES: Final[Mapping[str, str]] = {
    "acp": "acp.AcpFamily",
    "claude-stream-json": "claude.ClaudeFamily",
    CODEX: "codex.CodexFamily",
    "copilot-json": "copilot.CopilotFamily",
    "cursor-json": "cursor.CursorFamily",
    "dsh": "dsh.DshFamily",
    "gemini-stream-json": "gemini.GeminiFamily",
    "openclaw-json": "openclaw.OpenclawFamily",
    "opencode-json": "opencode.OpencodeFamily",
    "pi-json": "pi.PiFamily",
    "qwen-stream-json": "qwen.QwenFamily",
    "plain": "shell.ShellFamily",
    "plain-text": "text.TextFamily",
}


class _Families(Mapping[str, Family]):
    def __init__(self) -> None:
        self._loaded: dict[str, Family] = {}
        self._loading = threading.Lock()

    def __getitem__(self, name: str) -> Family:
        if name not in self._loaded:
            module, _, found = _CLASSES[name].partition(".")
            with self._loading:
                made: Family = getattr(importlib.import_module(f"{_ROOM}{module}"), found)()
                first_use.prepare(_ROOM)  # before any thread has one of the structures that came with it
                self._loaded[name] = made
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


_FAMILIES: Final = _Families()


def families() -> Mapping[str, Family]:
    """All families, by their name. Families have no state and can be shared. Asking for one may load its
    module: some milliseconds at its first time."""
    return _FAMILIES
