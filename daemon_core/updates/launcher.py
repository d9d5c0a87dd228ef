"""The launcher: at a fixed place for ever, it chooses the version that runs and becomes it.

Called as ``ostler``, ``ostlerd`` or ``ostler-desktop`` (by its own name, or with ``--as=NAME`` as first
argument). Every program runs the version that the pointer names; only the daemon's starts take part in a
trial: each is counted durably before it happens (what cannot be counted is not tried), and a guard stays
behind until it has turned out well. Whatever is damaged, something that is whole is run; where there is
nothing, one sentence says so.

It is frozen with the standard library alone, and every start of every program pays for what it imports.
Run from source it is ``python -m daemon_core.updates.launcher``, with ``OSTLER_LAUNCHER`` as its directory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from daemon_core.updates import pointer as deciding
from daemon_core.updates import profiles
from daemon_core.updates.errors import TrialGoneError
from daemon_core.updates.files import Lock, is_free
from daemon_core.updates.pointer import Pointer, Trial
from daemon_core.updates.versions import (
    MANIFEST,
    Installation,
    Store,
    app_directory,
    boot_id,
    executable,
    lock_file,
    payload_version,
)

PROGRAMS = ("ostler", "ostlerd", "ostler-desktop")
DAEMON = "ostlerd"
LAUNCHER_VARIABLE = "OSTLER_LAUNCHER"
TRIAL_VARIABLE = "OSTLER_TRIAL"
LEASE_VARIABLE = "OSTLER_LEASE_FD"
EXIT_NOTHING = 1
EXIT_USAGE = 2


class Choice(NamedTuple):
    """What to run."""

    version: str
    directory: str
    trial: Trial | None = None


class NothingError(Exception):
    """There is nothing that could be run. The argument is a sentence for people."""


def main(argv: list[str] | None = None) -> int:
    """The whole of it; comes back only where nothing was executed (or, on Windows, when that has ended)."""
    argv = list(sys.argv if argv is None else argv)
    try:
        if argv[1:2] == ["--guard"]:
            from daemon_core.updates.guard import main as guard

            return guard(argv[2:], dict(os.environ))
        program, arguments = called_as(argv)
        return launch(program, arguments, dict(os.environ))
    except NothingError as error:
        return _say(f"{error}", EXIT_NOTHING)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the boundary of the process: a sentence, never a traceback
        return _say(f"Ostler cannot be started: {str(error) or type(error).__name__}.", EXIT_NOTHING)


def called_as(argv: list[str]) -> tuple[str, list[str]]:
    """Which program is meant, and its arguments."""
    program = os.path.basename(argv[0]) if argv else ""
    if program.lower().endswith(".exe"):
        program = program[:-4]
    arguments = argv[1:]
    while arguments and arguments[0].startswith("--as="):
        program = arguments.pop(0)[len("--as=") :]
    return (program if program in PROGRAMS else PROGRAMS[0]), arguments


def launch(program: str, arguments: list[str], environ: dict[str, str]) -> int:
    """Choose and execute. Raises ``NothingError``."""
    launcher_dir = _launcher_directory(environ)
    environ = clean_environment(environ)
    environ[LAUNCHER_VARIABLE] = launcher_dir
    store = Store(app_directory(environ), Installation(launcher_dir).seed_dir())
    if program == DAEMON and is_start(arguments):
        choice = choose_for_daemon(store, profile_of(arguments, environ), environ)
    else:
        choice = choose(store, settle=program == "ostler-desktop", quick=program == "ostler")
    failed = []
    for candidate in _candidates(store, choice):
        with_lease = _leased(store, candidate)
        if with_lease is None:
            failed.append(f"{candidate.version} is being removed")
            continue
        if candidate.trial is not None and sys.platform != "win32":
            begin_guard(candidate.trial, os.getpid(), arguments, environ)
        path = executable(candidate.directory, program)
        try:
            return _become(path, arguments, candidate, with_lease, environ)
        except OSError as error:
            failed.append(f"{path}: {error.strerror or error}")
            with_lease.release()
            if candidate.trial is not None:
                _give_up(store, candidate.trial, f"{error.strerror or error}")
    raise NothingError(
        f"Ostler cannot be started: no version of it can be executed ({'; '.join(failed)}). Install it again."
    )


# --- choosing ---------------------------------------------------------------------------------------------


def choose(store: Store, *, settle: bool = False, quick: bool = False) -> Choice:
    """What a program that takes no part in trials runs.

    Args:
        settle: write down what was found out, and copy the installer's payload to the versions. A command
            does neither.
        quick: not every file is looked at, as agents call commands by the hundred: there it has to do that
            nothing was removed. The daemon's start finds out about the rest.
    """
    found = store.stored()
    if found is not None and found.seed == (payload_version(store.seed_dir) if store.seed_dir else ""):
        if quick and os.path.exists(os.path.join(store.directory(found.version), MANIFEST)):
            return Choice(found.version, store.directory(found.version))
        directory = store.place(found.version)
        if directory is not None and (not settle or directory != store.seed_dir):
            return Choice(found.version, directory)
    wanted = deciding.settled(found, store.facts())
    if settle and wanted.version:
        wanted = _kept(store, wanted)
    return _choice(store, wanted.version)


def choose_for_daemon(store: Store, profile: str, environ: Mapping[str, str]) -> Choice:
    """What the daemon of a profile runs; a start on trial is on the disk when this returns."""
    trial: Trial | None = None
    installation = Installation.of(environ)
    times = installation.trial_times() if installation is not None else {}
    try:
        with store.locked():
            found, facts = store.stored(), store.facts()
            wanted = deciding.settled(found, facts)
            # Where a daemon of the profile runs already, this start will only say so.
            if wanted.version and is_free(lock_file(environ, profile)):
                wanted, trial = profiles.started(
                    wanted, facts, profile, os.urandom(8).hex(), boot_id(), times
                )
            if wanted != found and wanted.version:
                store.write_locked(wanted)
        version = trial.version if trial is not None else profiles.version_for(wanted, facts, profile)
    except OSError:
        # No room, no right, or somebody hangs with the lock: what cannot be counted is not tried.
        facts, trial = store.facts(), None
        version = profiles.version_for(deciding.settled(store.stored(), facts), facts, profile, tried=False)
    return _choice(store, _with_seed(store, version))._replace(trial=trial)


def _kept(store: Store, wanted: Pointer) -> Pointer:
    try:
        wanted = store.change(lambda pointer: pointer)
    except OSError:
        pass  # found out again next time
    _with_seed(store, wanted.version)
    return wanted


def _with_seed(store: Store, version: str) -> str:
    """The installer's payload is copied when it is what runs."""
    if version and not store.is_complete(version):
        try:
            store.install_seed()
        except OSError:
            pass  # it runs from the installer's directory as well
    return version


