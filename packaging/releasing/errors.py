"""What keeps a release from being made. The message is for whoever makes it: what is wrong and what to do."""

from __future__ import annotations


class ReleaseError(Exception):
    """Nothing that clients see has changed, unless the message says so."""


class KeyMissingError(ReleaseError):
    """A key that is needed is in none of the places that were named."""


class PassphraseError(ReleaseError):
    """The passphrase of a key is missing or wrong."""
