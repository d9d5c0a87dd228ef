"""Words for agents found on this machine: how one stands, why it cannot be used, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from daemon_core.control.model_views import ModelsView
from daemon_core.control.views import RuntimeView
from desktop.text import _, mark, n_
from desktop.theme.tokens import Colours
from desktop.words import clock, cut

OUTPUT_CHARS: Final = 200
_REASONS: Final[Mapping[str, str]] = {
    "not_supported_yet": mark("Ostler cannot use it yet."),
    "version_too_old": mark(
        "Version {version} is too old: {min_version} or newer is needed. Update it, then look again."
    ),
    "probe_timed_out": mark(
        "It did not tell its version within {limit_s} s. Start it with --version in a terminal to see what"
        " it waits for."
    ),
    "probe_not_started": mark("It cannot be started: {error}. Install it again."),
    "probe_failed": mark(
        "Asked for its version it ended with code {exit_code}. Start it with --version in a terminal to see"
        " what is wrong."
    ),
    "version_unreadable": mark(
        "It tells no version that can be read. It may be another program of the same name."
    ),
    "another_program": mark(
        "It does not answer as it should. It may be another program of the same name, or too old."
    ),
    "not_executable": mark("{path} may not be executed. Allow it with chmod +x, then look again."),
    "not_found": mark("{executables} was not found in PATH."),
    "override_not_found": mark("{path}, which {source} names, is not there."),
    "wrong_architecture": mark(
        "It is a program for {built_for}, and this machine is {machine}. Install the one for this machine."
    ),
    "interpreter_missing": mark(
        "It needs {interpreter}, which was not found. Install that, or put it into the PATH of your shell."
    ),
    "not_signed_in": mark("Nobody is signed in with it."),
    "hub_disabled": mark("Tasks of this machine are switched off in the settings."),
    "agent_gone": mark("Its program is not offered any more. Tasks that run with it go on."),
    "profile_unusable": mark("Its server's profile cannot be used on this machine."),
    "lost_at_server": mark("Its server has forgotten it. It is being announced there again."),
    "not_registered": mark("It is about to be announced."),
    "unreachable": mark("Its server does not answer."),
    "signed_out": mark("Ostler is signed out of its server."),
    "usage_limit": mark("Its account has reached a limit, so it gets no tasks."),
}


_SIGN_IN: Final[Mapping[str, str]] = {
    "sign_in_run": mark("Run {run} in a terminal to sign in, or set {set}."),
    "sign_in_type": mark("Start {run} in a terminal and type {type} to sign in, or set {set}."),
    "sign_in_choose": mark("Start {run} in a terminal and choose how to sign in, or set {set}."),
}


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def runtime_reason(runtime: RuntimeView) -> str:
    """Why it cannot be used, and what can be done; empty: it can, or there is nothing more to say."""
    code, params = runtime.reason, runtime.reason_params
    if code in ("", "switched_off", "disabled"):
        return ""
    if code == "usage_limit" and params.get("until"):
        until = clock(str(params["until"]))
        return _("Its account has reached a limit, so it gets no tasks until {time}.", time=until)
    if code == "provider_invalid":
        place = ":".join(str(params[part]) for part in ("file", "line") if params.get(part))
        what = ": ".join(part for part in (place, str(params.get("what") or "")) if part)
        return " ".join(part for part in (what, str(params.get("hint") or "")) if part)
    known = _REASONS.get(code)
    detail = str(params.get("detail") or "")
    if known is None:
        return detail or code.replace("_", " ").capitalize()
    text = _(known).format_map(_Known({"version": runtime.version or "?", **params}))
    if code == "probe_failed" and params.get("output"):
        detail = cut(str(params["output"]), OUTPUT_CHARS)
    return " ".join(part for part in (text, detail) if part)


def runtime_glyph(runtime: RuntimeView, colours: Colours) -> tuple[str, str]:
    """(glyph, colour) for how it stands."""
    good = runtime.status == "online" and runtime.signed_in != "no" and not runtime.reason
    return {
        "online": ("circle-check", colours.done) if good else ("circle-alert", colours.waiting),
        "offline": ("circle-alert", colours.waiting),
        "off": ("circle-slash", colours.neutral),
    }.get(runtime.status, ("circle-x", colours.failed))


def sign_in_hint(runtime: RuntimeView) -> str:
    """How to sign in, where nobody is; empty: somebody is, or nobody knows."""
    if runtime.signed_in != "no":
        return ""
    known = _SIGN_IN.get(runtime.hint_code)
    return _(known).format_map(_Known(runtime.hint_params)) if known is not None else runtime.hint


def runtime_place(runtime: RuntimeView) -> str:
    """Whose tasks it gets, where that is a server; empty: those of this machine."""
    if runtime.connection in ("", "hub"):
        return ""
    return " · ".join(part for part in (runtime.workspace, runtime.connection) if part)


def runtime_sentence(runtime: RuntimeView) -> str:
    """How a runtime stands, and what to do where it cannot be used."""
    reason = runtime_reason(runtime)
    busy = n_("{n} task runs with it", "{n} tasks run with it", runtime.busy) if runtime.busy else ""
    state = {
        "online": busy or _("Ready"),
        "offline": busy or ("" if reason else _("Offline")),
        "off": " · ".join(part for part in (_("Switched off"), busy) if part),
    }.get(runtime.status, "" if reason else _("Cannot be used"))
    signed_out = sign_in_hint(runtime)
    facts = (runtime_place(runtime), runtime.path if not reason else "")
    if reason or signed_out:
        lines = (" ".join(part for part in (reason, signed_out) if part), (state, *facts))
        first, rest = lines[0], " · ".join(part for part in lines[1] if part)
        return f"{first}\n{rest}" if rest else first
    return " · ".join(part for part in (state, *facts) if part)


def models_sentence(found: ModelsView) -> str:
    """Which models it has, as far as it tells."""
    if found.error:
        return _("It could not be asked for its models: {why}", why=found.error)
    if not found.models:
        return _("It tells no list of its models. Any name that it knows can be given.")
    names = [
        _("{model} (usual)", model=model.name or model.id) if model.default else model.name or model.id
        for model in found.models
    ]
    told = _("Models: {names}.", names=", ".join(names))
    return f"{told} {_('Others can be named, too.')}" if found.open else told
