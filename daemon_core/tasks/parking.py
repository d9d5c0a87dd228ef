"""A run that ended by a limit of its account: what becomes of its task.

A task of the embedded hub is parked there: its slot is free, and it goes on in the same session and
directory when the limit has reset, by itself if the user has allowed that, else when the user says so. Other
servers know nothing like it: there the task fails as their protocol has it, and its error says when the limit
resets.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from daemon_core.agents.events import Limit
from daemon_core.agents.limits import told
from daemon_core.protocol import wire
from daemon_core.tasks.results import Result


def settle(
    result: Result, claim: wire.Task | None, provider: str, resumes: Callable[[str], bool], *, hub: bool
) -> Result:
    """The result with what a limit makes of it.

    Args:
        resumes: whether a provider's tasks go on by themselves, by the settings.
    """
    limit = result.limit
    if result.outcome != "failed" or limit is None:
        return result
    if not hub or not parks(limit):
        when = told(limit)
        if not when or limit.resets_at in result.error:
            return result
        return msgspec.structs.replace(result, error=f"{result.error} ({when})")
    agent = claim.agent if claim is not None else None
    wanted = agent.resume_after_limit if agent is not None else None
    goes_on = resumes(provider) if wanted is None else wanted
    return msgspec.structs.replace(
        result, outcome="parked", parked=wire.Parked(until=limit.resets_at, goes_on=goes_on)
    )


def parks(limit: Limit) -> bool:
    """Whether it is worth waiting for: too many requests just now is not, unless a time was said."""
    return limit.kind == "usage" or bool(limit.resets_at)


def own_account(claim: wire.Task | None) -> bool:
    """Whether the agent may use an account of its own, so that its limit says nothing about others."""
    return bool(claim is not None and claim.agent is not None and claim.agent.custom_env)
