"""Addresses of repositories: which may be used, and what they are called on disk.

Rules: git is only ever given addresses of transports that fetch and run nothing (https, http, ssh, git, and a
local path where the user gave it). An address is kept without user name and password, apart from the user
name of ssh: a credential is the business of git's own helpers. A cache is named after host and path, so that
``https://host/a/b.git`` and ``git@host:a/b`` share one.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from daemon_core.workdirs.repository_errors import RepositoryInputError

_SCHEMES: Final = frozenset({"https", "http", "ssh", "git"})
_SCP: Final = re.compile(
    r"(?:(?P<user>[A-Za-z0-9._-]+)@)?(?P<host>\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+):(?P<path>.*)"
)
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_CACHE_SAFE: Final = re.compile(r"[A-Za-z0-9._~@-]")
_NAME_UNSAFE: Final = re.compile(r"[^\w.-]+")
_NAME_LIMIT: Final = 100
_CACHE_LIMIT_BYTES: Final = 180
_URL_LIMIT: Final = 4096
LOCAL_HOST: Final = "_local"
"""Stands for the host of a local path; no host can be called like this."""


@dataclass(frozen=True, slots=True)
class RepositoryUrl:
    """A checked address.

    Attributes:
        text: What git is given: no password, and no user name unless ssh needs one.
        key: What tells whether two addresses mean one repository (host and path, without ``.git``).
        cache_name: Name of its mirror's directory.
        name: Name of its work tree's directory.
        local: Whether it is a path of this machine.
        had_credentials: Whether something was taken out.
    """

    text: str
    key: str
    cache_name: str
    name: str
    local: bool = False
    had_credentials: bool = False

    def __str__(self) -> str:
        return self.text

    @property
    def path(self) -> str:
        """Of a local one, where it is; else ""."""
        return unquote(self.text.removeprefix("file://")) if self.local else ""


def parse_url(given: str, *, allow_local: bool) -> RepositoryUrl:
    """Check an address.

    Args:
        allow_local: Whether a path of this machine (``/path``, ``file:///path``) may be meant: only where the
            user gave it himself.

    Raises:
        RepositoryInputError: ``bad_url``, ``unsafe_url``, ``local_refused``.
    """
    text = given.strip()
    if not text:
        raise RepositoryInputError("bad_url", "the address of the repository is empty")
    local = os.path.isabs(text) or text.lower().startswith("file:")
    least = 32 if local else 33
    if len(text) > _URL_LIMIT or any(ord(char) < least or ord(char) == 127 for char in text):
        raise RepositoryInputError(
            "bad_url", "the address of the repository has characters that none can have"
        )
    if text.startswith("-"):
        raise RepositoryInputError("unsafe_url", "an address of a repository cannot begin with a dash")
    if "::" in text.partition("/")[0] and not text.startswith("["):
        # gitremote-helpers(7): <transport>::<address> starts a program, ext:: any program at all.
        raise RepositoryInputError("unsafe_url", "remote helpers (name::address) are not used here")
    if local:
        return _local(text, allow_local)
    if "://" in text:
        return _with_scheme(text)
    found = _SCP.fullmatch(text)
    if found is not None and not (len(found["host"]) == 1 and os.name == "nt"):
        path = found["path"]
        user = f"{found['user']}@" if found["user"] else ""
        if path.lstrip("/").startswith("-") or found["host"].startswith("-"):
            raise RepositoryInputError("unsafe_url", "neither host nor path can begin with a dash")
        return _made(f"{user}{found['host']}:{path}", found["host"], path)
    raise RepositoryInputError(
        "bad_url",
        "this is no address of a repository; use https://host/path, ssh://host/path or user@host:path",
    )


def _with_scheme(text: str) -> RepositoryUrl:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise RepositoryInputError("bad_url", "the address of the repository cannot be understood") from error
    scheme = parts.scheme.lower()
    if scheme not in _SCHEMES:
        raise RepositoryInputError(
            "unsafe_url", f"addresses with {scheme[:20] or 'this scheme'}:// are not used here"
        )
    user_info, _, host_port = parts.netloc.rpartition("@")
    host = host_port
    if port is not None:
        host = host_port.rpartition(":")[0]
    host = host.rstrip(":")
    if not _HOST.fullmatch(host) or host.startswith("-"):
        raise RepositoryInputError("bad_url", "the address of the repository has no usable host")
    if parts.query or parts.fragment:
        raise RepositoryInputError("bad_url", "an address of a repository has no ? or # part")
    user, colon, _ = user_info.partition(":")
    kept = ""
    if scheme == "ssh" and user:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", user) or user.startswith("-"):
            raise RepositoryInputError("bad_url", "the user name in the address cannot be used")
        kept = f"{user}@"
    # With http a user name alone may be a token already: nothing of it is kept.
    dropped = bool(colon) or (bool(user_info) and scheme != "ssh")
    where = f"{host}:{port}" if port is not None else host
    return _made(f"{scheme}://{kept}{where}{parts.path}", where, parts.path, had_credentials=dropped)


def _local(text: str, allowed: bool) -> RepositoryUrl:
    path = text
    if text.lower().startswith("file:"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise RepositoryInputError("bad_url", "a file: address has the form file:///path")
        path = unquote(parts.path)
    if not allowed:
        raise RepositoryInputError(
            "local_refused", "a path of this machine is used only where its user gave it"
        )
    if "\0" in path or "\n" in path:
        raise RepositoryInputError("bad_url", "the path of the repository cannot be used")
    cleaned = os.path.normpath(path)
    return _made(f"file://{quote(cleaned)}", LOCAL_HOST, cleaned.replace(os.sep, "/"), local=True)


def _made(
    text: str, host: str, path: str, *, local: bool = False, had_credentials: bool = False
) -> RepositoryUrl:
    segments = [unquote(part) if not local else part for part in path.split("/") if part]
    if len(segments) > 1 and segments[-1] == ".git":
        segments.pop()  # the git directory of a plain checkout: the same repository
    if segments and segments[-1].lower().endswith(".git") and len(segments[-1]) > 4:
        segments[-1] = segments[-1][:-4]
    if not segments or any(part in (".", "..") or "/" in part or "\0" in part for part in segments):
        raise RepositoryInputError("bad_url", "the address of the repository has no usable path")
    if not local:
        host = host.lower()
    return RepositoryUrl(
        text=text,
        key="/".join((host, *segments)),
        cache_name=_cache_name(host, segments),
        name=_directory_name(segments[-1]),
        local=local,
        had_credentials=had_credentials,
    )


def _cache_name(host: str, segments: list[str]) -> str:
    name = "+".join(_escaped(part) for part in (host, *segments))
    if len(name) > _CACHE_LIMIT_BYTES:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name[:100]}+{digest}"
    return f"{name}.git"


def _escaped(text: str) -> str:
    return "".join(
        char if _CACHE_SAFE.match(char) else "".join(f"%{byte:02X}" for byte in os.fsencode(char))
        for char in text
    )


def _directory_name(segment: str) -> str:
    name = _NAME_UNSAFE.sub("-", segment)[:_NAME_LIMIT].rstrip(". ")
    if not name.strip(".-"):
        return "repository"
    return f"_{name}" if name.startswith(("-", ".")) else name
