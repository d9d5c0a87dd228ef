"""Every period, deadline and limit of a connection, with its reason. All values in seconds unless named.

Two sets: ``SERVER`` is what the daemon protocol states; ``HUB`` is for the embedded hub, which lives in the
same process, pushes everything over the websocket and cannot be unreachable for long: there polling is only
a net under the pushes, and an idle machine stays asleep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often a connection does what. The defaults are the protocol's."""

    loopback: bool = False
    """The server is in this process: no read deadline, all heartbeats in one tick, no proxies."""

    poll_s: float = 30.0
    """Claim poll of a runtime; a websocket hint cuts it short."""
    heartbeat_s: float = 15.0
    """One beat a runtime; a server shows a runtime offline after 150 s without."""
    status_poll_s: float = 5.0
    """How soon a running task notices that its server has ended it."""
    lease_s: float = 15.0
    """Refresh of a prepare lease, which lasts 45 s."""
    sync_s: float = 30.0
    """Workspace list, repositories, settings."""
    renew_s: float = 3 * 86400.0
    """Token renewal; a server extends a token in its last 7 days."""
    renew_retry_s: float = 3600.0
    """After a renewal that got no answer; the original waits for the next three days."""
    reconcile_quiet_s: float = 1.0
    """A request to sync this soon after a sync or another request is dropped."""

    first_retry_s: float = 1.0
    """Back-off of link and sync: first pause, doubled up to ``retry_limit_s``."""
    retry_limit_s: float = 30.0
    retry_jitter: float = 0.2
    recheck_s: float = 300.0
    """A refused credential is shown again after this, then doubled up to ``recheck_limit_s``: a server whose
    own store is in trouble refuses everybody, and nobody may be there to sign in."""
    recheck_limit_s: float = 3600.0
    stable_s: float = 10.0
    """A link that lasted this long starts its back-off anew."""

    handshake_s: float = 10.0
    write_s: float = 10.0
    close_s: float = 1.0
    """How long a closing websocket waits for its peer's farewell."""
    read_deadline_s: float | None = 60.0
    """No frame of any kind for this long: the link is dead (servers ping every 54 s). None: no deadline."""
    answer_s: float = 30.0
    """A websocket beat that no frame at all follows within this time: the link is half open."""
    probe_s: float = 5.0
    """The same where there is reason to doubt: the network has just changed."""

    recovery_window_s: float = 30.0
    """A workspace whose runtimes are gone is registered again at most this often."""
    recovery_retry_s: float = 60.0
    """Pause after a recovery that failed."""
    clock_jump_s: float = 10.0
    """Wall clock against monotonic clock, or a timer this late: the machine slept."""

    @property
    def fresh_s(self) -> float:
        """An acknowledgement over the websocket replaces HTTP beats for this long."""
        return 2 * self.heartbeat_s


SERVER: Final = Timing()

HUB: Final = Timing(
    loopback=True,
    poll_s=600.0,
    heartbeat_s=60.0,
    status_poll_s=300.0,
    sync_s=600.0,
    read_deadline_s=None,
    answer_s=10.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Longest duration of one attempt, by kind of call. Connecting included."""

    control_s: float = 30.0
    connect_s: float = 10.0
    """Name, TCP and TLS: what fails here has certainly not reached the server."""
    lease_s: float = 10.0
    messages_s: float = 5.0
    """For a small batch; a large one gets its size divided by ``transfer_bytes_per_s`` more."""
    pin_s: float = 5.0
    renew_s: float = 15.0
    workspaces_s: float = 15.0
    deregister_s: float = 5.0
    skill_min_s: float = 30.0
    skill_max_s: float = 300.0
    transfer_bytes_per_s: int = 50 * 1024
    """The slowest line that counts as working: for skill bundles (protocol) and message batches (ours)."""


ANSWER_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Most answers are a few kilobytes; more than this is not ours."""
LARGE_ANSWER_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""Claims with full skills, bundles, stored messages."""
RETRY_AFTER_LIMIT_S: Final = 300.0
"""A server may ask for patience, not for silence."""
RESULT_RETRIES_S: Final = (0.0, 0.5, 2.0, 4.0)
"""Pauses before each attempt to report the result of a pending action."""
