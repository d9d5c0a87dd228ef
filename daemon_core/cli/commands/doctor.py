"""``ostler doctor``: what Ostler needs, each with a verdict. Works with the daemon down or broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

import daemon_core
from daemon_core.cli.base import Command, pass_session
from daemon_core.cli.checks import Check
from daemon_core.cli.session import Session
from daemon_core.cli.words import (
    EXIT_FAILED,
    NOT_RUNNING,
    START_HINT,
    condition,
    plural,
    runtime_hint,
    runtime_reason,
    sentence,
    unreachable,
)
from daemon_core.settings import installed
from daemon_core.settings.errors import SettingsError

if TYPE_CHECKING:
    from daemon_core.control.views import DaemonStatus, RuntimeView
    from daemon_core.settings.sections import Settings

_LOW_BYTES: Final = 1024**3
_FULL_BYTES: Final = 100 * 1024**2
_PROBE_S: Final = 10.0


@click.command(cls=Command)
@click.option("--run-agents", is_flag=True, help="Also give each agent a tiny task. Uses your accounts.")
@click.option("--agent", "agents", multiple=True, metavar="RUNTIME", help="Give only this one a tiny task.")
@pass_session
def doctor(session: Session, run_agents: bool, agents: tuple[str, ...]) -> int:
    """Check what Ostler needs. Exit code 1 where something is wrong."""
    found = list(checks(session))
    if run_agents or agents:
        from daemon_core.cli.commands.doctor_runs import dry_runs

        found += dry_runs(session, agents, all_of_them=run_agents)
    if session.json:
        session.document({"checks": [asdict(check) for check in found]})
    else:
        size = max(len(check.name) for check in found)
        for check in found:
            mark = "ok  " if check.ok else "FAIL"
            click.echo(f"{mark}  {check.name.ljust(size)}  {sentence(check.detail, check.hint)}")
        wrong = sum(not check.ok for check in found)
        click.echo("All is well." if not wrong else f"{plural(wrong, 'check')} failed.")
    return 0 if all(check.ok for check in found) else EXIT_FAILED


def checks(session: Session) -> Iterator[Check]:
    """Every check, in the order in which one failing may explain the next."""
    yield _python()
    yield from _guarded("directories", lambda: _directories(session))
    settings = None
    try:
        settings = _load(session)
        yield _settings(session)
    except SettingsError as error:
        place = f"{error.file}:{error.line}" if error.line is not None else f"{error.file or error.key}"
        yield Check("settings", False, f"{place}: {error.what}", error.hint)
    yield from _guarded("disk space", lambda: _disk(session))
    yield _git()
    yield _interpreter()
    status: DaemonStatus | None = None
    try:
        status, check = _daemon(session)
        yield check
    except SettingsError as error:
        yield Check("daemon", False, str(error.what), error.hint)
    except OSError as error:  # its lock file: the checks of agents and servers help all the same
        yield Check("daemon", False, f"{error.filename or 'daemon'}: {error.strerror or error}")
    if status is not None:
        for entry in status.conditions:
            what, hint = condition(entry.code, entry.params)
            yield Check(entry.code.replace("_", " "), False, what, hint)
        yield from _servers_of_daemon(session)
        yield from _agents_of_daemon(session)
    else:
        yield from _guarded("servers", lambda: _stored_servers(session))
        yield from _guarded("port", lambda: _port(session, settings))
        yield from _agents_here(session, settings)


def _guarded(name: str, check: Callable[[], Check]) -> Iterator[Check]:
    try:
        yield check()
    except SettingsError as error:
        yield Check(name, False, f"{error.file}: {error.what}" if error.file else error.what, error.hint)
    except OSError as error:
        yield Check(name, False, f"{error.filename or name}: {error.strerror or error}")


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check("python", True, f"{version} at {sys.executable}, ostler {daemon_core.__version__}")


def _directories(session: Session) -> Check:
    directories = session.directories
    directories.ensure()
    kept = (directories.config, directories.data, directories.state, directories.cache, directories.run)
    for place in kept:
        probe = place / f".doctor-{os.getpid()}"
        probe.touch(0o600)
        probe.unlink()
    return Check("directories", True, f"{directories.state} and four more are yours alone and writable")


def _load(session: Session) -> Settings:
    from daemon_core.settings import file

    return file.load(session.directories.config_file, os.environ)


def _settings(session: Session) -> Check:
    from daemon_core.settings import file

    path = session.directories.config_file
    suspects = file.unknown_overrides(os.environ)
    if suspects:
        given, meant = suspects[0]
        return Check("settings", False, f"{given} in the environment is no setting", f"Did you mean {meant}?")
    detail = f"{path} is valid" if path.exists() else f"Defaults only: there is no {path}"
    return Check("settings", True, detail)


def _disk(session: Session) -> Check:
    worst: tuple[int, Path] | None = None
    for place in {session.directories.state, session.directories.data}:
        existing = next(parent for parent in (place, *place.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        if worst is None or free < worst[0]:
            worst = (free, existing)
    assert worst is not None
    free, place = worst
    told = f"{free / 1024**3:.1f} GiB free at {place}"
    if free < _FULL_BYTES:
        return Check("disk space", False, told, "Free some space: runs stop writing when it is full")
    return Check("disk space", True, told, "Free some space soon" if free < _LOW_BYTES else "")


def _git() -> Check:
    path = shutil.which("git")
    if path is None:
        return Check("git", True, "git was not found", "Install it for tasks that work on repositories")
    return Check("git", True, _first_line([path, "--version"]) or path)


def _interpreter() -> Check:
    """What keeps runs alive: packaged, a program of its own; else this interpreter, isolated and without site
    packages."""
    if installed.FROZEN:
        return _supervisor(installed.beside("ostler-shim"))
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", "import socket, fcntl, json"],
            capture_output=True,
            timeout=_PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("supervisor", False, f"{sys.executable} does not start: {error}", "Install Ostler again")
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        detail = f"{sys.executable} lacks parts: {said[-1] if said else done.returncode}"
        return Check("supervisor", False, detail, "Install Ostler again with a complete Python")
    return Check("supervisor", True, f"{sys.executable} can keep runs alive")


def _supervisor(program: str) -> Check:
    """Started without a run it only says how it is used; that it starts is what is asked here."""
    try:
        done = subprocess.run([program], capture_output=True, timeout=_PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("supervisor", False, f"{program} does not start: {error}", "Install Ostler again")
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        detail = f"{program} does not start: {said[-1] if said else f'exit code {done.returncode}'}"
        return Check("supervisor", False, detail, "Install Ostler again")
    return Check("supervisor", True, f"{program} can keep runs alive")


def _daemon(session: Session) -> tuple[DaemonStatus | None, Check]:
    from daemon_core.control.client import DaemonUnreachableError
    from daemon_core.control.errors import ControlError
    from daemon_core.control.views import DaemonStatus
    from daemon_core.settings import lock

    try:
        status = session.client.call(DaemonStatus, "GET", "/v1/status")
    except ControlError as error:
        return None, Check("daemon", False, f"The daemon refuses: {error.code}", "`ostler daemon restart`")
    except DaemonUnreachableError as error:
        if error.why == "absent" and not lock.held(session.directories.lock_file):
            return None, Check("daemon", False, NOT_RUNNING, START_HINT)
        words = unreachable("timeout" if error.why == "absent" else error.why)
        return None, Check("daemon", False, words.message, words.hint)
    told = f"{status.status}, version {status.version}, pid {status.pid}, port {status.port}"
    if status.version != daemon_core.__version__:
        hint = f"This command is {daemon_core.__version__}; `ostler daemon restart` brings both together"
        return status, Check("daemon", True, told, hint)
    return status, Check("daemon", True, told)


def _servers_of_daemon(session: Session) -> Iterator[Check]:
    """Every server but the hub, and where its token is; what is wrong with one is among the conditions."""
    from daemon_core.control.client import DaemonUnreachableError
    from daemon_core.control.connection_views import ConnectionDetail
    from daemon_core.control.errors import ControlError

    try:
        found = session.client.call(list[ConnectionDetail], "GET", "/v1/connections")
    except (DaemonUnreachableError, ControlError) as error:
        yield Check("servers", False, f"The daemon does not tell its servers: {error}")
        return
    for entry in found:
        if not entry.embedded:
            kept = _kept(entry.credential.place, entry.credential.detail)
            yield Check(
                f"server {entry.name}", True, f"{entry.status.replace('_', ' ')}, {entry.url}; {kept}"
            )


def _stored_servers(session: Session) -> Check:
    """With the daemon down: what it will connect to."""
    from daemon_core.settings import servers

    try:
        found = servers.read(session.directories.servers_file)
    except ValueError as error:
        return Check("servers", False, f"{session.directories.servers_file}: {error}", "Sign in again")
    told = [
        f"{entry.name} ({_kept(entry.place, _credential_place(session, entry.name, entry.place))})"
        for entry in found
    ]
    return Check("servers", True, ", ".join(told) or "None but the embedded one")


def _credential_place(session: Session, name: str, place: str) -> str:
    return str(session.directories.credentials / f"{name}.token") if place == "file" else ""


def _kept(place: str, detail: str) -> str:
    if place == "keyring":
        return "token in the system keyring"
    return f"token in the file {detail}" if place == "file" else "no token"


def _port(session: Session, settings: Settings | None) -> Check:
    """Only asked while the daemon is down: it would hold its own port."""
    import socket

    from daemon_core.settings import ports

    configured = settings.daemon.port if settings is not None else 0
    port = (
        configured
        or ports.stored_port(session.directories)
        or ports.default_port(session.directories.profile)
    )
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if configured:
                return Check(
                    "port",
                    False,
                    f"Port {port} cannot be had: {error.strerror}",
                    "End the program that has it, or `ostler config set daemon.port` another",
                )
            return Check(
                "port", True, f"Port {port} is in use; another will be chosen unless runs need this one"
            )
    return Check("port", True, f"Port {port} is free")


def _agents_of_daemon(session: Session) -> Iterator[Check]:
    from daemon_core.control.client import WORK_TIMEOUT_S, DaemonUnreachableError
    from daemon_core.control.errors import ControlError
    from daemon_core.control.views import RuntimeView

    try:
        found = session.client.call(list[RuntimeView], "GET", "/v1/runtimes", timeout_s=WORK_TIMEOUT_S)
    except (DaemonUnreachableError, ControlError) as error:
        yield Check("agents", False, f"The daemon does not tell its runtimes: {error}")
        return
    for entry in found:
        if entry.reason == "provider_invalid":
            continue  # a condition of the daemon, told already
        yield _agent(entry)


def _agents_here(session: Session, settings: Settings | None) -> Iterator[Check]:
    """Looked for here, while no daemon can be asked."""
    import asyncio

    from daemon_core.control.runtime_views import found_view
    from daemon_core.runtimes import discovery, providers

    known = providers.load(session.directories.providers)
    for mistake in known.mistakes:
        words = condition(
            "provider_invalid", {"file": mistake.file, "line": mistake.line, "what": mistake.what}
        )
        yield Check("provider invalid", False, words[0], mistake.hint or words[1])
    agents = settings.agents if settings is not None else {}
    off = {provider for provider, given in agents.items() if not given.enabled}
    found = asyncio.run(
        discovery.discover(
            [provider for provider in known if provider.id not in off],
            environ=os.environ,
            cache_path=session.directories.agents_cache_file,
            overrides={name: os.path.expanduser(given.path) for name, given in agents.items() if given.path},
            login_shell=settings is None or settings.discovery.login_shell,
        )
    )
    here = [agent for agent in found if agent.status != "missing" or agent.reason != discovery.NOT_FOUND]
    for agent in here:
        view = found_view(agent)
        yield _agent(msgspec.structs.replace(view, status="found", reason="") if agent.usable else view)
    if not any(agent.usable and agent.provider != "shell" for agent in here):
        yield Check("agents", True, "No agent was found but the shell", "Install Claude Code, say")


def _agent(entry: RuntimeView) -> Check:
    name = f"agent {entry.provider}"
    if entry.reason:
        reason = runtime_reason(entry.reason, entry.reason_params)
        # A provider that is simply not installed (or switched off, or not yet in reach) is nothing wrong.
        fine = entry.reason in ("not_found", "not_supported_yet", "disabled")
        told = f"{reason[:1].upper()}{reason[1:]}"
        return Check(name, fine, told, runtime_hint(entry.reason, entry.reason_params))
    what = " ".join(part for part in (entry.version, f"at {entry.path}" if entry.path else "") if part)
    told = f"{entry.status}, {what}" if what else entry.status
    if not entry.verified:
        told += "; nobody has tried this kind of agent with Ostler yet"
    if entry.signed_in == "no":
        return Check(name, True, f"{told}; nobody is signed in", entry.hint)
    return Check(name, True, told)


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PROBE_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else ""
