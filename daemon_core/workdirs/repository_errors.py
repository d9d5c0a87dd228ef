"""What can go wrong with a repository, by what the caller can do about it.

::

    RepositoryError              nothing sensible: git failed; the words say how
    ├── RepositoryInputError     fix the input: an address or a ref that cannot be used
    │   └── RefNotFoundError     name another ref
    ├── RepositoryUnavailableError  try again later, or give access: the address is right, its server is not
    │                               reached, refuses, or the disk is full
    └── RepositoryBusyError      try again in a moment: another operation on the same repository takes long

No text ever holds a credential: addresses are kept without them, and what git says is scrubbed.
"""

from __future__ import annotations

import re
from typing import Final

_USER_INFO: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s/@'\"]*@")
_SECRETS: Final = re.compile(
    r"\b(gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{12,}|xox[abp]-[\w-]{10,}|mat_[\w-]{8,})"
)
_HEADER: Final = re.compile(r"(?i)(authorization:\s*\w+\s+|password[=:]\s*|access_token=)\S+")
_LIMIT_CHARS: Final = 600


def scrubbed(text: str) -> str:
    """``text`` without what may be a credential: user part of addresses, tokens by their known beginnings."""
    text = _USER_INFO.sub(r"\g<scheme>", text)
    text = _HEADER.sub(r"\g<1>[removed]", text)
    return _SECRETS.sub("[removed]", text)[:_LIMIT_CHARS]


class RepositoryError(Exception):
    """See the module. ``code`` is stable and names the cause.

    ``git`` (git failed in a way that has no name here), ``no_git`` (git is not installed), ``conflict``
    (something else is in the place of the work tree), ``damaged``.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(scrubbed(message))


class RepositoryInputError(RepositoryError):
    """``bad_url``, ``bad_ref``, ``unsafe_url``, ``credentials_in_url``, ``local_refused``."""


class RefNotFoundError(RepositoryInputError):
    """``unknown_ref``, ``no_default_branch``, ``empty``: there is nothing by that name in the repository."""


class RepositoryUnavailableError(RepositoryError):
    """``access`` (asks for a credential that git's helpers do not have), ``not_found``, ``network``,
    ``timed_out``, ``disk_full``."""


class RepositoryBusyError(RepositoryError):
    """``busy``: the repository is locked by another operation. ``retry_after_s`` is a guess."""

    def __init__(self, message: str, retry_after_s: float = 5.0) -> None:
        super().__init__("busy", message)
        self.retry_after_s = retry_after_s
