"""What this machine remembers about its runtimes over restarts: one small file below the state directory.

- which ones the user has switched off, by the kind of agent as a whole or one by one;
- the programs that the user has named for custom profiles;
- how the runtimes of custom profiles are started: a task that was claimed before a restart must not be begun
  with another program after it, and the profile is known again only when the server has been asked.

What is asked for is on the disk before it is in force. A damaged file is set aside and said so in the log:
then everything is switched on again, which is how it looks to a new installation.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from daemon_core.settings.atomic import write_private

log = logging.getLogger(__name__)

STARTS_LIMIT: Final = 512
"""Runtimes of profiles that are remembered; the ones that were seen last stay."""


class Off(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the user has switched off. ``connection`` and ``workspace`` empty: wherever it is."""

    subject: str
    """A provider, or the id of a custom profile."""
    connection: str = ""
    workspace: str = ""
    runtime_id: str = ""
    """Its id when it was switched off, if it had one."""

    def covers(self, connection: str, workspace: str, subject: str) -> bool:
        return (
            self.subject == subject
            and self.connection in ("", connection)
            and self.workspace in ("", workspace)
        )


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """How the runtime of a custom profile is started."""

    provider: str
    path: str
    args: tuple[str, ...] = ()
    profile_id: str = ""


class _Pages(msgspec.Struct, frozen=True, kw_only=True):
    version: int = 1
    paths: dict[str, str] = {}
    off: tuple[Off, ...] = ()
    starts: dict[str, Start] = {}
    """By connection and runtime id, the last seen last."""


class RuntimeBook:
    """See the module. With ``path`` None nothing is kept beyond this process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._pages = _Pages()
        self._writing = asyncio.Lock()

    @classmethod
    def open(cls, path: Path) -> RuntimeBook:
        """Read what is there (blocks). Never raises: without it the daemon can go on."""
        book = cls(path)
        try:
            book._pages = msgspec.json.decode(path.read_bytes(), type=_Pages)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            aside = path.with_name(f"{path.name}.damaged")
            log.error("what is known of runtimes cannot be read (%s) and is set aside as %s", error, aside)
            try:
                os.replace(path, aside)
            except OSError as failed:
                log.error("it cannot be set aside: %s", failed)
        return book

    # --- questions ---------------------------------------------------------------------------------

    def path_of(self, profile_id: str) -> str:
        """The program that the user named for a custom profile; empty: none."""
        return self._pages.paths.get(profile_id, "")

    @property
    def paths(self) -> dict[str, str]:
        """All of them, by profile."""
        return dict(self._pages.paths)

    @property
    def off(self) -> tuple[Off, ...]:
        """What is switched off."""
        return self._pages.off

    def is_off(self, connection: str, workspace: str, subject: str) -> bool:
        """Whether the user has switched this off."""
        return any(entry.covers(connection, workspace, subject) for entry in self._pages.off)

    def start_of(self, connection: str, runtime_id: str) -> Start | None:
        """How a custom profile's runtime is started; None for any other."""
        return self._pages.starts.get(f"{connection}/{runtime_id}")

    # --- changes: on the disk first. All raise ``OSError`` and then change nothing -------------------

    async def set_path(self, profile_id: str, path: str) -> None:
        """Name a program for a profile, or with an empty path none any more."""

        def changed(pages: _Pages) -> _Pages:
            paths = {name: value for name, value in pages.paths.items() if name != profile_id}
            if path:
                paths[profile_id] = path
            return msgspec.structs.replace(pages, paths=paths)

        await self._write(changed)

    async def switch(self, *, off: Iterable[Off] = (), on: Iterable[Off] = ()) -> None:
        """Add and take away what is switched off."""
        adding, going = tuple(off), set(on)

        def changed(pages: _Pages) -> _Pages:
            kept = [entry for entry in pages.off if entry not in going and entry not in adding]
            return msgspec.structs.replace(pages, off=(*kept, *adding))

        await self._write(changed)

    async def remember(self, connection: str, starts: Sequence[tuple[str, Start]]) -> None:
        """How these runtimes (by id) of custom profiles are started."""
        new = {f"{connection}/{runtime_id}": start for runtime_id, start in starts}
        if all(self._pages.starts.get(key) == start for key, start in new.items()):
            return

        def changed(pages: _Pages) -> _Pages:
            kept = {key: start for key, start in pages.starts.items() if key not in new}
            whole = list({**kept, **new}.items())[-STARTS_LIMIT:]
            return msgspec.structs.replace(pages, starts=dict(whole))

        await self._write(changed)

    async def _write(self, change: Callable[[_Pages], _Pages]) -> None:
        async with self._writing:
            pages = change(self._pages)
            if pages == self._pages:
                return
            if self._path is not None:
                await asyncio.to_thread(write_private, self._path, msgspec.json.encode(pages))
            self._pages = pages
