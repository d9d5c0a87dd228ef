"""Every time and size the hub goes by, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Times are seconds, sizes bytes. The defaults of the first group are the protocol's own."""

    lease_s: float = 45
    """A prepare lease lasts this long from each call."""
    redelivery_s: float = 90
    """A claim whose answer was lost is handed out again after this long without a lease."""
    token_life_s: float = 24 * 3600
    """Life of a task token; extended while its task runs or waits for its directory."""
    offline_after_s: float = 150
    """A runtime without a sign of life for this long is shown offline. Its tasks are left alone."""
    forget_runtime_s: float = 7 * 24 * 3600
    """An offline runtime that nothing active uses is forgotten after this long."""
    max_attempts: int = 2
    """How often a turn is tried, first time included, when its run is lost."""

    ping_interval_s: float = 54
    link_queue: int = 256
    """Distinct frames that may wait for one slow websocket before it is evicted; like ones coalesce."""
    link_read_bytes: int = 4096

    body_bytes: int = 1 << 20
    large_body_bytes: int = 16 << 20
    """For transcripts and results."""
    attachment_bytes: int = 25 << 20
    """For one file."""
    forget_upload_s: float = 24 * 3600
    """A file that belongs to nothing after this long is taken away."""
    prompt_bytes: int = 8 << 20
    longest_sleep_s: float = 3600
    """The timer looks again after this long at the latest, so that a clock set back does not stall it."""
