"""Where the providers that come with Ostler look for their brief and their skills."""

from __future__ import annotations

from daemon_core.runtimes.providers import builtin
from daemon_core.workdirs.environments import Layout


def layout_of(provider: str) -> Layout:
    found = builtin().get(provider)
    assert found is not None
    return found.layout()
