"""Words of the windows: states, spans of time, numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from daemon_core.control.views import TaskRow
from daemon_core.protocol.wire import Usage
from desktop.text import _, mark
from desktop.theme.tokens import Colours
from desktop.words import clock, decimal, parse

MINUS: Final = "\N{MINUS SIGN}"

_STATES: Final[Mapping[str, str]] = {
    "queued": mark("waiting"),
    "dispatched": mark("starting"),
    "waiting_local_directory": mark("waiting for its directory"),
    "running": mark("running"),
    "parked": mark("parked"),
    "completed": mark("done"),
    "failed": mark("failed"),
    "cancelled": mark("cancelled"),
}
_REASONS: Final[Mapping[str, str]] = {
    "queued_expired": mark("it waited too long for an agent"),
    "timeout": mark("timed out"),
    "runtime_offline": mark("the agent was not there"),
    "runtime_recovery": mark("it was lost when Ostler or the machine went down"),
    "runtime_reconnect_timeout": mark("the agent did not come back in time"),
    "runtime_cli_timeout": mark("the agent did not answer in time"),
    "iteration_limit": mark("the agent reached its limit of steps"),
    "agent_blocked": mark("the agent could not go on"),
    "api_invalid_request": mark("the model's service refused the request"),
    "agent_fallback_message": mark("the agent gave no real result"),
    "codex_semantic_inactivity": mark("the agent made no progress"),
    "codex_resume_oversized": mark("the conversation is too long to go on with"),
    "idle_watchdog": mark("the agent was silent for too long"),
    "local_directory_error": mark("its directory could not be used"),
    "skill_bundle_unavailable": mark("its skills could not be fetched"),
    "usage_limit": mark("a usage limit was reached"),
    "cancelled": mark("cancelled"),
    "agent_error": mark("the agent reported an error"),
    "agent_error.provider_auth_or_access": mark("the agent is not signed in, or may not use the model"),
    "agent_error.provider_quota_limit": mark("a usage limit was reached"),
    "agent_error.provider_capacity_or_rate_limit": mark("the model's service was too busy"),
    "agent_error.provider_server_error": mark("the model's service had an error"),
    "agent_error.provider_network": mark("the model's service could not be reached"),
    "agent_error.process_failure": mark("the agent's program failed"),
    "agent_error.empty_or_unparseable_output": mark("the agent said nothing that could be understood"),
    "agent_error.agent_timeout": mark("the agent ran into a time limit of its own"),
    "agent_error.context_overflow": mark("the conversation is longer than the model takes"),
    "agent_error.missing_config": mark("the agent lacks a setting"),
    "agent_error.model_not_found_or_unavailable": mark("the model does not exist or cannot be used"),
    "agent_error.runtime_version_unsupported": mark("the agent's version is too old"),
    "agent_error.runtime_missing_executable": mark("the agent's program is gone"),
}


def state_text(task: TaskRow) -> str:
    """How a task stands, in words."""
    if task.needs_input and task.status in ("running", "dispatched"):
        return _("needs you")
    if task.status == "failed" and task.failure_reason:
        return reason_text(task.failure_reason)
    if task.status == "parked" and task.parked_until:
        return _("parked until {time}", time=clock(task.parked_until))
    known = _STATES.get(task.status)
    return _(known) if known is not None else task.status


def reason_text(reason: str) -> str:
    """Why a task failed; a reason that nobody here knows is shown as it is."""
    known = _REASONS.get(reason) or _REASONS.get(reason.partition(".")[0])
    return _(known) if known is not None else reason.replace("_", " ")


def state_glyph(task: TaskRow, colours: Colours) -> tuple[str, str]:
    """(glyph, colour) for how a task stands: every state has a shape of its own."""
    if task.needs_input and task.status in ("running", "dispatched"):
        return "circle-alert", colours.waiting
    return {
        "running": ("circle-dot", colours.running),
        "dispatched": ("circle-dot", colours.running),
        "waiting_local_directory": ("hourglass", colours.waiting),
        "queued": ("clock", colours.neutral),
        "parked": ("circle-pause", colours.waiting),
        "completed": ("circle-check", colours.done),
        "failed": ("circle-x", colours.failed),
        "cancelled": ("circle-slash", colours.neutral),
    }.get(task.status, ("circle", colours.neutral))


def seconds_between(first: str | None, last: str | None) -> float | None:
    """How far two times are apart; None where one of them is missing."""
    start, end = parse(first), parse(last)
    return max(0.0, (end - start).total_seconds()) if start is not None and end is not None else None


def span(seconds: float | None) -> str:
    """A length of time in its largest units: "42 s", "3 min", "1 h 5 min"; empty where it is not known."""
    if seconds is None:
        return ""
    whole = int(seconds)
    if whole < 60:
        return _("{n} s", n=whole)
    if whole < 3600:
        return _("{n} min", n=whole // 60)
    if whole % 3600 < 60:
        return _("{n} h", n=whole // 3600)
    return _("{hours} h {minutes} min", hours=whole // 3600, minutes=whole % 3600 // 60)


def tokens_text(usage: list[Usage]) -> str:
    """How many tokens were used, shortened; empty where nobody told."""
    total = sum(
        each.input_tokens + each.output_tokens + each.cache_read_tokens + each.cache_write_tokens
        for each in usage
    )
    return _("{number} tokens", number=short_number(total)) if total else ""


def dollars(amount: float) -> str:
    """An amount of money as all of them are shown."""
    if 0 < amount < 0.01:
        return _("under $0.01")
    return f"${decimal(amount, 2)}"


def cost_text(cost: float | None, how: str) -> str:
    """What something cost, and how well that is known; empty where nothing was used that is told."""
    if not how:
        return ""
    if cost is None or how == "unknown":
        return _("cost not known")
    if how == "priced":
        return _("about {amount}", amount=dollars(cost))
    return _("at least {amount}", amount=dollars(cost)) if how == "partial" else dollars(cost)


def short_number(number: int) -> str:
    """ "812", "12.3 k", "4.5 M"."""
    if number < 1000:
        return str(number)
    if number < 1_000_000:
        return f"{_tenths(number / 1000)} k" if number < 100_000 else f"{number // 1000} k"
    return f"{_tenths(number / 1_000_000)} M"


def _tenths(number: float) -> str:
    return decimal(number, 1)
