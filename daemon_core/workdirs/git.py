"""Runs ``git``: in a session of its own, with a time limit, without ever asking anybody anything.

* No prompt: ``GIT_TERMINAL_PROMPT=0``, no askpass program, no terminal. Credentials come from git's own
  helpers or not at all.
* No transport that starts programs: ``GIT_ALLOW_PROTOCOL``.
* No hooks of the user for what Ostler itself does, and none that an agent may have written.
* A command that takes longer than its limit, or whose caller is cancelled, is killed with everything it
  started, transports and credential helpers included.
* What git says is scrubbed before anybody sees it, and understood here, in one place.

An agent shares its repository's configuration with the mirror, so what it sets there can reach these
commands: without a sandbox nothing can keep a program of this user from that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from daemon_core.workdirs.repository_errors import (
    RepositoryError,
    RepositoryUnavailableError,
    scrubbed,
)

GIT_LIMIT_S: Final = 600.0
"""The protocol's limit for one git command."""
_REAP_LIMIT_S: Final = 10.0
_HELPER_GRACE_S: Final = 2.0
_OUTPUT_LIMIT_BYTES: Final = 64 * 1024 * 1024
_KEPT_ERROR_BYTES: Final = 64 * 1024

# Where a repository is, and what is in it, is said on the command line alone.
_DROPPED: Final = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_CEILING_DIRECTORIES",
    "GIT_TEMPLATE_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_EDITOR",
    "GIT_EXTERNAL_DIFF",
    "GIT_PROTOCOL_FROM_USER",
    "SSH_ASKPASS",
)
_OWN_PREFIXES: Final = ("OSTLER_", "MULTICA_")

_DAMAGED: Final = re.compile(
    r"bad object|unable to read (sha1|tree|object)|is corrupt|corrupt(ed)? (loose|pack)"
    r"|missing (blob|tree|object)|not a git repository"
    r"|invalid object|object file .* is empty|bad (config|signature|index)|packfile .* "
    r"(cannot be accessed|does not match)|bad pack|reference broken|unable to resolve reference|inflate:|"
    r"did not send all necessary objects|unable to parse object|invalid sha1 pointer|could not parse HEAD"
    r"|unknown repository extension|fatal: bad numeric config|fsck error"
)
_LOCKED: Final = re.compile(r"Unable to create '(?P<path>[^']+\.lock)': File exists")
_CONFIG_LOCKED: Final = re.compile(r"could not lock config file (?P<path>.+?): File exists")
_ACCESS: Final = re.compile(
    r"could not read (Username|Password)|terminal prompts disabled|Authentication failed"
    r"|HTTP Basic: Access denied|Permission denied \(|Host key verification failed"
    r"|returned error: 40[13]|Permission to .* denied"
    r"|Invalid username or (password|token)|invalid credentials",
    re.IGNORECASE,
)
_NOT_FOUND: Final = re.compile(
    r"repository .*not found|does not appear to be a git repository|returned error: 404|does not exist"
    r"|Repository not found",
    re.IGNORECASE,
)
_NETWORK: Final = re.compile(
    r"Could not resolve host|Could not resolve hostname|Failed to connect|Connection (refused|reset|timed"
    r" out)|Couldn't connect|Network is unreachable|No route to host|early EOF|RPC failed"
    r"|unexpected disconnect"
    r"|The remote end hung up|Operation timed out|SSL|gnutls|TLS|returned error: 5\d\d|unable to access"
    r"|Connection closed",
    re.IGNORECASE,
)
_FULL: Final = re.compile(r"No space left on device|Disk quota exceeded|disk full", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GitResult:
    """How a command ended. ``error`` is scrubbed."""

    code: int
    output: bytes
    error: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def text(self) -> str:
        """The output as text, without the line end."""
        return self.output.decode("utf-8", "replace").rstrip("\n")


class GitCommandError(Exception):
    """A command failed. Stays inside this room: ``explain`` makes what callers see."""

    def __init__(self, what: str, result: GitResult) -> None:
        self.what = what
        self.result = result
        super().__init__(f"git {what}: {result.error}")

    @property
    def damaged(self) -> bool:
        """Whether what git says sounds like a repository that is not whole."""
        return bool(_DAMAGED.search(self.result.error)) and not _FULL.search(self.result.error)

    @property
    def lock_paths(self) -> list[str]:
        """Lock files that were in the way."""
        said = self.result.error
        refs = [found["path"] for found in _LOCKED.finditer(said)]
        return refs + [f"{found['path']}.lock" for found in _CONFIG_LOCKED.finditer(said)]


def explain(error: GitCommandError, url: str) -> RepositoryError:
    """A failed command in terms of what a caller can do. ``url`` is one without credentials."""
    said = error.result.error
    line = _last_line(said)
    if _FULL.search(said):
        return RepositoryUnavailableError("disk_full", f"there is no room on the disk for {url}")
    if _ACCESS.search(said):
        return RepositoryUnavailableError(
            "access",
            f"{url} asks for a credential that git on this machine does not have, or refuses the one it has;"
            f" `git ls-remote {url}` in a terminal shows it ({line})",
        )
    if _NOT_FOUND.search(said):
        return RepositoryUnavailableError(
            "not_found", f"there is no repository at {url}, or you may not see it ({line})"
        )
    if _NETWORK.search(said):
        return RepositoryUnavailableError("network", f"{url} cannot be reached ({line})")
    return RepositoryError("git", f"git {error.what} failed for {url}: {line}")


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))]
    return (telling or lines or ["it did not say why"])[-1 if not telling else 0][:300]


