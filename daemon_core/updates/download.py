"""Fetches one file whose size and sum are known from signed metadata, and can go on where it was broken off.

A server is believed nothing: not one byte more than was promised is read, one that is too slow is left, and a
file with another sum is thrown away. What came before the connection broke is kept beside an ``ETag`` (or
date), and asked for with ``If-Range``; whatever does not fit that is begun anew, once. Nobody is followed to
another host than those that the installation names.

Everything ends in a `ProblemError`. ``lasting`` ones are the file's fault and not the network's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import logging
import os
import random
import re
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import aiohttp
import yarl

from daemon_core.connections.backoff import Backoff
from daemon_core.connections.resolver import OwnThreadsResolver
from daemon_core.updates.offers import ProblemError, Target

log = logging.getLogger(__name__)

BUFFER_BYTES: Final = 32 * 1024
"""What is read ahead; about this much is lost when a connection breaks."""
SYNC_EVERY_BYTES: Final = 16 * 1024 * 1024
"""A power cut costs at most this much of a download."""
REDIRECTS: Final = 5
RETRY_AFTER_LIMIT_S: Final = 3600.0
_T = TypeVar("_T")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Limits:
    """Patience and caps.

    Attributes:
        connect_s: For a connection.
        stall_s: Without a single byte.
        slow_window_s, slow_bytes: Less than so much in such a time is too slow.
        attempts: In a row without a byte of progress.
        first_pause_s: Before the second attempt; doubled for each further one.
        size_bytes: The largest file that is fetched at all.
        floor_bytes: What has to stay free on the disk.
    """

    connect_s: float = 20.0
    stall_s: float = 45.0
    slow_window_s: float = 60.0
    slow_bytes: int = 128 * 1024
    attempts: int = 3
    first_pause_s: float = 2.0
    size_bytes: int = 512 * 2**20
    floor_bytes: int = 256 * 2**20


class Downloader:
    """Fetches files of one place. An async context manager.

    Args:
        base_url: Where the files are.
        other_hosts: Hosts that it may send us on to.
        tls: For https with a CA of one's own.
    """

    def __init__(
        self,
        base_url: str,
        limits: Limits,
        *,
        other_hosts: tuple[str, ...] = (),
        agent: str = "ostler",
        tls: ssl.SSLContext | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._base = base_url if base_url.endswith("/") else base_url + "/"
        self._limits = limits
        self._hosts = frozenset(host.lower() for host in other_hosts)
        self._agent = agent
        self._tls = tls
        self._rng = rng
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Downloader:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._limits.connect_s, sock_read=self._limits.stall_s
        )
        connector = aiohttp.TCPConnector(
            limit=1, force_close=True, resolver=OwnThreadsResolver(), ssl=self._tls or True
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            trust_env=True,
            auto_decompress=False,
            read_bufsize=BUFFER_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._agent, "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch(
        self, target: Target, directory: Path, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Path:
        """The whole file, verified. Cancelling keeps what is there.

        Args:
            directory: Where it is put, named by its sum; made if need be.
            progress: Called with bytes that are here, and all.

        Raises:
            ProblemError: See the module.
        """
        if target.length > self._limits.size_bytes:
            raise ProblemError("too_large", lasting=True, size=target.length, limit=self._limits.size_bytes)
        with told(directory):
            part = await _in_thread(_Part.open, directory, target)
        try:
            await self._complete(part, progress)
        finally:
            await _in_thread(part.close)
        return part.path

    async def _complete(self, part: _Part, progress: Callable[[int, int], None]) -> None:
        target, limits = part.target, self._limits
        backoff = Backoff(limits.first_pause_s, max(60.0, limits.first_pause_s), rng=self._rng)
        failures = 0
        anew = False
        while True:
            begun_at = part.size
            try:
                if part.size < target.length:
                    await self._attempt(part, progress)
                with told(part.path):
                    right = await _in_thread(part.verified)
                if right:
                    return
                # Damage in what was kept (a power cut, a mirror of another day) is mended by a second go.
                if begun_at == 0 or anew:
                    raise ProblemError("mismatch", lasting=True, name=target.path)
                log.info("%s has another sum than promised and is fetched anew", target.path)
                anew = True
                with told(part.path):
                    await _in_thread(part.begin_anew)
            except _RangeError as error:
                if anew:
                    raise ProblemError("wrong_range", lasting=True, detail=str(error)) from error
                log.info("%s cannot be continued (%s) and is fetched anew", target.path, error)
                anew = True
                with told(part.path):
                    await _in_thread(part.begin_anew)
            except ProblemError as error:
                if error.lasting or error.code in ("disk_full", "no_permission", "disk_error"):
                    raise
                # A server that breaks off after each few bytes is as good as none.
                failures = 0 if part.size - begun_at >= limits.slow_bytes else failures + 1
                if failures >= limits.attempts:
                    raise
                pause_s = max(error.pause_s, backoff.next())
                if pause_s > 60.0:
                    raise  # whoever has the patience comes back later
                log.info("%s: %s; again in %.1f s", target.path, error, pause_s)
                await asyncio.sleep(pause_s)

    # --- one request -----------------------------------------------------------------------------------

    async def _attempt(self, part: _Part, progress: Callable[[int, int], None]) -> None:
        """Read on from what is here, as far as the connection goes."""
        target = part.target
        headers = {}
        if part.size and part.validator:
            headers = {"Range": f"bytes={part.size}-", "If-Range": part.validator}
        elif part.size:
            with told(part.path):
                await _in_thread(part.begin_anew)  # nothing says that it is still the same file
        try:
            async with self._answer(target, headers) as answer:
                await self._take_head(part, answer, asked="Range" in headers)
                await self._take_body(part, answer, progress)
        except aiohttp.ConnectionTimeoutError as error:
            raise ProblemError("unreachable", detail="no connection came about in time") from error
        except TimeoutError as error:
            raise ProblemError("stalled") from error
        except aiohttp.ClientConnectorError as error:
            raise ProblemError("unreachable", detail=str(error.os_error)[:200]) from error
        except aiohttp.ClientPayloadError as error:
            raise ProblemError("cut_off") from error
        except aiohttp.ClientError as error:
            raise ProblemError("cut_off", detail=f"{type(error).__name__}: {error}"[:200]) from error
        finally:
            with told(part.path):
                await _in_thread(part.sync)
        if part.size < target.length:
            raise ProblemError("cut_off")

    @contextlib.asynccontextmanager
    async def _answer(self, target: Target, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer after redirects that are allowed."""
        assert self._session is not None, "used outside of its context"
        url = yarl.URL(self._base + urllib.parse.quote(target.url_path), encoded=True)
        first = url
        for _ in range(REDIRECTS + 1):
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status not in (301, 302, 303, 307, 308):
                    yield answer
                    return
                url = self._next(first, url, answer.headers.get("Location", ""))
        raise ProblemError("redirect", lasting=True, host=first.host or "", detail="in a circle")

    def _next(self, first: yarl.URL, url: yarl.URL, location: str) -> yarl.URL:
        try:
            after = url.join(yarl.URL(location))
        except ValueError as error:
            raise ProblemError("redirect", lasting=True, host=location[:100]) from error
        same = (after.host, after.port) == (first.host, first.port) or (
            after.host == first.host and after.scheme == "https"
        )
        weaker = first.scheme == "https" and after.scheme != "https"
        if after.scheme not in ("http", "https") or weaker:
            raise ProblemError("redirect", lasting=True, host=f"{after.scheme}://{after.host or ''}")
        if not same and (after.host or "").lower() not in self._hosts:
            raise ProblemError("redirect", lasting=True, host=after.host or "")
        return after

    async def _take_head(self, part: _Part, answer: aiohttp.ClientResponse, *, asked: bool) -> None:
        """Hold the answer's head against what was promised and what was asked for."""
        target = part.target
        if answer.status == 416:
            raise _RangeError("the server has no such range")
        if answer.status not in (200, 206):
            # Not there: mirrors get the files one after the other. Anything else: the server's trouble.
            pause_s = _retry_after(answer.headers.get("Retry-After", ""))
            raise ProblemError("server_error", status=answer.status, pause_s=pause_s)
        if answer.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise ProblemError("wrong_size", lasting=True, detail="it comes in another encoding")
        if answer.status == 206:
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
            if not asked or found is None or int(found[1]) != part.size:
                raise _RangeError(f"it sent {answer.headers.get('Content-Range', 'no range')[:80]!r}")
            if found[3] != "*" and int(found[3]) != target.length:
                raise _RangeError(f"its file has {found[3]} bytes")
        elif part.size:
            # The whole in place of the rest: the file there has changed, or ranges are not known.
            with told(part.path):
                await _in_thread(part.begin_anew)
        length = answer.content_length
        if length is not None and length != target.length - part.size:
            raise ProblemError(
                "too_long" if length > target.length - part.size else "wrong_size",
                lasting=True,
                size=length + part.size,
                expected=target.length,
            )
        with told(part.path):
            await _in_thread(part.remember, _validator(answer))

    async def _take_body(
        self, part: _Part, answer: aiohttp.ClientResponse, progress: Callable[[int, int], None]
    ) -> None:
        target, limits = part.target, self._limits
        loop = asyncio.get_running_loop()
        window_at, window_size = loop.time(), part.size
        async for data in answer.content.iter_any():
            if part.size + len(data) > target.length:
                raise ProblemError("too_long", lasting=True, expected=target.length)
            with told(part.path):
                await _in_thread(part.write, data)
            progress(part.size, target.length)
            if part.size == target.length:
                return  # whatever would follow is not wanted, and nobody waits for an end that does not come
            if loop.time() - window_at >= limits.slow_window_s:
                if part.size - window_size < limits.slow_bytes:
                    raise ProblemError("too_slow")
                window_at, window_size = loop.time(), part.size