def _choice(store: Store, version: str) -> Choice:
    directory = store.place(version) if version else None
    if directory is None:
        raise NothingError(
            f"Ostler cannot be started: no version of it is whole, neither in {store.versions_dir} nor where"
            " it was installed. Install it again."
        )
    return Choice(version, directory)


def _candidates(store: Store, choice: Choice) -> Iterator[Choice]:
    """The choice, then everything else that could be run, best first. That is only looked for if need be."""
    yield choice
    seen = {choice.directory}
    pointer, facts = store.stored() or Pointer(), store.facts()
    for version in deciding.order(pointer, facts):
        places = [store.directory(version)] if version in facts.complete else []
        places += [store.seed_dir] if version == facts.seed else []
        for place in places:
            if place not in seen:
                seen.add(place)
                yield Choice(version, place)


def _give_up(store: Store, trial: Trial, detail: str) -> None:
    def decide(pointer: Pointer) -> Pointer:
        return deciding.reverted(pointer, deciding.FILES, f"it cannot be executed: {detail}")

    try:
        store.of_trial(trial.id, decide)
    except (OSError, TrialGoneError):
        pass  # its starts are counted; or it is decided


# --- executing --------------------------------------------------------------------------------------------


def _leased(store: Store, choice: Choice) -> Lock | None:
    """The lease of what is about to run; None if it is gone. Without a place for leases it runs without."""
    try:
        lease = store.lease(choice.version)
    except OSError:
        return Lock("", -1)
    if lease is not None and not os.path.exists(os.path.join(choice.directory, MANIFEST)):
        lease.release()  # what is removed loses that first
        return None
    return lease


