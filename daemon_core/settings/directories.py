"""Where Ostler keeps its files, and that nobody else can put theirs there.

``OSTLER_HOME`` puts everything below one directory; without it the platform's own places are used. Runtime
files (the control socket) are below the *state* directory and not in ``XDG_RUNTIME_DIR``: the daemon
outlives the login session, at whose end that one is removed, and a command started by cron or over SSH has
to find the same socket.

A unix socket's path is limited (108 bytes on Linux, 104 on macOS). Where ``run/control.sock`` is longer than
``SOCKET_PATH_LIMIT_BYTES``, a private directory below ``/tmp`` named after user and run directory takes its
place. ``TMPDIR`` is deliberately not asked: two sessions may have different ones.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon_core.settings.errors import SettingsError

DEFAULT_PROFILE: Final = "default"
SOCKET_PATH_LIMIT_BYTES: Final = 100

_PROFILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)")
"""Names that Windows keeps for devices: a profile must be able to move there."""


@dataclass(frozen=True, slots=True)
class Directories:
    """The directories of one profile. Nothing is made before ``ensure``."""

    config: Path
    data: Path
    state: Path
    cache: Path
    run: Path
    profile: str = DEFAULT_PROFILE

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def providers(self) -> Path:
        """The user's own kinds of agent CLI, a file each."""
        return self.config / "providers"

    @property
    def app(self) -> Path:
        """The installed versions, which all profiles share (and the launcher finds by itself)."""
        data = self.data if self.profile == DEFAULT_PROFILE else self.data.parent.parent
        return data / "app"

    @property
    def lock_file(self) -> Path:
        return self.state / "daemon.lock"

    @property
    def info_file(self) -> Path:
        """``daemon.json``: information about the running daemon, never authority."""
        return self.state / "daemon.json"

    @property
    def id_file(self) -> Path:
        return self.state / "daemon.id"

    @property
    def id_copy(self) -> Path:
        """Of ``id_file``; not among the configuration, which people copy from machine to machine."""
        return self.data / "daemon.id"

    @property
    def servers_file(self) -> Path:
        """The servers that this profile is connected to; no secrets in it."""
        return self.state / "servers.json"

    @property
    def credentials(self) -> Path:
        """Credentials of servers on a machine without a keyring, a 0600 file each."""
        return self.state / "credentials"

    @property
    def port_file(self) -> Path:
        return self.state / "port"

    @property
    def journal_file(self) -> Path:
        return self.state / "journal.db"

    @property
    def log_dir(self) -> Path:
        return self.state / "logs"

    @property
    def log_file(self) -> Path:
        return self.log_dir / "daemon.log"

    @property
    def desktop_log_file(self) -> Path:
        """The desktop's own."""
        return self.log_dir / "desktop.log"

    @property
    def crash_file(self) -> Path:
        """What the daemon died of without another word, until its next start."""
        return self.log_dir / "daemon-crash.log"

    @property
    def desktop_crash_file(self) -> Path:
        """The same of the desktop."""
        return self.log_dir / "desktop-crash.log"

    @property
    def start_error_file(self) -> Path:
        """What a daemon started by ``ostler daemon start`` wrote to standard error."""
        return self.log_dir / "start-error.log"

    @property
    def runs(self) -> Path:
        return self.state / "runs"

    @property
    def jobs(self) -> Path:
        return self.state / "jobs"

    @property
    def resident_files(self) -> Path:
        """What describes the residents, a file each: the user's own."""
        return self.config / "residents"

    @property
    def residents(self) -> Path:
        """What is kept of them, and their runs."""
        return self.state / "residents"

    @property
    def hub_file(self) -> Path:
        return self.data / "hub.db"

    @property
    def workspaces(self) -> Path:
        return self.data / "workspaces"

    @property
    def repositories(self) -> Path:
        return self.data / "repos"

    @property
    def agents_cache_file(self) -> Path:
        return self.cache / "agents.json"

    @property
    def token_file(self) -> Path:
        """The credential for the daemon's own routes on the loopback port (0600)."""
        return self.run / "control.token"

    @property
    def control_socket(self) -> Path:
        """Path of the control socket. Pure: whether its directory is safe is ``checked_socket``'s matter."""
        return socket_path(self.run, "control.sock")

    def checked_socket(self) -> Path:
        """``control_socket``, after a look at the private directory below ``/tmp`` if it is there.

        Raises:
            SettingsError: Somebody else made that directory, or can enter it.
        """
        path = self.control_socket
        if path.parent != self.run and path.parent.exists():
            _check_private(path.parent, repair=False)
        return path

    def ensure(self) -> None:
        """Make all five directories, 0700. A place for the socket below ``/tmp`` is the server's to make.

        Raises:
            SettingsError: One belongs to another user, is no directory, or cannot be made; or its path is no
                text that could be written into a database.
        """
        for directory in (self.config, self.data, self.state, self.cache, self.run, self.log_dir):
            _check_text(directory)
            make_private(directory)


