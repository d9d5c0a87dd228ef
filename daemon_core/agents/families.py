"""The protocol families that Ostler can drive, by name. A provider's entry names its family."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from daemon_core.agents.acp import AcpFamily
from daemon_core.agents.claude import ClaudeFamily
from daemon_core.agents.codex import CodexFamily
from daemon_core.agents.copilot import CopilotFamily
from daemon_core.agents.cursor import CursorFamily
from daemon_core.agents.dsh import DshFamily
from daemon_core.agents.family import Family
from daemon_core.agents.gemini import GeminiFamily
from daemon_core.agents.openclaw import OpenclawFamily
from daemon_core.agents.opencode import OpencodeFamily
from daemon_core.agents.pi import PiFamily
from daemon_core.agents.qwen import QwenFamily
from daemon_core.agents.shell import ShellFamily
from daemon_core.agents.text import TextFamily

_ALL: tuple[Family, ...] = (
    AcpFamily(),
    ClaudeFamily(),
    CodexFamily(),
    CopilotFamily(),
    CursorFamily(),
    DshFamily(),
    GeminiFamily(),
    OpenclawFamily(),
    OpencodeFamily(),
    PiFamily(),
    QwenFamily(),
    ShellFamily(),
    TextFamily(),
)
_FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _ALL})


def families() -> Mapping[str, Family]:
    """All families, by their name. Families have no state and can be shared."""
    return _FAMILIES