def _become(path: str, arguments: list[str], choice: Choice, lease: Lock, environ: Mapping[str, str]) -> int:
    """Execute it; the exit code where that is not the end of this process. Raises ``OSError``."""
    env = dict(environ)
    if choice.trial is not None:
        env[TRIAL_VARIABLE] = choice.trial.id
    if os.name != "nt":
        if lease.descriptor >= 0:
            env[LEASE_VARIABLE] = str(lease.hand_on())
        os.execve(path, [path, *arguments], env)
    return _spawn(path, arguments, choice, env)


def _spawn(path: str, arguments: list[str], choice: Choice, env: dict[str, str]) -> int:
    """Windows has no exec: this process stays, with the lease, until the program has ended."""
    import subprocess

    with subprocess.Popen([path, *arguments], env=env) as child:
        if choice.trial is not None:
            begin_guard(choice.trial, child.pid, arguments, env)
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue  # the program hears of it, too, and decides


def begin_guard(trial: Trial, pid: int, arguments: list[str], environ: Mapping[str, str]) -> None:
    """Leave a process behind that looks after the daemon's start. Without one (no more processes) the count
    of starts is what is left."""
    from daemon_core.updates.guard import started_at

    command = [*_self(), "--guard", str(pid), started_at(pid), trial.id, trial.start, trial.version]
    command += ["--", *arguments]
    if sys.platform == "win32":
        import subprocess

        subprocess.Popen(command, env=dict(environ), creationflags=subprocess.DETACHED_PROCESS)
        return
    try:
        child = os.fork()
    except OSError:
        return
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        os.execve(command[0], command, dict(environ))
    finally:
        os._exit(1)


def _self() -> list[str]:
    """How the launcher itself is called."""
    if getattr(sys, "frozen", False):
        return [sys.executable]
    return [sys.executable, "-m", "daemon_core.updates.launcher"]


# --- surroundings -----------------------------------------------------------------------------------------


def _launcher_directory(environ: Mapping[str, str]) -> str:
    if getattr(sys, "frozen", False):
        return os.path.dirname(os.path.realpath(sys.executable))
    found = environ.get(LAUNCHER_VARIABLE, "")
    if not os.path.isabs(found):
        raise NothingError("Ostler runs from source here: there are no installed versions to choose from.")
    return found


def profile_of(arguments: list[str], environ: Mapping[str, str]) -> str:
    """The profile that a program is started for: its option, else the variable."""
    for at, argument in enumerate(arguments):
        if argument.startswith("--profile="):
            return argument.partition("=")[2]
        if argument == "--profile" and at + 1 < len(arguments):
            return arguments[at + 1]
    return environ.get("OSTLER_PROFILE") or "default"


def is_start(arguments: list[str]) -> bool:
    """Whether the daemon's arguments are those of a start, and not a question that it answers and ends."""
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--profile" and rest:
            rest.pop(0)
        elif word != "--foreground" and not word.startswith("--profile="):
            return False
    return True


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that a frozen program was given, without what its start has added: another program
    would take the libraries of this one. Also without what concerned this process alone."""
    own = (LAUNCHER_VARIABLE, TRIAL_VARIABLE, LEASE_VARIABLE)
    found = {
        name: value
        for name, value in environ.items()
        if name not in own and not name.startswith(("_PYI_", "_MEIPASS"))
    }
    bundle = getattr(sys, "_MEIPASS", "")
    for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LIBPATH"):
        before = found.pop(f"{name}_ORIG", None)
        places = (before if before is not None else found.pop(name, "")).split(os.pathsep)
        rest = os.pathsep.join(place for place in places if place and place != bundle)
        if rest:
            found[name] = rest
        else:
            found.pop(name, None)
    return found


def _say(message: str, code: int) -> int:
    try:
        sys.stderr.write(f"ostler: {message}\n")
    except (OSError, AttributeError, ValueError):
        pass  # a program without a console has nowhere to say it
    return code


if __name__ == "__main__":
    sys.exit(main())