class Git:
    """The git of this machine.

    Args:
        environ: What commands get, apart from what names Ostler and what would lead git elsewhere.
        limit_s: For one command, seconds.
    """

    def __init__(self, environ: Mapping[str, str], *, limit_s: float = GIT_LIMIT_S) -> None:
        self.limit_s = limit_s
        self._path = environ.get("PATH", os.defpath)
        self._environ = {
            name: value
            for name, value in environ.items()
            if name not in _DROPPED
            and not name.startswith((*_OWN_PREFIXES, "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"))
        }
        self._environ.pop("GIT_CONFIG_COUNT", None)
        self._environ.update(
            GIT_TERMINAL_PROMPT="0",
            GIT_ASKPASS="",  # set and empty: neither core.askPass nor SSH_ASKPASS is tried (git's prompt.c)
            SSH_ASKPASS_REQUIRE="never",
            GCM_INTERACTIVE="never",
            GIT_OPTIONAL_LOCKS="0",
            GIT_NO_LAZY_FETCH="1",
            LC_ALL="C",
            LANGUAGE="C",
        )

    @property
    def has_lfs(self) -> bool:
        """Whether git-lfs is there to turn its pointers into files."""
        return shutil.which("git-lfs", path=self._path) is not None

    async def run(
        self,
        *arguments: str,
        cwd: Path,
        local: bool = False,
        lfs: bool = False,
        check: bool = True,
        limit_s: float | None = None,
        on_start: Callable[[int], None] = lambda _: None,
    ) -> GitResult:
        """One command, in ``cwd``. Cancelling kills it and waits until it is gone.

        Args:
            local: Whether the file transport may be used.
            lfs: Whether git-lfs may fetch what its pointers stand for.
            check: Whether a failure raises.
            on_start: Told the command's process id.

        Raises:
            GitCommandError: with ``check``, it ended with another code than 0.
            RepositoryUnavailableError: ``timed_out``.
            RepositoryError: ``no_git``.
        """
        executable = shutil.which("git", path=self._path)
        if executable is None:
            raise RepositoryError("no_git", "git is not installed; install it, then try again")
        env = {**self._environ, "GIT_ALLOW_PROTOCOL": "file" if local else "https:http:ssh:git"}
        if not lfs:
            env["GIT_LFS_SKIP_SMUDGE"] = "1"
        process = await asyncio.create_subprocess_exec(
            executable,
            *self._configuration(),
            *arguments,
            cwd=cwd,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        on_start(process.pid)
        limit = self.limit_s if limit_s is None else limit_s
        try:
            async with asyncio.timeout(limit):
                output, error = await _both(process)
                code = await process.wait()
        except TimeoutError as late:
            await _end(process)
            raise RepositoryUnavailableError(
                "timed_out", f"git {arguments[0]} took longer than {limit:.0f} s and was ended"
            ) from late
        except BaseException:
            await _end(process)
            raise
        result = GitResult(code, output, scrubbed_keeping_ends(error.decode("utf-8", "replace")))
        if check and not result.ok:
            raise GitCommandError(_verb(arguments), result)
        return result

    def _configuration(self) -> list[str]:
        given = {
            "core.hooksPath": os.devnull,
            "core.fsmonitor": "false",
            "safe.directory": "*",
            "gc.auto": "0",
            "maintenance.auto": "false",
            "fetch.recurseSubmodules": "false",
            "submodule.recurse": "false",
            "advice.detachedHead": "false",
            "credential.interactive": "false",
            "checkout.workers": "0",
            "protocol.ext.allow": "never",
        }
        if not self.has_lfs:
            # A user's configuration may ask for a filter that is not there: its pointers stay pointers.
            given |= {
                "filter.lfs.smudge": "",
                "filter.lfs.clean": "",
                "filter.lfs.process": "",
                "filter.lfs.required": "false",
            }
        return [part for name, value in given.items() for part in ("-c", f"{name}={value}")]


def scrubbed_keeping_ends(text: str) -> str:
    """Scrub line by line, so that a long complaint keeps its last lines."""
    lines = [scrubbed(line) for line in text.splitlines() if line.strip()]
    return "\n".join(lines if len(lines) <= 40 else [*lines[:20], *lines[-20:]])


def _verb(arguments: Sequence[str]) -> str:
    return next((part for part in arguments if not part.startswith("-")), "")


async def _both(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    """What the command says on both streams. One that leaves a helper behind which keeps them open is not
    waited for beyond its own end."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, error = bytearray(), bytearray()
    async with asyncio.TaskGroup() as group:
        readers = [
            group.create_task(_read(process.stdout, output, _OUTPUT_LIMIT_BYTES)),
            group.create_task(_read(process.stderr, error, _KEPT_ERROR_BYTES)),
        ]
        ended = group.create_task(process.wait())
        await asyncio.wait([ended])
        await asyncio.wait(readers, timeout=_HELPER_GRACE_S)
        for reader in readers:
            reader.cancel()
    return bytes(output), bytes(error)


async def _read(stream: asyncio.StreamReader, kept: bytearray, limit: int) -> None:
    """All of a stream into ``kept``, its middle left out where it is longer than ``limit`` bytes."""
    while chunk := await stream.read(65536):
        kept += chunk
        if len(kept) > limit:
            del kept[limit // 2 : len(kept) - limit // 2]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a command with its whole tree and wait until it is gone, whatever the caller's state."""
    kill_tree(process.pid)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REAP_LIMIT_S):
            await asyncio.shield(process.wait())


def kill_tree(pid: int) -> None:
    """SIGKILL to a process that leads its own session, its group, and all its descendants."""
    descendants: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        descendants = psutil.Process(pid).children(recursive=True)
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
    for child in descendants:
        with contextlib.suppress(psutil.Error):
            child.kill()
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process(pid).kill()
