"""Where the credentials of servers are: in the system keyring, or in a 0600 file where no keyring runs.

Rules kept here (promise P7):

* A credential is in one place at a time, and that place is recorded and shown: nobody has to guess.
* It is never in an argument list, a log line or the text of an exception.
* The keyring is asked in a short-lived process with a time limit: its library is large, and a keyring may
  show a prompt. A prompt is only allowed where the user has just asked for something.
* What was put into a keyring is read back: some take a secret and keep nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from daemon_core.settings import installed
from daemon_core.settings.atomic import write_private
from daemon_core.settings.directories import make_private

log = logging.getLogger(__name__)

Place = Literal["keyring", "file"]
Wanted = Literal["auto", "keyring", "file"]
CredentialCode = Literal[
    "keyring_absent", "keyring_locked", "keyring_failed", "keyring_timeout", "missing", "unreadable"
]

SERVICE: Final = "Ostler"
"""Under this name the user finds the entries in a keyring's own window."""
ASK_LIMIT_S: Final = 60.0
"""With a prompt: somebody has to find it and type."""
QUIET_LIMIT_S: Final = 15.0
_TOKEN_LIMIT_BYTES: Final = 64 * 1024
_CODES: Final[dict[str, CredentialCode]] = {
    "none": "keyring_absent",
    "locked": "keyring_locked",
    "lost": "keyring_absent",
    "missing": "missing",
}


class CredentialError(Exception):
    """A credential cannot be kept or had.

    Attributes:
        code: why. Only ``missing`` means that there is none; after the others it may be had later.
        detail: what the keyring or the system said; never a secret.
    """

    def __init__(self, code: CredentialCode, detail: str = "") -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}" if detail else code)


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a credential was put. ``why_file``: why not in the keyring, if it is in a file unasked."""

    place: Place
    backend: str = ""
    why_file: str = ""


class CredentialStore:
    """The credentials of one profile.

    Args:
        directory: for those kept in files; made when the first one is.
        environ: of the daemon; says where the session's keyring is.
    """

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self._environ = dict(environ)

    def file_of(self, name: str) -> Path:
        """Where the credential of the connection ``name`` is, if it is in a file."""
        return self.directory / f"{name}.token"

    async def keep(self, name: str, account: str, token: str, wanted: Wanted = "auto") -> Kept:
        """Store a credential. The user may be shown a prompt.

        Args:
            name: of the connection.
            account: by which the keyring knows it.
            wanted: ``auto`` takes the file only where there is no keyring at all; one that is locked or fails
                is an error, so that a secret does not end up in a file because somebody dismissed a prompt.

        Raises:
            CredentialError: it is stored nowhere.
        """
        why = ""
        if wanted != "file":
            try:
                answer = await self._ask("set", account, secret=token, ask=True)
            except CredentialError as error:
                if wanted == "keyring" or error.code != "keyring_absent":
                    raise
                why = error.code
            else:
                await asyncio.to_thread(self._remove_file, name)
                return Kept("keyring", backend=str(answer.get("backend", "")))
        try:
            await asyncio.to_thread(self._write_file, name, token)
        except OSError as error:
            raise CredentialError("unreadable", error.strerror or str(error)) from error
        if not why:
            await self._leave_keyring(account)
        return Kept("file", why_file=why)

    async def read(self, name: str, account: str, place: Place) -> str:
        """The credential. Shows no prompt.

        Raises:
            CredentialError: there is none, or it cannot be had now.
        """
        if place == "keyring":
            return str((await self._ask("get", account, ask=False)).get("secret", ""))
        try:
            return await asyncio.to_thread(self._read_file, name)
        except FileNotFoundError as error:
            raise CredentialError("missing", str(self.file_of(name))) from error
        except (OSError, UnicodeDecodeError) as error:
            raise CredentialError("unreadable", str(self.file_of(name))) from error

    async def remove(self, name: str, account: str, place: Place) -> None:
        """Remove it. One that is not there is removed.

        Raises:
            CredentialError: it is still there, or may be.
        """
        try:
            await asyncio.to_thread(self._remove_file, name)
        except OSError as error:
            raise CredentialError("unreadable", error.strerror or str(error)) from error
        if place == "keyring":
            try:
                await self._ask("delete", account, ask=True)
            except CredentialError as error:
                if error.code != "missing":
                    raise

    async def _leave_keyring(self, account: str) -> None:
        """An earlier credential is not needed there any more; one that cannot be removed does no harm."""
        try:
            await self._ask("delete", account, ask=False)
        except CredentialError as error:
            if error.code not in ("missing", "keyring_absent"):
                log.warning("an earlier credential stays in the keyring as %r (%s)", account, error.code)

    # --- files ---------------------------------------------------------------------------------

    def _write_file(self, name: str, token: str) -> None:
        make_private(self.directory)
        write_private(self.file_of(name), token.encode() + b"\n")

    def _read_file(self, name: str) -> str:
        with open(self.file_of(name), "rb") as file:
            if sys.platform != "win32" and os.fstat(file.fileno()).st_mode & 0o077:
                os.fchmod(file.fileno(), 0o600)
            return file.read(_TOKEN_LIMIT_BYTES).decode().strip()

    def _remove_file(self, name: str) -> None:
        self.file_of(name).unlink(missing_ok=True)

    # --- the keyring ---------------------------------------------------------------------------

    async def _ask(self, verb: str, account: str, *, ask: bool, secret: str | None = None) -> dict[str, Any]:
        """One question to the keyring. Raises ``CredentialError`` unless the answer is ``ok``."""
        question = {"verb": verb, "service": SERVICE, "account": account, "ask": ask}
        if secret is not None:
            question["secret"] = secret
        limit_s = ASK_LIMIT_S if ask else QUIET_LIMIT_S
        try:
            child = await asyncio.create_subprocess_exec(
                *_keyring_child(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=self._environ,
            )  # fmt: skip
        except OSError as error:
            raise CredentialError("keyring_failed", error.strerror or str(error)) from error
        try:
            async with asyncio.timeout(limit_s):
                raw, _ = await child.communicate(json.dumps(question).encode())
        except TimeoutError as error:
            raise CredentialError("keyring_timeout", f"no answer within {limit_s:g} s") from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        try:
            answer = dict(json.loads(raw))
        except ValueError as error:
            raise CredentialError("keyring_failed", f"it ended with exit code {child.returncode}") from error
        code = str(answer.get("code", ""))
        if code != "ok":
            raise CredentialError(_CODES.get(code, "keyring_failed"), str(answer.get("detail", "")))
        return answer


def _keyring_child() -> list[str]:
    if installed.FROZEN:
        return [installed.beside("ostler-helper"), "keyring"]
    return [sys.executable, "-P", str(Path(__file__).with_name("keyring_child.py"))]