async def _in_thread(call: Callable[..., _T], *arguments: object) -> _T:
    """A blocking call; when cancelled, its end is waited for: the file is nobody else's until then."""
    work = asyncio.get_running_loop().run_in_executor(None, call, *arguments)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # taken note of
        raise


def _validator(answer: aiohttp.ClientResponse) -> str:
    """What ``If-Range`` takes: a strong ``ETag``, else the date."""
    etag = answer.headers.get("ETag", "").strip()
    if etag and not etag.startswith("W/"):
        return etag[:500]
    return answer.headers.get("Last-Modified", "").strip()[:500]


def _retry_after(value: str) -> float:
    return min(float(value), RETRY_AFTER_LIMIT_S) if value.isdigit() else 0.0


class _RangeError(Exception):
    """What is here cannot be continued with what the server sends."""


# --- the file ---------------------------------------------------------------------------------------------


class _Part:
    """What is here of a file, and by what the server knows it. Blocking."""

    def __init__(self, directory: Path, target: Target, file: BinaryIO, validator: str) -> None:
        self.target = target
        self.path = directory / f"{target.sha256}.part"
        self.validator = validator
        self._notes = directory / f"{target.sha256}.json"
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        self._unsynced_bytes = 0

    @classmethod
    def open(cls, directory: Path, target: Target) -> _Part:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if re.fullmatch(r"[0-9a-f]{64}", target.sha256) is None:
            raise ProblemError("untrusted", lasting=True, detail="a file without a sum")
        descriptor = os.open(
            directory / f"{target.sha256}.part",
            os.O_RDWR
            | os.O_CREAT
            | getattr(os, "O_CLOEXEC", 0)
            | getattr(os, "O_NOFOLLOW", 0)
            | getattr(os, "O_BINARY", 0),
            0o600,
        )
        validator = ""
        try:
            noted = json.loads((directory / f"{target.sha256}.json").read_bytes())
            validator = str(noted["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # then it cannot be continued, and is begun anew
        part = cls(directory, target, os.fdopen(descriptor, "r+b", buffering=0), validator)
        if part.size > target.length:
            part.begin_anew()
        return part

    def remember(self, validator: str) -> None:
        if validator != self.validator:
            self.validator = validator
            self._notes.write_text(json.dumps({"validator": validator}), "utf-8")

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self.size += len(data)
        self._unsynced_bytes += len(data)
        if self._unsynced_bytes >= SYNC_EVERY_BYTES:
            self.sync()

    def sync(self) -> None:
        if self._unsynced_bytes:
            os.fsync(self._file.fileno())
            self._unsynced_bytes = 0

    def begin_anew(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.size = 0
        self.validator = ""
        self._notes.unlink(missing_ok=True)

    def verified(self) -> bool:
        digest = hashlib.sha256()
        self._file.seek(0)
        while data := self._file.read(1 << 20):
            digest.update(data)
        self._file.seek(0, os.SEEK_END)
        return self.size == self.target.length and digest.hexdigest() == self.target.sha256

    def close(self) -> None:
        self._file.close()


def forget(directory: Path, keep: frozenset[str] = frozenset()) -> None:
    """Remove what was fetched, but for the files with these sums. Raises ``OSError``."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        if name.partition(".")[0] not in keep:
            (directory / name).unlink(missing_ok=True)


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """An error of the system becomes a problem that says what to do."""
    try:
        yield
    except OSError as error:
        raise of_system(error, path) from error


def of_system(error: OSError, path: Path) -> ProblemError:
    """``disk_full``, ``no_permission`` or ``disk_error``."""
    place = str(error.filename or path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ProblemError("disk_full", path=place)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ProblemError("no_permission", path=place, detail=error.strerror or "")
    return ProblemError("disk_error", path=place, detail=error.strerror or str(error))
