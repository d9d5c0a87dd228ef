"""The protocol families that Ostler can drive, by name. A provider's entry names its family."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from daemon_core.agents.claude import ClaudeFamily
from daemon_core.agents.family import Family
from daemon_core.agents.shell import ShellFamily

_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {family.name: family for family in (ClaudeFamily(), ShellFamily())}
)


def families() -> Mapping[str, Family]:
    """All families, by their name. Families have no state and can be shared."""
    return _FAMILIES
