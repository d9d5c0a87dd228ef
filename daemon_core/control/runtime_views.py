"""Agents of this machine as the control API shows them: from what discovery found and what is registered."""

from __future__ import annotations

from pathlib import Path

import msgspec

from daemon_core.control.views import RuntimeView
from daemon_core.runtimes.discovery import FoundAgent
from daemon_core.runtimes.providers import Mistake


def found_view(agent: FoundAgent) -> RuntimeView:
    """An agent that no server has been offered."""
    return with_facts(
        RuntimeView(
            id=agent.provider,
            provider=agent.provider,
            name=agent.name,
            version=agent.version,
            path=agent.path,
            status="offline" if agent.usable else "unusable",
            reason="not_registered" if agent.usable else agent.reason,
            reason_params=dict(agent.params),
        ),
        agent,
    )


def with_facts(view: RuntimeView, agent: FoundAgent | None) -> RuntimeView:
    """A runtime with what is known of its program."""
    if agent is None:
        return view
    return msgspec.structs.replace(
        view,
        verified=agent.verified,
        signed_in=agent.signed_in,
        hint=agent.sign_in_hint if agent.signed_in == "no" else "",
        hint_code=agent.sign_in_how if agent.signed_in == "no" else "",
        hint_params=dict(agent.sign_in_params) if agent.signed_in == "no" else {},
    )


def mistake_view(mistake: Mistake) -> RuntimeView:
    """A provider of the user's own that could not be read."""
    name = Path(mistake.file).stem
    return RuntimeView(
        id=f"file:{name}",
        provider=name,
        path=mistake.file,
        status="unusable",
        reason="provider_invalid",
        reason_params={
            "file": mistake.file,
            "line": mistake.line,
            "what": mistake.what,
            "hint": mistake.hint,
        },
    )
