"""Custom runtime profiles: an agent CLI under another command, as a workspace has defined it.

A profile names a family (a provider whose CLI the command behaves like), a command and fixed arguments. Here
it is found out what it is on this machine: the program that the user named for it, else the command in PATH
or where the user's terminal finds it. One that cannot be used is told to the server with the reason.

:func:`signature` is the change detector: equal signatures, equal profiles in all that matters for a start.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from daemon_core.connections.client import RuntimeProfile
from daemon_core.protocol import wire
from daemon_core.runtimes import discovery, probes
from daemon_core.runtimes.places import COMMON_PLACES
from daemon_core.runtimes.providers import Provider

log = logging.getLogger(__name__)

FAMILIES: Final = frozenset(
    {
        "claude", "codebuddy", "codex", "copilot", "opencode", "openclaw", "hermes", "pi", "cursor", "kimi",
        "kiro", "antigravity", "qoder",
    }
)  # fmt: skip
"""What a profile may name as its family."""
PROBE_LIMIT_S: Final = 10.0
_FNV_OFFSET: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3
_UNIT: Final = b"\x1f"
_RECORD: Final = b"\x1e"


class ResolvedProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A profile that can be started here."""

    profile_id: str
    name: str
    provider: str
    path: str
    version: str = ""
    args: tuple[str, ...] = ()
    """Given to every start, before all others."""


class ResolvedProfiles(msgspec.Struct, frozen=True, kw_only=True):
    """What the profiles of a workspace are on this machine."""

    usable: tuple[ResolvedProfile, ...] = ()
    failed: tuple[wire.FailedProfile, ...] = ()


def signature(profiles: Iterable[RuntimeProfile]) -> str:
    """One word for all that decides how these profiles are started; their names do not."""
    ordered = sorted(profiles, key=lambda profile: profile.id.encode())
    if not ordered:
        return "0"
    value = _FNV_OFFSET
    for profile in ordered:
        enabled = "true" if profile.enabled else "false"
        fields = (profile.id, enabled, profile.protocol_family, profile.command_name, profile.visibility)
        data = b"".join(field.encode() + _UNIT for field in (*fields, *profile.fixed_args)) + _RECORD
        for byte in data:
            value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return f"{value:x}"


