"""The words for every code: one table each for refusals, reasons and states. The daemon sends codes only.

A sentence says what happened, a hint what to do; both without line breaks. Unknown codes (a newer daemon's)
are shown as they are rather than hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from daemon_core.cli import resident_words, update_words

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_REFUSED: Final = 4
EXIT_NOT_FOUND: Final = 5
EXIT_CONFLICT: Final = 6
EXIT_TIMEOUT: Final = 124
EXIT_INTERRUPTED: Final = 130

NOT_RUNNING: Final = "Ostler's daemon is not running"
START_HINT: Final = "Start it with `ostler daemon start`"


@dataclass(frozen=True, slots=True)
class Wording:
    message: str
    hint: str
    exit_code: int


class CliError(Exception):
    """Ends the command with one line for people, or ``{"error": …}`` with ``--json``."""

    def __init__(self, code: str, message: str, hint: str = "", exit_code: int = EXIT_FAILED) -> None:
        self.code = code
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
        super().__init__(code, message)


def plural(count: int, one: str, many: str = "") -> str:
    """ "1 run", "2 runs", "0 runs"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def verb(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def sentence(message: str, hint: str = "") -> str:
    """What is wrong, then what to do, on one line. Both may quote a server or an agent."""
    from daemon_core.cli.show import safe

    parts = [" ".join(safe(part).split()) for part in (message, hint) if part]
    return " ".join(part if part.endswith((".", "?", "!", "…")) else f"{part}." for part in parts)


def _joined(values: Any, empty: str = "none") -> str:
    return ", ".join(str(value) for value in values or []) or empty


# --- refusals --------------------------------------------------------------------------------------

_Maker = Callable[[Mapping[str, Any]], tuple[str, str]]


def _invalid(p: Mapping[str, Any]) -> tuple[str, str]:
    field, why = p.get("field", "input"), p.get("why", "")
    if why == "empty":
        return f"The {field} is empty", "Give one"
    if why == "url":
        return f"This is no address of a server: {p.get('detail', '')}", "Give https://host"
    if why == "answer_missing":
        return "A question is answered in words", "Add --text ANSWER"
    if why == "reminder":
        return "A reminder is at most 90 days away", "Give less with --for"
    if why == "out_of_range":
        return f"The {field} cannot be that", "Give more than 0 and at most 7 days"
    if field == "permissions" and p.get("detail"):
        return str(p["detail"]), "Choose another policy with --permissions"
    if why == "nul":
        return f"The {field} contains a NUL character", "Remove it"
    if why == "provider_missing":
        return "Neither a runtime nor an agent is named", "Add --runtime or --agent; `ostler runtimes` lists"
    if why == "agent_provider_mismatch":
        return (
            f"The agent {p.get('agent', '')} runs on {p.get('agent_provider', '?')}, "
            f"not on {p.get('provider', '?')}",
            "Leave --runtime out",
        )
    if why == "too_long":
        return f"The {field} is too long (at most {p.get('limit', '?')})", "Put it into a file and name that"
    if why in ("too_short", "id_too_short"):
        return f"{p.get('id', '')!r} is too short for an id", "Give at least four of its characters"
    if why == "not_executable":
        return f"{p.get('path', 'The path')} is not a program that can be started", "Give an executable file"
    if why == "not_absolute":
        return f"{p.get('path', 'The path')} is not an absolute path", "Give the whole path"
    if why == "not_a_number":
        return f"{field} must be a whole number, not {p.get('given', '')!r}", ""
    if why == "not_a_time":
        return f"The {field} is not a time", "Give an RFC 3339 time"
    if why == "past":
        return f"The {field} is in the past", "Give a later time"
    detail = p.get("detail") or why
    return f"The daemon does not accept the {field}: {detail}", "`--help` shows what can be given"


def _waiting_directory(params: Mapping[str, Any]) -> str:
    title = params.get("held_by_title")
    holder = str(params.get("held_by") or "")[:8]
    who = f"{title} ({holder})" if title else f"Task {holder}" if holder else "Another task"
    return f"{who} works in {params.get('path', 'the directory')}"


def _place(p: Mapping[str, Any]) -> str:
    if not p.get("file"):
        return ""
    return f"{p['file']}:{p['line']}: " if p.get("line") else f"{p['file']}: "


def _clock(stamp: object) -> str:
    from daemon_core.cli.show import local_time

    return local_time(str(stamp or "")) or "a time that nobody said"


_DECISIONS: Final[Mapping[str, str]] = {
    "allow": "was allowed",
    "allow-task": "was allowed for the task",
    "deny": "was denied",
    "withdrawn": "was withdrawn by the agent",
}


def _conflict(p: Mapping[str, Any]) -> tuple[str, str]:
    ident = str(p.get("id", ""))
    match p.get("what", ""):
        case "task_ended" | "task_over":
            return f"The task {ident} has ended already", f"`ostler task show {ident}` shows how"
        case "task_not_ended" | "task_active" | "conversation_busy":
            return f"The task {ident} has not ended yet", f"Wait for it, or `ostler task cancel {ident}`"
        case "no_session":
            return f"The task {ident} left nothing to continue", "Start a new one with `ostler task add`"
        case "task_not_running":
            return f"The task {ident} does not run at present", f"`ostler task show {ident}` shows how it is"
        case "request_settled":
            decision = _DECISIONS.get(str(p.get("decision")), "is settled")
            return f"The request {ident} {decision} already", ""
        case "not_local":
            return f"The task {ident} belongs to another server", "Change it there"
        case "agent_in_use":
            count = plural(int(p.get("active_tasks") or 1), "task")
            return f"The agent {p.get('agent', '')} has {count} that did not end yet", "Wait, or cancel them"
        case "job_ended":
            return f"The job {ident[:8]} has ended", f"`ostler job output {ident[:8]}` shows what it wrote"
        case "job_input_closed":
            return f"The job {ident[:8]} takes no more input", ""
        case "job_unreachable":
            return f"The job {ident[:8]} does not answer at present", "Try again in a few seconds"
        case "job_id_taken":
            return "There is another job with this id", "Try again"
        case "connection_busy":
            tasks = int(p.get("tasks") or 1)
            return (
                f"{plural(tasks, 'task')} of {p.get('server', 'the server')} {verb(tasks, 'is', 'are')} not "
                "delivered yet: it is owed the result of each",
                "Wait for them, or end them with --force",
            )
        case "runs_do_not_end":
            return f"A run of {p.get('server', 'the server')} does not end", "Try again in a minute"
        case "agent_removed":
            return f"The agent {p.get('agent', '')} was removed", "Start a new task with another agent"
        case what:
            return "This cannot be done now" + (f" ({what})" if what else ""), ""


_NOT_FOUND_HINTS: Final = {
    "task": "`ostler task list --all` shows all of them",
    "job": "`ostler job list` shows those that there are",
    "resident": "`ostler resident list` shows those that there are",
    "connection": "`ostler connections` shows those that there are",
    "profile": "`ostler runtimes` shows those of your servers' custom profiles that are here",
    "request": "`ostler task show` lists what is open",
}


def _peer(p: Mapping[str, Any]) -> tuple[str, str]:
    if p.get("why") == "user":
        return "The daemon belongs to another user", "Run ostler as the user who started it"
    return "The daemon does not take requests from this caller", ""


def _repository(p: Mapping[str, Any]) -> tuple[str, str]:
    repo = str(p.get("repo", ""))
    match p.get("why", ""):
        case "credentials_in_url":
            return (
                "The address of the repository has a user name or password in it",
                f"Give {repo}; git's credential helper knows the rest (`git help credentials`)",
            )
        case "not_found":
            return f"There is no directory for the repository {repo}", "Give its address or path"
        case "directory_too":
            return "A task has either a directory of yours or a repository", "Leave --dir or --repo out"
        case why:
            detail = str(p.get("detail") or why)
            return f"This repository cannot be used: {detail}", "Give https://host/path or user@host:path"


_NO_ANSWER: Final = {
    "name_not_resolved": "its name was not found",
    "network_unreachable": "its network cannot be reached",
    "refused": "nothing listens there",
    "connect_failed": "no connection to it can be made",
    "connect_timeout": "no connection came about in time",
    "timeout": "it did not answer in time",
    "cut_off": "it broke off in the middle of an answer",
    "reset": "it broke the connection off",
    "tls": "there is no secure connection to it",
    "not_the_server": "something else answers in its place",
    "unreadable": "its answer cannot be understood",
    "too_large": "its answer is far too large",
}


def _sign_in(p: Mapping[str, Any]) -> tuple[str, str]:
    server, reason = str(p.get("server", "The server")), str(p.get("reason", ""))
    said = f" ({p['text']})" if p.get("text") else ""
    match p.get("why", ""):
        case "token_refused":
            return f"{server} refuses the token", "Make a new personal access token in your account there"
        case "token_kind":
            return (
                f"This is the token of a {p.get('kind', 'task')}, not yours",
                "Give a personal access token (it begins with mul_)",
            )
        case "token_unfit":
            return "The token has characters that no token has", "Copy it again, whole and alone"
        case "account":
            return f"{server} lets your account do nothing{said}", "Ask whoever runs that server"
        case "not_a_server" if 300 <= int(p.get("status") or 0) < 400:
            return (
                f"{server} sends requests elsewhere",
                "Give the address that it sends to: https:// instead?",
            )
        case "not_a_server":
            return f"What answers at {server} is no Multica server", "Give the address of the server itself"
        case "no_answer" if reason == "tls":
            what = p.get("text") or "its certificate is not valid"
            return (
                f"There is no secure connection to {server}: {what}",
                "For a certificate of your own, set SSL_CERT_FILE for the daemon",
            )
        case "no_answer":
            return f"{server} does not answer: {_NO_ANSWER.get(reason, reason)}", "Check address and network"
        case _:
            return f"{server} answers with status {p.get('status', '?')}{said}", "Try again later"


def _keyring(p: Mapping[str, Any]) -> tuple[str, str]:
    what = "stored in" if p.get("action") == "keep" else "removed from"
    hint = (
        "Unlock it and try again, or keep the token in a file with `--store file`"
        if p.get("action") == "keep"
        else "Unlock it and try again"
    )
    why = {
        "keyring_locked": "it is locked",
        "keyring_absent": "none runs here",
        "keyring_timeout": "it does not answer",
        "unreadable": str(p.get("detail") or "the disk does not take it"),
    }.get(str(p.get("why")), str(p.get("detail") or p.get("why") or "it failed"))
    return f"The token cannot be {what} the system keyring: {why}", hint


def _delegation_limit(p: Mapping[str, Any]) -> tuple[str, str]:
    limit = p.get("limit", "?")
    match str(p.get("why")):
        case "depth" if limit == 0:
            return "Tasks may not hand on work here", "The setting delegation.depth allows it"
        case "depth":
            return (
                "This task was handed on itself, and may not hand on more",
                f"The setting delegation.depth is {limit}: do it here",
            )
        case "open":
            return (
                f"{limit} tasks that were handed on from here are not over yet",
                "Wait for one of them: `ostler task delegate list` shows them",
            )
        case _:
            return (
                f"This task has handed on {limit} tasks, and more are not allowed",
                "The setting delegation.per_task says how many",
            )


_HOLDERS: Final = {"update": "An update is being applied", "stop": "The daemon is stopping"}

_REFUSALS: Final[dict[str, tuple[int, _Maker]]] = {
    "sign_in_failed": (EXIT_FAILED, _sign_in),
    "credential_store": (EXIT_FAILED, _keyring),
    "repository_refused": (EXIT_USAGE, _repository),
    "not_found": (
        EXIT_NOT_FOUND,
        lambda p: (
            ("You are signed in at no server", "`ostler login --server URL` adds one")
            if p.get("kind") == "connection" and not p.get("id")
            else (
                f"There is no {p.get('kind', 'task')} {p.get('id', '')}".rstrip(),
                _NOT_FOUND_HINTS.get(str(p.get("kind", "task")), ""),
            )
        ),
    ),
    "ambiguous_id": (
        EXIT_USAGE,
        lambda p: (
            f"{p.get('id', '')} matches several: {_joined(p.get('candidates'))}",
            "Give more of the id",
        ),
    ),
    "conflict": (EXIT_CONFLICT, _conflict),
    "busy": (
        EXIT_CONFLICT,
        lambda p: (f"The {p.get('kind', 'thing')} {p.get('id', '')} is in use", "Wait until its tasks ended"),
    ),
    "barrier_up": (
        EXIT_CONFLICT,
        lambda p: (
            _HOLDERS.get(str(p.get("reason")), "Taking tasks is paused"),
            "`ostler daemon resume` goes on" if p.get("reason") not in _HOLDERS else "Try again in a minute",
        ),
    ),
    "invalid_input": (EXIT_USAGE, _invalid),
    "delegation_limit": (EXIT_CONFLICT, _delegation_limit),
    "directory_taken": (
        EXIT_CONFLICT,
        lambda p: (
            f"The directory {p.get('path', '')} is in use by another task",
            "Leave --dir out: the task gets a directory of its own",
        ),
    ),
    "too_large": (
        EXIT_USAGE,
        lambda p: (
            f"This is larger than the daemon takes ({p.get('limit_bytes', '?')} bytes)",
            "Make it shorter",
        ),
    ),
    "unknown_runtime": (
        EXIT_NOT_FOUND,
        lambda p: (
            f"There is no runtime {p.get('runtime', '')}",
            f"There are: {_joined(p.get('known'))}",
        ),
    ),
    "runtime_unusable": (
        EXIT_CONFLICT,
        lambda p: (
            f"The runtime {p.get('runtime', '')} cannot be used: "
            f"{runtime_reason(str(p.get('reason', '')), p.get('reason_params') or {})}",
            "`ostler runtimes` shows what can",
        ),
    ),
    "no_agent": (
        EXIT_NOT_FOUND,
        lambda p: (
            "No agent was found on this machine",
            "Install one, or add `--runtime shell` to run the prompt as a command",
        ),
    ),
    "no_such_agent": (
        EXIT_NOT_FOUND,
        lambda p: (
            f"There is no agent {p.get('agent', '')}",
            f"There are: {_joined(p.get('known'))}" if p.get("known") else "Add one with `ostler agent add`",
        ),
    ),
    "agent_exists": (
        EXIT_CONFLICT,
        lambda p: (
            f"There is an agent {p.get('agent', '')} already",
            f"Change it with `ostler agent edit {p.get('agent', '')}`",
        ),
    ),
    "directory_not_found": (
        EXIT_USAGE,
        lambda p: (f"The directory {p.get('path', '')} does not exist", "Make it first, or give another one"),
    ),
    "directory_not_a_directory": (
        EXIT_USAGE,
        lambda p: (f"{p.get('path', '')} is not a directory", "Give the directory it is in"),
    ),
    "directory_not_writable": (
        EXIT_USAGE,
        lambda p: (
            f"The directory {p.get('path', '')} cannot be written to",
            "Check its permissions, or give another one",
        ),
    ),
    "directory_not_readable": (
        EXIT_USAGE,
        lambda p: (
            f"The directory {p.get('path', '')} cannot be listed",
            "Check its permissions, or give another one",
        ),
    ),
    "directory_protected": (
        EXIT_USAGE,
        lambda p: (
            f"No agent may work in {p.get('path', '')}: the path is protected",
            "Give a directory inside it",
        ),
    ),
    "directory_not_absolute": (
        EXIT_USAGE,
        lambda p: (f"The directory {p.get('path', '')} is not an absolute path", "Give the whole path"),
    ),
    "directory_outside": (
        EXIT_USAGE,
        lambda p: (
            f"{p.get('path', '')} is outside of the task's directory",
            f"Give {p.get('work_dir', 'it')} or a directory inside it",
        ),
    ),
    "hub_disabled": (
        EXIT_CONFLICT,
        lambda p: (
            "The embedded server is switched off, so this machine has no tasks of its own",
            "Switch it on with `ostler config set hub.enabled true`, then `ostler daemon restart`",
        ),
    ),
    "settings_invalid": (
        EXIT_USAGE,
        lambda p: (
            f"The settings are not valid: {_place(p)}{p.get('what', '')}",
            str(p.get("hint") or "Correct them with `ostler config edit`"),
        ),
    ),
    **{code: (EXIT_CONFLICT, maker) for code, maker in resident_words.REFUSALS.items()},
    **{code: (EXIT_CONFLICT, maker) for code, maker in update_words.REFUSALS.items()},
    "refused_from_run": (
        EXIT_REFUSED,
        lambda p: (
            "A task that Ostler runs must not do this",
            "Ask the user to do it in a terminal of their own",
        ),
    ),
    "refused_peer": (EXIT_REFUSED, _peer),
    "no_such_route": (
        EXIT_CONFLICT,
        lambda p: (
            "The daemon is of another version than this command and does not know the request",
            "`ostler daemon restart` brings it to this version",
        ),
    ),
    "not_ready": (
        EXIT_UNREACHABLE,
        lambda p: ("Ostler's daemon is starting or stopping", "Try again in a few seconds"),
    ),
    "internal": (
        EXIT_FAILED,
        lambda p: (
            (f"The daemon could not do this: {p['detail']}", "Check the disk and its permissions")
            if p.get("detail")
            else ("The daemon could not do this", "`ostler daemon logs -n 50` shows what went wrong")
        ),
    ),
}


def refusal(code: str, params: Mapping[str, Any]) -> Wording:
    """Message, hint and exit code of a refusal."""
    exit_code, maker = _REFUSALS.get(code, (EXIT_FAILED, _unknown(code)))
    if code == "sign_in_failed" and params.get("why") in ("token_refused", "token_kind", "account"):
        exit_code = EXIT_REFUSED
    elif code == "sign_in_failed" and params.get("why") == "token_unfit":
        exit_code = EXIT_USAGE
    message, hint = maker(params)
    return Wording(message, hint, exit_code)


def _unknown(code: str) -> _Maker:
    return lambda p: (
        f"The daemon refused this: {code}" + (f" ({dict(p)})" if p else ""),
        "This command may be older than the daemon",
    )


def unreachable(why: str) -> Wording:
    """For a daemon that did not answer."""
    if why == "timeout":
        return Wording(
            "Ostler's daemon does not answer",
            "Wait a moment; if it stays so, `ostler daemon stop --force` ends it and runs go on",
            EXIT_UNREACHABLE,
        )
    if why == "foreign":
        return Wording(
            "Another user's program listens at the daemon's place", "Check OSTLER_HOME", EXIT_REFUSED
        )
    if why == "broken":
        return Wording(
            "The connection to Ostler's daemon broke off",
            "Check it with `ostler daemon status`",
            EXIT_UNREACHABLE,
        )
    return Wording(NOT_RUNNING, START_HINT, EXIT_UNREACHABLE)


# --- reasons ---------------------------------------------------------------------------------------

_RUNTIME_REASONS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "not_supported_yet": lambda p: "Ostler cannot drive it yet",
    "version_too_old": lambda p: (
        f"version {p.get('version', '?')} is too old, {p.get('min_version', '?')} or newer is needed"
    ),
    "probe_timed_out": lambda p: f"it did not tell its version within {p.get('limit_s', '?')} s",
    "probe_not_started": lambda p: f"it cannot be started ({p.get('error', 'no reason given')})",
    "probe_failed": lambda p: (
        f"asked for its version it failed with exit code {p.get('exit_code', '?')}"
        + (f": {p['output']}" if p.get("output") else "")
    ),
    "version_unreadable": lambda p: f"it tells no version that can be read: {p.get('output', '')}",
    "another_program": lambda p: "it does not answer as it should: it may be another program of that name",
    "not_executable": lambda p: f"{p.get('path', 'its program')} cannot be executed",
    "usage_limit": lambda p: (
        "its account has reached a limit, nothing is claimed for it"
        + (f" until {_clock(p['until'])}" if p.get("until") else "")
    ),
    "not_found": lambda p: f"{p.get('executables', 'its program')} was not found in PATH",
    "override_not_found": lambda p: (
        f"{p.get('path', '?')}, set in {p.get('source', 'the settings')}, is not there"
    ),
    "wrong_architecture": lambda p: (
        f"it is a program for {p.get('built_for', 'another machine')}, and this is {p.get('machine', '?')}"
    ),
    "interpreter_missing": lambda p: f"what it needs to start, {p.get('interpreter', '?')}, was not found",
    "provider_invalid": lambda p: f"{_place(p)}{p.get('what', '')}",
    "not_signed_in": lambda p: "it is not signed in",
    "disabled": lambda p: "switched off in the settings",
    "hub_disabled": lambda p: "the embedded server is switched off",
    "switched_off": lambda p: "switched off by you",
    "agent_gone": lambda p: "its agent is not offered any more; tasks of it that run go on",
    "profile_unusable": lambda p: str(p.get("detail") or "its custom profile cannot be used here"),
    "lost_at_server": lambda p: "the server does not know it any more; it is being registered again",
    "not_registered": lambda p: "it is not registered yet",
    "unreachable": lambda p: "its server does not answer",
    "signed_out": lambda p: "signed out of its server",
}