def resolve(environ: Mapping[str, str], profile: str | None = None) -> Directories:
    """The directories for ``profile`` (an option), else ``OSTLER_PROFILE``, else the default one.

    Raises:
        SettingsError: The profile's name cannot be used, or ``OSTLER_HOME`` is no place for directories.
    """
    source = "--profile" if profile is not None else "OSTLER_PROFILE"
    name = profile if profile is not None else environ.get("OSTLER_PROFILE") or DEFAULT_PROFILE
    check_profile(name, source)
    home = environ.get("OSTLER_HOME", "")
    kinds = _below(Path(os.path.abspath(os.path.expanduser(home)))) if home else _platform()
    if name != DEFAULT_PROFILE:
        kinds = {kind: path / "profiles" / name for kind, path in kinds.items()}
    return Directories(**kinds, profile=name)


def settle_home(environ: MutableMapping[str, str]) -> None:
    """Make ``OSTLER_HOME`` absolute: what is started from here has another working directory."""
    home = environ.get("OSTLER_HOME", "")
    if home:
        environ["OSTLER_HOME"] = os.path.abspath(os.path.expanduser(home))


def check_profile(name: str, source: str) -> None:
    """Refuse a profile name that could not be a directory's on every system."""
    if _PROFILE.fullmatch(name) and not _RESERVED.fullmatch(name):
        return
    raise SettingsError(
        f"{source}: {name!r} cannot be the name of a profile",
        hint="Use up to 32 of a-z, 0-9, - and _, beginning with a letter or digit",
        key=source,
    )


def _below(home: Path) -> dict[str, Path]:
    return {kind: home / kind for kind in ("config", "data", "state", "cache", "run")}


def _platform() -> dict[str, Path]:
    # Imported here: a command with OSTLER_HOME set, and every test, does without its 20 ms.
    import platformdirs

    if sys.platform in ("win32", "darwin"):
        # Configuration, data and state are one directory there; the kinds keep them apart.
        return {
            **_below(platformdirs.user_data_path("ostler", appauthor=False)),
            "cache": platformdirs.user_cache_path("ostler", appauthor=False),
        }
    state = platformdirs.user_state_path("ostler")
    return {
        "config": platformdirs.user_config_path("ostler"),
        "data": platformdirs.user_data_path("ostler"),
        "state": state,
        "cache": platformdirs.user_cache_path("ostler"),
        "run": state / "run",
    }


def socket_path(directory: Path, name: str) -> Path:
    """A path for the socket ``name`` of ``directory`` that the system can bind.

    The directory of the answer has to go through ``make_private`` before the socket is bound.
    """
    wanted = directory / name
    if sys.platform == "win32":
        return wanted  # stands for a named pipe, and that has a digest of this path for a name
    if len(os.fsencode(wanted)) <= SOCKET_PATH_LIMIT_BYTES:
        return wanted
    import hashlib

    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path(_short_temporary()) / f"ostler-{os.getuid()}-{digest}" / name


def _short_temporary() -> str:
    if sys.platform != "win32" and os.path.isdir("/tmp"):
        return "/tmp"
    import tempfile

    return tempfile.gettempdir()


def _check_text(directory: Path) -> None:
    try:
        os.fspath(directory).encode()
    except UnicodeEncodeError as error:
        raise SettingsError(
            f"the path {os.fspath(directory).encode('utf-8', 'backslashreplace').decode()} is not UTF-8 text",
            hint="Set OSTLER_HOME to another directory",
        ) from error


def make_private(directory: Path) -> None:
    """Make ``directory`` and what is missing above it, all 0700, or check that it is this user's own.

    Group and other permissions of an existing directory of the user are taken away.

    Raises:
        SettingsError: It belongs to another user, is no directory, or cannot be made.
    """
    missing = []
    path = directory
    while not os.path.lexists(path) and path != path.parent:
        missing.append(path)
        path = path.parent
    try:
        for path in reversed(missing):
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                pass  # another process of ours was faster; checked below
    except OSError as error:
        raise SettingsError(
            f"the directory cannot be made: {error.strerror}",
            hint="Make it yourself, or set OSTLER_HOME to a directory that you can write to",
            file=path,
        ) from error
    _check_private(directory, repair=True)


def _check_private(directory: Path, *, repair: bool) -> None:
    temporary = directory.parent == Path(_short_temporary())
    try:
        # Below /tmp anybody can put a link, so it is not followed there; elsewhere the user may have one.
        facts = os.lstat(directory) if temporary else os.stat(directory)
    except OSError as error:
        raise SettingsError(f"the directory cannot be read: {error.strerror}", file=directory) from error
    if not stat.S_ISDIR(facts.st_mode):
        raise SettingsError("this is not a directory", hint="Move it away", file=directory)
    if sys.platform == "win32":
        return
    if facts.st_uid != os.geteuid():
        raise SettingsError(
            f"the directory belongs to another user ({_user_name(facts.st_uid)})",
            hint="Run ostler as that user, or set OSTLER_HOME to a directory of your own",
            file=directory,
        )
    if facts.st_mode & 0o077:
        if not repair:
            raise SettingsError("other users can enter the directory", hint="Make it 0700", file=directory)
        try:
            os.chmod(directory, 0o700)
        except OSError as error:
            raise SettingsError(
                f"other users can enter the directory, and that cannot be changed: {error.strerror}",
                file=directory,
            ) from error


def _user_name(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"user id {uid}"
