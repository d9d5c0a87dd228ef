"""The settings that are in force: read again while the daemon runs, and what the rooms are told of them.

A setting that this version did not know at its start is left out (an update that was taken back may have left
settings of the newer version); everything else that is wrong in the file leaves the old settings in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from daemon_core.jobs.retention import KeepRules
from daemon_core.runtimes import providers
from daemon_core.runtimes.providers import Registry
from daemon_core.settings import file as settings_file
from daemon_core.settings.directories import Directories
from daemon_core.settings.errors import SettingsError
from daemon_core.settings.sections import Settings
from daemon_core.tasks.delegation import DelegationRules
from daemon_core.tasks.housekeeping import CleanRules
from daemon_core.tasks.repositories import OwnRepositories
from daemon_core.tasks.watchdog import WatchLimits


def load_settings(
    directories: Directories, environ: Mapping[str, str], unknown: settings_file.Unknown | None = None
) -> Settings:
    """The settings as the file has them now. Raises ``SettingsError``. Blocks.

    Args:
        unknown: Whether a setting that nobody knows is left out; None: it is refused.
    """
    named = provider_names(providers.load(directories.providers))
    return settings_file.load(directories.config_file, environ, named, unknown)


def provider_names(known: Registry) -> list[str]:
    """What kinds of agent there may be settings of."""
    # One whose file has a mistake at present is no reason to refuse the settings.
    return [*known.ids, *(Path(mistake.file).stem for mistake in known.mistakes)]


@dataclass(frozen=True, slots=True)
class Reread:
    """What another reading has changed, by name, and what of it holds only after a restart."""

    changed: list[str]
    needs_restart: list[str]
    left_out: list[SettingsError]

    @property
    def applied(self) -> list[str]:
        """What of it holds at once."""
        return [name for name in self.changed if name not in self.needs_restart]

    def concerns(self, *sections: str) -> bool:
        """Whether anything in these sections is different."""
        return any(name.partition(".")[0] in sections for name in self.changed)


class InForce:
    """The settings, and the rules of rooms that follow from them.

    Args:
        not_ours: What ``load_settings`` has left out at the start.
    """

    def __init__(
        self,
        directories: Directories,
        environ: Mapping[str, str],
        settings: Settings,
        not_ours: Sequence[SettingsError] = (),
    ) -> None:
        self._directories = directories
        self._environ = environ
        self.settings = settings
        self._not_ours = {mistake.key for mistake in not_ours}

    def is_left_out(self, mistake: SettingsError) -> bool:
        """Whether the daemon goes without a setting that it does not know."""
        return mistake.key in self._not_ours

    def check(self) -> None:
        """Raises ``SettingsError`` where no daemon could start with the file as it is. Blocks."""
        load_settings(self._directories, self._environ, lambda _error: True)

    async def reread(self) -> Reread:
        """Put the file's settings in force. Raises ``SettingsError``: then the old ones stay."""
        left_out: list[SettingsError] = []

        def unknown(mistake: SettingsError) -> bool:
            if not self.is_left_out(mistake):
                return False
            left_out.append(mistake)
            return True

        old = self.settings
        self.settings = await asyncio.to_thread(load_settings, self._directories, self._environ, unknown)
        changed = _changed(old, self.settings)
        live = {entry.name for entry in settings_file.entries() if entry.key.live}
        return Reread(changed, [name for name in changed if not _is_live(name, live)], left_out)

    # --- what follows from them ------------------------------------------------------------------

    def run_limits(self, known: Registry) -> dict[str, int]:
        """How many runs of a kind of agent there may be, where that is fewer than slots."""
        settings = self.settings
        return {
            provider.id: settings.run_limit(provider.id)
            for provider in known
            if settings.run_limit(provider.id) < settings.daemon.slots
        }

    def base_environment(self) -> dict[str, str]:
        """What programs begin with that are started here."""
        chosen = self.settings.environment
        env = {name: value for name, value in self._environ.items() if not _matches(name, chosen.drop)}
        return {**env, **chosen.set}

    def watch_limits(self) -> WatchLimits:
        chosen = self.settings.watchdog
        return WatchLimits(
            idle_s=chosen.idle,
            tool_s=chosen.tool,
            request_s=chosen.request,
            progress_s=chosen.progress,
            run_s=chosen.run_time_limit,
        )

    def delegation_rules(self) -> DelegationRules:
        chosen = self.settings.delegation
        return DelegationRules(
            depth=chosen.depth,
            at_once=chosen.at_once,
            per_task=chosen.per_task,
            more_turns=chosen.more_turns,
        )

    def job_rules(self) -> KeepRules:
        chosen = self.settings.jobs
        return KeepRules(
            told_s=chosen.keep_told, untold_s=chosen.keep_untold, budget_bytes=chosen.output_budget
        )

    def clean_rules(self) -> CleanRules:
        retention, workdirs = self.settings.retention, self.settings.workdirs
        return CleanRules(
            retention_days=retention.days,
            run_days=retention.run_days,
            artifacts=workdirs.artifacts,
            budget_bytes=workdirs.budget,
        )

    def own_repositories(self) -> OwnRepositories:
        chosen = self.settings.repositories
        return OwnRepositories(urls=chosen.urls, co_author=chosen.co_author)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )


def _changed(old: Settings, new: Settings) -> list[str]:
    before, after = (dict(_leaves(msgspec.to_builtins(each))) for each in (old, new))
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and path.count(".") < (2 if path.startswith("agents") else 1):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _is_live(name: str, live: set[str]) -> bool:
    parts = name.split(".")
    if parts[0] == "agents" and len(parts) == 3:
        parts[1] = "<provider>"
    return ".".join(parts) in live
