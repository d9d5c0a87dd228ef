"""What the HTTP status of a model's server tells of why a request failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from daemon_core.protocol import failures

KNOWN_BETTER: Final = (failures.AGENT_CONTEXT, failures.AGENT_QUOTA, failures.AGENT_MODEL)
"""Where the request itself is wrong, and would be wrong again, words that say this know better."""


def reason_of_status(status: int, said: str, better: Sequence[str] = KNOWN_BETTER) -> str | None:
    """The failure reason; None where the status tells nothing.

    Args:
        said: The reason by the words alone.
        better: Which of these count for more than a request that was refused.
    """
    match status:
        case 400 | 413 | 422:
            return reason_of_refusal(said, better)
        case 401 | 403:
            return failures.AGENT_AUTH
        case 402:
            return failures.AGENT_QUOTA
        case 404:
            return failures.AGENT_MODEL
        case 429 | 529:
            return said if said == failures.AGENT_QUOTA else failures.AGENT_RATE_LIMIT
        case _ if 500 <= status < 600:
            return failures.AGENT_SERVER
    return None


def reason_of_refusal(said: str, better: Sequence[str] = KNOWN_BETTER) -> str:
    """The same for a request that was refused."""
    return said if said in better else failures.API_INVALID_REQUEST