def runtime_reason(code: str, params: Mapping[str, Any]) -> str:
    if not code:
        return ""
    maker = _RUNTIME_REASONS.get(code)
    if maker is not None:
        return maker(params)
    return str(params.get("detail") or code)


_RUNTIME_HINTS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "version_too_old": lambda p: "Update it, then `ostler runtimes --refresh`",
    "probe_timed_out": lambda p: "Run it with --version yourself to see what it waits for",
    "probe_not_started": lambda p: "Install it again",
    "probe_failed": lambda p: "Run it with --version yourself to see what is wrong",
    "version_unreadable": lambda p: "Run it with --version yourself: it may be another program of that name",
    "another_program": lambda p: "Update it, or name the right one with `ostler config set agents.NAME.path`",
    "wrong_architecture": lambda p: "Install the one for this machine",
    "interpreter_missing": lambda p: (
        f"Install {p.get('interpreter', 'it')}, or put it in the PATH of your shell"
    ),
    "not_executable": lambda p: f"Allow it with `chmod +x {p.get('path', '')}`",
    "override_not_found": lambda p: "Correct it with `ostler config edit`",
    "provider_invalid": lambda p: str(p.get("hint") or "Correct it, then `ostler runtimes --refresh`"),
    "disabled": lambda p: "",
}


