"""Takes secrets out of text. What looks like one is one: a word too many is lost rather than a token kept.

By shape: tokens with known beginnings, JSON web tokens, private keys, what stands after ``Bearer`` or in the
user part of an address, values of names like ``password``, and long random-looking words. By value: the
credentials that this machine really has, however they look.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

REMOVED: Final = "[removed]"
LEAST_KNOWN: Final = 8
"""A shorter value is no credential, and taking it out everywhere would make nonsense."""

_SECRET_NAME: Final = (
    r"[\w.-]{0,100}(?:token|secret|passwd|password|passphrase|api[_-]?key|apikey|access[_-]?key|private[_-]?key"
    r"|credential|authorization|auth[_-]?key|cookie|session[_-]?key|signature)s?"
)
_NAMED: Final = re.compile(rf"(?i)^{_SECRET_NAME}$|^(key|auth|pin|pw)$")
_HOLDERS: Final = frozenset({"env", "environment", "environ", "headers", "header"})
"""Tables whose values are removed, whatever their names are."""

_SHAPES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (
        re.compile(
            # one without an end lasts until the next line of a log
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?"
            r"(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|(?=\n\d{4}-\d\d-\d\d )|\Z)",
            re.S,
        ),
        REMOVED,
    ),
    (re.compile(r"\beyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?"), REMOVED),
    (
        re.compile(r"(?i)\b(bearer|basic|digest|token)(\s+)(?=\S*[\d._~+/=-])[\w.~+/=-]{6,}"),
        rf"\1\2{REMOVED}",
    ),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://)[^\s/@?#'\"]*@"), rf"\1{REMOVED}@"),
    (
        re.compile(
            r"\b(?:mat|mul|mdt|mcp|mpt)_[A-Za-z0-9]{8,}"
            r"|\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{8,}"
            r"|\bgh[opusr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{12,}|\bnpm_[A-Za-z0-9]{16,}"
            r"|\bxox[abeoprs]-[\w-]{8,}|\bAIza[\w-]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\bhf_[A-Za-z0-9]{16,}"
            r"|\bya29\.[\w-]{10,}|\bpypi-[\w-]{16,}|\bdop_v1_\w{16,}"
        ),
        REMOVED,
    ),
    (
        # name=value, name: value, "name": "value"; also in the query of an address
        re.compile(
            rf"(?i)((?:^|[\s,;{{(?&\"'\[-]){_SECRET_NAME}[\"']?\s*[=:]\s*)"
            r"(\"(?:[^\"\\]|\\.)*\"|'[^']*'|(?!\[removed\])[^\s,;&)}\]\"']+)"
        ),
        rf"\1{REMOVED}",
    ),
    (re.compile(rf"(?i)(--{_SECRET_NAME}\s+)(?!-|\[removed\])\S+"), rf"\1{REMOVED}"),
    # Long, of all three kinds of characters, and no path or name: random.
    (
        re.compile(
            r"(?<![\w/.-])(?=[A-Za-z0-9_+-]*[a-z])(?=[A-Za-z0-9_+-]*[A-Z])(?=[A-Za-z0-9_+-]*\d)"
            r"[A-Za-z0-9_+-]{32,}={0,2}(?![\w/-]|\.\w)"
        ),
        REMOVED,
    ),
    (re.compile(r"(?<![\w-])[0-9a-f]{40,}(?![\w-])"), REMOVED),
)


class Redactor:
    """Takes out shapes, known values, and (if wished) where the user's home is.

    Args:
        known: Credentials of this machine.
        home: The user's home directory, shown as ``~``; empty: left as it is.
    """

    def __init__(self, known: Iterable[str] = (), home: str = "") -> None:
        wanted = {value.strip() for value in known}
        self._known = sorted((each for each in wanted if len(each) >= LEAST_KNOWN), key=len, reverse=True)
        self._home = home.rstrip("/\\")

    def text(self, text: str) -> str:
        """A text without its secrets."""
        for value in self._known:
            text = text.replace(value, REMOVED)
        for shape, instead in _SHAPES:
            text = shape.sub(instead, text)
        return text.replace(self._home, "~") if len(self._home) > 1 else text

    def value(self, value: Any, *, held: bool = False) -> Any:
        """Numbers, texts, lists and tables without what is secret in them.

        Args:
            held: Inside of a table whose values are removed whatever they are.
        """
        if isinstance(value, Mapping):
            return {
                self.text(str(name)): self._member(str(name), inner, held) for name, inner in value.items()
            }
        if isinstance(value, list | tuple):
            given: list[Any] = []
            for inner in value:
                option = str(given[-1]) if given else ""
                secret = option.startswith("--") and "=" not in option and is_secret_name(option[2:])
                given.append(self.value(inner, held=held or secret))
            return given
        if isinstance(value, bool | int | float) or value is None:
            return value
        return REMOVED if held and str(value) else self.text(str(value))

    def _member(self, name: str, value: Any, held: bool) -> Any:
        if is_secret_name(name) and not isinstance(value, Mapping | list | bool):
            return REMOVED if value not in ("", None) else value
        return self.value(
            value, held=held or is_secret_name(name) or bool(_HOLDERS & set(name.lower().split(".")))
        )


def is_secret_name(name: str) -> bool:
    """Whether what has this name is a secret."""
    return _NAMED.match(name) is not None
