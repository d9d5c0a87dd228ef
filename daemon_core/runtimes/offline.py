"""Why a runtime is taken off at its server, as later servers show it: a code, what it is, what can be done.

These words go to people who look at the server, not at this machine, so they say whose matter it is.
"""

from __future__ import annotations

from typing import Final

from daemon_core.protocol.wire import OfflineReason
from daemon_core.runtimes.offering import Offering

STOPPED: Final = OfflineReason(
    code="daemon_stopped",
    detail="Ostler was stopped on its machine.",
    repair="Start Ostler on that machine.",
)
SIGNED_OUT: Final = OfflineReason(
    code="signed_out",
    detail="The user of its machine signed out of this server.",
    repair="Sign in to this server with Ostler on that machine.",
)
RESTARTING: Final = OfflineReason(
    code="runtime_restarting",
    detail="The runtime is started anew on its machine.",
    repair="It comes back by itself.",
)
NOT_OFFERED: Final = OfflineReason(
    code="agent_missing",
    detail="The agent is not on its machine any more, or its version is too old.",
    repair="Install or update the agent on that machine.",
)
SWITCHED_OFF: Final = OfflineReason(
    code="switched_off",
    detail="The user of its machine has switched the runtime off.",
    repair="Switch it on with Ostler on that machine.",
)
PROFILE_GONE: Final = OfflineReason(
    code="profile_removed",
    detail="The custom profile that it was made of is not there any more, or is disabled.",
    repair="Enable the profile at this server.",
)


def reason_of(subject: str, *, is_profile: bool, offer: Offering | None) -> OfflineReason:
    """Why something is not offered any more.

    Args:
        subject: What tells the runtimes of a workspace apart: a provider, or a profile's id.
        offer: What the workspace is offered now.
    """
    if offer is not None and subject in offer.off:
        return SWITCHED_OFF
    if not is_profile:
        return NOT_OFFERED
    for failed in offer.failed if offer is not None else ():
        if failed.profile_id == subject:
            return OfflineReason(
                code="profile_unusable",
                detail=f"The custom profile cannot be used on its machine: {failed.reason}",
                repair="Install what the profile names on that machine, or change the profile.",
            )
    return PROFILE_GONE