def runtime_hint(code: str, params: Mapping[str, Any]) -> str:
    """What to do about it; may be empty."""
    maker = _RUNTIME_HINTS.get(code)
    return maker(params) if maker is not None else ""


def _signed_out(p: Mapping[str, Any]) -> str:
    server = p.get("server", "the server")
    why = {
        "token_refused": "it refuses the token",
        "keyring_locked": "the keyring with its token is locked",
        "keyring_absent": "the keyring with its token cannot be reached",
        "keyring_timeout": "the keyring with its token does not answer",
        "keyring_failed": "the keyring with its token failed",
        "missing": "its token is gone from this machine",
        "unreadable": "the file with its token cannot be read",
        "not_listed": "its address is not known any more",
    }.get(str(p.get("reason", "")), "")
    return f"Signed out of {server}" + (f": {why}" if why else "") + "; its results wait here"


def _unreachable(p: Mapping[str, Any]) -> str:
    server, reason = p.get("server", "The server"), str(p.get("reason", ""))
    if reason == "http_status":
        return f"{server} answers that it cannot (status {p.get('status', '?')}); tasks that run here go on"
    why = _NO_ANSWER.get(reason, "")
    return f"{server} does not answer" + (f": {why}" if why else "") + "; tasks that run here go on"


def _network_down(p: Mapping[str, Any]) -> str:
    if p.get("reason") == "name_not_resolved":
        return f"Waiting for the network: the name {p.get('host', 'of the server')} is not found"
    return f"Waiting for the network to reach {p.get('server', 'the server')}"


