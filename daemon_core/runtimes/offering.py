"""What one workspace is offered: the agents that were found and its custom profiles, as one comparable value.

Two equal offerings need no registration between them: everything that a registration says, and everything
that decides how a runtime is started, is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from daemon_core.protocol import wire
from daemon_core.runtimes.profiles import ResolvedProfiles

_DISPLAY_NAMES: Final = {"traecli": "Trae"}


class UsableAgent(Protocol):
    """An agent CLI that can be offered as a runtime. Discovery's ``FoundAgent`` is one."""

    @property
    def provider(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def version(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Offered:
    """One runtime to be."""

    provider: str
    name: str
    path: str
    version: str
    profile_id: str = ""
    args: tuple[str, ...] = ()

    def entry(self) -> wire.RuntimeEntry:
        """As the registration has it."""
        made = wire.RuntimeEntry(name=self.name, type=self.provider, version=self.version)
        if self.profile_id:
            made.profile_id = self.profile_id
        return made


@dataclass(frozen=True, slots=True)
class Offering:
    """See the module. Keys are subjects: a provider, or the id of a profile."""

    entries: Mapping[str, Offered]
    failed: tuple[wire.FailedProfile, ...] = ()
    signature: str = ""
    """Of the profiles as the server lists them, also of those that are no runtime here."""
    off: Mapping[str, Offered] = field(default_factory=dict)
    """What the user has switched off."""

    @property
    def has_profiles(self) -> bool:
        """Whether a registration names profiles at all."""
        return bool(self.failed) or any(offered.profile_id for offered in self.entries.values())


def display_name(provider: str, device_name: str) -> str:
    """``Claude (device)``."""
    return _on(_DISPLAY_NAMES.get(provider) or provider[:1].upper() + provider[1:], device_name)


def by_provider(agents: Iterable[UsableAgent]) -> dict[str, UsableAgent]:
    """The first of each provider counts."""
    found: dict[str, UsableAgent] = {}
    for agent in agents:
        found.setdefault(agent.provider, agent)
    return found


def offering(
    agents: Mapping[str, UsableAgent],
    profiles: ResolvedProfiles | None = None,
    *,
    signature: str = "",
    device_name: str = "",
    is_off: Callable[[str], bool] = lambda _: False,
) -> Offering:
    """Put it together."""
    known = profiles or ResolvedProfiles()
    all_of_it = {
        provider: Offered(provider, display_name(provider, device_name), str(agent.path), agent.version)
        for provider, agent in agents.items()
    }
    for profile in known.usable:
        all_of_it[profile.profile_id] = Offered(
            provider=profile.provider,
            name=_on(profile.name, device_name),
            path=profile.path,
            version=profile.version,
            profile_id=profile.profile_id,
            args=profile.args,
        )
    off = {subject: offered for subject, offered in all_of_it.items() if is_off(subject)}
    return Offering(
        entries={subject: offered for subject, offered in all_of_it.items() if subject not in off},
        failed=tuple(failed for failed in known.failed if not is_off(failed.profile_id)),
        signature=signature,
        off=off,
    )


def _on(name: str, device_name: str) -> str:
    return f"{name} ({device_name})" if device_name else name