class ProfileResolver:
    """Finds the programs of profiles and asks for their versions; what is known is not asked again.

    Args:
        provider_of: a provider by its name.
        environ: the daemon's environment, for PATH and HOME.
        path_of: the program that the user named for a profile (by id) on this machine; empty: none.
        drivable: whether a provider can be driven by this daemon.
        beyond: directories that the user's terminal looks in beside PATH.
    """

    def __init__(
        self,
        provider_of: Callable[[str], Provider | None],
        environ: Mapping[str, str],
        path_of: Callable[[str], str],
        drivable: Callable[[Provider], bool],
        *,
        beyond: Callable[[], Sequence[str]] = tuple,
        common_places: Sequence[str] = COMMON_PLACES,
    ) -> None:
        self._beyond = beyond
        self._provider_of = provider_of
        self._environ = dict(environ)
        self._path_of = path_of
        self._drivable = drivable
        self._places = common_places
        self._versions: dict[tuple[str, int, int], str] = {}
        """By real path, size and time of change."""

    async def resolve(self, profiles: Sequence[RuntimeProfile]) -> ResolvedProfiles:
        """What these are here. Looks at the disk in a thread, and starts programs it does not know yet."""
        if not profiles:
            return ResolvedProfiles()
        cancelled = threading.Event()
        work = asyncio.get_running_loop().run_in_executor(None, self._resolve, list(profiles), cancelled)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled.set()  # the programs that are being asked are ended first
            await asyncio.wait([work], timeout=2.0)
            raise

    def _resolve(self, profiles: list[RuntimeProfile], cancelled: threading.Event) -> ResolvedProfiles:
        found: dict[str, tuple[RuntimeProfile, Provider, str]] = {}
        failed: list[wire.FailedProfile] = []
        for profile in profiles:
            if not profile.enabled or not profile.command_name.strip() or not profile.protocol_family.strip():
                continue
            named, path, why = self._find(profile)
            if named is None or why:
                failed.append(_failed(profile, why))
            else:
                found[profile.id] = (profile, named, path)
        self._ask({path: named for _, named, path in found.values()}, cancelled)
        usable = []
        for profile, named, path in found.values():
            version = self._versions.get(_identity(path), "")
            if why := _too_old(named, version):
                failed.append(_failed(profile, why))
                continue
            usable.append(
                ResolvedProfile(
                    profile_id=profile.id,
                    name=profile.display_name.strip() or profile.command_name,
                    provider=named.id,
                    path=path,
                    version=version,
                    args=tuple(profile.fixed_args),
                )
            )
        return ResolvedProfiles(usable=tuple(usable), failed=tuple(failed))

    def _find(self, profile: RuntimeProfile) -> tuple[Provider | None, str, str]:
        """Provider and program of a profile, or why there is none."""
        reasons = []
        family = profile.protocol_family.strip().lower()
        named = self._provider_of(family) if family in FAMILIES else None
        if named is None:
            reasons.append(f"the protocol family {family!r} is not supported")
        elif not self._drivable(named):
            reasons.append(f"this daemon cannot drive {named.name} yet")
        chosen = self._path_of(profile.id)
        path = ""
        if chosen and os.path.isabs(chosen) and _executable(chosen):
            path = chosen
        else:
            if chosen:
                reasons.append(f"the program set for it on this machine, {chosen}, cannot be executed")
            path = self._in_path(profile.command_name.strip())
            if not path:
                reasons.append(f"the command {profile.command_name!r} was not found in PATH")
        if named is not None and self._drivable(named) and path:
            if reasons:
                log.warning("profile %s: %s; %s is used", profile.display_name, reasons[0], path)
            return named, path, ""
        return named, path, "; ".join(reasons)

    def _in_path(self, command: str) -> str:
        if os.sep in command and not os.path.isabs(command):
            return ""  # relative to what?
        home = self._environ.get("HOME", "")
        hooks = os.path.join(home, ".multica", "hooks")
        places = [
            *self._environ.get("PATH", "").split(os.pathsep),
            *self._beyond(),
            # Directories of single versions (with a ``*``) are no place for a command of the user's own.
            *(discovery.filled_place(each, self._environ) for each in self._places if "*" not in each),
        ]
        usable = [
            place
            for place in places
            # Wrappers of another daemon are not the programs themselves.
            if os.path.isabs(place) and not (place + os.sep).startswith(hooks + os.sep)
        ]
        return shutil.which(command, path=os.pathsep.join(usable)) or ""

    def _ask(self, programs: Mapping[str, Provider], cancelled: threading.Event) -> None:
        unknown = {path: named for path, named in programs.items() if _identity(path) not in self._versions}
        questions = [
            probes.Question(
                argv=(path, *named.version_args),
                env=discovery.probe_env(self._environ, path, self._beyond()),
                limit_s=PROBE_LIMIT_S,
            )
            for path, named in unknown.items()
        ]
        for path, answer in zip(unknown, probes.ask_all(questions, cancelled), strict=True):
            if answer.failure == "cancelled":
                continue
            version = discovery.version_in(answer.stdout) or discovery.version_in(answer.stderr)
            self._versions[_identity(path)] = version if not answer.failure else ""


def _identity(path: str) -> tuple[str, int, int]:
    real = os.path.realpath(path)
    try:
        facts = os.stat(real)
    except OSError:
        return real, -1, -1
    return real, facts.st_size, facts.st_mtime_ns


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _too_old(named: Provider, version: str) -> str:
    least, has = discovery.parse_version(named.min_version), discovery.parse_version(version)
    if least is None or has is None or has >= least:
        return ""
    return f"{named.name} {version} is too old, {named.min_version} or newer is needed"


def _failed(profile: RuntimeProfile, why: str) -> wire.FailedProfile:
    return wire.FailedProfile(profile_id=profile.id, command_name=profile.command_name, reason=why)