_CONNECTION_NOTES: Final = {
    "insecure": (
        "The token goes over the network unencrypted: anybody on the way can read it",
        "Use an https:// address",
    ),
    "no_workspace": ("You are in no workspace there yet", "Join one; it is noticed by itself"),
}


def connection_note(code: str) -> tuple[str, str]:
    """What the user has to know of a connection that was just made, and what to do about it."""
    return _CONNECTION_NOTES.get(code, (code.replace("_", " ").capitalize(), ""))


_CONDITIONS: Final[dict[str, tuple[Callable[[Mapping[str, Any]], str], str]]] = {
    "paused": (lambda p: "Taking tasks is paused", "`ostler daemon resume` goes on"),
    "update_barrier": (lambda p: "An update is being applied", ""),
    "update_blocked": (update_words.blocked, "`ostler update status` says more"),
    "signed_out": (_signed_out, "Sign in again with `ostler login --server URL`"),
    "network_down": (_network_down, ""),
    "servers_damaged": (
        lambda p: f"The list of servers was damaged; it was set aside as {p.get('path', 'a copy')}",
        "Sign in again at each with `ostler login --server URL`",
    ),
    "server_unreachable": (
        _unreachable,
        "It is tried again by itself; `ostler connections --retry` tries now",
    ),
    "server_refuses": (
        lambda p: (
            f"{p.get('server', 'The server')} answers and refuses ({p.get('text') or p.get('status', '?')})"
        ),
        "Check its address and your account there",
    ),
    "runtime_lost": (lambda p: f"{p.get('server', 'The server')} forgot {p.get('runtime', 'a runtime')}", ""),
    "no_agents": (
        lambda p: "No agent was found on this machine; the shell runtime is always there",
        "Install one, then `ostler runtimes --refresh`",
    ),
    "agent_missing": (lambda p: f"{p.get('provider', 'An agent')} was not found", "Install it"),
    "agent_too_old": (
        lambda p: f"{p.get('provider', 'An agent')} {p.get('version', '')} is too old",
        "Update it",
    ),
    "agent_not_signed_in": (lambda p: f"{p.get('provider', 'An agent')} is not signed in", "Sign in with it"),
    "path_not_found": (lambda p: "The PATH of your login shell could not be read", ""),
    "disk_full": (lambda p: f"The disk of {p.get('path', 'the data')} is full", "Free some space"),
    "disk_low": (
        lambda p: f"The disk of {p.get('path', 'the data')} is nearly full: no tasks are taken",
        "Free some space; `ostler disk` shows what Ostler has there",
    ),
    "silent": (
        lambda p: (
            ("It has made no progress" if p.get("kind") == "progress" else "It has been silent")
            + f" for long; if that goes on it is ended at {_clock(p.get('ends_at'))}"
        ),
        "`ostler task extend ID` gives it more time",
    ),
    "agent": (lambda p: str(p.get("text", "")), ""),
    "warning": (lambda p: str(p.get("text", "")), ""),
    "usage_limit": (
        lambda p: (
            f"{p.get('provider', 'An agent')} has reached its usage limit"
            + (f"; that resets at {_clock(p['until'])}" if p.get("until") else "")
        ),
        "",
    ),
    "spend_limit": (
        lambda p: (
            f"The spend limit of the day is reached (${p.get('spent', 0):.2f} of ${p.get('limit', 0):.2f});"
            " no more tasks are taken before midnight, what runs goes on"
        ),
        "`ostler spend continue` takes tasks again today",
    ),
    "spend_near": (
        lambda p: f"${p.get('spent', 0):.2f} of the day's limit of ${p.get('limit', 0):.2f} were spent",
        "`ostler spend` shows by what",
    ),
    "prices_invalid": (
        lambda p: f"{p.get('path', 'prices.toml')} cannot be used: {p.get('what', '')}",
        "Correct it, then `ostler daemon restart`; runs go on",
    ),
    "crash_loop": (lambda p: "The daemon crashed several times", "`ostler daemon logs` shows the last lines"),
    "version_mismatch": (
        lambda p: f"The daemon is version {p.get('version', '?')}, this command another",
        "`ostler daemon restart`",
    ),
    "port_in_use": (
        lambda p: f"Port {p.get('port', '?')} is in use by another program",
        "End that program, or set another with `ostler config set daemon.port`",
    ),
    "journal_damaged": (
        lambda p: f"The record of tasks was damaged; it was set aside as {p.get('path', 'a copy')}",
        "",
    ),
    "settings_invalid": (
        lambda p: f"The settings are not valid: {_place(p)}{p.get('what', '')}",
        "`ostler config edit`",
    ),
    "provider_invalid": (
        lambda p: f"An agent of your own cannot be used: {_place(p)}{p.get('what', '')}",
        "Correct it, then `ostler runtimes --refresh`",
    ),
    "resident_gave_up": (
        resident_words.gave_up,
        "`ostler resident logs ID` shows its last words, `ostler resident start ID` tries again",
    ),
    "resident_invalid": (resident_words.invalid, "Correct the file, then `ostler resident list`"),
    "daemon_not_answering": (
        lambda p: "The daemon runs and does not answer",
        "If it stays so, `ostler daemon stop --force` ends it; runs go on",
    ),
    "no_runtime": (lambda p: "No runtime here can do it", "`ostler runtimes` shows why"),
    "runtime_offline": (lambda p: "Its runtime is offline", "`ostler runtimes` shows why"),
    "conversation_busy": (lambda p: "An earlier task of this conversation goes on", ""),
    "agent_busy": (lambda p: "Its agent has as many tasks as it may have at once", ""),
    "local_directory": (lambda p: str(p.get("detail") or "Another task works in the directory"), ""),
    "hub_damaged": (
        lambda p: f"The local tasks were damaged; they were set aside as {p.get('path', 'a copy')}",
        "",
    ),
    "hub_lost": (
        lambda p: f"The local tasks are gone: {p.get('path', 'their file')} was missing or empty",
        "If there is a copy of the file: `ostler daemon stop`, put it back, start again",
    ),
    "waiting_turn": (lambda p: "An earlier task of this conversation goes on", ""),
    "waiting_slot": (lambda p: "All slots are in use", ""),
    "waiting_model": (
        lambda p: f"As many runs with {p.get('model', 'its model')} go on as may ({p.get('limit', '?')})",
        "",
    ),
    "waiting_directory": (_waiting_directory, ""),
    "waiting_runtime": (lambda p: f"{p.get('runtime', 'Its runtime')} is not online", ""),
    "waiting_jobs": (
        lambda p: (
            "Its agent has ended its turn; it is told when its background jobs end"
            + (f", until {_clock(p['until'])}: then its server would end it" if p.get("until") else "")
        ),
        "",
    ),
    "waiting_wake": (lambda p: "Its background jobs have ended; it goes on when a slot is free", ""),
    "wake_limit": (
        lambda p: f"“{p.get('title', 'A task')}” was woken by its background jobs often enough for now",
        "It goes on, and is told of them, when you reply to it",
    ),
    "result_not_wanted": (
        lambda p: "A server had ended a task that still ran here; its result is kept on this machine",
        "",
    ),
}


