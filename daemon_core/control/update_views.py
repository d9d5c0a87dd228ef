"""What is asked of the updater over the control API, and the reasons that its answers give.

Its answers are ``UpdateView`` of the views. A reason is a ``Condition`` whose code is one of ``REASONS``; any
may have ``detail``, which is the system's own text.
"""

from __future__ import annotations

from typing import Final, Literal

from daemon_core.control.views import Request

WEEK_S: Final = 7 * 86400.0

REASONS: Final[dict[str, tuple[str, ...]]] = {
    # Why there are no updates here (``why_not``).
    "source": (),
    "package_manager": (),
    "launcher_gone": ("path",),
    "no_trust": ("path",),
    "no_address": ("url",),
    "elsewhere": (),  # another daemon of this user looks after them
    # Asking what there is.
    "unreachable": (),
    "server_error": ("status",),
    "slow": (),
    "expired": (),
    "clock": ("here", "there"),
    "untrusted": (),
    "old_metadata": (),
    "endless": (),
    "trust_missing": ("path",),
    "child_failed": (),
    "internal": (),  # a fault of the program; the log has more
    # Fetching.
    "cut_off": (),
    "stalled": (),
    "too_slow": (),
    "too_long": ("size", "expected"),
    "wrong_size": ("size", "expected"),
    "wrong_range": (),
    "redirect": ("host",),
    "mismatch": ("name",),
    "too_large": ("size", "limit"),
    "disk_full": ("path", "needed", "free"),
    "no_permission": ("path",),
    "disk_error": ("path",),
    # Unpacking.
    "archive_damaged": (),
    "archive_unsafe": ("name",),
    "manifest": ("name",),
    "wrong_version": (),
    # Switching.
    "not_installed": (),
    "owned": (),
    "launcher_missing": (),
    "version_missing": ("version",),
    "version_bad": ("version", "reason"),
    "nothing_before": (),
    "current": ("version",),
    "older": ("version",),
    "trial": ("version",),
    "busy": (),
    "claims": ("seconds",),
    "stopping": (),
    "settings": ("what",),  # no daemon could start with them
    "disk": (),
    "lost": (),  # it was broken off, again and again
    # On trial.
    "crashed": (),
    "hung": (),
    "unhealthy": (),
    "starts": (),
    "files": (),
    "asked": (),  # the user wanted the version before
}
"""Every code with the names of its parameters."""


class UpdateApply(Request, frozen=True, kw_only=True):
    """``version``: only this one, so that nobody gets another than they were shown; empty: the newest."""

    version: str = ""


class UpdateLater(Request, frozen=True, kw_only=True):
    """Say nothing, and apply nothing by itself, for so long."""

    seconds: float = WEEK_S


class UpdateTold(Request, frozen=True, kw_only=True):
    """The user has been told this: nobody tells it again."""

    kind: Literal["ready", "updated", "rolled_back", "failed"]
    version: str
