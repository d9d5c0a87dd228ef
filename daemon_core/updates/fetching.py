"""Gets an offered version here whole: room first, then the delta where there is a good one, else the whole.

A delta saves time and nothing else: whatever is wrong with one, the full package is fetched.

What unpacks is imported when there is something to unpack: most days there is nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from daemon_core.updates import download
from daemon_core.updates.download import Downloader, Limits, forget
from daemon_core.updates.offers import Offer, ProblemError, Target
from daemon_core.updates.trust import Source
from daemon_core.updates.versions import Store

log = logging.getLogger(__name__)

DELTA_SHARE: Final = 0.8
"""A delta larger than this part of the full package is not worth it."""
UNPACKED_GUESS: Final = 5
"""How much larger than its package a version is, where nothing was signed about it."""
STEPS: Final = 200
"""A progress is told at most so often in all."""

Progress = Callable[[str, int, int], None]
"""Phase (download, unpack), bytes done, bytes in all. On the loop."""


class Fetcher:
    """See the module.

    Args:
        downloads: Where parts are kept.
        platform: That of this machine, as payloads name it.
        agent: What servers are told that we are.
    """

    def __init__(self, store: Store, downloads: Path, platform: str, *, agent: str = "ostler") -> None:
        self._store = store
        self._downloads = downloads
        self._platform = platform
        self._agent = agent

    async def fetch(self, offer: Offer, source: Source, limits: Limits, tell: Progress) -> None:
        """Have the version here whole, or a `ProblemError`. Cancelling keeps what was fetched."""
        from daemon_core.updates import staging

        if await asyncio.to_thread(self._store.is_complete, offer.version):
            return
        unpacked = offer.unpacked_bytes or offer.full.length * UNPACKED_GUESS
        await asyncio.to_thread(
            staging.check_space, self._downloads, unpacked + offer.full.length, limits.floor_bytes
        )
        async with Downloader(
            source.targets_url, limits, other_hosts=source.other_hosts, agent=self._agent
        ) as downloader:
            if await self._by_delta(offer, downloader, tell):
                return
            archive = await downloader.fetch(offer.full, self._downloads, _stepped(tell, "download"))
        await self._stage(offer, offer.full, archive, None, tell)

    async def forget(self, offer: Offer | None = None) -> None:
        """Remove what was fetched, but for what belongs to ``offer``."""
        keep = {offer.full.sha256} if offer is not None else set()
        if offer is not None and offer.delta is not None:
            keep.add(offer.delta.sha256)
        try:
            await asyncio.to_thread(forget, self._downloads, frozenset(keep))
        except OSError as error:
            log.warning("downloads that nobody needs cannot be removed: %s", error)

    async def _by_delta(self, offer: Offer, downloader: Downloader, tell: Progress) -> bool:
        """Whether the version is here now; everything that is wrong with the delta is logged."""
        small = offer.delta
        if small is None or small.length > DELTA_SHARE * offer.full.length:
            return False
        start = await asyncio.to_thread(self._store.place, offer.delta_from)
        if start is None:
            return False
        from daemon_core.updates.delta import DeltaError

        try:
            archive = await downloader.fetch(small, self._downloads, _stepped(tell, "download"))
            await self._stage(offer, small, archive, Path(start), tell)
        except (DeltaError, ProblemError) as error:
            if isinstance(error, ProblemError) and error.code in ("disk_full", "no_permission", "disk_error"):
                raise
            log.info("%s cannot be used, the full package is fetched: %s", small.path, error)
            return False
        return True

    async def _stage(
        self, offer: Offer, target: Target, archive: Path, from_dir: Path | None, tell: Progress
    ) -> None:
        from daemon_core.updates import staging

        loop = asyncio.get_running_loop()
        cancel = threading.Event()
        told = _stepped(tell, "unpack")

        def progress(done: int) -> None:
            loop.call_soon_threadsafe(told, done, offer.unpacked_bytes)

        def work() -> None:
            staging.stage(
                self._store,
                archive,
                offer.version,
                platform=self._platform,
                manifest_sha256=offer.payload_sha256,
                unpacked_bytes=offer.unpacked_bytes,
                from_dir=from_dir,
                cancel=cancel,
                progress=progress,
            )

        running = loop.run_in_executor(None, work)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            cancel.set()
            await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # taken note of
            raise
        except ProblemError as error:
            if error.lasting:  # what has these bytes will never be right
                with download.told(archive):
                    await asyncio.to_thread(archive.unlink, missing_ok=True)
            raise


def _stepped(tell: Progress, phase: str) -> Callable[[int, int], None]:
    """``tell``, but not for every piece."""
    last = -1

    def progress(done: int, total: int) -> None:
        nonlocal last
        step = done * STEPS // total if total else done >> 20
        if step != last:
            last = step
            tell(phase, done, total)

    return progress