def condition(code: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """What is so, and what to do about it (may be empty)."""
    if code in _CONDITIONS:
        maker, hint = _CONDITIONS[code]
        return maker(params), hint
    return code.replace("_", " ").capitalize() + (f" ({dict(params)})" if params else ""), ""


_DISK_REASONS: Final = {
    "in_use": "a task works in it",
    "conversation": "its conversation is kept",
    "conversation_gone": "its conversation was deleted",
    "archived": "its conversation was archived",
    "issue_open": "its issue is open",
    "issue_done": "its issue is done",
    "run_open": "its task goes on",
    "run_over": "its task is over",
    "orphan": "nothing is known of it",
    "not_known": "its server does not know it",
    "no_answer": "its server does not answer",
    "local_directory": "it belongs to a directory of yours",
    "over_budget": "everything together takes more than the budget",
    "unused": "no task has used it for long",
}


def disk_reason(code: str) -> str:
    """Why a directory is kept, or goes."""
    return _DISK_REASONS.get(code, code.replace("_", " "))


_CHANGE_NOTES: Final[dict[str, Callable[[Mapping[str, Any]], tuple[str, str]]]] = {
    "bounded": lambda p: (
        f"The directory is too large to see all of it: {p.get('count', 'some')} directories were left out",
        "In a git repository everything is seen",
    ),
    "copies_cut": lambda p: ("Not every file was kept to compare with, so some have no diff", ""),
    "diff_cut": lambda p: ("Long diffs were cut", "Look at the files themselves"),
    "files_cut": lambda p: (f"{p.get('total', 'More')} files changed; the first ones are shown", ""),
    "before_unknown": lambda p: (
        f"Your own changes of before cannot be told apart in {p.get('path') or 'the directory'}: too large",
        "",
    ),
    "base_unknown": lambda p: (
        f"Where {p.get('path', 'a repository')} began is not known: only what is not committed is shown",
        "",
    ),
    "not_compared": lambda p: (
        f"{p.get('path') or 'The directory'} could not be compared: {p.get('why', 'no reason given')}",
        "",
    ),
    "no_baseline": lambda p: (
        "What it changed is not known: it has not begun, or began before there was anything to compare with",
        "",
    ),
}


def change_note(code: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """What the reader of a diff has to know, and what to do about it."""
    maker = _CHANGE_NOTES.get(code)
    return maker(params) if maker is not None else (code.replace("_", " ").capitalize(), "")


_STATES: Final = {
    "queued": "queued",
    "dispatched": "being prepared",
    "waiting_local_directory": "waits for its directory",
    "running": "running",
    "parked": "parked",
    "completed": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}


def task_state(status: str, needs_input: bool = False) -> str:
    return "needs you" if needs_input else _STATES.get(status, status)


_FAILURES: Final = {
    "queued_expired": "it waited too long for a runtime",
    "runtime_offline": "its runtime was offline",
    "runtime_recovery": "its run was lost in a restart of this machine",
    "timeout": "it ran into its time limit",
    "iteration_limit": "the agent reached its limit of steps",
    "agent_blocked": "the agent could not go on",
    "api_invalid_request": "the model's server refused the request",
    "agent_fallback_message": "the agent gave no real result",
    "codex_semantic_inactivity": "the agent made no progress",
    "idle_watchdog": "the agent was silent for too long",
    "local_directory_error": "its directory could not be used",
    "cancelled": "it was cancelled",
    "agent_error.provider_auth_or_access": "the agent is not signed in, or may not use the model",
    "agent_error.provider_quota_limit": "the agent's usage limit is reached",
    "agent_error.provider_capacity_or_rate_limit": "the model's server was too busy",
    "agent_error.provider_server_error": "the model's server had an error",
    "agent_error.provider_network": "the model's server could not be reached",
    "agent_error.process_failure": "the agent's process failed",
    "agent_error.empty_or_unparseable_output": "the agent said nothing that could be understood",
    "agent_error.agent_timeout": "the agent ran into a time limit of its own",
    "agent_error.context_overflow": "the conversation is longer than the model takes",
    "agent_error.missing_config": "the agent lacks a setting",
    "agent_error.model_not_found_or_unavailable": "the model does not exist or cannot be used",
    "agent_error.runtime_version_unsupported": "the agent's version is too old",
    "agent_error.runtime_missing_executable": "the agent's program is gone",
    "agent_error.unknown": "it could not be done",
}


def failure(reason: str) -> str:
    """Why a task failed, to follow "failed: "."""
    return _FAILURES.get(reason, reason)
